"""One HTTP/2 connection of a gRPC server: what frames mean for its streams.

Reading is `h2_reader.py`, sending `h2_writer.py`, the calls `grpc_call.py`; here is the state between them: which
streams there are, whose turn it is to end, what the peer may still do. Loop-confined; owner: the server.
Source: RFC 9113 §5, §6, §8.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from tensorquay.core.errors import Overloaded
from tensorquay.transport import h2_frames as f
from tensorquay.transport.grpc_head import CallHead, check_trailers, refused
from tensorquay.transport.grpc_refusal import Sink
from tensorquay.transport.h2_ending import DRAIN_PING, Endings, State
from tensorquay.transport.h2_frames import ConnectionFault, ErrorCode, StreamFault
from tensorquay.transport.hpack import Decoder, HeaderListTooLarge, HpackError

if TYPE_CHECKING:
    from tensorquay.transport.h2_server import H2Server

_WRITE_HIGH_BYTES, _WRITE_LOW_BYTES = 2**20, 2**18


class Connection(Endings):
    """See the module."""

    def __init__(self, server: H2Server, loop: asyncio.AbstractEventLoop) -> None:
        limits = server.limits
        super().__init__(server.memory, limits, server.clock, loop)
        self._server = server
        self._decoder = Decoder(limits.header_list_bytes)
        self._heads: dict[bytes, CallHead] = {}
        self._make_call = server.make_call
        self.peer: object = None
        """The client's address, for the access log."""

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Announce ourselves, or turn the client away."""
        # uvloop's are transports without being asyncio.Transport.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self.writer.attach(transport)
        transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES, low=_WRITE_LOW_BYTES)
        limits = self._limits
        if self._server.access is not None:
            self.peer = transport.get_extra_info("peername")
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            # Without ALPN the client does not mean HTTP/2 (RFC 9113 §3.2); what it would read were garbage to it.
            self.deaf = True
            self._state = State.CLOSING
            self._server.add(self)
            transport.close()
            return
        self.writer.put(
            f.settings(
                {
                    f.MAX_CONCURRENT_STREAMS: limits.streams,
                    f.INITIAL_WINDOW_SIZE: limits.stream_window,
                    f.MAX_FRAME_SIZE: limits.frame_bytes,
                    f.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
                }
            )
        )
        if limits.connection_window > f.DEFAULT_WINDOW:
            self.writer.put(f.window_update(0, limits.connection_window - f.DEFAULT_WINDOW))
        if not self._server.add(self):
            self.on_fault(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many connections"))

    def eof_received(self) -> bool:
        """The client hung up; its answers have nowhere to go."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """Cancel everything the client had under way."""
        self._state = State.LOST
        self.stop()
        self._abandon()
        self.writer.clear()
        self._server.remove(self)

    def pause_writing(self) -> None:
        """The socket has enough."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """The socket takes more."""
        self.writer.resume()

    # -- header blocks

    def on_headers(self, stream: int, block: bytes, end_stream: int) -> None:
        head = self._heads.get(block)
        if head is None or stream <= self._last_stream or not stream & 1:
            self._rare_headers(stream, block, end_stream)
            return
        self._open(stream, head, end_stream)

    def _rare_headers(self, stream: int, block: bytes, end_stream: int) -> None:
        """Headers that were not seen before on this connection, and those of streams that exist."""
        # Decoded whatever they are for: the table must follow the peer's.
        decoder = self._decoder
        before = decoder.changes
        oversize = None
        fields: list[tuple[bytes, bytes]] = []
        try:
            fields = decoder.decode(block)
        except HpackError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, str(error)) from None
        except HeaderListTooLarge as error:
            oversize = error
        unchanged = decoder.changes == before
        if not unchanged:
            # Indices mean something else now.
            self._heads.clear()
        if not stream & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if stream <= self._last_stream:
            self._late_headers(stream, fields, end_stream)
            return
        if oversize is not None:
            head = refused(Overloaded(f"{oversize}, the limit for the metadata of a call"))
        else:
            try:
                head = self._server.read_head(fields)
            except StreamFault as fault:
                self._last_stream = stream
                self._log_unopened("", "INVALID_ARGUMENT")
                self.reset(stream, fault)
                return
            limits = self._limits
            if unchanged and len(block) <= limits.cached_block_bytes:
                if len(self._heads) >= limits.cached_blocks:
                    self._heads.clear()
                self._heads[block] = head
        self._open(stream, head, end_stream)

    def _open(self, stream: int, head: CallHead, end_stream: int) -> None:
        if self._state is not State.OPEN and self._state is not State.WARNED:
            return
        self._last_stream = stream
        if len(self.calls) >= self._limits.streams:
            self._log_unopened(head.path, "RESOURCE_EXHAUSTED")
            self._refuse(stream)
            return
        writer = self.writer
        call = self.calls[stream] = self._make_call(self, stream, head, writer.initial_window)
        if end_stream:
            call.half_closed = True
        refusal = head.refusal
        if refusal is not None:
            if refusal.http_status == 200 or end_stream:
                call.refuse()
            else:
                call.inbox = Sink(call)
            return
        if writer.unsent > self._limits.unsent_bytes:
            call.turn_away(Overloaded("the client leaves its answers untaken; take some first", retry_after_s=1.0))
            return
        if head.timeout_ns is not None:
            call.deadline_ns = self._clock.now_ns() + head.timeout_ns
            self._server.watch(self, call.deadline_ns)
        if head.route.streaming:
            self.guarded(call, head.route.opened, call)
        if end_stream:
            self._client_done(call)

    def _log_unopened(self, path: str, status: str) -> None:
        """A stream is reset before it is a call."""
        access = self._server.access
        if access is not None:
            access.grpc(path, status, begun_ns=access.now_ns(), peer=self.peer, sizes=(0, 0))

    def _refuse(self, stream: int) -> None:
        self.guard.noise()
        self._forget(stream)
        self.writer.put(f.rst_stream(stream, ErrorCode.REFUSED_STREAM))

    def _late_headers(self, stream: int, fields: list[tuple[bytes, bytes]], end_stream: int) -> None:
        """Trailers, or a number that was used before."""
        call = self.calls.get(stream)
        if call is None:
            if stream not in self._forgotten:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {stream} was used before")
            self._forgotten[stream] = False
            self.guard.noise()
            return
        if call.half_closed:
            self.reset(stream, StreamFault(ErrorCode.STREAM_CLOSED, "HEADERS after the end of the stream"))
            return
        if not end_stream:
            self.reset(stream, StreamFault(ErrorCode.PROTOCOL_ERROR, "trailers that do not end the stream"))
            return
        try:
            check_trailers(fields)
        except StreamFault as fault:
            self.reset(stream, fault)
            return
        self._half_close(call)

    # -- everything else

    def on_control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == f.WINDOW_UPDATE:
            self._on_window_update(stream, f.u32(payload) & f.MAX_WINDOW)
        elif kind == f.RST_STREAM:
            self._on_rst_stream(stream)
        elif kind == f.PING:
            self._on_ping(flags, payload)
        elif kind == f.SETTINGS:
            self._on_settings(flags, payload)
        elif kind == f.PRIORITY and not payload:
            if stream > self._last_stream:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a PRIORITY frame of impossible length")
            if stream in self._forgotten:
                self.guard.noise()  # reset before, or ended by us: nothing more is sent on it
                return
            self.reset(stream, StreamFault(ErrorCode.FRAME_SIZE_ERROR, "a PRIORITY frame of impossible length"))
        else:
            # PRIORITY says nothing any more, GOAWAY only that the client opens no more streams.
            self.guard.noise()

    def _on_settings(self, flags: int, payload: bytes) -> None:
        if flags & f.ACK:
            self.guard.noise()
            return
        if self._settings_seen:
            self.guard.noise()
        self._settings_seen = True
        for setting, value in f.SETTING.iter_unpack(payload):
            if setting == f.INITIAL_WINDOW_SIZE and value > f.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "an initial window beyond 2^31-1")
            if setting == f.MAX_FRAME_SIZE and not f.DEFAULT_FRAME_BYTES <= value <= f.LARGEST_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a largest frame of {value} bytes is not possible")
            if setting == f.ENABLE_PUSH and value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is 0 or 1")
            self.writer.apply(setting, value, self.calls)
        self.writer.put(f.SETTINGS_ACK)

    def _on_ping(self, flags: int, payload: bytes) -> None:
        if not flags & f.ACK:
            self.guard.ping(self._clock.now_ns(), busy=bool(self.calls))
            self.writer.put(f.ping(payload, ack=True))
            return
        self.guard.noise()
        if payload == DRAIN_PING and self._state is State.WARNED:
            # The client has seen the warning: what it opened before that has arrived.
            self.drain()

    def _on_window_update(self, stream: int, increment: int) -> None:
        if not stream:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a window update by nothing")
            if not self.writer.unsent:
                self.guard.noise()
            self.writer.widen(increment)
            return
        call = self.calls.get(stream)
        if call is None:
            self._refuse_idle(stream)
            self.guard.noise()
            return
        if not increment:
            self.reset(stream, StreamFault(ErrorCode.PROTOCOL_ERROR, "a window update by nothing"))
            return
        if not call.pending:
            self.guard.noise()
        if not self.writer.widen_call(call, increment):
            self.reset(stream, StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2^31-1"))

    def _on_rst_stream(self, stream: int) -> None:
        call = self.calls.pop(stream, None)
        if call is None:
            self._refuse_idle(stream)
            if stream in self._forgotten:
                self._forgotten[stream] = False
            self.guard.noise()
            return
        unanswered = not call.closed
        self.writer.drop(call)
        call.abandon()
        self._finish_if_drained()
        if unanswered:
            self.guard.reset(self._clock.now_ns())

    def _refuse_idle(self, stream: int) -> None:
        if stream > self._last_stream and self._state is not State.DRAINING:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a frame on idle stream {stream}")
