"""POST …/infer: bytes in, bytes out, by callback.

Knows the V2 headers and content codings; the codecs are in `protocol`, the prediction in `engine`. Whatever carries
the bytes (uvicorn today) only reads a request and writes the answer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferRequest, InferResponse
from tensorquay.engine import InferenceEngine, Ticket
from tensorquay.http_api.message import JSON, HttpReply, HttpRequest, error_reply
from tensorquay.http_api.routes import ModelRoute
from tensorquay.protocol import compression, v2_binary, v2_json
from tensorquay.protocol.options import WireOptions
from tensorquay.telemetry.unexpected import unexpected

_log = logging.getLogger("tensorquay.http")

Answer: TypeAlias = Callable[[HttpReply], None]

_HEADER_LENGTH = b"inference-header-content-length"
_OCTETS = b"application/octet-stream"
_COMPRESS_FROM_BYTES = 256
"""Smaller answers grow by compression."""


class InferHandler:
    """Decodes, asks the engine, encodes.

    Args:
        max_body_bytes: most bytes of a body after decompression (`--http-max-input-size`).
        forward_headers: headers whose names match become string parameters of the request.
    """

    def __init__(
        self, engine: InferenceEngine, *, max_body_bytes: int, forward_headers: re.Pattern[str] | None = None
    ) -> None:
        self._engine = engine
        self._max_body_bytes = max_body_bytes
        self._forward_headers = forward_headers

    def start(self, route: ModelRoute, request: HttpRequest, answer: Answer) -> Ticket | None:
        """Begin to serve `request`; `answer` is called exactly once, perhaps before this returns.

        Returns: a ticket to cancel it with, or None when it is answered already.
        """
        try:
            infer, options = self._decode(route, request)
            coding = compression.accepted_encoding(_text(request.headers.get(b"accept-encoding")))
            return self._engine.infer(infer, partial(self._reply, options, coding, answer))
        except ServingError as error:
            answer(error_reply(error))
        except Exception as error:  # noqa: BLE001  a bug of ours must answer this client and hurt no other
            answer(error_reply(unexpected(error, _log, "serving an inference request")))
        return None

    def _decode(self, route: ModelRoute, request: HttpRequest) -> tuple[InferRequest, WireOptions]:
        body = request.body
        encoding = compression.content_encoding(_text(request.headers.get(b"content-encoding")))
        if encoding is not None:
            body = compression.decompress(body, encoding, self._max_body_bytes)
        shm = self._engine.regions if self._engine.regions.enabled else None
        declared = _text(request.headers.get(_HEADER_LENGTH))
        header_length = None if declared is None else v2_binary.parse_header_length(declared, len(body))
        if header_length == 0 or not body:
            signature = self._engine.signature(route.model, route.version)
            infer, options = v2_binary.decode_raw(
                route.model, route.version, body, signature, arrival_ns=request.arrival_ns
            )
        else:
            infer, options = v2_json.decode_infer(
                route.model, route.version, body, header_length, shm=shm, arrival_ns=request.arrival_ns
            )
        if self._forward_headers is not None:
            infer.parameters = {**infer.parameters, **self._forwarded(request.headers)}
        return infer, options

    def _forwarded(self, headers: Mapping[bytes, bytes]) -> dict[str, str]:
        assert self._forward_headers is not None
        pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.items())
        return {name: value for name, value in pairs if self._forward_headers.fullmatch(name)}

    def _reply(
        self, options: WireOptions, coding: str | None, answer: Answer, outcome: InferResponse | ServingError
    ) -> None:
        try:
            answer(self._encode(options, coding, outcome))
        except ServingError as error:
            answer(error_reply(error))
        except Exception as error:  # noqa: BLE001  see `start`
            answer(error_reply(unexpected(error, _log, "serving an inference request")))

    def _encode(self, options: WireOptions, coding: str | None, outcome: InferResponse | ServingError) -> HttpReply:
        if isinstance(outcome, ServingError):
            return error_reply(outcome)
        shm = self._engine.regions if self._engine.regions.enabled else None
        parts, header_length = v2_json.encode_infer(outcome, options, shm=shm)
        headers: list[tuple[bytes, bytes]] = []
        if header_length is not None:
            headers.append((_HEADER_LENGTH, str(header_length).encode()))
        if coding is not None and sum(map(len, parts)) >= _COMPRESS_FROM_BYTES:
            parts = [compression.compress(parts, coding)]
            headers.append((b"content-encoding", coding.encode()))
        return HttpReply(200, parts, JSON if header_length is None else _OCTETS, headers)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
