"""Versions come and go for months: what is kept of those that are gone has an end, their last requests are told."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.ids import VersionKey
from tensorquay.live.sampler import Sampler
from tensorquay.telemetry.live import ServerCounters
from tensorquay.telemetry.prometheus import Metrics, ServerFigures
from tensorquay.telemetry.statistics import KEPT_NS, StatisticsTable
from tensorquay.testing import ManualClock

OLD, NEW = VersionKey("m", 1), VersionKey("m", 2)

steps = st.lists(
    st.tuples(st.integers(0, KEPT_NS), st.sets(st.sampled_from([VersionKey(n, v) for n in "ab" for v in (1, 2)])))
)


@given(steps)
def test_a_version_is_kept_while_it_is_there_and_for_its_time_after(history: list[tuple[int, set[VersionKey]]]) -> None:
    clock = ManualClock()
    table = StatisticsTable(clock)
    missed_ns: dict[VersionKey, int] = {}
    for pause_ns, present in history:
        for key in present:
            table.of(key)
            missed_ns.pop(key, None)
        now_ns = clock.advance(pause_ns)
        known = {stats.key for stats in table.all()}
        table.forget_all_but(present)
        for key in known - present:
            missed_ns.setdefault(key, now_ns)
        expected = {key for key in known if key in present or now_ns - missed_ns[key] < KEPT_NS}
        assert {stats.key for stats in table.all()} == expected
        assert set(table.swaps) == {key.name for key in expected}
        missed_ns = {key: ns for key, ns in missed_ns.items() if key in expected}
    table.forget_all_but(())
    clock.advance(KEPT_NS)
    table.forget_all_but(())
    assert table.all() == []
    assert table.swaps == {}


def test_a_thousand_drops_leave_a_page_and_a_sampler_of_one_version() -> None:
    clock = ManualClock()
    table = StatisticsTable(clock)
    metrics = Metrics(table, ServerFigures(states=list), build={"version": "1", "python": "3"})
    sampler = Sampler(table, ServerCounters, lambda _key: 1, clock=clock)
    sampler.begin()

    async def drops() -> list[int]:
        sizes = []
        for number in range(1, 1001):
            present = VersionKey("m", number)
            table.of(present).request_succeeded(1, 1, 1, 1, 4)
            clock.advance(KEPT_NS // 4)
            table.forget_all_but({present})
            if number % 100 == 0:
                sizes.append(len((await metrics.render())[0]))
                figures = await sampler.sample()
                assert 1 <= len(figures.versions) <= 5
        return sizes

    sizes = asyncio.run(drops())
    assert max(sizes) < 1.05 * min(sizes)
    assert len(metrics._versions._known) <= 6
    assert len(sampler._seen) <= 5


def test_its_last_requests_can_be_scraped_and_one_that_comes_back_goes_on() -> None:
    clock = ManualClock()
    table = StatisticsTable(clock)
    table.of(OLD).request_succeeded(1, 1, 1, 1, 4)
    table.of(NEW)
    table.forget_all_but({NEW})
    clock.advance(KEPT_NS - 1)
    table.forget_all_but({NEW})
    assert table.of(OLD).success_count == 1
    table.forget_all_but({OLD, NEW})
    clock.advance(1)
    table.forget_all_but({NEW})
    assert table.of(OLD).success_count == 1, "the time begins anew with each absence"
    clock.advance(KEPT_NS)
    table.forget_all_but({NEW})
    assert table.of(OLD).success_count == 0
