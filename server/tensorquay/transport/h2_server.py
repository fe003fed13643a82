"""Listens for HTTP/2 connections that carry gRPC, and owns what they share: bounds, memory, deadlines, the sweep.

Loop-confined. Knows methods only as a table of routes. docs/http2.md has the rules a connection obeys.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial

from tensorquay.core.clock import Clock
from tensorquay.transport.access_log import AccessLog
from tensorquay.transport.buffers import BufferPool
from tensorquay.transport.coding import CodingThread
from tensorquay.transport.grpc_access import LoggedCall, LoggedRoute
from tensorquay.transport.grpc_call import Call
from tensorquay.transport.grpc_head import CallHead, read_head
from tensorquay.transport.grpc_inbox import ReceiveBudget
from tensorquay.transport.grpc_refusal import HttpRefused
from tensorquay.transport.h2_connection import Connection
from tensorquay.transport.h2_intake import ReceiveMemory
from tensorquay.transport.h2_limits import H2Limits
from tensorquay.transport.h2_reader import STAGING_BYTES
from tensorquay.transport.hpack_tables import Field
from tensorquay.transport.listen import BACKLOG, port_of
from tensorquay.transport.tls import listening

_HTTP_REFUSED = HttpRefused()

_SWEEP_S = 1.0
_SOONEST_NS = 5_000_000
"""Deadlines are looked after in one go, at most this often: clients measure theirs themselves."""
_WARNING_S = 1.0
"""How long a client may take to hear that we are shutting down before its new streams are ignored."""


class H2Server:
    """One listening socket, and the connections behind it.

    Args:
        resolve: completes the head of a call: its route, or its refusal.
        bound: a bound socket; closed by `stop`. None for tests, which make connections themselves.
        max_message_bytes: largest message either way.
        max_receiving_bytes: of unfinished messages, over all connections; 0 for no bound.
        tls: a server context as RFC 9113 §9.2 has it (`transport.tls`); None for cleartext.
        access: takes a line per call, while there is an access log.
    """

    def __init__(
        self,
        resolve: Callable[[CallHead], None],
        bound: socket.socket | None,
        *,
        clock: Clock,
        limits: H2Limits,
        max_message_bytes: int,
        max_receiving_bytes: int = 0,
        tls: ssl.SSLContext | None = None,
        access: AccessLog | None = None,
    ) -> None:
        self.clock = clock
        self.access = access
        self.make_call: Callable[[Connection, int, CallHead, int], Call] = (
            Call if access is None else partial(LoggedCall, access)
        )
        self.limits = limits
        self.memory = ReceiveMemory(
            memoryview(bytearray(STAGING_BYTES)),
            ReceiveBudget(max_receiving_bytes),
            BufferPool(),
            max_message_bytes,
            CodingThread(),
        )
        self._resolve = resolve
        self._socket = bound
        self._tls = tls
        self._listener: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._timed: set[Connection] = set()
        self._wake_ns: int | None = None
        self._deadlines: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._socket is not None
        return port_of(self._socket)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    async def start(self) -> None:
        """Accept connections."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self, loop), sock=self._socket, backlog=BACKLOG, **listening(self._tls)
        )

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let calls under way finish for `grace_s`, then cut them."""
        if self._listener is not None:
            self._listener.close()
        elif self._socket is not None:
            self._socket.close()
        deadline_s = asyncio.get_running_loop().time() + grace_s
        steps: Sequence[tuple[Callable[[Connection], None], float]] = (
            (Connection.warn, min(_WARNING_S, grace_s)),
            (Connection.drain, grace_s),
            (Connection.cut, self.limits.linger_s),
            (Connection.abort, _SWEEP_S),
        )
        for step, patience_s in steps:
            for connection in list(self._connections):
                step(connection)
            left_s = max(deadline_s - asyncio.get_running_loop().time(), 0.0)
            await self._emptied(patience_s if step in {Connection.cut, Connection.abort} else min(patience_s, left_s))
        for timer in (self._deadlines, self._sweeper):
            if timer is not None:
                timer.cancel()
        self._deadlines = self._sweeper = None
        if self.access is not None:
            self.access.close()

    async def _emptied(self, patience_s: float) -> None:
        """Wait until the last connection is gone, at most `patience_s`."""
        if not self._connections:
            return
        self._empty = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._empty
        self._empty = None

    # -- for connections

    def add(self, connection: Connection) -> bool:
        """A connection is there. Returns: whether there is room for it."""
        self._connections.add(connection)
        if self._sweeper is None:
            self._sweep_later()
        return len(self._connections) <= self.limits.connections

    def remove(self, connection: Connection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self._timed.discard(connection)
        if not self._connections and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def read_head(self, fields: Sequence[Field]) -> CallHead:
        """What headers say, and who serves the call.

        Raises: StreamFault for a malformed request.
        """
        head = read_head(fields)
        if head.refusal is None:
            self._resolve(head)
        elif head.refusal.http_status != 200:
            head.route = _HTTP_REFUSED
        if self.access is not None and head.refusal is None:
            head.route = LoggedRoute(head.route)
        return head

    def watch(self, connection: Connection, deadline_ns: int) -> None:
        """A call of `connection` must end by `deadline_ns`."""
        self._timed.add(connection)
        if self._wake_ns is None or deadline_ns < self._wake_ns - _SOONEST_NS:
            self._wake_at(deadline_ns)

    # -- time

    def expire(self) -> None:
        """End every call whose deadline has passed, and wait for the next."""
        self._deadlines = None
        self._wake_ns = None
        now_ns = self.clock.now_ns()
        earliest: int | None = None
        for connection in list(self._timed):
            deadline_ns = connection.expire(now_ns)
            if deadline_ns is None:
                self._timed.discard(connection)
            elif earliest is None or deadline_ns < earliest:
                earliest = deadline_ns
        if earliest is not None:
            self._wake_at(earliest)

    def sweep(self) -> None:
        """Look after every connection; see `Connection.sweep`."""
        now_ns = self.clock.now_ns()
        for connection in list(self._connections):
            connection.sweep(now_ns)

    def _wake_at(self, deadline_ns: int) -> None:
        if self._deadlines is not None:
            self._deadlines.cancel()
        self._wake_ns = deadline_ns
        delay_ns = max(deadline_ns - self.clock.now_ns(), _SOONEST_NS)
        self._deadlines = asyncio.get_running_loop().call_later(delay_ns / 1e9, self.expire)

    def _sweep_later(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._on_sweep)

    def _on_sweep(self) -> None:
        self._sweeper = None
        self.sweep()
        if self._connections:
            self._sweep_later()
