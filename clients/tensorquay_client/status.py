"""Which error class an HTTP status or a gRPC status code stands for. The only table of the client."""

from __future__ import annotations

from tensorquay_client.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    Overloaded,
    PermissionDenied,
    ServerError,
    Unavailable,
    Unimplemented,
)

_HTTP: dict[int, type[ServerError]] = {
    401: PermissionDenied,
    403: PermissionDenied,
    404: NotFound,
    405: Unimplemented,
    408: DeadlineExceeded,
    409: AlreadyExists,
    429: Overloaded,
    499: Cancelled,
    501: Unimplemented,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}

_GRPC: dict[int, type[ServerError]] = {
    1: Cancelled,
    2: Internal,  # UNKNOWN
    3: InvalidArgument,
    4: DeadlineExceeded,
    5: NotFound,
    6: AlreadyExists,
    7: PermissionDenied,
    8: Overloaded,  # RESOURCE_EXHAUSTED
    9: InvalidArgument,  # FAILED_PRECONDITION
    10: Unavailable,  # ABORTED
    11: InvalidArgument,  # OUT_OF_RANGE
    12: Unimplemented,
    13: Internal,
    14: Unavailable,
    15: Internal,  # DATA_LOSS
    16: PermissionDenied,  # UNAUTHENTICATED
}

_NAMES: dict[str, type[ServerError]] = {
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "UNAVAILABLE": Unavailable,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "ALREADY_EXISTS": AlreadyExists,
    "UNIMPLEMENTED": Unimplemented,
    "PERMISSION_DENIED": PermissionDenied,
    "INTERNAL": Internal,
    "CANCELLED": Cancelled,
}


def http_error(status: int, code: object = None) -> type[ServerError]:
    """The class for an HTTP `status` that is not a success; unlisted ones by their hundred.

    Args: code: `code` of the error body. Tensorquay names the kind there, where several share the status 400.
    """
    named = _NAMES.get(code) if isinstance(code, str) else None
    return named or _HTTP.get(status, InvalidArgument if status < 500 else Internal)


def grpc_error(code: int) -> type[ServerError]:
    """The class for a gRPC status `code` other than OK."""
    return _GRPC.get(code, Internal)
