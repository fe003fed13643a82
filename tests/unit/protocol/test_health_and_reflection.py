"""gRPC's own services over bytes."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from tensorquay.core.errors import InvalidArgument
from tensorquay.protocol import health, reflection
from tensorquay.protocol.schema import SERVICES, message_class


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "anything"])
def test_serving_if_and_only_if_ready_whatever_is_named(service):
    request = message_class("grpc.health.v1.HealthCheckRequest")(service=service).SerializeToString()
    assert health.check(request, ready=True) == b"\x08\x01"
    assert health.check(request, ready=False) == b"\x08\x02"


def test_damaged_health_request():
    with pytest.raises(InvalidArgument):
        health.check(b"\x0a\x01\xff", ready=True)


@pytest.fixture(params=["v1", "v1alpha"])
def ask(request):
    def call(**question):
        message = message_class(f"grpc.reflection.{request.param}.ServerReflectionRequest")(host="h", **question)
        data = reflection.answer(message.SerializeToString())
        answer = message_class(f"grpc.reflection.{request.param}.ServerReflectionResponse").FromString(data)
        assert answer.original_request == message
        assert answer.valid_host == "h"
        return answer

    return call


def test_list_services(ask):
    assert [s.name for s in ask(list_services="*").list_services_response.service] == list(SERVICES)


@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService",
        "inference.ModelInferRequest",
        "inference.ModelInferRequest.InferInputTensor",
        "inference.GRPCInferenceService.ModelInfer",
    ],
)
def test_descriptors_are_complete_for_a_client(ask, symbol):
    files = [
        FileDescriptorProto.FromString(data)
        for data in ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
    ]
    assert files[0].name == "inference.proto"
    assert "model_config.proto" in [file.name for file in files]
    theirs = DescriptorPool()
    for file in reversed(files):
        theirs.Add(file)
    assert theirs.FindMethodByName("inference.GRPCInferenceService.ModelInfer").name == "ModelInfer"


def test_file_by_name(ask):
    (data,) = ask(file_by_filename="grpc_health.proto").file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(data).service[0].name == "Health"


@pytest.mark.parametrize("name", ["", "nothing", "inference.", "../x", "x" * 10_000, "žluť", "inference..A"])
def test_unknown_names_are_not_found(ask, name):
    for question in ("file_by_filename", "file_containing_symbol"):
        error = ask(**{question: name}).error_response
        assert error.error_code == 5
        assert len(error.error_message) < 400


def test_extensions_are_not_implemented(ask):
    assert ask(all_extension_numbers_of_type="x").error_response.error_code == 12
    assert ask(file_containing_extension={"containing_type": "x"}).error_response.error_code == 12
    assert ask().error_response.error_code == 12


def test_damaged_reflection_request():
    with pytest.raises(InvalidArgument):
        reflection.answer(b"\xff")
