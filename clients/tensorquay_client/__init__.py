"""Client of Tensorquay and of any server of the V2 inference protocol: HTTP and gRPC, sync and async, numpy arrays.

    from tensorquay_client import HttpClient

    with HttpClient("localhost:8000") as client:
        result = client.infer("digits", {"image": images})
        print(result["probabilities"])

Independent of the server's package. Names are imported when first used: who speaks HTTP does not load gRPC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorquay_client.errors import (
        AlreadyExists,
        Cancelled,
        ClientError,
        ConnectionFailed,
        DeadlineExceeded,
        Internal,
        InvalidArgument,
        NotFound,
        Overloaded,
        PermissionDenied,
        ProtocolError,
        ServerError,
        Unavailable,
        Unimplemented,
    )
    from tensorquay_client.grpc_client import AsyncGrpcClient, GrpcClient
    from tensorquay_client.http_client import AsyncHttpClient, HttpClient
    from tensorquay_client.messages import (
        ClassScore,
        InferResult,
        ModelMetadata,
        RepositoryEntry,
        ServerMetadata,
        TensorMetadata,
    )
    from tensorquay_client.retry import NO_RETRY, Retry
    from tensorquay_client.tensors import Tensor
    from tensorquay_client.tls import Tls

__all__ = [
    "NO_RETRY",
    "AlreadyExists",
    "AsyncGrpcClient",
    "AsyncHttpClient",
    "Cancelled",
    "ClassScore",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "GrpcClient",
    "HttpClient",
    "InferResult",
    "Internal",
    "InvalidArgument",
    "ModelMetadata",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "ProtocolError",
    "RepositoryEntry",
    "Retry",
    "ServerError",
    "ServerMetadata",
    "Tensor",
    "TensorMetadata",
    "Tls",
    "Unavailable",
    "Unimplemented",
]

_HOMES = {
    "grpc_client": ("AsyncGrpcClient", "GrpcClient"),
    "http_client": ("AsyncHttpClient", "HttpClient"),
    "messages": ("ClassScore", "InferResult", "ModelMetadata", "RepositoryEntry", "ServerMetadata", "TensorMetadata"),
    "retry": ("NO_RETRY", "Retry"),
    "tensors": ("Tensor",),
    "tls": ("Tls",),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tensorquay_client' has no attribute '{name}'")
    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    return getattr(import_module(f"tensorquay_client.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
