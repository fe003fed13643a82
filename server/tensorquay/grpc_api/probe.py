"""Asks a server over gRPC whether it is well: one call, as a probe makes it. No part of serving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc

from tensorquay.core.errors import ServingError
from tensorquay.grpc_api.methods import HEALTH_CHECK, SERVICE
from tensorquay.protocol.schema import parse

_SERVING = 1
_MOST_BYTES = 4096
"""An answer about health has two; nothing that is longer is one."""


class NoHealthAnswer(Exception):
    """There was no answer, or it says nothing about health; the text says which, without naming the server."""


def ask(
    address: str,
    *,
    live: bool,
    timeout_s: float,
    metadata: Sequence[tuple[str, str]] = (),
    tls: tuple[Path | None, Path | None, Path | None] | None = None,
) -> bool:
    """Whether the server at `address` ("host:port") is ready; with `live`, whether it runs.

    Args:
        metadata: sent with the call, for a server that keeps health closed.
        tls: authority, own certificate and its key, in PEM; None: no TLS.
    Raises: NoHealthAnswer. OSError for a file of `tls` that cannot be read.
    """
    options = [("grpc.max_receive_message_length", _MOST_BYTES), ("grpc.enable_http_proxy", 0)]
    if tls is None:
        channel = grpc.insecure_channel(address, options)
    else:
        authority, certificate, key = (None if path is None else path.read_bytes() for path in tls)
        # One PEM file may hold both, as with `curl --cert`.
        credentials = grpc.ssl_channel_credentials(authority, key or certificate, certificate)
        channel = grpc.secure_channel(address, credentials, options)
    with channel:
        call = channel.unary_unary(f"{SERVICE}ServerLive" if live else HEALTH_CHECK)
        try:
            answer = call(b"", timeout=timeout_s, metadata=tuple(metadata))
        except grpc.RpcError as exc:
            raise NoHealthAnswer(f"{exc.code().name}: {exc.details()}") from exc
    return _means_well(bytes(answer), live=live)


def _means_well(answer: bytes, *, live: bool) -> bool:
    try:
        if live:
            return bool(parse("inference.ServerLiveResponse", answer).live)
        return bool(parse("grpc.health.v1.HealthCheckResponse", answer).status == _SERVING)
    except ServingError as exc:
        raise NoHealthAnswer("the answer is not one of a health check") from exc
