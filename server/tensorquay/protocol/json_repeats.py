"""JSON requests like one before: the text around the tensors' elements is compared, only the elements are read.

A `TextPlan` is proven when it is made: the text with other arrays in the places of the `data` members is the same
document with other `data`, whatever valid array of numbers stands there. So a request with equal text around its
arrays needs no look at anything else. What does not fit goes to the codec, which also words every refusal.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import orjson

from tensorquay.core.tensors import Tensor
from tensorquay.protocol.json_tensors import STRUCT_CODES

_KEY = b'"data"'
_MAX_PREFIX_BYTES = 4096
_MAX_BYTES = 64 * 1024
"""Of a body that is learnt from: in larger ones the elements are nearly all there is to read."""


def prefix_of(body: bytes) -> bytes:
    """Everything before the first array of a `data` member; empty when there is none, or too much before it."""
    at = body.find(_KEY)
    start = body.find(b"[", at)
    return body[:start] if 0 <= at < start <= _MAX_PREFIX_BYTES else b""


class TextPlan:
    """The text around the arrays of a request.

    Args: between: what follows each array; the last one ends the body. packers: make the bytes of each.
    """

    __slots__ = ("_steps",)

    def __init__(self, between: Sequence[bytes], packers: Sequence[Callable[..., bytes]]) -> None:
        self._steps = tuple(zip(between, packers, strict=True))

    def read(self, body: bytes, position: int) -> list[bytes] | None:
        """The bytes of every tensor, when `body` is like the request before; its first array begins at `position`."""
        parts: list[bytes] = []
        for after, pack in self._steps:
            end = body.find(b"]", position) + 1
            text = body[position:end]
            if b"t" in text or b"f" in text:
                return None  # true and false, which would pass for 1 and 0 below
            try:
                parts.append(pack(*orjson.loads(text)))
            except (ValueError, TypeError, struct.error, OverflowError):
                return None  # not a flat array of so many numbers of that type: the codec says what it is
            if not body.startswith(after, end):
                return None
            position = end + len(after)
        return parts if position == len(body) else None


def learn(body: bytes, tensors: Sequence[Tensor]) -> TextPlan | None:
    """The plan of requests like `body`, whose inputs are `tensors`; None if it cannot be proven to be one."""
    codes = [STRUCT_CODES.get(tensor.datatype) for tensor in tensors]
    if len(body) > _MAX_BYTES or not tensors or None in codes:
        return None
    pieces: list[bytes] = []
    position = 0
    for _ in tensors:
        start = body.find(b"[", body.find(_KEY, position))
        end = body.find(b"]", start) + 1
        if start < position or end <= start:
            return None
        pieces.append(body[position:start])
        position = end
    pieces.append(body[position:])
    if not _is_proven(body, pieces, len(tensors)):
        return None
    packers = [struct.Struct(f"<{tensor.array.size}{code}").pack for tensor, code in zip(tensors, codes, strict=True)]
    return TextPlan(pieces[1:], packers)


def _is_proven(body: bytes, pieces: Sequence[bytes], count: int) -> bool:
    """Whether the places between `pieces` are the `data` members of the inputs, in order."""
    marks = [f"#{number}" for number in range(count)]
    marked = b"".join(b'%b["%b"]' % (piece, mark.encode()) for piece, mark in zip(pieces, marks, strict=False))
    try:
        document, original = orjson.loads(marked + pieces[-1]), orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    if [entry.pop("data", None) for entry in document["inputs"]] != [[mark] for mark in marks]:
        return False
    for entry in original["inputs"]:
        del entry["data"]
    # As text, because to Python true is the integer 1.
    same: bool = orjson.dumps(document) == orjson.dumps(original)
    return same
