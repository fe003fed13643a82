"""`GrpcClient` and `AsyncGrpcClient` against a gRPC server in this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from tensorquay_client import AsyncGrpcClient, GrpcClient, Retry
from tensorquay_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    NotFound,
    Overloaded,
    ProtocolError,
    Unavailable,
)

SERVICE = "/inference.GRPCInferenceService/"


class Service(grpc.GenericRpcHandler):
    """Echoes predictions; `failures` are answered first."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.metadata: dict[str, Any] = {}
        self.failures: list[tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]] = []
        self.time_left_s: float | None = None
        self.stuck = threading.Event()

    def service(self, details: Any) -> Any:
        name = details.method.removeprefix(SERVICE)
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self.answer(name, body, context))

    def answer(self, name: str, body: bytes, context: Any) -> bytes:
        self.calls.append(name)
        self.metadata = dict(context.invocation_metadata())
        self.time_left_s = context.time_remaining()
        if self.failures:
            code, text, trailers = self.failures.pop(0)
            context.set_trailing_metadata(trailers)
            context.abort(code, text)
        if name == "ServerLive":
            return bytes(service_pb2.ServerLiveResponse(live=True).SerializeToString())
        if name == "ModelMetadata":
            message = service_pb2.ModelMetadataResponse(name="echo")
            message.inputs.add(name="x", datatype="FP32", shape=[-1])
            return bytes(message.SerializeToString())
        if name == "ServerReady":
            self.stuck.wait()
            return b""
        if name == "ServerMetadata":
            return b"\xff"
        request = service_pb2.ModelInferRequest.FromString(body)
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        for entry, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            response.outputs.add(name=entry.name, datatype=entry.datatype, shape=entry.shape)
            response.raw_output_contents.append(raw)
        return bytes(response.SerializeToString())


@pytest.fixture
def service() -> Iterator[Any]:
    made: Any = Service()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(made,), options=options)
    made.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield made
    made.stuck.set()
    server.stop(None).wait()


LARGE = np.random.default_rng(1).random(2_000_001, dtype=np.float32)
"""Beyond gRPC's own limit of 4 MiB."""


def test_arrays_small_and_large_go_there_and_back(service: Any) -> None:
    with GrpcClient(service.url, headers={"Authorization": "me"}) as client:
        assert client.live()
        for array in (np.arange(3, dtype=np.float32), LARGE, np.array([b"a", b""], dtype=object)):
            result = client.infer("echo", {"x": array}, id="7", headers={"X-Trace": "1"}, timeout_s=20)
            np.testing.assert_array_equal(result["x"], array)
            assert result.id == "7"
    assert service.metadata["authorization"] == "me"
    assert service.metadata["x-trace"] == "1"
    assert 0 < service.time_left_s < 30  # the call's 20 s, in gRPC's coarse rounding; not the client's 60


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed(service: Any, compression: Any) -> None:
    with GrpcClient(service.url, compression=compression) as client:
        np.testing.assert_array_equal(client.infer("echo", {"x": np.zeros(5000)})["x"], np.zeros(5000))


async def test_the_same_async(service: Any) -> None:
    async with AsyncGrpcClient(service.url) as client:
        assert await client.live()
        np.testing.assert_array_equal((await client.infer("echo", {"x": LARGE}))["x"], LARGE)
        assert (await client.infer("echo", {"x": [1]}, cast=True)).datatypes == {"x": "FP32"}
        service.failures.append((grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'm' is not found", ()))
        with pytest.raises(NotFound, match="unknown model: 'm'") as caught:
            await client.infer("m", {})
        assert caught.value.status == 5


def test_errors_of_the_server_are_typed(service: Any) -> None:
    with GrpcClient(service.url) as client:
        service.failures.append((grpc.StatusCode.RESOURCE_EXHAUSTED, "full", (("retry-after", "3"),)))
        with pytest.raises(Overloaded, match="full") as caught:
            client.infer("echo", {})
        assert (caught.value.status, caught.value.retry_after_s) == (8, 3.0)
        with pytest.raises(ProtocolError):
            client.server_metadata()


def test_the_deadline_is_grpcs_own(service: Any) -> None:
    with GrpcClient(service.url, timeout_s=0.2) as client, pytest.raises(DeadlineExceeded):
        client.ready()
    assert service.time_left_s < 30


def test_what_the_server_refused_is_repeated_where_safe(service: Any) -> None:
    pauses: list[float] = []
    busy = (grpc.StatusCode.UNAVAILABLE, "not now", ())
    with GrpcClient(service.url, sleep=pauses.append) as client:
        service.failures = [busy, busy]
        assert client.live()
        service.failures = [busy]
        with pytest.raises(Unavailable, match="not now"):
            client.infer("echo", {})
    with GrpcClient(service.url, sleep=pauses.append, retry=Retry(infer=True)) as client:
        service.failures = [busy]
        assert client.infer("echo", {}).model_name == "echo"
    assert service.calls == ["ServerLive"] * 3 + ["ModelInfer"] * 3
    assert len(pauses) == 3


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_closed_port_is_tried_again_and_then_reported(closed_port: int) -> None:
    pauses: list[float] = []
    with (
        GrpcClient(f"127.0.0.1:{closed_port}", sleep=pauses.append) as client,
        pytest.raises(ConnectionFailed, match=f"cannot reach 127.0.0.1:{closed_port}") as caught,
    ):
        client.infer("m", {})
    assert not caught.value.sent
    assert len(pauses) == 2


async def test_a_closed_port_async(closed_port: int) -> None:
    async with AsyncGrpcClient(f"127.0.0.1:{closed_port}", retry=Retry(attempts=1)) as client:
        with pytest.raises(ConnectionFailed, match="server liveness: cannot reach"):
            await client.live()


def test_a_closed_client_says_so() -> None:
    client = GrpcClient("localhost:1")
    client.close()
    with pytest.raises(RuntimeError, match=r"GrpcClient\('localhost:1', closed\)"):
        client.live()
