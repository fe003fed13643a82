"""The few calls front ends may make. Knows no HTTP, no gRPC, no ONNX Runtime.

Loop-confined. A prediction is a callback, not a coroutine: `infer` checks and admits, the batcher settles, `reply` is
called once. Everything else here is a look-up.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorquay.batching.rider import Outcome, Rider
from tensorquay.config.model import EffectiveConfig, InstanceKind
from tensorquay.core.classification import classify
from tensorquay.core.clock import Clock
from tensorquay.core.errors import (
    DeadlineExceeded,
    ErrorKind,
    NotFound,
    Overloaded,
    Rejection,
    ServingError,
    Unavailable,
)
from tensorquay.core.ids import parse_version
from tensorquay.core.messages import (
    NO_PARAMETERS,
    IndexEntry,
    InferRequest,
    InferResponse,
    ModelMetadata,
    ModelStatistics,
    Reply,
    RequestedOutput,
    ServerMetadata,
)
from tensorquay.core.packed import Part, Ride
from tensorquay.core.request_trace import RequestTrace
from tensorquay.core.signature import ShapeKey, Signature
from tensorquay.core.tensors import Tensor
from tensorquay.lifecycle.lease import ServedVersion
from tensorquay.lifecycle.manager import ModelManager
from tensorquay.shared_memory import SharedMemoryRegistry
from tensorquay.telemetry.log_settings import LogSettings
from tensorquay.telemetry.statistics import FailureReason, StatisticsTable
from tensorquay.telemetry.tracing import Trace, TraceRecorder
from tensorquay.telemetry.unexpected import unexpected

_log = logging.getLogger("tensorquay.engine")

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """What the whole server holds at once; beyond it requests are refused at the door. 0 switches a bound off."""

    max_requests: int = 0
    max_bytes: int = 0


@dataclass(slots=True)
class AdmissionCounters:
    """Requests and input bytes inside now, and refusals so far by bound. Loop-confined; owner: the engine."""

    requests: int = 0
    bytes: int = 0
    refused_requests: int = 0
    refused_bytes: int = 0


class InferenceEngine:
    """Predictions, metadata, control: everything a front end can ask for."""

    def __init__(
        self,
        manager: ModelManager,
        *,
        statistics: StatisticsTable,
        clock: Clock,
        identity: ServerMetadata,
        limits: AdmissionLimits,
        regions: SharedMemoryRegistry,
        traces: TraceRecorder,
        log_settings: LogSettings,
        strict_readiness: bool = True,
    ) -> None:
        self._manager = manager
        self._statistics = statistics
        self._clock = clock
        self._identity = identity
        self._limits = limits
        self._most_requests = limits.max_requests or sys.maxsize
        self._most_bytes = limits.max_bytes or sys.maxsize
        self._strict_readiness = strict_readiness
        self.draining = False
        """Whether shutdown has begun."""
        self._drained: asyncio.Future[None] | None = None
        self.admission = AdmissionCounters()
        self.regions = regions
        self.traces = traces
        self.log_settings = log_settings

    @property
    def clock(self) -> Clock:
        """The clock that deadlines are absolute on."""
        return self._clock

    # -- predictions

    def infer(self, request: InferRequest, reply: Reply, trace: RequestTrace | None = None) -> Ticket:
        """Accept `request`; `reply` is called exactly once, later, on the loop.

        Args: trace: of a sampled request, which its door ends.
        Raises: ServingError when it is refused; `reply` is then never called and nothing was accepted.
        """
        served: ServedVersion | None = None
        try:
            if self.draining or request.deadline_ns is not None:
                self._refuse_if_closed(request)
            version = parse_version(request.model_version) if request.model_version else None
            served = self._manager.acquire(request.model_name, version)
            return self._submit(served, request, reply, trace)
        except ServingError as error:
            if trace is not None:
                trace.asks(request.model_name, request.model_version, request.id)
            if served is None:
                self.refused(error.kind)
            else:
                self._count_failure(served, error, self._clock.now_ns() - request.arrival_ns)
                self._manager.release(served)
            raise error.for_request(request.id) from error
        except Exception:
            # Our bug: the edge words it, but the lease must not stay behind, and it was a failure to somebody.
            bug = ServingError("internal error")
            if served is None:
                self.refused(bug.kind)
            else:
                self._count_failure(served, bug, self._clock.now_ns() - request.arrival_ns)
                self._manager.release(served)
            raise

    def refused(self, kind: ErrorKind) -> None:
        """See `Predictor.refused`."""
        self._statistics.refused(kind)

    @staticmethod
    def _count_failure(served: ServedVersion, error: ServingError, total_ns: int) -> None:
        reason = _reason(error)
        rejection = error.rejection
        if rejection is None and reason is FailureReason.REJECTED:
            rejection = Rejection.OTHER
        served.stats.request_failed(reason, total_ns, rejection)

    async def infer_async(self, request: InferRequest) -> InferResponse:
        """`infer` for coroutines. Cancelling the caller cancels the request.

        Raises: ServingError.
        """
        future: asyncio.Future[InferResponse | ServingError] = asyncio.get_running_loop().create_future()

        def reply(outcome: InferResponse | ServingError) -> None:
            if not future.done():
                future.set_result(outcome)

        ticket = self.infer(request, reply)
        try:
            outcome = await future
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    def signature(self, name: str, version: str) -> Signature:
        """What a version takes and gives: front ends need it to read raw binary requests.

        Raises: NotFound, Unavailable, InvalidArgument.
        """
        return self._manager.lookup(name, parse_version(version)).signature

    def _refuse_if_closed(self, request: InferRequest) -> None:
        if self.draining:
            raise Unavailable("the server is shutting down and has stopped accepting new requests")
        if request.deadline_ns is not None and request.deadline_ns <= self._clock.now_ns():
            raise DeadlineExceeded("Deadline Exceeded: the request's deadline had passed when it arrived")

    def _submit(self, served: ServedVersion, request: InferRequest, reply: Reply, spans: RequestTrace | None) -> Ticket:
        signature = served.signature
        arrays, rows, key, byte_size = signature.check(request.inputs, request.layout)
        asked = request.outputs
        wanted = None if asked is None else tuple([signature.output_index(output.name) for output in asked])
        inside = self.admission
        if inside.requests >= self._most_requests or inside.bytes + byte_size > self._most_bytes:
            self._admit(served, rows, byte_size)
        ticket = Ticket(self, served, request, reply, arrays, rows, key, byte_size, wanted)
        if spans is not None:
            ticket.trace = spans
            spans.asks(request.model_name, request.model_version, request.id)
            spans.accepted(served.version_text, served.loaded.properties.get("providers", ""), rows)
        elif self.traces.enabled:
            ticket.trace = self._begin_trace(served, request)
        served.batcher.submit(ticket)
        # Counted only now: a full queue raises above, and what was not accepted must not be released.
        inside.requests += 1
        inside.bytes += byte_size
        return ticket

    def _begin_trace(self, served: ServedVersion, request: InferRequest) -> Trace | None:
        trace = self.traces.sample(request.model_name, served.id.version, request.id)
        if trace is not None:
            trace.event("REQUEST_START", request.arrival_ns)
            trace.event("QUEUE_START", self._clock.now_ns())
        return trace

    def _admit(self, served: ServedVersion, rows: int, byte_size: int) -> None:
        limits, inside = self._limits, self.admission
        if limits.max_requests and inside.requests >= limits.max_requests:
            inside.refused_requests += 1
            served.batcher.turned_away(rows)
            raise Overloaded(
                f"server overloaded: {inside.requests} requests are being served, at most {limits.max_requests} may; "
                "retry after a pause (--max-inflight-requests)",
                facts={"limit": limits.max_requests},
                retry_after_s=_RETRY_AFTER_S,
                rejection=Rejection.INFLIGHT_REQUESTS,
            )
        if limits.max_bytes and inside.bytes and inside.bytes + byte_size > limits.max_bytes:
            inside.refused_bytes += 1
            served.batcher.turned_away(rows)
            raise Overloaded(
                f"server overloaded: {inside.bytes} bytes of inputs are being served and this request brings "
                f"{byte_size}, at most {limits.max_bytes} may; retry after a pause (--max-inflight-bytes)",
                facts={"limit": limits.max_bytes, "got": byte_size},
                retry_after_s=_RETRY_AFTER_S,
                rejection=Rejection.INFLIGHT_BYTES,
            )

    def _last_has_left(self) -> None:
        """Every accepted request was answered, and shutdown has begun."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- health and description

    def live(self) -> bool:
        """Whether the process serves at all; never false because of a load."""
        return True

    def ready(self) -> bool:
        """Whether traffic should come here."""
        return not self.draining and self._manager.ready(strict=self._strict_readiness)

    def model_ready(self, name: str, version: str) -> bool:
        """Whether that version (or the policy's default) would answer now.

        Raises: InvalidArgument for a version that is none.
        """
        if self.draining:
            return False
        return self._manager.is_ready(name, parse_version(version))

    def server_metadata(self) -> ServerMetadata:
        """Name, version, extensions."""
        return self._identity

    def model_metadata(self, name: str, version: str) -> ModelMetadata:
        """Inputs, outputs and the truth about where the version runs.

        Raises: NotFound, Unavailable, InvalidArgument.
        """
        number = parse_version(version)
        served = self._manager.lookup(name, number)
        versions = self._manager.ready_versions(name) if number is None else (served.id.version,)
        return served.metadata(versions)

    def model_config(self, name: str, version: str) -> tuple[EffectiveConfig, InstanceKind]:
        """The configuration in force, and where its instances really are.

        Raises: NotFound, Unavailable, InvalidArgument.
        """
        served = self._manager.lookup(name, parse_version(version))
        return served.effective, served.loaded.kind

    def model_files(self, name: str, version: str) -> Path:
        """The folder of a served version's model file, for what an import left beside it.

        Raises: NotFound, Unavailable, InvalidArgument.
        """
        return self._manager.lookup(name, parse_version(version)).loaded.files

    def statistics(self, name: str = "", version: str = "") -> tuple[ModelStatistics, ...]:
        """Counters of one version, of all ready versions of a model, or of all models.

        Raises: NotFound, Unavailable, InvalidArgument.
        """
        number = parse_version(version)
        if name and number is not None:
            served: tuple[ServedVersion, ...] = (self._manager.lookup(name, number),)
        elif name:
            self._manager.lookup(name, None)
            served = tuple(self._manager.lookup(name, each) for each in self._manager.ready_versions(name))
        else:
            served = self._manager.all_ready()
        return tuple(each.stats.snapshot() for each in served)

    # -- repository

    async def repository_index(self, *, ready_only: bool) -> tuple[IndexEntry, ...]:
        """Every model and version known, with state and reason."""
        return await self._manager.fresh_index(ready_only=ready_only)

    def require_known(self, name: str) -> None:
        """Nothing, if there is a model of that name, loaded or not.

        Raises: NotFound.
        """
        if not self._manager.knows(name):
            raise NotFound(f"Request for unknown model: '{name:.128}' is not found")

    async def load_model(self, name: str, config: str | None, files: Mapping[str, bytes]) -> None:
        """Load or reload a model (explicit control mode).

        Raises: Unavailable in another mode or while shutting down, InvalidArgument, NotFound, ModelFailed.
        """
        if self.draining:
            raise Unavailable("the server is shutting down and loads nothing any more")
        await self._manager.load(name, config, files)

    async def unload_model(self, name: str, *, unload_dependents: bool) -> None:
        """Begin to unload a model; returns before its memory is free (the index tells).

        Raises: as `load_model`.
        """
        await self._manager.unload(name, unload_dependents=unload_dependents)

    # -- the end

    def begin_drain(self) -> None:
        """Not ready any more, and no new predictions; what was accepted goes on."""
        self.draining = True
        for served in self._manager.all_ready():
            served.batcher.hurry()

    async def drained(self) -> None:
        """Wait until every accepted request was answered. The caller bounds it."""
        if self.admission.requests == 0:
            return
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._drained)


class Ticket(Rider):
    """An accepted request: what rides, what is answered when it has ridden, and what cancels it. One object for all."""

    __slots__ = ("_byte_size", "_engine", "_reply", "_request", "_served")

    def __init__(
        self,
        engine: InferenceEngine,
        served: ServedVersion,
        request: InferRequest,
        reply: Reply,
        arrays: Sequence[Part | None],
        rows: int,
        key: ShapeKey,
        byte_size: int,
        wanted: tuple[int, ...] | None,
    ) -> None:
        super().__init__(arrays, rows, key, wanted, request.priority, request.timeout_us, request.deadline_ns)
        self._engine = engine
        self._served = served
        self._request = request
        self._reply = reply
        self._byte_size = byte_size

    def cancel(self) -> None:
        """The client left. The reply is called with a Cancelled error unless it was called already."""
        self._served.batcher.cancel(self)

    def settle(self, outcome: Outcome) -> None:
        """Called once by the batcher: book the request out, then answer it."""
        engine, served, request = self._engine, self._served, self._request
        answer: InferResponse | ServingError
        if type(outcome) is Ride and request.outputs is None:
            # Nothing is left that could fail.
            answer = InferResponse(request.model_name, served.version_text, request.id, outcome, outcome, NO_PARAMETERS)
        else:
            answer = self._answer(outcome)
        now_ns = engine._clock.now_ns()
        total_ns = now_ns - request.arrival_ns
        if type(outcome) is Ride and type(answer) is InferResponse:
            run = outcome.run
            served.stats.request_succeeded(outcome.queue_ns, run.input_ns, run.infer_ns, run.output_ns, total_ns)
        else:
            assert isinstance(answer, ServingError)
            engine._count_failure(served, answer, total_ns)
            answer = answer.for_request(request.id)
        if self.trace is not None:
            self._finish_trace(self.trace, answer, now_ns)
        inside = engine.admission
        inside.requests -= 1
        inside.bytes -= self._byte_size
        served.release()
        if not inside.requests and engine._drained is not None:
            engine._last_has_left()
        self._reply(answer)

    def _answer(self, outcome: Outcome) -> InferResponse | ServingError:
        if isinstance(outcome, ServingError):
            return outcome
        if not isinstance(outcome, Ride):
            return unexpected(outcome, _log, f"running model '{self._served.id.name}'")
        try:
            return self._response(outcome)
        except ServingError as error:
            return error
        except Exception as error:  # noqa: BLE001  whatever a postprocessing bug raises, the rider must be answered
            return unexpected(error, _log, f"answering for model '{self._served.id.name}'")

    def _response(self, ride: Ride) -> InferResponse:
        request, served = self._request, self._served
        outputs: Sequence[Tensor] = ride
        if request.outputs is not None and any(asked.classification for asked in request.outputs):
            outputs = self._classified(ride, request.outputs)
        return InferResponse(request.model_name, served.version_text, request.id, outputs, ride, NO_PARAMETERS)

    def _classified(self, ride: Ride, asked: Sequence[RequestedOutput]) -> list[Tensor]:
        signature = self._served.signature
        return [
            classify(
                tensor,
                each.classification,
                signature.outputs[signature.output_index(tensor.name)].labels,
                batches=signature.batches,
            )
            if each.classification
            else tensor
            for tensor, each in zip(ride, asked, strict=True)
        ]

    def _finish_trace(self, trace: Trace | RequestTrace, answer: InferResponse | ServingError, now_ns: int) -> None:
        if isinstance(trace, RequestTrace):
            trace.waited(self.pieces[0].enqueued_ns if self.pieces else self.enqueued_ns)
            return
        if isinstance(answer, InferResponse):
            timings = answer.timings
            start_ns = self._request.arrival_ns + timings.queue_ns
            input_end_ns = start_ns + timings.compute_input_ns
            output_start_ns = input_end_ns + timings.compute_infer_ns
            trace.event("COMPUTE_START", start_ns)
            trace.event("COMPUTE_INPUT_END", input_end_ns)
            trace.event("COMPUTE_OUTPUT_START", output_start_ns)
            trace.event("COMPUTE_END", output_start_ns + timings.compute_output_ns)
        trace.event("REQUEST_END", now_ns)
        trace.finish()


def _reason(error: ServingError) -> FailureReason:
    match error.kind:
        case ErrorKind.CANCELLED | ErrorKind.DEADLINE_EXCEEDED:
            return FailureReason.CANCELED
        case ErrorKind.UNAVAILABLE | ErrorKind.RESOURCE_EXHAUSTED:
            return FailureReason.REJECTED
        case ErrorKind.INTERNAL:
            return FailureReason.BACKEND
        case _:
            return FailureReason.OTHER
