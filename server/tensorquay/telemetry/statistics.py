"""The exact counters of every version: one truth for the statistics endpoint, Prometheus and the console.

Plain integers, added to on the event loop only; readers look at them when asked, so the hot path pays a few
additions per request. Kept per (name, version), not per generation: a reload must not make a counter go back.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from tensorquay.core.clock import Clock
from tensorquay.core.errors import ErrorKind, Rejection
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

KEPT_NS = 600 * 1_000_000_000
"""How long the counters of a version stay that was unloaded: everybody who scrapes sees its last requests.

Twice as long as Prometheus looks back. Were they kept for ever, a page would grow with every version ever dropped.
"""


class FailureReason(enum.Enum):
    """Why a request failed, as Triton's `reason` label spells it."""

    REJECTED = "REJECTED"
    CANCELED = "CANCELED"
    BACKEND = "BACKEND"
    OTHER = "OTHER"


@dataclass(frozen=True, slots=True)
class Histogram:
    """A classic histogram of integers as it is now, cumulative only when it is written.

    Attributes:
        bounds: upper bounds, ascending; `counts` has one more place, for what is above the last.
        total: the sum of what was observed.
    """

    bounds: tuple[int, ...]
    counts: Sequence[int]
    total: int


def _counts() -> list[int]:
    return [0] * (len(TIME_BUCKETS_NS) + 1)


@dataclass(slots=True)
class _BatchCell:
    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class VersionStatistics:
    """Counters of one version. Loop-confined; owner: `StatisticsTable`.

    Only what cannot be had from something else is added to per request and per run; the rest is reckoned when asked.
    """

    key: VersionKey
    last_inference_ms: int = 0
    success_ns: int = 0
    fail_count: int = 0
    fail_ns: int = 0
    queue_ns: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    pending: int = 0
    """Requests accepted and not yet in a run."""
    offered_rows: int = 0
    """Batch elements that came to be run: those that waited, and those turned away for lack of capacity."""
    failed_rows: int = 0
    """Batch elements whose run failed: they had their turn."""
    load_seconds: float = 0.0
    loaded_ms: int = 0
    """When the last load ended well, by the wall clock; 0: none did."""
    loads: int = 0
    load_failures: int = 0
    failures: dict[FailureReason, int] = field(default_factory=lambda: dict.fromkeys(FailureReason, 0))
    rejected: dict[Rejection, int] = field(default_factory=lambda: dict.fromkeys(Rejection, 0))
    # Places of the histograms below.
    _request: list[int] = field(default_factory=_counts)
    _queue: list[int] = field(default_factory=_counts)
    _compute: list[int] = field(default_factory=_counts)
    _input: list[int] = field(default_factory=_counts)
    _infer: list[int] = field(default_factory=_counts)
    _output: list[int] = field(default_factory=_counts)
    _batches: dict[int, _BatchCell] = field(default_factory=dict)

    def batch_executed(self, *, rows: int, input_ns: int, infer_ns: int, output_ns: int, now_wall_ms: int) -> None:
        """One successful run of the model over `rows` batch elements."""
        self.last_inference_ms = now_wall_ms
        cell = self._batches.get(rows)
        if cell is None:
            cell = self._batches[rows] = _BatchCell()
        cell.count += 1
        cell.input_ns += input_ns
        cell.infer_ns += infer_ns
        cell.output_ns += output_ns
        self._compute[bisect_left(TIME_BUCKETS_NS, input_ns + infer_ns + output_ns)] += 1
        self._input[bisect_left(TIME_BUCKETS_NS, input_ns)] += 1
        self._infer[bisect_left(TIME_BUCKETS_NS, infer_ns)] += 1
        self._output[bisect_left(TIME_BUCKETS_NS, output_ns)] += 1

    def request_succeeded(self, queue_ns: int, input_ns: int, infer_ns: int, output_ns: int, total_ns: int) -> None:
        """One request answered; the compute times are those of the run (or runs) it rode in."""
        self.success_ns += total_ns
        self.queue_ns += queue_ns
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns
        self._request[bisect_left(TIME_BUCKETS_NS, total_ns)] += 1
        self._queue[bisect_left(TIME_BUCKETS_NS, queue_ns)] += 1

    def request_failed(self, reason: FailureReason, total_ns: int, rejection: Rejection | None = None) -> None:
        """One request answered with an error, or left; `rejection` says which bound of ours it met, if it did."""
        self.fail_count += 1
        self.fail_ns += total_ns
        self.failures[reason] += 1
        if rejection is not None:
            self.rejected[rejection] += 1

    # -- what follows from these

    def sums(self) -> tuple[int, int, int, int]:
        """Requests answered, batch elements run, runs, and nanoseconds they took: all of it in one look."""
        rows = runs = run_ns = 0
        for size, cell in self._batches.items():
            rows += size * cell.count
            runs += cell.count
            run_ns += cell.input_ns + cell.infer_ns + cell.output_ns
        return sum(self._request), rows, runs, run_ns

    def times(self) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """The counts of `request_time`, `queue_time` and `compute_time` as they are now; not to be kept."""
        return self._request, self._queue, self._compute

    @property
    def success_count(self) -> int:
        """Requests answered."""
        return sum(self._request)

    @property
    def execution_count(self) -> int:
        """Runs."""
        return sum(cell.count for cell in self._batches.values())

    @property
    def inference_count(self) -> int:
        """Batch elements of all runs."""
        return sum(rows * cell.count for rows, cell in self._batches.items())

    @property
    def request_time(self) -> Histogram:
        """From arrival to answer, per answered request, in nanoseconds."""
        return Histogram(TIME_BUCKETS_NS, self._request, self.success_ns)

    @property
    def queue_time(self) -> Histogram:
        """In the queue, per answered request, in nanoseconds."""
        return Histogram(TIME_BUCKETS_NS, self._queue, self.queue_ns)

    @property
    def compute_time(self) -> Histogram:
        """All of a run, in nanoseconds."""
        cells = self._batches.values()
        total = sum(cell.input_ns + cell.infer_ns + cell.output_ns for cell in cells)
        return Histogram(TIME_BUCKETS_NS, self._compute, total)

    @property
    def input_time(self) -> Histogram:
        """Preparing a run's inputs, in nanoseconds."""
        return Histogram(TIME_BUCKETS_NS, self._input, sum(cell.input_ns for cell in self._batches.values()))

    @property
    def infer_time(self) -> Histogram:
        """Running the model, in nanoseconds."""
        return Histogram(TIME_BUCKETS_NS, self._infer, sum(cell.infer_ns for cell in self._batches.values()))

    @property
    def output_time(self) -> Histogram:
        """Taking a run's outputs, in nanoseconds."""
        return Histogram(TIME_BUCKETS_NS, self._output, sum(cell.output_ns for cell in self._batches.values()))

    @property
    def batch_rows(self) -> Histogram:
        """Batch elements per run."""
        counts = [0] * (len(ROW_BUCKETS) + 1)
        for rows, cell in self._batches.items():
            counts[bisect_left(ROW_BUCKETS, rows)] += cell.count
        return Histogram(ROW_BUCKETS, counts, self.inference_count)

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


@dataclass(slots=True)
class Swaps:
    """Replacements of serving versions of one model: how many took place, and how many failed and left the old one."""

    swapped: int = 0
    failed: int = 0


class StatisticsTable:
    """Every version's counters, made on first mention and kept while anybody may ask for them. Loop-confined.

    Attributes:
        refusals: inference requests that were answered with an error before a version could count them, by kind.
        swaps: by model; a model is there from its first load on.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.refusals = dict.fromkeys(ErrorKind, 0)
        self.swaps: dict[str, Swaps] = {}
        self._table: dict[VersionKey, VersionStatistics] = {}
        self._left_ns: dict[VersionKey, int] = {}

    def of(self, key: VersionKey) -> VersionStatistics:
        """The counters of `key`, at zero if it is new."""
        found = self._table.get(key)
        if found is None:
            found = self._table[key] = VersionStatistics(key)
            self.swaps.setdefault(key.name, Swaps())
        return found

    def refused(self, kind: ErrorKind) -> None:
        """An inference request was answered with an error of this kind, and no version knows of it."""
        self.refusals[kind] += 1

    def forget_all_but(self, present: Collection[VersionKey]) -> None:
        """Forget the counters of versions that have not been `present` for `KEPT_NS`; a model's swaps go with its last.

        To be called now and then: how long a version is away is counted from the first call that misses it.
        """
        now_ns = self.clock.now_ns()
        self._left_ns = {key: self._left_ns.get(key, now_ns) for key in self._table.keys() - present}
        gone = [key for key, left_ns in self._left_ns.items() if now_ns - left_ns >= KEPT_NS]
        for key in gone:
            del self._table[key], self._left_ns[key]
        if gone:
            names = {key.name for key in self._table}
            self.swaps = {name: swaps for name, swaps in self.swaps.items() if name in names}

    def unordered(self) -> Sequence[VersionStatistics]:
        """All counters, as they are now."""
        return list(self._table.values())

    def all(self) -> Iterable[VersionStatistics]:
        """All counters, by name and version."""
        return [self._table[key] for key in sorted(self._table)]
