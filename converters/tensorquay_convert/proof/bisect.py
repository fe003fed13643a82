"""Find the node at which the ONNX model parts from its source, by the values inside both.

Every value that both sides know is compared on one failing case, with the runtime's optimizations off. The first one
in the graph's order that differs is a suspect. A suspect is tried: with the source's value in its place, the failing
outputs must become right. That tells a fault from a harmless difference (a mask of -inf against one of -3e38), which
a comparison alone cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from tensorquay_convert.api import OpenSource, Say
from tensorquay_convert.proof.compare import off
from tensorquay_convert.proof.graph import Graph, source_line
from tensorquay_convert.proof.runtime import Runtime, RuntimeFailed, element_type
from tensorquay_convert.proof.verification import Culprit
from tensorquay_convert.tensors import Array, Arrays

_CHUNK = 48
_CHUNK_BYTES = 256 << 20
_MAX_SUSPECTS = 6
_STRICTER = (1.0, 0.1, 0.01)
"""Shares of the tolerance at which a value counts as different, in the order tried: a fault may be small at first."""


@dataclass(frozen=True, slots=True)
class Failing:
    """A case that failed. `expected`: the source's outputs; `outputs`: the names of those that are wrong.

    `stopped_at`: the node at which the runtime gave up, None when it ran to the end.
    """

    inputs: Arrays
    expected: Arrays
    outputs: tuple[str, ...]
    stopped_at: str | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """One value inside both: how far off, and for people what it is on each side."""

    value: str
    excess: float
    max_absolute: float
    shown: str


def find(source: OpenSource, graph: Graph, failing: Failing, say: Say) -> Culprit | None:
    """The culprit, or None when the source cannot tell enough. Raises: whatever the source raises inside."""
    stop = None if failing.stopped_at is None else _number(graph, failing.stopped_at)
    names = [name for node in graph.nodes[:stop] if node.op_type != "Constant" for name in node.output if name]
    seen = _look(source, graph, failing, names, stop, say)
    if not seen:
        return None
    relevant = graph.reaching([_any_output(graph, stop), *failing.outputs])
    known = {each.value for each in seen}
    for share in _STRICTER:
        suspects = [each for each in seen if each.excess > share and graph.maker[each.value] in relevant]
        if not suspects:
            continue
        found = _tried(source, graph, failing, suspects[:_MAX_SUSPECTS], known, say)
        # Below the tolerance every value differs a little: only one that cures it is worth telling.
        if found.confirmed or share == _STRICTER[0]:
            return found
    return None


def _tried(
    source: OpenSource, graph: Graph, failing: Failing, suspects: Sequence[_Seen], known: AbstractSet[str], say: Say
) -> Culprit:
    """The first suspect that proves to be it; the first of all when none does (there may be two faults)."""
    different = {each.value for each in suspects}
    for each in suspects:
        say(f"trying whether '{each.value}' is where the model parts from its source")
        if _heals(source, graph, failing, each.value):
            return _culprit(graph, each, known - different, confirmed=True)
        different.discard(each.value)
    return _culprit(graph, suspects[0], known - {suspects[0].value}, confirmed=False)


def _look(
    source: OpenSource, graph: Graph, failing: Failing, names: Sequence[str], stop: int | None, say: Say
) -> list[_Seen]:
    """Every value that both know, in the graph's order. Bounded: a few at a time are held."""
    try:
        runtime = Runtime(graph.with_outputs(names, before=stop), folder=graph.folder, optimized=False)
    except RuntimeFailed:
        return []
    seen: list[_Seen] = []
    at, size = 0, _CHUNK
    while at < len(names):
        chunk = names[at : at + size]
        theirs = source.values_inside(failing.inputs, chunk)
        asked = [name for name in chunk if name in theirs]
        say(f"comparing values inside: {at + len(chunk)} of {len(names)}")
        at += len(chunk)
        if not asked:
            continue
        try:
            ours = runtime.run(failing.inputs, asked)
        except RuntimeFailed:
            return seen
        held = sum(each.nbytes for each in (*ours.values(), *theirs.values()))
        if held > _CHUNK_BYTES:
            size = max(1, size * _CHUNK_BYTES // held)
        seen += [
            _compared(name, theirs[name], ours[name], bfloat16=runtime.is_bfloat16(name))
            for name in asked
            if name in ours
        ]
    return seen


def _compared(name: str, expected: Array, got: Array, *, bfloat16: bool) -> _Seen:
    excess = off(expected, got, bfloat16=bfloat16)
    if expected.shape != got.shape:
        shown = f"it has shape {list(got.shape)}, the source has {list(expected.shape)} there"
        return _Seen(name, excess, math.nan, shown)
    if not expected.size or expected.dtype.kind == "O" or got.dtype.kind == "O":
        return _Seen(name, excess, math.nan, "its texts differ")
    left, right = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    error = np.full(left.shape, np.inf)
    error[finite] = np.abs(left[finite] - right[finite])
    error[(np.isnan(left) & np.isnan(right)) | (~finite & (left == right))] = 0.0
    at = np.unravel_index(int(error.argmax()), error.shape)
    shown = f"at {[int(each) for each in at]} it is {right[at]:.6g}, the source has {left[at]:.6g} there"
    return _Seen(name, excess, float(error[at]), shown)


def _heals(source: OpenSource, graph: Graph, failing: Failing, value: str) -> bool:
    """Whether the outputs that were wrong become right with the source's value in place of `value`."""
    if graph.constants and value in graph.constants:
        return False
    theirs = source.values_inside(failing.inputs, [value]).get(value)
    if theirs is None:
        return False
    others = [name for name in (failing.outputs or tuple(failing.expected)) if name != value]
    if not others:
        return True
    try:
        # The values inside a runtime may have other integer types than the source's: the graph's count.
        bfloat16, ours = _ours(graph, failing, value)
        given = theirs if ours is None or bfloat16 else theirs.astype(ours.dtype)
        model = graph.with_given(value, element_type(given, bfloat16=bfloat16), given.ndim)
        healed = Runtime(model, folder=graph.folder, optimized=False)
        found = healed.run({**failing.inputs, value: given}, others)
    except RuntimeFailed:
        return False
    return all(
        name in found and off(failing.expected[name], found[name], bfloat16=healed.is_bfloat16(name)) <= 1
        for name in others
    )


def _ours(graph: Graph, failing: Failing, value: str) -> tuple[bool, Array | None]:
    """The ONNX model's own value there (None where it does not run so far), and whether it is bfloat16."""
    runtime = Runtime(graph.with_outputs([value], before=graph.maker[value] + 1), folder=graph.folder, optimized=False)
    found: Mapping[str, Array] = runtime.run(failing.inputs, [value])
    return runtime.is_bfloat16(value), found.get(value)


def _culprit(graph: Graph, seen: _Seen, agreeing: AbstractSet[str], *, confirmed: bool) -> Culprit:
    node = graph.node_of(seen.value)
    assert node is not None
    between = [graph.nodes[at] for at in sorted(graph.reaching([seen.value], stop=agreeing - {seen.value}))]
    computing = [each for each in between if _depends_on_inputs(graph, each)]
    among = tuple(f"{each.name} ({each.op_type})" for each in computing) if len(computing) > 1 else ()
    line = source_line(node)
    sentence = f"{node.op_type} node '{node.name}' gives '{seen.value}', the first value that differs: {seen.shown}"
    if confirmed:
        sentence += "; with the source's value in its place the model is right"
    if among:
        sentence += f"; the source does not know the values between, so it may be any of {', '.join(among[:8])}"
    if line:
        sentence += f"; from {line}"
    return Culprit(
        node.name, node.op_type, seen.value, seen.max_absolute, sentence, confirmed, among, line
    )  # fmt: skip


def _depends_on_inputs(graph: Graph, node: object) -> bool:
    at = next(number for number, each in enumerate(graph.nodes) if each is node)
    needed = graph.reaching(list(graph.nodes[at].output))
    return any(name in graph.inputs for number in needed for name in graph.nodes[number].input)


def _number(graph: Graph, node: str) -> int | None:
    return next((number for number, each in enumerate(graph.nodes) if each.name == node), None)


def _any_output(graph: Graph, stop: int | None) -> str:
    """An output of the node at which the runtime stopped."""
    return "" if stop is None else next((name for name in graph.nodes[stop].output if name), "")
