"""The bytes of gRPC answers: header blocks made once, statuses, messages with their prefix, compression.

Source: gRPC over HTTP/2, "Responses"; status texts are percent-encoded UTF-8.
"""

from __future__ import annotations

import re
from functools import lru_cache
from struct import Struct

from tensorquay.core.errors import InvalidArgument, Overloaded, ServingError
from tensorquay.protocol.compression import compress, decompress
from tensorquay.protocol.status import OK, grpc_code, grpc_message
from tensorquay.transport.hpack import encode

PREFIX = Struct(">BI")
"""Compressed flag and length before every message."""

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_ACCEPTED = (b"grpc-accept-encoding", b"identity,deflate,gzip")

HEAD_BLOCK = encode([(b":status", b"200"), _CONTENT_TYPE])
"""Headers of every answer that has messages."""

OK_BLOCK = encode([(b"grpc-status", b"%d" % OK)])
"""Trailers of every success."""

TRACEPARENT_BYTES = 55
_TRACEPARENT = encode([(b"traceparent", bytes(TRACEPARENT_BYTES))])[:-TRACEPARENT_BYTES]
"""The field without its value, which always has that length: looking the name up costs more than the rest."""

TRACED_BLOCK = HEAD_BLOCK + _TRACEPARENT
"""`HEAD_BLOCK` of an answer that also names its span: the value comes behind it."""

_MAX_TEXT_BYTES = 4096
"""Longest status text: clients bound their headers (8 KiB by default in some), and a cut text beats none."""

_TO_ESCAPE = re.compile(rb"[^ -$&-~]")


@lru_cache(maxsize=8)
def head_block(coding: str | None) -> bytes:
    """Headers of an answer whose messages may be compressed with `coding`."""
    if coding is None:
        return HEAD_BLOCK
    return encode([(b":status", b"200"), _CONTENT_TYPE, (b"grpc-encoding", coding.encode())])


def traced_block(coding: str | None, traceparent: bytes) -> bytes:
    """`head_block`, which also names the span of the answer."""
    return head_block(coding) + _TRACEPARENT + traceparent


def error_block(error: ServingError) -> bytes:
    """Trailers that end a call with `error` after its headers."""
    return encode(_status(error))


def refusal_block(error: ServingError, http_status: int = 200) -> bytes:
    """Headers that are the whole answer: `error` before anything else was sent."""
    fields = [(b":status", b"%d" % http_status), _CONTENT_TYPE]
    if http_status == 405:
        fields.append((b"allow", b"POST"))
    return encode([*fields, _ACCEPTED, *_status(error)])


def message_parts(message: bytes, coding: str | None) -> tuple[bytes, bytes]:
    """Prefix and body of one message, compressed if `coding` says how."""
    if coding is not None and message:
        squeezed = compress([message], coding)
        if len(squeezed) < len(message):
            return PREFIX.pack(1, len(squeezed)), squeezed
    return PREFIX.pack(0, len(message)), message


def too_large_to_send(size: int, limit: int) -> ServingError:
    """What the client gets instead of an answer beyond the limit, in grpcio's words and with its status."""
    return Overloaded(f"Sent message larger than max ({size} vs. {limit}, --grpc-max-message-size)")


def coding_of(announced: str | None) -> str:
    """How the compressed messages of a call are compressed.

    Raises: ServingError when it has not said so.
    """
    if announced is None:
        raise ServingError("a compressed message, but the call has no grpc-encoding")
    return announced


def unpack(message: bytes | memoryview, coding: str, max_bytes: int) -> bytes | memoryview:
    """A compressed message as it was before.

    Raises: InvalidArgument when it is damaged; Overloaded when it is larger than `max_bytes`.
    """
    try:
        return decompress(message, coding, max_bytes)
    except InvalidArgument as error:
        if "expected" in error.facts:
            raise Overloaded(
                f"Received message larger than max (after decompression, vs. {max_bytes}, --grpc-max-message-size)"
            ) from error
        raise


def percent_encoded(text: str) -> bytes:
    """`text` as a grpc-message, at most 4 KiB."""
    coded = _TO_ESCAPE.sub(lambda match: b"%%%02X" % match[0][0], text.encode("utf-8", "replace"))
    # A field value may not begin or end with a space (RFC 9113 §8.2.1).
    if coded[:1] == b" ":
        coded = b"%20" + coded[1:]
    if coded[-1:] == b" ":
        coded = coded[:-1] + b"%20"
    if len(coded) <= _MAX_TEXT_BYTES:
        return coded
    # Not in the middle of an escape, nor of a character.
    cut = coded[:_MAX_TEXT_BYTES]
    cut = re.sub(rb"%[0-9A-F]?$", b"", cut)
    return re.sub(rb"(?:%[CDEF][0-9A-F](?:%[89AB][0-9A-F])*)$", b"", cut)


def _status(error: ServingError) -> list[tuple[bytes, bytes]]:
    fields = [(b"grpc-status", b"%d" % grpc_code(error.kind)), (b"grpc-message", percent_encoded(grpc_message(error)))]
    if error.retry_after_s is not None:
        # What gRPC clients with a retry policy understand: milliseconds to wait.
        fields.append((b"grpc-retry-pushback-ms", b"%d" % round(error.retry_after_s * 1000)))
    return fields
