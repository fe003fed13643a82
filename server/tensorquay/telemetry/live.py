"""What happened between two looks at the counters: rates, percentiles, shares. Pure.

Percentiles are interpolated within a histogram's buckets, as Prometheus' `histogram_quantile` does, and so are
estimates: exact at the buckets' bounds, straight lines between them, and never above the highest bound.
Source: Prometheus documentation, "Query functions", histogram_quantile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add, sub

from tensorquay.telemetry.statistics import TIME_BUCKETS_NS, FailureReason, VersionStatistics

Counts = tuple[int, ...]
"""How many observations fell into each bucket of a time histogram; the last one has no upper bound."""

_NOTHING: Counts = (0,) * (len(TIME_BUCKETS_NS) + 1)
_NS = 1_000_000_000
_BUCKETS = len(TIME_BUCKETS_NS)
_REASONS = tuple(FailureReason)


# NOTE(frozen): what is made for every busy version every second is not frozen: that takes three times as long to make.
@dataclass(slots=True)
class VersionCounters:
    """One version's counters at one moment. Everything but `waiting` only ever grows."""

    answered: int = 0
    failures: Counts = (0,) * len(_REASONS)
    rows: int = 0
    runs: int = 0
    run_ns: int = 0
    waiting: int = 0
    latency: Counts = _NOTHING
    queue: Counts = _NOTHING
    compute: Counts = _NOTHING


NO_COUNTERS = VersionCounters()
"""What a version has counted before it is first seen."""


@dataclass(slots=True)
class VersionChange:
    """By how much one version's counters grew in an interval; `waiting` is what waits at its end."""

    answered: int
    failures: Sequence[int]
    rows: int
    runs: int
    run_ns: int
    waiting: int
    latency: Sequence[int]
    queue: Sequence[int]
    compute: Sequence[int]


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """The process at one moment; None: the system does not tell.

    `refused`: requests turned away before any version had them. CPU seconds and periods only ever grow.
    """

    inflight_requests: int = 0
    inflight_bytes: int = 0
    refused: int = 0
    cpu_seconds: float | None = None
    cpu_limit_cores: float | None = None
    cpu_periods: int | None = None
    throttled_periods: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None


@dataclass(slots=True)
class Percentiles:
    """In milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(slots=True)
class VersionFigures:
    """One version during one interval. Percentiles are None when nothing was measured, `rows_per_run` without a run.

    `busy`: share of the interval that its instances spent in runs, 0 to 1. A run counts where it ends.
    """

    model: str
    version: str
    requests_per_s: float
    failures_per_s: Mapping[str, float]
    rows_per_s: float
    runs_per_s: float
    rows_per_run: float | None
    waiting: int
    busy: float
    latency_ms: Percentiles | None
    queue_ms: Percentiles | None
    compute_ms: Percentiles | None


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """All versions together, and the process."""

    requests_per_s: float = 0.0
    failures_per_s: float = 0.0
    rows_per_s: float = 0.0
    runs_per_s: float = 0.0
    inflight_requests: int = 0
    inflight_bytes: int = 0
    waiting: int = 0
    refused_per_s: float = 0.0
    cpu_cores: float | None = None
    cpu_limit_cores: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    throttled_share: float | None = None
    latency_ms: Percentiles | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """One interval that ended at `at_ms` (wall clock) and lasted `seconds`."""

    at_ms: int
    seconds: float
    server: ServerFigures
    versions: Sequence[VersionFigures] = field(default=())


def counters_of(stats: VersionStatistics) -> VersionCounters:
    """What `stats` says now. Costs a few microseconds."""
    answered, rows, runs, run_ns = stats.sums()
    latency, queue, compute = map(tuple, stats.times())
    # By place: by name costs half as much again.
    failures = tuple(stats.failures.values())
    return VersionCounters(answered, failures, rows, runs, run_ns, stats.pending, latency, queue, compute)


def change(before: VersionCounters, after: VersionCounters) -> VersionChange:
    """What happened between two moments."""
    return VersionChange(
        _grown(before.answered, after.answered),
        _since(before.failures, after.failures),
        _grown(before.rows, after.rows),
        _grown(before.runs, after.runs),
        _grown(before.run_ns, after.run_ns),
        after.waiting,
        _since(before.latency, after.latency),
        _since(before.queue, after.queue),
        _since(before.compute, after.compute),
    )


def version_figures(
    model: str, version: str, happened: VersionChange, *, seconds: float, instances: int
) -> VersionFigures:
    """The figures of one version in an interval of `seconds`."""
    runs, rows, failures = happened.runs, happened.rows, happened.failures
    return VersionFigures(
        model=model,
        version=version,
        requests_per_s=_rate(happened.answered, seconds),
        failures_per_s=(
            {why.value: _rate(count, seconds) for why, count in zip(_REASONS, failures, strict=True) if count}
            if any(failures)
            else {}
        ),
        rows_per_s=_rate(rows, seconds),
        runs_per_s=_rate(runs, seconds),
        rows_per_run=round(rows / runs, 2) if runs else None,
        waiting=happened.waiting,
        busy=_share(happened.run_ns, seconds * _NS * max(instances, 1)),
        latency_ms=percentiles(happened.latency),
        queue_ms=percentiles(happened.queue),
        compute_ms=percentiles(happened.compute),
    )


class Sum:
    """What all versions together did in one interval, from what each did. Mutable; owner: one sampling."""

    __slots__ = ("_answered", "_failed", "_latency", "_rows", "_runs", "_waiting")

    def __init__(self) -> None:
        self._answered = self._failed = self._rows = self._runs = self._waiting = 0
        self._latency = list(_NOTHING)

    def add(self, happened: VersionChange) -> None:
        """One more version."""
        self._answered += happened.answered
        self._failed += sum(happened.failures)
        self._rows += happened.rows
        self._runs += happened.runs
        self._waiting += happened.waiting
        self._latency = list(map(add, self._latency, happened.latency))

    def figures(self, before: ServerCounters, after: ServerCounters, *, seconds: float) -> ServerFigures:
        """The server's own line."""
        cpu = None
        if before.cpu_seconds is not None and after.cpu_seconds is not None and seconds > 0:
            # A front-end process that has ended takes its seconds with it.
            cpu = round(max(after.cpu_seconds - before.cpu_seconds, 0.0) / seconds, 3)
        return ServerFigures(
            requests_per_s=_rate(self._answered, seconds),
            failures_per_s=_rate(self._failed, seconds),
            rows_per_s=_rate(self._rows, seconds),
            runs_per_s=_rate(self._runs, seconds),
            inflight_requests=after.inflight_requests,
            inflight_bytes=after.inflight_bytes,
            waiting=self._waiting,
            refused_per_s=_rate(_grown(before.refused, after.refused), seconds),
            cpu_cores=cpu,
            cpu_limit_cores=after.cpu_limit_cores,
            memory_bytes=after.memory_bytes,
            memory_limit_bytes=after.memory_limit_bytes,
            throttled_share=_throttled(before, after),
            latency_ms=percentiles(self._latency),
        )


def percentiles(counts: Sequence[int]) -> Percentiles | None:
    """Of a time histogram's counts, not cumulative; None when they are all zero."""
    below = list(accumulate(counts))
    if not below[-1]:
        return None
    return Percentiles(
        round(quantile(0.5, below) / 1e6, 4),
        round(quantile(0.95, below) / 1e6, 4),
        round(quantile(0.99, below) / 1e6, 4),
    )


def quantile(share: float, below: Sequence[int]) -> float:
    """The time in nanoseconds that `share` > 0 of the observations do not exceed, interpolated in its bucket.

    What lies above the highest bound counts as that bound.

    Args: below: cumulative counts, of all buckets; the last is not 0.
    """
    rank = share * below[-1]
    bucket = bisect_left(below, rank)
    if bucket >= _BUCKETS:
        return TIME_BUCKETS_NS[-1]
    if not bucket:
        return TIME_BUCKETS_NS[0] * rank / below[0]
    lower, fewer = TIME_BUCKETS_NS[bucket - 1], below[bucket - 1]
    return lower + (TIME_BUCKETS_NS[bucket] - lower) * (rank - fewer) / (below[bucket] - fewer)


def _grown(before: int, after: int) -> int:
    """By how much a counter grew; one that went back has begun again at zero."""
    return after - before if after >= before else after


def _since(before: Counts, after: Counts) -> Sequence[int]:
    grown = list(map(sub, after, before))
    return after if min(grown) < 0 else grown


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0


def _share(part: float, whole: float) -> float:
    return round(min(part / whole, 1.0), 4) if whole > 0 else 0.0


def _throttled(before: ServerCounters, after: ServerCounters) -> float | None:
    """Share of the scheduler's periods in which the container was held back."""
    if None in {before.cpu_periods, after.cpu_periods, before.throttled_periods, after.throttled_periods}:
        return None
    assert before.cpu_periods is not None
    assert after.cpu_periods is not None
    assert before.throttled_periods is not None
    assert after.throttled_periods is not None
    periods = _grown(before.cpu_periods, after.cpu_periods)
    return _share(_grown(before.throttled_periods, after.throttled_periods), periods)
