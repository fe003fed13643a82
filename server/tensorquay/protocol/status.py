"""The only table from the kind of an error to an HTTP status and a gRPC code, and the body of an error.

HTTP statuses are Triton's where a Triton client looks; 429 and 504 are ours (docs/protocol.md, "Errors"). gRPC codes
are plain numbers, so that this room needs no gRPC library.
"""

from __future__ import annotations

import json
import math

import orjson

from tensorquay.core.errors import ErrorKind, ServingError

OK = 0
"""gRPC code of success."""

_TABLE: dict[ErrorKind, tuple[int, int]] = {
    ErrorKind.INVALID_ARGUMENT: (400, 3),
    ErrorKind.NOT_FOUND: (404, 5),
    ErrorKind.UNAVAILABLE: (503, 14),
    ErrorKind.RESOURCE_EXHAUSTED: (429, 8),
    ErrorKind.DEADLINE_EXCEEDED: (504, 4),
    ErrorKind.ALREADY_EXISTS: (400, 6),
    ErrorKind.UNIMPLEMENTED: (501, 12),
    ErrorKind.PERMISSION_DENIED: (403, 7),
    ErrorKind.INTERNAL: (500, 13),
    ErrorKind.CANCELLED: (400, 1),
}

_REFUSALS = {
    408: ErrorKind.DEADLINE_EXCEEDED,
    429: ErrorKind.RESOURCE_EXHAUSTED,
    500: ErrorKind.INTERNAL,
    503: ErrorKind.UNAVAILABLE,
}


def http_status(kind: ErrorKind) -> int:
    """The HTTP status of `kind`."""
    return _TABLE[kind][0]


def kind_of_refusal(status: int) -> ErrorKind:
    """The kind behind an HTTP status with which a transport refuses requests."""
    return _REFUSALS.get(status, ErrorKind.INVALID_ARGUMENT)


def grpc_code(kind: ErrorKind) -> int:
    """The gRPC status code of `kind`."""
    return _TABLE[kind][1]


def grpc_message(exc: ServingError) -> str:
    """The text of `exc` for a gRPC status: any str, also one that holds undecodable file names, as valid Unicode."""
    return _valid(exc.message)


def error_body(exc: ServingError) -> bytes:
    """The JSON body of `exc`: `error` (text), `code` (the kind's name), then its facts.

    A fact may not replace `error` or `code`. Never raises: a fact that JSON cannot hold is written as text.
    """
    body: dict[str, object] = {"error": exc.message, "code": exc.kind.name}
    for key, value in exc.facts.items():
        body.setdefault(key, value)
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        # Lone surrogates, integers beyond 64 bits, values of other types: rare, so the slow encoder may repair them.
        return _valid(json.dumps(body, default=str, ensure_ascii=False)).encode()


def retry_after(exc: ServingError) -> str | None:
    """The value of a Retry-After header in whole seconds, at least 1; None when `exc` does not tell one."""
    seconds = exc.retry_after_s
    if seconds is None or not math.isfinite(seconds):
        return None
    return str(max(1, math.ceil(seconds)))


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
