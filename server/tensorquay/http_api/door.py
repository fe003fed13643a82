"""The HTTP port's ASGI application: the hot routes here, everything else to the control plane.

Prediction and health never pass FastAPI: its routing costs more than the prediction (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Mapping
from typing import Any

import orjson

from tensorquay.core.errors import ErrorKind, ServingError
from tensorquay.engine import InferenceEngine
from tensorquay.http_api.body import BodyBudget, ClientGone, Receive, Scope, Send, read_body
from tensorquay.http_api.infer import InferHandler
from tensorquay.http_api.message import HttpReply, HttpRequest, error_reply
from tensorquay.http_api.routes import HOT_HEALTH, ModelRoute, category_of, match_model
from tensorquay.telemetry.unexpected import unexpected

_log = logging.getLogger("tensorquay.http")
_access = logging.getLogger("tensorquay.access")

_LIVE, _NOT_LIVE = b'{"live":true}', b'{"live":false}'
_READY, _NOT_READY = b'{"ready":true}', b'{"ready":false}'


class HttpDoor:
    """An ASGI application.

    Args:
        control: the ASGI application for all other routes.
        restricted: access category → (header name, value) that a request must carry.
        access_log: whether each request is logged.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        infer: InferHandler,
        control: Any,
        *,
        max_body_bytes: int,
        max_receiving_bytes: int,
        restricted: Mapping[str, tuple[str, str]],
        access_log: bool,
    ) -> None:
        self._engine = engine
        self._infer = infer
        self._control = control
        self._max_body_bytes = max_body_bytes
        self._budget = BodyBudget(max_receiving_bytes)
        self._restricted = {
            category: (name.lower().encode("latin-1"), value.encode("latin-1"))
            for category, (name, value) in restricted.items()
        }
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["raw_path"].decode("latin-1")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        arrival_ns = self._engine.clock.now_ns()
        if self._access_log:
            send = self._logged(scope, send, arrival_ns)
        try:
            if self._restricted:
                self._check_access(path, headers)
            await self._dispatch(scope, path, headers, arrival_ns, receive, send)
        except ClientGone:
            return
        except ServingError as error:
            await self._send(send, error_reply(error))

    async def _dispatch(
        self, scope: Scope, path: str, headers: dict[bytes, bytes], arrival_ns: int, receive: Receive, send: Send
    ) -> None:
        method = scope["method"]
        if path in HOT_HEALTH:
            await self._send(send, self._health(path) if method == "GET" else _method_not_allowed(b"GET"))
            return
        route = match_model(path)
        if route is None:
            await self._to_control(scope, headers, receive, send)
        elif route.action == "ready":
            await self._send(send, self._model_ready(route) if method == "GET" else _method_not_allowed(b"GET"))
        elif method != "POST":
            await self._send(send, _method_not_allowed(b"POST"))
        else:
            body = await read_body(receive, headers, limit=self._max_body_bytes, budget=self._budget)
            await self._predict(route, HttpRequest(method, path, headers, body, arrival_ns), receive, send)

    async def _predict(self, route: ModelRoute, request: HttpRequest, receive: Receive, send: Send) -> None:
        answered: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()

        def answer(reply: HttpReply) -> None:
            if not answered.done():
                answered.set_result(reply)

        ticket = self._infer.start(route, request, answer)
        if ticket is None:
            await self._send(send, answered.result())
            return
        # The body is read, so the next message can only be the client leaving.
        leaving = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((answered, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                ticket.cancel()
                return
            await self._send(send, answered.result())
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        finally:
            leaving.cancel()

    async def _to_control(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        body = await read_body(receive, headers, limit=self._max_body_bytes, budget=self._budget)
        sent = False

        async def replay() -> dict[str, Any]:
            nonlocal sent
            if sent:
                return dict(await receive())
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._control(scope, replay, watched)
        except Exception as error:
            if started:
                raise
            await self._send(send, error_reply(unexpected(error, _log, "serving a control request")))

    def _health(self, path: str) -> HttpReply:
        if path.endswith("live"):
            live = self._engine.live()
            return HttpReply(200 if live else 400, (_LIVE if live else _NOT_LIVE,))
        ready = self._engine.ready()
        return HttpReply(200 if ready else 400, (_READY if ready else _NOT_READY,))

    def _model_ready(self, route: ModelRoute) -> HttpReply:
        if self._engine.model_ready(route.model, route.version):
            return HttpReply(200, (b'{"name":' + _json_string(route.model) + b',"ready":true}',))
        return HttpReply(400, (b'{"error":"Model version not ready"}',))

    def _check_access(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        needed = self._restricted.get(category_of(path) or "")
        if needed is None:
            return
        name, value = needed
        if not hmac.compare_digest(headers.get(name, b""), value):
            raise ServingError(
                f"This API is restricted, expecting header '{name.decode('latin-1')}'",
                kind=ErrorKind.PERMISSION_DENIED,
            )

    async def _send(self, send: Send, reply: HttpReply) -> None:
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", str(reply.length).encode()),
            *reply.headers,
        ]
        if self._engine.draining:
            # The client's next request goes to another server instead of a connection we are about to close.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = bytes(reply.parts[0]) if len(reply.parts) == 1 else b"".join(reply.parts)
        await send({"type": "http.response.body", "body": body})

    def _logged(self, scope: Scope, send: Send, arrival_ns: int) -> Send:
        async def logging_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                elapsed_us = (self._engine.clock.now_ns() - arrival_ns) // 1000
                client = scope.get("client") or ("-", 0)
                _access.info(
                    "%s %s %s %d us",
                    scope["method"],
                    scope["raw_path"].decode("latin-1"),
                    message["status"],
                    elapsed_us,
                    extra={"client": client[0], "status": message["status"], "elapsed_us": elapsed_us},
                )
            await send(message)

        return logging_send


def _method_not_allowed(allowed: bytes) -> HttpReply:
    return HttpReply(405, (b'{"error":"Method Not Allowed"}',), headers=((b"allow", allowed),))


def _json_string(text: str) -> bytes:
    return orjson.dumps(text.encode("utf-8", "replace").decode())
