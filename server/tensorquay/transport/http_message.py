"""What an HTTP transport and its handlers say to each other: a route found once per head, a body, an answer.

A head is looked at once and its route kept for all requests with the same bytes (clients repeat themselves), so that
everything that depends on headers alone is decided in `HotHandler.route`, not per request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, TypeAlias

from tensorquay.core.errors import InvalidArgument, ServingError
from tensorquay.core.facts import PredictionFacts
from tensorquay.protocol.status import error_body, http_status, retry_after

JSON = b"application/json"
OCTETS = b"application/octet-stream"

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in HTTPStatus}
"""Status code → status line."""


@dataclass(slots=True)
class HttpReply:
    """One answer. `parts` are written one after another: large tensors are not joined to their header.

    `head`, when it is there, is the status line and all headers as they are written, without the empty line; the other
    fields say the same for whoever writes heads himself. `written`, when it is there, is the whole answer as it goes
    out on a connection that stays open. `facts` are for the access log, while there is one.
    """

    status: int
    parts: Sequence[bytes | memoryview] = ()
    content_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = field(default=())
    head: bytes = b""
    written: bytes = b""
    facts: PredictionFacts | None = None

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.parts))


def render_head(reply: HttpReply) -> bytes:
    """Status line and headers of `reply`, without what depends on the connection and without the empty line."""
    lines = [b"%bcontent-type: %b\r\n" % (STATUS_LINES[reply.status], reply.content_type)]
    lines.append(b"content-length: %d\r\n" % reply.length)
    lines.extend(b"%b: %b\r\n" % header for header in reply.headers)
    return b"".join(lines)


Answer: TypeAlias = Callable[[HttpReply], None]
"""Takes the answer to one request; called exactly once, on the loop."""


class Cancellable(Protocol):
    """A request being served."""

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        ...


class HotRoute(Protocol):
    """Serves every request with one particular head."""

    @property
    def tensors_at(self) -> int:
        """Where tensor bytes begin in the body: the transport receives them aligned there, which spares a copy."""
        ...

    def start(self, body: bytes | memoryview, arrival_ns: int, answer: Answer) -> Cancellable | None:
        """Begin to serve a request; `answer` is called once, perhaps before this returns.

        Args: body: complete; it must stay as it is while the request lives.
        Returns: what cancels it, or None when it is answered already.
        """
        ...

    def refused(self, status: int) -> None:
        """A request with this head was answered with `status` by the transport: its body did not come, or may not."""
        ...


class HotHandler(Protocol):
    """Finds the routes that are served without the ASGI application."""

    @property
    def draining(self) -> bool:
        """Whether the server is stopping: connections are then closed with their next answer."""
        ...

    def route(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> HotRoute | None:
        """The route of a request, or None when it is the ASGI application's.

        Args: path: percent-encoded, without the query. headers: names in lower case.
        """
        ...


def error_reply(error: ServingError) -> HttpReply:
    """The answer that says `error`: `{"error": text, …}`, always as application/json so that clients show it."""
    pause = retry_after(error)
    headers = () if pause is None else ((b"retry-after", pause.encode()),)
    return HttpReply(http_status(error.kind), (error_body(error),), JSON, headers)


def refusal(text: str, status: int) -> HttpReply:
    """The answer to what is no request, or none that is served."""
    return HttpReply(status, error_reply(InvalidArgument(text)).parts)
