"""The hot routes in a front end: predictions are decoded here, the other hot requests are handed over as they are.

Found once per head, as in the owner (`http_api/hot.py`). What needs something only the owner has is handed over whole:
health (its truth is the owner's), raw binary requests (they need the model's signature), and, when clients may use
shared memory, requests that may name a region.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from tensorquay.core.errors import ServingError
from tensorquay.core.facts import PredictionFacts
from tensorquay.core.request_trace import RequestTrace
from tensorquay.core.trace_context import of_headers
from tensorquay.frontends.remote import Outcome, RemoteEngine
from tensorquay.frontends.traces import ids_of
from tensorquay.http_api.access import Restrictions
from tensorquay.http_api.browsers import says_browser
from tensorquay.http_api.infer import InferHandler
from tensorquay.http_api.routes import HOT_HEALTH, ModelRoute, match_model
from tensorquay.protocol.status import kind_of_refusal
from tensorquay.telemetry.trace_sampling import RequestSampler
from tensorquay.transport.http_message import Answer, Cancellable, HotRoute, HttpReply, error_reply
from tensorquay.transport.traced_route import Traceable, TracedRoute

_REGION = re.compile(rb"shared_memory|\\u")
"""In JSON, a name is written as it is or with escapes; of those only \\u can stand for a letter."""

_HEADER_LENGTH = b"inference-header-content-length"


class FrontRoutes:
    """See `HotHandler`.

    Args:
        infer: decodes here.
        restricted: access category → (header name, value), for what is decoded here; the owner checks all else.
        regions: whether clients may use shared memory.
        sampler: begins traces; None while spans are off.
    """

    def __init__(
        self,
        engine: RemoteEngine,
        infer: InferHandler,
        *,
        restricted: Mapping[str, tuple[str, str]],
        regions: bool,
        sampler: RequestSampler | None = None,
    ) -> None:
        self._engine = engine
        self._infer = infer
        self._sampler = sampler
        self._restrictions = Restrictions(restricted)
        self._regions = regions

    @property
    def draining(self) -> bool:
        """See `HotHandler.draining`."""
        return self._engine.draining

    def route(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> HotRoute | None:
        """See `HotHandler.route`."""
        model = match_model(path)
        if model is None and path not in HOT_HEALTH:
            return None
        infers = model is not None and model.action == "infer" and method == "POST"
        handed = _HandedOver(self._engine, method, path, headers, infers=infers)
        if model is None or not infers:
            return handed
        found = self._decoded(model, path, headers, handed)
        if self._sampler is None:
            return found
        clock, context = self._engine.clock, of_headers(headers)
        return TracedRoute(found, self._sampler, model.model, model.version, context, clock=clock)

    def _decoded(self, model: ModelRoute, path: str, headers: Mapping[bytes, bytes], handed: _HandedOver) -> Traceable:
        """The route of an inference request: here as far as that can be, else `handed`."""
        if _is_raw(headers):
            return handed
        if says_browser(headers):
            return handed  # which pages may ask is the owner's to decide
        try:
            self._restrictions.check(path, headers)
            local = self._infer.route(model, headers)
        except ServingError:
            return handed  # the owner finds the same, and words it
        if self._regions and b"content-encoding" in headers:
            return handed
        if self._regions or not _has_body(headers):
            return _ByBody(local, handed, regions=self._regions)
        return local


class _HandedOver:
    """Requests with one head that the owner serves. `infers`: they are inference requests."""

    def __init__(
        self, engine: RemoteEngine, method: str, path: str, headers: Mapping[bytes, bytes], *, infers: bool
    ) -> None:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.items()]
        self._engine = engine
        self._infers = infers
        self._document: dict[str, object] = {"http": [method, path, pairs]}
        self.tensors_at = 0

    def start(
        self, body: bytes | memoryview, arrival_ns: int, answer: Answer, trace: RequestTrace | None = None
    ) -> Cancellable | None:
        """See `Traceable.start`."""
        document: dict[str, object] = self._document
        if trace is not None:
            document = {**document, "traced": ids_of(trace).hex()}
        try:
            return self._engine.call(document, body, partial(_reply, answer), arrival_ns=arrival_ns, trace=trace)
        except ServingError as error:
            if self._infers:
                self._engine.refused(error.kind)
            answer(error_reply(error))
            return None

    def refused(self, status: int) -> None:
        """See `HotRoute.refused`."""
        if self._infers:
            self._engine.refused(kind_of_refusal(status))


class _ByBody:
    """Predictions of which only the body says whether they can be decoded here."""

    def __init__(self, local: Traceable, handed: Traceable, *, regions: bool) -> None:
        self._local = local
        self._handed = handed
        self._regions = regions
        self.tensors_at = local.tensors_at

    def start(
        self, body: bytes | memoryview, arrival_ns: int, answer: Answer, trace: RequestTrace | None = None
    ) -> Cancellable | None:
        """See `Traceable.start`."""
        route = self._local
        if not body:
            route = self._handed
        elif self._regions:
            said = memoryview(body)[: self.tensors_at] if self.tensors_at else body
            if _REGION.search(said):
                route = self._handed
        return route.start(body, arrival_ns, answer, trace)

    def refused(self, status: int) -> None:
        """See `HotRoute.refused`."""
        self._local.refused(status)


def _is_raw(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the body is nothing but tensor bytes."""
    declared = headers.get(_HEADER_LENGTH, b"").strip(b" \t")
    return declared.isdigit() and not declared.strip(b"0")


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the head alone says that there is one."""
    return bool(headers.get(b"content-length", b"0").strip(b" \t0"))


def _reply(answer: Answer, outcome: Outcome) -> None:
    if isinstance(outcome, ServingError):
        answer(error_reply(outcome))
        return
    said: Any
    said, body = outcome
    status, content_type, headers, *noted = said
    pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
    reply = HttpReply(status, (body,), content_type.encode("latin-1"), pairs)
    if noted:
        reply.facts = PredictionFacts.from_list(noted[0])
    answer(reply)
