"""The owner's side of one front end: its predictions and calls are served by the engine and handlers of this process.

What a front end sends was decoded by this very program, yet nothing of it is believed that decides anything: the engine
checks, admits, counts and traces it like any other request. When a front end is gone, what it had under way is
cancelled; memory that the engine still reads stays mapped until it has let go.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tensorquay.core.errors import ServingError
from tensorquay.core.facts import PredictionFacts
from tensorquay.core.messages import InferResponse
from tensorquay.core.packed import PackedTensors, Ride
from tensorquay.core.predicting import Ticket
from tensorquay.core.request_trace import RequestTrace
from tensorquay.core.tensors import Tensor, to_buffer
from tensorquay.engine import InferenceEngine
from tensorquay.frontends import log_relay
from tensorquay.frontends.errors import document_of, kind_of
from tensorquay.frontends.link import Handler, Link
from tensorquay.frontends.records import (
    HEAD,
    NO_DEADLINE,
    PADS,
    REQUEST_HEAD,
    TIMINGS,
    TRACED,
    BrokenLink,
    Kind,
    document_at,
    document_record,
    dump,
    padded,
    record,
)
from tensorquay.frontends.run_groups import RunGroup, RunPart
from tensorquay.frontends.templates import AnswerNumbers, RequestShape, RunNumbers, sizes_of
from tensorquay.frontends.traces import IDS_BYTES, OpenTraces
from tensorquay.grpc_api.infer import InferHandler
from tensorquay.grpc_api.methods import Method
from tensorquay.telemetry.unexpected import unexpected
from tensorquay.transport.http_message import HotHandler, HotRoute, HttpReply
from tensorquay.transport.traced_route import TracedRoute

_log = logging.getLogger("tensorquay.frontends")

_MAX_ROUTES = 1024

_BEATS = 10
"""How often within its limit a front end is looked after."""


class Owned:
    """What all front ends share of this process.

    Args:
        hot: the hot HTTP routes; None when HTTP is off.
        grpc: decodes predictions that are handed over whole; None when gRPC is off.
        control: the control methods of gRPC by path.
        access_log: whether front ends are told what their access log says about predictions.
        spans: takes traces that have ended; None while spans are off.
    """

    __slots__ = ("access_log", "control", "engine", "grpc", "hot", "spans")

    def __init__(
        self,
        engine: InferenceEngine,
        *,
        hot: HotHandler | None,
        grpc: InferHandler | None,
        control: Mapping[str, Method],
        access_log: bool = False,
        spans: Callable[[RequestTrace], None] | None = None,
    ) -> None:
        self.engine = engine
        self.spans = spans
        self.access_log = access_log
        self.hot = hot
        self.grpc = grpc
        self.control = control


class OwnerEnd:
    """See the module. Loop-confined; owner: the supervisor.

    Args: ready: called when it accepts connections.
    """

    def __init__(self, owned: Owned, *, ready: Callable[[], None]) -> None:
        self._owned = owned
        self._ready = ready
        self._link: Link
        self._closed = False
        self._answered = False
        self._shapes: dict[int, RequestShape] = {}
        self._numbers = AnswerNumbers()
        self._run_numbers = RunNumbers()
        self._runs: dict[object, RunGroup] = {}
        self._tickets: dict[int, Ticket] = {}
        self._routes: dict[bytes, HotRoute] = {}
        self._traces = None if owned.spans is None else OpenTraces(owned.spans)

    def attach(self, link: Link) -> None:
        """Speak over `link`, whose handlers are `handlers` and whose end is `lost`."""
        self._link = link

    def handlers(self) -> Mapping[int, Handler]:
        """What a front end may send."""
        return {
            Kind.REQUEST_SHAPE: self._on_shape,
            Kind.REQUEST: self._on_request,
            Kind.CALL: self._on_call,
            Kind.CANCEL: self._on_cancel,
            Kind.LOG: self._on_log,
            Kind.REFUSED: self._on_refused,
            Kind.READY: self._on_ready,
            Kind.SPAN: self._on_span,
            Kind.PONG: self._on_pong,
        }

    @property
    def serving(self) -> int:
        """Requests and calls of this front end under way."""
        return len(self._tickets)

    def drain(self) -> None:
        """The server is stopping: connections close with their next answer."""
        self._link.send(record(Kind.DRAIN))

    def stop(self, grace_s: float) -> None:
        """Accept nothing more, and end within `grace_s`."""
        self._link.send(record(Kind.STOP, extra=min(max(round(grace_s * 1000), 0), 2**32 - 1)))

    async def silent(self, limit_s: float) -> None:
        """Wait until it has not answered for about `limit_s`.

        In beats of this process's own loop: if this one stood still, the answer is read before the next beat.
        """
        silent = 0
        while silent < _BEATS:
            if not silent:
                self._answered = False
                self._link.send(record(Kind.PING))
            await asyncio.sleep(limit_s / _BEATS)
            silent = 0 if self._answered else silent + 1

    def lost(self) -> None:
        """The front end is gone, and with it everybody who waited for an answer through it."""
        self._closed = True
        for ticket in list(self._tickets.values()):
            ticket.cancel()
        self._tickets.clear()
        if self._traces is not None:
            self._traces.lose(self._owned.engine.clock.now_ns())

    # -- predictions

    def _on_shape(self, data: bytes, at: int) -> None:
        size, _, _, number, _, _ = HEAD.unpack_from(data, at)
        self._shapes[number] = RequestShape.parsed(document_at(data, at + HEAD.size, size - HEAD.size))

    def _on_request(self, data: bytes, at: int) -> None:
        size, _, flags, number, call, length, arrival_ns, deadline_ns = REQUEST_HEAD.unpack_from(data, at)
        shape, end = self._shapes[number], at + size
        at += REQUEST_HEAD.size
        trace = None
        if flags & TRACED:
            trace = self._opened(call, data[at : at + IDS_BYTES], arrival_ns)
            at += IDS_BYTES
        identity = ""
        if length:
            identity = data[at : at + length].decode("utf-8", "surrogatepass")
            at += padded(length)
        tensors = shape.tensors
        inputs: Sequence[Tensor]
        if tensors.packed is None:
            sizes, total = tensors.sizes_at(data, at)
            source, at = self._link.source(data, at + 8 * len(sizes), end, flags=flags, size=total)
            inputs = tensors.read(source, at, sizes)
        else:
            source, at = self._link.source(data, at, end, flags=flags, size=tensors.fixed_bytes)
            inputs = PackedTensors.cut(tensors.packed, source, at)
        request = shape.request(identity, inputs, arrival_ns, None if deadline_ns == NO_DEADLINE else deadline_ns)
        try:
            self._tickets[call] = self._owned.engine.infer(request, partial(self._answer, call), trace)
        except ServingError as error:
            self._fail(call, error)
        except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
            self._fail(call, unexpected(error, _log, "serving an inference request"))

    def _answer(self, call: int, outcome: InferResponse | ServingError) -> None:
        self._tickets.pop(call, None)
        if self._closed:
            return
        if isinstance(outcome, ServingError):
            self._fail(call, outcome)
            return
        if self._owned.access_log:
            self._send_timings(call, outcome)
        ride = outcome.outputs
        if type(ride) is Ride and not outcome.parameters:
            # Riders of one run are answered together: its outputs travel once.
            key = id(ride.run), ride.wanted
            group = self._runs.get(key)
            if group is None:
                group = self._runs[key] = RunGroup(outcome, ride)
                self._link.at_the_end(self._send_runs)
            if group.packable:
                group.riders += (call, ride.start, ride.stop)
                return
        link = self._link
        number, document = self._numbers.of(outcome)
        if document is not None:
            link.send(record(Kind.ANSWER_SHAPE, document, template=number))
        outputs = outcome.outputs
        buffers = [to_buffer(tensor) for tensor in outputs]
        parts, flags = link.payload(buffers)
        sizes = sizes_of(outputs, buffers)
        size = HEAD.size + len(sizes) + sum(map(len, parts))
        link.send((HEAD.pack(size, Kind.ANSWER, flags, number, call, 0), sizes, *parts))

    def _send_timings(self, call: int, outcome: InferResponse) -> None:
        timings = outcome.timings
        run_ns = timings.compute_input_ns + timings.compute_infer_ns + timings.compute_output_ns
        text = TIMINGS.pack(call, timings.rows, timings.batch_rows, max(timings.queue_ns, 0), max(run_ns, 0))
        self._link.send(record(Kind.TIMINGS, text, extra=1))

    def _send_runs(self) -> None:
        runs, self._runs = self._runs, {}
        for group in runs.values():
            for part in group.parts():
                self._send_run(group, part)

    def _send_run(self, group: RunGroup, part: RunPart) -> None:
        link = self._link
        specs = group.specs(part.rows)
        number, document = self._run_numbers.of(group.response, specs, part.rows, batches=group.batches)
        if document is not None:
            link.send(record(Kind.RUN_SHAPE, document, template=number))
        parts, flags = link.payload(part.buffers)
        riders = part.riders
        text = struct.pack(f"<{len(riders)}I", *riders)
        text += PADS[-len(text) & 7]
        size = HEAD.size + len(text) + sum(map(len, parts))
        link.send((HEAD.pack(size, Kind.RUN, flags, number, 0, len(riders) // 3), text, *parts))

    def _fail(self, call: int, error: ServingError) -> None:
        self._link.send(document_record(Kind.ERROR, document_of(error), call=call))

    # -- calls

    def _on_call(self, data: bytes, at: int) -> None:
        size, _, _, _, call, length, arrival_ns, deadline_ns = REQUEST_HEAD.unpack_from(data, at)
        end = at + size
        at += REQUEST_HEAD.size
        head = data[at : at + length]
        body = data[at + padded(length) : end]
        document = document_at(head, 0, length)
        trace = None
        match document:
            case {"traced": str(ids), **rest}:
                trace, document = self._opened(call, bytes.fromhex(ids), arrival_ns), rest
                head = dump(document)
        match document:
            case {"http": [str(), str(), list()]}:
                self._call_http(call, head, document["http"], body, arrival_ns, trace)
            case {"grpc": str(path)}:
                self._call_control(call, path, body)
            case {"infer": list(metadata), "streamed": bool(streamed)}:
                deadline = None if deadline_ns == NO_DEADLINE else deadline_ns
                self._call_infer(call, metadata, body, deadline_ns=deadline, streamed=streamed, trace=trace)
            case _:
                raise BrokenLink(f"a call to nobody: {str(document)[:100]}")

    def _opened(self, call: int, ids: bytes, arrival_ns: int) -> RequestTrace:
        if self._traces is None:
            raise BrokenLink("a traced request, while nothing is traced")
        return self._traces.open(call, ids, arrival_ns)

    def _on_span(self, data: bytes, at: int) -> None:
        if self._traces is None:
            raise BrokenLink("a span, while nothing is traced")
        self._traces.close(document_at(data, at + HEAD.size, HEAD.unpack_from(data, at)[5]))

    def _call_http(
        self, call: int, key: bytes, head: list[Any], body: bytes, arrival_ns: int, trace: RequestTrace | None
    ) -> None:
        route = self._routes.get(key)
        if route is None:
            method, path, headers = head
            assert self._owned.hot is not None
            names = {name.encode("latin-1"): value.encode("latin-1") for name, value in headers}
            route = self._owned.hot.route(method, path, names)
            if route is None:
                raise BrokenLink(f"{method} {path} is no hot route")
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            self._routes[key] = route
        answer = partial(self._answer_http, call)
        if isinstance(route, TracedRoute):
            ticket = route.hand_on(body, arrival_ns, answer, trace)
        else:
            ticket = route.start(body, arrival_ns, answer)
        if ticket is not None:
            self._tickets[call] = ticket

    def _answer_http(self, call: int, reply: HttpReply) -> None:
        self._tickets.pop(call, None)
        if self._closed:
            return
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in reply.headers]
        said = [reply.status, reply.content_type.decode("latin-1"), headers]
        if reply.facts is not None:
            said.append(reply.facts.to_list())
        self._link.send(document_record(Kind.RESULT, said, reply.parts, call=call))

    def _call_infer(
        self,
        call: int,
        metadata: list[Any],
        message: bytes,
        *,
        deadline_ns: int | None,
        streamed: bool,
        trace: RequestTrace | None,
    ) -> None:
        assert self._owned.grpc is not None
        pairs = [(name, value) for name, value in metadata]
        noted: list[PredictionFacts] = []
        ticket = self._owned.grpc.start(
            message,
            partial(self._answer_bytes, call, noted=noted),
            metadata=pairs,
            deadline_ns=deadline_ns,
            streamed=streamed,
            note=noted.append if self._owned.access_log else None,
            trace=trace,
        )
        if ticket is not None:
            self._tickets[call] = ticket

    def _call_control(self, call: int, path: str, message: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._run(call, path, message), name=f"call {path}")
        self._tickets[call] = _TaskTicket(task)

    async def _run(self, call: int, path: str, message: bytes) -> None:
        outcome: bytes | ServingError
        try:
            outcome = await self._owned.control[path](message)
        except ServingError as error:
            outcome = error
        except asyncio.CancelledError:
            self._tickets.pop(call, None)
            raise
        except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
            outcome = unexpected(error, _log, f"serving {path.rpartition('/')[2]}")
        self._answer_bytes(call, outcome)

    def _answer_bytes(self, call: int, outcome: bytes | ServingError, *, noted: Sequence[PredictionFacts] = ()) -> None:
        self._tickets.pop(call, None)
        if self._closed:
            return
        if isinstance(outcome, ServingError):
            self._fail(call, outcome)
        else:
            said = noted[0].to_list() if noted else None
            self._link.send(document_record(Kind.RESULT, said, (outcome,), call=call))

    def _on_cancel(self, data: bytes, at: int) -> None:
        ticket = self._tickets.get(HEAD.unpack_from(data, at)[4])
        if ticket is not None:
            ticket.cancel()

    # -- the front end itself

    def _on_log(self, data: bytes, at: int) -> None:
        size = HEAD.unpack_from(data, at)[0]
        log_relay.handle(document_at(data, at + HEAD.size, size - HEAD.size))

    def _on_refused(self, data: bytes, at: int) -> None:
        _, _, _, kind, _, stuck = HEAD.unpack_from(data, at)
        self._owned.engine.admission.refused_bytes += stuck
        if kind:
            self._owned.engine.refused(kind_of(kind))

    def _on_ready(self, _data: bytes, _at: int) -> None:
        self._ready()

    def _on_pong(self, _data: bytes, _at: int) -> None:
        self._answered = True


class _TaskTicket:
    """A task as a ticket."""

    __slots__ = ("_task",)

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        """Nobody waits for it."""
        self._task.cancel()
