"""Carries a `Call` over gRPC, bytes to bytes, on one channel, sync or async.

Knows nothing of the V2 protocol: methods are names, messages are bytes. The call's timeout is gRPC's deadline, which
the server sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import grpc.aio

from tensorquay_client.calls import Call, Reply
from tensorquay_client.errors import ConnectionFailed
from tensorquay_client.grpc_codec import LARGEST_MESSAGE
from tensorquay_client.tls import Tls

_NOT_SENT = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")
_BROKEN = ("socket closed", "connection reset", "broken pipe", "stream removed", "connection closed", "goaway")
"""How gRPC words UNAVAILABLE when it is its own finding: a status of the server has the same code and no other mark."""


@dataclass(frozen=True, slots=True)
class GrpcOptions:
    """How to connect.

    Args:
        connect_timeout_s: for each attempt to connect.
        max_message_bytes: longest message sent or accepted.
        headers: metadata sent with every call.
        credentials: TLS credentials; None with a "grpcs://" address: the system's roots.
        compression: of messages to the server; its own choice the other way.
        proxy_from_env: obey http_proxy and its kind.
        keepalive_s: ping an idle connection this often; None: never.
    """

    connect_timeout_s: float = 5.0
    max_message_bytes: int = LARGEST_MESSAGE
    headers: Mapping[str, str] = field(default_factory=dict)
    credentials: Any = None
    compression: Literal["gzip", "deflate"] | None = None
    proxy_from_env: bool = False
    keepalive_s: float | None = None

    def channel_options(self) -> list[tuple[str, int]]:
        """Arguments of the channel."""
        options = [
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.enable_http_proxy", int(self.proxy_from_env)),
            # gRPC gives an attempt at least this long; its own default is 20 s.
            ("grpc.min_reconnect_backoff_ms", max(1, round(self.connect_timeout_s * 1000))),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 5000),
        ]
        if self.keepalive_s is not None:
            options.append(("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)))
        return options

    def channel(self, module: Any, target: str, *, tls: bool) -> Any:
        """A channel of `module` (grpc or grpc.aio) to `target`."""
        compression = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}.get(self.compression or "")
        if tls or self.credentials is not None:
            credentials = self.credentials or grpc.ssl_channel_credentials()
            return module.secure_channel(target, credentials, self.channel_options(), compression)
        return module.insecure_channel(target, self.channel_options(), compression)


def ssl_credentials(tls: Tls) -> Any:
    """`tls` as gRPC wants it.

    Raises: InvalidArgument.
    """
    authorities, key, certificate = tls.pem()
    return grpc.ssl_channel_credentials(authorities, key, certificate)


class GrpcTransport:
    """Sync. Safe to use from several threads."""

    def __init__(self, target: str, options: GrpcOptions, *, tls: bool) -> None:
        self._target, self._options = target, options
        self._channel = options.channel(grpc, target, tls=tls)
        self._methods: dict[str, Callable[..., Any]] = {}

    def send(self, call: Call[Any], timeout_s: float | None) -> Reply:
        """One try.

        Raises: ConnectionFailed.
        """
        method = self._methods.get(call.path)
        if method is None:
            method = self._methods[call.path] = self._channel.unary_unary(call.path)
        try:
            return Reply(0, {}, method(b"".join(call.body), timeout=timeout_s, metadata=_metadata(call, self._options)))
        except grpc.RpcError as exc:
            return _reply(exc, call, self._target)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncGrpcTransport:
    """Async. The channel belongs to the event loop of the first call."""

    def __init__(self, target: str, options: GrpcOptions, *, tls: bool) -> None:
        self._target, self._options, self._tls = target, options, tls
        self._channel: Any = None
        self._methods: dict[str, Callable[..., Any]] = {}

    async def send(self, call: Call[Any], timeout_s: float | None) -> Reply:
        """One try.

        Raises: ConnectionFailed.
        """
        if self._channel is None:  # made here because gRPC binds a channel to the loop that is running
            self._channel = self._options.channel(grpc.aio, self._target, tls=self._tls)
        method = self._methods.get(call.path)
        if method is None:
            method = self._methods[call.path] = self._channel.unary_unary(call.path)
        try:
            body = await method(b"".join(call.body), timeout=timeout_s, metadata=_metadata(call, self._options))
            return Reply(0, {}, body)
        except grpc.RpcError as exc:
            return _reply(exc, call, self._target)

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()


def _metadata(call: Call[Any], options: GrpcOptions) -> tuple[tuple[str, str], ...]:
    return (*((key.lower(), value) for key, value in options.headers.items()), *call.headers.items())


def _reply(error: Any, call: Call[Any], target: str) -> Reply:
    """The answer in an RpcError.

    Raises: ConnectionFailed if it is gRPC's own finding that there is no connection.
    """
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        if text.startswith(_NOT_SENT):
            reason = text.rsplit("last error: ", 1)[-1]
            raise ConnectionFailed(f"{call.what}: cannot reach {target}: {reason}", sent=False) from error
        if any(sign in text.lower() for sign in _BROKEN):
            raise ConnectionFailed(f"{call.what}: the connection to {target} broke: {text}", sent=True) from error
    trailers = {str(key): value for key, value in error.trailing_metadata() or () if isinstance(value, str)}
    return Reply(int(code.value[0]), trailers, b"", text)
