"""A front-end process, from its settings on standard input to its end: its composition root.

Ends in order when the owner says so, and at once when the owner is gone: then nobody is left to answer anybody.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import sys
from functools import partial
from typing import NoReturn

from tensorquay.core.clock import Clock, SystemClock
from tensorquay.core.collector import relax
from tensorquay.frontends.arena import Arena
from tensorquay.frontends.calls import FrontInfer, control_methods
from tensorquay.frontends.control_stream import ControlProxy
from tensorquay.frontends.hot import FrontRoutes
from tensorquay.frontends.link import Link
from tensorquay.frontends.log_relay import Relay
from tensorquay.frontends.records import HEAD, Kind, dump, record
from tensorquay.frontends.remote import RemoteEngine
from tensorquay.frontends.settings import DoorSettings, FrontEndSettings
from tensorquay.grpc_api.native_server import NativeGrpcServer
from tensorquay.http_api.infer import InferHandler, context_apart
from tensorquay.telemetry.trace_sampling import RequestSampler, SamplingRule
from tensorquay.transport.access_log import AccessLog
from tensorquay.transport.event_loop import loop_factory
from tensorquay.transport.h1_server import H1Limits, H1Server
from tensorquay.transport.listen import bind
from tensorquay.transport.tls import GRPC_PROTOCOLS, HTTP_PROTOCOLS, Certificates, PortContext

_MAX_UNSENT_LOG_BYTES = 2**20
"""Log records are dropped when so much waits to be taken by the owner: they must not be what fills the memory."""


def main() -> int:
    """Serve until told to stop. Returns the exit status."""
    # A terminal's Ctrl-C, and a service manager's SIGTERM to the whole group, are for the owner to obey: what was
    # accepted here is still to be answered.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    text = sys.stdin.buffer.read()
    if not text:
        return 1  # the owner has ended before it could say anything
    settings = FrontEndSettings.from_json(text)
    relax()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_FrontEnd(settings).serve())


class _FrontEnd:
    """Everything that lives from start to stop."""

    def __init__(self, settings: FrontEndSettings) -> None:
        self._settings = settings
        self._clock: Clock = SystemClock()
        self._engine = RemoteEngine(clock=self._clock, max_unsent_bytes=settings.max_unsent_bytes)
        self._sampler = (
            None if settings.sampling is None else RequestSampler(SamplingRule(*settings.sampling), self._engine.ended)
        )
        self._channel = socket.socket(fileno=settings.channel)
        self._link: Link
        self._ending = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Future[float]
        self._lost: asyncio.Future[None]

    async def serve(self) -> int:
        """The whole life, in order."""
        self._loop = asyncio.get_running_loop()
        self._stop, self._lost = self._loop.create_future(), self._loop.create_future()
        await self._open_link()
        self._start_logging()
        servers = self._servers()
        for server in servers:
            await server.start()
        gc.collect()
        gc.freeze()
        self._link.send(record(Kind.READY))
        grace_s = await self._stop
        await asyncio.gather(*(server.stop(grace_s) for server in servers))
        # What was logged last is sent in the next turn of the loop.
        await asyncio.sleep(0)
        self._ending = True
        self._link.close()
        await self._lost
        return 0

    async def _open_link(self) -> None:
        settings = self._settings
        handlers = {**self._engine.handlers(), Kind.STOP: self._on_stop, Kind.PING: self._on_ping}
        make = partial(
            Link,
            handlers,
            self._on_lost,
            arena=Arena(settings.requests, settings.arena_bytes),
            descriptor=settings.answers,
            arena_bytes=settings.arena_bytes,
        )
        self._link = await Link.over(socket.socket(fileno=settings.link), make)
        os.close(settings.requests)
        os.close(settings.answers)
        self._engine.attach(self._link)

    def _start_logging(self) -> None:
        settings = self._settings
        root = logging.getLogger()
        root.addHandler(Relay(self._send_log))
        root.setLevel(settings.library_level)
        logging.getLogger("tensorquay").setLevel(settings.log_level)
        access = logging.getLogger("tensorquay.access")
        access.setLevel(logging.NOTSET if settings.access_log else logging.CRITICAL + 1)

    def _send_log(self, document: object) -> bool:
        if not self._link.is_open or self._link.unsent_bytes > _MAX_UNSENT_LOG_BYTES:
            return False
        self._loop.call_soon_threadsafe(self._link.send, record(Kind.LOG, dump(document)))
        return True

    def _servers(self) -> list[H1Server | NativeGrpcServer]:
        settings = self._settings
        servers: list[H1Server | NativeGrpcServer] = []
        if settings.http is not None:
            servers.append(self._http(settings.http))
        if settings.grpc is not None:
            servers.append(self._grpc(settings.grpc))
        return servers

    def _http(self, door: DoorSettings) -> H1Server:
        settings = self._settings
        infer = InferHandler(
            self._engine,
            max_body_bytes=door.max_bytes,
            forward_headers=_pattern(door.forward_pattern),
            access_log=settings.access_log,
        )
        hot = FrontRoutes(
            self._engine,
            infer,
            restricted=door.restricted or {},
            regions=settings.regions,
            sampler=self._sampler,
        )
        files = door.tls_files("http")
        return H1Server(
            hot,
            ControlProxy(self._channel),
            bind(door.host, door.port, what="HTTP", shared=True),
            clock=self._clock,
            limits=H1Limits(max_body_bytes=door.max_bytes, max_receiving_bytes=settings.max_receiving_bytes),
            access_log=settings.access_log,
            apart=context_apart(_pattern(door.forward_pattern)),
            tls=None
            if files is None
            else PortContext(Certificates(files, HTTP_PROTOCOLS, clock=self._clock), clock=self._clock),
        )

    def _grpc(self, door: DoorSettings) -> NativeGrpcServer:
        settings = self._settings
        files = door.tls_files("grpc")
        return NativeGrpcServer(
            self._engine,
            FrontInfer(
                self._engine,
                forward_metadata=_pattern(door.forward_pattern),
                regions=settings.regions,
                sampler=self._sampler,
            ),
            control_methods(self._engine),
            bound=bind(door.host, door.port, what="gRPC", shared=True),
            restricted=door.restricted or {},
            max_message_bytes=door.max_bytes,
            max_receiving_bytes=settings.max_receiving_bytes,
            access=AccessLog(self._clock) if settings.access_log else None,
            tls=None
            if files is None
            else PortContext(Certificates(files, GRPC_PROTOCOLS, clock=self._clock), clock=self._clock),
        )

    # -- what the owner says

    def _on_stop(self, data: bytes, at: int) -> None:
        if not self._stop.done():
            self._stop.set_result(HEAD.unpack_from(data, at)[5] / 1000)

    def _on_ping(self, _data: bytes, _at: int) -> None:
        self._link.send(record(Kind.PONG))

    def _on_lost(self) -> None:
        if not self._ending:
            _give_up()
        self._lost.set_result(None)


def _give_up() -> NoReturn:
    """The owner is gone. Its clients' connections go with this process; there is nothing to clean up."""
    os._exit(1)


def _pattern(text: str) -> re.Pattern[str] | None:
    return re.compile(text, re.IGNORECASE) if text else None


if __name__ == "__main__":
    sys.exit(main())
