"""W3C Trace Context: which trace a caller's request belongs to, and the header that tells it.

Pure. What is not valid does not exist: the request then begins a trace of its own, and is never refused for it.
Source: W3C Trace Context, "Traceparent Header", "Tracestate Header".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

RawContext: TypeAlias = tuple[bytes, bytes]
"""The values of traceparent and tracestate as they came; tracestate may be empty."""

MAX_TRACEPARENT_BYTES = 256
"""Version 00 has 55; later versions may append to it."""

MAX_TRACESTATE_BYTES = 512
"""What has to be propagated; a longer one may be dropped, and is."""

_MAX_MEMBERS = 32
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_END_OF_LINE = re.compile(rb"\r\n[^ \t]").match
_STATE_LINE = re.compile(rb"\r\n[Tt]racestate: ([!-~][ -~]{0,510}[!-~])(?=\r\n[^ \t])")
_KEY = rb"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_MEMBER = re.compile(rb"(" + _KEY + rb")=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


class CallerContext(NamedTuple):
    """The span that a caller made the request in. `state` is its tracestate, checked; "" for none."""

    trace_id: bytes
    span_id: bytes
    sampled: bool
    state: str = ""


def parse(context: RawContext) -> CallerContext | None:
    """The caller's span, or None for a traceparent that is none. An invalid tracestate is dropped alone."""
    found = _valid(context[0])
    if found is None:
        return None
    trace, span = bytes.fromhex(found[2].decode()), bytes.fromhex(found[3].decode())
    return CallerContext(trace, span, bool(int(found[4], 16) & 1), _state(context[1]))


def wish(context: RawContext) -> bool | None:
    """Whether the caller has its trace sampled; None for a traceparent that is none. Cheaper than `parse`."""
    found = _valid(context[0])
    return None if found is None else bool(int(found[4], 16) & 1)


def _valid(parent: bytes) -> re.Match[bytes] | None:
    found = _PARENT.fullmatch(parent) or _PARENT.fullmatch(parent.strip(b" \t"))
    if found is None or len(parent) > MAX_TRACEPARENT_BYTES or found[2] == _NO_TRACE or found[3] == _NO_SPAN:
        return None
    version = found[1]
    return None if version == b"ff" or (version == b"00" and found[5] is not None) else found


def render(trace_id: bytes, span_id: bytes) -> bytes:
    """The traceparent of a sampled span."""
    return f"00-{trace_id.hex()}-{span_id.hex()}-01".encode()


def of_headers(headers: Mapping[bytes, bytes]) -> RawContext | None:
    """What HTTP headers, names in lower case, say of a caller's span; None when nothing."""
    parent = headers.get(b"traceparent")
    return None if parent is None else (parent, headers.get(b"tracestate", b""))


def join_repeated(names: dict[bytes, bytes], headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Let `names`, of HTTP `headers`, hold all values of the two headers here: of others the last one counts."""
    for name in (b"traceparent", b"tracestate"):
        if name in names:
            names[name] = b",".join([value for each, value in headers if each == name])


def split_head(head: bytes) -> tuple[bytes, RawContext] | None:
    """The head of an HTTP/1.1 request without the line that says the caller's span, and what that says.

    None for a head without one, or with one that is written unusually: it is then read like any other line. Nothing
    else of the head can depend on such a line: it is a whole field, as no line that continues it follows.
    """
    at = head.find(b"\r\ntraceparent: ")
    if at < 0:
        at = head.find(b"\r\nTraceparent: ")
        if at < 0:
            return None
    begin, end = at + 15, at + 70
    parent = head[begin:end]
    # A whole line of that length, which the next one does not continue.
    if parent.translate(None, b"0123456789abcdef-") or not _END_OF_LINE(head, end):
        return None
    rest = head[:at] + head[end:]
    told = b""
    if b"racestate: " in rest:
        state = _STATE_LINE.search(rest)
        if state is not None:
            rest, told = rest[: state.start()] + rest[state.end() :], state[1]
    # A second line, or one that is written in another way: what they say together is read elsewhere.
    return None if b"\r\ntracestate" in rest.lower() else (rest, (parent, told))


def of_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> RawContext | None:
    """The same of gRPC metadata."""
    parents: list[bytes] = []
    states: list[bytes] = []
    for key, value in metadata:
        if key == TRACEPARENT:
            parents.append(_bytes(value))
        elif key == TRACESTATE:
            states.append(_bytes(value))
    # Several are joined as one header would be, and several traceparents are no traceparent.
    return (b",".join(parents), b",".join(states)) if parents else None


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "replace")


def _state(value: bytes) -> str:
    if not value or len(value) > MAX_TRACESTATE_BYTES:
        return ""
    members = [member for each in value.split(b",") if (member := each.strip(b" \t"))]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {each[1] for each in found if each is not None}
    if len(members) > _MAX_MEMBERS or len(keys) != len(members):
        return ""
    return b",".join(members).decode("ascii")
