"""Wrong conversions are refused with their node named: faults planted in graphs as exporters write them.

Each is tried against a source that can be looked into, and against one that cannot.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.unit.convert.proof.graphs import (
    GraphSource,
    build,
    changed,
    classifier,
    node,
    node_named,
    numbers,
    reader,
    set_attribute,
    set_stored,
    tensor,
)

from tensorquay_convert.proof.verification import Verification
from tensorquay_convert.proof.verify import ProofOptions, verify
from tensorquay_convert.tensors import BATCH, AxisRange, Interface


def _quiet(text: str) -> None:
    return None


def prove(
    built: tuple[Any, Interface], folder: Path, change: Callable[[Any], None] | None = None, *,
    blind: bool = False, knows: list[str] | None = None, options: ProofOptions | None = None,
) -> Verification:  # fmt: skip
    model, interface = built
    path = folder / "model.onnx"
    onnx.save(model if change is None else changed(model, change), path)
    source = GraphSource(model, interface, blind=blind, knows=knows)
    return verify(source, path, options or ProofOptions(), _quiet)


def plain_norm() -> tuple[Any, Interface]:
    """Normalization right behind the input: what its epsilon does shows in rows of little variance only."""
    nodes = [
        node("LayerNormalization", ["x", "scale", "bias"], ["normal"], "node_norm", axis=-1, epsilon=1e-5),
        node("MatMul", ["normal", "weight"], ["y"], "node_linear"),
    ]
    stored = {"scale": np.ones(16, np.float32), "bias": np.zeros(16, np.float32), "weight": numbers(1, 16, 4)}
    return build(nodes, [tensor("x", "float32", BATCH, 16)], [tensor("y", "float32", BATCH, 4)], stored)


def expander() -> tuple[Any, Interface]:
    """A learned row, repeated as often as the batch asks, and quantized by rounding."""
    nodes = [
        node("Shape", ["x"], ["shape"], "node_shape"),
        node("Slice", ["shape", "zero", "one"], ["rows"], "node_rows"),
        node("Concat", ["rows", "width"], ["wanted"], "node_wanted", axis=0),
        node("Expand", ["query", "wanted"], ["queries"], "node_expand"),
        node("Add", ["x", "queries"], ["sum"], "node_sum"),
        node("Round", ["sum"], ["whole"], "node_round"),
        node("Mul", ["whole", "step"], ["y"], "node_scale"),
    ]
    stored = {
        "zero": np.array([0]), "one": np.array([1]), "width": np.array([6]), "query": numbers(1, 1, 6),
        "step": np.array(0.25, np.float32),
    }  # fmt: skip
    return build(nodes, [tensor("x", "float32", BATCH, 6)], [tensor("y", "float32", BATCH, 6)], stored)


def _swap_results(graph: Any) -> None:
    first, second = node_named(graph, "node_softmax"), node_named(graph, "node_tanh")
    first.output[0], second.output[0] = "shape", "colour"


def _swap_order(graph: Any) -> None:
    names = [value.name for value in graph.output]
    for value, name in zip(graph.output, reversed(names), strict=True):
        value.name = name


def _freeze_expand(graph: Any) -> None:
    node_named(graph, "node_expand").input[1] = "fixed"
    graph.initializer.append(helper.make_tensor("fixed", TensorProto.INT64, [2], [2, 6]))


def _cut_off(graph: Any) -> None:
    node_named(graph, "node_round").op_type = "Floor"


FAULTS: dict[str, tuple[Callable[[], tuple[Any, Interface]], Callable[[Any], None], str]] = {
    "transposed weight": (classifier, lambda graph: set_stored(graph, "mix", np.transpose), "node_linear"),
    "batch frozen in a Reshape": (
        classifier, lambda graph: set_stored(graph, "flat", lambda _: np.array([2, -1, 8])), "node_view",
    ),
    "batch frozen at a size that no case has": (
        classifier, lambda graph: set_stored(graph, "flat", lambda _: np.array([4, -1, 8])), "node_view",
    ),
    "batch frozen in an Expand": (expander, _freeze_expand, "node_expand"),
    "padding by zeros": (classifier, lambda graph: set_attribute(graph, "node_pad", "mode", "constant"), "node_pad"),
    "padding on one side": (
        classifier, lambda graph: set_stored(graph, "pads", lambda _: np.array([0, 0, 2, 2, 0, 0, 0, 0])), "node_pad",
    ),
    "pads of a convolution": (
        classifier, lambda graph: set_attribute(graph, "node_conv", "pads", [1, 1, 1, 1]), "node_conv",
    ),
    "dilations": (classifier, lambda graph: set_attribute(graph, "node_conv", "dilations", [2, 2]), "node_conv"),
    "swapped results": (classifier, _swap_results, "node_tanh"),
    "swapped order of outputs": (classifier, _swap_order, "node_tanh"),
    "dropped epsilon of a BatchNormalization": (
        classifier, lambda graph: set_attribute(graph, "node_bn", "epsilon", 0.0), "node_bn",
    ),
    "dropped epsilon of a LayerNormalization": (
        classifier, lambda graph: set_attribute(graph, "node_norm", "epsilon", 0.0), "node_norm",
    ),
    "epsilon that only shows without variance": (
        plain_norm, lambda graph: set_attribute(graph, "node_norm", "epsilon", 1e-12), "node_norm",
    ),
    "dropped epsilon of a normalization in parts": (
        reader, lambda graph: set_stored(graph, "epsilon", np.zeros_like), "node_add_epsilon",
    ),
    "softmax over the batch": (
        classifier, lambda graph: set_attribute(graph, "node_softmax", "axis", 0), "node_softmax",
    ),
    "softmax over the queries": (reader, lambda graph: set_attribute(graph, "node_softmax", "axis", 1), "node_softmax"),
    "wrong order of axes": (
        classifier, lambda graph: set_attribute(graph, "node_transpose", "perm", [0, 1, 2, 3]), "node_transpose",
    ),
    "index off by one": (reader, lambda graph: set_stored(graph, "first", lambda old: old + 1), "node_first"),
    "cut off where it should round": (expander, _cut_off, "node_round"),
}  # fmt: skip


@pytest.mark.parametrize("blind", [False, True], ids=["looked into", "from outside"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_refused_with_its_node_named(fault: str, blind: bool, tmp_path: Path) -> None:
    built, change, expected = FAULTS[fault]
    proof = prove(built(), tmp_path, change, blind=blind)
    assert not proof.passed
    assert proof.culprit is not None
    assert proof.culprit.node == expected
    assert expected in proof.culprit.sentence
    assert expected in proof.problems[0] or any("frozen" in each for each in proof.problems)
    assert proof.advice


@pytest.mark.parametrize("built", [classifier, reader, plain_norm, expander])
def test_the_right_graph_passes(built: Callable[[], tuple[Any, Interface]], tmp_path: Path) -> None:
    proof = prove(built(), tmp_path)
    assert proof.problems == ()
    assert proof.culprit is None
    assert {axis.name: axis.dynamic for axis in proof.axes} == dict.fromkeys([axis.name for axis in proof.axes], True)
    assert next(axis for axis in proof.axes if axis.name == BATCH).sizes == (1, 2, 3, 7, 32)


def test_a_frozen_declaration_names_the_input_and_the_size(tmp_path: Path) -> None:
    def freeze(graph: Any) -> None:
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2

    proof = prove(classifier(), tmp_path, freeze)
    assert proof.problems[0] == (
        "axis 0 of input 'image' is frozen at 2 in the ONNX model, the source takes any 'batch'"
    )
    assert proof.culprit is not None
    assert (proof.culprit.node, proof.culprit.operator) == ("input 'image'", "graph input")
    (axis,) = proof.axes
    assert (axis.dynamic, axis.sizes) == (False, (2,))
    assert "--dynamic" in proof.advice


def test_a_frozen_reshape_is_told_as_a_frozen_axis(tmp_path: Path) -> None:
    proof = prove(classifier(), tmp_path, lambda graph: set_stored(graph, "flat", lambda _: np.array([2, -1, 8])))
    assert "frozen at 2" in proof.problems[0]
    assert "not at 1, 3, 7, 32" in proof.problems[0]


def test_a_frozen_length_is_told_with_its_axis(tmp_path: Path) -> None:
    """Positions made for 16 tokens: the runtime stops elsewhere, at the addition."""
    nodes = [
        node("Gather", ["table", "ids"], ["embedding"], "node_embedding"),
        node("Shape", ["ids"], ["shape"], "node_shape", start=1, end=2),
        node("Slice", ["positions", "zero", "shape", "zero"], ["some"], "node_some"),
        node("Add", ["embedding", "some"], ["sum"], "node_sum"),
        node("ReduceMean", ["sum", "one"], ["y"], "node_mean", keepdims=0),
    ]
    stored = {
        "table": numbers(1, 20, 4), "positions": numbers(2, 64, 4), "zero": np.array([0]), "one": np.array([1]),
    }  # fmt: skip
    ids = tensor("ids", "int64", BATCH, "seq", low=0, high=19)
    built = build(nodes, [ids], [tensor("y", "float32", BATCH, 4)], stored, {"seq": AxisRange(1, 64)})

    def freeze(graph: Any) -> None:
        node_named(graph, "node_some").input[2] = "sixteen"
        graph.initializer.append(helper.make_tensor("sixteen", TensorProto.INT64, [1], [16]))

    proof = prove(built, tmp_path, freeze)
    assert "axis 'seq' of 'ids' is frozen at 16" in proof.problems[0]
    assert proof.culprit is not None
    assert proof.culprit.node == "node_some"


def test_a_source_that_knows_few_values_narrows_it_to_the_nodes_between(tmp_path: Path) -> None:
    fault = FAULTS["wrong order of axes"][1]
    proof = prove(classifier(), tmp_path, fault, knows=["padded", "conv", "bn", "relu", "mixed", "pooled"])
    assert proof.culprit is not None
    assert proof.culprit.node == "node_transpose"
    assert "node_linear (MatMul)" in proof.culprit.among
    assert "node_conv (Conv)" not in proof.culprit.among


def test_a_harmless_difference_inside_is_not_blamed(tmp_path: Path) -> None:
    """A mask of -1e4 against one of -9e3: the softmax of both is the same, and the fault is behind it."""

    def change(graph: Any) -> None:
        set_stored(graph, "minus", lambda old: old * np.float32(0.9))
        set_stored(graph, "first", lambda old: old + 1)

    assert prove(reader(), tmp_path, lambda graph: set_stored(graph, "minus", lambda old: old * np.float32(0.9))).passed
    proof = prove(reader(), tmp_path, change)
    assert proof.culprit is not None
    assert (proof.culprit.node, proof.culprit.confirmed) == ("node_first", True)


def test_nodes_without_names_get_one(tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        set_attribute(graph, "node_softmax", "axis", 0)
        for each in graph.node:
            each.name = ""

    proof = prove(classifier(), tmp_path, change)
    assert proof.culprit is not None
    assert proof.culprit.node == "Softmax_11"


def test_the_exporters_line_of_source_is_told(tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        set_attribute(graph, "node_softmax", "axis", 0)
        entry = node_named(graph, "node_softmax").metadata_props.add()
        entry.key = "pkg.torch.onnx.stack_trace"
        entry.value = (
            'File "/home/me/net.py", line 12, in forward\n    return softmax(x)\n'
            'File "/lib/site-packages/torch/nn/x.py", line 3, in softmax\n    return y'
        )

    proof = prove(classifier(), tmp_path, change)
    assert proof.culprit is not None
    assert proof.culprit.source_line == 'File "/home/me/net.py", line 12, in forward'
    assert "net.py" in proof.culprit.sentence
