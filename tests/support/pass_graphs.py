"""Graphs that break what rewrites them: control flow, functions, optional inputs, old operator sets, nothing at all.

All of them take small inputs that `feeds` draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.support import graphs
from tests.support.graphs import model, value

from tensorquay_convert.proof.inputs import Drawn, draw
from tensorquay_convert.sources.onnx_graph import interface_of
from tensorquay_convert.tensors import Arrays


def weight(name: str, *shape: int, seed: int = 0, scale: float = 0.5) -> TensorProto:
    """A named tensor of normally distributed FP32."""
    drawn = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(scale)
    return numpy_helper.from_array(np.asarray(drawn, np.float32), name)


def layers(opset: int = 17, ir_version: int = 8) -> ModelProto:
    """x FP32 [batch, 8] → y FP32 [batch, 4]: two layers, with an identity, a constant sum and a dead node between."""
    return model(
        [
            helper.make_node("MatMul", ["x", "w0"], ["m0"], "first"),
            helper.make_node("Add", ["b0", "b1"], ["b"], "constant"),
            helper.make_node("Add", ["m0", "b"], ["a0"], "bias"),
            helper.make_node("Relu", ["a0"], ["r0"], "relu"),
            helper.make_node("Identity", ["r0"], ["i0"], "nothing"),
            helper.make_node("Exp", ["r0"], ["dead"], "unread"),
            helper.make_node("MatMul", ["i0", "w1"], ["y"], "second"),
        ],
        [value("x", "FP32", ["batch", 8])],
        [value("y", "FP32", ["batch", 4])],
        [weight("w0", 8, 16), weight("b0", 16, seed=1), weight("b1", 16, seed=2), weight("w1", 16, 4, seed=3)],
        opset=opset,
        ir_version=ir_version,
    )


def stored_inputs(ir_version: int) -> ModelProto:
    """`layers` with every weight listed as an input: optional ones from IR 4 on, only a habit before."""
    found = layers(11 if ir_version < 4 else 17, ir_version)
    found.graph.input.extend(value(each.name, "FP32", list(each.dims)) for each in found.graph.initializer)
    return found


def branch() -> ModelProto:
    """x FP32 [n, 4] → y: a product, then one of two branches, which capture it and a weight from outside."""

    def graph(name: str, operator: str) -> Any:
        return helper.make_graph(
            [helper.make_node(operator, ["m", "w"], [f"{name}_y"], f"{name}_node")],
            name,
            [],
            [value(f"{name}_y", "FP32", None)],
        )

    branches = {"then_branch": graph("yes", "MatMul"), "else_branch": graph("no", "Add")}
    return model(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
            helper.make_node("ReduceSum", ["m"], ["s"], "sum", keepdims=0),
            helper.make_node("Greater", ["s", "zero"], ["up"], "greater"),
            helper.make_node("If", ["up"], ["c"], "if", **branches),
            helper.make_node("Tanh", ["c"], ["y"], "tanh"),
        ],
        [value("x", "FP32", ["n", 4])],
        [value("y", "FP32", ["n", 4])],
        [weight("w", 4, 4), numpy_helper.from_array(np.array(0, np.float32), "zero")],
    )  # fmt: skip


def scan() -> ModelProto:
    """x FP32 [4, 3] → y FP32 [4, 3]: running sums times a captured weight."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum_in", "row"], ["sum_out"]),
            helper.make_node("Mul", ["sum_out", "w"], ["part"]),
        ],
        "body",
        [value("sum_in", "FP32", [3]), value("row", "FP32", [3])],
        [value("sum_out", "FP32", [3]), value("part", "FP32", [3])],
    )
    return model(
        [
            helper.make_node("Exp", ["x"], ["e"], "exp"),
            helper.make_node("Scan", ["start", "e"], ["last", "y"], "scan", body=body, num_scan_inputs=1),
        ],
        [value("x", "FP32", [4, 3])],
        [value("y", "FP32", [4, 3])],
        [weight("start", 3), weight("w", 3, seed=1)],
    )


def function() -> ModelProto:
    """x FP32 [n, 4] → y: twice a function of the model's own."""
    found = model(
        [
            helper.make_node("Twice", ["x", "w"], ["t"], "one", domain="own"),
            helper.make_node("Twice", ["t", "w"], ["y"], "two", domain="own"),
        ],
        [value("x", "FP32", ["n", 4])],
        [value("y", "FP32", ["n", 4])],
        [weight("w", 4, 4)],
    )
    twice = helper.make_function(
        "own", "Twice", ["a", "b"], ["c"],
        [helper.make_node("MatMul", ["a", "b"], ["m"]), helper.make_node("Add", ["m", "m"], ["c"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    found.functions.append(twice)
    found.opset_import.append(helper.make_opsetid("own", 1))
    return found


def nothing() -> ModelProto:
    """x FP32 [n] → x itself: no node at all."""
    return model([], [value("x", "FP32", ["n"])], [value("x", "FP32", ["n"])])


def stored_output() -> ModelProto:
    """x FP32 [n, 2] → y = x · w, and w itself."""
    return model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        [value("x", "FP32", ["n", 2])],
        [value("y", "FP32", ["n", 2]), value("w", "FP32", [2, 2])],
        [weight("w", 2, 2)],
    )


def kept_twice() -> ModelProto:
    """x FP32 [n, 4] → two values: operators that float16 leaves alone read the same value, one after another."""
    return model(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"], "product"),
            helper.make_node("CumSum", ["m", "axis"], ["c"], "running"),
            helper.make_node("Max", ["m", "c"], ["top"], "most"),
            helper.make_node("Min", ["c", "top"], ["low"], "least"),
            helper.make_node("MatMul", ["low", "w"], ["y"], "again"),
            helper.make_node("CumSum", ["low", "axis"], ["z"], "end"),
        ],
        [value("x", "FP32", ["n", 4])],
        [value("y", "FP32", ["n", 4]), value("z", "FP32", ["n", 4])],
        [weight("w", 4, 4), numpy_helper.from_array(np.array(1, np.int64), "axis")],
    )


def resized() -> ModelProto:
    """image FP32 [n, 1, 4, 4] → y FP32 [n, 2, 8, 8]: its scales are FP32 in any case."""
    return model(
        [
            helper.make_node("Resize", ["image", "", "scales"], ["r"], "resize", mode="nearest"),
            helper.make_node("Conv", ["r", "w"], ["y"], "conv", pads=[1, 1, 1, 1]),
        ],
        [value("image", "FP32", ["n", 1, 4, 4])],
        [value("y", "FP32", ["n", 2, 8, 8])],
        [weight("w", 2, 1, 3, 3), numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")],
    )


_SMALL = 32
"""Bytes; what is smaller may be a shape, which the runtime wants inside."""

AWKWARD: Mapping[str, Callable[[], ModelProto]] = {
    "opset 11": lambda: layers(11, 6),
    "opset 13": lambda: layers(13, 7),
    "opset 21": lambda: layers(21, 10),
    "optional inputs": lambda: stored_inputs(8),
    "weights listed as inputs before IR 4": lambda: stored_inputs(3),
    "one optional input": graphs.optional_input,
    "if": branch,
    "loop": graphs.working,
    "scan": scan,
    "function": function,
    "no node": nothing,
    "an input given out": graphs.pass_through,
    "a weight given out": stored_output,
    "texts": lambda: graphs.strings_from_both([b"a", b"", "größe".encode()]),
    "texts and bfloat16": graphs.mixed,
    "whole numbers": graphs.add_sub,
    "unknown rank": graphs.expand,
    "a value read twice in FP32": kept_twice,
    "resize": resized,
    "index": graphs.lookup,
}
"""Every one of them either works in a pass or is refused in a sentence."""


def feeds(proto: Any, seed: int = 0, size: int = 4) -> Arrays:
    """Inputs for `proto`, dynamic axes of `size`; bounded whole numbers, and shapes that can be had."""
    interface = interface_of(proto)
    axes = {axis: size for spec in interface.inputs for axis in spec.shape or () if isinstance(axis, str)}
    drawn = dict(draw(interface, Drawn("test", axes), seed))
    if {"x", "shape"} <= set(drawn):
        drawn["shape"] = np.array([2, 1, size], np.int64)
    return {name: np.asarray(each) % 3 if name == "index" else each for name, each in drawn.items()}


def write(proto: ModelProto, folder: Path, *, external: bool = False) -> Path:
    """`proto` as `model.onnx` in `folder`; `external`: all its weights in a file beside it."""
    if external:
        data = b""
        for tensor in proto.graph.initializer:
            if len(tensor.raw_data) > _SMALL:
                start = len(data)
                data += graphs.make_external(tensor, "weights.bin", offset=str(start))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "weights.bin").write_bytes(data)
    return graphs.write(proto, folder / "model.onnx")
