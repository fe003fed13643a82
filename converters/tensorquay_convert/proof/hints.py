"""Guess what happened from the outputs alone: two of them swapped, or one transposed. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tensorquay_convert.proof.bisect import Failing
from tensorquay_convert.proof.compare import off
from tensorquay_convert.proof.graph import Graph, source_line
from tensorquay_convert.proof.verification import Culprit
from tensorquay_convert.tensors import Array, Arrays

_MAX_RANK = 4


def swapped(graph: Graph, case: Failing, got: Arrays) -> Culprit | None:
    """Outputs that hold each other's values, with the node that makes the first of them."""
    wrong = [name for name in case.outputs if name in got and name in case.expected]
    for first in wrong:
        for second in wrong:
            if second == first or not _same(case.expected[second], got[first]):
                continue
            if _same(case.expected[first], got[first]):
                continue
            node = graph.node_of(first)
            other = graph.node_of(second)
            if node is None:
                continue
            both = _same(case.expected[first], got[second])
            what = f"outputs '{first}' and '{second}' are swapped" if both else f"output '{first}' is '{second}'"
            sentence = f"{what}: {node.op_type} node '{node.name}' makes '{first}' but gives what the source calls "
            sentence += f"'{second}'"
            if both and other is not None:
                sentence += f", and {other.op_type} node '{other.name}' the other way round"
            return Culprit(
                node.name, node.op_type, first, _error(case.expected[first], got[first]), sentence, both,
                source_line=source_line(node),
            )  # fmt: skip
    return None


def transposed(case: Failing, got: Arrays) -> str:
    """A sentence about an output that is right but for the order of its axes; empty when there is none."""
    for name in case.outputs:
        expected, found = case.expected.get(name), got.get(name)
        if expected is None or found is None or not 2 <= expected.ndim <= _MAX_RANK or expected.size < 2:
            continue
        if sorted(expected.shape) != sorted(found.shape):
            continue
        for order in itertools.permutations(range(expected.ndim)):
            plain = tuple(range(expected.ndim))
            if order != plain and _same(expected, np.ascontiguousarray(found.transpose(order))):
                return f"output '{name}' is right with its axes in the order {list(order)}: a transposition is missing"
    return ""


def frozen_in(graph: Graph, size: int, relevant: Sequence[str]) -> Culprit | None:
    """The first node whose stored shape holds the size that an axis seems to be frozen at."""
    reaching = graph.reaching(relevant) if relevant else set(range(len(graph.nodes)))
    for at in sorted(reaching):
        node = graph.nodes[at]
        if node.op_type not in {"Reshape", "Expand", "ConstantOfShape", "Tile"} or not node.input:
            continue
        shape = graph.constant(node.input[-1] if node.op_type != "ConstantOfShape" else node.input[0])
        if shape is not None and shape.dtype.kind == "i" and size in shape.reshape(-1).tolist():
            listed = shape.reshape(-1).tolist()[:16]
            line = source_line(node)
            sentence = f"{node.op_type} node '{node.name}' has the constant shape {listed}, which holds the {size}"
            return Culprit(
                node.name, node.op_type, node.output[0], float("nan"), f"{sentence}; from {line}" if line else sentence,
                source_line=line,
            )  # fmt: skip
    return None


def _same(expected: Array, got: Array) -> bool:
    return expected.dtype == got.dtype and expected.size > 0 and off(expected, got) <= 1


def _error(expected: Array, got: Array) -> float:
    if expected.shape != got.shape or expected.dtype.kind not in "fiu":
        return float("nan")
    error = np.abs(expected.astype(np.float64) - got.astype(np.float64))
    return float(error[np.isfinite(error)].max(initial=0.0))
