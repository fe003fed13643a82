"""One HTTP/1.1 connection: bytes in, routes called, answers out in order.

Nothing here is a coroutine. A request whose head has been seen before costs a look-up and a call; its answer is put
into the connection's outbox, which is written once per turn of the loop. Requests on hot routes may be pipelined and
are served together; a request for the ASGI application has the connection to itself.
Source: RFC 9112; limits are refusals with a status, or the end of the connection (docs/operations.md).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from tensorquay.core.errors import Overloaded, ServingError
from tensorquay.core.trace_context import RawContext
from tensorquay.transport.asgi_exchange import AsgiExchange
from tensorquay.transport.chunked import BadChunk, ChunkedDecoder
from tensorquay.transport.h1_body import Intake
from tensorquay.transport.h1_head import MAX_HEAD_BYTES, BadHead, Head
from tensorquay.transport.h1_slot import JOIN_BELOW_BYTES, MAX_PIPELINED, Mode, Slot, refused
from tensorquay.transport.http_message import HttpReply, error_reply, refusal, render_head
from tensorquay.transport.traced_route import start_within

if TYPE_CHECKING:
    from tensorquay.transport.h1_server import H1Server

_HEAD_END = b"\r\n\r\n"
_CLOSE = b"connection: close\r\n"
_KEEP = b"connection: keep-alive\r\n"


class H1Connection(asyncio.BufferedProtocol):
    """See the module. Loop-confined; owner: its server."""

    def __init__(self, server: H1Server) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._client: Any = None
        self._mode = Mode.HEAD
        self._rest = b""
        self._head: Head | None = None
        self._context: RawContext | None = None
        self._intake = Intake(server)
        self._exchange_left = 0
        self._exchange_chunks: ChunkedDecoder | None = None
        self._exchange: AsgiExchange | None = None
        self._slots: deque[Slot] = deque()
        self._out: list[bytes | memoryview] = []
        self._dirty = self._closing = self._unread = self._write_paused = False
        self._reading = True
        self._writable: asyncio.Future[None] | None = None
        # In the server's ticks: when bytes last moved, and when the request that is being received began.
        self.active_tick = server.tick
        self.begun_tick = server.tick

    # -- asyncio's side

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._client = transport.get_extra_info("peername")
        if not self._server.admit(self):
            self._refuse(error_reply(Overloaded("too many connections; retry after a pause", retry_after_s=1.0)))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  asyncio's signature
        if self._mode is Mode.BODY:
            return self._intake.room()
        # One buffer serves all connections: it is read out before the loop goes on.
        return self._server.staging

    def buffer_updated(self, nbytes: int) -> None:
        self.active_tick = self._server.tick
        if self._mode is Mode.BODY:
            if self._intake.received(nbytes):
                self._body_complete()
                self._go_on()
        elif self._mode is not Mode.DISCARD:
            data = bytes(self._server.staging[:nbytes])
            if self._rest:
                self._rest += data
            elif self._mode is Mode.HEAD and self._serve_whole(data):
                return
            else:
                self._rest = data
                if self._head is None:
                    self.begun_tick = self._server.tick
            self._go_on()

    def eof_received(self) -> bool:
        """The client sends no more: it has left. One that gives up looks just like one that only ends its sending."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._transport = None
        received = self._intake.progress_bytes
        self._intake.drop()
        # Cancelling answers: these slots must not be found then.
        slots, self._slots = self._slots, deque()
        for slot in slots:
            if slot.ticket is not None and slot.reply is None:
                slot.ticket.cancel()
        if self._server.access is not None:
            receiving = self._head if self._exchange is None else None
            self._server.access.left(slots, receiving, received, self._begun_ns(), self._client)
        self._out.clear()
        if self._exchange is not None:
            self._exchange.disconnect()
        self._let_write()
        self._server.forget(self)

    def pause_writing(self) -> None:
        self._write_paused = True
        self._update_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._let_write()
        self._update_reading()

    # -- reading

    def _serve_whole(self, data: bytes) -> bool:
        """Serve `data` if it is one request, complete, with a head like one before: nearly every one there is."""
        end = data.find(_HEAD_END) + 4
        heads, context = self._server.heads, None
        head = heads.known.get(data[:end])
        if head is None:
            head, context = heads.find(data[:end])
        if (
            head is None
            or head.content_length != len(data) - end
            or head.route is None
            or head.content_length > self._server.max_body_bytes
            or self._closing
            or len(self._slots) + 1 >= MAX_PIPELINED
        ):
            return False
        self._dispatch(head, data[end:], context)
        return True

    def _go_on(self) -> None:
        """Take as many requests out of what was read as may be served now."""
        while self._transport is not None:
            if self._mode is Mode.HEAD:
                if not self._rest or len(self._slots) >= MAX_PIPELINED or not self._next_head():
                    break
            elif self._mode is Mode.CHUNKED or self._mode is Mode.EXCHANGE:
                if not self._rest or not self._next_piece():
                    break
            else:
                break
        self._update_reading()

    def _next_head(self) -> bool:
        """Begin the next request. False when its head is not complete, or no more are served."""
        if self._closing:
            return False
        data = self._rest
        end = data.find(_HEAD_END)
        if end < 0 or end > MAX_HEAD_BYTES:
            # Empty lines before a request are allowed, and some clients send them.
            if data[:2] == b"\r\n":
                self._rest = data[2:]
                return True
            if data and data != b"\r" and not 0x41 <= data[0] <= 0x5A:
                # No method begins like this: another protocol, TLS most of all, whose client would wait for ever.
                self._refuse(refusal("malformed HTTP request", 400))
            elif len(data) > MAX_HEAD_BYTES:
                self._refuse(refusal("request line and headers are too long", 431))
            return False
        if data[:2] == b"\r\n":
            self._rest = data[2:]
            return True
        end += 4
        try:
            head, self._context = self._server.heads.read(data[:end])
        except BadHead as error:
            self._refuse(refusal(str(error), error.status))
            return False
        if head.route is None and self._slots:
            # The application gets the connection when the answers before it are out.
            return False
        length = head.content_length
        if length is not None and len(data) - end >= length and length <= self._server.max_body_bytes:
            self._rest = data[end + length :]
            self._dispatch(head, data[end : end + length], self._context)
            return True
        self._rest = data[end:]
        return self._begin_body(head)

    def _begin_body(self, head: Head) -> bool:
        """A body that is not all there yet."""
        length, self._head = head.content_length, head
        try:
            if length is not None:
                self._intake.check_length(length)
            if head.route is None:
                self._exchange_left = length or 0
                self._exchange_chunks = ChunkedDecoder() if length is None else None
                self._mode = Mode.EXCHANGE
            elif length is None:
                self._intake.begin_chunked()
                self._mode = Mode.CHUNKED
            else:
                self._intake.begin(length, self._rest, tensors_at=head.route.tensors_at)
                self._rest = b""
                self._mode = Mode.BODY
        except ServingError as error:
            self._refuse(error_reply(error))
            return False
        if head.expects_continue:
            self.write_raw(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.route is None:
            self._open_exchange(head)
        return True

    def _body_complete(self) -> None:
        head, self._head, self._mode = self._head, None, Mode.HEAD
        assert head is not None
        self._dispatch(head, self._intake.take(), self._context)

    def _next_piece(self) -> bool:
        """Feed what was read to the body it belongs to. False when nothing more can be done with it."""
        try:
            if self._mode is Mode.EXCHANGE:
                return self._feed_exchange()
            complete, self._rest = self._intake.feed(self._rest)
        except BadChunk as error:
            self._refuse(refusal(f"malformed chunked body: {error}", 400))
            return False
        except ServingError as error:
            self._refuse(error_reply(error))
            return False
        if complete:
            self._body_complete()
        return True

    def _feed_exchange(self) -> bool:
        """As `_next_piece`, for the application, which bounds what it takes itself."""
        exchange = self._exchange
        if exchange is None or exchange.body_complete:
            return False  # the next request waits until the application has answered
        if self._exchange_chunks is not None:
            pieces, self._rest = self._exchange_chunks.feed(self._rest)
            complete = self._exchange_chunks.done
        else:
            left = self._exchange_left
            pieces, self._rest = [self._rest[:left]], self._rest[left:]
            self._exchange_left = left - len(pieces[0])
            complete = self._exchange_left == 0
        for piece in pieces:
            exchange.feed(piece)
        if complete:
            exchange.end_body()
        return True

    # -- serving

    def _dispatch(self, head: Head, body: bytes | memoryview, context: RawContext | None) -> None:
        route = head.route
        if route is None:
            self._open_exchange(head)
            assert self._exchange is not None
            if body:
                self._exchange.feed(bytes(body))
            self._exchange.end_body()
            return
        arrival_ns = self._server.clock.now_ns()
        slot = Slot(self, head, arrival_ns)
        if self._server.access is not None:
            slot.request_bytes = len(body)
        self._slots.append(slot)
        if not head.keep_alive:
            # What the client sent after its last request is not served (RFC 9112 §9.6).
            self._closing = True
        if context is None:
            slot.ticket = route.start(body, arrival_ns, slot.answer)
        else:
            slot.ticket = start_within(route, body, arrival_ns, slot.answer, context)

    def _open_exchange(self, head: Head) -> None:
        self._mode = Mode.EXCHANGE
        self._exchange = AsgiExchange(
            self._server.app,
            head,
            self,
            begun_ns=self._server.clock.now_ns(),
            client=self._client[:2] if isinstance(self._client, tuple) else None,
            server=self._server.address,
            scheme=self._server.scheme,
        )

    def answered(self) -> None:
        """Some request of this connection has its answer: write all that are next in order."""
        slots = self._slots
        server = self._server
        while slots and (reply := slots[0].reply) is not None:
            slot = slots.popleft()
            if self._transport is None:
                return
            if not self._dirty:
                self._dirty = True
                server.wants_flush(self)
            if reply.written and slot.head.lasting and (slots or not self._closing) and not server.ending:
                self._out.append(reply.written)
            else:
                self._write_reply(slot.head, reply)
            if server.access is not None:
                server.access.answered(slot, self._client)
        if self._closing:
            if not slots and not self._out:
                self._finish()
        elif self._rest or not self._reading:
            # What waited for its turn behind these.
            server.later(self._go_on)

    def _write_reply(self, head: Head, reply: HttpReply) -> None:
        closes = not self._slots and (not head.keep_alive or self._closing or self._server.draining)  # with the last
        out = self._out
        out.append(reply.head or render_head(reply))
        if closes:
            out.append(_CLOSE)
            self._closing = True
        elif head.http_version == "1.0":
            out.append(_KEEP)
        out.append(b"\r\n")
        if head.method != "HEAD":
            out.extend(reply.parts)

    # -- what an exchange asks of its connection (see `Carrier`)

    def write_raw(self, data: bytes) -> None:
        if self._transport is not None:
            self._out.append(data)
            self._mark_dirty()

    async def writable(self) -> None:
        self.flush()
        while self._write_paused and self._transport is not None:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def body_taken(self) -> None:
        self._update_reading()

    def exchange_done(self, *, keep_alive: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:  # refused meanwhile, and the refusal ends the connection
            return
        if self._server.access is not None:
            self._server.access.exchanged(exchange, self._client)
        unread = not exchange.body_complete
        self._head, self._exchange_chunks = None, None
        self._mode = Mode.HEAD
        if self._transport is None:
            return
        if not keep_alive or unread or self._closing or self._server.draining:
            self._closing = True
            self._unread = unread
            if not self._dirty:
                self._finish()
            return
        self._server.later(self._go_on)

    # -- writing

    def _mark_dirty(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._server.wants_flush(self)

    def flush(self) -> None:
        """Write what waits, with one call."""
        self._dirty = False
        out = self._out
        if self._transport is None or not out:
            return
        self._out = []
        self.active_tick = self._server.tick
        if len(out) == 1:
            self._transport.write(out[0])
        elif sum(map(len, out)) < JOIN_BELOW_BYTES:
            self._transport.write(b"".join(out))
        else:
            self._transport.writelines(out)
        if self._closing and not self._slots and self._exchange is None:
            self._finish()

    # -- the end

    def _is_idle(self) -> bool:
        return not self._slots and self._exchange is None and not self._out

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being received, served or written."""
        return self._is_idle() and self._head is None and not self._rest

    @property
    def in_request(self) -> bool:
        """Whether a request has begun to arrive and is not complete: the client owes us bytes."""
        return self._head is not None or bool(self._rest and self._mode is Mode.HEAD and not self._slots)

    @property
    def progress_bytes(self) -> int:
        """How much of that request has come; a lot when it is not the client that is waited for."""
        if self._exchange is not None:
            return 2**62
        return self._intake.progress_bytes + len(self._rest)

    def shutdown(self) -> None:
        """Close as soon as what is being served has been answered; an idle connection at once."""
        if self._transport is None:
            return
        self._closing = True
        if self._exchange is not None and self._exchange.unanswered and not self._exchange.body_complete:
            # The application waits for a body whose client may take hours.
            self._refuse(self._server.stopping_reply())
        elif self._is_idle() and self._mode is not Mode.DISCARD:
            if self._head is not None or self._rest:
                # Half a request: its client hears why, instead of a reset.
                self._refuse(self._server.stopping_reply())
            else:
                self._finish()

    def abort(self) -> None:
        """End now: the time for being polite is over."""
        if self._exchange is not None:
            self._exchange.cancel()
        if self._transport is not None:
            self._transport.abort()

    def time_out(self, reply: HttpReply | None) -> None:
        """The client was too slow: end the connection, with `reply` if it waits for one."""
        if reply is not None and self._is_idle() and self._mode is not Mode.DISCARD:
            self._refuse(reply)
        else:
            self.abort()

    def _refuse(self, reply: HttpReply) -> None:
        """Answer what is not served, then close: where the next request would begin is not known."""
        asked, self._head = self._head, None
        self._rest = b""
        progress_bytes = self._intake.progress_bytes
        self._intake.drop()
        self._closing = self._unread = True
        if self._exchange is not None:
            # The application was reading the body; it learns that the client is gone.
            exchange, self._exchange = self._exchange, None
            exchange.disconnect()
        slot = Slot(self, refused(asked, reply.status), self._begun_ns(), progress_bytes)
        self._slots.append(slot)
        self._mode = Mode.DISCARD
        slot.answer(reply)

    def _finish(self) -> None:
        """Everything is written: say that nothing more comes, and read on until the client closes, for a moment.

        Closing at once while the client still sends would reset the connection and could destroy the answer on its way.
        """
        self._mode = Mode.DISCARD
        self._rest = b""
        transport = self._transport
        if transport is None:
            return
        if transport.can_write_eof():
            transport.write_eof()
        elif not self._unread:
            # TLS cannot end one direction: its goodbye is for both, and nothing more is expected here.
            transport.close()
            return
        self._server.lingers(self)
        self._update_reading()

    def _update_reading(self) -> None:
        """Read only while there is room for what is read."""
        wanted = self._mode is Mode.DISCARD or not (
            self._write_paused
            or len(self._slots) >= MAX_PIPELINED
            or (self._exchange is not None and (self._exchange.full or (self._exchange.body_complete and self._rest)))
            or (self._mode is Mode.HEAD and len(self._rest) > MAX_HEAD_BYTES and bool(self._slots))
        )
        if wanted == self._reading or self._transport is None or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _let_write(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _begun_ns(self) -> int:
        """When the request that is being received began, to the second."""
        return self._server.clock.now_ns() - (self._server.tick - self.begun_tick) * 10**9
