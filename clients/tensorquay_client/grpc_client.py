"""`GrpcClient` and `AsyncGrpcClient`: the client over gRPC, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from tensorquay_client.api import AsyncClient, Client
from tensorquay_client.errors import InvalidArgument
from tensorquay_client.grpc_codec import LARGEST_MESSAGE, GrpcCodec
from tensorquay_client.grpc_transport import AsyncGrpcTransport, GrpcOptions, GrpcTransport, ssl_credentials
from tensorquay_client.retry import Retry
from tensorquay_client.tls import Tls
from tensorquay_client.url import grpc_target


class GrpcClient(Client):
    """Client over gRPC, on one channel.

    Args:
        url: "localhost:8001", "grpcs://host:443" (TLS), or a gRPC target such as "unix:…".
        timeout_s: of one call with its retries, sent to the server as gRPC's deadline; None: no limit.
        connect_timeout_s: of each attempt to connect.
        retry: when to try again.
        headers: metadata sent with every call, e.g. authorization.
        compression: "gzip" or "deflate" for messages to the server.
        tls: certificates for "grpcs://…".
        credentials: instead of `tls`, `grpc.ChannelCredentials`.
        max_message_bytes: longest message sent or accepted.
        keepalive_s: ping an idle connection this often, for balancers that forget it.
        sleep: how pauses between tries are made; for tests.
    Raises: InvalidArgument if `url` is no address, or `tls` does not go with it.
    """

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        timeout_s: float | None = 60.0,
        connect_timeout_s: float = 5.0,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        headers: Mapping[str, str] | None = None,
        compression: Literal["gzip", "deflate"] | None = None,
        tls: Tls | None = None,
        credentials: Any = None,
        max_message_bytes: int = LARGEST_MESSAGE,
        keepalive_s: float | None = None,
        proxy_from_env: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        target, secure = grpc_target(url)
        options = GrpcOptions(
            connect_timeout_s,
            max_message_bytes,
            dict(headers or {}),
            _credentials(url, tls, credentials, secure=secure),
            compression,
            proxy_from_env,
            keepalive_s,
        )
        carrier = GrpcTransport(target, options, tls=secure)
        super().__init__(url, GrpcCodec(), carrier, timeout_s=timeout_s, retry=retry, sleep=sleep)


class AsyncGrpcClient(AsyncClient):
    """Client over gRPC for asyncio; arguments as of `GrpcClient`."""

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        timeout_s: float | None = 60.0,
        connect_timeout_s: float = 5.0,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        headers: Mapping[str, str] | None = None,
        compression: Literal["gzip", "deflate"] | None = None,
        tls: Tls | None = None,
        credentials: Any = None,
        max_message_bytes: int = LARGEST_MESSAGE,
        keepalive_s: float | None = None,
        proxy_from_env: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        target, secure = grpc_target(url)
        options = GrpcOptions(
            connect_timeout_s,
            max_message_bytes,
            dict(headers or {}),
            _credentials(url, tls, credentials, secure=secure),
            compression,
            proxy_from_env,
            keepalive_s,
        )
        carrier = AsyncGrpcTransport(target, options, tls=secure)
        super().__init__(url, GrpcCodec(), carrier, timeout_s=timeout_s, retry=retry, sleep=sleep)


def _credentials(url: str, tls: Tls | None, credentials: Any, *, secure: bool) -> Any:
    """`grpc.ChannelCredentials`, or None for gRPC's own."""
    if tls is None:
        return credentials
    if credentials is not None:
        raise InvalidArgument("tls and credentials say the same thing; give one of them")
    if not secure:
        raise InvalidArgument(f"tls is for grpcs:// addresses, and {url} is none")
    return ssl_credentials(tls)
