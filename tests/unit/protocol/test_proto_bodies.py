"""The gRPC messages beside inference, checked through tritonclient's own generated classes."""

import pytest

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.messages import (
    BatchStatistics,
    Duration,
    IndexEntry,
    MemoryUsage,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    SharedMemoryRegion,
)
from tensorquay.core.signature import TensorSpec
from tensorquay.protocol import proto_bodies as bodies
from tensorquay.protocol.json_bodies import LoadRequest
from tensorquay.protocol.schema import message_class

pb = pytest.importorskip("tritonclient.grpc.service_pb2")


def test_flags():
    assert pb.ServerLiveResponse.FromString(bodies.encode_live(True)).live is True
    assert pb.ServerLiveResponse.FromString(bodies.encode_live(False)).live is False
    assert pb.ServerReadyResponse.FromString(bodies.encode_ready(True)).ready is True
    assert pb.ModelReadyResponse.FromString(bodies.encode_ready(True)).ready is True


@pytest.mark.parametrize(
    "message",
    [pb.ModelReadyRequest, pb.ModelMetadataRequest, pb.ModelConfigRequest, pb.ModelStatisticsRequest],
    ids=lambda message: message.__name__,
)
def test_name_and_version(message):
    assert bodies.decode_name_version(message(name="m", version="2").SerializeToString()) == ("m", "2")
    assert bodies.decode_name_version(b"") == ("", "")


def test_server_metadata():
    got = pb.ServerMetadataResponse.FromString(bodies.encode_server_metadata(ServerMetadata("t", "1", ("a", "b"))))
    assert (got.name, got.version, list(got.extensions)) == ("t", "1", ["a", "b"])


def test_model_metadata():
    metadata = ModelMetadata(
        "m", ("1", "2"), "onnxruntime_onnx",
        (TensorSpec("x", DataType.FP32, (-1, 3)),), (TensorSpec("y", DataType.BYTES, (-1,)),), {"why": "because"},
    )  # fmt: skip
    data = bodies.encode_model_metadata(metadata)
    got = pb.ModelMetadataResponse.FromString(data)
    assert (got.name, list(got.versions), got.platform) == ("m", ["1", "2"], "onnxruntime_onnx")
    assert [(t.name, t.datatype, list(t.shape)) for t in (*got.inputs, *got.outputs)] == [
        ("x", "FP32", [-1, 3]),
        ("y", "BYTES", [-1]),
    ]
    assert dict(message_class("inference.ModelMetadataResponse").FromString(data).properties) == {"why": "because"}


def test_model_config():
    config = message_class("inference.ModelConfig")(name="m", max_batch_size=8)
    got = pb.ModelConfigResponse.FromString(bodies.encode_model_config(config))
    assert (got.config.name, got.config.max_batch_size) == ("m", 8)


def test_statistics():
    def d(n):
        return Duration(n, n * 10)

    item = ModelStatistics(
        "m", "1", 123, 7, 3, d(1), d(2), d(3), d(4), d(5), d(6), d(7), d(8),
        (BatchStatistics(4, d(1), d(2), d(3)),), (MemoryUsage("CPU", 0, 99),),
    )  # fmt: skip
    (got,) = pb.ModelStatisticsResponse.FromString(bodies.encode_statistics([item])).model_stats
    assert (got.name, got.version, got.last_inference, got.inference_count, got.execution_count) == (
        "m",
        "1",
        123,
        7,
        3,
    )
    counts = [(field.name, value.count, value.ns) for field, value in got.inference_stats.ListFields()]
    names = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    assert counts == [(name, n + 1, (n + 1) * 10) for n, name in enumerate(names)]
    (batch,) = got.batch_stats
    assert (batch.batch_size, batch.compute_input.ns, batch.compute_infer.ns, batch.compute_output.ns) == (
        4,
        10,
        20,
        30,
    )
    (memory,) = got.memory_usage
    assert (memory.type, memory.id, memory.byte_size) == ("CPU", 0, 99)


def test_index():
    request = pb.RepositoryIndexRequest(repository_name="r", ready=True)
    assert bodies.decode_index(request.SerializeToString()) == ("r", True)
    data = bodies.encode_index([IndexEntry("a"), IndexEntry("b\udcff", "1", "UNAVAILABLE", "unloaded")])
    got = pb.RepositoryIndexResponse.FromString(data)
    assert [(m.name, m.version, m.state, m.reason) for m in got.models] == [
        ("a", "", "", ""),
        ("b?", "1", "UNAVAILABLE", "unloaded"),
    ]


def load(**parameters):
    request = pb.RepositoryModelLoadRequest(repository_name="r", model_name="m")
    for name, value in parameters.items():
        request.parameters[name].CopyFrom(pb.ModelRepositoryParameter(**value))
    return request.SerializeToString()


def test_load():
    assert bodies.decode_load(load()) == ("r", "m", LoadRequest())
    got = bodies.decode_load(load(config={"string_param": "{}"}, **{"file:1/model.onnx": {"bytes_param": b"\0"}}))
    assert got == ("r", "m", LoadRequest("{}", {"1/model.onnx": b"\0"}))


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"config": {"bytes_param": b"{}"}}, "'config' must be a string_param"),
        ({"config": {}}, "'config' must be a string_param"),
        ({"file:1/a": {"bytes_param": b""}}, "need parameter 'config'"),
        ({"config": {"string_param": "{}"}, "file:1/a": {"string_param": ""}}, "must be a bytes_param"),
        ({"config": {"string_param": "{}"}, "file:1/../a": {"bytes_param": b""}}, "inside the model's folder"),
        ({"other": {"bool_param": True}}, "unknown load parameter"),
        ({f"file:1/{i}": {"bytes_param": b""} for i in range(1026)}, "1026 load parameters"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_loads_that_are_refused(parameters, word):
    with pytest.raises(InvalidArgument, match=word):
        bodies.decode_load(load(**parameters))


def test_unload():
    request = pb.RepositoryModelUnloadRequest(model_name="m")
    assert bodies.decode_unload(request.SerializeToString()) == ("", "m", False)
    request.parameters["unload_dependents"].bool_param = True
    assert bodies.decode_unload(request.SerializeToString()) == ("", "m", True)
    request.parameters["unload_dependents"].int64_param = 1
    with pytest.raises(InvalidArgument, match="bool_param"):
        bodies.decode_unload(request.SerializeToString())
    request.parameters["x"].bool_param = True
    del request.parameters["unload_dependents"]
    with pytest.raises(InvalidArgument, match="unknown unload parameter 'x'"):
        bodies.decode_unload(request.SerializeToString())


@pytest.mark.parametrize(
    "message",
    [
        pb.SystemSharedMemoryStatusRequest,
        pb.SystemSharedMemoryUnregisterRequest,
        pb.CudaSharedMemoryStatusRequest,
        pb.CudaSharedMemoryUnregisterRequest,
    ],
    ids=lambda message: message.__name__,
)
def test_region_names(message):
    assert bodies.decode_region_name(message(name="r").SerializeToString()) == "r"
    assert bodies.decode_region_name(b"") == ""


def test_shared_memory():
    request = pb.SystemSharedMemoryRegisterRequest(name="r", key="/k", offset=4, byte_size=8)
    region = bodies.decode_shm_register(request.SerializeToString())
    assert region == SharedMemoryRegion("r", "/k", 4, 8)
    got = pb.SystemSharedMemoryStatusResponse.FromString(bodies.encode_shared_memory([region]))
    assert dict(got.regions) == {"r": got.RegionStatus(name="r", key="/k", offset=4, byte_size=8)}
    assert not pb.CudaSharedMemoryStatusResponse.FromString(bodies.encode_shared_memory([])).regions
    for change in ({"name": ""}, {"key": ""}, {"offset": 2**63}, {"byte_size": 2**64 - 1}):
        bad = pb.SystemSharedMemoryRegisterRequest(**{"name": "r", "key": "/k", "offset": 4, "byte_size": 8, **change})
        with pytest.raises(InvalidArgument):
            bodies.decode_shm_register(bad.SerializeToString())


def test_trace_settings():
    request = pb.TraceSettingRequest(model_name="m")
    request.settings["trace_level"].value.extend(["TIMESTAMPS", "TENSORS"])
    request.settings["trace_rate"].Clear()
    assert bodies.decode_trace_setting(request.SerializeToString()) == (
        "m",
        {"trace_level": ["TIMESTAMPS", "TENSORS"], "trace_rate": []},
    )
    got = pb.TraceSettingResponse.FromString(bodies.encode_trace_setting({"trace_rate": ["1000"], "trace_file": [""]}))
    assert {name: list(value.value) for name, value in got.settings.items()} == {
        "trace_rate": ["1000"],
        "trace_file": [""],
    }


def test_log_settings():
    settings = {"log_info": False, "log_verbose_level": 3, "log_format": "default"}
    got = pb.LogSettingsResponse.FromString(bodies.encode_log_settings(settings))
    assert got.settings["log_info"].WhichOneof("parameter_choice") == "bool_param"
    request = pb.LogSettingsRequest.FromString(got.SerializeToString())
    assert bodies.decode_log_settings(request.SerializeToString()) == settings
    request.settings["x"].Clear()
    with pytest.raises(InvalidArgument, match="'x' has no value"):
        bodies.decode_log_settings(request.SerializeToString())


@pytest.mark.parametrize(
    "decode",
    [
        bodies.decode_name_version,
        bodies.decode_index,
        bodies.decode_load,
        bodies.decode_unload,
        bodies.decode_region_name,
        bodies.decode_shm_register,
        bodies.decode_trace_setting,
        bodies.decode_log_settings,
    ],
    ids=lambda decode: decode.__name__,
)
@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05a", b"\x0b"])
def test_damaged_messages(decode, data):
    with pytest.raises(InvalidArgument, match="no valid inference"):
        decode(data)


@pytest.mark.parametrize("decode", [bodies.decode_name_version, bodies.decode_load, bodies.decode_unload])
def test_text_that_is_not_utf8(decode):
    with pytest.raises(InvalidArgument, match="not UTF-8"):
        decode(b"\x12\x01\xff")
