"""gRPC in a front end: predictions are decoded here, everything else is handed over to the owner's handlers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from tensorquay.core.errors import ServingError
from tensorquay.core.facts import PredictionFacts
from tensorquay.core.predicting import Ticket
from tensorquay.core.request_trace import RequestTrace
from tensorquay.frontends.remote import Outcome, RemoteEngine
from tensorquay.frontends.traces import ids_of
from tensorquay.grpc_api.infer import Answer, InferHandler, Metadata, Note
from tensorquay.grpc_api.methods import CONTROL_PATHS, Method
from tensorquay.telemetry.trace_sampling import RequestSampler

_REGION = re.compile(rb"shared_memory")


class FrontInfer(InferHandler):
    """`InferHandler` that hands over what may name a shared-memory region.

    Args: regions: whether clients may use shared memory.
    """

    def __init__(
        self,
        engine: RemoteEngine,
        *,
        forward_metadata: re.Pattern[str] | None = None,
        regions: bool = False,
        sampler: RequestSampler | None = None,
    ) -> None:
        super().__init__(engine, forward_metadata=forward_metadata, sampler=sampler)
        self._remote = engine
        self._forwards = forward_metadata is not None
        self._regions = regions

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
        """See `InferHandler.start`."""
        if not self._regions or not _REGION.search(message):
            return super().start(
                message,
                answer,
                metadata=metadata,
                deadline_ns=deadline_ns,
                streamed=streamed,
                note=note,
                trace=trace,
            )
        pairs = [(name, value) for name, value in metadata if isinstance(value, str)] if self._forwards else []
        document: dict[str, object] = {"infer": pairs, "streamed": streamed}
        if trace is not None:
            document["traced"] = ids_of(trace).hex()
        try:
            return self._remote.call(
                document, message, partial(_answer, answer, note), deadline_ns=deadline_ns, trace=trace
            )
        except ServingError as error:
            self.refused(error)
            answer(error)
            return None


def control_methods(engine: RemoteEngine) -> Mapping[str, Method]:
    """Method path → coroutine that lets the owner serve it."""
    return {path: partial(_ask, engine, path) for path in CONTROL_PATHS}


async def _ask(engine: RemoteEngine, path: str, message: bytes) -> bytes:
    _, body = await engine.ask({"grpc": path}, message)
    return body


def _answer(answer: Answer, note: Note | None, outcome: Outcome) -> None:
    if isinstance(outcome, ServingError):
        answer(outcome)
        return
    said, body = outcome
    if note is not None and said is not None:
        note(PredictionFacts.from_list(said))
    answer(body)
