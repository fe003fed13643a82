"""Values across ONNX Runtime's Python binding, which has no bfloat16 and takes and gives texts as `str`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from tensorquay_convert.tensors import Array

BFLOAT16 = "tensor(bfloat16)"
"""What ONNX Runtime calls it; arrays hold uint16 bits."""


def value(array: Array, kind: str) -> Any:
    """An `OrtValue` of an input whose type ONNX Runtime calls `kind`; it may read the array's own memory."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    if kind == BFLOAT16:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, TensorProto.BFLOAT16)
    return _text_value(array) if array.dtype.kind == "O" else onnxruntime.OrtValue.ortvalue_from_numpy(array)


def _text_value(array: Array) -> Any:
    """Texts as an `OrtValue`: the binding makes none from an array, so a model of one constant gives it."""
    items = [each if isinstance(each, bytes) else str(each).encode() for each in array.reshape(-1).tolist()]
    tensor = TensorProto(name="texts", data_type=TensorProto.STRING, dims=array.shape, string_data=items)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["texts"], ["out"])],
        "texts",
        [],
        [helper.make_tensor_value_info("out", TensorProto.STRING, list(array.shape))],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run_with_ort_values(["out"], {})[0]


def bits(held: Any) -> Any:
    """An array of an `OrtValue`; numpy has no bfloat16, so its 16 bits are copied out."""
    if held.data_type() != BFLOAT16:
        return held.numpy()
    found = np.empty(tuple(held.shape()), np.uint16)
    if found.size:
        ctypes.memmove(found.ctypes.data, held.data_ptr(), found.nbytes)
    return found


def is_tensor(given: Any) -> bool:
    """Whether an output is one; sequences and maps are none."""
    return isinstance(given, np.ndarray | np.generic)


def texts_in(given: Array) -> Array:
    """An input as the binding takes it: texts as `str`, everything else as it is."""
    if given.dtype != np.dtype(object):
        return given
    found = np.empty(given.size, object)
    found[:] = [each.decode() if isinstance(each, bytes) else each for each in given.reshape(-1).tolist()]
    return found.reshape(given.shape)


def texts_out(given: Any) -> Array:
    """An output with texts as `bytes` in an array of object, everything else as it is."""
    array = np.asarray(given)
    if array.dtype.kind not in "OU":
        return array
    found = np.empty(array.size, object)
    found[:] = [each if isinstance(each, bytes) else str(each).encode() for each in array.reshape(-1).tolist()]
    return found.reshape(array.shape)
