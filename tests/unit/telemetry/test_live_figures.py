"""What happened between two looks: laws of the rates, the percentiles and the sum."""

from __future__ import annotations

import itertools
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.clock import SystemClock
from tensorquay.core.ids import VersionKey
from tensorquay.telemetry.live import (
    NO_COUNTERS,
    ServerCounters,
    Sum,
    VersionCounters,
    change,
    counters_of,
    percentiles,
    version_figures,
)
from tensorquay.telemetry.statistics import (
    TIME_BUCKETS_NS,
    FailureReason,
    StatisticsTable,
    VersionStatistics,
)

COUNT = st.integers(0, 10**9)
BUCKETS = st.binary(min_size=17, max_size=17).map(lambda drawn: tuple(each**3 for each in drawn))
COUNTERS = st.builds(
    VersionCounters,
    answered=COUNT,
    failures=st.tuples(*[COUNT] * len(FailureReason)),
    rows=COUNT,
    runs=COUNT,
    run_ns=st.integers(0, 10**15),
    waiting=st.integers(0, 10**6),
    latency=BUCKETS,
    queue=BUCKETS,
    compute=BUCKETS,
)
SECONDS = st.floats(0.001, 100)


def numbers(value: object) -> list[float]:
    """Every number in a value of figures."""
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


@given(COUNTERS, COUNTERS, SECONDS, st.integers(0, 64))
def test_no_figure_is_negative_or_endless_whatever_the_counters_did(before, after, seconds, instances):
    """Also when they went back: a process that was replaced begins again."""
    found = version_figures("m", "1", change(before, after), seconds=seconds, instances=instances)
    assert all(number >= 0 and math.isfinite(number) for number in numbers(asdict(found)))
    assert found.busy <= 1


@given(BUCKETS)
def test_percentiles_are_in_order_and_within_the_buckets(counts):
    found = percentiles(counts)
    if not any(counts):
        assert found is None
        return
    assert found is not None
    assert 0 <= found.p50 <= found.p95 <= found.p99 <= TIME_BUCKETS_NS[-1] / 1e6


@given(st.lists(st.integers(0, 20 * 10**9), min_size=1, max_size=200))
def test_a_percentile_lies_in_the_bucket_of_the_observation_it_stands_for(times):
    stats = StatisticsTable(SystemClock()).of(VersionKey("m", 1))
    for time in times:
        stats.request_succeeded(0, 0, 0, 0, time)
    found = percentiles(stats.request_time.counts)
    assert found is not None
    for share, shown in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        true = sorted(times)[max(math.ceil(share * len(times)) - 1, 0)]
        upper = next((bound for bound in TIME_BUCKETS_NS if true <= bound), TIME_BUCKETS_NS[-1])
        lower = max((bound for bound in TIME_BUCKETS_NS if bound < true and bound < upper), default=0)
        assert lower / 1e6 - 1e-4 <= shown <= upper / 1e6 + 1e-4


@pytest.mark.parametrize(
    ("buckets", "expected"),
    [
        ({0: 100}, (0.05, 0.095, 0.099)),
        ({0: 50, 1: 50}, (0.1, 0.235, 0.247)),
        ({3: 1}, (0.75, 0.975, 0.995)),
        ({15: 90, 16: 10}, (5 + 5 * 50 / 90, 10.0, 10.0)),
        ({16: 1}, (10.0, 10.0, 10.0)),
    ],
)
def test_percentiles_are_those_of_histogram_quantile(buckets, expected):
    """Worked by hand from the rule: straight lines within a bucket, the highest bound for what lies above it."""
    counts = [buckets.get(number, 0) for number in range(17)]
    scale = 1000 if max(buckets) >= 15 else 1
    found = percentiles(counts)
    assert found is not None
    assert (found.p50, found.p95, found.p99) == pytest.approx([each * scale for each in expected], abs=1e-3)


@given(st.lists(st.tuples(COUNTERS, COUNTERS), max_size=4), SECONDS)
def test_the_server_is_the_sum_of_its_versions(pairs, seconds):
    total, found = Sum(), []
    for before, after in pairs:
        happened = change(before, after)
        total.add(happened)
        found.append(version_figures("m", "1", happened, seconds=seconds, instances=1))
    server = total.figures(ServerCounters(), ServerCounters(), seconds=seconds)
    rounding = 0.001 * (len(pairs) + 1) * (len(FailureReason) + 1)
    for name in ("requests_per_s", "rows_per_s", "runs_per_s"):
        assert getattr(server, name) == pytest.approx(sum(getattr(each, name) for each in found), abs=rounding)
    assert server.failures_per_s == pytest.approx(
        sum(rate for each in found for rate in each.failures_per_s.values()), abs=rounding
    )
    assert server.waiting == sum(each.waiting for each in found)
    assert (server.latency_ms is None) == all(each.latency_ms is None for each in found)


def filled() -> VersionStatistics:
    stats = StatisticsTable(SystemClock()).of(VersionKey("m", 3))
    stats.batch_executed(rows=3, input_ns=1000, infer_ns=400_000, output_ns=1000, now_wall_ms=1)
    for _ in range(3):
        stats.request_succeeded(50_000, 1000, 400_000, 1000, 600_000)
    stats.request_failed(FailureReason.REJECTED, 10)
    stats.pending = 2
    return stats


def test_the_figures_of_a_version_are_what_it_counted():
    found = version_figures("m", "3", change(NO_COUNTERS, counters_of(filled())), seconds=2.0, instances=2)
    assert (found.requests_per_s, found.rows_per_s, found.runs_per_s) == (1.5, 1.5, 0.5)
    assert found.failures_per_s == {"REJECTED": 0.5}
    assert (found.rows_per_run, found.waiting, found.busy) == (3.0, 2, round(402_000 / 4e9, 4))
    assert found.latency_ms is not None
    assert 0.5 <= found.latency_ms.p50 <= 1.0


def test_an_interval_without_anything_says_nothing():
    counters = counters_of(filled())
    found = version_figures("m", "3", change(counters, counters), seconds=1.0, instances=1)
    assert (found.requests_per_s, found.failures_per_s, found.rows_per_run, found.busy) == (0.0, {}, None, 0.0)
    assert found.latency_ms is found.queue_ms is found.compute_ms is None


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=12).map(lambda steps: list(itertools.accumulate(steps))))
def test_rates_over_intervals_add_up_to_the_counter(counts):
    """Nothing is lost or told twice between two looks."""
    looks = [VersionCounters(answered=count) for count in counts]
    rates = [
        version_figures("m", "1", change(before, after), seconds=1.0, instances=1).requests_per_s
        for before, after in itertools.pairwise(looks)
    ]
    assert sum(rates) == counts[-1] - counts[0]


def test_what_the_system_does_not_tell_is_not_made_up():
    found = Sum().figures(ServerCounters(), ServerCounters(), seconds=1.0)
    assert (found.cpu_cores, found.throttled_share, found.memory_bytes, found.latency_ms) == (None, None, None, None)


def test_processor_time_and_throttling_are_of_the_interval():
    before = ServerCounters(cpu_seconds=10.0, cpu_periods=100, throttled_periods=50)
    after = ServerCounters(cpu_seconds=13.0, cpu_periods=120, throttled_periods=55)
    found = Sum().figures(before, after, seconds=2.0)
    assert (found.cpu_cores, found.throttled_share) == (1.5, 0.25)
