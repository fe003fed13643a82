"""Every query of dashboard, alerts and autoscalers, run by a real Prometheus that has watched a real server at work.

Each has something to show. A query on a metric that this machine cannot give (limits on CPU and memory, which need
control groups) is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.boards.expressions import (
    ALL,
    DASHBOARD,
    WINDOW,
    Panel,
    filled,
    hurried,
    panel_queries,
    rules,
    scaling_queries,
    short,
    unbounded,
)
from tests.boards.prometheus import STEP_S, Prometheus, Series, Target, program, prometheus
from tests.boards.scene import Stage, limits
from tests.container.engine import free_ports
from tests.support import ask
from tests.support.serving import RunningServer

pytestmark = pytest.mark.slow

POD = {"namespace": "tensorquay", "pod": "a"}

NEEDS_LIMITS = re.compile(r"tensorquay_container_(cpu_limit|cpu_periods|cpu_throttled|memory_limit)\w*")

QUIET = {
    "CPU throttling A": "nothing here uses its CPU up",
    "Time lost by throttling A": "idem",
    "Front ends B": "no front end ends",
}
"""What shows 0 all the time, and why; everything else has to show more."""

PANELS = list(panel_queries())
WITHOUT_PODS = ALL | {"job": "plain"}
"""The same server, as a Prometheus outside Kubernetes sees it."""

FEW = ALL | {"job": "tensorquay", "pod": "a", "model": "(steady|waits)", "version": "1"}
"""Two models, as Grafana writes a choice of several."""


@dataclass(frozen=True)
class Watched:
    """A Prometheus that has seen the scene, which began and ended then."""

    prometheus: Prometheus
    server: RunningServer
    start: float
    end: float

    def over(self, expression: str) -> list[Series]:
        """The series that have numbers, during the scene."""
        return [each for each in self.prometheus.over(expression, self.start, self.end) if each.values]

    def now(self, expression: str) -> list[Series]:
        """The series that have a number at its end."""
        return [each for each in self.prometheus.now(expression) if each.values]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    program()
    folder: Path = tmp_path_factory.mktemp("watched")
    (port,) = free_ports(1)
    targets = [Target("tensorquay", f"127.0.0.1:{port}", POD), Target("plain", f"127.0.0.1:{port}", {})]
    # Prometheus first: it takes five seconds until it looks at its targets.
    with limits() as joined, prometheus(folder, targets, hurried()) as seen:
        start = seen.seconds()
        stage = Stage(folder, joined, port)
        try:
            stage.play(seen)
            answered = int(ask.metric(stage.server, "nv_inference_request_success"))
            seen.sees(f'sum(nv_inference_request_success{{job="plain"}}) >= {answered}', "everything")
            # A step beyond the last sample, or the last point of a range may lie before it.
            yield Watched(seen, stage.server, start, seen.seconds() + STEP_S)
            assert stage.server.stop() == 0, stage.server.told()
        finally:
            stage.server.end()


def skip_without_limits(expression: str, watched: Watched) -> None:
    if NEEDS_LIMITS.search(expression) and not watched.now("tensorquay_container_cpu_limit_cores"):
        pytest.skip(f"no control group can be made here: {expression} was NOT run")


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_a_panel_has_something_to_show(panel: Panel, watched: Watched) -> None:
    look = watched.now if panel.now else watched.over
    skip_without_limits(panel.expr, watched)
    for variables in (ALL, WITHOUT_PODS):
        expression = filled(panel.expr, variables)
        found = look(expression)
        assert found, f"nothing to show:\n{expression}"
        if str(panel) not in QUIET:
            assert any(value != 0 for each in found for value in each.values), f"always 0:\n{expression}"
    for each in look(filled(panel.expr, FEW)):
        assert each.labels.get("model", "steady") in {"steady", "waits"}
        assert each.labels.get("pod", "a") == "a"


@pytest.mark.parametrize("variable", [each["name"] for each in DASHBOARD["templating"]["list"]])
def test_a_variable_has_something_to_choose(variable: str, watched: Watched) -> None:
    (found,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == variable)
    if found["type"] == "datasource":
        return
    told = re.fullmatch(r"label_values\((.*), (\w+)\)", found["query"]["query"])
    assert told is not None
    assert told[2] == variable
    values = watched.prometheus.label_values(variable, filled(told[1], ALL))
    wanted = {
        "job": {"tensorquay", "plain"},
        "pod": {"a"},
        "instance": {watched.server.metrics},
        "model": {"steady", "waits", "fills", "folds", "brought", "kept"},
        "version": {"1", "2", "3"},
    }
    assert set(values) >= wanted[variable]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_sees_what_it_judges(rule: dict[str, str], watched: Watched) -> None:
    """Whether it is well or not: with its bounds taken away there is always something to see."""
    # No GPU here: what is asked for beside the CPU is the CPU.
    expression = unbounded(short(rule["expr"])).replace('provider!="CPU', 'provider="CPU')
    skip_without_limits(expression, watched)
    assert watched.over(expression), expression


def test_alerts_that_this_scene_is_about_fired_and_no_others(watched: Watched) -> None:
    """The rules themselves, evaluated all the time, but for their pauses and the length of their windows."""
    fired = {each.labels["alertname"] for each in watched.over('ALERTS{alertstate="firing"}')}
    assert fired >= {
        "TensorquaySwapFailed",
        "TensorquayRequestsFail",
        "TensorquayRequestsRefused",
        "TensorquayImportFailed",
        "TensorquayOptimizationFailed",
    }
    assert not fired & {
        "TensorquayRestarts",
        "TensorquayFrontEndRestarts",
        "TensorquayMemoryNearLimit",
        "TensorquayNodesOnCpu",
    }


@pytest.mark.parametrize("asked", scaling_queries())
def test_an_autoscaler_is_told_a_number(asked: str, watched: Watched) -> None:
    expression = short(scaling_queries()[asked])
    found = watched.over(expression)
    assert found, expression
    assert any(value > 0 for each in found for value in each.values), expression


def test_windows_and_bounds_are_found() -> None:
    """What the tests above rely on."""
    assert short("rate(a[5m]) > increase(b[30m])") == f"rate(a[{WINDOW}]) > increase(b[{WINDOW}])"
    told = 'max by (pod) (a{state="READY"}) == 0 and b > 0.01 or c / d >= 1'
    assert unbounded(told) == 'max by (pod) (a{state="READY"}) > -Inf and b > -Inf or c / d > -Inf'
    assert unbounded("a > b") == "a > b"
    assert filled('a{job=~"$job"}[$__rate_interval]', {"job": ".*"}) == f'a{{job=~".*"}}[{WINDOW}]'
