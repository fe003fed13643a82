"""Runs an ASGI application on a bound socket with uvicorn, inside our loop and under our signals."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Generator
from typing import Any

import uvicorn

from tensorquay.transport.access_log import AccessLog
from tensorquay.transport.http1 import HttpConfig, HttpConnection
from tensorquay.transport.listen import BACKLOG

_KEEP_ALIVE_S = 75
"""Longer than the pause between two requests of a pooled client, shorter than common load balancers' 60-350 s limits
matter to us: a client that reuses a connection we just closed sees a reset."""


class _Server(uvicorn.Server):
    """Signals belong to `app.py`: one owner decides the order in which the rooms stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class AsgiServer:
    """One listening socket and the application behind it.

    Args:
        app: an ASGI 3 callable.
        bound: a bound socket; closed by `stop`.
        connections: most connections at once; further ones get 503. 0 for no bound.
        tls: a server context (`transport.tls`); None for plain HTTP.
        access: takes a line per request that is refused before it reaches the application, which logs all others.
    """

    def __init__(
        self,
        app: Any,
        bound: socket.socket,
        *,
        connections: int = 0,
        tls: ssl.SSLContext | None = None,
        access: AccessLog | None = None,
    ) -> None:
        config = HttpConfig(
            app,
            http=HttpConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            backlog=BACKLOG,
            limit_concurrency=connections or None,
        )
        # Loaded here, because loading would make a context of uvicorn's own settings.
        config.load()
        config.ssl = tls
        config.access = access
        self._server = _Server(config)
        self._socket = bound
        self._access = access
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections; returns when it does."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="asgi-server")
        while not self._server.started:
            # uvicorn has no event for this; its start-up takes a few turns of the loop.
            if self._task.done():
                self._task.result()
                return
            await asyncio.sleep(0)

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, close idle connections, give the others `grace_s` to finish."""
        if self._task is None:
            self._socket.close()
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        await self._task
        if self._access is not None:
            self._access.close()
