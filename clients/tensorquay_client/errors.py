"""What a call can end in, by what the caller can do about it.

`ClientError` is the root. `ServerError` and its kinds are answers: they carry the server's text and its status (HTTP
or gRPC, see `status`). `ConnectionFailed`, `DeadlineExceeded` without a status and `ProtocolError` are found by the
client itself. One class per kind, the same over HTTP and gRPC, so callers never compare numbers.
"""

from __future__ import annotations

from collections.abc import Mapping


class ClientError(Exception):
    """Any failure of a call.

    Args:
        message: one sentence; the server's own text where the server answered.
        status: the HTTP status (100..599) or gRPC status code (0..16) of the answer; None when there was none.
        retry_after_s: how long the server asks to wait before trying again, in seconds.
        facts: further members of the server's error body.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after_s = retry_after_s
        self.facts = dict(facts or {})

    def __repr__(self) -> str:
        details = "" if self.status is None else f", status={self.status}"
        if self.retry_after_s is not None:
            details += f", retry_after_s={self.retry_after_s:g}"
        return f"{type(self).__name__}({self.message!r}{details})"


class ConnectionFailed(ClientError):
    """No answer: the server could not be reached, or the connection broke.

    Args: sent: False when the request cannot have reached the server, so that sending it again is always safe.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class ProtocolError(ClientError):
    """The answer is not what the V2 protocol says: another kind of server, or a proxy, is at that address."""


class ServerError(ClientError):
    """The server answered with an error."""


class InvalidArgument(ServerError):
    """The request is wrong; sending it again cannot help. Without a status: found before anything was sent."""


class NotFound(ServerError):
    """No such model, version or route."""


class Unavailable(ServerError):
    """Not now: the model is loading or the server is starting or stopping. May work later."""


class Overloaded(ServerError):
    """Refused because there is too much work; `retry_after_s` says when to come back, if the server said so."""


class DeadlineExceeded(ServerError):
    """Time ran out. Without a status: the client's own timeout passed first."""


class AlreadyExists(ServerError):
    """A thing of that name exists."""


class Unimplemented(ServerError):
    """The server does not do that, or has it switched off."""


class PermissionDenied(ServerError):
    """The server's configuration forbids it, or credentials are missing."""


class Internal(ServerError):
    """The model or the server failed."""


class Cancelled(ServerError):
    """The call was cancelled."""
