"""The second half of the composition root: the ports, what listens on them, and in which order they open and shut.

`--frontends 0`: everything in this process. Otherwise this process only keeps the HTTP and gRPC ports reserved, and
its front ends listen on them; what they do not serve themselves comes back here (`frontends/`). Metrics are always
served here.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from tensorquay.banner import Doors
from tensorquay.config.server import GrpcTransport, HttpTransport, ServerConfig
from tensorquay.config.server_values import RestrictedKey
from tensorquay.config.tls import TlsFiles
from tensorquay.core.clock import Clock
from tensorquay.engine import InferenceEngine
from tensorquay.frontends.owner import Owned
from tensorquay.frontends.settings import DoorSettings, FrontEndSettings
from tensorquay.frontends.supervisor import FrontEnds
from tensorquay.grpc_api import infer as grpc_infer
from tensorquay.grpc_api.control import control_methods
from tensorquay.grpc_api.native_server import NativeGrpcServer
from tensorquay.http_api import infer as http_infer
from tensorquay.http_api.browsers import Browsers
from tensorquay.http_api.control import control_app
from tensorquay.http_api.door import HttpDoor
from tensorquay.http_api.hot import HotRoutes
from tensorquay.http_api.metrics import MetricsDoor
from tensorquay.http_api.pages import console_pages
from tensorquay.live.feed import LiveFeed
from tensorquay.telemetry.otel import SpanRecorder
from tensorquay.transport.access_log import AccessLog
from tensorquay.transport.asgi import AsgiServer
from tensorquay.transport.h1_server import H1Limits, H1Server
from tensorquay.transport.listen import bind, port_of, reserve
from tensorquay.transport.tls import PortContext, tls_ports

if TYPE_CHECKING:
    from tensorquay.grpc_api.aio_server import GrpcServer

Render = Callable[[], Awaitable[tuple[bytes, str]]]
"""The metrics page and its content type."""


class OpenDoors:
    """See the module. Loop-confined; owner: `app.py`."""

    def __init__(
        self,
        config: ServerConfig,
        engine: InferenceEngine,
        feed: LiveFeed,
        *,
        clock: Clock,
        spans: SpanRecorder | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._feed = feed
        self._pages = console_pages() if config.console else {}
        self._clock = clock
        self._access = AccessLog(clock) if config.access_log else None
        self._spans = spans
        # Front ends begin the traces of what comes in by them.
        self._sampler = None if spans is None else spans.sampler
        self._bound: dict[str, socket.socket] = {}
        self._servers: list[AsgiServer | H1Server] = []
        self._grpc: GrpcServer | NativeGrpcServer | None = None
        self._frontends: FrontEnds | None = None

    async def open(self, metrics: Render) -> None:
        """Bind every port, then open the doors.

        Raises: PortTaken, TlsProblem or FrontEndFailed, before anything is served by this process.
        """
        config, bound = self._config, self._bound
        tls = tls_ports(config, clock=self._clock)
        take = reserve if config.frontends else bind
        if config.allow_http:
            bound["http"] = take(config.http_host, config.http_port, what="HTTP")
        if config.allow_metrics:
            bound["metrics"] = bind(config.metrics_host, config.metrics_port, what="metrics")
        if config.frontends:
            if config.allow_grpc:
                bound["grpc"] = reserve(config.grpc_host, config.grpc_port, what="gRPC")
            self._frontends = self._make_frontends(config.frontends)
            await self._frontends.start()
        else:
            if config.allow_grpc:
                self._grpc = self._grpc_server(tls.grpc)
                await self._grpc.start()
            if config.allow_http:
                self._servers.append(self._http_server(bound["http"], tls.http))
        if config.allow_metrics:
            self._servers.append(AsgiServer(MetricsDoor(metrics), bound["metrics"], tls=tls.metrics))
        for server in self._servers:
            await server.start()

    def addresses(self) -> Doors:
        """Where they are, for people."""
        config, bound = self._config, self._bound
        grpc_port = self._grpc.port if self._grpc is not None else port_of(bound["grpc"]) if "grpc" in bound else None
        http = _url(config.http_host, port_of(bound["http"]), tls=config.http_tls) if "http" in bound else None
        return Doors(
            http=http,
            grpc=None
            if grpc_port is None
            else f"{'grpcs://' if config.grpc_tls else ''}{_shown(config.grpc_host)}:{grpc_port}",
            metrics=_url(
                config.metrics_host, port_of(bound["metrics"]), tls=config.http_tls if config.metrics_use_ssl else None
            )
            + "/metrics"
            if "metrics" in bound
            else None,
            console=f"{http}/" if http is not None and self.has_console else None,
            frontends=config.frontends,
        )

    def ports(self) -> dict[str, int | None]:
        """The port numbers, for programs; None for a door that is closed."""
        bound = {name: port_of(each) for name, each in self._bound.items()}
        if self._grpc is not None:
            bound["grpc"] = self._grpc.port
        return {name: bound.get(name) for name in ("http", "grpc", "metrics")}

    @property
    def has_console(self) -> bool:
        """Whether the HTTP door shows the console."""
        return bool(self._pages)

    def frontend_pids(self) -> tuple[int, ...]:
        """Process ids of the front ends that are alive."""
        return () if self._frontends is None else self._frontends.pids

    def frontend_counts(self) -> tuple[int, int]:
        """Front ends that are alive, and restarts so far."""
        return (0, 0) if self._frontends is None else (self._frontends.alive, self._frontends.restarts)

    def drain(self) -> None:
        """The server is stopping: connections close with their next answer."""
        if self._frontends is not None:
            self._frontends.drain()

    async def shut(self, grace_s: float) -> None:
        """Stop accepting, let connections finish within `grace_s`, and let go of the ports."""
        closing: list[Awaitable[None]] = [server.stop(grace_s) for server in self._servers]
        if self._grpc is not None:
            closing.append(self._grpc.stop(grace_s))
        if self._frontends is not None:
            closing.append(self._frontends.stop(grace_s))
        await asyncio.gather(*closing)
        for bound in self._bound.values():
            bound.close()

    # -- HTTP

    def _http_server(self, bound: socket.socket, tls: PortContext | None) -> AsgiServer | H1Server:
        config = self._config
        hot, door = self._http_handlers()
        if config.http_transport is HttpTransport.ASGI:
            return AsgiServer(door, bound, tls=tls, access=self._access)
        limits = H1Limits(max_body_bytes=config.http_max_input_size, max_receiving_bytes=config.max_inflight_bytes)
        return H1Server(
            hot,
            door,
            bound,
            clock=self._clock,
            limits=limits,
            access_log=config.access_log,
            tls=tls,
            apart=http_infer.context_apart(_pattern(config.http_header_forward_pattern)),
        )

    def _http_handlers(self) -> tuple[HotRoutes, HttpDoor]:
        config = self._config
        infer = http_infer.InferHandler(
            self._engine,
            max_body_bytes=config.http_max_input_size,
            forward_headers=_pattern(config.http_header_forward_pattern),
            access_log=config.access_log,
        )
        hot = HotRoutes(
            self._engine,
            infer,
            restricted=_pairs(config.http_restricted_api),
            browsers=Browsers(config.http_own_name),
            sampler=self._sampler,
        )
        door = HttpDoor(
            hot,
            control_app(self._engine, self._feed, max_body_bytes=config.http_max_input_size, pages=self._pages),
            clock=self._clock,
            max_body_bytes=config.http_max_input_size,
            max_receiving_bytes=config.max_inflight_bytes,
            # Our own transport writes the lines of all its requests.
            access_log=self._access if config.http_transport is HttpTransport.ASGI else None,
        )
        return hot, door

    # -- gRPC

    def _grpc_server(self, tls: PortContext | None) -> GrpcServer | NativeGrpcServer:
        config = self._config
        infer = self._grpc_handler()
        restricted = _pairs(config.grpc_restricted_protocol)
        if config.grpc_transport is GrpcTransport.GRPCIO:
            # Nobody else needs grpcio, and importing it takes 50 ms.
            from tensorquay.grpc_api.aio_server import GrpcServer  # noqa: PLC0415

            return GrpcServer(
                self._engine,
                infer,
                control_methods(self._engine),
                host=config.grpc_host,
                port=config.grpc_port,
                restricted=restricted,
                max_message_bytes=config.grpc_max_message_size,
                tls=None if tls is None else tls.certificates,
                access=self._access,
            )
        return NativeGrpcServer(
            self._engine,
            infer,
            control_methods(self._engine),
            bound=bind(config.grpc_host, config.grpc_port, what="gRPC"),
            restricted=restricted,
            max_message_bytes=config.grpc_max_message_size,
            max_receiving_bytes=config.max_inflight_bytes,
            tls=tls,
            access=self._access,
        )

    def _grpc_handler(self) -> grpc_infer.InferHandler:
        return grpc_infer.InferHandler(
            self._engine,
            forward_metadata=_pattern(self._config.grpc_header_forward_pattern),
            sampler=self._sampler,
        )

    # -- front ends

    def _make_frontends(self, count: int) -> FrontEnds:
        config, bound = self._config, self._bound
        hot, door = self._http_handlers()
        http = grpc = None
        if config.allow_http:
            http = DoorSettings(
                config.http_host,
                port_of(bound["http"]),
                config.http_max_input_size,
                tls=_paths(config.http_tls),
                forward_pattern=config.http_header_forward_pattern,
                restricted=_pairs(config.http_restricted_api),
            )
        if config.allow_grpc:
            grpc = DoorSettings(
                config.grpc_host,
                port_of(bound["grpc"]),
                config.grpc_max_message_size,
                tls=_paths(config.grpc_tls),
                forward_pattern=config.grpc_header_forward_pattern,
                restricted=_pairs(config.grpc_restricted_protocol),
            )
        template = FrontEndSettings(
            http=http,
            grpc=grpc,
            # What all of them may hold together, shared out.
            max_receiving_bytes=max(config.max_inflight_bytes // count, 1),
            max_unsent_bytes=max(config.max_inflight_bytes // count, 1),
            access_log=config.access_log,
            regions=config.allow_client_shm,
            sampling=None if self._spans is None else astuple(self._spans.rule.shared(count)),
        )
        owned = Owned(
            self._engine,
            hot=hot,
            grpc=self._grpc_handler(),
            control=control_methods(self._engine),
            access_log=config.access_log,
            spans=None if self._spans is None else self._spans.ended,
        )
        return FrontEnds(count, template, owned, door, silence_s=config.frontend_timeout_secs, clock=self._clock)


def _pairs(restricted: Mapping[str, RestrictedKey]) -> dict[str, tuple[str, str]]:
    return {category: (key.key, key.value) for category, key in restricted.items()}


def _pattern(text: str) -> re.Pattern[str] | None:
    return re.compile(text, re.IGNORECASE) if text else None


def _paths(files: TlsFiles | None) -> tuple[str, str, str | None] | None:
    """As other processes read them, whatever their working directory is."""
    if files is None:
        return None
    roots = None if files.roots is None else _absolute(files.roots)
    return _absolute(files.certificate), _absolute(files.key), roots


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _url(host: str, port: int, *, tls: TlsFiles | None) -> str:
    return f"http{'s' if tls else ''}://{_shown(host)}:{port}"


def _shown(host: str) -> str:
    """An address a person on this machine can paste."""
    if host in {"0.0.0.0", "::"}:
        return "localhost"
    return f"[{host}]" if ":" in host else host
