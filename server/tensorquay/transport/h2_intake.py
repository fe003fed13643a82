"""DATA frames → messages of calls: windows, pieces, and what a call does not take yet.

The part of a connection between frames and `grpc_inbox.py`. A call's bytes are acknowledged when they are consumed, so
the windows bound what waits here. Source: RFC 9113 §5.1, §6.1, §6.9.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from tensorquay.core.errors import ServingError
from tensorquay.telemetry.unexpected import unexpected
from tensorquay.transport import h2_frames as f
from tensorquay.transport.buffers import BufferPool
from tensorquay.transport.coding import CodingThread
from tensorquay.transport.grpc_call import Call
from tensorquay.transport.grpc_inbox import Inbox, ReceiveBudget
from tensorquay.transport.h2_frames import ConnectionFault, ErrorCode, StreamFault
from tensorquay.transport.h2_guard import Guard
from tensorquay.transport.h2_limits import H2Limits
from tensorquay.transport.h2_reader import FrameReader
from tensorquay.transport.h2_writer import Writer

_log = logging.getLogger("tensorquay.grpc")

_FORGOTTEN = 1024
"""Streams we ended before their client did, whose frames may still come."""


@dataclass(frozen=True, slots=True)
class ReceiveMemory:
    """What all connections of a server receive into, and who unpacks it."""

    staging: memoryview
    budget: ReceiveBudget
    pool: BufferPool
    max_message_bytes: int
    coding: CodingThread


class Intake(FrameReader):
    """The receiving side of the calls of one connection. Loop-confined."""

    def __init__(
        self,
        memory: ReceiveMemory,
        limits: H2Limits,
        writer: Writer,
        guard: Guard,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(memory.staging, limits)
        self._loop = loop
        self._limits = limits
        self._memory = memory
        self._last_stream = 0
        # Whether its client is still sending, as far as we know.
        self._forgotten: dict[int, bool] = {}
        # Consumed and not yet acknowledged; waiting in backlogs.
        self._unacked = 0
        self._waiting = 0
        self._half_window = limits.connection_window // 2
        self.max_message_bytes = memory.max_message_bytes
        self.coding = memory.coding
        self.writer = writer
        self.guard = guard
        self.calls: dict[int, Call] = {}

    def reset(self, stream: int, fault: StreamFault) -> None:
        """End `stream` for a fault of its client."""
        raise NotImplementedError

    @property
    def ignores_new(self) -> bool:
        """Whether streams beyond the last one are ignored instead of opened."""
        raise NotImplementedError

    def on_data(self, stream: int, data: bytes | memoryview, start: int, stop: int, end_stream: int) -> None:
        length = stop - start
        self._unacked += length
        call = self.calls.get(stream)
        if call is None:
            self._stray(stream, length, end_stream)
            self._received()
            return
        head = call.head
        if (
            end_stream
            and length >= 5
            and call.inbox is None
            and not head.route.streaming
            and data[start] == 0
            and int.from_bytes(data[start + 1 : start + 5], "big") == length - 5
            and head.content_length in {-1, length}
            and length <= self.max_message_bytes
            and not (call.half_closed or call.closed)
        ):
            # One whole message and the end: nearly every call there is.
            call.half_closed = True
            if self._unacked >= self._half_window:
                self._received()
            try:
                head.route.start(call, bytes(data[start + 5 : stop]))
            except Exception as error:  # noqa: BLE001  as in `guarded`, without the cost of passing through it
                self.failed(call, error)
            return
        if self._count(call, length, end_stream):
            self._take(call, data, start, stop, end_stream=bool(end_stream))
        self._received()

    def on_data_begun(self, stream: int, length: int, end_stream: int) -> None:
        self._unacked += length
        call = self.calls.get(stream)
        if call is None:
            self._stray(stream, length, end_stream)
        else:
            self._count(call, length, 0)

    def on_piece(self, stream: int, data: bytes | memoryview, start: int, stop: int, end_stream: bool) -> None:
        call = self.calls.get(stream)
        if call is not None:
            self._take(call, data, start, stop, end_stream=end_stream)
        self._received()

    def direct_target(self, stream: int) -> memoryview | None:
        call = self.calls.get(stream)
        if call is None or call.closed or not call.taking or call.inbox is None or call.backlog:
            return None
        return call.inbox.direct()

    def on_direct(self, stream: int, count: int, end_stream: bool) -> None:
        call = self.calls[stream]
        call.content_left -= count
        inbox = call.inbox
        assert inbox is not None
        self.guarded(call, inbox.filled, count)
        self._taken(call, count)
        if end_stream:
            self._half_close(call)
        self._received()

    def _received(self) -> None:
        """Data came: was it allowed, and is it worth a frame to allow more?"""
        if self._unacked + self._waiting > self._limits.connection_window:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window allows")
        self._credit()

    def _credit(self) -> None:
        """Open the connection's window again, when enough was consumed."""
        if self._unacked >= self._half_window and not self.deaf:
            self.writer.put(f.window_update(0, self._unacked))
            self._unacked = 0

    def _stray(self, stream: int, length: int, end_stream: int) -> None:
        """DATA for a stream that is not there."""
        if stream > self._last_stream:
            if self.ignores_new:
                return
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {stream}")
        unfinished = self._forgotten.get(stream)
        if unfinished is not None:
            if not length:
                self.guard.noise()
            if end_stream:
                self._forgotten[stream] = False
            return
        self.reset(stream, StreamFault(ErrorCode.STREAM_CLOSED, "DATA on a closed stream"))

    def _count(self, call: Call, length: int, end_stream: int) -> bool:
        """Book a DATA frame against its stream. Returns: whether it may be there."""
        if call.half_closed:
            self.reset(call.id, StreamFault(ErrorCode.STREAM_CLOSED, "DATA after the end of the stream"))
            return False
        if not length and not end_stream:
            self.guard.noise()
        call.unacked += length
        if call.unacked > self._limits.stream_window:
            self.reset(call.id, StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window allows"))
            return False
        return True

    def _take(self, call: Call, data: bytes | memoryview, start: int, stop: int, *, end_stream: bool) -> None:
        """Payload of `call`, already counted."""
        call.content_left -= stop - start
        if not call.closed and start < stop:
            if call.taking and not call.backlog:
                start = self._feed(call, data, start, stop)
            if start < stop and not call.closed:
                self._keep(call, data[start:stop])
        if end_stream and self.calls.get(call.id) is call:
            self._half_close(call)

    def _feed(self, call: Call, data: bytes | memoryview, start: int, stop: int) -> int:
        """Hand payload to the call's inbox while the call takes it. Returns: where it stopped."""
        inbox = call.inbox
        if inbox is None:
            memory = self._memory
            inbox = call.inbox = Inbox(
                memory.budget, memory.pool, memory.max_message_bytes, call.deliver, keeps=not call.head.route.streaming
            )
        begun = start
        try:
            while start < stop and call.taking and not call.closed:
                start = inbox.feed(data, start, stop)
        except Exception as error:  # noqa: BLE001  as in `guarded`
            self.failed(call, error)
        self._taken(call, start - begun)
        return start

    def _keep(self, call: Call, data: bytes | memoryview) -> None:
        """Payload that the call does not take yet. Neither window opens for it, so they bound it."""
        self._unacked -= len(data)
        self._waiting += len(data)
        if call.backlog is None:
            call.backlog = bytearray()
        call.backlog += data

    def feed_backlog(self, call: Call) -> None:
        """The call takes messages again."""
        kept, call.backlog = call.backlog, None
        if kept:
            data = bytes(kept)
            self.backlog_left(len(data))
            taken = self._feed(call, data, 0, len(data))
            if taken < len(data) and not call.closed:
                self._keep(call, data[taken:])
        if call.half_closed and not call.backlog and not call.closed and call.taking:
            self._client_done(call)

    def backlog_left(self, count: int) -> None:
        """`count` bytes of a backlog were consumed, or are not wanted any more."""
        self._waiting -= count
        self._unacked += count
        self._credit()

    def _taken(self, call: Call, count: int) -> None:
        """The call has consumed `count` bytes: open its window again, when it is worth a frame."""
        if call.unacked >= self._limits.stream_window // 2 and call.taking and not call.half_closed and count:
            if not call.closed:
                self.writer.put(f.window_update(call.id, call.unacked))
            call.unacked = 0

    def _half_close(self, call: Call) -> None:
        """The client's side of the stream has ended."""
        call.half_closed = True
        if call.head.content_length >= 0 and call.content_left:
            self.reset(call.id, StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length is not what was sent"))
            return
        if call.closed:
            if not call.pending:
                self.calls.pop(call.id, None)
            return
        if call.taking and not call.backlog:
            self._client_done(call)

    def _client_done(self, call: Call) -> None:
        self.guarded(call, call.client_done)

    def guarded(self, call: Call, work: Any, *arguments: Any) -> None:
        """Run `work`; what it raises ends `call` and nothing else."""
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
            self.failed(call, error)

    def failed(self, call: Call, error: Exception) -> None:
        """End `call` with what was raised on its behalf."""
        call.turn_away(error if isinstance(error, ServingError) else unexpected(error, _log, "serving a gRPC call"))

    def _forget(self, stream: int, *, unfinished: bool = False) -> None:
        """Expect more frames of `stream`; with `unfinished`, ask the client to stop unless it has."""
        forgotten = self._forgotten
        if len(forgotten) >= _FORGOTTEN:
            del forgotten[next(iter(forgotten))]
        forgotten[stream] = unfinished
        if unfinished:
            # What has arrived already may hold the end: then there is nothing to ask.
            self._loop.call_soon(self._ask_to_stop, stream)

    def _ask_to_stop(self, stream: int) -> None:
        """A call was answered before its client was done, which need not send the rest: RFC 9113 §8.1."""
        if self._forgotten.get(stream) and not self.deaf:
            self._forgotten[stream] = False
            self.writer.put(f.rst_stream(stream, ErrorCode.NO_ERROR))
