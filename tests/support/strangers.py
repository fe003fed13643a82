"""tritonclient, unmodified, http and grpc alike: what differs between its two halves is said here once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tests.support.serving import RunningServer
from tritonclient.utils import np_to_triton_dtype


@dataclass
class Stranger:
    """One client, and how its half of the library spells things."""

    kind: str
    module: ModuleType
    client: Any

    @property
    def is_http(self) -> bool:
        """Whether this is the HTTP half."""
        return self.kind == "http"

    def input(self, name: str, array: Any, datatype: str = "", **options: Any) -> Any:
        """An InferInput holding `array`."""
        tensor = self.module.InferInput(name, list(array.shape), datatype or np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, **options)
        return tensor

    def output(self, name: str, **options: Any) -> Any:
        """An InferRequestedOutput."""
        return self.module.InferRequestedOutput(name, **options)

    def ask(self, call: str, *args: Any, **options: Any) -> Any:
        """A control call, its answer as plain values: the grpc half gives messages unless asked for JSON."""
        method = getattr(self.client, call)
        return plain(method(*args, **options) if self.is_http else method(*args, as_json=True, **options))


def connect(kind: str, server: RunningServer) -> Stranger:
    """A sync client, "http" or "grpc"."""
    if kind == "http":
        client = tritonclient.http.InferenceServerClient(server.http, concurrency=4, network_timeout=60)
        return Stranger(kind, tritonclient.http, client)
    options = [
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ]
    client = tritonclient.grpc.InferenceServerClient(server.grpc, channel_args=options)
    return Stranger(kind, tritonclient.grpc, client)


def connect_async(kind: str, server: RunningServer) -> Stranger:
    """An asyncio client; to be closed by whoever awaits."""
    if kind == "http":
        return Stranger(kind, tritonclient.http.aio, tritonclient.http.aio.InferenceServerClient(server.http))
    options = [("grpc.enable_http_proxy", 0)]
    client = tritonclient.grpc.aio.InferenceServerClient(server.grpc, channel_args=options)
    return Stranger(kind, tritonclient.grpc.aio, client)


def plain(value: Any) -> Any:
    """Integers that protobuf's JSON writes as text, as integers."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, str) and value.isdigit() else value


def simple_inputs(stranger: Stranger, rows: int = 1) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Inputs of `simple`, and the two arrays in them."""
    a = np.arange(16 * rows, dtype=np.int32).reshape(rows, 16)
    b = np.full((rows, 16), 3, np.int32)
    return [stranger.input("INPUT0", a), stranger.input("INPUT1", b)], a, b
