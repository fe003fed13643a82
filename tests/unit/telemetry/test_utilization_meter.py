"""The window of the utilization: remembered by a timer, whoever asks."""

from __future__ import annotations

import asyncio
from itertools import pairwise

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


async def test_it_remembers_by_itself_until_it_is_stopped(monkeypatch) -> None:
    monkeypatch.setattr("tensorquay.telemetry.utilization.TICK_S", 0.001)
    counters = Counters()
    meter = UtilizationMeter(counters.look, cores=2)
    meter.start()
    async with asyncio.timeout(20):
        while counters.looks < 5:
            await asyncio.sleep(0.001)
    meter.stop()
    looks = counters.looks
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert counters.looks == looks
    meter.stop()
