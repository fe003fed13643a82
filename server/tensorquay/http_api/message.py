"""An HTTP request and its answer as values: what the hot handlers see, whatever carries the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tensorquay.core.errors import ServingError
from tensorquay.protocol.status import error_body, http_status, retry_after

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, its body complete. Header names are lower case; `path` is percent-encoded, without the query."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    body: bytes
    arrival_ns: int


@dataclass(frozen=True, slots=True)
class HttpReply:
    """One answer. `parts` are written one after another: large tensors are not joined to their header."""

    status: int
    parts: Sequence[bytes | memoryview] = ()
    content_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = field(default=())

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return sum(map(len, self.parts))


def error_reply(error: ServingError) -> HttpReply:
    """The answer that says `error`: `{"error": text, …}`, always as application/json so that clients show it."""
    pause = retry_after(error)
    headers = () if pause is None else ((b"retry-after", pause.encode()),)
    return HttpReply(http_status(error.kind), (error_body(error),), JSON, headers)
