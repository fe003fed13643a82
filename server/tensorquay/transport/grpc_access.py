"""The access log of gRPC: calls and routes that count, and the messages of a stream of predictions.

They take the place of the plain ones while there is an access log, so that without it nothing is counted and nothing
is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tensorquay.core.errors import ServingError
from tensorquay.core.facts import PredictionFacts
from tensorquay.transport.access_log import LEFT_CALL, AccessLog
from tensorquay.transport.grpc_call import Call, Route
from tensorquay.transport.grpc_head import CallHead

if TYPE_CHECKING:
    from tensorquay.transport.h2_connection import Connection

OK = "OK"


class LoggedCall(Call):
    """A call that writes its line when it ends, however it does."""

    __slots__ = ("_access", "_answer_bytes", "_begun_ns", "_facts", "_logged", "_request_bytes", "_status")

    def __init__(self, access: AccessLog, connection: Connection, stream: int, head: CallHead, window: int) -> None:
        super().__init__(connection, stream, head, window)
        self._access = access
        self._begun_ns = access.now_ns()
        self._request_bytes = self._answer_bytes = 0
        self._status = OK
        self._facts: PredictionFacts | None = None
        self._logged = False

    def note(self, facts: PredictionFacts) -> None:
        """What the line tells about the call's one prediction."""
        self._facts = facts

    def received(self, count: int) -> None:
        """A message of `count` bytes came."""
        self._request_bytes += count

    def answer(self, outcome: bytes | ServingError, traceparent: bytes = b"") -> None:
        if self.closed:
            return
        super().answer(outcome, traceparent)
        if not self._logged and self.closed:
            # As one piece, without passing `send`.
            self._answer_bytes += 0 if isinstance(outcome, ServingError) else len(outcome)
            self._log()

    def send(self, message: bytes) -> None:
        if not self.closed:
            super().send(message)
            if self.said_head:
                self._answer_bytes += len(message)

    def fail(self, error: ServingError) -> None:
        if not self.closed:
            self._status = error.kind.name
            super().fail(error)

    def refuse(self) -> None:
        if self.head.refusal is not None:
            self._status = self.head.refusal.error.kind.name
        super().refuse()

    def abandon(self) -> None:
        left = not self.closed
        super().abandon()
        if left:
            self._status = LEFT_CALL
            self._log()

    def _end(self, trailers: bytes) -> None:
        super()._end(trailers)
        self._log()

    def _log(self) -> None:
        if self._logged:
            return
        self._logged = True
        self._access.grpc(
            self.head.path,
            self._status,
            begun_ns=self._begun_ns,
            peer=self.connection.peer,
            sizes=(self._request_bytes, self._answer_bytes),
            facts=self._facts,
        )


class LoggedRoute:
    """A route whose calls are logged: counts their messages and passes everything on."""

    __slots__ = ("_route", "drained", "gone", "half_closed", "opened", "refused", "streaming")

    def __init__(self, route: Route) -> None:
        self._route = route
        self.streaming = route.streaming
        self.opened = route.opened
        self.half_closed = route.half_closed
        self.drained = route.drained
        self.gone = route.gone
        self.refused = route.refused

    def start(self, call: LoggedCall, message: bytes | memoryview) -> None:
        """See `Route`."""
        call.received(len(message))
        self._route.start(call, message)

    def message(self, call: LoggedCall, message: bytes | memoryview) -> None:
        """See `Route`."""
        call.received(len(message))
        self._route.message(call, message)


class StreamAccess:
    """The lines for the messages of one stream of predictions; the stream itself has one too, at its end.

    Args:
        path: of the call.
        peer: as `AccessLog` takes it.
    """

    __slots__ = ("access", "path", "peer")

    def __init__(self, access: AccessLog, path: str, peer: object) -> None:
        self.access = access
        self.path = path
        self.peer = peer

    def begin(self, size: int, answer: Callable[[bytes | ServingError], None]) -> StreamedLine:
        """A message of `size` bytes came, which `answer` will answer."""
        return StreamedLine(self, size, answer)


class StreamedLine:
    """The line of one message."""

    __slots__ = ("_answer", "_begun_ns", "_facts", "_size", "_stream")

    def __init__(self, stream: StreamAccess, size: int, answer: Callable[[bytes | ServingError], None]) -> None:
        self._stream = stream
        self._size = size
        self._answer = answer
        self._begun_ns = stream.access.now_ns()
        self._facts: PredictionFacts | None = None

    def note(self, facts: PredictionFacts) -> None:
        """See `LoggedCall.note`."""
        self._facts = facts

    def answer(self, outcome: bytes | ServingError) -> None:
        """Write the line, then pass the answer on: it may end the stream, whose own line comes last."""
        status, size = (outcome.kind.name, 0) if isinstance(outcome, ServingError) else (OK, len(outcome))
        self._stream.access.grpc(
            self._stream.path,
            status,
            begun_ns=self._begun_ns,
            peer=self._stream.peer,
            sizes=(self._size, size),
            facts=self._facts,
            what="message ",
        )
        self._answer(outcome)
