"""Inference answers as JSON, binary, or a mixture; what JSON cannot hold is refused."""

import json

import numpy as np
import pytest

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument, ModelFailed, Unimplemented
from tensorquay.core.messages import InferResponse, Timings
from tensorquay.core.tensors import Tensor
from tensorquay.protocol.options import OutputWire, WireOptions
from tensorquay.protocol.shared_memory import ShmTarget
from tensorquay.protocol.v2_json import encode_infer

JSON = WireOptions()
BINARY = WireOptions(default_binary=True)


def tensor(name, values, datatype=DataType.FP32):
    return Tensor(name, datatype, np.array(values, dtype=datatype.numpy))


def response(*outputs, request_id="", parameters=None):
    return InferResponse("m", "3", request_id, outputs, Timings(0, 0, 0, 0, 1), parameters or {})


def encode(answer, options=JSON, **more):
    parts, header_length = encode_infer(answer, options, **more)
    return b"".join(parts), header_length


def test_a_json_answer():
    body, header_length = encode(response(tensor("y", [[1, 2.5]]), request_id="r", parameters={"p": 1}))
    assert header_length is None
    assert json.loads(body) == {
        "id": "r",
        "model_name": "m",
        "model_version": "3",
        "parameters": {"p": 1},
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.5]}],
    }


def test_id_and_parameters_are_left_out_when_there_are_none():
    document = json.loads(encode(response(tensor("y", [1])))[0])
    assert "id" not in document
    assert "parameters" not in document


def test_float32_is_written_in_its_own_shortest_form():
    assert b'"data":[0.1,16777216.0]' in encode(response(tensor("y", [0.1, 2**24])))[0]


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        (DataType.BOOL, [True, False]),
        (DataType.UINT8, [0, 255]),
        (DataType.UINT64, [0, 2**64 - 1]),
        (DataType.INT8, [-128, 127]),
        (DataType.INT64, [-(2**63), 2**63 - 1]),
        (DataType.FP64, [1e308, 5e-324]),
    ],
    ids=lambda value: getattr(value, "wire", None),
)
def test_numbers_come_out_exactly(datatype, values):
    (output,) = json.loads(encode(response(tensor("y", values, datatype)))[0])["outputs"]
    assert output == {"name": "y", "datatype": datatype.wire, "shape": [2], "data": values}
    assert list(map(type, output["data"])) == list(map(type, values))


def test_bytes_come_out_as_text():
    (output,) = json.loads(encode(response(tensor("y", [[b"a", "ž".encode()]], DataType.BYTES)))[0])["outputs"]
    assert output == {"name": "y", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "ž"]}


def test_scalars_empty_and_strided_arrays():
    strided = Tensor("s", DataType.INT32, np.arange(6, dtype="<i4").reshape(2, 3).T)
    outputs = json.loads(encode(response(tensor("a", 5), tensor("b", np.empty((0, 3))), strided))[0])["outputs"]
    assert [o["shape"] for o in outputs] == [[], [0, 3], [3, 2]]
    assert [o["data"] for o in outputs] == [[5.0], [], [0, 3, 1, 4, 2, 5]]
    body, length = encode(response(strided), BINARY)
    assert np.frombuffer(body[length:], "<i4").tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("bad", "word"), [(float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity")]
)
@pytest.mark.parametrize("datatype", [DataType.FP32, DataType.FP64], ids=lambda d: d.wire)
def test_non_finite_values_are_refused_in_json_and_fine_in_binary(datatype, bad, word):
    answer = response(tensor("y", [[0, 1], [2, bad]], datatype))
    with pytest.raises(InvalidArgument, match=f"output 'y' holds {word} at index 3.*binary_data") as caught:
        encode(answer)
    assert caught.value.facts == {"output": "y", "hint": "binary_data"}
    assert encode(answer, BINARY)[1] is not None


@pytest.mark.parametrize("datatype", [DataType.FP16, DataType.BF16], ids=lambda d: d.wire)
def test_sixteen_bit_floats_are_refused_in_json_and_fine_in_binary(datatype):
    answer = response(tensor("y", [1, 2], datatype))
    with pytest.raises(InvalidArgument, match=f"{datatype.wire}.*binary_data"):
        encode(answer)
    body, length = encode(answer, BINARY)
    assert body[length:] == answer.outputs[0].array.tobytes()


def test_bytes_that_are_no_text_are_refused_in_json_and_fine_in_binary():
    answer = response(tensor("y", [b"ok", b"\xff"], DataType.BYTES))
    with pytest.raises(InvalidArgument, match=r"'y' holds bytes at index 1 .*binary_data"):
        encode(answer)
    body, length = encode(answer, BINARY)
    assert body[length:] == b"\x02\0\0\0ok\x01\0\0\0\xff"


def test_a_mixture_of_json_and_binary():
    options = WireOptions(False, {"b": OutputWire(binary=True), "c": OutputWire(binary=True)})
    body, length = encode(response(tensor("a", [1]), tensor("b", [2, 3]), tensor("c", [b"x"], DataType.BYTES)), options)
    outputs = json.loads(body[:length])["outputs"]
    assert outputs[0]["data"] == [1.0]
    assert [o.get("parameters") for o in outputs] == [None, {"binary_data_size": 8}, {"binary_data_size": 5}]
    assert all("data" not in o for o in outputs[1:])
    assert body[length:] == np.array([2, 3], "<f4").tobytes() + b"\x01\0\0\0x"


def test_an_empty_binary_output_still_says_its_size():
    body, length = encode(response(tensor("y", np.empty((0, 2)))), BINARY)
    assert length == len(body)
    assert json.loads(body)["outputs"][0]["parameters"] == {"binary_data_size": 0}


class Regions:
    def __init__(self):
        self.memory = bytearray(32)

    def read(self, region, offset, byte_size):
        raise AssertionError

    def write(self, region, offset, data):
        assert region == "r"
        self.memory[offset : offset + len(data)] = data


def test_an_output_into_shared_memory():
    regions = Regions()
    options = WireOptions(True, {"y": OutputWire(True, ShmTarget("r", 4, 16))})
    body, length = encode(response(tensor("y", [1, 2])), options, shm=regions)
    assert length is None
    (output,) = json.loads(body)["outputs"]
    # Triton's C++ client takes parameters of an output for those of binary data.
    assert output == {"name": "y", "datatype": "FP32", "shape": [2]}
    assert bytes(regions.memory[4:12]) == np.array([1, 2], "<f4").tobytes()


def test_an_output_too_large_for_its_shared_memory_writes_nothing():
    regions = Regions()
    options = WireOptions(True, {"y": OutputWire(True, ShmTarget("r", 0, 7))})
    with pytest.raises(InvalidArgument, match="should be at least 8 bytes"):
        encode(response(tensor("y", [1, 2])), options, shm=regions)
    assert not any(regions.memory)


def test_shared_memory_switched_off_meanwhile():
    options = WireOptions(True, {"y": OutputWire(True, ShmTarget("r", 0, 8))})
    with pytest.raises(Unimplemented, match="--allow-client-shm=true"):
        encode(response(tensor("y", [1, 2])), options)


def test_an_answer_no_json_can_hold_is_the_models_failure():
    with pytest.raises(ModelFailed, match="model 'm'"):
        encode(response(tensor("y\ud800", [1])))
