"""The sampler and the history: what is left out, what is kept, what stays bounded."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.ids import VersionKey
from tensorquay.live.history import History
from tensorquay.live.sampler import Sampler
from tensorquay.telemetry.live import ServerCounters
from tensorquay.telemetry.statistics import StatisticsTable, VersionStatistics
from tensorquay.testing.manual_clock import ManualClock


def sampler(table: StatisticsTable, clock: ManualClock, **options: object) -> Sampler:
    made = Sampler(table, ServerCounters, lambda _key: 1, clock=clock, **options)  # type: ignore[arg-type]
    made.begin()
    return made


def answer(stats: VersionStatistics, times: int = 1) -> None:
    for _ in range(times):
        stats.request_succeeded(1000, 1000, 1000, 1000, 5000)


async def test_only_versions_that_did_something_are_told():
    clock = ManualClock()
    table = StatisticsTable(clock)
    idle, busy, waiting = (table.of(VersionKey(name, 1)) for name in ("idle", "busy", "waiting"))
    looks = sampler(table, clock)
    answer(busy, 4)
    waiting.pending = 3
    clock.advance(s=2)
    figures = await looks.sample()
    assert {each.model: (each.requests_per_s, each.waiting) for each in figures.versions} == {
        "busy": (2.0, 0),
        "waiting": (0.0, 3),
    }
    assert (figures.seconds, figures.server.requests_per_s, figures.server.waiting) == (2.0, 2.0, 3)
    waiting.pending = 0
    answer(idle)
    clock.advance(s=1)
    assert [each.model for each in (await looks.sample()).versions] == ["idle"]


async def test_a_version_that_appears_between_two_looks_is_counted_from_zero():
    clock = ManualClock()
    table = StatisticsTable(clock)
    looks = sampler(table, clock)
    answer(table.of(VersionKey("new", 7)), 5)
    clock.advance(s=1)
    [found] = (await looks.sample()).versions
    assert (found.model, found.version, found.requests_per_s) == ("new", "7", 5.0)


async def test_many_busy_versions_are_looked_at_in_several_turns_and_none_is_missed():
    """Each look at the processor's time is as if a long time had passed; versions are added meanwhile."""
    clock = ManualClock()
    table = StatisticsTable(clock)
    for number in range(100):
        answer(table.of(VersionKey("m", number)))
    ticks = iter(range(0, 10**12, 10**9))
    looks = sampler(table, clock, cpu_ns=lambda: next(ticks))
    clock.advance(s=1)
    sampling = looks.sample()
    turns = 0
    try:
        while True:
            sampling.send(None)
            turns += 1
            table.of(VersionKey("late", turns))
    except StopIteration as ended:
        figures = ended.value
    assert turns >= 5
    assert len(figures.versions) == 100
    assert figures.server.requests_per_s == 100.0
    assert looks.cost_ns > 0


@given(st.lists(st.integers(2, 400), max_size=120), st.integers(1, 50), st.integers(100, 2000))
def test_a_history_is_bounded_in_order_and_has_the_newest(sizes, most_points, most_bytes):
    history = History(most_points=most_points, most_bytes=most_bytes)
    for number, size in enumerate(sizes):
        history.add(json.dumps([number, "x" * size]).encode())
        told = [each[0] for each in json.loads(history.encoded())["points"]]
        assert told == sorted(set(told))
        assert told[-1] == number
        assert len(told) <= most_points
        assert len(history.encoded()) <= most_bytes + 500 + len(told) + 20


def test_a_history_gets_coarser_in_its_older_half_only():
    history = History(most_points=300, most_bytes=1000)
    for number in range(101):
        history.add(b"%010d" % (number + 10**9))
    told = [each - 10**9 for each in json.loads(history.encoded())["points"]]
    assert told[-50:] == list(range(51, 101))
    assert 20 <= len(told[:-50]) < 51
