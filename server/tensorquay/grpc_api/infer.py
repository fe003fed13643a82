"""ModelInfer and ModelStreamInfer: message bytes in, message bytes out, by callback.

Knows no gRPC library: whatever carries the messages (grpcio today) feeds them in and writes what is emitted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

from tensorquay.core.errors import ErrorKind, ServingError
from tensorquay.core.facts import PredictionFacts
from tensorquay.core.messages import InferResponse, Reply
from tensorquay.core.predicting import Predictor, Ticket
from tensorquay.core.request_trace import Entrance, RequestTrace
from tensorquay.core.trace_context import RawContext, of_metadata
from tensorquay.protocol import v2_proto
from tensorquay.protocol.options import WireOptions
from tensorquay.protocol.repeats import ProtoRequests
from tensorquay.protocol.shared_memory import SharedMemory
from tensorquay.telemetry.trace_sampling import RequestSampler
from tensorquay.telemetry.unexpected import unexpected
from tensorquay.transport.grpc_access import StreamAccess

_log = logging.getLogger("tensorquay.grpc")

Answer: TypeAlias = Callable[[bytes | ServingError], None]
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]
Note: TypeAlias = Callable[[PredictionFacts], None]

MAX_STREAM_INFLIGHT = 1024
"""Requests of one stream being served at once; a faster sender is not read meanwhile (back-pressure)."""


class InferHandler:
    """Decodes, asks the engine, encodes.

    Args:
        forward_metadata: metadata whose keys match become string parameters of the request.
        sampler: begins traces; None while spans are off.
    """

    def __init__(
        self,
        engine: Predictor,
        *,
        forward_metadata: re.Pattern[str] | None = None,
        sampler: RequestSampler | None = None,
    ) -> None:
        self._engine = engine
        self.sampler = sampler
        self._forward_metadata = forward_metadata
        self._requests = ProtoRequests()

    @property
    def shm(self) -> SharedMemory | None:
        """Registered regions, or None when shared memory is off."""
        return self._engine.regions if self._engine.regions.enabled else None

    def start(
        self,
        message: bytes | memoryview,
        answer: Answer,
        *,
        metadata: Metadata = (),
        deadline_ns: int | None = None,
        streamed: bool = False,
        note: Note | None = None,
        trace: RequestTrace | None = None,
    ) -> Ticket | None:
        """Begin to serve a ModelInferRequest; `answer` is called exactly once, perhaps before this returns.

        Args:
            streamed: encode as ModelStreamInferResponse.
            note: gets what the access log tells, when it could be decoded; complete when `answer` is called.
            trace: of a sampled request, which the caller ends.
        Returns: a ticket to cancel it with, or None when it is answered already.
        """
        asked = False
        try:
            infer, options = self._requests.decode(message, shm=self.shm, arrival_ns=self._engine.clock.now_ns())
            infer.deadline_ns = deadline_ns
            if self._forward_metadata is not None:
                infer.parameters = {**infer.parameters, **self._forwarded(metadata)}
            reply: Reply = partial(self._reply, options, answer, streamed)
            if note is not None:
                facts = PredictionFacts.of(infer)
                facts.trace_id = "" if trace is None else trace.trace_id.hex()
                note(facts)
                reply = facts.completed_by(reply)
            asked = True
            return self._engine.infer(infer, reply, trace)
        except ServingError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
            failure = unexpected(error, _log, "serving ModelInfer")
        if not asked:
            self.refused(failure)
        answer(failure)
        return None

    def begin_trace(self, entrance: Entrance, context: RawContext | None) -> RequestTrace | None:
        """The trace of a call that begins now, or None for most."""
        if self.sampler is None:
            return None
        return self.sampler.begin(entrance, self._engine.clock.now_ns(), context)

    def now_ns(self) -> int:
        """By the server's clock."""
        return self._engine.clock.now_ns()

    def end_trace(self, trace: RequestTrace, outcome: bytes | ServingError, deadline_ns: int | None = None) -> None:
        """The call is answered with `outcome`."""
        now_ns, kind = self.now_ns(), outcome.kind if isinstance(outcome, ServingError) else None
        if kind is ErrorKind.CANCELLED and deadline_ns is not None and now_ns >= deadline_ns:
            # Whatever ends a call at its deadline cancels it here; its client hears of the deadline.
            kind = ErrorKind.DEADLINE_EXCEEDED
        trace.end(now_ns, error="" if kind is None else kind.name.lower())

    def refused(self, error: ServingError) -> None:
        """Count a ModelInferRequest that was answered with `error` and never asked of the engine."""
        self._engine.refused(error.kind)

    def _forwarded(self, metadata: Metadata) -> dict[str, str]:
        assert self._forward_metadata is not None
        return {
            key: value for key, value in metadata if isinstance(value, str) and self._forward_metadata.fullmatch(key)
        }

    def _reply(
        self, options: WireOptions, answer: Answer, streamed: bool, outcome: InferResponse | ServingError
    ) -> None:
        if isinstance(outcome, ServingError):
            answer(outcome)
            return
        try:
            shm = self.shm if options.outputs else None  # only outputs that were asked for by name can go there
            if streamed:
                encoded = v2_proto.encode_stream_response(outcome, options, shm=shm)
            else:
                encoded = v2_proto.encode_infer(outcome, options, shm=shm)
        except ServingError as error:
            answer(error)
        except Exception as error:  # noqa: BLE001  see `start`
            answer(unexpected(error, _log, "serving ModelInfer"))
        else:
            answer(encoded)


class InferStream:
    """One ModelStreamInfer call. Loop-confined; owner: the transport's handler of that call.

    A failing request is a message and the stream goes on (Triton), unless the client opened it with
    `triton_grpc_error: true`: then the first failure ends it with a real status.

    Args:
        emit: writes one response message.
        fail: ends the stream with a status.
        idle: called when nothing is in flight any more, and when there is room again.
        access: takes a line per message, while there is an access log.
    """

    def __init__(
        self,
        handler: InferHandler,
        *,
        metadata: Metadata,
        deadline_ns: int | None,
        emit: Callable[[bytes], None],
        fail: Callable[[ServingError], None],
        idle: Callable[[], None],
        access: StreamAccess | None = None,
    ) -> None:
        self._handler = handler
        self._metadata = tuple(metadata)
        self._deadline_ns = deadline_ns
        self._emit = emit
        self._fail = fail
        self._idle = idle
        self._access = access
        self._context = None if handler.sampler is None else of_metadata(self._metadata)
        self._real_errors = any(key == "triton_grpc_error" and value == "true" for key, value in self._metadata)
        self._tickets: dict[int, Ticket | None] = {}
        self._number = 0
        self._ended = False

    @property
    def inflight(self) -> int:
        """Requests of this stream being served."""
        return len(self._tickets)

    def feed(self, message: bytes | memoryview) -> None:
        """Begin to serve one request of the stream."""
        if self._ended:
            return
        self._number += 1
        number = self._number
        self._tickets[number] = None
        answer: Answer = partial(self._answered, number, message)
        note: Note | None = None
        if self._access is not None:
            line = self._access.begin(len(message), answer)
            answer, note = line.answer, line.note
        handler = self._handler
        trace = None if handler.sampler is None else handler.begin_trace(Entrance.GRPC_STREAM, self._context)
        if trace is not None:
            answer = partial(self._answered_traced, trace, answer)
        ticket = self._handler.start(
            message,
            answer,
            metadata=self._metadata,
            deadline_ns=self._deadline_ns,
            streamed=True,
            note=note,
            trace=trace,
        )
        if number in self._tickets:
            self._tickets[number] = ticket

    def cancel(self) -> None:
        """The client left, or the stream failed: nothing more is emitted, what is in flight is cancelled."""
        self._ended = True
        for ticket in list(self._tickets.values()):
            if ticket is not None:
                ticket.cancel()

    def _answered_traced(self, trace: RequestTrace, answer: Answer, outcome: bytes | ServingError) -> None:
        answer(outcome)
        self._handler.end_trace(trace, outcome, self._deadline_ns)

    def _answered(self, number: int, message: bytes | memoryview, outcome: bytes | ServingError) -> None:
        del self._tickets[number]
        if self._ended:
            return
        if isinstance(outcome, bytes):
            self._emit(outcome)
        elif self._real_errors:
            self._fail(outcome)
            self.cancel()
        else:
            # The id tells the client which of its requests failed: answers come in any order.
            self._emit(v2_proto.encode_stream_error(outcome.message, v2_proto.request_id(message)))
        self._idle()
