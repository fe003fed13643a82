"""An ASGI application over the hot routes and the control plane.

Prediction and health never pass FastAPI: its routing costs more than the prediction (docs/performance.md). On our own
transport the hot routes are served before they come here; over uvicorn everything does.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from tensorquay.core.clock import Clock
from tensorquay.core.errors import ServingError, Unavailable
from tensorquay.core.facts import PredictionFacts
from tensorquay.core.trace_context import join_repeated
from tensorquay.http_api.body import BodyBudget, ClientGone, Receive, Scope, Send, read_body
from tensorquay.protocol.status import http_status
from tensorquay.telemetry.unexpected import unexpected
from tensorquay.transport.access_log import LEFT, REFUSED, AccessLog
from tensorquay.transport.http_message import HotHandler, HotRoute, HttpReply, error_reply

_log = logging.getLogger("tensorquay.http")


class HttpDoor:
    """See the module.

    Args:
        hot: the routes served here.
        control: the ASGI application for all others.
        max_body_bytes, max_receiving_bytes: of one request, and of all that are being received.
        access_log: takes a line per request, when whatever carries this does not write them itself.
    """

    def __init__(
        self,
        hot: HotHandler,
        control: Any,
        *,
        clock: Clock,
        max_body_bytes: int,
        max_receiving_bytes: int,
        access_log: AccessLog | None = None,
    ) -> None:
        self._hot = hot
        self._control = control
        self._clock = clock
        self._max_body_bytes = max_body_bytes
        self._budget = BodyBudget(max_receiving_bytes)
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        arrival_ns = self._clock.now_ns()
        if self._access_log is None:
            await self._take(scope, receive, send, arrival_ns, None)
            return
        line = _Line(self._access_log, scope, arrival_ns, send)
        try:
            await self._take(scope, receive, line.send, arrival_ns, line)
        finally:
            line.write()

    async def _take(self, scope: Scope, receive: Receive, send: Send, arrival_ns: int, line: _Line | None) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        join_repeated(headers, scope["headers"])
        try:
            route = self._hot.route(scope["method"], scope["raw_path"].decode("latin-1"), headers)
            body = await self._body(receive, headers, route)
            if line is not None:
                line.request_bytes = len(body)
            if route is None:
                await self._to_control(scope, body, receive, send)
            else:
                await self._serve(route, body, arrival_ns, receive, send, line)
        except ClientGone:
            return
        except ServingError as error:
            await self._send(send, error_reply(error))

    async def _body(self, receive: Receive, headers: dict[bytes, bytes], route: HotRoute | None) -> bytes:
        try:
            return await read_body(receive, headers, limit=self._max_body_bytes, budget=self._budget)
        except ServingError as error:
            if route is not None:
                route.refused(http_status(error.kind))
            raise

    async def _serve(
        self, route: HotRoute, body: bytes, arrival_ns: int, receive: Receive, send: Send, line: _Line | None
    ) -> None:
        answered: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()

        def answer(reply: HttpReply) -> None:
            if line is not None:
                line.facts = reply.facts
            if not answered.done():
                answered.set_result(reply)

        ticket = route.start(body, arrival_ns, answer)
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
            # Only the end of the server cancels: the exit timeout has passed.
            ticket.cancel()
            await self._send(send, _stopped())
        finally:
            leaving.cancel()

    async def _to_control(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
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
        except asyncio.CancelledError:
            # As for predictions.
            if started:
                raise
            await self._send(send, _stopped())
        except Exception as error:
            if started:
                raise
            await self._send(send, error_reply(unexpected(error, _log, "serving a control request")))

    async def _send(self, send: Send, reply: HttpReply) -> None:
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", str(reply.length).encode()),
            *reply.headers,
        ]
        if self._hot.draining:
            # The client's next request goes to another server instead of a connection we are about to close.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = bytes(reply.parts[0]) if len(reply.parts) == 1 else b"".join(reply.parts)
        await send({"type": "http.response.body", "body": body})


class _Line:
    """The line that one request will have in the access log. Owner: the request's task."""

    def __init__(self, log: AccessLog, scope: Scope, begun_ns: int, send: Send) -> None:
        self._log = log
        self._scope = scope
        self._begun_ns = begun_ns
        self._send = send
        self._status = self._answer_bytes = self.request_bytes = 0
        self.facts: PredictionFacts | None = None

    async def send(self, message: Any) -> None:
        """As the `send` of ASGI, watched."""
        await self._send(message)
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._answer_bytes += len(message.get("body", b""))

    def write(self) -> None:
        """The request is over."""
        bodyless = self._scope["method"] == "HEAD"
        self._log.http(
            self._scope["method"],
            self._scope["raw_path"].decode("latin-1"),
            self._status or self._scope.get(REFUSED, LEFT),
            begun_ns=self._begun_ns,
            peer=self._scope.get("client"),
            sizes=(self.request_bytes, 0 if bodyless else self._answer_bytes),
            facts=self.facts,
        )


def _stopped() -> HttpReply:
    return error_reply(Unavailable("the server stopped before this request was served"))
