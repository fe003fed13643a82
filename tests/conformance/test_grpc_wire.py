"""gRPC below the level of a client library: messages, streams, health, reflection, cancellation (section 2)."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tests.support.serving import RunningServer
from tritonclient.grpc import service_pb2

import tensorquay.protocol
from doors import Grpc, checked, grpc_request, read_message
from observing import failures, waits
from waiting import until
from wire import Answer, Call, given

SERVICE = "/inference.GRPCInferenceService/"
ROW = given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]])
PROTOCOL = Path(tensorquay.protocol.__file__).parent


@pytest.fixture(scope="module")
def channel(zoo: RunningServer) -> Iterator[grpc.Channel]:
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(zoo.grpc, options=options) as channel:
        yield channel


@pytest.fixture(scope="module")
def door(zoo: RunningServer) -> Iterator[Grpc]:
    door = Grpc(zoo.grpc)
    yield door
    door.close()


def messages_of(descriptor_set: str) -> Callable[[str], Any]:
    """Message classes of one of our own descriptor sets, in a pool of their own."""
    files = descriptor_pb2.FileDescriptorSet.FromString((PROTOCOL / descriptor_set).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def raw_call(channel: grpc.Channel, method: str, message: bytes, **options: Any) -> bytes:
    answer: bytes = channel.unary_unary(method)(message, timeout=30, **options)
    return answer


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), checked(caught.value.details())


# -- messages


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x00", b"\x2a\x02\x0a\x05"])
def test_2_what_is_no_message(channel: grpc.Channel, message: bytes) -> None:
    code, _ = refusal(lambda: raw_call(channel, f"{SERVICE}ModelInfer", message))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "method", ["ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex", "TraceSetting"]
)
def test_2_what_is_no_message_elsewhere(channel: grpc.Channel, method: str) -> None:
    code, _ = refusal(lambda: raw_call(channel, SERVICE + method, b"\x0a\xff"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_2_a_large_message_that_is_damaged(channel: grpc.Channel) -> None:
    good = grpc_request(Call("t_fp32", (given("x", "FP32", [[0.0] * 50_000]),))).SerializeToString()
    for broken in (good[:-1], b"\x0b" + good, good + b"\x3a\x7f"):
        code, _ = refusal(lambda broken=broken: raw_call(channel, f"{SERVICE}ModelInfer", broken))
        assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_2_unknown_methods(channel: grpc.Channel) -> None:
    for method in (f"{SERVICE}NoSuch", "/other.Service/Call", "/grpc.health.v1.Health/Watch"):
        with pytest.raises(grpc.RpcError) as caught:
            raw_call(channel, method, b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_2_raw_entries_that_do_not_match_the_inputs(door: Grpc) -> None:
    request = grpc_request(Call("split", (given("INPUT0", "INT32", [[1] * 4]), given("INPUT1", "INT32", [[1] * 4]))))
    surplus, short = service_pb2.ModelInferRequest(), service_pb2.ModelInferRequest()
    surplus.CopyFrom(request)
    surplus.raw_input_contents.append(b"")
    short.CopyFrom(request)
    del short.raw_input_contents[1]
    mixed = service_pb2.ModelInferRequest()
    mixed.CopyFrom(request)
    mixed.inputs[0].contents.int_contents.extend([1] * 4)
    wrong = grpc_request(Call("double", (ROW,)), typed=True)
    wrong.inputs[0].ClearField("contents")
    wrong.inputs[0].contents.int_contents.extend([1] * 4)
    for broken, says in (
        (surplus, "unexpected additional input data"),
        (short, "'INPUT1'"),
        (mixed, "contents field must not be specified when using raw_input_contents"),
        (wrong, "'fp32_contents'"),
    ):
        code, text = refusal(lambda broken=broken: door.stub.ModelInfer(broken))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert says in text


@pytest.mark.parametrize(
    ("wire", "value"), [("UINT8", 256), ("INT8", 128), ("INT8", -129), ("INT16", 2**15), ("UINT16", 2**16)]
)
def test_2_typed_elements_outside_their_type(door: Grpc, wire: str, value: int) -> None:
    request = grpc_request(Call(f"t_{wire.lower()}", (given("x", wire, [[1]]),)), typed=True)
    field = "int_contents" if wire.startswith("INT") else "uint_contents"
    getattr(request.inputs[0].contents, field)[0] = value
    code, text = refusal(lambda: door.stub.ModelInfer(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "out of range" in text


def test_2_a_parameter_without_a_value(door: Grpc) -> None:
    request = grpc_request(Call("double", (ROW,)))
    request.parameters["p"].SetInParent()
    code, text = refusal(lambda: door.stub.ModelInfer(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'p'" in text


def test_1_8_priority_may_be_unsigned_and_sequence_ids_too(door: Grpc) -> None:
    request = grpc_request(Call("ranked", (ROW,)))
    request.parameters["priority"].uint64_param = 1
    request.parameters["sequence_id"].uint64_param = 2**64 - 1
    assert isinstance(read_message(door.stub.ModelInfer(request)), Answer)


def test_2_64_mib_go_both_ways(zoo: RunningServer) -> None:
    values = np.arange(16 * 2**20, dtype=np.float32)
    request = service_pb2.ModelInferRequest(model_name="t_fp32")
    request.inputs.add(name="x", datatype="FP32", shape=[1, values.size])
    request.raw_input_contents.append(values.tobytes())
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(zoo.grpc, options=options) as channel:
        call = channel.unary_unary(
            f"{SERVICE}ModelInfer",
            service_pb2.ModelInferRequest.SerializeToString,
            service_pb2.ModelInferResponse.FromString,
        )
        answer = call(request, timeout=60)
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], np.float32), values)


def test_2_decoupled_marks_are_accepted(door: Grpc) -> None:
    request = grpc_request(Call("double", (ROW,), parameters={"triton_enable_empty_final_response": True}))
    assert isinstance(read_message(door.stub.ModelInfer(request)), Answer)


# -- streams


def stream(door: Grpc, **options: Any) -> tuple[Any, queue.Queue[Any]]:
    """An open ModelStreamInfer and the queue of what it will send; None ends it."""
    outbox: queue.Queue[Any] = queue.Queue()
    return door.stub.ModelStreamInfer(iter(outbox.get, None), timeout=60, **options), outbox


def test_2_a_stream_answers_every_request_by_its_id(door: Grpc) -> None:
    calls = [Call("double", (given("x", "FP32", [[float(n)] * 4]),), id=str(n)) for n in range(50)]
    answers = door.stub.ModelStreamInfer(map(grpc_request, calls), timeout=60)
    got = {answer.infer_response.id: read_message(answer.infer_response) for answer in answers}
    assert {key: answer.outputs[0].flat[0] for key, answer in got.items()} == {str(n): 2.0 * n for n in range(50)}


def test_2_a_failure_is_a_message_and_the_stream_goes_on(door: Grpc) -> None:
    answers, outbox = stream(door)
    for call, failed in (
        (Call("nosuch", (ROW,), id="first"), True),
        (Call("double", (ROW,), id="second"), False),
        (Call("double", (given("x", "FP32", [[1.0]]),), id="third"), True),
        (Call("double", (ROW,), id="fourth"), False),
    ):
        outbox.put(grpc_request(call))
        answer = next(answers)
        assert bool(answer.error_message) is failed
        assert answer.infer_response.id == call.id
        assert not failed or call.id in answer.error_message
    outbox.put(None)
    assert list(answers) == []


def test_2_a_refused_request_of_any_size_is_named_and_one_that_cannot_be_read_is_not(channel: grpc.Channel) -> None:
    large = grpc_request(Call("double", (given("x", "FP32", [[0.0] * 50_000]),), id="large"))
    good = grpc_request(Call("double", (ROW,), id="good"))
    sent = [large.SerializeToString(), b"\x0a\xff", b"\x0b" * 50_000, good.SerializeToString()]
    answers = [
        service_pb2.ModelStreamInferResponse.FromString(answer)
        for answer in channel.stream_stream(f"{SERVICE}ModelStreamInfer")(iter(sent), timeout=30)
    ]
    told = [(bool(answer.error_message), answer.infer_response.id) for answer in answers]
    assert sorted(told) == sorted([(True, "large"), (True, ""), (True, ""), (False, "good")])


def test_2_with_triton_grpc_error_a_failure_ends_the_stream(door: Grpc) -> None:
    answers, outbox = stream(door, metadata=(("triton_grpc_error", "true"),))
    outbox.put(grpc_request(Call("double", (ROW,))))
    assert not next(answers).error_message
    outbox.put(grpc_request(Call("nosuch", (ROW,))))
    code, text = refusal(lambda: next(answers))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "unknown model" in text
    outbox.put(None)


def test_2_a_stream_without_requests_ends_well(door: Grpc) -> None:
    assert list(door.stub.ModelStreamInfer(iter(()), timeout=30)) == []


# -- leaving


def test_2_a_client_that_cancels_leaves_the_queue(zoo: RunningServer, door: Grpc) -> None:
    before = failures(zoo, "waiting")
    call = door.stub.ModelInfer.future(grpc_request(Call("waiting", (ROW,))))
    until(lambda: waits(zoo, "waiting"), "the request waits")
    call.cancel()
    assert call.cancelled()
    until(lambda: failures(zoo, "waiting") == before + 1, "the request has left")
    assert not waits(zoo, "waiting")


def test_2_a_deadline_that_passes_leaves_the_queue(zoo: RunningServer, door: Grpc) -> None:
    before = failures(zoo, "waiting")
    with pytest.raises(grpc.RpcError) as caught:
        door.stub.ModelInfer(grpc_request(Call("waiting", (ROW,))), timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: failures(zoo, "waiting") == before + 1, "the request has left")
    assert not waits(zoo, "waiting")


def test_2_a_stream_that_is_cancelled_takes_its_requests_along(zoo: RunningServer, door: Grpc) -> None:
    before = failures(zoo, "waiting")
    answers, outbox = stream(door)
    outbox.put(grpc_request(Call("waiting", (ROW,))))
    until(lambda: waits(zoo, "waiting"), "the request waits")
    answers.cancel()
    until(lambda: failures(zoo, "waiting") == before + 1, "the request has left")
    outbox.put(None)


# -- health and reflection


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "whatever"])
def test_2_health_says_serving_whatever_is_named(channel: grpc.Channel, service: str) -> None:
    messages = messages_of("grpc_health.binpb")
    request = messages("grpc.health.v1.HealthCheckRequest")(service=service).SerializeToString()
    answer = messages("grpc.health.v1.HealthCheckResponse").FromString(
        raw_call(channel, "/grpc.health.v1.Health/Check", request)
    )
    assert answer.status == 1


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_2_reflection_lists_the_services_and_describes_them(channel: grpc.Channel, version: str) -> None:
    suffix = "" if version == "v1" else "_v1alpha"
    messages = messages_of(f"grpc_reflection{suffix}.binpb")
    package = f"grpc.reflection.{version}"
    request = messages(f"{package}.ServerReflectionRequest")
    call = channel.stream_stream(f"/{package}.ServerReflection/ServerReflectionInfo")
    asked = [
        request(list_services=""),
        request(file_containing_symbol="inference.GRPCInferenceService"),
        request(file_containing_symbol="no.such.Thing"),
        request(file_by_filename="no/such.proto"),
    ]
    answers = [
        messages(f"{package}.ServerReflectionResponse").FromString(answer)
        for answer in call(iter([each.SerializeToString() for each in asked]), timeout=30)
    ]
    assert len(answers) == len(asked)
    services = {service.name for service in answers[0].list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(text)
        for text in answers[1].file_descriptor_response.file_descriptor_proto
    ]
    methods = {m.name for file in files for service in file.service for m in service.method}
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert set(theirs) <= methods
    assert [answer.error_response.error_code for answer in answers[2:]] == [5, 5]
