"""Inference messages of gRPC, checked through tritonclient's own generated classes."""

import numpy as np
import pytest

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument, ServingError, Unimplemented
from tensorquay.core.messages import InferResponse, RequestedOutput, Timings
from tensorquay.core.tensors import Tensor
from tensorquay.protocol import v2_proto
from tensorquay.protocol.options import OutputWire, WireOptions
from tensorquay.protocol.shared_memory import ShmTarget

pb = pytest.importorskip("tritonclient.grpc.service_pb2")

TYPED = {
    "BOOL": ("bool_contents", [True, False]),
    "UINT8": ("uint_contents", [0, 255]),
    "UINT16": ("uint_contents", [0, 65535]),
    "UINT32": ("uint_contents", [0, 2**32 - 1]),
    "UINT64": ("uint64_contents", [0, 2**64 - 1]),
    "INT8": ("int_contents", [-128, 127]),
    "INT16": ("int_contents", [-32768, 32767]),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1]),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1]),
    "FP32": ("fp32_contents", [0.5, float("-inf")]),
    "FP64": ("fp64_contents", [1e300, -0.5]),
    "BYTES": ("bytes_contents", [b"", b"\xff\x00"]),
}


def message(*inputs, raw=(), **more):
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=raw, **more)
    for name, datatype, shape in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
    return request


def decode(request, **options):
    return v2_proto.decode_infer(request.SerializeToString(), **options)


def refused(request, word, **options):
    with pytest.raises(ServingError, match=word) as caught:
        decode(request, **options)
    return caught.value


def test_a_request_becomes_the_core_message():
    request = message(("x", "FP32", [1, 2]), raw=[np.array([1, 2], "<f4").tobytes()], model_version="3", id="r")
    request.parameters["priority"].uint64_param = 2
    request.parameters["timeout"].int64_param = 9
    request.parameters["a"].bool_param = False
    request.parameters["b"].double_param = 0.5
    request.parameters["c"].string_param = ""
    request.outputs.add(name="y").parameters["classification"].int64_param = 4
    request.outputs.add(name="z")
    got, options = decode(request, arrival_ns=5)
    assert (got.model_name, got.model_version, got.id, got.arrival_ns) == ("m", "3", "r", 5)
    assert (got.priority, got.timeout_us) == (2, 9)
    assert got.parameters == {"a": False, "b": 0.5, "c": ""}
    assert got.outputs == [RequestedOutput("y", 4), RequestedOutput("z")]
    assert got.inputs[0].array.tolist() == [[1, 2]]
    assert options == WireOptions(True, {"y": OutputWire(True), "z": OutputWire(True)})


def test_no_outputs_means_all():
    assert decode(message())[0].outputs is None


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents(datatype):
    field, values = TYPED[datatype]
    request = message(("x", datatype, [2, 1]))
    getattr(request.inputs[0].contents, field).extend(values)
    (tensor,) = decode(request)[0].inputs
    assert tensor.shape == (2, 1)
    assert tensor.array.dtype == DataType.from_wire(datatype).numpy
    assert tensor.array.ravel().tolist() == values


@pytest.mark.parametrize("datatype", ["UINT8", "UINT16", "INT8", "INT16"])
def test_narrow_integers_out_of_range(datatype):
    field, (_, high) = TYPED[datatype]
    request = message(("x", datatype, [2]))
    getattr(request.inputs[0].contents, field).extend([0, high + 1])
    assert refused(request, f"element 1 is out of range for {datatype}.*{high + 1}").facts["index"] == 1


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_sixteen_bit_floats_are_raw_only(datatype):
    request = message(("x", datatype, [2]))
    request.inputs[0].contents.fp32_contents.extend([1, 2])
    refused(request, f"{datatype} has no typed contents")
    got, _ = decode(message(("x", datatype, [2]), raw=[b"\x00\x3c\x00\x40"]))
    assert got.inputs[0].array.tobytes() == b"\x00\x3c\x00\x40"


def test_contents_in_the_field_of_another_type():
    request = message(("x", "FP32", [1]))
    request.inputs[0].contents.int_contents.append(1)
    refused(request, "FP32 is sent in 'fp32_contents', got 'int_contents'")


def test_contents_of_another_length():
    request = message(("x", "FP32", [2, 2]))
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    refused(request, "4 elements, but 'fp32_contents' holds 3")


def test_contents_and_raw_are_not_mixed():
    request = message(("x", "FP32", [1]), ("y", "FP32", [1]), raw=[bytes(4)])
    request.inputs[1].contents.fp32_contents.append(1)
    refused(request, "contents field must not be specified when using raw_input_contents")


@pytest.mark.parametrize(
    ("shapes", "raw", "word"),
    [
        ([[1], [1]], [bytes(4)], "input 'x1': has no data"),
        ([[1]], [], "input 'x0': has no data"),
        ([[1]], [bytes(4), bytes(4)], "2 entries in raw_input_contents, but 1"),
        ([], [b""], "1 entries in raw_input_contents, but 0"),
        ([[1]], [bytes(3)], "expecting 4 bytes"),
        ([[-1]], [bytes(4)], "negative dimension"),
        ([[2**40, 2**40]], [bytes(4)], "more than"),
        ([[0, 2**40, 2**40]], [b""], "more than"),
        ([[1] * 40], [bytes(4)], "40 dimensions"),
    ],
)
def test_raw_contents_that_do_not_fit(shapes, raw, word):
    refused(message(*((f"x{i}", "FP32", shape) for i, shape in enumerate(shapes)), raw=raw), word)


def test_empty_inputs_need_no_entry():
    got, _ = decode(message(("x", "FP32", [0, 3]), ("s", "BYTES", [0])))
    assert [t.shape for t in got.inputs] == [(0, 3), (0,)]
    got, _ = decode(message(("x", "FP32", [0, 3]), raw=[b""]))
    assert got.inputs[0].shape == (0, 3)


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (message(("", "FP32", [0])), r"inputs\[0\]: 'name'"),
        (message(("x", "", [0])), "unknown data-type ''"),
        (message(("x", "FP33", [0])), "unknown data-type 'FP33'"),
        (message(("x", "FP32", [0]), ("x", "FP32", [0])), "given more than once"),
        (message(*[("x", "FP32", [0])] * 1025), "1025 inputs"),
        (message(id="i" * 5000), "'id' has 5000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fields_of_the_request(request_, word):
    refused(request_, word)


def test_outputs_of_the_request():
    request = message()
    request.outputs.add(name="y")
    request.outputs.add(name="y")
    refused(request, "requested more than once")
    request = message()
    request.outputs.add()
    refused(request, r"outputs\[0\]: 'name'")


def parameter(key, **value):
    request = message()
    request.parameters[key].CopyFrom(pb.InferParameter(**value))
    return request


@pytest.mark.parametrize(
    "request_",
    [
        parameter("priority", int64_param=-1),
        parameter("priority", string_param="1"),
        parameter("timeout", bool_param=True),
        parameter("timeout", uint64_param=2**63),
        parameter("sequence_start", int64_param=1),
        parameter("sequence_id", double_param=1),
        parameter("triton_x", int64_param=1),
        parameter("headers", string_param=""),
        parameter("anything"),
    ],
    ids=lambda request: next(iter(request.parameters)),
)
def test_parameters_of_a_wrong_kind(request_):
    refused(request_, f"'{next(iter(request_.parameters))}'")


def test_the_stream_option():
    request = parameter("triton_enable_empty_final_response", bool_param=True)
    assert decode(request)[1].empty_final_response
    request.outputs.add(name="y")
    assert decode(request)[1].empty_final_response


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05m", b"\x0a\x01\xff", b"\x2a\x02\x0a\x05", b"\x00", b"\x0b"])
def test_damaged_messages(data):
    with pytest.raises(InvalidArgument, match=r"no valid inference\.ModelInferRequest"):
        v2_proto.decode_infer(data)


class TestLargeMessages:
    """From 32 KiB on the raw contents are found without the protobuf library."""

    def request(self):
        big = np.arange(20_000, dtype="<f4")
        request = message(("x", "FP32", [20_000]), ("s", "BYTES", [1]), ("e", "FP32", [0]),
                          raw=[big.tobytes(), b"\x02\0\0\0hi", b""])  # fmt: skip
        request.outputs.add(name="y")
        request.id = "id"
        return big, request

    def test_gives_what_the_library_gives(self):
        big, request = self.request()
        got, options = decode(request)
        assert np.array_equal(got.inputs[0].array, big)
        assert got.inputs[1].array.tolist() == [b"hi"]
        assert got.inputs[2].shape == (0,)
        assert (got.model_name, got.id, list(options.outputs)) == ("m", "id", ["y"])

    def test_raw_contents_are_views(self):
        _, request = self.request()
        buffer = bytearray(request.SerializeToString())
        got, _ = v2_proto.decode_infer(memoryview(buffer))
        position = buffer.index(np.array([1, 2, 3], "<f4").tobytes())
        buffer[position : position + 4] = np.float32(99).tobytes()
        assert got.inputs[0].array[1] == 99

    def test_raw_contents_may_come_first_or_in_between(self):
        big, request = self.request()
        raw = list(request.raw_input_contents)
        del request.raw_input_contents[:]
        first, rest = pb.ModelInferRequest(raw_input_contents=raw[:1]), pb.ModelInferRequest(raw_input_contents=raw[1:])
        data = first.SerializeToString() + request.SerializeToString() + rest.SerializeToString()
        got, _ = v2_proto.decode_infer(data)
        assert np.array_equal(got.inputs[0].array, big)
        assert got.inputs[1].array.tolist() == [b"hi"]

    def test_unknown_fields_are_skipped(self):
        big, request = self.request()
        unknown = b"\xf8\x07\x96\x01" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4) + b"\xfa\x07\x02ab"
        got, _ = v2_proto.decode_infer(unknown + request.SerializeToString() + unknown)
        assert np.array_equal(got.inputs[0].array, big)

    @pytest.mark.parametrize("cut", [1, 10, 100, 40_000])
    def test_cut_messages(self, cut):
        _, request = self.request()
        with pytest.raises(InvalidArgument):
            v2_proto.decode_infer(request.SerializeToString()[:-cut])

    @pytest.mark.parametrize(
        "tail", [b"\x0b", b"\x3a", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xff" * 12, b"\x39\x00"]
    )
    def test_damaged_messages(self, tail):
        _, request = self.request()
        with pytest.raises(InvalidArgument, match="cut or damaged"):
            v2_proto.decode_infer(request.SerializeToString() + tail)

    def test_a_flood_of_tiny_inputs_is_refused_before_objects_are_made(self):
        with pytest.raises(InvalidArgument, match="more than 8192 top-level"):
            v2_proto.decode_infer(b"\x2a\x00" * 1_000_000)


class Regions:
    def __init__(self):
        self.memory = bytearray(32)

    def read(self, region, offset, byte_size):
        return memoryview(self.memory)[offset : offset + byte_size]

    def write(self, region, offset, data):
        self.memory[offset : offset + len(data)] = data


def in_region(parameters, size=8, offset=0):
    parameters["shared_memory_region"].string_param = "r"
    parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        parameters["shared_memory_offset"].int64_param = offset


def test_shared_memory_inputs_take_no_raw_entry():
    regions = Regions()
    regions.memory[4:12] = np.array([1, 2], "<f4").tobytes()
    request = message(("x", "FP32", [2]), ("y", "FP32", [1]), raw=[np.float32(7).tobytes()])
    in_region(request.inputs[0].parameters, offset=4)
    got, _ = decode(request, shm=regions)
    assert [t.array.tolist() for t in got.inputs] == [[1, 2], [7]]
    with pytest.raises(Unimplemented, match="--allow-client-shm=true"):
        decode(request)
    request.inputs[0].contents.fp32_contents.append(1)
    refused(request, "'contents' and also a shared-memory region", shm=regions)


def tensor(name, values, datatype=DataType.FP32):
    return Tensor(name, datatype, np.array(values, dtype=datatype.numpy))


def response(*outputs, request_id="", parameters=None):
    return InferResponse("m", "3", request_id, outputs, Timings(0, 0, 0, 0, 1), parameters or {})


def read(answer, options=WireOptions(), **more):  # noqa: B008
    return pb.ModelInferResponse.FromString(v2_proto.encode_infer(answer, options, **more))


def test_an_answer():
    got = read(
        response(
            tensor("y", [[1, 2.5]]),
            tensor("s", [b"hi", b""], DataType.BYTES),
            tensor("e", np.empty((0, 2))),
            request_id="ž" * 100,
            parameters={"b": True, "i": -1, "u": 2**64 - 1, "d": 0.5, "s": "t"},
        )
    )
    assert (got.model_name, got.model_version, got.id) == ("m", "3", "ž" * 100)
    assert [(o.name, o.datatype, list(o.shape)) for o in got.outputs] == [
        ("y", "FP32", [1, 2]), ("s", "BYTES", [2]), ("e", "FP32", [0, 2]),
    ]  # fmt: skip
    assert not any(o.HasField("contents") for o in got.outputs)
    assert list(got.raw_output_contents) == [np.array([1, 2.5], "<f4").tobytes(), b"\x02\0\0\0hi\0\0\0\0", b""]
    values = {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in got.parameters.items()}
    assert values == {"b": True, "i": -1, "u": 2**64 - 1, "d": 0.5, "s": "t"}


@pytest.mark.parametrize("size", [0, 1, 31, 32, 4095, 4096, 600_000])
def test_lengths_of_every_size_survive(size):
    values = np.arange(size, dtype=np.uint32)
    got = read(response(tensor("y", values, DataType.UINT32), request_id="i" * (size % 5000)))
    assert got.raw_output_contents[0] == values.tobytes()
    assert got.id == "i" * (size % 5000)


def test_parts_do_not_copy_large_tensor_data():
    values = tensor("y", [1, 2] * 1024)
    parts = v2_proto.encode_infer_parts(response(values), WireOptions())
    assert isinstance(parts[-1], memoryview)
    assert np.shares_memory(np.frombuffer(parts[-1], "<f4"), values.array)


def test_answers_into_shared_memory_leave_an_empty_entry():
    regions = Regions()
    options = WireOptions(True, {"y": OutputWire(True, ShmTarget("r", 4, 16))})
    got = read(response(tensor("y", [1, 2]), tensor("z", [3])), options, shm=regions)
    assert list(got.raw_output_contents) == [b"", np.float32(3).tobytes()]
    assert got.outputs[0].parameters["shared_memory_region"].string_param == "r"
    assert got.outputs[0].parameters["shared_memory_offset"].int64_param == 4
    assert bytes(regions.memory[4:12]) == np.array([1, 2], "<f4").tobytes()


def test_names_from_odd_files_do_not_break_an_answer():
    answer = InferResponse("m\udcff", "1", "", [tensor("y", [1])], Timings(0, 0, 0, 0, 1))
    assert read(answer).model_name == "m?"


def test_a_streamed_answer():
    answer = response(tensor("y", np.zeros(100)), request_id="r", parameters={"triton_final_response": True})
    got = pb.ModelStreamInferResponse.FromString(v2_proto.encode_stream_response(answer, WireOptions()))
    assert got.error_message == ""
    assert got.infer_response == read(answer)
    assert got.infer_response.parameters["triton_final_response"].bool_param is True


def test_a_streamed_error_tells_whose_it_is():
    got = pb.ModelStreamInferResponse.FromString(v2_proto.encode_stream_error("bad \ud800", "r"))
    assert (got.error_message, got.infer_response.id) == ("bad ?", "r")
    got = pb.ModelStreamInferResponse.FromString(v2_proto.encode_stream_error("bad"))
    assert not got.HasField("infer_response")
