"""The access log of grpcio's server: handlers that count what passes through the plain ones and write its line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote

from tensorquay.core.facts import PredictionFacts
from tensorquay.transport.access_log import LEFT_CALL, AccessLog

_OK = "OK"


def address(context: Any) -> str:
    """The client's, as "host:port": grpcio writes "ipv4:host:port" and escapes the brackets of IPv6."""
    family, _, rest = str(context.peer()).partition(":")
    return unquote(rest) if family in {"ipv4", "ipv6"} else family


class _Watched:
    """A call's context as its handler sees it: remembers how the handler ended the call, and what it noted."""

    def __init__(self, access: AccessLog, path: str, context: Any) -> None:
        self._access = access
        self._path = path
        self._context = context
        self._begun_ns = access.now_ns()
        self._status = ""
        self._facts: PredictionFacts | None = None
        self.request_bytes = self.answer_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def note(self, facts: PredictionFacts) -> None:
        """See `LoggedCall.note`."""
        self._facts = facts

    async def abort(self, code: Any, *more: Any) -> None:
        """As the context's, which raises."""
        self._status = code.name
        await self._context.abort(code, *more)

    async def write(self, message: bytes) -> None:
        """As the context's."""
        await self._context.write(message)
        self.answer_bytes += len(message)

    async def counted(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """`messages`, counted."""
        async for message in messages:
            self.request_bytes += len(message)
            yield message

    def left(self) -> None:
        """grpcio has cancelled the handler: the client left, or its deadline passed."""
        remaining_s = self._context.time_remaining()
        self._status = LEFT_CALL if remaining_s is None or remaining_s > 0 else "DEADLINE_EXCEEDED"

    def log(self) -> None:
        """Write the line."""
        self._access.grpc(
            self._path,
            self._status or _OK,
            begun_ns=self._begun_ns,
            peer=address(self._context),
            sizes=(self.request_bytes, self.answer_bytes),
            facts=self._facts,
        )


def logged_unary(access: AccessLog, path: str, serve: Callable[[bytes, Any], Awaitable[bytes]]) -> Any:
    """`serve`, with a line per call."""

    async def call(message: bytes, context: Any) -> bytes:
        watched = _Watched(access, path, context)
        watched.request_bytes = len(message)
        try:
            answer = await serve(message, watched)
            watched.answer_bytes = len(answer)
        except asyncio.CancelledError:
            watched.left()
            raise
        else:
            return answer
        finally:
            watched.log()

    return call


def logged_stream(access: AccessLog, path: str, serve: Callable[[AsyncIterator[bytes], Any], Any]) -> Any:
    """`serve`, which writes to its context or yields, with a line per stream at its end."""

    async def call(messages: AsyncIterator[bytes], context: Any) -> None:
        watched = _Watched(access, path, context)
        try:
            served = serve(watched.counted(messages), watched)
            if isinstance(served, AsyncGenerator):
                async with aclosing(served) as answers:
                    async for message in answers:
                        await watched.write(message)
            else:
                await served
        except asyncio.CancelledError:
            watched.left()
            raise
        finally:
            watched.log()

    return call
