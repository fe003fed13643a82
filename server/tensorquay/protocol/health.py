"""gRPC's standard health check over bytes (grpc.health.v1).

Source: gRPC health checking protocol; the answer does not depend on the service named, as with Triton.
"""

from __future__ import annotations

from tensorquay.protocol.schema import message_class, parse, serialise

CHECK = "/grpc.health.v1.Health/Check"
"""The only method served; Watch is UNIMPLEMENTED."""

_SERVING, _NOT_SERVING = 1, 2


def check(request: bytes | memoryview, *, ready: bool) -> bytes:
    """The answer to a HealthCheckRequest: SERVING if and only if the server is `ready`.

    Raises: InvalidArgument for a damaged request.
    """
    parse("grpc.health.v1.HealthCheckRequest", request)
    status = _SERVING if ready else _NOT_SERVING
    return serialise(message_class("grpc.health.v1.HealthCheckResponse")(status=status))
