"""Find a fault by undoing it: the small changes that turn a known kind of wrong export back, tried one at a time.

This needs no look inside the source, only its outputs: a node is the culprit when one small change to it, and to
nothing else, makes the model answer like its source on every case it is tried on. Each entry of the catalogue is a
mistake that exporters and hand edits make. The graph is changed in place and always put back.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tensorquay_convert.api import Say
from tensorquay_convert.proof.bisect import Failing
from tensorquay_convert.proof.compare import off
from tensorquay_convert.proof.graph import Graph, source_line
from tensorquay_convert.proof.runtime import Runtime, RuntimeFailed
from tensorquay_convert.proof.verification import Culprit
from tensorquay_convert.tensors import Array

MAX_TRIES = 250
_EPSILONS = (1e-5, 1e-12, 1e-3, 1e-6, 1e-8, 1e-7)
_OPTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "Pad": {"mode": ("constant", "reflect", "edge", "wrap")},
    "Gelu": {"approximate": ("none", "tanh")},
    "Resize": {
        "coordinate_transformation_mode": ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"),
        "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
        "mode": ("nearest", "linear", "cubic"),
    },
    "AveragePool": {"count_include_pad": (0, 1), "ceil_mode": (0, 1)},
    "MaxPool": {"ceil_mode": (0, 1)},
    "Gemm": {"transB": (0, 1), "transA": (0, 1)},
    "LeakyRelu": {"alpha": (0.01, 0.1, 0.2, 0.3)},
    "Elu": {"alpha": (1.0,)},
    "CumSum": {"exclusive": (0, 1), "reverse": (0, 1)},
    "GRU": {"linear_before_reset": (0, 1)},
}
_AXIS_OPERATORS = {
    "Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin", "Concat", "Gather", "LayerNormalization", "TopK", "Flatten",
}  # fmt: skip
_ROUNDING = ("Round", "Floor", "Ceil")
_WINDOWS = {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool"}
_NORMALIZATIONS = {
    "LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization",
    "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization", "LpNormalization",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Repair:
    """One change. `shown` ends the sentence "the model is right with …"."""

    node: Any
    shown: str
    apply: Callable[[], Callable[[], None]]
    """Makes the change and returns what takes it back."""


def find(
    graph: Graph, cases: Sequence[Failing], deadline: float, say: Say, *, among: Iterable[str] = ()
) -> Culprit | None:
    """The node that one repair cures on all of `cases`; None when none does before `deadline` (`time.monotonic`).

    Args:
        cases: failing ones, the smallest first, and one that passed, which a repair must not break.
        among: names of the nodes to try; empty: all that the failing outputs depend on.
    """
    wanted = set(among)
    relevant = graph.reaching(list(cases[0].outputs)) if cases[0].outputs else set(range(len(graph.nodes)))
    nodes = [graph.nodes[at] for at in sorted(relevant) if not wanted or graph.nodes[at].name in wanted]
    for tried, repair in enumerate(itertools.islice(_all(graph, nodes), MAX_TRIES)):
        if time.monotonic() > deadline:
            return None
        if tried % 10 == 0:
            say(f"trying repairs: {tried} done")
        undo = repair.apply()
        try:
            cured = _cures(graph, cases)
        finally:
            undo()
        if cured:
            return _culprit(repair)
    return None


def _culprit(repair: Repair) -> Culprit:
    node = repair.node
    line = source_line(node)
    sentence = f"{node.op_type} node '{node.name}' is wrong: the model answers like its source with {repair.shown}"
    return Culprit(
        node=node.name,
        operator=node.op_type,
        output=node.output[0] if node.output else "",
        max_absolute=float("nan"),
        sentence=f"{sentence}; from {line}" if line else sentence,
        confirmed=True,
        source_line=line,
    )


def _cures(graph: Graph, cases: Sequence[Failing]) -> bool:
    try:
        runtime = Runtime(graph.model, folder=graph.folder, optimized=False)
        for case in cases:
            got = runtime.run(case.inputs, list(case.expected))
            for name, expected in case.expected.items():
                if name not in got or off(expected, got[name], bfloat16=runtime.is_bfloat16(name)) > 1:
                    return False
    except RuntimeFailed:
        return False
    return True


def _all(graph: Graph, nodes: Sequence[Any]) -> Iterator[Repair]:
    """The likeliest first: every node's cheap repairs by turns, so that a large graph's end is reached too."""
    waiting = [iter(_of(graph, node)) for node in nodes]
    while waiting:
        left = []
        for each in waiting:
            repair = next(each, None)
            if repair is not None:
                yield repair
                left.append(each)
        waiting = left


def _of(graph: Graph, node: Any) -> Iterator[Repair]:
    kind = node.op_type
    if kind in _NORMALIZATIONS:
        for epsilon in _EPSILONS:
            yield from _attribute(node, "epsilon", epsilon, default=1e-5)
    for name, options in _OPTIONS.get(kind, {}).items():
        for option in options:
            yield from _attribute(node, name, option, default=None)
    if kind in _AXIS_OPERATORS or kind.startswith("Reduce"):
        for axis in (-1, 1, 2, 0, 3, -2):
            yield from _attribute(node, "axis", axis, default=None)
    if kind == "Transpose":
        yield from _permutations(node)
    if kind in _WINDOWS:
        yield from _windows(node)
    if kind in {"MatMul", "Gemm"}:
        for name in list(node.input)[:2]:
            yield from _stored(graph, node, name, "its weight transposed", _transposed)
    if kind in {"Gather", "GatherElements", "GatherND", "Slice"}:
        for name in list(node.input)[1:]:
            for step in (1, -1):
                yield from _stored(graph, node, name, f"its index moved by {step:+d}", functools.partial(np.add, step))
    if kind in {"Reshape", "Expand", "Tile"} and len(node.input) > 1:
        yield from _frozen(graph, node)
    if kind == "Pad" and len(node.input) > 1:
        for where, change in (("both sides", _halved), ("the end", _at_end), ("the beginning", _at_start)):
            yield from _stored(graph, node, node.input[1], f"its padding at {where}", change)
    if kind in {"Add", "Max", "Clip"}:
        for name in list(node.input):
            for epsilon in _EPSILONS:
                yield from _stored(graph, node, name, f"{epsilon:g} added", functools.partial(_tiny, epsilon))
    if kind in _ROUNDING:
        for other in _ROUNDING:
            if other != kind:
                yield Repair(node, f"{other} in its place", functools.partial(_renamed, node, other))
    if kind == "Cast":
        yield Repair(node, "nothing in its place", lambda: _replaced(node, "Identity"))
    if kind in _ROUNDING:
        yield Repair(node, "nothing in its place", lambda: _replaced(node, "Identity"))


def _attribute(node: Any, name: str, value: Any, *, default: Any) -> Iterator[Repair]:
    old: Any = next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
    old = old.decode() if isinstance(old, bytes) else old
    same = old is not None and (abs(old - value) <= 1e-3 * abs(value) if isinstance(value, float) else old == value)
    if not same:
        shown = ",".join(map(str, value)) if isinstance(value, list) else value
        yield Repair(node, f"{name}={shown}", lambda: _set(node, name, value))


def _set(node: Any, name: str, value: Any) -> Callable[[], None]:
    before = [AttributeProto.FromString(each.SerializeToString()) for each in node.attribute]
    kept = [each for each in before if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])

    def undo() -> None:
        del node.attribute[:]
        node.attribute.extend(before)

    return undo


def _renamed(node: Any, operator: str) -> Callable[[], None]:
    before = node.op_type
    node.op_type = operator

    def undo() -> None:
        node.op_type = before

    return undo


def _replaced(node: Any, operator: str) -> Callable[[], None]:
    before = type(node).FromString(node.SerializeToString())
    node.op_type = operator
    del node.attribute[:]
    del node.input[1:]
    return lambda: node.CopyFrom(before)


def _permutations(node: Any) -> Iterator[Repair]:
    old = next((list(each.ints) for each in node.attribute if each.name == "perm"), [])
    if 2 <= len(old) <= 4:
        for order in sorted(itertools.permutations(range(len(old))), key=lambda each: _moved(each, old)):
            yield from _attribute(node, "perm", list(order), default=old)


def _moved(order: Sequence[int], old: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(order, old, strict=True))


def _windows(node: Any) -> Iterator[Repair]:
    given = {each.name: list(each.ints) for each in node.attribute if each.ints}
    rank = len(given.get("kernel_shape", given.get("pads", [0, 0, 0, 0])[::2] or [0, 0]))
    pads = given.get("pads", [0] * 2 * rank)
    if len(pads) == 2 * rank:
        total = [pads[at] + pads[at + rank] for at in range(rank)]
        half = [each // 2 for each in total]
        ends = [a - b for a, b in zip(total, half, strict=True)]
        options = [half + ends, ends + half, total + [0] * rank, [0] * rank + total, [0] * 2 * rank]
        kernel = given.get("kernel_shape", [])
        for dilation in (1, 2, 3, 4):
            same = [dilation * (size - 1) // 2 for size in kernel]
            options.append(same * 2 if kernel else [0] * 2 * rank)
        options += [[each + step for each in pads] for step in (1, -1) if all(each + step >= 0 for each in pads)]
        for option in options:
            yield from _attribute(node, "pads", option, default=pads)
    if "auto_pad" in {each.name for each in node.attribute}:
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            yield from _attribute(node, "auto_pad", mode, default=None)
    if node.op_type != "AveragePool" or "dilations" in given:
        for dilation in (1, 2, 3, 4):
            yield from _attribute(node, "dilations", [dilation] * rank, default=[1] * rank)


def _stored(
    graph: Graph, node: Any, name: str, shown: str, change: Callable[[Array], Array | None]
) -> Iterator[Repair]:
    """A change to a stored tensor, for this node alone where it can be told apart: others may share it."""
    tensor = graph.stored.get(name, graph.constants.get(name))
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
        return
    old = np.asarray(numpy_helper.to_array(tensor))
    fresh = change(old)
    if fresh is None or fresh.shape != old.shape or np.array_equal(fresh, old):
        return
    yield Repair(node, shown, lambda: _substituted(tensor, fresh.astype(old.dtype)))


def _substituted(tensor: Any, fresh: Array) -> Callable[[], None]:
    before = TensorProto.FromString(tensor.SerializeToString())
    tensor.CopyFrom(numpy_helper.from_array(np.array(fresh, order="C"), before.name))
    return lambda: tensor.CopyFrom(before)


def _transposed(old: Array) -> Array | None:
    return old.T if old.ndim == 2 and old.shape[0] == old.shape[1] else None


def _tiny(epsilon: float, old: Array) -> Array | None:
    small = old.size == 1 and old.dtype.kind == "f" and 0 <= float(np.abs(old).max()) < 1e-2
    return np.full_like(old, epsilon) if small else None


def _halved(old: Array) -> Array:
    total = _total(old)
    return np.concatenate([total // 2, total - total // 2])


def _at_end(old: Array) -> Array:
    total = _total(old)
    return np.concatenate([np.zeros_like(total), total])


def _at_start(old: Array) -> Array:
    total = _total(old)
    return np.concatenate([total, np.zeros_like(total)])


def _total(pads: Array) -> Array:
    """Of both sides of each axis."""
    half = pads.size // 2
    return np.asarray(pads[:half] + pads[half:])


def _instead(fresh: Array, _old: Array) -> Array:
    return fresh


def _frozen(graph: Graph, node: Any) -> Iterator[Repair]:
    shape = graph.constant(node.input[1])
    if shape is None or shape.dtype.kind != "i" or shape.ndim != 1:
        return
    for at, size in enumerate(shape.tolist()):
        if size < 1:
            continue
        for fresh in (1,) if node.op_type != "Reshape" else (0, -1):
            changed = shape.copy()
            changed[at] = fresh
            if fresh == -1:
                changed[:at][changed[:at] == -1] = 0
                changed[at + 1 :][changed[at + 1 :] == -1] = 0
            shown = f"{fresh} in place of the {size} that freezes axis {at} of its shape"
            yield from _stored(graph, node, node.input[1], shown, functools.partial(_instead, changed))
