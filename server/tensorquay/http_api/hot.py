"""The routes a client calls per prediction: infer, health, model ready. Found once per head, whatever carries them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson

from tensorquay.core.errors import ServingError
from tensorquay.core.trace_context import of_headers
from tensorquay.engine import InferenceEngine
from tensorquay.http_api.access import Restrictions
from tensorquay.http_api.browsers import Browsers
from tensorquay.http_api.infer import InferHandler
from tensorquay.http_api.routes import HOT_HEALTH, ModelRoute, match_model
from tensorquay.telemetry.trace_sampling import RequestSampler
from tensorquay.transport.http_message import Answer, Cancellable, HotRoute, HttpReply, error_reply
from tensorquay.transport.traced_route import TracedRoute

_READING = frozenset({"GET", "HEAD"})  # some load balancers probe with HEAD


class HotRoutes:
    """See `HotHandler`.

    Args:
        restricted: access category → (header name, value) that a request must carry.
        browsers: which web pages may ask for more than reading; None: those of this server.
        sampler: begins traces; None while spans are off.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        infer: InferHandler,
        *,
        restricted: Mapping[str, tuple[str, str]],
        browsers: Browsers | None = None,
        sampler: RequestSampler | None = None,
    ) -> None:
        self._engine = engine
        self._infer = infer
        self._restrictions = Restrictions(restricted)
        self._browsers = browsers or Browsers()
        self._sampler = sampler

    @property
    def draining(self) -> bool:
        """See `HotHandler.draining`."""
        return self._engine.draining

    def route(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> HotRoute | None:
        """See `HotHandler.route`. A request that may not pass has a route too: the one that says so."""
        try:
            self._browsers.check(method, path, headers)
            self._restrictions.check(path, headers)
            return self._find(method, path, headers)
        except ServingError as error:
            asked = match_model(path)
            infers = method == "POST" and asked is not None and asked.action == "infer"
            return _Fixed(error_reply(error), partial(self._engine.refused, error.kind) if infers else None)

    def _find(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> HotRoute | None:
        if path in HOT_HEALTH:
            return _Health(self._engine, path) if method in _READING else _method_not_allowed(b"GET, HEAD")
        route = match_model(path)
        if route is None:
            return None
        if route.action == "ready":
            return _ModelReady(self._engine, route) if method in _READING else _method_not_allowed(b"GET, HEAD")
        if method != "POST":
            return _method_not_allowed(b"POST")
        found = self._infer.route(route, headers)
        if self._sampler is None:
            return found
        context = of_headers(headers)
        return TracedRoute(found, self._sampler, route.model, route.version, context, clock=self._engine.clock)


class _Plain:
    """No inference request: nobody counts what the transport refuses of it."""

    tensors_at = 0

    def refused(self, status: int) -> None:
        """See `HotRoute.refused`."""


class _Fixed:
    """Always the same answer; `count` is called for each, when it is one to inference requests."""

    tensors_at = 0

    def __init__(self, reply: HttpReply, count: Callable[[], None] | None = None) -> None:
        self._reply = reply
        self._count = count

    def start(self, _body: Any, _arrival_ns: int, answer: Answer) -> Cancellable | None:
        self.refused(self._reply.status)
        answer(self._reply)
        return None

    def refused(self, _status: int) -> None:
        if self._count is not None:
            self._count()


class _Health(_Plain):
    """Live and ready. JSON bodies for those who read them; Triton's clients look at the status only."""

    def __init__(self, engine: InferenceEngine, path: str) -> None:
        live = path.endswith("live")
        self._holds = engine.live if live else engine.ready
        name = "live" if live else "ready"
        self._yes = HttpReply(200, (b'{"%s":true}' % name.encode(),))
        self._no = HttpReply(400, (b'{"%s":false}' % name.encode(),))

    def start(self, _body: Any, _arrival_ns: int, answer: Answer) -> Cancellable | None:
        answer(self._yes if self._holds() else self._no)
        return None


class _ModelReady(_Plain):
    def __init__(self, engine: InferenceEngine, route: ModelRoute) -> None:
        self._engine = engine
        self._route = route
        name = orjson.dumps(route.model.encode("utf-8", "replace").decode())
        self._yes = HttpReply(200, (b'{"name":' + name + b',"ready":true}',))
        self._no = HttpReply(400, (b'{"error":"Model version not ready"}',))

    def start(self, _body: Any, _arrival_ns: int, answer: Answer) -> Cancellable | None:
        try:
            ready = self._engine.model_ready(self._route.model, self._route.version)
        except ServingError as error:
            answer(error_reply(error))
        else:
            answer(self._yes if ready else self._no)
        return None


def _method_not_allowed(allowed: bytes) -> HotRoute:
    return _Fixed(HttpReply(405, (b'{"error":"Method Not Allowed"}',), headers=((b"allow", allowed),)))
