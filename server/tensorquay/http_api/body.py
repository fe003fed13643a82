"""Reading a request's body, bounded before it is buffered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tensorquay.core.errors import InvalidArgument, Overloaded

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ClientGone(Exception):
    """The client closed the connection before its request was complete: there is nobody to answer."""


@dataclass(slots=True)
class BodyBudget:
    """Bytes of bodies being received, over all connections. Loop-confined; owner: the HTTP door.

    `limit` 0 means no bound.
    """

    limit: int
    held: int = 0

    def take(self, count: int) -> None:
        """Book `count` more bytes.

        Raises: Overloaded when they do not fit beside what others send.
        """
        if self.limit and self.held and self.held + count > self.limit:
            raise Overloaded(
                f"server overloaded: {self.held} bytes of requests are being received, at most {self.limit} may; "
                "retry after a pause (--max-inflight-bytes)",
                facts={"limit": self.limit},
                retry_after_s=1.0,
            )
        self.held += count


def too_large(limit: int, got: str) -> InvalidArgument:
    """The answer to a body beyond `--http-max-input-size`: Triton's status and flag name."""
    return InvalidArgument(
        f"request body is {got}, at most {limit} bytes are accepted; send less or raise --http-max-input-size",
        facts={"limit": limit},
    )


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], *, limit: int, budget: BodyBudget) -> bytes:
    """The whole body. What it holds of `budget` is given back before this returns.

    Raises: InvalidArgument for more than `limit` bytes (by Content-Length before the first is read), Overloaded when
    the budget is spent, ClientGone when the connection ends first.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:19]) > limit:
        raise too_large(limit, f"{declared[:19].decode()} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            if chunk:
                budget.take(len(chunk))
                size += len(chunk)
                if size > limit:
                    raise too_large(limit, f"more than {limit} bytes")
                chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    finally:
        budget.held -= size
