"""What the composition root tells metrics: which versions' counters are kept."""

from __future__ import annotations

from typing import Any

from tensorquay.core.ids import VersionId, VersionKey
from tensorquay.engine import AdmissionCounters
from tensorquay.figures import Figures
from tensorquay.lifecycle.plan import Row
from tensorquay.lifecycle.state import State
from tensorquay.lifecycle.table import UNLOADED
from tensorquay.telemetry.devices import Devices
from tensorquay.telemetry.statistics import KEPT_NS, StatisticsTable
from tensorquay.testing import ManualClock


class _Manager:
    """Has rows, and nothing that serves."""

    def __init__(self) -> None:
        self.found: list[Row] = []

    def rows(self) -> tuple[Row, ...]:
        return tuple(self.found)

    def all_ready(self) -> tuple[Any, ...]:
        return ()


def test_counters_of_what_was_unloaded_or_is_gone_have_an_end_and_those_of_failures_have_not() -> None:
    clock = ManualClock()
    table, manager = StatisticsTable(clock), _Manager()
    figures = Figures(
        table,
        manager,  # type: ignore[arg-type]
        AdmissionCounters(),
        frontends=None,
        imports=None,
        optimizations=None,
        devices=Devices(clock),
    )
    for name, state, reason in (
        ("serves", State.READY, ""),
        ("loads", State.LOADING, ""),
        ("broken", State.UNAVAILABLE, "no ONNX model"),
        ("unloaded", State.UNAVAILABLE, UNLOADED),
    ):
        manager.found.append(Row(VersionId(name, 1, 1), state, stamp=None, reason=reason))  # type: ignore[arg-type]
        table.of(VersionKey(name, 1))
    table.of(VersionKey("taken away", 1))
    for _ in range(2):
        figures.forget_what_is_gone()
        clock.advance(KEPT_NS - 1)
    assert len(table.all()) == 5
    clock.advance(1)
    figures.forget_what_is_gone()
    assert {stats.key.name for stats in table.all()} == {"serves", "loads", "broken"}
