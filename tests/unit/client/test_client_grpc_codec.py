"""The gRPC codec, with tritonclient's generated messages as the stranger that must agree, in the same process."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from tritonclient.grpc import model_config_pb2, service_pb2

from tensorquay_client import errors
from tensorquay_client.calls import Repeat, Reply
from tensorquay_client.errors import InvalidArgument, ProtocolError
from tensorquay_client.grpc_codec import GrpcCodec
from tensorquay_client.messages import infer_request
from tensorquay_client.pool import message_class

FOLDER = Path(str(files("tensorquay_client")))


def ok(message: Any) -> Reply:
    return Reply(0, {}, message.SerializeToString())


def test_every_message_and_field_is_the_protocols_own() -> None:
    file = descriptor_pb2.FileDescriptorSet.FromString((FOLDER / "inference.binpb").read_bytes()).file[0]
    theirs = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}
    checked = 0

    def compare(ours: Any, other: Any) -> None:
        nonlocal checked
        for field in ours.fields:
            twin = other.fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (twin.number, twin.type, twin.is_repeated), field
            checked += 1
        for nested in ours.nested_types:
            compare(nested, other.nested_types_by_name[nested.name])

    for message in file.message_type:
        compare(message_class(message.name).DESCRIPTOR, theirs[message.name])
    assert checked > 150


def test_the_compiled_messages_are_those_of_the_proto_file(tmp_path: Path) -> None:
    out = tmp_path / "inference.binpb"
    assert protoc.main(["protoc", f"-I{FOLDER}", f"--descriptor_set_out={out}", "inference.proto"]) == 0
    assert descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()) == descriptor_pb2.FileDescriptorSet.FromString(
        (FOLDER / "inference.binpb").read_bytes()
    )


def test_infer_reads_as_tritons_message() -> None:
    numbers, words = np.arange(200, dtype=np.float32), np.array(["a", "bc"])
    call = GrpcCodec().infer(
        infer_request(
            "m",
            {"x": numbers, "empty": np.zeros((0, 2), "i8"), "w": words},
            version=2,
            outputs=["y"],
            id="7",
            parameters={"b": True, "i": -5, "u": 2**63, "d": 0.5, "s": "t"},
            priority=1,
            classification={"z": 3},
        ),
        {"X-Trace": "1"},
    )
    message = service_pb2.ModelInferRequest.FromString(b"".join(call.body))
    assert (message.model_name, message.model_version, message.id) == ("m", "2", "7")
    assert [(t.name, t.datatype, list(t.shape)) for t in message.inputs] == [
        ("x", "FP32", [200]),
        ("empty", "INT64", [0, 2]),
        ("w", "BYTES", [2]),
    ]
    assert list(message.raw_input_contents) == [numbers.tobytes(), b"", b"\1\0\0\0a\2\0\0\0bc"]
    chosen = {key: (value.WhichOneof("parameter_choice")) for key, value in message.parameters.items()}
    assert chosen == {
        "b": "bool_param",
        "i": "int64_param",
        "u": "uint64_param",
        "d": "double_param",
        "s": "string_param",
        "priority": "int64_param",
    }
    assert [entry.name for entry in message.outputs] == ["y", "z"]
    assert message.outputs[1].parameters["classification"].int64_param == 3
    assert call.headers == {"x-trace": "1"}
    assert (call.path, call.repeat) == ("/inference.GRPCInferenceService/ModelInfer", Repeat.IF_REFUSED)


def test_a_parameter_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="parameter 'k'"):
        GrpcCodec().infer(infer_request("m", {}, parameters={"k": 2**64}), {})


def test_raw_and_typed_answers() -> None:
    message = service_pb2.ModelInferResponse(model_name="m", model_version="2", id="7")
    message.parameters["n"].int64_param = 4
    message.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    message.raw_output_contents.append(np.array([1.5, -2], "f4").tobytes())
    typed = message.outputs.add(name="t", datatype="INT8", shape=[2])
    typed.contents.int_contents.extend([-128, 127])
    words = message.outputs.add(name="w", datatype="BYTES", shape=[1])
    words.contents.bytes_contents.append(b"\xff")
    message.outputs.add(name="h", datatype="BF16", shape=[1])
    message.raw_output_contents.append(b"\xc0\x3f")
    result = GrpcCodec().infer(infer_request("m", {}), {}).parse(ok(message))
    assert {name: array.tolist() for name, array in result.outputs.items()} == {
        "y": [[1.5, -2]],
        "t": [-128, 127],
        "w": [b"\xff"],
        "h": [1.5],
    }
    assert result["t"].dtype == np.int8
    assert (result.model_version, result.id, result.parameters) == ("2", "7", {"n": 4})


def broken_answers() -> list[Any]:
    base = service_pb2.ModelInferResponse
    tensor = base.InferOutputTensor
    contents = service_pb2.InferTensorContents
    return [
        base(outputs=[tensor(name="y", datatype="FP32", shape=[1])]),
        base(raw_output_contents=[b"surplus"]),
        base(outputs=[tensor(name="y", datatype="FP32", shape=[-1])], raw_output_contents=[b""]),
        base(outputs=[tensor(name="y", datatype="FP32", shape=[2])], raw_output_contents=[b"\0" * 4]),
        base(outputs=[tensor(name="y", datatype="FP32", shape=[2], contents=contents(fp32_contents=[1]))]),
        base(outputs=[tensor(name="y", datatype="UINT8", shape=[1], contents=contents(uint_contents=[256]))]),
        base(outputs=[tensor(name="y", datatype="FP16", shape=[1], contents=contents(fp32_contents=[1]))]),
    ]


@pytest.mark.parametrize("message", broken_answers())
def test_answers_that_are_not_v2_are_protocol_errors(message: Any) -> None:
    with pytest.raises(ProtocolError):
        GrpcCodec().infer(infer_request("m", {}), {}).parse(ok(message))


def test_bytes_that_are_no_message_are_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="ServerMetadata"):
        GrpcCodec().server_metadata().parse(Reply(0, {}, b"\x0a\xff"))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, errors.Cancelled),
        (2, errors.Internal),
        (3, errors.InvalidArgument),
        (4, errors.DeadlineExceeded),
        (5, errors.NotFound),
        (6, errors.AlreadyExists),
        (7, errors.PermissionDenied),
        (8, errors.Overloaded),
        (12, errors.Unimplemented),
        (13, errors.Internal),
        (14, errors.Unavailable),
        (16, errors.PermissionDenied),
        (99, errors.Internal),
    ],
)
def test_codes_become_kinds_with_the_servers_text(code: int, kind: type[errors.ClientError]) -> None:
    with pytest.raises(errors.ClientError) as caught:
        GrpcCodec().live().parse(Reply(code, {"grpc-retry-pushback-ms": "500"}, b"", "because"))
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.status, caught.value.retry_after_s) == ("because", code, 0.5)


def test_health() -> None:
    codec = GrpcCodec()
    assert codec.live().parse(ok(service_pb2.ServerLiveResponse(live=True))) is True
    assert codec.ready().parse(ok(service_pb2.ServerReadyResponse())) is False
    assert codec.model_ready("m", "1").parse(Reply(5, {}, b"", "unknown model")) is False
    request = service_pb2.ModelReadyRequest.FromString(b"".join(codec.model_ready("m", "1").body))
    assert (request.name, request.version) == ("m", "1")


def test_management_calls() -> None:
    codec = GrpcCodec()
    load = codec.load_model("m", '{"a":1}', {"1/model.onnx": b"\0\1"})
    message = service_pb2.RepositoryModelLoadRequest.FromString(b"".join(load.body))
    assert message.parameters["config"].string_param == '{"a":1}'
    assert message.parameters["file:1/model.onnx"].bytes_param == b"\0\1"
    assert load.repeat is Repeat.NEVER
    unload = service_pb2.RepositoryModelUnloadRequest.FromString(
        b"".join(codec.unload_model("m", dependents=True).body)
    )
    assert unload.model_name == "m"
    assert unload.parameters["unload_dependents"].bool_param
    index = service_pb2.RepositoryIndexResponse()
    index.models.add(name="m", version="1", state="READY")
    assert codec.repository_index(ready=True).parse(ok(index))[0].state == "READY"


def test_metadata_statistics_and_config_have_the_form_of_http() -> None:
    codec = GrpcCodec()
    metadata = service_pb2.ModelMetadataResponse(name="m", versions=["1"], platform="p")
    metadata.inputs.add(name="x", datatype="FP32", shape=[-1, 3])
    assert codec.model_metadata("m", "").parse(ok(metadata)).inputs[0].shape == (-1, 3)
    statistics = service_pb2.ModelStatisticsResponse()
    entry = statistics.model_stats.add(name="m", version="1", inference_count=2**40)
    entry.inference_stats.success.count = 3
    (read,) = codec.statistics("m", "").parse(ok(statistics))
    assert read["inference_count"] == 2**40
    assert read["inference_stats"] == {"success": {"count": 3, "ns": 0}}
    assert read["batch_stats"] == []
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=8)
    config.input.add(name="x", data_type="TYPE_STRING", dims=[-1])
    config.parameters["image_range"].string_value = "0,16"
    config.version_policy.all.SetInParent()
    config.dynamic_batching.priority_queue_policy[1].max_queue_size = 5
    said = codec.model_config("m", "").parse(ok(service_pb2.ModelConfigResponse(config=config)))
    assert said["input"][0]["data_type"] == "TYPE_STRING"
    assert said["parameters"] == {"image_range": {"string_value": "0,16"}}
    assert said["version_policy"] == {"all": {}}
    assert said["dynamic_batching"]["priority_queue_policy"]["1"]["max_queue_size"] == 5
    assert said["max_batch_size"] == 8
