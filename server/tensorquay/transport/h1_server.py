"""Listens for HTTP/1.1 connections and owns what they share: bounds, buffers, the writes of a loop turn, time-outs."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from tensorquay.core.clock import Clock
from tensorquay.core.errors import DeadlineExceeded, Overloaded, Unavailable
from tensorquay.transport.asgi_exchange import AsgiApp
from tensorquay.transport.buffers import BufferPool
from tensorquay.transport.h1 import H1Connection
from tensorquay.transport.h1_access import H1Access
from tensorquay.transport.h1_head import HeadReader
from tensorquay.transport.http_message import HotHandler, HttpReply, error_reply
from tensorquay.transport.listen import BACKLOG
from tensorquay.transport.tls import listening

_STAGING_BYTES = 256 * 1024
_TICK_S = 1.0
_SLOWEST = 1024
"""Bytes a second that a request must bring on average once `slow_s` has passed: a trickle holds memory and a place."""


@dataclass(frozen=True, slots=True)
class H1Limits:
    """Bounds of the HTTP port. Times in whole seconds, checked once a second.

    `max_receiving_bytes`: bodies being received over all connections. `slow_s`: longest pause within a request.
    `idle_s`: longest pause between requests. `linger_s`: how long a client may take to close after its last answer.
    """

    max_body_bytes: int = 64 * 2**20
    max_receiving_bytes: int = 2**30
    max_connections: int = 10_000
    slow_s: int = 60
    idle_s: int = 400
    linger_s: int = 2


class H1Server:
    """One listening socket.

    Args:
        handler: serves the hot routes.
        app: the ASGI application for all others.
        bound: a bound socket; closed by `stop`.
        access_log: whether each request has a line in the access log, the application's too.
        tls: a server context (`transport.tls`); None for plain HTTP.
        apart: see `HeadReader`.
    """

    def __init__(
        self,
        handler: HotHandler,
        app: AsgiApp,
        bound: socket.socket,
        *,
        clock: Clock,
        limits: H1Limits,
        access_log: bool = False,
        tls: ssl.SSLContext | None = None,
        apart: bool = True,
    ) -> None:
        self.app = app
        self.clock = clock
        self.access = H1Access(clock) if access_log else None
        self.heads = HeadReader(handler, apart=apart)
        self.pool = BufferPool()
        self.staging = memoryview(bytearray(_STAGING_BYTES))
        self.max_body_bytes = limits.max_body_bytes
        self.scheme = "http" if tls is None else "https"
        self.address = bound.getsockname()[:2]
        self.tick = 0
        self.ending = False
        """`draining`, as it was when this turn of the loop began to write."""
        self._handler = handler
        self._limits = limits
        self._socket = bound
        self._tls = tls
        self._loop: asyncio.AbstractEventLoop
        self._listener: asyncio.Server | None = None
        self._connections: set[H1Connection] = set()
        self._lingering: dict[H1Connection, int] = {}
        self._receiving = 0
        self._dirty: list[H1Connection] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event = asyncio.Event()
        self._empty.set()

    async def start(self) -> None:
        """Accept connections; returns when it does."""
        self._loop = asyncio.get_running_loop()
        self._listener = await self._loop.create_server(
            lambda: H1Connection(self), sock=self._socket, backlog=BACKLOG, **listening(self._tls)
        )
        self._sweeping = self._loop.call_later(_TICK_S, self._sweep)

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, close idle connections, give the others `grace_s` to get their answers, then cut them."""
        if self._listener is None:
            self._socket.close()
            return
        self._listener.close()
        for connection in list(self._connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self.access is not None:
            self.access.close()

    # -- what connections ask

    @property
    def draining(self) -> bool:
        """Whether the server is stopping."""
        return self._handler.draining

    def admit(self, connection: H1Connection) -> bool:
        """Count `connection` in. False when there are too many; it is then refused, and still counted until it ends."""
        self._connections.add(connection)
        self._empty.clear()
        return len(self._connections) <= self._limits.max_connections

    def forget(self, connection: H1Connection) -> None:
        """`connection` has ended."""
        self._connections.discard(connection)
        self._lingering.pop(connection, None)
        if not self._connections:
            self._empty.set()

    def lingers(self, connection: H1Connection) -> None:
        """`connection` waits for its client to close."""
        self._lingering[connection] = self.tick

    def book(self, count: int) -> None:
        """Count `count` more bytes of bodies as being received; negative when they have been.

        Raises: Overloaded when they do not fit beside what others send.
        """
        limit = self._limits.max_receiving_bytes
        if count > 0 and self._receiving and self._receiving + count > limit:
            raise Overloaded(
                f"server overloaded: {self._receiving} bytes of requests are being received, at most {limit} may; "
                "retry after a pause (--max-inflight-bytes)",
                facts={"limit": limit},
                retry_after_s=1.0,
            )
        self._receiving += count

    def wants_flush(self, connection: H1Connection) -> None:
        """`connection` has something to write: once, at the end of this turn of the loop."""
        if not self._dirty:
            # Asked once per turn: whoever answers asks for every answer.
            self.ending = self._handler.draining
            self._loop.call_soon(self._flush)
        self._dirty.append(connection)

    def later(self, call: Callable[[], None]) -> None:
        """Run `call` in the next turn of the loop."""
        self._loop.call_soon(call)

    def stopping_reply(self) -> HttpReply:
        """The answer to a request that was only half sent when the server stopped."""
        return error_reply(Unavailable("the server is shutting down and has stopped accepting new requests"))

    # -- regular work

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()

    def _sweep(self) -> None:
        """Once a second: end connections whose clients are too slow. One timer for all of them."""
        self.tick += 1
        limits = self._limits
        for connection in list(self._connections):
            quiet_s = self.tick - connection.active_tick
            if connection.in_request:
                taken_s = self.tick - connection.begun_tick
                if quiet_s > limits.slow_s or taken_s > limits.slow_s + connection.progress_bytes // _SLOWEST:
                    late = DeadlineExceeded(
                        f"the request was not completed within {taken_s} s: its bytes come too slowly"
                    )
                    connection.time_out(HttpReply(408, error_reply(late).parts))
            elif connection.is_idle and quiet_s > limits.idle_s:
                connection.shutdown()
        for connection, since in list(self._lingering.items()):
            if self.tick - since > limits.linger_s:
                connection.abort()
        self._sweeping = self._loop.call_later(_TICK_S, self._sweep)
