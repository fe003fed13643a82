"""Runs the method table on our own HTTP/2 transport. Same handlers, same semantics as `aio_server.py`.

Everything a call means is in the handlers; here paths find their routes and access is decided, once per distinct set of
headers.
"""

from __future__ import annotations

import hmac
import socket
import ssl
from collections.abc import Mapping

from tensorquay.core.errors import Unavailable, Unimplemented
from tensorquay.core.predicting import Predictor
from tensorquay.core.trace_context import of_metadata
from tensorquay.grpc_api.infer import InferHandler
from tensorquay.grpc_api.methods import SERVICE, Method, category_of
from tensorquay.grpc_api.native_calls import (
    Control,
    ModelInfer,
    ModelStreamInfer,
    NotedModelInfer,
    Reflection,
    TaskRoom,
    TracedModelInfer,
)
from tensorquay.protocol import reflection
from tensorquay.transport.access_log import AccessLog
from tensorquay.transport.grpc_call import Route
from tensorquay.transport.grpc_head import CallHead, Refusal
from tensorquay.transport.h2_limits import H2Limits
from tensorquay.transport.h2_server import H2Server


class NativeGrpcServer:
    """Our own gRPC server over the handlers.

    Args:
        bound: a bound socket (`transport.listen.bind`); closed by `stop`.
        restricted: access category → (header, value); the metadata key is "triton-grpc-protocol-" + header.
        max_message_bytes: largest message either way.
        max_receiving_bytes: of unfinished messages, over all connections; 0 for no bound.
        tls: a server context as RFC 9113 §9.2 has it (`transport.tls`); None for cleartext.
        access: takes a line per call, while there is an access log.
    """

    def __init__(
        self,
        engine: Predictor,
        infer: InferHandler,
        control: Mapping[str, Method],
        *,
        bound: socket.socket,
        restricted: Mapping[str, tuple[str, str]],
        max_message_bytes: int,
        max_receiving_bytes: int = 0,
        limits: H2Limits | None = None,
        tls: ssl.SSLContext | None = None,
        access: AccessLog | None = None,
    ) -> None:
        limits = limits or H2Limits()
        self._restricted = restricted
        self._traced = infer.sampler is not None
        self._room = TaskRoom(limits.control_calls)
        self._routes: dict[str, Route] = {path: Control(path, method, self._room) for path, method in control.items()}
        self._routes[f"{SERVICE}ModelInfer"] = _infer_route(infer, logged=access is not None)
        self._routes[f"{SERVICE}ModelStreamInfer"] = ModelStreamInfer(infer, access)
        for path in reflection.METHODS:
            self._routes[path] = Reflection()
        self._server = H2Server(
            self._resolve,
            bound,
            clock=engine.clock,
            limits=limits,
            max_message_bytes=max_message_bytes,
            max_receiving_bytes=max_receiving_bytes,
            tls=tls,
            access=access,
        )
        self.port = self._server.port

    @property
    def connections(self) -> int:
        """Connections open now."""
        return self._server.connections

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, give running ones `grace_s`, then cut them."""
        await self._server.stop(grace_s)
        await self._room.close()

    def _resolve(self, head: CallHead) -> None:
        route = self._routes.get(head.path)
        if route is None:
            head.refusal = Refusal(Unimplemented(f"method '{head.path:.256}' is not served here"))
            return
        head.route = route
        if self._traced:
            head.context = of_metadata(head.metadata)
        needed = self._restricted.get(category_of(head.path) or "")
        if needed is None:
            return
        header, value = needed
        key = f"triton-grpc-protocol-{header.lower()}"
        given = next((said for name, said in reversed(head.metadata) if name == key), "")
        if not hmac.compare_digest(given if isinstance(given, bytes) else given.encode(), value.encode()):
            head.refusal = Refusal(Unavailable(f"This protocol is restricted, expecting header '{header}'"))


def _infer_route(infer: InferHandler, *, logged: bool) -> ModelInfer:
    """The cheapest that does what is asked for: nothing is looked up for what is off."""
    if infer.sampler is not None:
        return TracedModelInfer(infer, infer.sampler, logged=logged)
    return NotedModelInfer(infer) if logged else ModelInfer(infer)
