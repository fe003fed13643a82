"""The exact counters of every version: one truth for the statistics endpoint, Prometheus and the console.

Plain integers, added to on the event loop only; readers look at them when asked, so the hot path pays a few
additions per request. Kept per (name, version), not per generation: a reload must not make a counter go back.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from tensorquay.core.clock import Clock
from tensorquay.core.ids import VersionKey
from tensorquay.core.messages import BatchStatistics, Duration, MemoryUsage, ModelStatistics

TIME_BUCKETS_NS = tuple(
    int(seconds * 1e9)
    for seconds in (
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    )
)  # fmt: skip
"""Upper bounds of the latency histograms, in nanoseconds; a last bucket holds what is above."""

ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the rows-per-batch histogram."""


class FailureReason(enum.Enum):
    """Why a request failed, as Triton's `reason` label spells it."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


class Histogram:
    """A classic cumulative-on-read histogram of integers."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        """Count `value`, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class _BatchCell:
    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class VersionStatistics:
    """Counters of one version. Loop-confined; owner: `StatisticsTable`."""

    key: VersionKey
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success_count: int = 0
    success_ns: int = 0
    fail_count: int = 0
    fail_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    pending: int = 0
    """Requests accepted and not yet in a run."""
    load_seconds: float = 0.0
    loads: int = 0
    load_failures: int = 0
    failures: dict[FailureReason, int] = field(default_factory=lambda: dict.fromkeys(FailureReason, 0))
    request_time: Histogram = field(default_factory=lambda: Histogram(TIME_BUCKETS_NS))
    queue_time: Histogram = field(default_factory=lambda: Histogram(TIME_BUCKETS_NS))
    compute_time: Histogram = field(default_factory=lambda: Histogram(TIME_BUCKETS_NS))
    batch_rows: Histogram = field(default_factory=lambda: Histogram(ROW_BUCKETS))
    _batches: dict[int, _BatchCell] = field(default_factory=dict)

    def batch_executed(self, *, rows: int, input_ns: int, infer_ns: int, output_ns: int, now_wall_ms: int) -> None:
        """One successful run of the model over `rows` batch elements."""
        self.execution_count += 1
        self.inference_count += rows
        self.last_inference_ms = now_wall_ms
        self.batch_rows.observe(rows)
        self.compute_time.observe(input_ns + infer_ns + output_ns)
        cell = self._batches.get(rows)
        if cell is None:
            cell = self._batches[rows] = _BatchCell()
        cell.count += 1
        cell.input_ns += input_ns
        cell.infer_ns += infer_ns
        cell.output_ns += output_ns

    def request_succeeded(self, queue_ns: int, input_ns: int, infer_ns: int, output_ns: int, total_ns: int) -> None:
        """One request answered; the compute times are those of the run (or runs) it rode in."""
        self.success_count += 1
        self.success_ns += total_ns
        self.queue_ns += queue_ns
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns
        # `observe`, twice, without two calls per request.
        histogram = self.request_time
        histogram.counts[bisect_left(TIME_BUCKETS_NS, total_ns)] += 1
        histogram.total += total_ns
        histogram = self.queue_time
        histogram.counts[bisect_left(TIME_BUCKETS_NS, queue_ns)] += 1
        histogram.total += queue_ns

    def request_failed(self, reason: FailureReason, total_ns: int) -> None:
        """One request answered with an error, or left."""
        self.fail_count += 1
        self.fail_ns += total_ns
        self.failures[reason] += 1

    def snapshot(self, memory: tuple[MemoryUsage, ...] = ()) -> ModelStatistics:
        """The statistics extension's view of these counters."""
        count = self.success_count
        return ModelStatistics(
            name=self.key.name,
            version=str(self.key.version),
            last_inference_ms=self.last_inference_ms,
            inference_count=self.inference_count,
            execution_count=self.execution_count,
            success=Duration(count, self.success_ns),
            fail=Duration(self.fail_count, self.fail_ns),
            queue=Duration(count, self.queue_ns),
            compute_input=Duration(count, self.input_ns),
            compute_infer=Duration(count, self.infer_ns),
            compute_output=Duration(count, self.output_ns),
            batch_stats=tuple(
                BatchStatistics(
                    batch_size=rows,
                    compute_input=Duration(cell.count, cell.input_ns),
                    compute_infer=Duration(cell.count, cell.infer_ns),
                    compute_output=Duration(cell.count, cell.output_ns),
                )
                for rows, cell in sorted(self._batches.items())
            ),
            memory_usage=memory,
        )


class StatisticsTable:
    """Every version's counters, made on first mention and kept for the life of the process. Loop-confined."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._table: dict[VersionKey, VersionStatistics] = {}

    def of(self, key: VersionKey) -> VersionStatistics:
        """The counters of `key`, at zero if it is new."""
        found = self._table.get(key)
        if found is None:
            found = self._table[key] = VersionStatistics(key)
        return found

    def all(self) -> Iterable[VersionStatistics]:
        """All counters, by name and version."""
        return [self._table[key] for key in sorted(self._table)]
