"""The records that a front end and the owner of the engine exchange over their stream. Sans I/O.

A record is a header of 16 bytes and what its kind says, and ends at a multiple of 8 bytes, so that tensors behind the
header are aligned. All integers are little-endian, because both sides run on one machine that is. Whatever repeats
(names, types, shapes) is said once as a numbered template (`templates.py`); a prediction is then a header and bytes.

    header   length:u32 kind:u8 flags:u8 template:u16 call:u32 extra:u32     (length: without the padding at the end)
    REQUEST  header, arrival_ns:i64 deadline_ns:i64 (-1: none), request id (extra bytes, padded), payload
    ANSWER   header, payload
    payload  size:u64 of every BYTES tensor; then the tensors, each padded to 8 bytes; or, with IN_ARENA, where in the
             sender's arena they are: offset:u64 size:u64
    TIMINGS  header, (call:u32 rows:u32 rows of the batch:u64 queue_ns:u64 run_ns:u64) for each of `extra` requests
    RUN      header, (call:u32 first row:u32 row after the last:u32) for each of `extra` requests, padded, payload
    CALL     header, arrival_ns:i64 deadline_ns:i64, document (JSON, extra bytes, padded), body
    RESULT   header, document (JSON, extra bytes, padded), body
    others   header, document (JSON), or nothing

Length and order are checked here; what a record means is its receiver's to check. Both sides are one program, so a
record that makes no sense ends the link (`BrokenLink`).
"""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Sequence
from typing import Any, Final

HEAD = struct.Struct("<IBBHII")
REQUEST_HEAD = struct.Struct("<IBBHIIqq")
RANGE = struct.Struct("<QQ")
SIZE = struct.Struct("<Q")
TIMINGS = struct.Struct("<IIQQQ")

IN_ARENA: Final = 1
"""Flag: the tensors are in the sender's arena."""

TRACED: Final = 2
"""Flag of a REQUEST: the ids of its trace stand before its id (`traces.py`)."""

NO_DEADLINE: Final = -1

MAX_RECORD_BYTES: Final = 2**32 - 8
"""What a length can say. A gRPC message has at most 2 GiB."""

PADS = tuple(bytes(count) for count in range(8))
"""`PADS[-n & 7]` follows n bytes."""

Part = bytes | bytearray | memoryview


class Kind(enum.IntEnum):
    """What a record is. F: sent by front ends; O: sent by the owner."""

    REQUEST_SHAPE = 1
    """F: the template of requests with this number, from now on."""
    ANSWER_SHAPE = 2
    """O: the same of answers."""
    REQUEST = 3
    """F: a prediction."""
    ANSWER = 4
    """O: its tensors."""
    ERROR = 5
    """O: why a request or a call has no answer."""
    CALL = 6
    """F: bytes for a handler of the owner."""
    RESULT = 7
    """O: what it answered."""
    CANCEL = 8
    """F: nobody waits for this request or call any more; what is still answered is not heard."""
    RELEASE = 9
    """Both: ranges of the receiver's arena (offset:u64 each, `extra` of them) that are not used any more."""
    LOG = 10
    """F: a log record."""
    REFUSED = 11
    """F: requests that were refused before they were sent: `extra` because too much waits to be sent; and one
    inference request, when `template` is not 0, with an error of that kind (`errors.kind_of`)."""
    READY = 12
    """F: it accepts connections."""
    DRAIN = 13
    """O: the server is stopping; answers close their connections."""
    STOP = 14
    """O: accept nothing more and end within `extra` milliseconds."""
    RUN_SHAPE = 15
    """O: the template of runs with this number, from now on."""
    RUN = 16
    """O: the outputs of a batch, or of one request's rows of it, and which requests they answer."""
    TIMINGS = 17
    """O: where the time of requests went whose answers come next; only while there is an access log."""
    SPAN = 18
    """F: how a traced request ended."""
    PING = 19
    """O: asks for a PONG."""
    PONG = 20
    """F: its event loop turns."""


class BrokenLink(Exception):
    """The other side sent what is no record, or left: there is nothing to go on with."""


def record(
    kind: Kind,
    *parts: Part,
    flags: int = 0,
    template: int = 0,
    call: int = 0,
    extra: int = 0,
) -> list[Part]:
    """A record with a plain header, padded. `parts` are its rest.

    Raises: OverflowError when it would be longer than a record can be.
    """
    size = HEAD.size + sum(map(len, parts))
    if size > MAX_RECORD_BYTES:
        raise OverflowError(f"a record of {size} bytes, at most {MAX_RECORD_BYTES} can be sent")
    out: list[Part] = [HEAD.pack(size, kind, flags, template, call, extra), *parts]
    if size & 7:
        out.append(PADS[-size & 7])
    return out


def document_record(kind: Kind, document: object, body: Sequence[Part] = (), *, call: int = 0) -> list[Part]:
    """A record of a JSON document (its length in `extra`) and a body."""
    text = dump(document)
    return record(kind, text, PADS[-len(text) & 7], *body, call=call, extra=len(text))


def call_record(document: object, body: Part, *, call: int, arrival_ns: int, deadline_ns: int | None) -> list[Part]:
    """A CALL."""
    text = dump(document)
    pad = PADS[-len(text) & 7]
    size = REQUEST_HEAD.size + len(text) + len(pad) + len(body)
    if size > MAX_RECORD_BYTES:
        raise OverflowError(f"a record of {size} bytes, at most {MAX_RECORD_BYTES} can be sent")
    deadline = NO_DEADLINE if deadline_ns is None else deadline_ns
    head = REQUEST_HEAD.pack(size, Kind.CALL, 0, 0, call, len(text), arrival_ns, deadline)
    return [head, text, pad, body, PADS[-size & 7]]


def dump(document: object) -> bytes:
    """JSON as the two sides write it: numbers of any size, NaN and infinities included, as clients may send them."""
    return json.dumps(document, separators=(",", ":"), default=str).encode("ascii")


def document_at(data: bytes, at: int, size: int) -> Any:
    """The JSON document of `size` bytes at `at`.

    Raises: BrokenLink.
    """
    try:
        return json.loads(data[at : at + size])
    except ValueError as error:
        raise BrokenLink(f"a document of {size} bytes is no JSON") from error


def padded(size: int) -> int:
    """`size` rounded up to where the next thing may begin."""
    return (size + 7) & ~7


class RecordReader:
    """Cuts what is read into records. Loop-confined; owner: its link."""

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._wanted = 0

    def feed(self, data: bytes) -> tuple[bytes, list[int]]:
        """The records that are complete now: a buffer, and where in it each begins.

        Raises: BrokenLink for a length that is none.
        """
        if self._kept:
            self._kept.append(data)
            self._kept_bytes += len(data)
            if self._kept_bytes < self._wanted:
                return b"", []
            # Once per record, however many reads it took: a large tensor is not copied again with every one.
            data = b"".join(self._kept)
            self._kept = []
        starts: list[int] = []
        at, end = 0, len(data)
        size = HEAD.size
        while end - at >= HEAD.size:
            length: int = HEAD.unpack_from(data, at)[0]
            if length < HEAD.size or length > MAX_RECORD_BYTES:
                raise BrokenLink(f"a record of {length} bytes, expected {HEAD.size} to {MAX_RECORD_BYTES}")
            size = padded(length)
            if size > end - at:
                break
            starts.append(at)
            at += size
            size = HEAD.size
        if at < end:
            self._kept = [data[at:]]
            self._kept_bytes = end - at
            self._wanted = size
        return data, starts
