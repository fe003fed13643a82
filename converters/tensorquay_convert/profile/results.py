"""What a profile found: plain values; `optimize.plain` writes them to `profile.json`.

Numbers that do not exist are None. Times are in seconds and memory in bytes unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorquay_convert.optimize.results import Machine, Point, Subject

SCHEMA = "tensorquay.profile/1"


@dataclass(frozen=True, slots=True)
class NodeTime:
    """One node of the graph that really runs, over all measured runs.

    Args:
        node: its name there; fused nodes have names of the runtime's making.
        seconds: time in it, without that of nodes in its subgraphs.
        share: of the time in all nodes.
        shapes: of its inputs in one of the calls, as "float32[8,3,224,224]"; empty where the runtime does not tell.
        weight_bytes, output_bytes: of one call.
    """

    node: str
    operator: str
    provider: str
    calls: int
    seconds: float
    share: float
    shapes: tuple[str, ...] = ()
    weight_bytes: int = 0
    output_bytes: int = 0

    @property
    def call_us(self) -> float:
        """Microseconds of one call."""
        return self.seconds / self.calls * 1e6 if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """All nodes of one operator on one provider. `in_file`: nodes of this operator in the file, subgraphs included."""

    operator: str
    provider: str
    nodes: int
    calls: int
    seconds: float
    share: float
    in_file: int

    @property
    def call_us(self) -> float:
        """Microseconds of one call."""
        return self.seconds / self.calls * 1e6 if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """What one execution provider does: how many nodes, and which share of the time in nodes."""

    provider: str
    nodes: int
    node_share: float
    time_share: float


@dataclass(frozen=True, slots=True)
class Operators:
    """Time by operator and node.

    Args:
        threads: intra-op threads of the session.
        runs: warm runs that were counted.
        run_s: median of a run while it is profiled; plain_run_s: of a run that is not, taken in turns with it.
        overhead: what profiling adds, as a share of an unprofiled run, with its bounds from round to round.
        outside: share of the profiled runs that is spent in no node.
        operators, nodes: by time, the longest first. `nodes_left_out`: more nodes than are listed.
        gone: operators in the file of which no node runs, with their counts: computed at load, or fused into others.
        unread: events of the runtime's trace that could not be read.
    """

    point: str
    batch: int
    threads: int
    runs: int
    run_s: float
    plain_run_s: float
    overhead: float
    overhead_low: float
    overhead_high: float
    outside: float
    operators: tuple[OperatorTime, ...]
    nodes: tuple[NodeTime, ...]
    placements: tuple[Placement, ...]
    nodes_in_file: int
    nodes_left_out: int = 0
    gone: Mapping[str, int] = field(default_factory=dict)
    unread: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """Resident memory at one batch: after the run, and at most since the process began. `run_s`: of one run then."""

    point: str
    batch: int
    after_bytes: int | None
    peak_bytes: int | None
    run_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process that does nothing but serve this model, batches in ascending order; and load time.

    `before_bytes`: the interpreter and the runtime. `gpu`: memory on the device is not in these numbers.
    """

    threads: int
    before_bytes: int | None
    loaded_bytes: int | None
    loading_peak_bytes: int | None
    load_s: float
    points: tuple[MemoryPoint, ...]
    gpu: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One batch size with one thread count.

    Args:
        items_s: rows per second: the batch by the median of `rounds`; requests of an unbatched model.
        low, high: the same by the slowest and the fastest round.
        p50_s, p99_s: of all runs.
        rounds: median run time of each round; round n of every cell was measured in the same stretch of time.
    """

    point: str
    batch: int
    threads: int
    items_s: float
    low: float
    high: float
    p50_s: float
    p99_s: float
    runs: int
    rounds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """All cells. `order`: how they were interleaved, in words."""

    cells: tuple[Cell, ...]
    order: str


@dataclass(frozen=True, slots=True)
class Pick:
    """A cell that is pointed out. `share`: its items/s (or its speed, for latency) beside the best one's."""

    batch: int
    threads: int
    items_s: float
    p50_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What to set, or not.

    Args:
        throughput: the smallest batch and fewest threads that reach 95 % of the highest items/s. `latency`: the
            fewest threads that reach 95 % of the best speed at the smallest batch.
        default: what a server does unconfigured, at the largest measured batch; None when it was not measured.
        snippet: lines for config.toml; empty: the defaults are fine, or cannot be compared.
        sentences: why, each without a full stop.
    """

    throughput: Pick
    latency: Pick
    default: Pick | None
    default_threads: int
    snippet: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """The whole of `profile.json` but for its schema.

    Args:
        real: inputs are the user's own. `left_out`: what was asked for and not measured, with the reason.
    """

    subject: Subject
    path: str
    version: int | None
    real: bool
    points: tuple[Point, ...]
    provider: str
    machine: Machine
    memory: Memory
    curve: Curve
    advice: Advice
    operators: Operators
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    trace: Mapping[str, int] = field(default_factory=dict)
    """Of the trace file: events in it, runs it shows."""
