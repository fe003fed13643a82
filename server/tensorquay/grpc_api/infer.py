"""ModelInfer and ModelStreamInfer: message bytes in, message bytes out, by callback.

Knows no gRPC library: whatever carries the messages (grpcio today) feeds them in and writes what is emitted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeAlias

from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferResponse
from tensorquay.core.predicting import Predictor, Ticket
from tensorquay.protocol import v2_proto
from tensorquay.protocol.options import WireOptions
from tensorquay.protocol.repeats import ProtoRequests
from tensorquay.protocol.shared_memory import SharedMemory
from tensorquay.telemetry.unexpected import unexpected

_log = logging.getLogger("tensorquay.grpc")

Answer: TypeAlias = Callable[[bytes | ServingError], None]
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

MAX_STREAM_INFLIGHT = 1024
"""Requests of one stream being served at once; a faster sender is not read meanwhile (back-pressure)."""


class InferHandler:
    """Decodes, asks the engine, encodes.

    Args: forward_metadata: metadata whose keys match become string parameters of the request.
    """

    def __init__(self, engine: Predictor, *, forward_metadata: re.Pattern[str] | None = None) -> None:
        self._engine = engine
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
    ) -> Ticket | None:
        """Begin to serve a ModelInferRequest; `answer` is called exactly once, perhaps before this returns.

        Args: streamed: encode as ModelStreamInferResponse.
        Returns: a ticket to cancel it with, or None when it is answered already.
        """
        try:
            infer, options = self._requests.decode(message, shm=self.shm, arrival_ns=self._engine.clock.now_ns())
            infer.deadline_ns = deadline_ns
            if self._forward_metadata is not None:
                infer.parameters = {**infer.parameters, **self._forwarded(metadata)}
            return self._engine.infer(infer, partial(self._reply, options, answer, streamed))
        except ServingError as error:
            answer(error)
        except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
            answer(unexpected(error, _log, "serving ModelInfer"))
        return None

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
    ) -> None:
        self._handler = handler
        self._metadata = tuple(metadata)
        self._deadline_ns = deadline_ns
        self._emit = emit
        self._fail = fail
        self._idle = idle
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
        ticket = self._handler.start(
            message,
            partial(self._answered, number, message),
            metadata=self._metadata,
            deadline_ns=self._deadline_ns,
            streamed=True,
        )
        if number in self._tickets:
            self._tickets[number] = ticket

    def cancel(self) -> None:
        """The client left, or the stream failed: nothing more is emitted, what is in flight is cancelled."""
        self._ended = True
        for ticket in list(self._tickets.values()):
            if ticket is not None:
                ticket.cancel()

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
