"""The dashboard of docker/grafana/dashboard.yaml in Grafana's own terms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tests.tools import grafana
from tests.tools.grafana import Json, Line, Query, Row

SOURCE = Path(__file__).absolute().parents[2] / "docker" / "grafana" / "dashboard.yaml"

_KINDS: dict[str, Callable[..., Json]] = {
    "stat": grafana.stat,
    "lines": grafana.lines,
    "heatmap": grafana.heatmap,
    "bars": grafana.bars,
    "states": grafana.states,
    "table": grafana.table,
}


def tensorquay() -> Json:
    """The whole dashboard. Raises: TypeError for a key that a panel of its kind does not have."""
    said = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    selectors = {f"<{name}>": text for name, text in said.pop("selectors").items()}
    return _made(_filled(said, selectors))


def _made(said: dict[str, Any]) -> Json:
    variables = [
        grafana.values_of(each["name"], each["label"], each["description"], each["values"])
        for each in said.pop("variables")
    ]
    annotations = [
        grafana.marks(each["name"], each["expr"], each["text"], each["color"]) for each in said.pop("annotations")
    ]
    rows = [
        Row(
            row["title"],
            [
                Line(line["height"], [(each.pop("width"), _panel(each)) for each in line["panels"]])
                for line in row["lines"]
            ],
        )
        for row in said.pop("rows")
    ]
    return grafana.dashboard(
        rows=rows, variables=[grafana.source_variable(), *variables], annotations=annotations, **said
    )


def _panel(said: dict[str, Any]) -> Json:
    kind = said.pop("kind")
    queries = [Query(**each) for each in said.pop("queries")]
    if "thresholds" in said:
        first = said["thresholds"].pop("first", "green")
        said["thresholds"] = grafana.steps(*said["thresholds"].items(), first=first)
    return _KINDS[kind](queries=queries, **said)


def _filled(said: Any, selectors: dict[str, str]) -> Any:
    """`said` with the selectors in the place of their names, and without the ends of lines that YAML leaves."""
    if isinstance(said, dict):
        return {key: _filled(value, selectors) for key, value in said.items()}
    if isinstance(said, list):
        return [_filled(each, selectors) for each in said]
    if isinstance(said, str):
        for name, text in selectors.items():
            said = said.replace(name, text)
        return said.rstrip("\n")
    return said
