"""`HttpClient` and `AsyncHttpClient`: the client over HTTP, put together."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping

import httpx

from tensorquay_client.api import AsyncClient, Client
from tensorquay_client.errors import InvalidArgument
from tensorquay_client.http_codec import Compression, HttpCodec
from tensorquay_client.http_transport import AsyncHttpTransport, HttpOptions, HttpTransport
from tensorquay_client.retry import Retry
from tensorquay_client.tls import Tls
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
        tls: certificates for "https://…".
        verify: instead of `tls`, as in httpx: False, or an SSLContext.
        transport: an httpx transport, e.g. `httpx.HTTPTransport(uds="…")`.
        sleep: how pauses between tries are made; for tests.
    Raises: InvalidArgument if `url` is no address, or `tls` does not go with it.
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
        tls: Tls | None = None,
        verify: bool | ssl.SSLContext = True,
        proxy_from_env: bool = False,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        base = http_base(url)
        trust = _trust(base, tls, verify)
        options = HttpOptions(
            connect_timeout_s, connections, max_response_bytes, dict(headers or {}), trust, proxy_from_env
        )
        carrier = HttpTransport(base, options, transport)
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
        tls: Tls | None = None,
        verify: bool | ssl.SSLContext = True,
        proxy_from_env: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        base = http_base(url)
        trust = _trust(base, tls, verify)
        options = HttpOptions(
            connect_timeout_s, connections, max_response_bytes, dict(headers or {}), trust, proxy_from_env
        )
        carrier = AsyncHttpTransport(base, options, transport)
        super().__init__(url, HttpCodec(binary, compression), carrier, timeout_s=timeout_s, retry=retry, sleep=sleep)


def _trust(base: str, tls: Tls | None, verify: bool | ssl.SSLContext) -> bool | ssl.SSLContext:
    """What httpx shall verify with."""
    if tls is None:
        return verify
    if verify is not True:
        raise InvalidArgument("tls and verify say the same thing; give one of them")
    if not base.startswith("https://"):
        raise InvalidArgument(f"tls is for https:// addresses, and {base} is none")
    return tls.context()
