"""Find the raw tensor data of a serialised ModelInferRequest without copying it.

A protobuf library copies every `bytes` field, twice. Tensor data is nearly all of a large request, so for those the
top level of the message is walked here and the data is left where it is; all the rest still goes through the library.
The walk also bounds the number of fields before the library makes an object of each.
Source: protobuf encoding, "Message Structure".
"""

from __future__ import annotations

from tensorquay.core.errors import InvalidArgument

MAX_FIELDS = 8192
"""Most top-level fields of a large request: more than all its limits together allow."""

_RAW_TAG = (7 << 3) | 2
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5


def split_raw(data: bytes | memoryview) -> tuple[bytes, list[memoryview]]:
    """The message without `raw_input_contents`, and those as views over `data`, in order.

    Raises: InvalidArgument for data that is no message, has groups, or has more than `MAX_FIELDS` fields.
    """
    view = memoryview(data)
    end = len(view)
    position = kept_from = 0
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    for _ in range(MAX_FIELDS):
        if position == end:
            kept.append(view[kept_from:end])
            return b"".join(kept), raw
        start = position
        tag, position = _varint(view, position, end)
        wire_type = tag & 7
        if wire_type == _LEN:
            length, position = _varint(view, position, end)
            if length > end - position:
                raise _damaged(start)
            if tag == _RAW_TAG:
                raw.append(view[position : position + length])
                kept.append(view[kept_from:start])
                kept_from = position + length
            position += length
        elif wire_type == _VARINT:
            _, position = _varint(view, position, end)
        elif wire_type in {_I64, _I32}:
            position += 8 if wire_type == _I64 else 4
            if position > end:
                raise _damaged(start)
        else:
            raise _damaged(start)
    raise InvalidArgument(f"the inference request has more than {MAX_FIELDS} top-level protobuf fields")


def _varint(view: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _damaged(position)


def _damaged(position: int) -> InvalidArgument:
    return InvalidArgument(
        f"the request is no valid inference.ModelInferRequest message: the data is cut or damaged near byte {position}"
    )
