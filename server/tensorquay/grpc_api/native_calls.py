"""The handlers as routes of our own transport: what grpcio's coroutines do in `aio_server.py`, by callback.

A prediction makes no task and no future: bytes in, `InferHandler.start`, its answer straight into the connection's
output. Control methods are coroutines and run as tasks, bounded in number.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from tensorquay.core.errors import ErrorKind, Overloaded, ServingError
from tensorquay.core.predicting import Ticket
from tensorquay.core.request_trace import Entrance, RequestTrace
from tensorquay.grpc_api.infer import MAX_STREAM_INFLIGHT, InferHandler, InferStream
from tensorquay.grpc_api.methods import Method
from tensorquay.protocol import reflection
from tensorquay.telemetry.trace_sampling import RequestSampler
from tensorquay.telemetry.unexpected import unexpected
from tensorquay.transport.access_log import AccessLog
from tensorquay.transport.grpc_access import LoggedCall, StreamAccess
from tensorquay.transport.grpc_call import Call

_log = logging.getLogger("tensorquay.grpc")


class Unary:
    """What all methods with one message and one answer share."""

    streaming = False

    def opened(self, call: Call) -> None:
        """Unary calls begin with their message."""

    def message(self, call: Call, message: bytes | memoryview) -> None:
        """Unary calls get theirs with `start`."""

    def half_closed(self, call: Call) -> None:
        """Unary calls learn it with `start`."""

    def drained(self, call: Call) -> None:
        """Unary calls have nothing to wait for."""

    def refused(self, call: Call, error: ServingError) -> None:
        """By default nobody counts it."""


class Streaming:
    """What all methods with streams of messages share."""

    streaming = True

    def start(self, call: Call, message: bytes | memoryview) -> None:
        """Only unary calls are started."""

    def drained(self, call: Call) -> None:
        """By default nobody waits for it."""

    def refused(self, call: Call, error: ServingError) -> None:
        """By default nobody counts it."""


class ModelInfer(Unary):
    """`InferHandler`, by callback; `call.state` is the ticket."""

    def __init__(self, infer: InferHandler) -> None:
        self._infer = infer
        self._start = infer.start

    def start(self, call: Call, message: bytes | memoryview) -> None:
        call.state = self._start(message, call.answer, metadata=call.head.metadata, deadline_ns=call.deadline_ns)

    def gone(self, call: Call) -> None:
        ticket: Ticket | None = call.state
        if ticket is not None:
            ticket.cancel()

    def refused(self, call: Call, error: ServingError) -> None:
        if call.state is None:  # else its version counts it
            self._infer.refused(error)


class NotedModelInfer(ModelInfer):
    """The same while there is an access log."""

    def start(self, call: Call, message: bytes | memoryview) -> None:
        assert isinstance(call, LoggedCall)
        call.state = self._start(
            message, call.answer, metadata=call.head.metadata, deadline_ns=call.deadline_ns, note=call.note
        )


class TracedModelInfer(ModelInfer):
    """The same while spans are recorded, with an access log or without. The answer's first metadata names the span.

    Args: logged: whether there is an access log.
    """

    def __init__(self, infer: InferHandler, sampler: RequestSampler, *, logged: bool) -> None:
        super().__init__(infer)
        self._roll, self._ratio = sampler.roll, sampler.ratio
        self._sampler = sampler
        self._plain = NotedModelInfer(infer) if logged else ModelInfer(infer)
        self._logged = logged

    def start(self, call: Call, message: bytes | memoryview) -> None:
        head = call.head
        if head.context is None:
            if self._roll() >= self._ratio:
                if self._logged:
                    self._plain.start(call, message)
                else:
                    # Most calls come by here, so `ModelInfer.start` is not called for this.
                    call.state = self._start(message, call.answer, metadata=head.metadata, deadline_ns=call.deadline_ns)
                return
            trace = self._sampler.new(Entrance.GRPC, self._infer.now_ns())
        else:
            begun = self._infer.begin_trace(Entrance.GRPC, head.context)
            if begun is None:
                self._plain.start(call, message)
                return
            trace = begun
        call.state = self._start(
            message,
            partial(self._answer, call, trace),
            metadata=head.metadata,
            deadline_ns=call.deadline_ns,
            note=call.note if isinstance(call, LoggedCall) else None,
            trace=trace,
        )

    def _answer(self, call: Call, trace: RequestTrace, outcome: bytes | ServingError) -> None:
        call.answer(outcome, trace.traceparent)
        self._infer.end_trace(trace, outcome, call.deadline_ns)


class ModelStreamInfer(Streaming):
    """`InferStream`; `call.state` is it. A client that sends and does not read is not read either.

    Args: access: while there is an access log, it.
    """

    def __init__(self, infer: InferHandler, access: AccessLog | None = None) -> None:
        self._infer = infer
        self._access = access

    def opened(self, call: Call) -> None:
        call.state = InferStream(
            self._infer,
            metadata=call.head.metadata,
            deadline_ns=call.deadline_ns,
            emit=call.send,
            fail=call.fail,
            idle=partial(self._idle, call),
            access=None if self._access is None else StreamAccess(self._access, call.head.path, call.connection.peer),
        )

    def message(self, call: Call, message: bytes | memoryview) -> None:
        stream: InferStream = call.state
        stream.feed(message)
        if _crowded(call, stream):
            call.hold()

    def half_closed(self, call: Call) -> None:
        self._idle(call)

    def drained(self, call: Call) -> None:
        self._idle(call)

    def gone(self, call: Call) -> None:
        stream: InferStream | None = call.state
        if stream is not None:
            stream.cancel()

    def refused(self, call: Call, error: ServingError) -> None:  # noqa: ARG002  as `Route`
        if error.kind is not ErrorKind.DEADLINE_EXCEEDED:  # a stream's deadline is none of a request's
            self._infer.refused(error)

    def _idle(self, call: Call) -> None:
        stream: InferStream = call.state
        if not call.taking and not _crowded(call, stream):
            call.go_on()
        if call.half_closed and call.taking and not stream.inflight:
            call.finish()


def _crowded(call: Call, stream: InferStream) -> bool:
    return stream.inflight + call.waiting_messages >= MAX_STREAM_INFLIGHT


class Reflection(Streaming):
    """Server reflection, v1 and v1alpha: they differ in their package's name only."""

    def opened(self, call: Call) -> None:
        """Nothing to prepare."""

    def message(self, call: Call, message: bytes | memoryview) -> None:
        call.send(reflection.answer(message))
        if call.waiting_messages >= MAX_STREAM_INFLIGHT:
            call.hold()

    def half_closed(self, call: Call) -> None:
        call.finish()

    def drained(self, call: Call) -> None:
        call.go_on()

    def gone(self, call: Call) -> None:
        """Nothing goes on."""


class TaskRoom:
    """The tasks of control calls. Loop-confined; owner: the server.

    Args: limit: most at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, call: Call, path: str, method: Method, message: bytes) -> None:
        """Serve `call` by a task; `call.state` is it.

        Raises: Overloaded.
        """
        if len(self._tasks) >= self._limit:
            raise Overloaded(
                f"server overloaded: {self._limit} control calls are under way; retry after a pause", retry_after_s=1.0
            )
        task = asyncio.get_running_loop().create_task(_serve(call, path, method, message), name="grpc-control")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        call.state = task

    async def close(self) -> None:
        """Cancel what is left, and wait for it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Control(Unary):
    """One control method."""

    def __init__(self, path: str, method: Method, room: TaskRoom) -> None:
        self._path = path
        self._method = method
        self._room = room

    def start(self, call: Call, message: bytes | memoryview) -> None:
        self._room.run(call, self._path, self._method, bytes(message))

    def gone(self, call: Call) -> None:
        task: asyncio.Task[None] | None = call.state
        if task is not None:
            task.cancel()


async def _serve(call: Call, path: str, method: Method, message: bytes) -> None:
    outcome: bytes | ServingError
    try:
        outcome = await method(message)
    except ServingError as error:
        outcome = error
    except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
        outcome = unexpected(error, _log, f"serving {path.rpartition('/')[2]}")
    call.answer(outcome)
