"""The methods this server speaks: their paths, their access categories. No code of any of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

Method: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""A control method: message bytes in and out. Raises ServingError for the status to send."""

SERVICE = "/inference.GRPCInferenceService/"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"

_PREDICTIONS = frozenset({"ModelInfer", "ModelStreamInfer"})

_CATEGORIES = {
    "ServerLive": "health",
    "ServerReady": "health",
    "ModelReady": "health",
    "ServerMetadata": "metadata",
    "ModelMetadata": "metadata",
    "ModelInfer": "inference",
    "ModelStreamInfer": "inference",
    "ModelConfig": "model-config",
    "ModelStatistics": "statistics",
    "RepositoryIndex": "model-repository",
    "RepositoryModelLoad": "model-repository",
    "RepositoryModelUnload": "model-repository",
    "SystemSharedMemoryStatus": "shared-memory",
    "SystemSharedMemoryRegister": "shared-memory",
    "SystemSharedMemoryUnregister": "shared-memory",
    "CudaSharedMemoryStatus": "shared-memory",
    "CudaSharedMemoryRegister": "shared-memory",
    "CudaSharedMemoryUnregister": "shared-memory",
    "TraceSetting": "trace",
    "LogSettings": "logging",
}

CONTROL_PATHS = (*(SERVICE + name for name in _CATEGORIES if name not in _PREDICTIONS), HEALTH_CHECK)
"""Every unary method but ModelInfer."""


def category_of(path: str) -> str | None:
    """The access category (`--grpc-restricted-protocol`) of a method path, or None."""
    if path.startswith("/grpc.health."):
        return "health"
    return _CATEGORIES.get(path.removeprefix(SERVICE)) if path.startswith(SERVICE) else None
