"""One HTTP/2 connection with several unary gRPC calls under way.

Not grpcio: its client takes more CPU for a call than a server should, and on a machine that also runs the server one
would measure the client. Speaks RFC 9113 as far as a well-behaved server needs it, flow control included.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from tests.bench.hpack import RequestBlocks, outcome
from tests.bench.pace import Loop

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 2, 4, 5
_DEFAULT_WINDOW, _LARGEST_WINDOW = 65_535, 2**31 - 1
_OUR_SETTINGS = {
    _HEADER_TABLE_SIZE: 0,
    _ENABLE_PUSH: 0,
    _INITIAL_WINDOW_SIZE: _LARGEST_WINDOW,
    _MAX_FRAME_SIZE: 2**24 - 1,
}
_REPLENISH_BYTES = 1 << 29


@dataclass
class _Call:
    """One call under way: what is still to be sent, and what came."""

    slot: int
    sent_ns: int
    unsent: memoryview
    window: int
    parts: list[bytes] = field(default_factory=list)
    status: bytes | None = None
    good: bool | None = None


class GrpcConnection(asyncio.Protocol):
    """Calls `path` again and again, one call per slot at a time.

    Args:
        messages: slot → prefixed request message.
        outcomes: header block → what it says, shared by all connections.
    """

    def __init__(
        self,
        loop: Loop,
        messages: dict[int, bytes],
        outcomes: dict[bytes, tuple[bytes | None, bool | None]],
        *,
        path: str,
        authority: str,
    ) -> None:
        self._loop = loop
        self._messages = messages
        self._outcomes = outcomes
        self._path, self._authority = path, authority
        self._blocks: RequestBlocks | None = None
        self._calls: dict[int, _Call] = {}
        self._stalled: deque[int] = deque()
        self._next_id = 1
        self._window = _DEFAULT_WINDOW
        self._initial_window = _DEFAULT_WINDOW
        self._max_frame = 16_384
        self._consumed = 0
        self._buffer = b""
        self._block: tuple[int, int, bytes] | None = None  # stream, flags and bytes of an unfinished header block
        self._out: list[bytes | memoryview] = []
        self._transport: asyncio.Transport | None = None
        self._settled = asyncio.get_running_loop().create_future()
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        settings = b"".join(struct.pack(">HI", key, value) for key, value in _OUR_SETTINGS.items())
        opened = struct.pack(">I", _LARGEST_WINDOW - _DEFAULT_WINDOW)
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, opened))

    async def settled(self) -> None:
        """Returns when the server has said its settings, which the first call must respect."""
        await self._settled

    def start(self) -> None:
        """Send the first call of every slot."""
        for slot in self._messages:
            self._send(slot)
        self._flush()

    def close(self) -> None:
        """End the connection; it is no error any more when it ends."""
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._fail(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        position, end = 0, len(buffer)
        try:
            while end - position >= 9:
                length = int.from_bytes(buffer[position : position + 3], "big")
                if end - position < 9 + length:
                    break
                kind, flags = buffer[position + 3], buffer[position + 4]
                stream = int.from_bytes(buffer[position + 5 : position + 9], "big") & _LARGEST_WINDOW
                self._frame(kind, flags, stream, buffer[position + 9 : position + 9 + length])
                position += 9 + length
        except (ValueError, IndexError, KeyError, struct.error) as error:
            self._fail(error)
            return
        self._buffer = buffer[position:] if position < end else b""
        self._flush()

    # -- receiving

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._data(flags, stream, payload)
        elif kind == _HEADERS:
            if flags & _PRIORITY or flags & _PADDED:
                pad = payload[0] if flags & _PADDED else 0
                start = (1 if flags & _PADDED else 0) + (5 if flags & _PRIORITY else 0)
                payload = payload[start : len(payload) - pad]
            self._headers(stream, flags, payload)
        elif kind == _CONTINUATION and self._block is not None:
            stream, first_flags, begun = self._block
            self._headers(stream, first_flags | flags, begun + payload)
        elif kind == _WINDOW_UPDATE:
            self._opened(stream, int.from_bytes(payload, "big") & _LARGEST_WINDOW)
        elif kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._out.append(_frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM:
            raise ValueError(f"the server reset a call with code {int.from_bytes(payload, 'big')}")
        elif kind == _GOAWAY:
            raise ValueError(f"the server ends the connection: {payload[8:200]!r}")

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._consumed += len(payload)
        if self._consumed >= _REPLENISH_BYTES:
            self._out.append(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._consumed)))
            self._consumed = 0
        if flags & _PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        self._calls[stream].parts.append(payload)
        if flags & _END_STREAM:
            self._ended(stream)

    def _headers(self, stream: int, flags: int, block: bytes) -> None:
        if not flags & _END_HEADERS:
            self._block = (stream, flags, block)
            return
        self._block = None
        said = self._outcomes.get(block)
        if said is None:
            if len(self._outcomes) >= 4096:
                self._outcomes.clear()
            said = self._outcomes[block] = outcome(block)
        call = self._calls[stream]
        call.status = said[0] or call.status
        if said[1] is not None:
            call.good = said[1]
        if flags & _END_STREAM:
            self._ended(stream)

    def _ended(self, stream: int) -> None:
        call = self._calls.pop(stream)
        body = call.parts[0] if len(call.parts) == 1 else b"".join(call.parts)
        if call.status != b"200" or call.good is not True:
            raise ValueError(
                f"the call failed (:status {call.status!r}, grpc-status 0: {call.good}); body {body[:200]!r}"
            )
        if self._loop.answered(call.slot, call.sent_ns, b"", body):
            self._send(call.slot)

    def _settings(self, payload: bytes) -> None:
        table = 4096
        for key, value in struct.iter_unpack(">HI", payload):
            if key == _INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._initial_window
                self._initial_window = value
            elif key == _MAX_FRAME_SIZE:
                self._max_frame = value
            elif key == _HEADER_TABLE_SIZE:
                table = value
        if self._blocks is None:
            self._blocks = RequestBlocks(self._path, self._authority, table)
        self._out.append(_frame(_SETTINGS, _ACK, 0, b""))
        self._unstall()
        if not self._settled.done():
            self._settled.set_result(None)

    def _opened(self, stream: int, count: int) -> None:
        if stream == 0:
            self._window += count
        elif stream in self._calls:
            self._calls[stream].window += count
        self._unstall()

    # -- sending

    def _send(self, slot: int) -> None:
        assert self._blocks is not None
        stream = self._next_id
        self._next_id += 2
        call = _Call(slot, time.perf_counter_ns(), memoryview(self._messages[slot]), self._initial_window)
        self._calls[stream] = call
        self._out.append(_frame(_HEADERS, _END_HEADERS, stream, self._blocks.next()))
        if not self._push(stream, call):
            self._stalled.append(stream)

    def _push(self, stream: int, call: _Call) -> bool:
        """Send as much of the call as the windows allow; whether that is all of it."""
        while call.unsent:
            size = min(len(call.unsent), call.window, self._window, self._max_frame)
            if size <= 0:
                return False
            piece, call.unsent = call.unsent[:size], call.unsent[size:]
            call.window -= size
            self._window -= size
            self._out.append(_frame_head(_DATA, 0 if call.unsent else _END_STREAM, stream, size))
            self._out.append(piece)
        return True

    def _unstall(self) -> None:
        for _ in range(len(self._stalled)):
            stream = self._stalled.popleft()
            call = self._calls.get(stream)
            if call is not None and not self._push(stream, call):
                self._stalled.append(stream)

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _fail(self, error: Exception) -> None:
        self._loop.fail(error)
        if not self._settled.done():
            self._settled.set_exception(error)


def share(slots: int, connections: int) -> list[Sequence[int]]:
    """Slots 0 … `slots` − 1 dealt out to at most `connections` connections."""
    count = min(slots, connections)
    return [range(start, slots, count) for start in range(count)]


def _frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    return length.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _frame_head(kind, flags, stream, len(payload)) + payload
