"""Request headers → what a call is: method path, time-out, codings, metadata; or why it is none.

First HTTP/2's own rules on fields, whose violation resets the stream; then gRPC's, whose violation is an answer.
Source: RFC 9113 §8.1.1-§8.3.1; gRPC over HTTP/2, "Requests".
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from tensorquay.core.errors import ServingError, Unimplemented
from tensorquay.core.trace_context import RawContext
from tensorquay.protocol.compression import DEFLATE, GZIP, IDENTITY
from tensorquay.transport.h2_frames import ErrorCode, StreamFault
from tensorquay.transport.hpack_tables import Field

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

CODINGS = (GZIP, DEFLATE)

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\0\r\n]|^[ \t]|[ \t]$")
_HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_OWN = frozenset(
    {b"content-type", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"content-length"}
)
"""Fields of the protocol itself, which are no metadata."""

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_NS = {b"H": 3600 * 10**9, b"M": 60 * 10**9, b"S": 10**9, b"m": 10**6, b"u": 1000, b"n": 1}

_LONGEST_NS = 10**15
"""A deadline further away than eleven days is none."""

_CACHED_VALUE_BYTES = 256
_PSEUDO_KIND, _OWN_KIND, _METADATA_KIND = range(3)


class Refusal:
    """A call that is answered from its headers alone: an HTTP status, and with 200 a gRPC error."""

    __slots__ = ("error", "http_status")

    def __init__(self, error: ServingError, http_status: int = 200) -> None:
        self.error = error
        self.http_status = http_status


class CallHead:
    """What the headers of a call say. Shared by all calls with the same headers, so nobody changes it.

    Attributes:
        path: the method, "/package.Service/Method".
        timeout_ns: the time the client gives, or None.
        coding: "gzip" or "deflate" of compressed messages, or None.
        reply_coding: what to compress answers with: what the client sent, if it says it takes it.
        metadata: custom fields in order, names in lower case, values of "-bin" names decoded.
        content_length: announced bytes of data, or −1.
        refusal: why the call cannot be served, or None.
        route: who serves it; whoever looks up the path sets it.
        context: the caller's span, if that is looked for; set like the route.
    """

    __slots__ = (
        "coding",
        "content_length",
        "context",
        "metadata",
        "path",
        "refusal",
        "reply_coding",
        "route",
        "timeout_ns",
    )

    def __init__(self) -> None:
        self.path = ""
        self.timeout_ns: int | None = None
        self.coding: str | None = None
        self.reply_coding: str | None = None
        self.metadata: Metadata = ()
        self.content_length = -1
        self.refusal: Refusal | None = None
        self.route: Any = None
        self.context: RawContext | None = None


def refused(error: ServingError) -> CallHead:
    """A head for a call whose headers were not kept."""
    head = CallHead()
    head.refusal = Refusal(error)
    return head


def read_head(fields: Sequence[Field]) -> CallHead:
    """The call that `fields` open.

    Raises: StreamFault for a malformed request.
    """
    pseudo: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    metadata: list[tuple[str, str | bytes]] = []
    for field in fields:
        # Clients send the same few fields with every call; what varies is short.
        kind, entry = _known(field) if len(field[1]) <= _CACHED_VALUE_BYTES else _read(field)
        if kind == _METADATA_KIND:
            metadata.append(entry)
        elif kind == _OWN_KIND:
            name, value = field
            if name in own and name == b"content-length" and own[name] != value:
                raise _malformed("two different content-lengths")
            own[name] = own[name] + b"," + value if name == b"grpc-accept-encoding" and name in own else value
        else:
            if metadata or own:
                raise _malformed("a pseudo-header field follows a regular one")
            if field[0] in pseudo:
                raise _malformed("a pseudo-header field is repeated")
            pseudo[field[0]] = field[1]
    head = CallHead()
    head.metadata = tuple(metadata)
    _read_target(head, pseudo)
    _read_own(head, own)
    head.refusal = _refusal(head, pseudo, own)
    return head


def check_trailers(fields: Sequence[Field]) -> None:
    """A request's trailers carry nothing for us, but must be well formed.

    Raises: StreamFault for pseudo-header fields and malformed ones.
    """
    for field in fields:
        kind, _ = _read(field)
        if kind == _PSEUDO_KIND:
            raise _malformed("a pseudo-header field in trailers")


def _malformed(text: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, f"malformed request: {text}")


def _read(field: Field) -> tuple[int, Any]:
    """Kind of `field`, and its metadata entry if it is that.

    Raises: StreamFault for a field that HTTP/2 forbids.
    """
    name, value = field
    if _BAD_VALUE.search(value):
        raise _malformed("a field value with NUL, CR, LF or white space around it")
    if name[:1] == b":":
        if name not in _PSEUDO:
            raise _malformed("an unknown pseudo-header field")
        return _PSEUDO_KIND, None
    if not _NAME.fullmatch(name):
        raise _malformed("a field name with characters that are not allowed")
    if name in _HOP_BY_HOP:
        raise _malformed("a connection-specific field")
    if name in _OWN:
        if name == b"te" and value != b"trailers":
            raise _malformed("te must be 'trailers'")
        if name == b"content-length" and not (value.isdigit() and len(value) <= 18):
            raise _malformed("content-length is no number")
        return _OWN_KIND, None
    key = name.decode("ascii")
    if name.endswith(b"-bin"):
        return _METADATA_KIND, (key, _binary(value))
    return _METADATA_KIND, (key, value.decode("latin-1"))


_known = lru_cache(maxsize=4096)(_read)


def _binary(value: bytes) -> bytes:
    """The bytes behind base64, padded or not; several values are joined as gRPC joins them.

    Raises: StreamFault when it is no base64.
    """
    try:
        return b",".join(
            binascii.a2b_base64(part + b"=" * (-len(part) % 4), strict_mode=True) if part else b""
            for part in (each.strip() for each in value.split(b","))
        )
    except binascii.Error:
        raise _malformed("a '-bin' field that is no base64") from None


def _read_target(head: CallHead, pseudo: dict[bytes, bytes]) -> None:
    if pseudo.get(b":method") == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo:
            raise _malformed("CONNECT with :scheme or :path")
        return
    if not (pseudo.get(b":method") and pseudo.get(b":scheme") and pseudo.get(b":path")):
        raise _malformed("a mandatory pseudo-header field is missing or empty")
    head.path = pseudo[b":path"].decode("latin-1")


def _read_own(head: CallHead, own: dict[bytes, bytes]) -> None:
    length = own.get(b"content-length")
    if length is not None:
        head.content_length = int(length)
    coding = own.get(b"grpc-encoding", b"").decode("latin-1").strip().lower()
    if coding in CODINGS:
        head.coding = coding
        accepted = own.get(b"grpc-accept-encoding", b"").decode("latin-1").lower()
        if coding in {each.strip() for each in accepted.split(",")}:
            head.reply_coding = coding


def _refusal(head: CallHead, pseudo: dict[bytes, bytes], own: dict[bytes, bytes]) -> Refusal | None:
    """gRPC's own rules."""
    if pseudo[b":method"] != b"POST":
        return Refusal(ServingError("gRPC calls are POST requests; for HTTP use the HTTP port"), 405)
    kind = own.get(b"content-type", b"")
    if not (kind == b"application/grpc" or kind[:17] in {b"application/grpc+", b"application/grpc;"}):
        return Refusal(
            ServingError("this port speaks gRPC: content-type must be application/grpc; for HTTP use the HTTP port"),
            415,
        )
    timeout = own.get(b"grpc-timeout")
    if timeout is not None:
        match = _TIMEOUT.fullmatch(timeout)
        if match is None:
            return Refusal(ServingError("grpc-timeout must be up to eight digits and a unit of H, M, S, m, u, n"))
        timeout_ns = int(match[1]) * _UNIT_NS[match[2]]
        head.timeout_ns = timeout_ns if timeout_ns <= _LONGEST_NS else None
    coding = own.get(b"grpc-encoding", b"identity").decode("latin-1").strip().lower()
    if coding != IDENTITY and head.coding is None:
        return Refusal(
            Unimplemented(f"grpc-encoding '{coding:.32}' is not supported, expected gzip, deflate or identity")
        )
    return None
