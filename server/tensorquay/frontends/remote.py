"""The engine as a front-end process sees it: predictions and calls become records, answers come back by callback.

Decides nothing about requests: admission, checks, statistics and traces are the owner's. It refuses by itself only
when so much waits to be sent that the owner must be stuck, and reports that.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tensorquay.core.clock import Clock
from tensorquay.core.errors import Cancelled, ErrorKind, InvalidArgument, Overloaded, ServingError
from tensorquay.core.messages import InferRequest, Reply, Timings
from tensorquay.core.packed import PackedTensors
from tensorquay.core.request_trace import RequestTrace
from tensorquay.core.signature import Signature
from tensorquay.core.tensors import to_buffer
from tensorquay.frontends.errors import error_of, number_of
from tensorquay.frontends.link import Handler, Link
from tensorquay.frontends.records import (
    HEAD,
    NO_DEADLINE,
    PADS,
    REQUEST_HEAD,
    TIMINGS,
    TRACED,
    Kind,
    call_record,
    document_at,
    document_record,
    padded,
    record,
)
from tensorquay.frontends.templates import AnswerShape, RequestNumbers, RunShape, sizes_of
from tensorquay.frontends.traces import NEVER_SENT, document_of, ids_of

Outcome: TypeAlias = tuple[Any, bytes] | ServingError
"""What a call came to: the document and the body of its result, or why there is none."""

_MAX_CALLS = 2**32


class NoRegions:
    """Registered regions are the owner's: requests that name one are handed over whole."""

    enabled = False

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """Never asked."""
        raise InvalidArgument(f"region '{name:.64}' [{offset}, +{byte_size}] is not known in this process")

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Never asked."""
        raise InvalidArgument(f"region '{name:.64}' [{offset}, +{len(data)}] is not known in this process")


@dataclass(slots=True)
class _Waiting:
    """A request or a call that was sent. `identity` is the request's id; `timings` came before the answer, or never."""

    identity: str
    reply: Callable[[Any], None]
    timings: Timings | None = None


class RemoteTicket:
    """A request that was sent, for whoever may have to cancel it."""

    __slots__ = ("_call", "_engine")

    def __init__(self, engine: RemoteEngine, call: int) -> None:
        self._engine = engine
        self._call = call

    def cancel(self) -> None:
        """See `Ticket.cancel`: the reply is called now, not when the owner has heard of it."""
        self._engine.leave(self._call)


class RemoteEngine:
    """See the module. A `Predictor`. Loop-confined; owner: the front end's process.

    Args:
        max_unsent_bytes: beyond, requests are refused here.
    """

    def __init__(self, *, clock: Clock, max_unsent_bytes: int) -> None:
        self._clock = clock
        self._max_unsent_bytes = max_unsent_bytes
        self._link: Link
        self._numbers = RequestNumbers()
        self._shapes: dict[int, AnswerShape] = {}
        self._runs: dict[int, RunShape] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._next = 0
        self.regions = NoRegions()
        self.draining = False
        """Whether the server is stopping."""

    @property
    def clock(self) -> Clock:
        """The machine's monotonic clock: the same one in every process."""
        return self._clock

    @property
    def waiting(self) -> int:
        """Requests and calls without an answer."""
        return len(self._waiting)

    def attach(self, link: Link) -> None:
        """Speak over `link`, whose handlers are `handlers`."""
        self._link = link

    def handlers(self) -> Mapping[int, Handler]:
        """What the owner may send."""
        return {
            Kind.ANSWER_SHAPE: self._on_shape,
            Kind.ANSWER: self._on_answer,
            Kind.RUN_SHAPE: self._on_run_shape,
            Kind.RUN: self._on_run,
            Kind.TIMINGS: self._on_timings,
            Kind.ERROR: self._on_error,
            Kind.RESULT: self._on_result,
            Kind.DRAIN: self._on_drain,
        }

    # -- predictions

    def infer(self, request: InferRequest, reply: Reply, trace: RequestTrace | None = None) -> RemoteTicket:
        """See `Predictor.infer`.

        Raises: Overloaded when the owner does not read any more.
        """
        if self._link.unsent_bytes > self._max_unsent_bytes:
            error = self._stuck()
            self.refused(error.kind)
            raise error.for_request(request.id)
        link = self._link
        number, document = self._numbers.of(request)
        if document is not None:
            link.send(record(Kind.REQUEST_SHAPE, document, template=number))
        call = self._begin(request.id, reply)
        inputs = request.inputs
        if type(inputs) is PackedTensors:
            buffers, sizes = inputs.parts, b""
        else:
            buffers = [to_buffer(tensor) for tensor in inputs]
            sizes = sizes_of(inputs, buffers)
        parts, flags = link.payload(buffers)
        deadline = request.deadline_ns
        identity = request.id.encode("utf-8", "surrogatepass") if request.id else b""
        between = identity + PADS[-len(identity) & 7] + sizes
        if trace is not None:
            trace.asks(request.model_name, request.model_version, request.id)
            trace.call = call
            flags |= TRACED
            between = ids_of(trace) + between
        size = REQUEST_HEAD.size + len(between) + sum(map(len, parts))
        head = REQUEST_HEAD.pack(
            size,
            Kind.REQUEST,
            flags,
            number,
            call,
            len(identity),
            request.arrival_ns,
            NO_DEADLINE if deadline is None else deadline,
        )
        link.send((head, between, *parts))
        return RemoteTicket(self, call)

    def refused(self, kind: ErrorKind) -> None:
        """See `Predictor.refused`: the owner counts it."""
        self._link.send(record(Kind.REFUSED, template=number_of(kind)))

    def signature(self, name: str, version: str) -> Signature:  # noqa: ARG002  as `Predictor`
        """Not known here. Requests that need one are handed over whole; only an empty compressed body gets here.

        Raises: InvalidArgument.
        """
        raise InvalidArgument(f"inference request for model '{name:.128}': the body is empty after decompression")

    def leave(self, call: int) -> None:
        """Nobody waits for `call` any more: answer it now, and tell the owner."""
        waiting = self._waiting.pop(call, None)
        if waiting is not None:
            self._link.send(record(Kind.CANCEL, call=call))
            waiting.reply(Cancelled("the client cancelled the request").for_request(waiting.identity))

    # -- calls

    def call(
        self,
        document: object,
        body: bytes | memoryview,
        reply: Callable[[Outcome], None],
        *,
        arrival_ns: int | None = None,
        deadline_ns: int | None = None,
        trace: RequestTrace | None = None,
    ) -> RemoteTicket:
        """Let a handler of the owner take `body`; `document` says which. `reply` is called once, later.

        Args: trace: of a traced request, whose ids are in `document`.
        Raises: Overloaded when the owner does not read any more; InvalidArgument for a body that no record can hold.
        """
        if self._link.unsent_bytes > self._max_unsent_bytes:
            raise self._stuck()
        arrival = self._clock.now_ns() if arrival_ns is None else arrival_ns
        call = self._next_call()
        try:
            parts = call_record(document, body, call=call, arrival_ns=arrival, deadline_ns=deadline_ns)
        except OverflowError as error:
            raise InvalidArgument(f"the request cannot be handed over: {error}") from error
        self._waiting[call] = _Waiting("", reply)
        self._link.send(parts)
        if trace is not None:
            trace.call = call
        return RemoteTicket(self, call)

    def ended(self, trace: RequestTrace) -> None:
        """A traced request is answered: let the owner know."""
        if trace.call != NEVER_SENT or self._link.unsent_bytes <= self._max_unsent_bytes:
            self._link.send(document_record(Kind.SPAN, document_of(trace)))

    async def ask(self, document: object, body: bytes) -> tuple[Any, bytes]:
        """`call` for coroutines. Cancelling the caller cancels the call.

        Raises: ServingError.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def reply(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        ticket = self.call(document, body, reply)
        try:
            outcome = await future
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    # -- what the owner says

    def _on_shape(self, data: bytes, at: int) -> None:
        size, _, _, number, _, _ = HEAD.unpack_from(data, at)
        self._shapes[number] = AnswerShape.parsed(document_at(data, at + HEAD.size, size - HEAD.size))

    def _on_answer(self, data: bytes, at: int) -> None:
        size, _, flags, number, call, _ = HEAD.unpack_from(data, at)
        shape, end = self._shapes[number], at + size
        at += HEAD.size
        tensors = shape.tensors
        # A range that was lent is taken even if nobody waits any more: that is what gives it back.
        sizes, total = tensors.sizes_at(data, at)
        source, at = self._link.source(data, at + 8 * len(sizes), end, flags=flags, size=total)
        outputs = tensors.read(source, at, sizes)
        waiting = self._waiting.pop(call, None)
        if waiting is not None:
            answer = shape.response(waiting.identity, outputs)
            if waiting.timings is not None:
                answer.timings = waiting.timings
            waiting.reply(answer)

    def _on_run_shape(self, data: bytes, at: int) -> None:
        size, _, _, number, _, _ = HEAD.unpack_from(data, at)
        self._runs[number] = RunShape(document_at(data, at + HEAD.size, size - HEAD.size))

    def _on_run(self, data: bytes, at: int) -> None:
        size, _, flags, number, _, count = HEAD.unpack_from(data, at)
        shape, end = self._runs[number], at + size
        at += HEAD.size
        riders: tuple[int, ...] = struct.unpack_from(f"<{3 * count}I", data, at)
        source, at = self._link.source(data, at + padded(12 * count), end, flags=flags, size=shape.byte_size)
        run = shape.run(source, at)
        for position in range(0, 3 * count, 3):
            waiting = self._waiting.pop(riders[position], None)
            if waiting is not None:
                start, stop = riders[position + 1], riders[position + 2]
                answer = shape.response(waiting.identity, run, start, stop)
                if waiting.timings is not None:
                    answer.timings = waiting.timings
                waiting.reply(answer)

    def _on_timings(self, data: bytes, at: int) -> None:
        count = HEAD.unpack_from(data, at)[5]
        at += HEAD.size
        for each in range(count):
            call, rows, batch_rows, queue_ns, run_ns = TIMINGS.unpack_from(data, at + each * TIMINGS.size)
            waiting = self._waiting.get(call)
            if waiting is not None:
                waiting.timings = Timings(queue_ns, 0, run_ns, 0, batch_rows, rows)

    def _on_error(self, data: bytes, at: int) -> None:
        _, _, _, _, call, length = HEAD.unpack_from(data, at)
        said = document_at(data, at + HEAD.size, length)
        waiting = self._waiting.pop(call, None)
        if waiting is not None:
            waiting.reply(error_of(said))

    def _on_result(self, data: bytes, at: int) -> None:
        size, _, _, _, call, length = HEAD.unpack_from(data, at)
        end = at + size
        at += HEAD.size
        waiting = self._waiting.pop(call, None)
        if waiting is not None:
            document = document_at(data, at, length)
            waiting.reply((document, data[at + padded(length) : end]))

    def _on_drain(self, _data: bytes, _at: int) -> None:
        self.draining = True

    # -- helpers

    def _begin(self, identity: str, reply: Callable[[Any], None]) -> int:
        call = self._next_call()
        self._waiting[call] = _Waiting(identity, reply)
        return call

    def _next_call(self) -> int:
        call = self._next
        while call in self._waiting:
            call = (call + 1) % _MAX_CALLS
        self._next = (call + 1) % _MAX_CALLS
        return call

    def _stuck(self) -> Overloaded:
        """Why nothing is sent any more; the owner counts it among what admission control refused."""
        self._link.send(record(Kind.REFUSED, extra=1))
        return Overloaded(
            f"server overloaded: {self._link.unsent_bytes} bytes wait to be taken by the engine's process, at most "
            f"{self._max_unsent_bytes} may; retry after a pause (--max-inflight-bytes)",
            facts={"limit": self._max_unsent_bytes},
            retry_after_s=1.0,
        )
