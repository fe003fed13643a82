"""What can go wrong, by kind. Never a status number: `protocol/status.py` alone turns a kind into HTTP or gRPC.

A `ServingError` is an answer to a caller: its text says what, where, expected and got, and never holds a path of
this machine or a stack. An `InvariantViolation` is our own bug.
"""

from __future__ import annotations

import enum


class ErrorKind(enum.Enum):
    """Why a call failed, in the terms a caller can act on."""

    INVALID_ARGUMENT = "the request is wrong; sending it again cannot help"
    NOT_FOUND = "no such model, version or region"
    UNAVAILABLE = "not now; may work later"
    RESOURCE_EXHAUSTED = "our own admission control refused; retry after a pause"
    DEADLINE_EXCEEDED = "the caller's deadline passed"
    ALREADY_EXISTS = "a thing of that name exists"
    UNIMPLEMENTED = "this server does not do that"
    PERMISSION_DENIED = "the configuration forbids it"
    INTERNAL = "the model or the server failed"
    CANCELLED = "the caller left"


class Rejection(enum.Enum):
    """Which bound of ours a request met that a version turned away, or left unserved; the value is its metric label."""

    QUEUE_FULL = "queue_full"
    SERVER_QUEUE_FULL = "server_queue_full"
    QUEUE_TIMEOUT = "queue_timeout"
    DEADLINE = "deadline"
    INFLIGHT_REQUESTS = "inflight_requests"
    INFLIGHT_BYTES = "inflight_bytes"
    UNLOADING = "unloading"
    OTHER = "other"


class ServingError(Exception):
    """An error that is an answer: kind, text, and facts a client may show.

    Args:
        message: what, where, expected, got, and what to do; safe to send to a stranger.
        kind: overrides the class's own kind.
        facts: JSON-able details added to the error body (`input`, `expected`, `got`, `hint`, …).
        retry_after_s: when trying again makes sense, in seconds.
        rejection: the bound that was met, when it is a rejection; for counters, not for clients.
    """

    kind: ErrorKind = ErrorKind.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        kind: ErrorKind | None = None,
        facts: dict[str, object] | None = None,
        retry_after_s: float | None = None,
        rejection: Rejection | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if kind is not None:
            self.kind = kind
        self.facts = facts or {}
        self.retry_after_s = retry_after_s
        self.rejection = rejection

    def for_request(self, request_id: str) -> ServingError:
        """The same error with the request's id in front, as Triton's users search for it in logs."""
        tagged = ServingError(
            f"[request id: {request_id or '<id_unknown>'}] {self.message}",
            kind=self.kind,
            facts=self.facts,
            retry_after_s=self.retry_after_s,
            rejection=self.rejection,
        )
        tagged.__cause__ = self
        return tagged


class InvalidArgument(ServingError):
    """The request is wrong; sending it again cannot help."""

    kind = ErrorKind.INVALID_ARGUMENT


class NotFound(ServingError):
    """The thing named does not exist here."""

    kind = ErrorKind.NOT_FOUND


class Unavailable(ServingError):
    """Cannot be served now: loading, draining, a full queue with Triton's meaning."""

    kind = ErrorKind.UNAVAILABLE


class Overloaded(ServingError):
    """Refused at the door by our own admission control; carries when to come back."""

    kind = ErrorKind.RESOURCE_EXHAUSTED


class DeadlineExceeded(ServingError):
    """The caller's deadline passed before an answer was ready."""

    kind = ErrorKind.DEADLINE_EXCEEDED


class Unimplemented(ServingError):
    """A feature this server does not have, or has switched off."""

    kind = ErrorKind.UNIMPLEMENTED


class Cancelled(ServingError):
    """The caller left before an answer was ready."""

    kind = ErrorKind.CANCELLED


class ModelFailed(ServingError):
    """The model could not be run or loaded: neither the caller's mistake nor a bug of ours."""

    kind = ErrorKind.INTERNAL


class InvariantViolation(Exception):
    """Our bug. Never caught to be hidden; the edge answers it with a fixed text and an error id."""
