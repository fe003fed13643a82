"""A tensor as it travels through the server, and the two byte layouts of the binary wire form.

Fixed-size types are little-endian, row-major and packed; a BYTES element is a little-endian uint32 length followed
by that many bytes. Source: V2 protocol, "Binary Tensor Data" extension.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument

MAX_RANK = 32
"""Longest shape accepted on the wire: numpy 2 allows 64, ONNX Runtime kernels far fewer; nothing real comes near."""

MAX_ELEMENTS = 2**48
"""Most elements one tensor may claim; far beyond any body limit, small enough that products never overflow int64."""

_LENGTH = struct.Struct("<I")

_SMALL_BYTES = 4096
"""Up to here copying the data is faster than making a view of it."""


# Not frozen, like everything that is made for every request: see core/messages.py.
@dataclass(slots=True)
class Tensor:
    """A named array with the type the wire gives it.

    `array` has dtype `datatype.numpy`: BF16 is uint16 bits, BYTES an object array of `bytes`. It may be a read-only
    view over a received buffer; nobody writes into it.
    """

    name: str
    datatype: DataType
    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions as sent, batch axis included."""
        return self.array.shape

    @property
    def byte_size(self) -> int:
        """Bytes of the binary wire form."""
        if self.datatype is DataType.BYTES:
            return sum(4 + len(item) for item in self.array.flat)
        return int(self.array.nbytes)


def element_count(name: str, shape: Sequence[object]) -> int:
    """Number of elements in `shape`, or the reason it is no shape.

    Raises: InvalidArgument for non-integers, negative dimensions, more than `MAX_RANK` of them, or a product beyond
    `MAX_ELEMENTS`.
    """
    if len(shape) > MAX_RANK:
        raise InvalidArgument(f"input '{name}': shape has {len(shape)} dimensions, at most {MAX_RANK} are accepted")
    count = 1
    for size in shape:
        if type(size) is not int:
            raise InvalidArgument(f"input '{name}': shape must hold integers, got {_brief(shape)}")
        if size < 0:
            raise InvalidArgument(f"input '{name}': shape {_brief(shape)} has a negative dimension")
        # A zero must not hide an absurd product of the others: numpy refuses such shapes, with an error of its own.
        count *= size or 1
        if count > MAX_ELEMENTS:
            raise InvalidArgument(f"input '{name}': shape {_brief(shape)} has more than {MAX_ELEMENTS} elements")
    return 0 if 0 in shape else count


def from_buffer(name: str, datatype: DataType, shape: Sequence[int], buffer: memoryview | bytes) -> Tensor:
    """A tensor over the binary wire form, without copying fixed-size data.

    Args: shape: already passed `element_count`.
    Raises: InvalidArgument when the buffer does not hold exactly that many elements.
    """
    count = element_count(name, shape)
    if datatype is DataType.BYTES:
        flat = unpack_bytes(name, buffer, count)
        return Tensor(name, datatype, flat.reshape(tuple(shape)))
    expected = count * datatype.item_bytes
    if len(buffer) != expected:
        raise InvalidArgument(
            f"unexpected size for input '{name}', expecting {expected} bytes for {datatype.wire} "
            f"{list(shape)}, got {len(buffer)}",
            facts={"input": name, "expected": expected, "got": len(buffer)},
        )
    array = np.frombuffer(buffer, dtype=datatype.numpy)
    if datatype is DataType.BOOL and array.size and bool((array.view(np.uint8) > 1).any()):
        # Any non-zero byte is true for Triton; native kernels may assume exactly 0 or 1.
        array = array.view(np.uint8) != 0
    return Tensor(name, datatype, array.reshape(tuple(shape)))


def to_buffer(tensor: Tensor) -> bytes | memoryview:
    """The binary wire form of `tensor`; no copy when the array is large, contiguous and of fixed size."""
    array = tensor.array
    if tensor.datatype is DataType.BYTES:
        return pack_bytes(array)
    if array.nbytes <= _SMALL_BYTES:
        return array.tobytes()
    array = np.ascontiguousarray(array)
    if array.size == 0:
        return b""  # a view with a zero in its shape cannot be cast to flat bytes
    return array.reshape(-1).view(np.uint8).data


def pack_bytes(array: Array) -> bytes:
    """Length-prefixed elements of an object array of `bytes`, row-major."""
    parts: list[bytes] = []
    for item in array.flat:
        parts.append(_LENGTH.pack(len(item)))
        parts.append(item)
    return b"".join(parts)


def unpack_bytes(name: str, buffer: memoryview | bytes, count: int) -> Array:
    """`count` length-prefixed elements as a flat object array of `bytes`.

    Raises: InvalidArgument when an element runs past the end, or when bytes or elements are left over. `count` is
    checked against the buffer before anything of that size is made.
    """
    view = memoryview(buffer).cast("B") if not isinstance(buffer, bytes) else memoryview(buffer)
    size = len(view)
    if count * 4 > size:
        raise InvalidArgument(
            f"unexpected size for input '{name}': {count} BYTES elements need at least {count * 4} bytes, got {size}",
            facts={"input": name, "got": size},
        )
    items = np.empty(count, dtype=np.object_)
    position = 0
    for index in range(count):
        if position + 4 > size:
            raise InvalidArgument(
                f"unexpected size for input '{name}': element {index} of {count} has no length, the data ends early"
            )
        (length,) = _LENGTH.unpack_from(view, position)
        position += 4
        if position + length > size:
            raise InvalidArgument(
                f"unexpected size for input '{name}': element {index} of {count} claims {length} bytes, "
                f"{size - position} are left"
            )
        items[index] = bytes(view[position : position + length])
        position += length
    if position != size:
        raise InvalidArgument(
            f"unexpected size for input '{name}': {size - position} bytes left over after {count} BYTES elements"
        )
    return items


def _brief(shape: Sequence[object]) -> str:
    """A shape for an error text, cut before a hostile one fills the log."""
    shown = ", ".join(str(size)[:24] for size in shape[:8])
    return f"[{shown}{', …' if len(shape) > 8 else ''}]"
