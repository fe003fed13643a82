"""`HttpClient` and `AsyncHttpClient`: the client over HTTP, put together."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping

import httpx

from tensorquay_client.api import AsyncClient, Client
from tensorquay_client.http_codec import Compression, HttpCodec
from tensorquay_client.http_transport import AsyncHttpTransport, HttpOptions, HttpTransport
from tensorquay_client.retry import Retry
from tensorquay_client.url import http_base


class HttpClient(Client):
    """Client over HTTP.

    Args:
        url: "localhost:8000", "https://host/prefix".
        timeout_s: of one call with its retries; None: no limit.
        connect_timeout_s: of a new connection.
        retry: when to try again.
        headers: sent with every call, e.g. authorization.
        compression: "gzip" or "deflate" for predictions both ways.
        binary: False sends tensors as JSON, for servers without the binary extension.
        connections: most connections at once.
        max_response_bytes: longest answer accepted.
        verify: TLS verification: False, or an SSLContext with own certificates.
        transport: an httpx transport, e.g. `httpx.HTTPTransport(uds="…")`.
        sleep: how pauses between tries are made; for tests.
    Raises: InvalidArgument if `url` is no address.
    """

    def __init__(
        self,
        url: str = "localhost:8000",
        *,
        timeout_s: float | None = 60.0,
        connect_timeout_s: float = 5.0,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        headers: Mapping[str, str] | None = None,
        compression: Compression | None = None,
        binary: bool = True,
        connections: int = 100,
        max_response_bytes: int = 2**31,
        verify: bool | ssl.SSLContext = True,
        proxy_from_env: bool = False,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        options = HttpOptions(
            connect_timeout_s, connections, max_response_bytes, dict(headers or {}), verify, proxy_from_env
        )
        carrier = HttpTransport(http_base(url), options, transport)
        super().__init__(url, HttpCodec(binary, compression), carrier, timeout_s=timeout_s, retry=retry, sleep=sleep)


class AsyncHttpClient(AsyncClient):
    """Client over HTTP for asyncio; arguments as of `HttpClient`, `transport` an async one."""

    def __init__(
        self,
        url: str = "localhost:8000",
        *,
        timeout_s: float | None = 60.0,
        connect_timeout_s: float = 5.0,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        headers: Mapping[str, str] | None = None,
        compression: Compression | None = None,
        binary: bool = True,
        connections: int = 100,
        max_response_bytes: int = 2**31,
        verify: bool | ssl.SSLContext = True,
        proxy_from_env: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        options = HttpOptions(
            connect_timeout_s, connections, max_response_bytes, dict(headers or {}), verify, proxy_from_env
        )
        carrier = AsyncHttpTransport(http_base(url), options, transport)
        super().__init__(url, HttpCodec(binary, compression), carrier, timeout_s=timeout_s, retry=retry, sleep=sleep)
