"""Carries a `Call` over HTTP with httpx, sync or async, on a pool of kept-alive connections.

Knows nothing of the V2 protocol. Its errors say whether the request can have reached the server.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tensorquay_client.calls import Call, Reply
from tensorquay_client.errors import ConnectionFailed, DeadlineExceeded, ProtocolError
from tensorquay_client.tensors import Chunk

_PIECE_BYTES = 256 * 1024
"""Larger bodies go out in such pieces: httpx would copy what is left of a single one after each partial write."""


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How to connect.

    Args:
        connect_timeout_s: for a new connection.
        connections: most connections at once; further calls wait for one.
        max_response_bytes: longest answer accepted, counted after decompression.
        headers: sent with every call.
        verify: False, or an SSLContext, as in httpx.
        proxy_from_env: obey HTTP_PROXY and its kind; off, because an inference server is rarely behind one.
    """

    connect_timeout_s: float = 5.0
    connections: int = 100
    max_response_bytes: int = 2**31
    headers: Mapping[str, str] = field(default_factory=dict)
    verify: bool | ssl.SSLContext = True
    proxy_from_env: bool = False

    def arguments(self) -> dict[str, Any]:
        """Arguments common to httpx.Client and httpx.AsyncClient."""
        limits = httpx.Limits(max_connections=self.connections, max_keepalive_connections=self.connections)
        # Without a word from the caller nothing is compressed: tensors hardly shrink, and httpx would ask for it.
        headers = {"Accept-Encoding": "identity", **self.headers}
        return {"limits": limits, "headers": headers, "verify": self.verify, "trust_env": self.proxy_from_env}


class HttpTransport:
    """Sync. Safe to use from several threads."""

    def __init__(self, base: str, options: HttpOptions, transport: httpx.BaseTransport | None = None) -> None:
        self._base, self._options = base, options
        self._client = httpx.Client(transport=transport, **options.arguments())

    def send(self, call: Call[Any], timeout_s: float | None) -> Reply:
        """One try.

        Raises: ConnectionFailed, DeadlineExceeded, ProtocolError. `timeout_s` is checked whenever bytes arrive, and
        bounds each wait for some.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        content = b"".join(call.body) if call.body_bytes <= _PIECE_BYTES else _pieces(call.body)
        try:
            request = self._client.build_request(
                call.verb,
                self._base + call.path,
                content=content if call.body else None,
                headers=_headers(call),
                timeout=_timeouts(timeout_s, self._options),
            )
            response = self._client.send(request, stream=True)
            try:
                received = _Received(call, self._options.max_response_bytes)
                for chunk in response.iter_bytes():
                    received.add(chunk)
                    if end_s is not None and time.monotonic() > end_s:
                        raise _too_late(call, timeout_s)
                return received.reply(response)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise _translated(exc, call, self._base, timeout_s) from exc

    def close(self) -> None:
        """Close every connection."""
        self._client.close()


class AsyncHttpTransport:
    """Async. Belongs to the event loop that first uses it."""

    def __init__(self, base: str, options: HttpOptions, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._base, self._options = base, options
        self._client = httpx.AsyncClient(transport=transport, **options.arguments())

    async def send(self, call: Call[Any], timeout_s: float | None) -> Reply:
        """One try; `timeout_s` bounds all of it.

        Raises: ConnectionFailed, DeadlineExceeded, ProtocolError.
        """
        content = b"".join(call.body) if call.body_bytes <= _PIECE_BYTES else _async_pieces(call.body)
        try:
            async with asyncio.timeout(timeout_s):
                request = self._client.build_request(
                    call.verb,
                    self._base + call.path,
                    content=content if call.body else None,
                    headers=_headers(call),
                    timeout=_timeouts(timeout_s, self._options),
                )
                response = await self._client.send(request, stream=True)
                try:
                    received = _Received(call, self._options.max_response_bytes)
                    async for chunk in response.aiter_bytes():
                        received.add(chunk)
                    return received.reply(response)
                finally:
                    await response.aclose()
        except TimeoutError as exc:
            raise _too_late(call, timeout_s) from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise _translated(exc, call, self._base, timeout_s) from exc

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class _Received:
    """The bytes of one answer as they come, up to a limit."""

    def __init__(self, call: Call[Any], limit: int) -> None:
        self._call, self._limit = call, limit
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._limit:
            raise ProtocolError(f"{self._call.what}: the answer is longer than max_response_bytes = {self._limit}")

    def reply(self, response: httpx.Response) -> Reply:
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        return Reply(response.status_code, {key.lower(): value for key, value in response.headers.items()}, body)


def _headers(call: Call[Any]) -> dict[str, str]:
    # Said explicitly, the length keeps a body of pieces from being sent in HTTP's chunked coding.
    return {**call.headers, "Content-Length": str(call.body_bytes)} if call.body else dict(call.headers)


def _timeouts(timeout_s: float | None, options: HttpOptions) -> httpx.Timeout:
    connect_s = options.connect_timeout_s if timeout_s is None else min(options.connect_timeout_s, timeout_s)
    return httpx.Timeout(timeout_s, connect=connect_s)


def _pieces(body: tuple[Chunk, ...]) -> Iterator[bytes]:
    for chunk in body:
        view = memoryview(chunk)
        for start in range(0, len(view), _PIECE_BYTES):
            yield bytes(view[start : start + _PIECE_BYTES])


async def _async_pieces(body: tuple[Chunk, ...]) -> AsyncIterator[bytes]:
    for piece in _pieces(body):
        yield piece


def _too_late(call: Call[Any], timeout_s: float | None) -> DeadlineExceeded:
    return DeadlineExceeded(f"{call.what}: no answer within {timeout_s or 0:.3g} s")


def _translated(
    exc: httpx.HTTPError | httpx.InvalidURL, call: Call[Any], base: str, timeout_s: float | None
) -> ConnectionFailed | DeadlineExceeded | ProtocolError:
    """The error of ours that `exc` means."""
    reason = str(exc) or type(exc).__name__
    match exc:
        case httpx.ConnectTimeout():
            return ConnectionFailed(f"{call.what}: no connection to {base} in time", sent=False)
        case httpx.ConnectError() | httpx.ProxyError():
            return ConnectionFailed(f"{call.what}: cannot reach {base}: {reason}", sent=False)
        case httpx.PoolTimeout():
            return DeadlineExceeded(f"{call.what}: all connections were busy for {timeout_s or 0:.3g} s")
        case httpx.TimeoutException():
            return _too_late(call, timeout_s)
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return ConnectionFailed(f"{call.what}: the connection to {base} broke: {reason}", sent=True)
        case _:
            return ProtocolError(f"{call.what}: {reason}")
