"""`infer(cast=True)`: bring inputs to the types a model declares, as long as their values survive.

Pure: gets the metadata, makes no call. Floats may lose precision (float64 to FP32 is what everyone means); integers,
truth values and text may not change at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tensorquay_client.errors import InvalidArgument
from tensorquay_client.messages import ModelMetadata
from tensorquay_client.tensors import Array, Tensor, TensorLike, as_tensor, wire_dtype

_FLOATS = ("FP16", "BF16", "FP32", "FP64")


def cast_inputs(inputs: Mapping[str, TensorLike], metadata: ModelMetadata) -> dict[str, Tensor]:
    """`inputs` in the types of `metadata`; unknown names pass as they are, for the server to refuse.

    Raises: InvalidArgument naming the input whose values do not fit.
    """
    declared = {entry.name: entry.datatype for entry in metadata.inputs}
    return {name: cast(name, value, declared.get(name, "")) for name, value in inputs.items()}


def cast(name: str, value: TensorLike, datatype: str) -> Tensor:
    """`value` as `datatype` ("": as it is).

    Raises: InvalidArgument if a value would change: out of range, not integral, NaN to an integer, text to a number.
    """
    try:
        tensor = as_tensor(value)
    except InvalidArgument as exc:
        raise InvalidArgument(f"input '{name}': {exc.message}") from exc
    if not datatype or tensor.datatype == datatype:
        return tensor
    if "BYTES" in (datatype, tensor.datatype):
        raise InvalidArgument(f"input '{name}': the model expects {datatype}, and {tensor.datatype} is no such thing")
    array = _floats(tensor) if tensor.datatype == "BF16" else tensor.array
    if datatype in _FLOATS:
        return Tensor(_to_float(name, array, datatype), datatype)
    return Tensor(_to_integer(name, array, datatype), datatype)


def _floats(tensor: Tensor) -> Array:
    """The values of BF16 bits."""
    return (tensor.array.astype(np.uint32) << 16).view(np.float32).reshape(tensor.shape)


def _to_float(name: str, array: Array, datatype: str) -> Array:
    target = np.dtype(np.float32) if datatype == "BF16" else wire_dtype(datatype)
    with np.errstate(over="ignore"):
        result = array.astype(target)
    overflowed = np.isinf(result) & ~np.isinf(array) if array.dtype.kind == "f" else np.isinf(result)
    changed = array.dtype.kind in "iu" and not np.array_equal(result.astype(np.float64), array.astype(np.float64))
    if overflowed.any() or changed:
        raise _refused(name, array, datatype)
    return result


def _to_integer(name: str, array: Array, datatype: str) -> Array:
    target = wire_dtype(datatype)
    if array.size == 0:
        return array.astype(target)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or not (np.trunc(array) == array).all():
            raise _refused(name, array, datatype)
        # Float bounds of 64-bit types round up to a power of two that does not fit; the comparison is strict there.
        low, high = float(array.min()), float(array.max())
    else:
        low, high = int(array.min()), int(array.max())
    lowest, highest = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
    if low < int(lowest) or high > int(highest):
        raise _refused(name, array, datatype)
    return array.astype(target)


def _refused(name: str, array: Array, datatype: str) -> InvalidArgument:
    return InvalidArgument(
        f"input '{name}': the model expects {datatype}, and some values of this {array.dtype} array do not fit it"
    )
