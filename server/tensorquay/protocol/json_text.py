"""Strict, bounded JSON: text → Python values, or a sentence that says what is wrong with it.

Strict means RFC 8259: no NaN, no Infinity, no comments, no trailing commas, valid UTF-8. Deep nesting is refused
because values are later walked; the limit is Triton's.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson

from tensorquay.core.errors import InvalidArgument

MAX_DEPTH = 100
"""Deepest nesting of arrays and objects accepted."""

_NOT_MARKS = bytes(sorted(set(range(256)) - set(b'[]{}"')))
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_NON_FINITE = re.compile(r"NaN|nan\b|Infinity|[Ii]nf\b")


def parse_json(body: bytes | memoryview, what: str) -> Any:
    """The value of `body`; `what` names it in error texts ("the inference request").

    Integers beyond 64 bits come out as floats. Cost: one pass, and a second only for many brackets.
    Raises: InvalidArgument.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise _refusal(body, what, exc) from exc
    text = body if isinstance(body, bytes) else bytes(body)
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise InvalidArgument(f"{what} nests deeper than {MAX_DEPTH} levels of arrays and objects")
    return value


def parse_json_object(body: bytes | memoryview, what: str) -> dict[str, Any]:
    """As `parse_json`, and the value must be an object; an empty body is an empty object.

    Raises: InvalidArgument.
    """
    if len(body) == 0:
        return {}
    value = parse_json(body, what)
    if type(value) is not dict:
        raise InvalidArgument(f"{what} must be a JSON object, got {kind_of(value)}")
    return value


def kind_of(value: object) -> str:
    """What JSON calls `value`, for error texts."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def _depth(text: bytes) -> int:
    """Nesting of `text`, which is valid JSON. Without recursion and without a Python step per byte."""
    if b"\\" in text:
        text = _ESCAPE.sub(b"", text)
    marks = np.frombuffer(_STRING.sub(b"", text.translate(None, _NOT_MARKS)), dtype=np.uint8)
    steps = np.where((marks == ord("[")) | (marks == ord("{")), 1, -1)
    return int(np.cumsum(steps).max(initial=0))


def _refusal(body: bytes | memoryview, what: str, exc: orjson.JSONDecodeError) -> InvalidArgument:
    try:
        characters = bytes(body).decode()
    except UnicodeDecodeError as wrong:
        # orjson says only that it is not UTF-8, and calls it character 0.
        return InvalidArgument(
            f"{what} is not valid JSON: byte {wrong.start} (0x{wrong.object[wrong.start]:02x}) is not UTF-8; text that "
            "is not UTF-8 travels as binary data",
            facts={"position": wrong.start},
        )
    return InvalidArgument(_reason(characters, what, exc), facts={"position": exc.pos})


def _reason(characters: str, what: str, exc: orjson.JSONDecodeError) -> str:
    near = characters[exc.pos : exc.pos + 9]
    text = f"{what} is not valid JSON: {exc.msg} at character {exc.pos}"
    if _NON_FINITE.search(near):
        text += "; NaN and Infinity are not JSON, send such tensors as binary data (parameter 'binary_data_size')"
    return text
