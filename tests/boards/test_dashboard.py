"""The dashboard as Grafana imports it: made from its source, whole, and without a panel that says nothing of itself."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import yaml
from tests.boards.expressions import DASHBOARD, panels, rules
from tests.container.files import ROOT
from tests.tools import boards, dashboard
from tests.tools.grafana import COLUMNS

Json = dict[str, Any]

PLACED = [(panel["id"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}


def titled(panel: Json) -> str:
    return str(panel["title"])


def words() -> str:
    """Everything in which a variable may stand."""
    kept = {
        "panels": DASHBOARD["panels"],
        "annotations": DASHBOARD["annotations"],
        "templating": DASHBOARD["templating"],
    }
    return json.dumps(kept)


def test_the_files_are_made_from_their_sources() -> None:
    assert boards.stale() == [], "run make boards"


def test_a_key_that_a_panel_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    changed = tmp_path / "dashboard.yaml"
    changed.write_text(dashboard.SOURCE.read_text().replace("stacked: true", "stakced: true", 1))
    monkeypatch.setattr(dashboard, "SOURCE", changed)
    with pytest.raises(TypeError, match="stakced"):
        dashboard.tensorquay()


def test_a_line_that_does_not_fill_the_grid_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    changed = tmp_path / "dashboard.yaml"
    changed.write_text(dashboard.SOURCE.read_text().replace("width: 8", "width: 7", 1))
    monkeypatch.setattr(dashboard, "SOURCE", changed)
    with pytest.raises(ValueError, match="row 'Overview': a line is 23 wide, the grid 24"):
        dashboard.tensorquay()


def test_numbers_are_given_once_and_places_too() -> None:
    numbers = [number for number, _ in PLACED]
    assert len(set(numbers)) == len(numbers)
    for _, place in PLACED:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= COLUMNS
        assert place["h"] >= 1
    for (one, a), (two, b) in itertools.combinations(PLACED, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, f"panels {one} and {two} overlap"


def test_every_variable_that_is_used_is_there_and_the_other_way_round() -> None:
    used = set(re.findall(r"\$\{?(\w+)\}?", words()))
    assert {name for name in used if not name.startswith("__")} == set(VARIABLES)
    assert {name for name in used if name.startswith("__")} == {"__rate_interval", "__all"}


def test_a_variable_asks_only_for_those_before_it() -> None:
    known: set[str] = set()
    for name, variable in VARIABLES.items():
        asked = set(re.findall(r"\$\{?(\w+)", json.dumps([variable.get("query"), variable.get("datasource")])))
        assert asked <= known, name
        known.add(name)


def test_all_is_everything_also_what_has_no_such_label() -> None:
    for name, variable in VARIABLES.items():
        if variable["type"] == "query":
            assert variable["includeAll"], name
            assert variable["allValue"] == ".*", name
            assert variable["current"]["value"] == ["$__all"], name
            assert f'{name}=~"${name}"' in words().replace('\\"', '"'), name


def test_data_come_from_the_source_that_is_chosen() -> None:
    asking = [*panels(), *(target for panel in panels() for target in panel["targets"])]
    asking += [*DASHBOARD["annotations"]["list"], *(each for each in VARIABLES.values() if each["type"] == "query")]
    assert {json.dumps(each["datasource"]) for each in asking} == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert VARIABLES["datasource"]["query"] == "prometheus"


@pytest.mark.parametrize("panel", panels(), ids=titled)
def test_a_panel_says_what_it_shows(panel: Json) -> None:
    assert len(panel["title"]) <= 40
    assert panel["description"].endswith(".")
    assert len(panel["description"].split()) >= 4
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == list("ABCDEFGH"[: len(letters)])
    for target in panel["targets"]:
        assert 'job="' not in target["expr"], "no fixed job"
        if panel["type"] in {"timeseries", "bargauge", "state-timeline"}:
            assert target["legendFormat"] != "__auto", target["expr"]
    if panel["type"] not in {"heatmap", "table", "state-timeline"}:
        assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("panel", panels(), ids=titled)
def test_a_legend_names_what_series_are_told_apart_by(panel: Json) -> None:
    for target in panel["targets"]:
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        for labels in re.findall(r"^\w+ by \(([^)]*)\)", target["expr"]):
            assert named == {each.strip() for each in labels.split(",")}, target["expr"]


def test_titles_are_not_given_twice() -> None:
    titles = [titled(panel) for panel in panels()]
    assert len(set(titles)) == len(titles)


def test_it_is_what_grafana_is_given_first() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["grafana"]
    home = compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.rpartition("/")[2] == boards.DASHBOARD.rpartition("/")[2]


def test_thresholds_of_panels_are_those_of_alerts() -> None:
    """What is drawn red wakes somebody up."""
    alerts = {rule["alert"]: rule["expr"] for rule in rules()}
    drawn = {
        panel["title"]: panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"]
        for panel in panels()
        if panel["type"] != "heatmap" and panel["type"] != "table"
    }
    for title, alert in {
        "Failing": "TensorquayRequestsFail",
        "Latency p99": "TensorquayLatencyHigh",
        "Utilisation": "TensorquayOverloaded",
        "CPU throttling": "TensorquayThrottled",
        "Longest wait": "TensorquayQueueStuck",
    }.items():
        (bound,) = re.findall(r"> ([\d.]+)\s*$", alerts[alert])
        assert drawn[title] == float(bound), title
