"""What an ONNX file declares, read without making a session: inputs, outputs, types, axes.

Refuses by name what the protocol cannot carry (sequences, maps, sparse tensors, optionals, exotic element types) and
tensors without a rank. Never runs or optimises anything; weights outside the file are checked, not read.
Source: ONNX IR specification, `docs/IR.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay.backends.api import GraphSignature
from tensorquay.backends.onnxruntime import external_data
from tensorquay.backends.onnxruntime.external_data import ExternalData, short, text
from tensorquay.backends.onnxruntime.model_file import read_model
from tensorquay.backends.onnxruntime.runtime import import_onnx
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ModelFailed
from tensorquay.core.signature import TensorSpec

BFLOAT16 = 16

ELEMENT_TYPES = {
    1: DataType.FP32,
    2: DataType.UINT8,
    3: DataType.INT8,
    4: DataType.UINT16,
    5: DataType.INT16,
    6: DataType.INT32,
    7: DataType.INT64,
    8: DataType.BYTES,
    9: DataType.BOOL,
    10: DataType.FP16,
    11: DataType.FP64,
    12: DataType.UINT32,
    13: DataType.UINT64,
    BFLOAT16: DataType.BF16,
}
"""ONNX's `TensorProto.DataType` numbers that the protocol has a name for."""

_KINDS = {
    "sequence_type": "a sequence",
    "map_type": "a map",
    "sparse_tensor_type": "a sparse tensor",
    "optional_type": "an optional value",
    "opaque_type": "an opaque value",
}
_REMEDIES = {
    "sequence_type": "; classifiers converted from scikit-learn need the converter's option zipmap=False",
    "map_type": "; classifiers converted from scikit-learn need the converter's option zipmap=False",
}
_FIRST_IR_WITH_OVERRIDABLE_INITIALISERS = 4
_MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class Inspection:
    """A file's signature and the weights it refers to."""

    signature: GraphSignature
    external: tuple[ExternalData, ...]


def inspect_file(path: Path) -> Inspection:
    """Read the ONNX file at `path` (already found by `find_model`).

    Raises: ModelFailed saying what is wrong with it.
    """
    data, _ = read_model(path)
    inspection = inspect_bytes(data, path.name)
    external_data.check(path.parent, inspection.external)
    return inspection


def inspect_bytes(data: bytes, filename: str) -> Inspection:
    """The same over bytes; external data is listed, not checked. `filename` is for texts.

    Raises: ModelFailed.
    """
    onnx = import_onnx()
    try:
        model = onnx.ModelProto.FromString(data)
    except Exception as exc:
        # protobuf raises DecodeError, or RuntimeError and ValueError from some of its implementations.
        raise ModelFailed(f"'{filename}' is no ONNX model: it is corrupt, cut short, or of another format") from exc
    if not model.HasField("graph"):
        raise ModelFailed(f"'{filename}' is no ONNX model: it holds no graph")
    graph = model.graph
    initialised = {tensor.name for tensor in graph.initializer}
    initialised |= {sparse.values.name for sparse in graph.sparse_initializer}
    overridable = model.ir_version >= _FIRST_IR_WITH_OVERRIDABLE_INITIALISERS
    # Before IR 4 every weight had to be listed as an input; the runtime lets nobody override those.
    inputs = [value for value in graph.input if overridable or value.name not in initialised]
    if not graph.output:
        raise ModelFailed(f"'{filename}' has no outputs")
    signature = GraphSignature(
        inputs=tuple(_spec("input", value, optional=value.name in initialised) for value in inputs),
        outputs=tuple(_spec("output", value, optional=False) for value in _with_shapes(model, onnx)),
    )
    _refuse_repeats("input", signature.inputs)
    _refuse_repeats("output", signature.outputs)
    return Inspection(signature, external_data.references(model))


def _with_shapes(model: Any, onnx: Any) -> list[Any]:
    """The graph's outputs; a shape that the file leaves out is inferred where the graph tells it."""
    outputs = list(model.graph.output)
    if all(_is_ranked(value) for value in outputs):
        return outputs
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
    except Exception:  # noqa: BLE001 - inference is a courtesy: whatever it cannot do leaves the shape unknown
        return outputs
    by_name = {value.name: value for value in inferred}
    return [value if _is_ranked(value) else by_name.get(value.name, value) for value in outputs]


def _is_ranked(value: Any) -> bool:
    kind = value.type.WhichOneof("value")
    return kind != "tensor_type" or bool(value.type.tensor_type.HasField("shape"))


def _spec(role: str, value: Any, *, optional: bool) -> TensorSpec:
    name = short(text(value.name))
    if not value.name:
        raise ModelFailed(f"the model has an {role} without a name")
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = _KINDS.get(kind or "", "of no declared type")
        raise ModelFailed(f"{role} {name} is {what}, only plain tensors can be served{_REMEDIES.get(kind or '', '')}")
    tensor = value.type.tensor_type
    datatype = ELEMENT_TYPES.get(tensor.elem_type)
    if datatype is None:
        raise ModelFailed(f"{role} {name} has element type {_type_name(tensor.elem_type)}, which cannot be served")
    if not tensor.HasField("shape"):
        if role == "input":
            raise ModelFailed(f"input {name} has no shape: export the model with one (symbolic sizes are fine)")
        # Only the metadata can tell an unknown rank; one variable axis is the least wrong thing to say.
        return TensorSpec(value.name, datatype, (-1,), axis_names=(None,))
    if len(tensor.shape.dim) > _MAX_RANK:
        raise ModelFailed(f"{role} {name} has {len(tensor.shape.dim)} axes, at most {_MAX_RANK} can be served")
    axes = [_axis(dim) for dim in tensor.shape.dim]
    return TensorSpec(
        name=value.name,
        datatype=datatype,
        shape=tuple(size for size, _ in axes),
        optional=optional,
        axis_names=tuple(label for _, label in axes),
    )


def _axis(dim: Any) -> tuple[int, str | None]:
    if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
        return int(dim.dim_value), None
    # Some exporters write -1 for a variable size; the runtime takes it as one.
    return -1, text(dim.dim_param) or None


def _refuse_repeats(role: str, specs: Iterable[TensorSpec]) -> None:
    seen: set[str] = set()
    for spec in specs:
        if spec.name in seen:
            raise ModelFailed(f"the model has two {role}s named {short(spec.name)}")
        seen.add(spec.name)


def _type_name(number: int) -> str:
    types = import_onnx().TensorProto.DataType
    try:
        return str(types.Name(number))
    except ValueError:
        return f"number {number}"
