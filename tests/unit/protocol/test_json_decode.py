"""Inference requests as JSON: what is accepted, and that every refusal names what is wrong."""

import json

import numpy as np
import orjson
import pytest

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ErrorKind, InvalidArgument, ServingError, Unimplemented
from tensorquay.core.messages import RequestedOutput
from tensorquay.protocol.fields import MAX_ID, MAX_TENSORS
from tensorquay.protocol.json_text import parse_json
from tensorquay.protocol.options import OutputWire, WireOptions
from tensorquay.protocol.shared_memory import ShmTarget
from tensorquay.protocol.v2_json import decode_infer


def x(data=(1.0, 2.0), shape=..., datatype="FP32", **more):
    shape = [len(data)] if shape is ... else shape
    return {"name": "x", "shape": shape, "datatype": datatype, "data": data, **more}


def decode(document, **options):
    body = document if isinstance(document, bytes) else json.dumps(document, ensure_ascii=False).encode()
    return decode_infer("m", "1", body, None, **options)


def array(data, shape=..., datatype="FP32"):
    request, _ = decode({"inputs": [x(data, shape, datatype)]})
    return request.inputs[0].array


def refused(document, *words, kind=ErrorKind.INVALID_ARGUMENT):
    with pytest.raises(ServingError) as caught:
        decode(document)
    assert caught.value.kind is kind
    for word in words:
        assert word in caught.value.message
    return caught.value


def test_a_request_becomes_the_core_message():
    document = {
        "id": "r1",
        "parameters": {"priority": 2, "timeout": 500, "mine": "a", "n": 3, "f": 0.5, "b": False},
        "inputs": [x([1, 2.5, -3], [3, 1])],
        "outputs": [{"name": "y", "parameters": {"classification": 3}}, {"name": "z"}],
        "model_name": "ignored",
    }
    request, options = decode(document, arrival_ns=7)
    assert (request.model_name, request.model_version, request.id, request.arrival_ns) == ("m", "1", "r1", 7)
    assert (request.priority, request.timeout_us) == (2, 500)
    assert request.parameters == {"mine": "a", "n": 3, "f": 0.5, "b": False}
    assert request.outputs == [RequestedOutput("y", 3), RequestedOutput("z")]
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", DataType.FP32, (3, 1))
    assert tensor.array.dtype == np.float32
    assert tensor.array.ravel().tolist() == [1, 2.5, -3]
    assert options == WireOptions(False, {"y": OutputWire(binary=False), "z": OutputWire(binary=False)})


LIMITS = {
    "UINT8": (0, 255),
    "UINT16": (0, 65535),
    "UINT32": (0, 2**32 - 1),
    "UINT64": (0, 2**64 - 1),
    "INT8": (-128, 127),
    "INT16": (-32768, 32767),
    "INT32": (-(2**31), 2**31 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}


@pytest.mark.parametrize("datatype", LIMITS)
def test_integers_hold_their_whole_range_and_no_more(datatype):
    low, high = LIMITS[datatype]
    got = array([low, high, 0], datatype=datatype)
    assert got.dtype == DataType.from_wire(datatype).numpy
    assert got.tolist() == [low, high, 0]
    for outside in (low - 1, high + 1):
        error = refused({"inputs": [x([0, outside], datatype=datatype)]}, "element 1", "out of range", datatype)
        assert error.facts["index"] == 1


@pytest.mark.parametrize("datatype", LIMITS)
@pytest.mark.parametrize("value", [1.5, 1.0, True, False, None, "1", "", {}, [1]], ids=repr)
def test_integers_are_not_made_from_other_things(datatype, value):
    refused({"inputs": [x([1, value], datatype=datatype)]}, "'x'")


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("value", [True, None, "1.5", "NaN", {}, [1]], ids=repr)
def test_floats_are_not_made_from_other_things(datatype, value):
    refused({"inputs": [x([1, value], datatype=datatype)]}, "'x'")


def test_floats_take_integers_and_huge_integers():
    assert array([1, 2**63, -1, 10**30], datatype="FP64").tolist() == [1.0, 2.0**63, -1.0, 1e30]


def test_float32_does_not_overflow_to_infinity():
    assert array([3.4028234663852886e38])[0] == np.finfo(np.float32).max
    refused({"inputs": [x([0, 1e39])]}, "element 1", "out of range for FP32")


@pytest.mark.parametrize("value", [0, 1, "true", None, 1.0], ids=repr)
def test_booleans_are_only_true_and_false(value):
    assert array([True, False], datatype="BOOL").tolist() == [True, False]
    refused({"inputs": [x([True, value], datatype="BOOL")]}, "element 1", "true or false")


def test_bytes_are_text_as_utf8():
    got = array(["a", "", "žluť\u0000\U0001f600"], datatype="BYTES")
    assert got.dtype == np.object_
    assert got.tolist() == [b"a", b"", "žluť\u0000\U0001f600".encode()]


@pytest.mark.parametrize("value", [1, None, True, {"b64": "AA=="}], ids=repr)
def test_bytes_are_not_made_from_other_things(value):
    refused({"inputs": [x(["a", value], datatype="BYTES")]}, "element 1", "string")


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_sixteen_bit_floats_are_refused_with_the_way_out(datatype):
    refused({"inputs": [x(datatype=datatype)]}, datatype, "binary data")


@pytest.mark.parametrize(
    ("data", "shape"),
    [([[1, 2], [3, 4]], [2, 2]), ([1, 2, 3, 4], [2, 2]), ([[[1, 2, 3, 4]]], [2, 2]), ([[1], [2], [3], [4]], [4])],
)
def test_data_may_be_nested_or_flat(data, shape):
    got = array(data, shape)
    assert got.shape == tuple(shape)
    assert got.ravel().tolist() == [1, 2, 3, 4]


def test_scalars_and_empty_tensors():
    assert array([5], []).shape == ()
    assert array([], [0, 3]).shape == (0, 3)
    assert array([[], []], [2, 0]).shape == (2, 0)
    assert array([], [0], "BYTES").shape == (0,)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([[1, 2], [3]], ["ragged", "1 and 2"]),
        ([[1, 2], 3], ["mixes"]),
        ([[1, 2], [[3], [4]]], ["mixes"]),
        ([[1, 2], {}], ["mixes"]),
        ([1, 2, 3], ["4 elements", "holds 3"]),
        ([], ["holds 0"]),
        ({"a": 1}, ["'data' must be an array", "an object"]),
        ("1234", ["a string"]),
        (None, ["null"]),
    ],
    ids=repr,
)
def test_data_that_does_not_make_the_shape(data, words):
    refused({"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": data}]}, "'x'", *words)


def test_data_nested_deeper_than_any_tensor():
    data = 1
    for _ in range(40):
        data = [data]
    refused({"inputs": [x(data, [1])]}, "nests deeper than 32")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("2", ["'shape' must be an array"]),
        (2, ["'shape' must be an array"]),
        (None, ["'shape' must be an array"]),
        ([True, 2], ["integers"]),
        ([2.0], ["integers"]),
        (["2"], ["integers"]),
        ([None], ["integers"]),
        ([[2]], ["integers"]),
        ([-1], ["negative"]),
        ([-(2**63)], ["negative"]),
        ([2**64], ["integers"]),
        ([2**63], ["more than"]),
        ([2**40, 2**40], ["more than"]),
        ([0, 2**40, 2**40], ["more than"]),
        ([1] * 33, ["33 dimensions"]),
        ([3], ["3 elements", "holds 2"]),
    ],
    ids=repr,
)
def test_shapes_that_are_none(shape, words):
    refused({"inputs": [x([1, 2], shape)]}, "'x'", *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": None}, ["inputs[0]", "'name' must be a string", "null"]),
        ({"name": 3}, ["'name' must be a string"]),
        ({"name": ""}, ["1 to 1024"]),
        ({"name": "n" * 1025}, ["1 to 1024"]),
        ({"datatype": "FP33"}, ["unknown data-type 'FP33'", "FP32"]),
        ({"datatype": "fp32"}, ["unknown data-type"]),
        ({"datatype": 1}, ["'datatype' must be a string"]),
        ({"datatype": "F" * 10_000}, ["unknown data-type"]),
        ({"parameters": []}, ["'parameters' must be an object"]),
        ({"parameters": {"a": {}}}, ["parameter 'a'", "an object"]),
        ({"parameters": {"a": [1]}}, ["parameter 'a'", "an array"]),
        ({"parameters": {"a": None}}, ["parameter 'a'", "null"]),
        ({"parameters": {"binary_data_size": 8}}, ["'data' and also binary_data_size"]),
        ({"parameters": {str(i): 1 for i in range(1025)}}, ["1025 parameters"]),
    ],
    ids=repr,
)
def test_fields_of_an_input(change, words):
    error = refused({"inputs": [{**x(), **change}]}, *words)
    assert len(error.message) < 2500


@pytest.mark.parametrize("field", ["name", "shape", "datatype", "data"])
def test_missing_fields_of_an_input(field):
    item = x()
    del item[field]
    refused({"inputs": [item]}, field)


@pytest.mark.parametrize("item", [None, 1, "x", [1]], ids=repr)
def test_inputs_and_outputs_are_objects(item):
    refused({"inputs": [item]}, "inputs[0] must be an object")
    refused({"inputs": [x()], "outputs": [item]}, "outputs[0] must be an object")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, ["'inputs' is missing"]),
        ({"inputs": None}, ["'inputs' must be an array", "null"]),
        ({"inputs": {}}, ["'inputs' must be an array"]),
        ({"inputs": [x()] * (MAX_TENSORS + 1)}, ["1025 inputs"]),
        ({"inputs": [x(), x()]}, ["'x' is given more than once"]),
        ({"inputs": [x()], "id": 3}, ["'id' must be a string"]),
        ({"inputs": [x()], "id": "i" * (MAX_ID + 1)}, ["'id' has 4097"]),
        ({"inputs": [x()], "parameters": [1]}, ["'parameters' must be an object"]),
        ({"inputs": [x()], "parameters": {"p": {"q": 1}}}, ["parameter 'p'"]),
        ({"inputs": [x()], "outputs": {}}, ["'outputs' must be an array"]),
        ({"inputs": [x()], "outputs": [{}]}, ["outputs[0]: 'name' is missing"]),
        ({"inputs": [x()], "outputs": [{"name": "y"}, {"name": "y"}]}, ["'y' is requested more than once"]),
        ({"inputs": [x()], "outputs": [{"name": f"y{i}"} for i in range(1025)]}, ["1025 requested outputs"]),
        ([], ["must be a JSON object", "an array"]),
        (b"", ["empty"]),
        (b"null", ["must be a JSON object", "null"]),
        (b"{", ["not valid JSON"]),
        (b'{"inputs": []}x', ["not valid JSON"]),
        (b"\xef\xbb\xbf{}", ["not valid JSON"]),
        (b'{"id": "\xff", "inputs": []}', ["not valid JSON"]),
        (b'{"id": "\\ud800", "inputs": []}', ["not valid JSON"]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_the_request_itself(document, words):
    refused(document, *words)


@pytest.mark.parametrize("token", [b"NaN", b"Infinity", b"-Infinity"])
def test_non_finite_tokens_are_refused_with_the_way_out(token):
    refused(
        b'{"id":"\xc5\xbe\xc5\xbe\xc5\xbe","inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":['
        + token
        + b"]}]}",
        "not valid JSON",
        "binary data",
    )


@pytest.mark.parametrize("number", [b"1e400", b"-1e999"])
def test_numbers_beyond_a_double_are_refused(number):
    refused(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":[' + number + b"]}]}", "not valid JSON")


def test_nesting_is_bounded_wherever_it_is():
    for wrap in (b"[%s]", b'{"a":%s}'):
        for depth, fine in ((98, True), (120, False), (1100, False)):
            inner = b"1"
            for _ in range(depth):
                inner = wrap % inner
            body = b'{"inputs":[],"unknown":' + inner + b"}"
            if fine:
                assert decode(body)[0].inputs == []
            else:
                refused(body, "not valid JSON" if depth > 1000 else "deeper than 100")


def test_brackets_in_text_are_no_nesting():
    text = '[{"\\' * 200
    request, _ = decode(json.dumps({"inputs": [x([text], datatype="BYTES")], "q": ['\\"[', "[["] * 60}).encode())
    assert request.inputs[0].array[0] == text.encode()


@pytest.mark.parametrize(
    "parameters",
    [
        {"priority": -1},
        {"priority": 2**64},
        {"priority": True},
        {"priority": "1"},
        {"priority": 1.0},
        {"timeout": -5},
        {"timeout": 2**63},
        {"timeout": "5"},
        {"sequence_id": -1},
        {"sequence_id": 1.5},
        {"sequence_id": True},
        {"sequence_start": 1},
        {"sequence_end": "true"},
        {"binary_data_output": 1},
        {"binary_data_output": "true"},
        {"triton_enable_empty_final_response": 1},
        {"triton_final_response": True},
        {"triton_": 1},
        {"headers": "x"},
    ],
    ids=repr,
)
def test_reserved_parameters_of_a_wrong_kind(parameters):
    refused({"inputs": [x()], "parameters": parameters}, f"'{next(iter(parameters))}'")


def test_reserved_parameters():
    request, options = decode(
        {
            "inputs": [x()],
            "parameters": {
                "priority": 2**64 - 1,
                "timeout": 2**63 - 1,
                "sequence_id": "s",
                "sequence_start": True,
                "sequence_end": False,
                "binary_data_output": True,
                "triton_enable_empty_final_response": True,
            },
        }
    )
    assert (request.priority, request.timeout_us) == (2**64 - 1, 2**63 - 1)
    assert request.parameters == {"sequence_id": "s", "sequence_start": True, "sequence_end": False}
    assert options == WireOptions(True, {}, True)


@pytest.mark.parametrize("outputs", [None, []], ids=repr)
def test_no_outputs_means_all(outputs):
    assert decode({"inputs": [x()], "outputs": outputs})[0].outputs is None


def test_a_single_output_wins_over_the_default():
    document = {
        "inputs": [x()],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
    }
    _, options = decode(document)
    assert {name: wire.binary for name, wire in options.outputs.items()} == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"classification": -1}, ["classification", "0 to 1000000"]),
        ({"classification": 1_000_001}, ["classification"]),
        ({"classification": True}, ["classification"]),
        ({"classification": "3"}, ["classification"]),
        ({"binary_data": 1}, ["'binary_data' must be true or false"]),
        ({"shared_memory_byte_size": 4}, ["needs 'shared_memory_region'"]),
        ({"shared_memory_offset": 4}, ["needs 'shared_memory_region'"]),
        ([], ["must be an object"]),
    ],
    ids=repr,
)
def test_parameters_of_an_output(parameters, words):
    refused({"inputs": [x()], "outputs": [{"name": "y", "parameters": parameters}]}, "'y'", *words)


class Regions:
    def __init__(self):
        self.memory = {"r": bytearray(64)}

    def read(self, region, offset, byte_size):
        return memoryview(self.memory[region])[offset : offset + byte_size]

    def write(self, region, offset, data):
        self.memory[region][offset : offset + len(data)] = data


def shm_input(**parameters):
    return {"name": "x", "shape": [2], "datatype": "FP32", "parameters": parameters}


def test_an_input_in_shared_memory_is_copied_out():
    regions = Regions()
    regions.memory["r"][8:16] = np.array([1, 2], "<f4").tobytes()
    item = shm_input(shared_memory_region="r", shared_memory_offset=8, shared_memory_byte_size=8)
    request, _ = decode({"inputs": [item]}, shm=regions)
    regions.memory["r"][8:16] = bytes(8)
    assert request.inputs[0].array.tolist() == [1, 2]


def test_shared_memory_is_refused_when_off():
    item = shm_input(shared_memory_region="r", shared_memory_byte_size=8)
    with pytest.raises(Unimplemented, match="--allow-client-shm=true"):
        decode({"inputs": [item]})
    output = {"name": "y", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}
    with pytest.raises(Unimplemented, match="--allow-client-shm=true"):
        decode({"inputs": [x()], "outputs": [output]})


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"shared_memory_region": "r"}, "'shared_memory_byte_size' is missing"),
        ({"shared_memory_region": "", "shared_memory_byte_size": 8}, "name of a region"),
        ({"shared_memory_region": 1, "shared_memory_byte_size": 8}, "name of a region"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": -8}, "number of bytes"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 2**63}, "number of bytes"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 1.0}, "number of bytes"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 4}, "expecting 8 bytes"),
        ({"shared_memory_region": "r", "shared_memory_byte_size": 8, "binary_data_size": 8}, "binary_data_size"),
    ],
    ids=repr,
)
def test_shared_memory_that_is_no_range(parameters, word):
    with pytest.raises(InvalidArgument, match=word):
        decode({"inputs": [shm_input(**parameters)]}, shm=Regions())


def test_an_output_for_shared_memory():
    output = {
        "name": "y",
        "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 4},
    }
    _, options = decode({"inputs": [x()], "outputs": [output]}, shm=Regions())
    assert options.outputs["y"].shm == ShmTarget("r", 4, 8)
    output["parameters"]["classification"] = 1
    with pytest.raises(InvalidArgument, match="cannot be combined"):
        decode({"inputs": [x()], "outputs": [output]}, shm=Regions())


def test_booleans_elsewhere_in_the_body_do_not_disturb_numbers():
    body = orjson.dumps({"inputs": [x([1, 2, 3])], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]})
    request, _ = decode(body)
    assert request.inputs[0].array.tolist() == [1, 2, 3]


def test_bytes_that_are_no_utf8_are_found_where_they_are():
    body = '{"id": "é", "inputs": "'.encode() + b'\xff"}'
    with pytest.raises(InvalidArgument, match=r"byte 24 \(0xff\) is not UTF-8") as refused:
        parse_json(body, "the inference request")
    assert refused.value.facts["position"] == body.index(b"\xff")
