"""uvicorn's HTTP/1.1 connection, with the bounds and refusals that a port open to strangers needs.

Bounds the head of a request in bytes and in time, answers what is no HTTP in the protocol's JSON, reads requests that
offer an upgrade as if they did not (llhttp would drop their bodies), and at the end refuses in words what was only
half sent.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tensorquay.transport.access_log import REFUSED, AccessLog

MAX_HEAD_BYTES: Final = 64 * 1024
"""Most bytes of a request line and headers together; forwarded headers and long model names need far less."""

HEAD_TIMEOUT_S: Final = 75.0
"""Longest wait for a head to be complete, on a new connection or once its first byte has come."""

_BAD_REQUEST = b"HTTP/1.1 400 Bad Request", b'{"error":"malformed HTTP request"}'
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large",
    b'{"error":"request line and headers are larger than %d bytes together"}' % MAX_HEAD_BYTES,
)
_STOPPING = (
    b"HTTP/1.1 503 Service Unavailable",
    b'{"error":"the server is shutting down and has stopped accepting new requests"}',
)


class HttpConfig(uvicorn.Config):
    """uvicorn's, and where requests are logged that never reach the application."""

    access: AccessLog | None = None


class _HeadTooLarge(Exception):
    """Raised in a parser callback to stop parsing."""


class HttpConnection(HttpToolsProtocol):
    """One connection. Loop-confined; owner: its transport."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._in_head = False
        self._head_bytes = 0
        self._upgrade_offered = False
        self._refusal = _BAD_REQUEST
        self._head_timer: asyncio.TimerHandle | None = None

    # -- asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        # uvicorn tells only the newest of pipelined requests.
        for cycle, _ in self.pipeline:
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse_bytes()
            return
        if not self._in_head:
            return
        # The callbacks count what they are told; a single endless header is never told.
        self._head_bytes += len(data)
        if self._head_bytes > 2 * MAX_HEAD_BYTES:
            self._refusal = _HEAD_TOO_LARGE
            self._refuse_bytes()
        elif self._head_timer is None:
            self._start_head_timer()

    def shutdown(self) -> None:
        """Called when the server ends: idle connections close, running requests finish, half-sent ones are refused."""
        cycle = self.cycle
        running = cycle is not None and not cycle.response_complete
        if (running and not cycle.response_started and cycle.more_body) or (not running and self._head_bytes):
            self._refuse(_STOPPING)
        else:
            super().shutdown()

    # -- the parser's side

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        self._upgrade_offered = self.parser.should_upgrade()
        if not self._upgrade_offered:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._upgrade_offered:
            super().on_message_complete()

    # -- helpers

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            if self.parser.get_method() == b"CONNECT":
                raise httptools.HttpParserError("no proxy") from offer
            rest = data[offer.args[0] :]
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self._feed(head + rest)

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name not in {b"upgrade", b"connection"}]
        return b"\r\n".join([*lines, b"", b""])

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refusal = _HEAD_TOO_LARGE
            raise _HeadTooLarge

    def _refuse_bytes(self) -> None:
        """What came is no request. An answer that is due for an earlier one goes first, and is then the last."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
            self.flow.pause_reading()
        else:
            self._refuse(self._refusal)

    def _refuse(self, answer: tuple[bytes, bytes]) -> None:
        """Write `answer` and close; a request being received is forgotten."""
        if self.transport.is_closing():
            return
        line, body = answer
        status = int(line.split()[1])
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.scope[REFUSED] = status  # type: ignore[typeddict-unknown-key]
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif isinstance(self.config, HttpConfig) and self.config.access is not None:
            access = self.config.access
            access.http("", "", status, begun_ns=access.now_ns(), peer=self.client, sizes=(0, len(body)))
        length = str(len(body)).encode()
        head = b"\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: " + length + b"\r\n\r\n"
        self.transport.write(line + head + body)
        self.transport.close()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_late)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        self.timeout_keep_alive_handler()
