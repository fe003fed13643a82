"""The window of the utilization: remembered by a timer, whoever asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from tensorquay.core.ids import VersionKey
from tensorquay.telemetry.utilization import TICK_S, WINDOW_S, UtilizationMeter, VersionWork, Work

S = 10**9
M = VersionKey("m", 1)


class Counters:
    """A version with one instance that is busy half of the time, until it is idle."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self.rows = 0
        self.looks = 0

    def look(self) -> Work:
        self.looks += 1
        return Work(
            at_ns=int(self.at_s * S), versions={M: VersionWork(self.rows, self.rows, self.rows * S // 2, slots=1)}
        )

    def second(self, rows: int) -> None:
        self.at_s += 1
        self.rows += rows


def test_what_is_longer_ago_than_the_window_is_forgotten() -> None:
    counters = Counters()
    meter = UtilizationMeter(counters.look, cores=2)
    values = []
    for second in range(1, 121):
        counters.second(rows=1 if second <= 60 else 0)
        values.append(meter.value())
        if second % TICK_S == 0:
            meter.remember()
    assert all(abs(value - 0.5) < 1e-9 for value in values[:60])
    assert values[60 + int(WINDOW_S + TICK_S)] == 0
    falling = values[60 : 60 + int(WINDOW_S)]
    assert all(later <= before for before, later in pairwise(falling))


def test_asking_often_changes_nothing() -> None:
    seldom, often = Counters(), Counters()
    one, other = (UtilizationMeter(each.look, cores=2) for each in (seldom, often))
    for second in range(1, 61):
        for counters in (seldom, often):
            counters.second(rows=second % 3)
        for _ in range(5):
            other.value()
        if second % TICK_S == 0:
            one.remember()
            other.remember()
    assert one.value() == other.value()


@dataclass
class Timer:
    delay_s: float
    what: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


class Timers:
    """An event loop of which only the timers are there; they run when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Timer] = []

    def call_later(self, delay_s: float, what: Callable[[], None]) -> Timer:
        self.waiting.append(Timer(delay_s, what))
        return self.waiting[-1]

    def run(self) -> list[float]:
        """Run those that wait; says when they were due."""
        due, self.waiting = [each for each in self.waiting if not each.cancelled], []
        for each in due:
            each.what()
        return [each.delay_s for each in due]


def test_it_remembers_by_itself_until_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: timers)
    counters = Counters()
    meter = UtilizationMeter(counters.look, cores=2)
    meter.start()
    assert [timers.run() for _ in range(5)] == [[TICK_S]] * 5
    assert counters.looks == 1 + 5
    meter.stop()
    assert timers.run() == []
    assert counters.looks == 1 + 5
    meter.stop()
