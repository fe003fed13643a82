"""numpy arrays ⇄ tensors of the V2 protocol: which type a dtype is on the wire, and the two binary layouts.

Fixed-size types travel little-endian, row-major and packed; a BYTES element is a little-endian uint32 length and that
many bytes. numpy has no bfloat16: BF16 is sent from an array of that dtype (any package's), or from float32 or raw
uint16 bits through `Tensor(array, "BF16")`, and comes back as float32, which holds every BF16 value exactly.
Source: Open Inference Protocol "Tensor Data Types" and its binary data extension.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tensorquay_client.errors import InvalidArgument, ProtocolError

Array: TypeAlias = npt.NDArray[Any]
Chunk: TypeAlias = bytes | memoryview
"""A piece of a message; a memoryview is flat bytes over the caller's own array."""

MAX_RANK = 64
"""numpy's own limit."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BF16": np.dtype("<u2"),
    "BYTES": np.dtype(np.object_),
}
_WIRE_NAMES = {dtype: name for name, dtype in _DTYPES.items() if name != "BF16"}
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """An array with its wire type said explicitly.

    Args:
        array: what to send, batch axis included. For "BF16": bfloat16, float32 (rounded to nearest even) or uint16
            bits.
        datatype: "FP32", "BYTES", …; empty: from the array's dtype.
    Raises: InvalidArgument if the dtype has no wire type or does not match `datatype`.
    """

    array: Array
    datatype: str = ""

    def __post_init__(self) -> None:
        array, datatype = _normalised(np.asarray(self.array), self.datatype)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "datatype", datatype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions as sent."""
        return self.array.shape

    def __repr__(self) -> str:
        return f"Tensor({self.datatype} {list(self.shape)})"


TensorLike: TypeAlias = Tensor | npt.ArrayLike


def as_tensor(value: TensorLike) -> Tensor:
    """`value` ready to be sent; an array is not copied.

    Raises: InvalidArgument for what has no wire type (complex, dates, ragged lists, objects that are not text).
    """
    if isinstance(value, Tensor):
        return value
    try:
        return Tensor(_array(value))
    except ValueError as exc:
        raise InvalidArgument(f"a value is not an array: {exc}") from exc


def wire_dtype(datatype: str) -> np.dtype[Any]:
    """How numpy holds `datatype` on the wire (BF16: its 16 bits).

    Raises: ProtocolError if the protocol has no such type.
    """
    found = _DTYPES.get(datatype)
    if found is None:
        raise ProtocolError(f"the server uses the unknown data type {datatype[:40]!r}")
    return found


def to_wire(tensor: Tensor) -> Chunk:
    """The binary form of `tensor`: for a contiguous array of fixed-size elements a view, no copy."""
    if tensor.datatype == "BYTES":
        return pack_bytes(tensor.array)
    array = np.ascontiguousarray(tensor.array)
    if array.size == 0:
        return b""
    return array.reshape(-1).view(np.uint8).data


def from_wire(name: str, datatype: str, shape: Sequence[object], data: Chunk) -> Array:
    """The array in the binary form `data`, read-only; a view over `data` where its alignment allows.

    Raises: ProtocolError if `shape` is no shape or `data` does not hold exactly that many elements.
    """
    dtype, count = wire_dtype(datatype), element_count(name, shape)
    if datatype == "BYTES":
        array = unpack_bytes(name, data, count)
    else:
        if len(data) != count * dtype.itemsize:
            raise ProtocolError(
                f"output '{name}': {datatype} {list(shape)} is {count * dtype.itemsize} bytes, got {len(data)}"
            )
        array = np.frombuffer(data, dtype=dtype)
        if not array.flags.aligned:
            # The tensors follow a JSON header of any length; unaligned arrays are legal but slow everywhere else.
            array = array.copy()
    return finished(array, datatype, shape)


def finished(flat: Array, datatype: str, shape: Sequence[object]) -> Array:
    """A checked flat array as callers get it: shaped, read-only, BF16 as float32."""
    if datatype == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    array = flat.reshape(shape)  # type: ignore[arg-type]
    array.flags.writeable = False
    return array


def element_count(name: str, shape: Sequence[object]) -> int:
    """Number of elements in a received `shape`.

    Raises: ProtocolError for anything but up to `MAX_RANK` non-negative integers with a sane product.
    """
    if len(shape) > MAX_RANK or not all(type(size) is int and size >= 0 for size in shape):
        raise ProtocolError(f"output '{name}': the server's answer has no valid shape")
    # A zero must not hide an absurd size beside it: numpy refuses such shapes with another error.
    if math.prod(max(size, 1) for size in shape if isinstance(size, int)) >= 2**56:
        raise ProtocolError(f"output '{name}': the server's answer claims an impossible size")
    return math.prod(size for size in shape if isinstance(size, int))


def pack_bytes(array: Array) -> bytes:
    """Length-prefixed elements of an object array of `bytes`, row-major."""
    parts: list[bytes] = []
    for item in array.flat:
        parts.append(_LENGTH.pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def unpack_bytes(name: str, data: Chunk, count: int) -> Array:
    """`count` length-prefixed elements as a flat object array of `bytes`.

    Raises: ProtocolError if they do not fill `data` exactly.
    """
    if count * 4 > len(data):  # before anything of that size is made
        raise ProtocolError(f"output '{name}': {count} BYTES elements do not fit into {len(data)} bytes")
    items = np.empty(count, dtype=np.object_)
    position, size = 0, len(data)
    for index in range(count):
        end = position + 4
        if end <= size:
            (length,) = _LENGTH.unpack_from(data, position)
            position, end = end, end + length
        if end > size:
            raise ProtocolError(f"output '{name}': element {index} of {count} runs past the end of the data")
        items[index] = bytes(data[position:end])
        position = end
    if position != size:
        raise ProtocolError(f"output '{name}': {size - position} bytes left over after {count} BYTES elements")
    return items


def _array(value: npt.ArrayLike) -> Array:
    """`value` as an array; text and bytes in lists as they are, for numpy's S would drop trailing NUL bytes."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
    except UnicodeDecodeError:  # text and bytes mixed
        return np.asarray(value, dtype=object)
    return np.asarray(value, dtype=object) if array.dtype.kind in "SU" else array


def _normalised(array: Array, datatype: str) -> tuple[Array, str]:
    """`array` in the dtype of its wire type, and that type's name."""
    if datatype and datatype not in _DTYPES:
        raise InvalidArgument(f"unknown data type {datatype!r}, expected one of {', '.join(_DTYPES)}")
    if array.dtype.name == "bfloat16":
        array, found = array.view(np.uint16), "BF16"
    elif datatype == "BF16" and array.dtype == np.float32:
        array, found = _bfloat16_bits(array), "BF16"
    elif datatype == "BF16" and array.dtype == np.uint16:
        found = "BF16"
    elif array.dtype.kind in "OSUT":
        array, found = _bytes_array(array), "BYTES"
    else:
        native = array.dtype.newbyteorder("<")
        if native not in _WIRE_NAMES:
            raise InvalidArgument(f"numpy's {array.dtype} has no type in the V2 protocol; convert the array first")
        array, found = array.astype(native, copy=False), _WIRE_NAMES[native]
    if datatype and datatype != found:
        raise InvalidArgument(f"an array of {array.dtype} was given as {datatype}; convert it first, or pass cast=True")
    return array, found


def _bfloat16_bits(array: Array) -> Array:
    """The upper halves of float32 values, rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding could carry a NaN's mantissa into infinity or beyond; keep its upper bits and mark it quiet.
    quiet = (bits >> 16) | 0x40
    return np.where(np.isnan(bits.view(np.float32)), quiet, rounded).astype(np.uint16).reshape(array.shape)


def _bytes_array(array: Array) -> Array:
    """An object array of `bytes` from text or bytes, UTF-8; numpy's fixed-width S drops trailing NUL by itself."""
    result = np.empty(array.shape, dtype=np.object_)
    flat = result.reshape(-1)
    for index, item in enumerate(array.flat):
        if isinstance(item, str):
            flat[index] = item.encode()
        elif isinstance(item, bytes | bytearray | memoryview):
            flat[index] = bytes(item)
        else:
            raise InvalidArgument(
                f"an object array holds {type(item).__name__} at element {index}; only str and bytes can be sent"
            )
    return result
