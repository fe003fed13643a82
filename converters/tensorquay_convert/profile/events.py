"""Read what ONNX Runtime's own profiling wrote, sum it up by node, and write it again as a trace people can open.

The runtime writes one JSON object a line (`SessionOptions.enable_profiling`): a "Node" event "<node>_kernel_time" for
each node that ran, in the order in which they ended, then the "Session" event "model_run" of their run. Fused and
converted nodes have names and operators of the graph that really ran. A node with subgraphs (If, Loop, Scan) spans the
nodes inside: what counts is its own time. Lines that cannot be read are counted, not guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorquay_convert.optimize.results import Subject
from tensorquay_convert.profile.results import NodeTime, OperatorTime, Placement

MOST_NODES = 1000
"""Nodes that are listed, those with the most time; the sums have all of them."""
MOST_TRACED = 20_000
"""Events in the trace that is written: viewers of traces become slow far above."""
_MOST_LINE = 1 << 20
_MOST_EVENTS = 1_000_000
"""In one run; the runtime itself stops there."""
_SUFFIX = "_kernel_time"
_MOST_SHAPES = 16
_MOST_NAME = 300
_PROVIDER = "ExecutionProvider"


@dataclass(frozen=True, slots=True)
class Event:
    """One call of one node; times in whole microseconds since the session began."""

    node: str
    operator: str
    provider: str
    index: int
    thread: int
    start_us: int
    duration_us: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight_bytes: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the model and the nodes in it, in the order in which they ended."""

    start_us: int
    duration_us: int
    nodes: tuple[Event, ...]


@dataclass(slots=True)
class Log:
    """Reads a file of events once. `unread`: lines that could not be read so far."""

    path: Path
    unread: int = 0

    def runs(self) -> Iterator[Run]:
        """Every run in order. Raises: OSError."""
        nodes: list[Event] = []
        with self.path.open("rb") as file:
            while line := file.readline(_MOST_LINE):
                text = line.strip().rstrip(b",")
                if text in {b"", b"[", b"]"}:
                    continue
                plain = _object(text)
                if plain is None:
                    self.unread += 1
                    continue
                if plain.get("cat") == "Session" and plain.get("name") == "model_run":
                    yield Run(_whole(plain.get("ts")), _whole(plain.get("dur")), tuple(nodes))
                    nodes = []
                elif plain.get("cat") == "Node" and len(nodes) < _MOST_EVENTS:
                    event = _event(plain)
                    if event is not None:
                        nodes.append(event)


def _object(text: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text.decode(errors="replace"), strict=False)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _event(plain: Mapping[str, Any]) -> Event | None:
    """A node's call; None for other events of nodes (waiting for a device, in older runtimes)."""
    name, args = str(plain.get("name", "")), plain.get("args")
    if not name.endswith(_SUFFIX) or not isinstance(args, dict):
        return None
    return Event(
        node=name.removesuffix(_SUFFIX)[:_MOST_NAME],
        operator=str(args.get("op_name") or "?")[:_MOST_NAME],
        provider=short_provider(str(args.get("provider") or "?")),
        index=_whole(args.get("node_index")),
        thread=_whole(plain.get("tid")),
        start_us=_whole(plain.get("ts")),
        duration_us=max(0, _whole(plain.get("dur"))),
        inputs=_shapes(args.get("input_type_shape")),
        outputs=_shapes(args.get("output_type_shape")),
        weight_bytes=_whole(args.get("parameter_size")),
        output_bytes=_whole(args.get("output_size")),
    )


def short_provider(name: str) -> str:
    """`cpu` for CPUExecutionProvider."""
    return name.removesuffix(_PROVIDER).lower()[:64] or "?"


def _whole(value: Any) -> int:
    """A whole number, which the runtime writes as such or as text; 0 for anything else."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0


def _shapes(value: Any) -> tuple[str, ...]:
    """[{"float": [8, 3]}, …] as "float[8,3]"."""
    if not isinstance(value, list):
        return ()
    return tuple(
        f"{kind}[{','.join(map(str, axes))}]"[:_MOST_NAME]
        for each in value[:_MOST_SHAPES] if isinstance(each, dict)
        for kind, axes in each.items() if isinstance(axes, list)
    )  # fmt: skip


def own_times(nodes: Iterable[Event], holders: frozenset[str]) -> list[tuple[Event, int]]:
    """Each call with its time but for that of calls inside it.

    Args: holders: operators with subgraphs; only these can have calls inside. Nodes end before what holds them.
    """
    found: list[tuple[Event, int]] = []
    open_ended: list[tuple[int, int]] = []
    """Start and whole duration of calls that are in no holder yet."""
    for event in nodes:
        inside = 0
        if event.operator in holders:
            while open_ended and open_ended[-1][0] >= event.start_us:
                inside += open_ended.pop()[1]
        open_ended.append((event.start_us, event.duration_us))
        found.append((event, max(0, event.duration_us - inside)))
    return found


@dataclass(slots=True)
class _Sum:
    event: Event
    calls: int = 0
    own_us: int = 0


@dataclass(slots=True)
class Tally:
    """Sums over runs. Owner: whoever reads the log.

    Args: holders: see `own_times`.
    """

    holders: frozenset[str]
    run_us: list[int] = field(default_factory=list)
    _sums: dict[tuple[str, str, int], _Sum] = field(default_factory=dict)

    def add(self, run: Run) -> None:
        """Count one run."""
        self.run_us.append(run.duration_us)
        for event, own_us in own_times(run.nodes, self.holders):
            one = self._sums.setdefault((event.node, event.operator, event.index), _Sum(event))
            one.calls += 1
            one.own_us += own_us

    @property
    def outside(self) -> float:
        """Share of the runs that was spent in no node."""
        whole = sum(self.run_us)
        return max(0.0, 1 - self._total_us() / whole) if whole else 0.0

    def nodes(self) -> tuple[NodeTime, ...]:
        """All nodes, the longest first."""
        total = self._total_us() or 1
        found = [
            NodeTime(
                each.event.node, each.event.operator, each.event.provider, each.calls, each.own_us / 1e6,
                each.own_us / total, each.event.inputs, each.event.weight_bytes, each.event.output_bytes,
            )
            for each in self._sums.values()
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda each: -each.seconds))

    def _total_us(self) -> int:
        return sum(each.own_us for each in self._sums.values())


def by_operator(nodes: Iterable[NodeTime], subject: Subject) -> tuple[OperatorTime, ...]:
    """Nodes of one operator on one provider together, the longest first."""
    groups: dict[tuple[str, str], list[NodeTime]] = {}
    for node in nodes:
        groups.setdefault((node.operator, node.provider), []).append(node)
    found = [
        OperatorTime(
            operator, provider, len(group), sum(each.calls for each in group), sum(each.seconds for each in group),
            sum(each.share for each in group), _in_file(operator, subject),
        )
        for (operator, provider), group in groups.items()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda each: -each.seconds))


def _in_file(operator: str, subject: Subject) -> int:
    """The runtime tells no domains, so those of all are taken together."""
    return sum(count for name, count in subject.operators.items() if name.rpartition(".")[2] == operator)


def placements(nodes: Iterable[NodeTime]) -> tuple[Placement, ...]:
    """Nodes and time by provider, the one with the most time first."""
    listed = list(nodes)
    found = []
    for provider in dict.fromkeys(each.provider for each in listed):
        mine = [each for each in listed if each.provider == provider]
        found.append(Placement(provider, len(mine), len(mine) / len(listed), sum(each.share for each in mine)))
    return tuple(sorted(found, key=lambda each: -each.time_share))


@dataclass(slots=True)
class Trace:
    """Chrome's trace format (JSON object form), which chrome://tracing and Perfetto open. Owner: as `Tally`.

    Args: what: names the process in the viewer.
    """

    what: str
    runs: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    _threads: dict[int, int] = field(default_factory=dict)
    _origin_us: int | None = None

    def add(self, run: Run) -> None:
        """Take a run into the trace, unless that is large enough; the first one always."""
        if self.events and len(self.events) + len(run.nodes) >= MOST_TRACED:
            return
        if self._origin_us is None:
            self._origin_us = run.start_us
        self.runs += 1
        self.events.append(self._span("run", f"run {self.runs}", 1, run.start_us, run.duration_us, {}))
        for node in run.nodes[: MOST_TRACED - 1]:
            args = {
                "node": node.node, "provider": node.provider, "inputs": list(node.inputs),
                "outputs": list(node.outputs), "weight_bytes": node.weight_bytes, "output_bytes": node.output_bytes,
            }  # fmt: skip
            # The thread that runs the model is the one in which its run is shown: spans nest there.
            thread = self._threads.setdefault(node.thread, len(self._threads) + 1)
            self.events.append(
                self._span("node", f"{node.operator} {node.node}", thread, node.start_us, node.duration_us, args)
            )

    def _span(
        self, kind: str, name: str, thread: int, start_us: int, us: int, args: Mapping[str, Any]
    ) -> dict[str, Any]:
        assert self._origin_us is not None
        return {
            "ph": "X", "cat": kind, "name": name, "pid": 1, "tid": thread, "ts": start_us - self._origin_us, "dur": us,
            "args": args,
        }  # fmt: skip

    def write(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Raises: OSError."""
        threads = range(1, max(1, len(self._threads)) + 1)
        names = [{"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "ts": 0, "args": {"name": self.what}}]
        names += [
            {"ph": "M", "name": "thread_name", "pid": 1, "tid": each, "ts": 0, "args": {"name": f"thread {each}"}}
            for each in threads
        ]
        whole = {"displayTimeUnit": "ms", "otherData": facts, "traceEvents": [*names, *self.events]}
        path.write_text(json.dumps(whole, allow_nan=False), encoding="utf-8")
