"""What a model's configuration tells an import: inputs and outputs, where the source itself does not say. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tensorquay.config.model import ModelConfig, TensorConfig
from tensorquay.core.datatypes import DataType
from tensorquay.lifecycle.recipe import ImportOrder

_TYPES = {
    DataType.BOOL: "bool",
    DataType.UINT8: "uint8",
    DataType.UINT16: "uint16",
    DataType.UINT32: "uint32",
    DataType.UINT64: "uint64",
    DataType.INT8: "int8",
    DataType.INT16: "int16",
    DataType.INT32: "int32",
    DataType.INT64: "int64",
    DataType.FP16: "float16",
    DataType.BF16: "bfloat16",
    DataType.FP32: "float32",
    DataType.FP64: "float64",
    DataType.BYTES: "string",
}

_UNTOLD = frozenset({"torchscript", "graphdef"})
"""Kinds of which the file does not tell everything."""


def declared_arguments(order: ImportOrder) -> list[str]:
    """Options of the import command: `--input NAME:TYPE[AXES]` and `--output-name NAME`.

    Nothing for kinds that tell by themselves: there the configuration is checked against the result, as for any ONNX.
    """
    if order.declared is None or order.source.kind not in _UNTOLD:
        return []
    return list(_arguments(order.declared))


def _arguments(declared: ModelConfig) -> Iterator[str]:
    batches = bool(declared.max_batch_size)
    for tensor in declared.inputs:
        if tensor.dims is not None and tensor.datatype is not None:
            yield f"--input={tensor.name}:{_TYPES[tensor.datatype]}[{_axes(tensor, batches)}]"
    for tensor in declared.outputs:
        yield f"--output-name={tensor.name}"


def _axes(tensor: TensorConfig, batches: bool) -> str:
    dims = tensor.dims or ()
    if tensor.reshape is not None:
        dims = tensor.reshape
    named = [str(size) if size >= 0 else f"{tensor.name}_{axis}" for axis, size in enumerate(dims, int(batches))]
    return ",".join(["batch", *named] if batches else named)
