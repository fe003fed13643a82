"""One gRPC call on one HTTP/2 stream: messages in, messages and a status out, exactly one end.

Whatever ends it first wins: an answer, a refusal, the deadline, the client, the connection. After that the handler is
told that it is gone, and what it still says is not heard. Loop-confined; owner: its connection.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from tensorquay.core.errors import DeadlineExceeded, ServingError, Unimplemented
from tensorquay.transport import grpc_wire
from tensorquay.transport.coding import COMPRESS_BESIDE_BYTES, DECOMPRESS_BESIDE_BYTES
from tensorquay.transport.grpc_beside import Beside, Packed, Then
from tensorquay.transport.grpc_head import CallHead
from tensorquay.transport.grpc_inbox import Inbox

if TYPE_CHECKING:
    from tensorquay.transport.grpc_refusal import Sink
    from tensorquay.transport.h2_connection import Connection


class Route(Protocol):
    """Who serves the calls of one method. One object for all of them; `call.state` is its own, per call."""

    streaming: bool
    """False: one message in, one out; `start` alone is told. True: any number."""

    def start(self, call: Call, message: bytes | memoryview) -> None:
        """The one message of a unary call, and the client's end. Answer with `call.answer`."""

    def opened(self, call: Call) -> None:
        """A streaming call began."""

    def message(self, call: Call, message: bytes | memoryview) -> None:
        """A message of a streaming call."""

    def half_closed(self, call: Call) -> None:
        """The client of a streaming call sends nothing more."""

    def drained(self, call: Call) -> None:
        """The client has taken every message of a streaming call so far."""

    def gone(self, call: Call) -> None:
        """The call ended without the handler's doing: stop what it caused."""

    def refused(self, call: Call, error: ServingError) -> None:
        """The transport answers with `error` a call, or ends a stream with it, of which a message never came whole."""


class Call:
    """See the module. `id` is the stream's."""

    __slots__ = (
        "backlog",
        "beside",
        "closed",
        "connection",
        "content_left",
        "deadline_ns",
        "ended",
        "half_closed",
        "head",
        "id",
        "inbox",
        "pending",
        "request",
        "said_head",
        "since_ns",
        "state",
        "taking",
        "unacked",
        "window",
    )

    def __init__(self, connection: Connection, stream: int, head: CallHead, window: int) -> None:
        self.connection = connection
        self.id = stream
        self.head = head
        self.window = window
        self.half_closed = False
        self.closed = False
        self.ended = False
        self.said_head = False
        self.taking = True
        self.state: Any = None
        self.deadline_ns: int | None = None
        self.content_left = head.content_length
        self.unacked = 0
        self.inbox: Inbox | Sink | None = None
        self.request: bytes | memoryview | Packed | None = None
        self.beside: Beside | None = None
        self.backlog: bytearray | None = None
        self.pending: deque[bytes | memoryview] | None = None
        self.since_ns = 0

    # -- for the handler

    @property
    def waiting_messages(self) -> int:
        """Messages of the answer that wait for the client's window or the socket."""
        waiting = len(self.pending) // 2 if self.pending else 0
        return waiting if self.beside is None else waiting + self.beside.packing

    def answer(self, outcome: bytes | ServingError, traceparent: bytes = b"") -> None:
        """The one answer of a unary call; later ones are ignored.

        Args: traceparent: names the span it is made in; its headers say so then.
        """
        if self.closed:
            return
        if isinstance(outcome, ServingError):
            if traceparent:
                self._say_traced_head(traceparent)
            self.fail(outcome)
            return
        self.closed = True
        connection = self.connection
        plain = self.head.reply_coding is None and len(outcome) <= connection.max_message_bytes
        if plain and connection.writer.answer(self, outcome, traceparent):
            connection.ended(self)
            return
        self.closed = False
        if traceparent:
            self._say_traced_head(traceparent)
        self.send(outcome)
        self.finish()

    def send(self, message: bytes) -> None:
        """One message of the answer."""
        if self.closed:
            return
        coding = self.head.reply_coding
        beside = self.beside
        if coding is None or (len(message) < COMPRESS_BESIDE_BYTES and (beside is None or not beside.packing)):
            self.send_parts(*grpc_wire.message_parts(message, coding))
            return
        self._say_head()
        if beside is None:
            beside = self.beside = Beside(self)
        try:
            beside.pack(message, coding)
        except ServingError as error:
            self.cut(error)

    def send_parts(self, prefix: bytes, body: bytes) -> None:
        """One message of the answer, compressed if it is to be."""
        if len(body) > self.connection.max_message_bytes:
            self.cut(grpc_wire.too_large_to_send(len(body), self.connection.max_message_bytes))
            return
        self._say_head()
        connection = self.connection
        connection.writer.send_message(self, prefix, body)
        # On a stream that stays open an answer is no end, and the client's window updates and pings go with answers.
        if connection.guard.dirty:
            connection.guard.progress()

    def finish(self) -> None:
        """The call succeeded."""
        if self.closed:
            return
        if self.beside is not None and self.beside.packing:
            self.beside.finishing = True
            return
        self._say_head()
        self._end(grpc_wire.OK_BLOCK)

    def fail(self, error: ServingError) -> None:
        """The call failed."""
        if self.closed:
            return
        if self.said_head:
            self._end(grpc_wire.error_block(error))
        else:
            self._end(grpc_wire.refusal_block(error))

    def hold(self) -> None:
        """Take no more messages until `go_on`: the client's window closes."""
        self.taking = False
        if self.beside is not None:
            self.beside.held = True

    def go_on(self) -> None:
        """Take messages again, those that came meanwhile first."""
        if not self.taking and not self.closed:
            if self.beside is not None:
                self.beside.held = False
                if self.beside.unpacking:
                    return
            self.taking = True
            self.connection.feed_backlog(self)

    # -- for the connection

    def refuse(self) -> None:
        """Answer with what the headers alone decided."""
        refusal = self.head.refusal
        if self.closed or refusal is None:
            return
        if self.head.route is not None:
            self.head.route.refused(self, refusal.error)
        self._end(grpc_wire.refusal_block(refusal.error, refusal.http_status))

    def deliver(self, message: bytes | memoryview, compressed: bool) -> None:
        """A complete message arrived.

        Raises: ServingError when it is not acceptable.
        """
        route = self.head.route
        if route.streaming:
            if compressed:
                self._unpacked(message, route.message)
                if self.beside is not None and self.beside.unpacking:
                    self.taking = False
            else:
                route.message(self, message)
        elif self.request is None:
            # A client may leave its side open: what it has sent is not made larger before it is to be served.
            self.request = Packed(message) if compressed else message
        else:
            raise Unimplemented("the method takes one message, the client sent another")

    def _unpacked(self, message: bytes | memoryview, then: Then) -> None:
        """Call `then` with compressed `message` as it was before, at once or when it is.

        Raises: ServingError.
        """
        if len(message) < DECOMPRESS_BESIDE_BYTES:
            coding = grpc_wire.coding_of(self.head.coding)
            then(self, grpc_wire.unpack(message, coding, self.connection.max_message_bytes))
            return
        if self.beside is None:
            self.beside = Beside(self)
        self.beside.unpack(message, then)

    def client_done(self) -> None:
        """The client's side has ended, and all it sent was delivered.

        Raises: ServingError when something is missing.
        """
        if self.inbox is not None and self.inbox.unfinished:
            raise ServingError("the client ended its side in the middle of a message")
        route = self.head.route
        if route.streaming:
            route.half_closed(self)
            return
        request, self.request = self.request, None
        if request is None:
            raise Unimplemented("the method takes one message, the client sent none")
        if self.inbox is not None:
            # It is served from here on, and counted as such.
            self.inbox.close()
        if isinstance(request, Packed):
            self._unpacked(request.message, route.start)
        else:
            route.start(self, request)

    def drained(self) -> None:
        """Everything that waited was sent."""
        if not self.closed and self.head.route.streaming:
            self.connection.guarded(self, self.head.route.drained, self)

    def expire(self) -> None:
        """The deadline passed."""
        self.turn_away(DeadlineExceeded("Deadline Exceeded: the call's deadline passed before it was answered"))

    def turn_away(self, error: ServingError) -> None:
        """`cut`, for what the handler had no part in."""
        if not self.closed:
            self.head.route.refused(self, error)
            self.cut(error)

    def cut(self, error: ServingError) -> None:
        """End the call with `error`, and tell its handler."""
        if not self.closed:
            self.fail(error)
            self.head.route.gone(self)

    def abandon(self) -> None:
        """Nobody is there to be answered: forget everything, and tell the handler."""
        self.release()
        if not self.closed:
            self.closed = True
            if self.head.route is not None:
                self.head.route.gone(self)

    def release(self) -> None:
        """Let go of what was received."""
        self.request = None
        if self.backlog:
            self.connection.backlog_left(len(self.backlog))
            self.backlog = None
        if self.inbox is not None:
            self.inbox.close()

    def _say_traced_head(self, traceparent: bytes) -> None:
        if not self.said_head:
            self.said_head = True
            block = grpc_wire.traced_block(self.head.reply_coding, traceparent)
            self.connection.writer.send_headers(self, block, end_stream=False)

    def _say_head(self) -> None:
        if not self.said_head:
            self.said_head = True
            block = grpc_wire.head_block(self.head.reply_coding)
            self.connection.writer.send_headers(self, block, end_stream=False)

    def _end(self, trailers: bytes) -> None:
        self.closed = self.ended = True
        self.release()
        self.connection.writer.send_headers(self, trailers, end_stream=True)
