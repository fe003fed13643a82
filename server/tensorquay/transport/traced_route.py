"""A hot route whose requests may be traced: begins the trace, tells the client about it, ends it with the answer.

Takes the place of the plain route while spans are recorded, so that without them nothing is asked.
"""

from __future__ import annotations

from typing import Protocol

import orjson

from tensorquay.core.clock import Clock
from tensorquay.core.request_trace import Entrance, RequestTrace
from tensorquay.core.trace_context import RawContext
from tensorquay.telemetry.trace_sampling import RequestSampler
from tensorquay.transport.http_message import Answer, Cancellable, HotRoute, HttpReply


class Traceable(Protocol):
    """A hot route that hands a request's trace on to whoever serves it."""

    @property
    def tensors_at(self) -> int:
        """See `HotRoute.tensors_at`."""
        ...

    def start(
        self, body: bytes | memoryview, arrival_ns: int, answer: Answer, trace: RequestTrace | None = None
    ) -> Cancellable | None:
        """See `HotRoute.start`."""
        ...

    def refused(self, status: int) -> None:
        """See `HotRoute.refused`."""
        ...


class TracedRoute:
    """See the module.

    Args:
        model, version: what the path names.
        context: what the head says of the caller's span.
    """

    __slots__ = (
        "_clock",
        "_context",
        "_model",
        "_ratio",
        "_roll",
        "_sampler",
        "_start",
        "_version",
        "refused",
        "tensors_at",
    )

    def __init__(
        self,
        route: Traceable,
        sampler: RequestSampler,
        model: str,
        version: str,
        context: RawContext | None,
        *,
        clock: Clock,
    ) -> None:
        # Most requests are not sampled, and pass here with as little as can be.
        self._start = route.start
        self._roll, self._ratio = sampler.roll, sampler.ratio
        self.refused = route.refused
        self._sampler = sampler
        self._model = model
        self._version = version
        self._context = context
        self._clock = clock
        self.tensors_at = route.tensors_at

    def start(self, body: bytes | memoryview, arrival_ns: int, answer: Answer) -> Cancellable | None:
        """See `HotRoute.start`."""
        if self._context is None:
            if self._roll() >= self._ratio:
                return self._start(body, arrival_ns, answer)
            return self._traced(body, arrival_ns, answer, self._sampler.new(Entrance.HTTP, arrival_ns))
        return self._begin(body, arrival_ns, answer, self._context)

    def start_within(
        self, body: bytes | memoryview, arrival_ns: int, answer: Answer, context: RawContext
    ) -> Cancellable | None:
        """As `start`, for a request that says its caller's span in a line that was taken out of its head."""
        # Two lines that say it say nothing.
        return self._begin(body, arrival_ns, answer, context if self._context is None else None)

    def _begin(
        self, body: bytes | memoryview, arrival_ns: int, answer: Answer, context: RawContext | None
    ) -> Cancellable | None:
        trace = self._sampler.begin(Entrance.HTTP, arrival_ns, context)
        if trace is None:
            return self._start(body, arrival_ns, answer)
        return self._traced(body, arrival_ns, answer, trace)

    def _traced(
        self, body: bytes | memoryview, arrival_ns: int, answer: Answer, trace: RequestTrace
    ) -> Cancellable | None:
        trace.asks(self._model, self._version)
        return self._start(body, arrival_ns, _TracedAnswer(trace, answer, self._clock), trace)

    def hand_on(
        self, body: bytes | memoryview, arrival_ns: int, answer: Answer, trace: RequestTrace | None
    ) -> Cancellable | None:
        """Serve a request about whose trace somebody else has decided, and which he ends."""
        return self._start(body, arrival_ns, answer, trace)


def start_within(
    route: HotRoute, body: bytes | memoryview, arrival_ns: int, answer: Answer, context: RawContext
) -> Cancellable | None:
    """Start `route`, traced or not, for a request whose head was `split_head`."""
    if isinstance(route, TracedRoute):
        return route.start_within(body, arrival_ns, answer, context)
    return route.start(body, arrival_ns, answer)


class _TracedAnswer:
    """Takes a sampled request's answer, which then says in which span it was made."""

    __slots__ = ("_answer", "_clock", "_trace")

    def __init__(self, trace: RequestTrace, answer: Answer, clock: Clock) -> None:
        self._trace = trace
        self._answer = answer
        self._clock = clock

    def __call__(self, reply: HttpReply) -> None:
        trace = self._trace
        said = trace.traceparent
        reply.headers = (*reply.headers, (b"traceparent", said))
        reply.written = b""
        if reply.head:
            reply.head += b"traceparent: %b\r\n" % said
        if reply.facts is not None:
            reply.facts.trace_id = trace.trace_id.hex()
        self._answer(reply)
        trace.end(self._clock.now_ns(), error=_kind_of(reply), status=reply.status)


def _kind_of(reply: HttpReply) -> str:
    """The kind of the error that `reply` tells, in lower case; "" for none."""
    if reply.status < 400:
        return ""
    try:
        code = orjson.loads(b"".join(reply.parts))["code"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return "internal"
    return str(code).lower()
