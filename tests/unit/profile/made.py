"""Profiles, cells and events for tests: made up, with everything in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorquay_convert.optimize.results import Machine, Point, Subject
from tensorquay_convert.profile.results import (
    Advice,
    Cell,
    Curve,
    Memory,
    MemoryPoint,
    NodeTime,
    Operators,
    OperatorTime,
    Pick,
    Placement,
    Profile,
)


def cell(batch: int, threads: int, seconds: float, *, wobble: float = 0.01, rounds: int = 9) -> Cell:
    """A cell whose rounds alternate around `seconds`."""
    times = tuple(seconds * (1 + wobble * (-1) ** number) for number in range(rounds))
    rows = max(1, batch)
    return Cell(
        f"batch {batch}", batch, threads, rows / seconds, rows / max(times), rows / min(times), seconds,
        max(times), 100, times,
    )  # fmt: skip


def subject(operators: Mapping[str, int], *, name: str = "made") -> Subject:
    return Subject(
        name, "0" * 64, 1000, 17, sum(operators.values()), operators, {}, True, {"x": "float32[batch,4]"},
        {"y": "float32[batch,4]"}, 64,
    )  # fmt: skip


def event(
    node: str, operator: str, start: int, us: int, *, index: int = 0, provider: str = "CPUExecutionProvider"
) -> dict[str, Any]:
    """A node's event as the runtime writes it."""
    return {
        "cat": "Node", "pid": 7, "tid": 7, "dur": us, "ts": start, "ph": "X", "name": f"{node}_kernel_time",
        "args": {
            "op_name": operator, "provider": provider, "node_index": str(index), "parameter_size": "16",
            "output_size": "32", "input_type_shape": [{"float": [2, 4]}, {"int64": []}],
            "output_type_shape": [{"float": [2, 4]}],
        },
    }  # fmt: skip


def run_event(start: int, us: int) -> dict[str, Any]:
    return {"cat": "Session", "pid": 7, "tid": 7, "dur": us, "ts": start, "ph": "X", "name": "model_run", "args": {}}


def write_events(path: Path, events: Sequence[Mapping[str, Any] | str]) -> Path:
    """One a line, between brackets, as the runtime does; texts are written as they are."""
    lines = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in events]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    return path


def profile(name: str = "made", *, node: str = "node_0", snippet: str = "") -> Profile:
    """A whole profile; every name of the model's is `name` or `node`."""
    pick = Pick(4, 1, 400.0, 0.01, 1.0)
    cells = tuple(cell(batch, threads, 0.0025 * batch / threads) for batch in (1, 2, 4) for threads in (1, 2))
    nodes = (
        NodeTime(node, name, "cpu", 10, 0.008, 0.8, ("float[2,4]",), 16, 32),
        NodeTime(f"{node}_1", "Add", "cuda", 10, 0.002, 0.2),
    )
    operators = Operators(
        "batch 4", 4, 1, 10, 0.0011, 0.001, 0.1, 0.05, 0.15, 0.1,
        (OperatorTime(name, "cpu", 1, 10, 0.008, 0.8, 2), OperatorTime("Add", "cuda", 1, 10, 0.002, 0.2, 0)),
        nodes, (Placement("cpu", 1, 0.5, 0.8), Placement("cuda", 1, 0.5, 0.2)), 3, 2, {name: 1}, 1,
        (f"a note on {name}",),
    )  # fmt: skip
    return Profile(
        subject=subject({name: 2, "Relu": 1}, name=name), path=f"/models/{name}.onnx", version=3, real=False,
        points=(Point("batch 4", 4, 0),), provider="cpu",
        machine=Machine("a processor", ("avx2",), 2, "1.31", ("CPUExecutionProvider",)),
        memory=Memory(2, 1 << 26, 1 << 27, None, 0.1, (MemoryPoint("batch 4", 4, 1 << 28, 1 << 29, 0.01),)),
        curve=Curve(cells, "9 rounds"),
        advice=Advice(pick, pick, pick, 2, snippet, ("a reason",)),
        operators=operators, left_out=(f"{name} is left out",), notes=("a note",), seconds=12.0,
        trace={"events": 20, "runs": 2},
    )  # fmt: skip
