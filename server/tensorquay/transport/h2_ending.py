"""How a connection and its streams end: answered, reset, faulty, drained, timed out, or simply too long silent.

Every way out comes by here, so that each call is ended once, and the peer learns why before the socket goes.
Source: RFC 9113 §5.4, §6.8, §8.1.
"""

from __future__ import annotations

import asyncio
import enum
import logging

from tensorquay.core.clock import Clock
from tensorquay.core.errors import DeadlineExceeded, Unavailable
from tensorquay.telemetry.unexpected import unexpected
from tensorquay.transport import h2_frames as f
from tensorquay.transport.grpc_call import Call
from tensorquay.transport.h2_frames import ConnectionFault, ErrorCode, StreamFault
from tensorquay.transport.h2_guard import Guard
from tensorquay.transport.h2_intake import Intake, ReceiveMemory
from tensorquay.transport.h2_limits import H2Limits
from tensorquay.transport.h2_writer import Writer

_log = logging.getLogger("tensorquay.grpc")

DRAIN_PING, _ALIVE_PING = b"tq-drain", b"tq-alive"


class State(enum.Enum):
    """A connection's life; it only goes down this list."""

    OPEN = enum.auto()
    WARNED = enum.auto()
    """GOAWAY with the highest stream was sent: new streams are still served, for those under way already."""
    DRAINING = enum.auto()
    """GOAWAY with the last stream was sent: later ones are ignored."""
    CLOSING = enum.auto()
    """Nothing is served any more; the peer may read what we wrote."""
    LOST = enum.auto()


class Endings(Intake):
    """See the module. Loop-confined."""

    def __init__(self, memory: ReceiveMemory, limits: H2Limits, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        now_ns = clock.now_ns()
        super().__init__(memory, limits, Writer(loop, clock, self.ended), Guard(limits, now_ns), loop)
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._settings_seen = False
        self._state = State.OPEN
        self._since_ns = now_ns
        self._heard_ns = now_ns
        self._pinged_ns: int | None = None
        self._paused_ns: int | None = None

    @property
    def state(self) -> State:
        """Where in its life the connection is."""
        return self._state

    @property
    def ignores_new(self) -> bool:
        return self._state is State.DRAINING

    def ended(self, call: Call) -> None:
        """The last frame of `call` has been written."""
        self.calls.pop(call.id, None)
        if self.guard.dirty:
            self.guard.progress()
        if not call.half_closed:
            self._forget(call.id, unfinished=True)
        if self._state is State.DRAINING:
            self._finish_if_drained()

    def reset(self, stream: int, fault: StreamFault) -> None:
        call = self.calls.pop(stream, None)
        if call is not None:
            self.writer.drop(call)
            call.abandon()
        self._forget(stream)
        self.writer.put(f.rst_stream(stream, fault.code))
        self._finish_if_drained()
        self.guard.reset(self._clock.now_ns())

    def on_fault(self, fault: ConnectionFault) -> None:
        if self._state in {State.CLOSING, State.LOST}:
            return
        _log.debug("gRPC connection ended with %s: %s", fault.code.name, fault.text)
        self.writer.put(f.goaway(self._last_stream, fault.code, fault.text))
        self._close()

    def on_bug(self, error: Exception) -> None:
        answer = unexpected(error, _log, "reading from a gRPC connection")
        self.on_fault(ConnectionFault(ErrorCode.INTERNAL_ERROR, answer.message))

    def warn(self) -> None:
        """First step of a graceful end: ask the client to open no more streams."""
        if self._state is not State.OPEN:
            return
        self._state = State.WARNED
        self.writer.put(f.goaway(f.LAST_STREAM, ErrorCode.NO_ERROR, "the server is shutting down"))
        self.writer.put(f.ping(DRAIN_PING, ack=False))
        if not self._settings_seen:
            self.drain()

    def drain(self) -> None:
        """Second step: end the streams that only wait for their clients, finish the others, then close."""
        if self._state in {State.OPEN, State.WARNED}:
            self._state = State.DRAINING
            self.writer.put(f.goaway(self._last_stream, ErrorCode.NO_ERROR, "the server is shutting down"))
            for call in list(self.calls.values()):
                if not call.half_closed:
                    # What it asked was answered before this; its client may neither ask more nor leave for hours.
                    call.cut(Unavailable("the server is shutting down and has stopped accepting new requests"))
            self._finish_if_drained()

    def cut(self) -> None:
        """Last step: end the calls that are still there, and close."""
        for call in list(self.calls.values()):
            call.cut(Unavailable("the server stopped before this call was served"))
        self._close()

    def abort(self) -> None:
        """Close at once, whatever was not sent."""
        if self._transport is not None:
            self._transport.abort()

    def _finish_if_drained(self) -> None:
        if self._state is State.DRAINING and not self.calls:
            self._close()

    def _close(self) -> None:
        """Write what there is, and let the client read it before the connection goes."""
        if self._state in {State.CLOSING, State.LOST}:
            return
        self._state = State.CLOSING
        self.stop()
        self._since_ns = self._clock.now_ns()
        self._abandon()
        self.writer.flush()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            # Closing with unread bytes would make the kernel throw away what the client has not read yet.
            transport.write_eof()
        else:
            transport.close()

    def _abandon(self) -> None:
        calls = list(self.calls.values())
        self.calls.clear()
        for call in calls:
            self.writer.drop(call)
            call.abandon()

    # -- time

    def expire(self, now_ns: int) -> int | None:
        """End calls whose deadline has passed. Returns: the earliest deadline of the others."""
        earliest: int | None = None
        for call in list(self.calls.values()):
            deadline_ns = call.deadline_ns
            if deadline_ns is None or call.closed:
                continue
            if deadline_ns <= now_ns:
                call.expire()
            elif earliest is None or deadline_ns < earliest:
                earliest = deadline_ns
        return earliest

    def sweep(self, now_ns: int) -> None:
        """Once a second: is the peer still there, and does it take and send what it has begun?"""
        limits = self._limits
        if self._state in {State.CLOSING, State.LOST}:
            if now_ns - self._since_ns > limits.linger_s * 1e9:
                self.abort()
            return
        self.guard.chatter = 0
        if self.heard:
            self.heard = False
            self._heard_ns = now_ns
            self._pinged_ns = None
        try:
            self._check_silence(now_ns)
            self._check_stalls(now_ns)
        except ConnectionFault as fault:
            self.on_fault(fault)

    def _check_silence(self, now_ns: int) -> None:
        limits, silent_ns = self._limits, now_ns - self._heard_ns
        if not self._settings_seen and now_ns - self._since_ns > limits.opening_s * 1e9:
            raise ConnectionFault(ErrorCode.SETTINGS_TIMEOUT, "no connection preface and SETTINGS in time")
        if self.in_frame and silent_ns > limits.arrival_s * 1e9:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the rest of a frame did not arrive in time")
        if self.block_waits(now_ns) > limits.arrival_s * 1e9:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the rest of a header block did not arrive in time")
        if self._pinged_ns is not None:
            if now_ns - self._pinged_ns > limits.keepalive_timeout_s * 1e9:
                self.abort()
        elif silent_ns > limits.keepalive_s * 1e9:
            self._pinged_ns = now_ns
            self.writer.put(f.ping(_ALIVE_PING, ack=False))

    def _check_stalls(self, now_ns: int) -> None:
        limits = self._limits
        stall_ns = int(limits.stall_s * 1e9)
        self._paused_ns = (self._paused_ns or now_ns) if self.writer.paused else None
        if self._paused_ns is not None and now_ns - self._paused_ns > stall_ns:
            # It does not even read what there is, so nothing we could say would reach it.
            self.abort()
            return
        for call in list(self.calls.values()):
            if call.pending and now_ns - call.since_ns > stall_ns:
                if self.writer.window <= 0:
                    raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the connection's window stays closed")
                self.reset(call.id, StreamFault(ErrorCode.CANCEL, "the stream's window stays closed"))
            elif call.inbox is not None and call.inbox.waits(now_ns) > limits.arrival_s * 1e9:
                call.cut(DeadlineExceeded("the rest of a message did not arrive in time"))
