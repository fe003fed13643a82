"""Small real ONNX models, built by `onnx.helper`, for tests of everything that loads models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

Axes = Sequence[int | str | None] | None

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
"""Wire name → ONNX element type."""


def value(name: str, wire: str, axes: Axes) -> Any:
    """A tensor's declaration; strings in `axes` are symbolic sizes, `axes` None leaves the rank open."""
    return helper.make_tensor_value_info(name, ONNX_TYPES[wire], None if axes is None else list(axes))


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    initializers: Sequence[Any] = (),
    *,
    opset: int = 17,
    ir_version: int = 8,
) -> ModelProto:
    """A model of one graph."""
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def write(proto: ModelProto, path: Path) -> Path:
    """Write `proto` to `path`, making its folder; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def add_sub(axes: Axes = ("batch", 16), wire: str = "INT32") -> ModelProto:
    """INPUT0, INPUT1 → OUTPUT0 = sum, OUTPUT1 = difference: Triton's `simple`."""
    return model(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [value("INPUT0", wire, axes), value("INPUT1", wire, axes)],
        [value("OUTPUT0", wire, axes), value("OUTPUT1", wire, axes)],
    )


def identity(wire: str, axes: Axes = ("batch", "n")) -> ModelProto:
    """x → the same as y, any data type."""
    return model([helper.make_node("Identity", ["x"], ["y"])], [value("x", wire, axes)], [value("y", wire, axes)])


def scale(factor: float = 2.0, axes: Axes = ("batch", 4)) -> ModelProto:
    """x FP32 → y = factor · x."""
    return model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [value("x", "FP32", axes)],
        [value("y", "FP32", axes)],
        [numpy_helper.from_array(np.array(factor, np.float32), "factor")],
    )


def optional_input(ir_version: int = 8, opset: int = 17) -> ModelProto:
    """x FP32 [n], and w FP32 [1] with the initialiser 1.0 → y = x + w."""
    return model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", "FP32", ["n"]), value("w", "FP32", [1])],
        [value("y", "FP32", ["n"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "w")],
        opset=opset,
        ir_version=ir_version,
    )


def lookup(table: Sequence[float] = (10.0, 20.0, 30.0)) -> ModelProto:
    """index INT64 [n] → y FP32 [n] from `table`; an index outside it fails at run time, as the input's fault."""
    return model(
        [helper.make_node("Gather", ["table", "index"], ["y"], name="lookup")],
        [value("index", "INT64", ["n"])],
        [value("y", "FP32", ["n"])],
        [numpy_helper.from_array(np.array(table, np.float32), "table")],
    )


def expand() -> ModelProto:
    """x FP32 [n], shape INT64 [k] → y = x expanded to that shape: asks for as much memory as it is told."""
    return model(
        [helper.make_node("Expand", ["x", "shape"], ["y"], name="expand")],
        [value("x", "FP32", ["n"]), value("shape", "INT64", ["k"])],
        [value("y", "FP32", None)],
    )


def reshape() -> ModelProto:
    """x FP32 [n], shape INT64 [2] → y FP32 of that shape; a wrong one fails inside the runtime."""
    return model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="fold")],
        [value("x", "FP32", ["n"]), value("shape", "INT64", [2])],
        [value("y", "FP32", ["a", "b"])],
    )


def pass_through() -> ModelProto:
    """x FP32 [n] → x itself as an output, and y = x + x."""
    return model(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [value("x", "FP32", ["n"])],
        [value("x", "FP32", ["n"]), value("y", "FP32", ["n"])],
    )


def strings_table(items: Sequence[bytes]) -> ModelProto:
    """index INT64 [n] → y BYTES [n] from a table of arbitrary bytes."""
    # Not by `helper.make_tensor`: it goes through numpy, which drops NULs at the end.
    table = TensorProto(name="table", data_type=TensorProto.STRING, dims=[len(items)], string_data=items)
    return model(
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        [value("index", "INT64", ["n"])],
        [value("y", "BYTES", ["n"])],
        [table],
    )


def strings_from_both(items: Sequence[bytes]) -> ModelProto:
    """text BYTES [n], index INT64 [n] → y BYTES [n] = table[index], and echo BYTES [n] = text."""
    # Not by `helper.make_tensor`: it goes through numpy, which drops NULs at the end.
    table = TensorProto(name="table", data_type=TensorProto.STRING, dims=[len(items)], string_data=items)
    return model(
        [helper.make_node("Gather", ["table", "index"], ["y"]), helper.make_node("Identity", ["text"], ["echo"])],
        [value("text", "BYTES", ["n"]), value("index", "INT64", ["n"])],
        [value("y", "BYTES", ["n"]), value("echo", "BYTES", ["n"])],
        [table],
    )


def mixed() -> ModelProto:
    """text BYTES [n], bits BF16 [n], x FP32 [n] → the same as text_out, bits_out, and x_out = float(bits) + x."""
    return model(
        [
            helper.make_node("Identity", ["text"], ["text_out"]),
            helper.make_node("Identity", ["bits"], ["bits_out"]),
            helper.make_node("Cast", ["bits"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["wide", "x"], ["x_out"]),
        ],
        [value("text", "BYTES", ["n"]), value("bits", "BF16", ["n"]), value("x", "FP32", ["n"])],
        [value("text_out", "BYTES", ["n"]), value("bits_out", "BF16", ["n"]), value("x_out", "FP32", ["n"])],
    )


def dense(
    inputs: int = 64, outputs: int = 8, *, seed: int = 0, weights_name: str = "weights"
) -> tuple[ModelProto, np.ndarray]:
    """x FP32 [batch, inputs] → y = x · weights; returns the model and the weights."""
    weights = np.random.default_rng(seed).standard_normal((inputs, outputs), np.float32)
    return (
        model(
            [helper.make_node("MatMul", ["x", weights_name], ["y"])],
            [value("x", "FP32", ["batch", inputs])],
            [value("y", "FP32", ["batch", outputs])],
            [numpy_helper.from_array(weights, weights_name)],
        ),
        weights,
    )


def make_external(tensor: TensorProto, location: str, *, offset: str = "0", length: str | None = None) -> bytes:
    """Turn `tensor` into a reference to `location`; returns the bytes that belong there."""
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    fields = {"location": location, "offset": offset, "length": str(len(data)) if length is None else length}
    for key, text in fields.items():
        tensor.external_data.add(key=key, value=text)
    return data


def write_external(folder: Path, location: str = "weights.bin") -> tuple[Path, np.ndarray]:
    """A dense model in `folder` whose weights lie in a file of their own; returns the model's path and the weights."""
    proto, weights = dense()
    data = make_external(proto.graph.initializer[0], location)
    path = write(proto, folder / "model.onnx")
    (folder / location).write_bytes(data)
    return path, weights


def working(factor: float = 2.0) -> ModelProto:
    """x FP32 [batch, 2] → y = factor · x, after max(x[:, 0]) turns of a loop: the request says how long it takes.

    A turn costs about a microsecond, so 100_000 in the first column is a run one can do something during.
    """
    body = helper.make_graph(
        [
            helper.make_node("Add", ["turns_in", "one"], ["turns_out"]),
            helper.make_node("Identity", ["going_in"], ["going_out"]),
        ],
        "turn",
        [
            value("number", "INT64", []),
            value("going_in", "BOOL", []),
            value("turns_in", "FP32", [1]),
        ],
        [value("going_out", "BOOL", []), value("turns_out", "FP32", [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    return model(
        [
            helper.make_node("Gather", ["x", "first"], ["wanted"], axis=1),
            helper.make_node("ReduceMax", ["wanted"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["turns"], to=TensorProto.INT64),
            helper.make_node("Loop", ["turns", "", "none"], ["done"], body=body),
            # So that the loop is part of the answer: 0 · done + factor · x.
            helper.make_node("Mul", ["done", "none"], ["nothing"]),
            helper.make_node("Mul", ["x", "factor"], ["scaled"]),
            helper.make_node("Add", ["scaled", "nothing"], ["y"]),
        ],
        [value("x", "FP32", ["batch", 2])],
        [value("y", "FP32", ["batch", 2])],
        [
            numpy_helper.from_array(np.zeros(1, np.int64), "first"),
            numpy_helper.from_array(np.zeros(1, np.float32), "none"),
            numpy_helper.from_array(np.array(factor, np.float32), "factor"),
        ],
    )


def batched_lookup(table: Sequence[float] = (10.0, 20.0, 30.0)) -> ModelProto:
    """index INT64 [batch, 1] → y FP32 [batch, 1]: as `lookup`, in batches, so that one bad index fails them all."""
    return model(
        [helper.make_node("Gather", ["table", "index"], ["y"], name="lookup")],
        [value("index", "INT64", ["batch", 1])],
        [value("y", "FP32", ["batch", 1])],
        [numpy_helper.from_array(np.array(table, np.float32), "table")],
    )
