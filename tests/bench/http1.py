"""One kept HTTP/1.1 connection with one request under way: as little work per answer as Python allows."""

from __future__ import annotations

import asyncio
import time
from typing import cast

from tests.bench.pace import Loop

_MAX_HEADS = 4096


class HttpConnection(asyncio.Protocol):
    """Sends `request` again and again. Heads of answers repeat, so each is read once per process.

    Args: heads: head → (status, length of the body), shared by all connections.
    """

    def __init__(self, loop: Loop, slot: int, request: bytes, heads: dict[bytes, tuple[int, int]]) -> None:
        self._loop = loop
        self._slot = slot
        self._request = request
        self._heads = heads
        self._buffer = bytearray()
        self._needed = 0
        self._head = b""
        self._sent_ns = 0
        self._transport: asyncio.Transport | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def start(self) -> None:
        """Send the first request."""
        self._send()

    def close(self) -> None:
        """End the connection; it is no error any more when it ends."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._buffer and not self._needed:
            # The usual case: one answer, in one piece.
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                head = data[:end]
                known = self._heads.get(head)
                if known is not None and len(data) == end + 4 + known[1]:
                    self._answered(head, known[0], data[end + 4 :])
                    return
        self._buffer += data
        if not self._needed:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._buffer[:end])
            try:
                self._needed = end + 4 + self._read_head(self._head)[1]
            except (ValueError, LookupError) as error:
                self._loop.fail(ValueError(f"cannot read the answer {self._head[:300]!r}: {error}"))
                return
        if len(self._buffer) < self._needed:
            return
        if len(self._buffer) > self._needed:
            self._loop.fail(ValueError("the answer is longer than its Content-Length"))
            return
        body = bytes(memoryview(self._buffer)[len(self._head) + 4 :])
        self._buffer = bytearray()
        self._needed = 0
        self._answered(self._head, self._heads[self._head][0], body)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._loop.fail(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(self._request)

    def _answered(self, head: bytes, status: int, body: bytes) -> None:
        if status != 200:
            self._loop.fail(ValueError(f"status {status}: {body[:300]!r}"))
        elif self._loop.answered(self._slot, self._sent_ns, head, body):
            self._send()

    def _read_head(self, head: bytes) -> tuple[int, int]:
        lines = head.decode("latin-1").lower().split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = dict(line.split(": ", 1) for line in lines[1:])
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[head] = known = (status, int(headers["content-length"]))
        return known
