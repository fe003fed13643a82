"""`/v2/live`: the live feed as server-sent events, and `/v2/live/now`: its newest figures.

A client that leaves is noticed at once; one that does not read is let go after a while, and until then costs what the
connection buffers, because nothing is collected for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tensorquay.http_api.body import Receive, Scope, Send
from tensorquay.live.feed import LiveFeed, Reader

_log = logging.getLogger("tensorquay.live")

PATIENCE_S = 20.0
"""How long a reader may take for one event."""

_LAST_WORD_S = 0.5

_HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    # nginx would collect the events before it passes them on.
    "x-accel-buffering": "no",
}


def live_routes(feed: LiveFeed, *, patience_s: float = PATIENCE_S) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["statistics"])

    @router.head("/v2/live", include_in_schema=False)
    @router.get("/v2/live", summary="Live figures as server-sent events")
    async def live(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=_HEADERS)
        return _Stream(feed, patience_s)

    @router.head("/v2/live/now", include_in_schema=False)
    @router.get("/v2/live/now", summary="The newest live figures")
    async def now() -> Response:
        return Response(feed.now(), media_type="application/json", headers={"cache-control": "no-store"})

    return router


class _Stream(Response):
    """The answer of one reader; ends with the feed, or when the client leaves or does not read."""

    media_type = "text/event-stream"

    def __init__(self, feed: LiveFeed, patience_s: float) -> None:
        self.status_code = 200
        self.background = None
        self._feed = feed
        self._patience_s = patience_s
        # Without a body there is no length either. The last answer of its connection: nobody waits for its end.
        self.init_headers({**_HEADERS, "connection": "close"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  ASGI's signature
        """Raises: Unavailable, before anything is sent, when nobody else may read."""
        reader = self._feed.read()
        leaving = asyncio.ensure_future(_left(receive))
        writing = asyncio.ensure_future(self._write(reader, send))
        over = asyncio.ensure_future(self._feed.over.wait())
        try:
            await asyncio.wait((leaving, writing, over), return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                # Who reads hears the last word; the server's end waits for nobody else.
                await asyncio.wait((leaving, writing), timeout=_LAST_WORD_S, return_when=asyncio.FIRST_COMPLETED)
            gone = leaving.done()
        finally:
            reader.leave()
            for task in (leaving, writing, over):
                task.cancel()
            _, written, _ = await asyncio.gather(leaving, writing, over, return_exceptions=True)
        if isinstance(written, Exception) and not isinstance(written, ConnectionError | TimeoutError):
            raise written
        if isinstance(written, TimeoutError):
            _log.info("a reader of the live figures did not take them for %.0f s and was let go", self._patience_s)
        if not gone:
            await _end(send)

    async def _write(self, reader: Reader, send: Send) -> None:
        """Raises: TimeoutError when the client does not read."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while (events := await reader.next()) is not None:
            async with asyncio.timeout(self._patience_s):
                await send({"type": "http.response.body", "body": events, "more_body": True})


async def _end(send: Send) -> None:
    """Complete the answer, if that can be done at once: the end of the connection says it too."""
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(_LAST_WORD_S):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    """Wait until the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
