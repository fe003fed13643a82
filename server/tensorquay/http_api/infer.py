"""POST …/infer: bytes in, bytes out, by callback.

Knows the V2 headers and content codings; the codecs are in `protocol`, the prediction in `engine`. Whatever carries
the bytes only reads a request and writes the answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import partial

from tensorquay.core.errors import Cancelled, ServingError
from tensorquay.core.facts import PredictionFacts
from tensorquay.core.messages import InferRequest, InferResponse, Reply
from tensorquay.core.predicting import Predictor
from tensorquay.core.request_trace import RequestTrace
from tensorquay.core.trace_context import TRACEPARENT, TRACESTATE
from tensorquay.http_api.answers import AnswerShapes
from tensorquay.http_api.routes import ModelRoute
from tensorquay.protocol import compression, v2_binary, v2_json
from tensorquay.protocol.options import WireOptions
from tensorquay.protocol.repeats import JsonRequests
from tensorquay.protocol.status import kind_of_refusal
from tensorquay.telemetry.unexpected import unexpected
from tensorquay.transport.coding import (
    COMPRESS_BESIDE_BYTES,
    DECOMPRESS_BESIDE_BYTES,
    CodingThread,
    outcome_of,
)
from tensorquay.transport.http_message import JSON, OCTETS, Answer, Cancellable, HttpReply, error_reply

_log = logging.getLogger("tensorquay.http")

_HEADER_LENGTH = b"inference-header-content-length"
_MAX_DIGITS = 19
_COMPRESS_FROM_BYTES = 256
"""Smaller answers grow by compression."""


class InferHandler:
    """What all inference routes have in common.

    Args:
        max_body_bytes: most bytes of a body after decompression (`--http-max-input-size`).
        forward_headers: headers whose names match become string parameters of the request.
        access_log: whether replies carry what it tells about their predictions.
    """

    def __init__(
        self,
        engine: Predictor,
        *,
        max_body_bytes: int,
        forward_headers: re.Pattern[str] | None = None,
        access_log: bool = False,
    ) -> None:
        self.engine = engine
        self.max_body_bytes = max_body_bytes
        self._forward_headers = forward_headers
        self.access_log = access_log
        self.coding = CodingThread()

    def route(self, route: ModelRoute, headers: Mapping[bytes, bytes]) -> InferRoute:
        """The route of requests with these headers.

        Raises: InvalidArgument for a content coding that is not spoken.
        """
        return InferRoute(self, route, headers, self._forwarded(headers))

    def _forwarded(self, headers: Mapping[bytes, bytes]) -> Mapping[str, str]:
        if self._forward_headers is None:
            return {}
        pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.items())
        return {name: value for name, value in pairs if self._forward_headers.fullmatch(name)}


class InferRoute:
    """Inference requests to one model (and version) with one set of headers."""

    __slots__ = (
        "_answers",
        "_coding",
        "_declared",
        "_encoding",
        "_forwarded",
        "_handler",
        "_model",
        "_requests",
        "_version",
        "tensors_at",
    )

    def __init__(
        self, handler: InferHandler, route: ModelRoute, headers: Mapping[bytes, bytes], forwarded: Mapping[str, str]
    ) -> None:
        self._handler = handler
        self._model = route.model
        self._version = route.version
        self._declared = _text(headers.get(_HEADER_LENGTH))
        self._encoding = compression.content_encoding(_text(headers.get(b"content-encoding")))
        self._coding = compression.accepted_encoding(_text(headers.get(b"accept-encoding")))
        self._forwarded = forwarded
        declared = self._declared or ""
        # Only a hint for the transport; what is no number is refused with its request.
        self.tensors_at = int(declared) if declared.isdecimal() and len(declared) < _MAX_DIGITS else 0
        self._requests = JsonRequests(route.model, route.version)
        self._answers = AnswerShapes()

    def start(
        self, body: bytes | memoryview, arrival_ns: int, answer: Answer, trace: RequestTrace | None = None
    ) -> Cancellable | None:
        """See `HotRoute.start`. `trace`: of a sampled request, which the caller ends."""
        coding = self._encoding
        if coding is None:
            return self.begin(body, arrival_ns, answer, trace)
        unpack = partial(compression.decompress, body, coding, self._handler.max_body_bytes)
        if len(body) < DECOMPRESS_BESIDE_BYTES:
            return self.begin(outcome_of(unpack), arrival_ns, answer, trace)
        unpacking = _Unpacking(self, arrival_ns, answer, trace)
        try:
            self._handler.coding.run(unpack, unpacking.done, size=len(body))
        except ServingError as error:
            self._handler.engine.refused(error.kind)
            answer(error_reply(error))
            return None
        return unpacking

    def refused(self, status: int) -> None:
        """See `HotRoute.refused`."""
        self._handler.engine.refused(kind_of_refusal(status))

    def begin(
        self, body: bytes | memoryview | Exception, arrival_ns: int, answer: Answer, trace: RequestTrace | None
    ) -> Cancellable | None:
        """As `start`, with a body that has no coding any more, or what went wrong with it."""
        noted: _NotedAnswer | None = None
        if self._handler.access_log:
            facts = PredictionFacts(self._model, self._version)
            facts.trace_id = "" if trace is None else trace.trace_id.hex()
            answer = noted = _NotedAnswer(answer, facts)
        asked = False
        try:
            if isinstance(body, Exception):
                raise body
            request, options = self._decode(body, arrival_ns)
            reply: Reply = partial(self._reply, options, answer)
            if noted is not None:
                reply = noted.of(request, reply)
            asked = True
            return self._handler.engine.infer(request, reply, trace)
        except ServingError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
            failure = unexpected(error, _log, "serving an inference request")
        if not asked:
            self._handler.engine.refused(failure.kind)
        answer(error_reply(failure))
        return None

    def _decode(self, body: bytes | memoryview, arrival_ns: int) -> tuple[InferRequest, WireOptions]:
        engine = self._handler.engine
        shm = engine.regions if engine.regions.enabled else None
        declared = self._declared
        if declared is None:
            header_length = None
        elif 0 < self.tensors_at <= len(body):
            header_length = self.tensors_at  # a number, and a possible one
        else:
            header_length = v2_binary.parse_header_length(declared, len(body))
        if header_length == 0 or not body:
            signature = engine.signature(self._model, self._version)
            request, options = v2_binary.decode_raw(self._model, self._version, body, signature, arrival_ns=arrival_ns)
        else:
            request, options = self._requests.decode(body, header_length, shm=shm, arrival_ns=arrival_ns)
        if self._forwarded:
            request.parameters = {**request.parameters, **self._forwarded}
        return request, options

    def _reply(self, options: WireOptions, answer: Answer, outcome: InferResponse | ServingError) -> None:
        try:
            reply = None
            if self._coding is None and isinstance(outcome, InferResponse):
                reply = self._answers.fill(outcome, options)
            if reply is None:
                reply = self._encode(options, outcome)
                if self._coding is not None and reply.length >= _COMPRESS_FROM_BYTES and reply.status == 200:
                    self._compress(reply, self._coding, answer)
                    return
        except ServingError as error:
            reply = error_reply(error)
        except Exception as error:  # noqa: BLE001  see `begin`
            reply = error_reply(unexpected(error, _log, "answering an inference request"))
        answer(reply)

    def _encode(self, options: WireOptions, outcome: InferResponse | ServingError) -> HttpReply:
        if isinstance(outcome, ServingError):
            return error_reply(outcome)
        regions = self._handler.engine.regions
        parts, header_length = v2_json.encode_infer(outcome, options, shm=regions if regions.enabled else None)
        headers: list[tuple[bytes, bytes]] = []
        if header_length is not None:
            headers.append((_HEADER_LENGTH, str(header_length).encode()))
        reply = HttpReply(200, parts, JSON if header_length is None else OCTETS, headers)
        if self._coding is None:
            self._answers.keep(outcome, options, reply)
        return reply

    def _compress(self, reply: HttpReply, coding: str, answer: Answer) -> None:
        """Answer with `reply` in its coding. Raises: Overloaded."""

        def compressed(outcome: bytes | Exception) -> None:
            if isinstance(outcome, Exception):
                answer(error_reply(unexpected(outcome, _log, "compressing an answer")))
                return
            headers = [*reply.headers, (b"content-encoding", coding.encode())]
            answer(HttpReply(reply.status, [outcome], reply.content_type, headers))

        work = partial(compression.compress, reply.parts, coding)
        if reply.length < COMPRESS_BESIDE_BYTES:
            compressed(work())
        else:
            self._handler.coding.run(work, compressed, size=reply.length)


class _NotedAnswer:
    """An answer that takes the facts of its prediction along, for the access log."""

    __slots__ = ("_answer", "_facts")

    def __init__(self, answer: Answer, facts: PredictionFacts) -> None:
        self._answer = answer
        self._facts = facts

    def of(self, request: InferRequest, reply: Reply) -> Reply:
        """`reply`, which then lets the facts know first; they are those of `request` from now on."""
        self._facts.asks(request)
        return self._facts.completed_by(reply)

    def __call__(self, reply: HttpReply) -> None:
        reply.facts = self._facts
        self._answer(reply)


class _Unpacking:
    """A request whose body is being decompressed; then it is what its prediction is."""

    __slots__ = ("_answer", "_arrival_ns", "_left", "_route", "_ticket", "_trace")

    def __init__(self, route: InferRoute, arrival_ns: int, answer: Answer, trace: RequestTrace | None) -> None:
        self._route = route
        self._arrival_ns = arrival_ns
        self._answer = answer
        self._trace = trace
        self._left = False
        self._ticket: Cancellable | None = None

    def cancel(self) -> None:
        """The client left."""
        self._left = True
        if self._ticket is not None:
            self._ticket.cancel()

    def done(self, body: bytes | memoryview | Exception) -> None:
        """It has no coding any more, or is damaged."""
        if self._left:
            body = Cancelled("the client cancelled the request")
        self._ticket = self._route.begin(body, self._arrival_ns, self._answer, self._trace)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def context_apart(forwarded: re.Pattern[str] | None) -> bool:
    """Whether the caller's span may be taken out of a head: not when it is one of the headers that are forwarded."""
    return forwarded is None or not any(map(forwarded.fullmatch, (TRACEPARENT, TRACESTATE)))
