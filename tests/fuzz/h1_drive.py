"""One HTTP/1.1 connection of ours without a socket, and what must hold for whatever bytes it gets."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tensorquay.core.clock import SystemClock
from tensorquay.transport.h1 import H1Connection
from tensorquay.transport.h1_head import MAX_HEAD_BYTES
from tensorquay.transport.h1_server import H1Limits, H1Server
from tensorquay.transport.h1_slot import MAX_PIPELINED
from tensorquay.transport.http_message import HttpReply

MAX_BODY_BYTES = 1500
_QUIET_TURNS = 12
_MOST_TURNS = 20_000
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9a-z-]+): ([^\r\n\0]*)")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Port:
    """What a server asks of its bound socket."""

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    def close(self) -> None:
        """There is nothing to close."""


class _Wire:
    """A transport that remembers what is written and how it ended."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.ended = ""
        self.reading = True

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1)

    def write(self, data: bytes | memoryview) -> None:
        assert not self.ended, f"written after {self.ended}"
        self.sent += data

    def writelines(self, parts: Sequence[bytes | memoryview]) -> None:
        for part in parts:
            self.write(part)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.ended, f"the end was announced after {self.ended}"
        self.ended = "the end was announced"

    def close(self) -> None:
        self.ended = "closing"

    def abort(self) -> None:
        self.ended = "aborting"

    def is_closing(self) -> bool:
        return self.ended in {"closing", "aborting"}

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


@dataclass
class _Held:
    """A request that is not answered yet; it must be answered or cancelled, once."""

    body: bytes
    answer: Any
    ends: int = 0

    def cancel(self) -> None:
        self.ends += 1
        assert self.ends == 1, "settled twice"

    def settle(self) -> None:
        self.cancel()
        self.answer(HttpReply(200, (b"held:", self.body)))


@dataclass
class _Handler:
    """Hot routes: /echo answers at once, /hold when it is told to."""

    draining: bool = False
    methods: list[str] = field(default_factory=list)
    held: list[_Held] = field(default_factory=list)

    def route(self, method: str, path: str, headers: Any) -> Any:
        if path in {"/echo", "/hold"}:
            return _Route(self, method, path == "/hold")
        return None


@dataclass
class _Route:
    handler: _Handler
    method: str
    holds: bool
    tensors_at: int = 3

    def start(self, body: bytes | memoryview, arrival_ns: int, answer: Any) -> Any:
        assert len(body) <= MAX_BODY_BYTES
        self.handler.methods.append(self.method)
        if not self.holds:
            answer(HttpReply(200, (bytes(body),)))
            return None
        held = _Held(bytes(body), answer)
        self.handler.held.append(held)
        return held

    def refused(self, status: int) -> None:
        assert status >= 400


class _Bugs(logging.Handler):
    """Everything logged as an error: here that is our own mistake."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


@contextmanager
def _no_bugs() -> Any:
    bugs, logger = _Bugs(), logging.getLogger("tensorquay")
    logger.addHandler(bugs)
    try:
        yield
    finally:
        logger.removeHandler(bugs)
    assert not bugs.found, bugs.found[0]


@dataclass(frozen=True)
class Answer:
    """One answer. `method`: of its request, empty when none was served."""

    method: str
    status: int
    body: bytes


async def converse(pieces: Sequence[bytes]) -> list[Answer]:
    """The answers to `pieces`, one read of the socket each; checks everything else on the way."""
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    with _no_bugs():
        rig = _Rig(loop)
        for piece in pieces:
            await rig.feed(piece)
        await rig.settle()
        sent, served = bytes(rig.wire.sent), len(rig.handler.methods)
        if rig.wire.ended:
            await rig.feed(b"GET /echo HTTP/1.1\r\n\r\n")
            await rig.settle()
            assert bytes(rig.wire.sent) == sent, "a closed connection answered"
            assert len(rig.handler.methods) == served, "a closed connection served a request"
        await rig.leave()
    assert not failures, failures[0]
    return answers(sent, rig.handler.methods, closed=bool(rig.wire.ended))


class _Rig:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.handler = _Handler()
        port: Any = _Port()
        limits = H1Limits(max_body_bytes=MAX_BODY_BYTES)
        self.server = H1Server(self.handler, self._application, port, clock=SystemClock(), limits=limits)
        self.server._loop = loop
        self.wire = _Wire()
        self.connection = H1Connection(self.server)
        self.connection.connection_made(self.wire)

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers with the body, as much of it as there is before the client leaves."""
        self.handler.methods.append(scope["method"])
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"X-App", b"1")]})
        await send({"type": "http.response.body", "body": b"app:", "more_body": True})
        await send({"type": "http.response.body", "body": body})

    async def feed(self, data: bytes) -> None:
        while data and not self.wire.is_closing():
            if not self.wire.reading:
                await self.settle()
                assert self.wire.reading, "nothing is under way, and nothing is read"
            buffer = self.connection.get_buffer(-1)
            count = min(len(buffer), len(data))
            assert count, "no room to receive into"
            buffer[:count] = data[:count]
            data = data[count:]
            self.connection.buffer_updated(count)
            self.check()

    async def settle(self) -> None:
        """Let everything be answered that can be, the held ones last first."""
        quiet = 0
        for _ in range(_MOST_TURNS):
            before = len(self.wire.sent), len(self.handler.methods)
            await asyncio.sleep(0)
            quiet = quiet + 1 if before == (len(self.wire.sent), len(self.handler.methods)) else 0
            if quiet < _QUIET_TURNS:
                continue
            waiting = [held for held in self.handler.held if not held.ends]
            if not waiting:
                return
            for held in reversed(waiting):
                held.settle()
            quiet = 0
        raise AssertionError("the connection never comes to rest")

    def check(self) -> None:
        """What is kept is bounded, whatever came."""
        connection = self.connection
        assert len(connection._rest) <= MAX_HEAD_BYTES + len(self.server.staging)
        assert len(connection._slots) <= MAX_PIPELINED
        assert self.server._receiving == connection._intake._booked <= MAX_BODY_BYTES

    async def leave(self) -> None:
        self.connection.connection_lost(None)
        for _ in range(_QUIET_TURNS):
            await asyncio.sleep(0)
        assert self.server._receiving == 0
        assert not self.server._connections
        assert all(held.ends == 1 for held in self.handler.held)


def answers(sent: bytes, methods: Sequence[str], *, closed: bool) -> list[Answer]:
    """`sent` as answers, strictly; `methods` are those of the requests that were served, in order.

    Raises: AssertionError when it is anything else than HTTP/1.1 answers, the last of which may be a refusal.
    """
    found: list[Answer] = []
    while sent:
        if sent.startswith(_CONTINUE):
            sent = sent[len(_CONTINUE) :]
            continue
        head, end, sent = sent.partition(b"\r\n\r\n")
        assert end, f"no end of the head: {head!r}"
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        assert status, first
        headers = [match.groups() for line in lines if (match := _HEADER.fullmatch(line))]
        assert len(headers) == len(lines), head
        named = dict(headers)
        assert len(named) == len(headers), f"a header twice: {head!r}"
        method = methods[len(found)] if len(found) < len(methods) else ""
        body, sent = _body(named, sent, method, closed=closed)
        found.append(Answer(method, int(status[1]), body))
        if named.get(b"connection") == b"close":
            assert not sent, f"more after the last answer: {sent!r}"
            assert closed, "the connection stays open after it was said to close"
    return found


def _body(headers: dict[bytes, bytes], sent: bytes, method: str, *, closed: bool) -> tuple[bytes, bytes]:
    if method == "HEAD":
        return b"", sent
    if headers.get(b"transfer-encoding") == b"chunked":
        body = b""
        while True:
            line, _, sent = sent.partition(b"\r\n")
            size = int(line, 16)
            body, sent = body + sent[:size], sent[size:]
            assert sent.startswith(b"\r\n")
            sent = sent[2:]
            if not size:
                return body, sent
    if b"content-length" in headers:
        length = int(headers[b"content-length"])
        assert len(sent) >= length, "the answer is cut"
        return sent[:length], sent[length:]
    assert closed, "an answer without a length on a connection that stays open"
    return sent, b""
