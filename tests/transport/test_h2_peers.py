"""Strangers against our HTTP/2 server, over real sockets: grpcio, tritonclient, python-h2, curl, nghttp, h2load.

grpcio is the oracle: what its server answers, ours answers. Programs that are not installed are skipped, and say so.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import hyperframe.frame
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2

from native_grpc import NativeHouse, connect, message
from tensorquay.transport.h2_limits import H2Limits
from waiting import until

SERVICE = "/inference.GRPCInferenceService/"
INFER = f"{SERVICE}ModelInfer"


@pytest.fixture
def channel(house: NativeHouse) -> Iterator[grpc.Channel]:
    """A grpcio channel of the test's own connection."""
    with grpc.insecure_channel(house.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel


def simple(first: int = 0) -> tuple[list[triton.InferInput], np.ndarray[Any, Any]]:
    """Inputs of `simple`, and the sum it must answer."""
    a = np.arange(first, first + 16, dtype=np.int32).reshape(1, 16)
    inputs = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for each in inputs:
        each.set_data_from_numpy(a)
    return inputs, a * 2


def inflight(house: NativeHouse) -> int:
    """Requests inside the engine."""
    return house.engine.admission.requests


# -- grpcio


def test_grpcio_sync_many_calls_at_once(channel: grpc.Channel) -> None:
    call = channel.unary_unary(INFER)
    expected = call(message())
    futures = [call.future(message(), timeout=30) for _ in range(300)]
    assert {future.result() for future in futures} == {expected}


async def test_grpcio_aio_many_calls_at_once(house: NativeHouse) -> None:
    async with grpc.aio.insecure_channel(house.address) as channel:
        call = channel.unary_unary(INFER)
        answers = await asyncio.gather(*(call(message(), timeout=30) for _ in range(200)))
    assert len(set(answers)) == 1


@pytest.mark.parametrize("size", [0, 1, 16_000, 70_000, 600_000, 5_000_000])
@pytest.mark.parametrize("coding", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_grpcio_messages_of_any_size_both_ways(channel: grpc.Channel, size: int, coding: grpc.Compression) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    request = service_pb2.ModelInferRequest(model_name="bytes")
    request.inputs.add(name="x", datatype="UINT8", shape=(1, size))
    request.raw_input_contents.append(data)
    options = {"compression": coding, "timeout": 60}
    call = channel.unary_unary(INFER)
    with grpc.insecure_channel(
        channel._channel.target().decode().removeprefix("dns:///"),
        options=[("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)],
    ) as roomy:
        call = roomy.unary_unary(INFER)
        answers = [call.future(request.SerializeToString(), **options) for _ in range(3)]
        for answer in answers:
            response = service_pb2.ModelInferResponse.FromString(answer.result())
            assert list(response.raw_output_contents) == [data]


def test_grpcio_unknown_methods_and_models(channel: grpc.Channel) -> None:
    for path, body, code in (
        ("/no.Service/Method", b"", grpc.StatusCode.UNIMPLEMENTED),
        (INFER, service_pb2.ModelInferRequest(model_name="none").SerializeToString(), grpc.StatusCode.NOT_FOUND),
        (INFER, b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(path)(body, timeout=30)
        assert caught.value.code() is code
        assert caught.value.details()


def test_grpcio_cancel_and_deadline_take_requests_out_of_the_queue(house: NativeHouse, channel: grpc.Channel) -> None:
    call = channel.unary_unary(INFER)
    cancelled = call.future(message("waiting"))
    until(lambda: inflight(house) == 1, "the request waits in the queue")
    cancelled.cancel()
    until(lambda: inflight(house) == 0, "the cancelled request left the queue")
    late = call.future(message("waiting"), timeout=0.05)
    with pytest.raises(grpc.RpcError) as caught:
        late.result()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: inflight(house) == 0, "the late request left the queue")


def test_grpcio_a_channel_that_closes_cancels_its_calls(house: NativeHouse) -> None:
    channel = grpc.insecure_channel(house.address, options=[("grpc.use_local_subchannel_pool", 1)])
    calls = [channel.unary_unary(INFER).future(message("waiting")) for _ in range(3)]
    until(lambda: inflight(house) == 3, "three requests wait in the queue")
    channel.close()
    until(lambda: inflight(house) == 0, "all left the queue")
    assert all(call.done() for call in calls)


def test_grpcio_restricted_methods_need_their_key(channel: grpc.Channel) -> None:
    call = channel.unary_unary(f"{SERVICE}TraceSetting")
    key = "triton-grpc-protocol-admin-key"
    for metadata in ((), ((key, "wrong"),), ((key, "secret"), (key, "wrong"))):
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", metadata=metadata, timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "admin-key" in (caught.value.details() or "")
    assert call(b"", metadata=((key, "secret"),), timeout=30)
    with pytest.raises(grpc.RpcError):
        call(b"", timeout=30)


def test_grpcio_a_stream_under_back_pressure_loses_nothing(channel: grpc.Channel) -> None:
    count = 5000
    answers = channel.stream_stream(f"{SERVICE}ModelStreamInfer")(
        (_with_id(number) for number in range(count)), timeout=60
    )
    seen = {service_pb2.ModelStreamInferResponse.FromString(answer).infer_response.id for answer in answers}
    assert seen == {str(number) for number in range(count)}


def _with_id(number: int) -> bytes:
    request = service_pb2.ModelInferRequest.FromString(message())
    request.id = str(number)
    return bytes(request.SerializeToString())


def test_grpcio_a_stream_that_is_not_read_is_not_read_either(house: NativeHouse, channel: grpc.Channel) -> None:
    """The client sends for ever and takes nothing: what waits inside stays bounded, and leaving ends it."""
    sent = 0
    stop = threading.Event()

    def requests() -> Iterator[bytes]:
        nonlocal sent
        while not stop.is_set():
            sent += 1
            yield message("waiting") if sent > 1 else message()

    stream = channel.stream_stream(f"{SERVICE}ModelStreamInfer")(requests())
    next(stream)
    # Seven of eight rows: with the eighth the batch would run.
    until(lambda: sent > 100, "the client sends")
    stop.set()
    stream.cancel()
    until(lambda: inflight(house) == 0, "everything of the stream left")


def test_grpcio_real_errors_end_a_stream_that_asks_for_them(channel: grpc.Channel) -> None:
    wrong = service_pb2.ModelInferRequest(model_name="none").SerializeToString()
    call = channel.stream_stream(f"{SERVICE}ModelStreamInfer")
    answers = list(call(iter([wrong, message()]), timeout=30))
    assert service_pb2.ModelStreamInferResponse.FromString(answers[0]).error_message
    assert len(answers) == 2
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([wrong, message()]), metadata=(("triton_grpc_error", "true"),), timeout=30))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_grpcio_reflection_lists_the_services(channel: grpc.Channel) -> None:
    for version in ("v1", "v1alpha"):
        call = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        (answer,) = call(iter([b"\x3a\x00"]), timeout=30)
        assert b"inference.GRPCInferenceService" in answer


def test_grpcio_keepalive_pings_are_answered(house: NativeHouse) -> None:
    options = [
        ("grpc.keepalive_time_ms", 50),
        ("grpc.keepalive_timeout_ms", 5000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(house.address, options=options) as channel:
        waiting = channel.unary_unary(INFER).future(message("waiting"))
        until(lambda: inflight(house) == 1, "the request waits in the queue")
        for _ in range(5):
            assert channel.unary_unary(INFER)(message(), timeout=30)
        assert not waiting.done()
        waiting.cancel()
    until(lambda: inflight(house) == 0, "the request left the queue")


# -- tritonclient


def test_tritonclient_speaks_with_it(house: NativeHouse) -> None:
    with triton.InferenceServerClient(house.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("simple")
        assert client.get_server_metadata().name == "triton"
        assert client.get_model_metadata("simple").name == "simple"
        assert client.get_model_config("simple").config.name == "simple"
        assert {model.name for model in client.get_model_repository_index().models} == {"simple", "bytes", "waiting"}
        for options in (
            {},
            {"client_timeout": 30},
            {"compression_algorithm": "gzip"},
            {"headers": {"x-forward-a": "b"}},
        ):
            inputs, expected = simple(3)
            result = client.infer("simple", inputs, request_id="7", **options)
            assert result.as_numpy("OUTPUT0").tolist() == expected.tolist()
            assert result.get_response().id == "7"
        assert client.get_inference_statistics("simple").model_stats[0].inference_count >= 4


def test_tritonclient_streams(house: NativeHouse) -> None:
    results: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(house.address) as client:
        client.start_stream(lambda result, error: results.put((result, error)))
        for number in range(50):
            inputs, _ = simple(number)
            client.async_stream_infer("simple", inputs, request_id=str(number))
        answers = [results.get(timeout=30) for _ in range(50)]
        client.stop_stream()
    assert {result.get_response().id for result, error in answers if error is None} == {str(n) for n in range(50)}


async def test_tritonclient_aio(house: NativeHouse) -> None:
    async with triton_aio.InferenceServerClient(house.address) as client:
        inputs, expected = simple(5)
        results = await asyncio.gather(*(client.infer("simple", inputs) for _ in range(20)))
    assert all(result.as_numpy("OUTPUT0").tolist() == expected.tolist() for result in results)


# -- python-h2, frame by frame


class H2Client:
    """A small client over python-h2, which checks every frame it gets against its own state machine."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(30)
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf8")
        )
        self.connection.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.connection.data_to_send())

    def until(self, happened: Callable[[h2.events.Event], bool]) -> h2.events.Event:
        """Read until an event is `happened`."""
        while True:
            for event in self.events:
                if happened(event):
                    self.events.remove(event)
                    return event
            data = self.sock.recv(65_536)
            assert data, "the server closed the connection"
            self.events += self.connection.receive_data(data)
            for event in self.events:
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    event.flow_controlled_length = 0
            self.flush()

    def call(self, path: str, body: bytes) -> tuple[bytes, str]:
        """A unary call; returns what came and the status."""
        stream = self.connection.get_next_available_stream_id()
        self.connection.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "x"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ],
        )
        self.connection.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=True)
        self.flush()
        data = b""
        status = ""

        def done(event: h2.events.Event) -> bool:
            nonlocal data, status
            if getattr(event, "stream_id", 0) != stream:
                return False
            if isinstance(event, h2.events.DataReceived):
                data, event.data = data + event.data, b""
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                status = dict(event.headers).get("grpc-status", status)
            return isinstance(event, h2.events.StreamEnded)

        self.until(done)
        return data, status


def test_python_h2_accepts_everything_we_send(house: NativeHouse) -> None:
    with connect(house) as sock:
        client = H2Client(sock)
        data, status = client.call(INFER, message())
        assert status == "0"
        assert service_pb2.ModelInferResponse.FromString(data[5:]).model_name == "simple"
        assert client.call("/none", b"")[1] == "12"
        request = service_pb2.ModelInferRequest(model_name="bytes")
        request.inputs.add(name="x", datatype="UINT8", shape=(1, 50_000))
        request.raw_input_contents.append(bytes(50_000))
        assert client.call(INFER, request.SerializeToString())[1] == "0"
        client.connection.ping(b"12345678")
        client.flush()
        client.until(lambda event: isinstance(event, h2.events.PingAckReceived))


def test_a_graceful_end_frame_by_frame(repository: Path) -> None:
    house = NativeHouse(repository)
    with connect(house) as sock:
        client = H2Client(sock)
        assert client.call(INFER, message())[1] == "0"
        stopping = threading.Thread(target=house.close)
        stopping.start()
        # python-h2 takes the first GOAWAY for the end, so from here on the frames are read as they are.
        rest = b""
        ends = []
        while piece := sock.recv(65_536):
            rest += piece
            while len(rest) >= 9 and len(rest) >= 9 + int.from_bytes(rest[:3], "big"):
                frame, length = hyperframe.frame.Frame.parse_frame_header(memoryview(rest[:9]))
                frame.parse_body(memoryview(rest[9 : 9 + length]))
                rest = rest[9 + length :]
                if isinstance(frame, hyperframe.frame.GoAwayFrame):
                    ends.append((frame.last_stream_id, frame.error_code))
                elif isinstance(frame, hyperframe.frame.PingFrame):
                    frame.flags.add("ACK")
                    sock.sendall(frame.serialize())
    stopping.join(60)
    assert not stopping.is_alive()
    assert ends == [(2**31 - 1, 0), (1, 0)]


def test_garbage_and_http_1_are_turned_away(house: NativeHouse) -> None:
    for sent in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100), b"\x16\x03\x01" + bytes(200)):
        with connect(house) as sock:
            sock.sendall(sent)
            received = b""
            while piece := sock.recv(65_536):
                received += piece
            assert b"this port speaks gRPC" in received


def test_stop_waits_for_calls_and_then_cuts_them(repository: Path) -> None:
    house = NativeHouse(repository)
    with grpc.insecure_channel(house.address) as channel:
        call = channel.unary_unary(INFER).future(message("waiting"))
        until(lambda: inflight(house) == 1, "the request waits in the queue")
        house.close(grace_s=0.1)
        with pytest.raises(grpc.RpcError) as caught:
            call.result(30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stopped before" in (caught.value.details() or "")


# -- limits, over a real socket


def test_connections_beyond_the_limit_are_turned_away(repository: Path) -> None:
    house = NativeHouse(repository, limits=H2Limits(connections=2))
    try:
        kept = [connect(house), connect(house)]
        until(lambda: house.server.connections == 2, "both are connected")
        with connect(house) as sock:
            received = b""
            while piece := sock.recv(65_536):
                received += piece
        assert b"too many connections" in received
        for sock in kept:
            sock.close()
        until(lambda: house.server.connections == 0, "all are gone")
        with grpc.insecure_channel(house.address) as channel:
            assert channel.unary_unary(INFER)(message(), timeout=30)
    finally:
        house.close()
