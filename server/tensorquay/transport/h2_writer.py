"""The sending half of an HTTP/2 connection: one write per turn of the loop, under the peer's flow control.

What fits the windows goes out at once; what does not waits with its stream, and streams take turns. While the socket
does not take what it got, everything waits with its stream, so the bound on streams bounds memory too.
Source: RFC 9113 §5.2, §6.9.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING

from tensorquay.core.clock import Clock
from tensorquay.transport import h2_frames as f
from tensorquay.transport.grpc_wire import HEAD_BLOCK, OK_BLOCK, TRACED_BLOCK, TRACEPARENT_BYTES
from tensorquay.transport.h2_frames import ConnectionFault, ErrorCode
from tensorquay.transport.hpack import DEFAULT_TABLE_BYTES, NO_TABLE

if TYPE_CHECKING:
    from tensorquay.transport.grpc_call import Call

_TURN_BYTES = 2**20
"""Most that is handed to the socket per turn of the loop: others want to be served too."""
_SHARE_BYTES = 2**18
"""Most that one stream sends before the next one may."""
_JOIN_BYTES = 2**17
"""Up to this size parts are joined before they are written; beyond it copying costs more than many parts do."""

_PEER_FRAME_BYTES = f.DEFAULT_FRAME_BYTES

# A whole answer up to its message: HEADERS, the head of DATA, the message's prefix.
_ANSWER = Struct(f">5sI{len(HEAD_BLOCK)}sHBBBIBI")
_HEADERS_HEAD = f.head(len(HEAD_BLOCK), f.HEADERS, f.END_HEADERS, 0)[:5]
_TRACED_ANSWER = Struct(f">5sI{len(TRACED_BLOCK)}s{TRACEPARENT_BYTES}sHBBBIBI")
_TRACED_HEAD = f.head(len(TRACED_BLOCK) + TRACEPARENT_BYTES, f.HEADERS, f.END_HEADERS, 0)[:5]
_TRAILERS_HEAD = f.head(len(OK_BLOCK), f.HEADERS, f.END_HEADERS | f.END_STREAM, 0)[:5]
_U32 = Struct(">I")


class Writer:
    """Loop-confined; owner: its connection.

    Args: sent: told when the last frame of a call has been written.
    """

    __slots__ = (
        "_bulky",
        "_clock",
        "_indebted",
        "_loop",
        "_max_frame",
        "_out",
        "_ready",
        "_scheduled",
        "_sent",
        "_transport",
        "initial_window",
        "paused",
        "unsent",
        "window",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, sent: Callable[[Call], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._sent = sent
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes | memoryview] = []
        self._scheduled = False
        self._bulky = False
        self._ready: dict[int, Call] = {}
        self._max_frame = _PEER_FRAME_BYTES
        # Whether the next header block must tell that we use no table.
        self._indebted = False
        self.paused = False
        self.window = f.DEFAULT_WINDOW
        self.initial_window = f.DEFAULT_WINDOW
        self.unsent = 0

    def attach(self, transport: asyncio.Transport) -> None:
        """Begin to write to `transport`."""
        self._transport = transport

    # -- what is sent

    def put(self, data: bytes) -> None:
        """A frame that nothing holds back."""
        self._out.append(data)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def answer(self, call: Call, message: bytes, traceparent: bytes = b"") -> bool:
        """A whole successful answer, if it may go out now as one piece. Returns: whether it did.

        Args: traceparent: what its headers say of its span, if anything.
        """
        size = len(message) + 5
        window = self.window - size
        if window < 0 or size > self._max_frame or size > call.window or self.paused or self._indebted:
            return False
        self.window = window
        if size > _JOIN_BYTES:
            self._bulky = True
        stream = call.id
        self._out += (
            _ANSWER.pack(_HEADERS_HEAD, stream, HEAD_BLOCK, size >> 8, size & 0xFF, 0, 0, stream, 0, size - 5)
            if not traceparent
            else _TRACED_ANSWER.pack(
                *(_TRACED_HEAD, stream, TRACED_BLOCK, traceparent),
                *(size >> 8, size & 0xFF, 0, 0, stream, 0, size - 5),
            ),
            message,
            _TRAILERS_HEAD,
            _U32.pack(stream),
            OK_BLOCK,
        )
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)
        return True

    def send_headers(self, call: Call, block: bytes, *, end_stream: bool) -> None:
        """A header block of `call`, behind what of it waits already."""
        if self._indebted:
            self._indebted = False
            block = NO_TABLE + block
        frames = f.headers(call.id, block, self._max_frame, end_stream=end_stream)
        if call.pending or self.paused:
            self._wait(call, frames)
        else:
            self.put(frames)
            if end_stream:
                self._sent(call)

    def send_message(self, call: Call, prefix: bytes, message: bytes) -> None:
        """Payload of DATA frames of `call`."""
        self._wait(call, memoryview(prefix), memoryview(message))

    def drop(self, call: Call) -> None:
        """Forget what of `call` waits."""
        if call.pending:
            self.unsent -= sum(map(len, call.pending))
            call.pending.clear()
        self._ready.pop(call.id, None)

    def clear(self) -> None:
        """Forget everything: the connection is gone."""
        self._out.clear()
        self._ready.clear()

    # -- what the peer says

    def apply(self, setting: int, value: int, calls: dict[int, Call]) -> None:
        """One setting of the peer, already checked for its range."""
        if setting == f.INITIAL_WINDOW_SIZE:
            change = value - self.initial_window
            self.initial_window = value
            for call in calls.values():
                call.window += change
                if call.window > f.MAX_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
                if call.pending:
                    self._ready[call.id] = call
            self._pump_soon()
        elif setting == f.MAX_FRAME_SIZE:
            self._max_frame = value
        elif setting == f.HEADER_TABLE_SIZE and value < DEFAULT_TABLE_BYTES:
            self._indebted = True

    def widen(self, increment: int) -> None:
        """WINDOW_UPDATE for the connection."""
        self.window += increment
        if self.window > f.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a connection window beyond 2^31-1")
        self._pump_soon()

    def widen_call(self, call: Call, increment: int) -> bool:
        """WINDOW_UPDATE for `call`. Returns: whether its window is still one."""
        call.window += increment
        if call.window > f.MAX_WINDOW:
            return False
        if call.pending:
            self._ready[call.id] = call
            self._pump_soon()
        return True

    def pause(self) -> None:
        """The socket has enough."""
        self.paused = True

    def resume(self) -> None:
        """The socket takes more."""
        self.paused = False
        self._pump_soon()

    # -- writing

    def flush(self) -> None:
        """Write what this turn of the loop has brought."""
        self._scheduled = False
        if self._ready and not self.paused:
            self._pump()
        out, transport = self._out, self._transport
        if not out:
            return
        if transport is None or transport.is_closing():
            out.clear()
            return
        if self._bulky:
            self._bulky = False
            self._out = []
            transport.writelines(out)
        elif len(out) == 1:
            transport.write(out.pop())
        else:
            data = b"".join(out)
            out.clear()
            transport.write(data)

    def _pump_soon(self) -> None:
        if self._ready and not self.paused and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def _wait(self, call: Call, *parts: bytes | memoryview) -> None:
        if not call.pending:
            call.since_ns = self._clock.now_ns()
        if call.pending is None:
            call.pending = deque()
        call.pending.extend(parts)
        self.unsent += sum(map(len, parts))
        self._ready[call.id] = call
        self._pump_soon()

    def _pump(self) -> None:
        """Let every stream that can send a share, again and again, until nothing moves or the turn's bytes are out."""
        budget = _TURN_BYTES
        moved = True
        total = 0
        while moved and budget > 0 and self._ready:
            moved = False
            for call in list(self._ready.values()):
                count = self._push(call, min(_SHARE_BYTES, budget))
                if count:
                    moved = True
                    budget -= count
                    total += count
                    call.since_ns = self._clock.now_ns()
                if budget <= 0:
                    break
        self._bulky = self._bulky or total > _JOIN_BYTES
        if budget <= 0:
            self._pump_soon()

    def _push(self, call: Call, share: int) -> int:
        """Send of `call` what its windows and `share` allow. Returns: bytes sent."""
        pending, out, sent = call.pending, self._out, 0
        assert pending is not None
        while pending:
            item = pending[0]
            if isinstance(item, bytes):
                pending.popleft()
                out.append(item)
                sent += len(item)
                continue
            allowed = min(self.window, call.window, self._max_frame, share - sent)
            if allowed <= 0:
                break
            sent += self._data(call, pending, allowed)
        self.unsent -= sent
        if not pending:
            del self._ready[call.id]
            if call.ended:
                self._sent(call)
            else:
                call.drained()
        elif call.window <= 0:
            # It comes back with its window.
            del self._ready[call.id]
        if self._ready.get(call.id) is call:
            # The others first, next time.
            del self._ready[call.id]
            self._ready[call.id] = call
        return sent

    def _data(self, call: Call, pending: deque[bytes | memoryview], allowed: int) -> int:
        """One DATA frame of at most `allowed` bytes from the payload at the front."""
        parts: list[memoryview] = []
        size = 0
        while pending and size < allowed:
            item = pending[0]
            if isinstance(item, bytes):
                break
            if len(item) <= allowed - size:
                pending.popleft()
                parts.append(item)
                size += len(item)
            else:
                parts.append(item[: allowed - size])
                pending[0] = item[allowed - size :]
                size = allowed
        self.window -= size
        call.window -= size
        self._out.append(f.head(size, f.DATA, 0, call.id))
        self._out += parts
        return size
