"""The metrics port: GET /metrics and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tensorquay.http_api.body import Receive, Scope, Send


class MetricsDoor:
    """An ASGI application. `render` gives the exposition and its content type."""

    def __init__(self, render: Callable[[], Awaitable[tuple[bytes, str]]]) -> None:
        self._render = render

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, content_type, body = 200, "text/plain; charset=utf-8", b""
        if scope["path"] != "/metrics":
            status, body = 404, b"not found: metrics are at /metrics\n"
        elif scope["method"] not in {"GET", "HEAD"}:
            status, body = 405, b"method not allowed: GET /metrics\n"
        else:
            body, content_type = await self._render()
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
