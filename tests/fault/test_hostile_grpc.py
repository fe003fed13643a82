"""Messages and frames that no honest client sends: a status or an end for them, nothing for anybody else."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import grpc
import numpy as np
import pytest
from tests.support import ask, graphs
from tests.support.http_raw import RawConnection
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until
from tritonclient.grpc import service_pb2

ROW = ask.sequence([[1, 2, 3, 4]])
GOOD = ask.infer_message(ROW, "scale")

_CLIENTS_FAULT = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.ALREADY_EXISTS,
    # Loading what is not allowed, or cannot be loaded, at this moment.
    grpc.StatusCode.UNAVAILABLE,
    None,
}
"""Statuses that a broken message may get; None is success."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repo = Repo(tmp_path_factory.mktemp("hostile") / "repo")
    repo.model("scale", {1: graphs.scale(2.0)})
    repo.model("any", {1: graphs.identity("FP32", ("batch", "n"))})
    repo.model("text", {1: graphs.identity("BYTES")})
    repo.model("other", {1: graphs.scale(3.0)})
    running = start([repo.root], "--model-control-mode=explicit", "--load-model=*", "--grpc-max-message-size=1000000")
    yield running
    assert running.stop() == 0, running.told()
    assert "Traceback" not in running.told(), running.told()[-10_000:]


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc, (("grpc.enable_retries", 0),)) as made:
        yield made


@pytest.fixture(autouse=True)
def _unharmed(server: RunningServer) -> Iterator[None]:
    yield
    with grpc.insecure_channel(server.grpc) as fresh:
        assert ask.raw_values(ask.unary(fresh, "ModelInfer")(GOOD)) == [2, 4, 6, 8]
    until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 0, "nothing is left inside")


def _status(call: Callable[[bytes], bytes], message: bytes) -> grpc.StatusCode | None:
    try:
        call(message)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return None


# -- messages


def _messages() -> dict[str, bytes]:
    """A valid message for every control method; a second one has a blank behind its method's name."""
    pb = service_pb2
    load = pb.RepositoryModelLoadRequest(model_name="other")
    load.parameters["config"].string_param = '{"max_batch_size": 4}'
    upload = pb.RepositoryModelLoadRequest(model_name="other")
    upload.parameters["config"].string_param = "{}"
    upload.parameters["file:1/model.onnx"].bytes_param = graphs.scale(3.0).SerializeToString()
    trace = pb.TraceSettingRequest(model_name="other")
    trace.settings["trace_rate"].value.append("7")
    log = pb.LogSettingsRequest()
    log.settings["log_verbose_level"].uint32_param = 0
    found = {
        "ServerLive": pb.ServerLiveRequest(),
        "ServerReady": pb.ServerReadyRequest(),
        "ModelReady": pb.ModelReadyRequest(name="scale", version="1"),
        "ServerMetadata": pb.ServerMetadataRequest(),
        "ModelMetadata": pb.ModelMetadataRequest(name="scale", version="1"),
        "ModelConfig": pb.ModelConfigRequest(name="scale", version="1"),
        "ModelStatistics": pb.ModelStatisticsRequest(name="scale", version="1"),
        "RepositoryIndex": pb.RepositoryIndexRequest(ready=True),
        "RepositoryModelLoad": load,
        "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="other"),
        "SystemSharedMemoryStatus": pb.SystemSharedMemoryStatusRequest(name="r"),
        "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterRequest(name="r", key="/k", offset=0, byte_size=16),
        "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterRequest(name="r"),
        "CudaSharedMemoryStatus": pb.CudaSharedMemoryStatusRequest(name="r"),
        "CudaSharedMemoryRegister": pb.CudaSharedMemoryRegisterRequest(name="r", raw_handle=b"h", byte_size=16),
        "CudaSharedMemoryUnregister": pb.CudaSharedMemoryUnregisterRequest(name="r"),
        "TraceSetting": trace,
        "LogSettings": log,
    }
    return {name: message.SerializeToString() for name, message in found.items()} | {
        "RepositoryModelLoad ": upload.SerializeToString()
    }


CONTROL = _messages()


def _mutated(message: bytes, random_: random.Random) -> bytes:
    data = bytearray(message or b"\n\x01x")
    for _ in range(random_.randint(1, 5)):
        at = random_.randrange(len(data) + 1)
        match random_.randrange(7):
            case 0:
                data[at : at + 1] = bytes([random_.randrange(256)])
            case 1:
                del data[at : at + random_.randint(1, 12)]
            case 2:
                data[at:at] = data[at : at + random_.randint(1, 12)]
            case 3:
                data[at:at] = random_.randbytes(random_.randint(1, 8))
            case 4:  # a length or number of many bytes
                data[at:at] = b"\xff" * random_.randint(1, 10) + b"\x7f"
            case 5:  # a tag of some field and wire type
                data[at:at] = bytes([random_.randrange(1, 12) << 3 | random_.randrange(8)])
            case 6:
                del data[at:]
    return bytes(data)


@pytest.mark.parametrize("method", CONTROL)
def test_mutated_control_messages_are_the_clients_fault(channel: grpc.Channel, method: str) -> None:
    random_ = random.Random(method)
    call = ask.unary(channel, method.strip())
    for _ in range(40 if method.startswith("RepositoryModelLoad") else 80):
        message = _mutated(CONTROL[method], random_)
        assert _status(call, message) in _CLIENTS_FAULT, message


INFER = {
    "raw": GOOD,
    "typed": service_pb2.ModelInferRequest(
        model_name="scale",
        id="7",
        inputs=[
            service_pb2.ModelInferRequest.InferInputTensor(
                name="x",
                datatype="FP32",
                shape=[1, 4],
                contents=service_pb2.InferTensorContents(fp32_contents=[1, 2, 3, 4]),
            )
        ],
        outputs=[service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="y")],
    ).SerializeToString(),
    "open shape": ask.infer_message(ROW, "any"),
    "strings": service_pb2.ModelInferRequest(
        model_name="text",
        inputs=[service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1, 2])],
        raw_input_contents=[struct.pack("<I3sI2s", 3, b"abc", 2, b"de")],
    ).SerializeToString(),
}


@pytest.mark.parametrize("kind", INFER)
def test_mutated_predictions_are_the_clients_fault(channel: grpc.Channel, kind: str) -> None:
    """Triton died of 5 in 25,000 of these."""
    random_ = random.Random(kind)
    call = ask.unary(channel, "ModelInfer")
    codes: dict[grpc.StatusCode | None, int] = {}
    for _ in range(600):
        message = _mutated(INFER[kind], random_)
        code = _status(call, message)
        codes[code] = codes.get(code, 0) + 1
        assert code in _CLIENTS_FAULT, message
    assert len(codes) > 2, f"hardly anything was tried: {codes}"


def test_mutated_predictions_on_a_stream_leave_it_open(channel: grpc.Channel) -> None:
    random_ = random.Random("stream")
    messages = [GOOD if number % 2 else _mutated(GOOD, random_) for number in range(400)]
    stream = channel.stream_stream(ask.SERVICE + "ModelStreamInfer")(iter(messages))
    told = [service_pb2.ModelStreamInferResponse.FromString(each) for each in stream]
    assert len(told) == 400
    good = [each for each in told if not each.error_message]
    assert len(good) >= 200


def test_thousands_of_malformed_messages_cost_no_memory(server: RunningServer, channel: grpc.Channel) -> None:
    call = ask.unary(channel, "ModelInfer")
    random_ = random.Random("memory")
    for _ in range(500):
        _status(call, _mutated(GOOD, random_))
    before = ask.rss_mib(server)

    for _ in range(3_000):
        _status(call, _mutated(GOOD, random_))

    assert ask.rss_mib(server) < before + 32


SHAPES = [
    [-1, 4], [0, 4], [1, -4], [2**31, 2**31], [2**32, 2**32], [2**62, 4], [2**63 - 1, 1], [-(2**63), 1], [1] * 5000, [],
    [1, 4, 1], [4], [2**16] * 4, [3037000500, 3037000500],
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: str(shape)[:30])
@pytest.mark.parametrize("model", ["scale", "any", "text"])
def test_a_shape_that_is_none_is_refused(channel: grpc.Channel, shape: list[int], model: str) -> None:
    message = service_pb2.ModelInferRequest(model_name=model)
    message.inputs.add(name="x", datatype="BYTES" if model == "text" else "FP32", shape=shape)
    call = ask.unary(channel, "ModelInfer")
    for raw in (b"", ROW.tobytes(), b"\xff" * 64):
        del message.raw_input_contents[:]
        message.raw_input_contents.append(raw)
        code = _status(call, message.SerializeToString())
        if code is not grpc.StatusCode.INVALID_ARGUMENT:
            assert code is None
            assert (shape, raw) == ([0, 4], b""), "nothing, in the right shape, is a request"


def test_a_message_beyond_the_limit_is_refused(channel: grpc.Channel) -> None:
    message = ask.infer_message(np.zeros((1, 300_000), np.float32), "any")
    assert _status(ask.unary(channel, "ModelInfer"), message) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_method_nobody_knows_is_refused(channel: grpc.Channel) -> None:
    for path in ("/inference.GRPCInferenceService/Nothing", "/a/b", "/" + "x" * 3000 + "/y"):
        assert _status(channel.unary_unary(path), b"") is grpc.StatusCode.UNIMPLEMENTED


def test_another_number_of_messages_than_one(channel: grpc.Channel) -> None:
    """None at all is refused; of several the first may be served, as grpcio does."""
    for messages, served in (([], False), ([GOOD, GOOD], True)):
        call = channel.stream_stream(ask.SERVICE + "ModelInfer")(iter(messages), timeout=30)
        refused = call.code() in {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL}
        assert refused or (served and call.code() is grpc.StatusCode.OK), call.details()


# -- frames

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


SETTINGS = _frame(4, 0, 0)


# Literal headers without indexing, so that no table is needed: a call of ModelInfer.
def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEAD = b"".join(
    _literal(*pair)
    for pair in (
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
        (b":authority", b"x"), (b"te", b"trailers"), (b"content-type", b"application/grpc"),
    )
)  # fmt: skip
CALL = _frame(1, 4, 1, HEAD)
BODY = b"\x00" + struct.pack(">I", len(GOOD)) + GOOD

FRAMES = {
    "no preface": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 16,
    "half a preface": PREFACE[:10],
    "another first frame": PREFACE + _frame(6, 0, 0, bytes(8)),
    "a frame of 16 MB": PREFACE + SETTINGS + _frame(0, 0, 1, b"", 2**24 - 1),
    "settings on a stream": PREFACE + _frame(4, 0, 1),
    "settings of 5 bytes": PREFACE + _frame(4, 0, 0, bytes(5)),
    "a window of 2^31": PREFACE + _frame(4, 0, 0, struct.pack(">HI", 4, 2**31)),
    "frames of 1 byte": PREFACE + _frame(4, 0, 0, struct.pack(">HI", 5, 1)),
    "a table of 4 GB": PREFACE + _frame(4, 0, 0, struct.pack(">HI", 1, 2**32 - 1)) + CALL,
    "data on stream 0": PREFACE + SETTINGS + _frame(0, 0, 0, b"x"),
    "data on an idle stream": PREFACE + SETTINGS + _frame(0, 0, 7, b"x"),
    "an even stream": PREFACE + SETTINGS + _frame(1, 4, 2, HEAD),
    "headers twice": PREFACE + SETTINGS + CALL + CALL,
    "headers that are no HPACK": PREFACE + SETTINGS + _frame(1, 4, 1, b"\xff" * 100),
    "an index out of the table": PREFACE + SETTINGS + _frame(1, 4, 1, b"\xff\xff\xff\xff\x7f"),
    "a header of 2 GB": PREFACE + SETTINGS + _frame(1, 4, 1, b"\x00\x7f\xff\xff\xff\xff\x07"),
    "padding beyond the frame": PREFACE + SETTINGS + _frame(1, 12, 1, b"\xff" + HEAD[:10]),
    "a stream that depends on itself": PREFACE + SETTINGS + _frame(1, 0x24, 1, struct.pack(">IB", 1, 0) + HEAD),
    "an endless block": PREFACE + SETTINGS + _frame(1, 0, 1, HEAD) + _frame(9, 0, 1, b"\x00\x01a\x01b" * 2000) * 200,
    "something between a block": PREFACE + SETTINGS + _frame(1, 0, 1, HEAD) + _frame(6, 0, 0, bytes(8)),
    "a window update of 0": PREFACE + SETTINGS + _frame(8, 0, 0, bytes(4)),
    "a window beyond 2^31": PREFACE + SETTINGS + _frame(8, 0, 0, struct.pack(">I", 2**31 - 1)) * 2,
    "a push": PREFACE + SETTINGS + _frame(5, 4, 1, struct.pack(">I", 2) + HEAD),
    "a reset of an idle stream": PREFACE + SETTINGS + _frame(3, 0, 9, bytes(4)),
    "pings without end": PREFACE + SETTINGS + _frame(6, 0, 0, bytes(8)) * 20_000,
    "settings without end": PREFACE + SETTINGS * 20_000,
    "rapid resets": PREFACE + SETTINGS + b"".join(
        _frame(1, 4, number, HEAD) + _frame(3, 0, number, struct.pack(">I", 8)) for number in range(1, 20_001, 2)
    ),
    "streams without end": PREFACE + SETTINGS + b"".join(_frame(1, 4, number, HEAD) for number in range(1, 20_001, 2)),
    "empty data without end": PREFACE + SETTINGS + CALL + _frame(0, 0, 1) * 50_000,
    "a message of 4 GB": PREFACE + SETTINGS + CALL + _frame(0, 1, 1, b"\x00\xff\xff\xff\xff" + bytes(100)),
    "a message cut short": PREFACE + SETTINGS + CALL + _frame(0, 1, 1, BODY[:-5]),
    "a compressed message that is none": PREFACE + SETTINGS + CALL + _frame(0, 1, 1, b"\x01" + BODY[1:]),
    "a flag nobody knows": PREFACE + SETTINGS + CALL + _frame(0, 1, 1, b"\x07" + BODY[1:]),
    "no message": PREFACE + SETTINGS + CALL + _frame(0, 1, 1),
    "two messages": PREFACE + SETTINGS + CALL + _frame(0, 1, 1, BODY + BODY),
    "frames nobody knows": PREFACE + SETTINGS + _frame(99, 255, 5, b"x" * 100) + CALL + _frame(0, 1, 1, BODY),
    "a goodbye": PREFACE + SETTINGS + CALL + _frame(7, 0, 0, bytes(8)) + _frame(0, 1, 1, BODY),
    "a GET": PREFACE + SETTINGS + _frame(1, 5, 1, HEAD.replace(b"\x04POST", b"\x03GET")),
    "no path": PREFACE + SETTINGS + _frame(1, 5, 1, _literal(b":method", b"POST")),
    "a header in capitals": PREFACE + SETTINGS + _frame(1, 5, 1, HEAD + _literal(b"X-Y", b"z")),
    "a timeout that is none": PREFACE + SETTINGS + _frame(1, 4, 1, HEAD + _literal(b"grpc-timeout", b"-5x"))
    + _frame(0, 1, 1, BODY),
    "a timeout of 10^8 hours": PREFACE + SETTINGS + _frame(1, 4, 1, HEAD + _literal(b"grpc-timeout", b"99999999H"))
    + _frame(0, 1, 1, BODY),
    "metadata that is no base64": PREFACE + SETTINGS + _frame(1, 4, 1, HEAD + _literal(b"a-bin", b"!!!!"))
    + _frame(0, 1, 1, BODY),
}  # fmt: skip


@pytest.mark.parametrize("case", FRAMES)
def test_frames_that_no_client_sends_end_their_connection_at_most(server: RunningServer, case: str) -> None:
    before = ask.rss_mib(server)
    with Load(server, "scale", http=0, grpc=1) as load:
        with RawConnection(server.grpc) as connection:
            connection.send(FRAMES[case])
            load.more(10)
        load.more(2)
    load.check({2.0})
    assert ask.rss_mib(server) < before + 64


def test_random_frames(server: RunningServer) -> None:
    random_ = random.Random("frames")
    for _ in range(150):
        data = PREFACE + SETTINGS
        for _ in range(random_.randint(1, 12)):
            payload = random_.choice((HEAD, BODY, random_.randbytes(random_.randint(0, 60))))
            stream = random_.choice((0, 1, 1, 1, 3, 5, 2**31 - 1))
            data += _frame(random_.randrange(11), random_.randrange(256), stream, payload)
        with RawConnection(server.grpc) as connection:
            connection.send(data)
            connection.socket.shutdown(1)
            while not connection.ends():
                pass
