"""From float16 to bfloat16: the float16 converter's decisions with bfloat16's numbers.

No library converts to bfloat16. What a float16 converter decides (which nodes, which casts, which weights) is right for
it as well; the numbers are not: they are taken from the original again, where float16 may have cut or lost them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, numpy_helper

_FLOAT16, _BFLOAT16 = TensorProto.FLOAT16, TensorProto.BFLOAT16
_TYPED = frozenset({"to", "dtype"})


def rewrite(converted: Any, original: Any) -> None:
    """Turn every float16 in `converted` into bfloat16.

    Args:
        converted: `original` after the float16 converter: the same nodes in the same order, casts after them. Graphs
            inside nodes were left in FP32.
        original: without any float16.
    """
    stored = {each.name: each for each in original.graph.initializer}
    for tensor in converted.graph.initializer:
        if tensor.data_type == _FLOAT16:
            set_bfloat16(tensor, stored[tensor.name])
    for number, node in enumerate(converted.graph.node):
        before = original.graph.node[number].attribute if number < len(original.graph.node) else ()
        _attributes(node, {each.name: each for each in before})
    for value in (*converted.graph.value_info, *converted.graph.output):
        kind = value.type
        if kind.HasField("sequence_type"):
            kind = kind.sequence_type.elem_type
        if kind.HasField("tensor_type") and kind.tensor_type.elem_type == _FLOAT16:
            kind.tensor_type.elem_type = _BFLOAT16


def set_bfloat16(tensor: Any, original: Any) -> None:
    """Make `tensor` hold the FP32 numbers of `original`, rounded to the nearest bfloat16, ties to even."""
    values = np.asarray(numpy_helper.to_array(original), dtype=np.float32)
    name = tensor.name
    tensor.Clear()
    tensor.name, tensor.data_type = name, _BFLOAT16
    tensor.dims.extend(values.shape)
    tensor.raw_data = values.astype(ml_dtypes.bfloat16).view(np.uint16).astype("<u2").tobytes()


def _attributes(node: Any, before: dict[str, Any]) -> None:
    for attribute in node.attribute:
        if attribute.name in _TYPED and attribute.i == _FLOAT16:
            attribute.i = _BFLOAT16
        earlier = before.get(attribute.name)
        pairs: Iterable[tuple[Any, Any]] = (
            (attribute.t, attribute.t if earlier is None else earlier.t),
            *zip(attribute.tensors, () if earlier is None else earlier.tensors, strict=False),
        )
        for tensor, origin in pairs:
            if tensor.data_type == _FLOAT16:
                set_bfloat16(tensor, origin)
