"""Binary tensor data behind the JSON, and raw requests."""

import json

import numpy as np
import pytest

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.signature import Signature, TensorSpec
from tensorquay.protocol.options import WireOptions
from tensorquay.protocol.v2_binary import decode_raw, parse_header_length
from tensorquay.protocol.v2_json import decode_infer


def request(inputs, tail=b"", **more):
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + tail, len(head)


def item(name="x", shape=(2,), datatype="FP32", size=8):
    return {"name": name, "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": size}}


def decode(body, header_length):
    return decode_infer("m", "", body, header_length)


@pytest.mark.parametrize("datatype", [d for d in DataType if d is not DataType.BYTES], ids=lambda d: d.wire)
def test_every_fixed_type_travels_as_it_is(datatype):
    values = np.array([[0, 1], [1, 0]]).astype(datatype.numpy)
    body, length = request([item(shape=(2, 2), datatype=datatype.wire, size=values.nbytes)], values.tobytes())
    (tensor,) = decode(body, length)[0].inputs
    assert tensor.datatype is datatype
    assert tensor.array.dtype == datatype.numpy
    assert tensor.array.tolist() == values.tolist()


def test_inputs_take_their_bytes_in_order_and_json_ones_take_none():
    a, b = np.arange(2, dtype="<f4"), np.arange(3, dtype="<i8")
    inputs = [
        item("a"),
        {"name": "j", "shape": [1], "datatype": "INT32", "data": [7]},
        item("b", (3,), "INT64", 24),
        item("s", (2,), "BYTES", 11),
    ]
    body, length = request(inputs, a.tobytes() + b.tobytes() + b"\x02\0\0\0hi\x01\0\0\0!")
    got = [t.array.tolist() for t in decode(body, length)[0].inputs]
    assert got == [[0, 1], [7], [0, 1, 2], [b"hi", b"!"]]


def test_tensors_are_views_over_the_body():
    body, length = request([item()], bytes(8))
    buffer = bytearray(body)
    (tensor,) = decode(memoryview(buffer), length)[0].inputs
    buffer[length : length + 4] = np.float32(5).tobytes()
    assert tensor.array.tolist() == [5, 0]


@pytest.mark.parametrize(
    ("size", "tail", "word"),
    [
        (8, b"1234567", "7 bytes of binary data are left"),
        (8, b"123456789", "1 bytes of the body belong to no input"),
        (4, b"1234", "expecting 8 bytes"),
        (0, b"", "expecting 8 bytes"),
        (2**63 - 1, b"12345678", "are left"),
        (-1, b"", "number of bytes"),
        (True, b"1", "number of bytes"),
        (8.0, b"12345678", "number of bytes"),
        ("8", b"12345678", "number of bytes"),
    ],
    ids=repr,
)
def test_sizes_that_do_not_fit(size, tail, word):
    body, length = request([item(size=size)], tail)
    with pytest.raises(InvalidArgument, match=word):
        decode(body, length)


@pytest.mark.parametrize(
    ("tail", "word"),
    [
        (b"\x05\0\0\0hi\0\0", "claims 5 bytes"),
        (b"\xff\xff\xff\xffhi!!", "claims 4294967295 bytes"),
        (b"\x02\0\0\0hi", "at least 8 bytes"),
        (b"\x00\0\0\0\0\0\0\0\0", "left over"),
    ],
    ids=repr,
)
def test_damaged_bytes_elements(tail, word):
    body, length = request([item(datatype="BYTES", size=len(tail))], tail)
    with pytest.raises(InvalidArgument, match=word):
        decode(body, length)


def test_a_huge_claim_allocates_nothing():
    body, length = request([item(shape=(2**40,), datatype="BYTES", size=0)])
    with pytest.raises(InvalidArgument, match="need at least"):
        decode(body, length)


def test_data_and_binary_data_size_together():
    body, length = request([{**item(), "data": [1, 2]}], bytes(8))
    with pytest.raises(InvalidArgument, match="'data' and also binary_data_size"):
        decode(body, length)


def test_empty_tensors_have_no_bytes():
    body, length = request([item(shape=(0, 4), size=0), item("s", (0,), "BYTES", 0)])
    assert [t.shape for t in decode(body, length)[0].inputs] == [(0, 4), (0,)]


@pytest.mark.parametrize("length", [-1, 1000])
def test_header_length_outside_the_body(length):
    with pytest.raises(InvalidArgument, match="Inference-Header-Content-Length"):
        decode(b'{"inputs": []}', length)


@pytest.mark.parametrize(("text", "value"), [("0", 0), (" 12 ", 12), ("20", 20), ("007", 7)])
def test_header_length_is_a_decimal_number(text, value):
    assert parse_header_length(text, 20) == value


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "0x1", "21", "1" * 30, "a", "١", "1,2", "1\n"])
def test_header_length_that_is_none(text):
    with pytest.raises(InvalidArgument, match="expected a number from 0 to 20"):
        parse_header_length(text, 20)


def signature(*shapes, datatype=DataType.FP32, batch=8):
    inputs = tuple(TensorSpec(f"x{i}", datatype, shape) for i, shape in enumerate(shapes))
    return Signature("m", inputs, (), batch)


@pytest.mark.parametrize(
    ("shape", "batch", "size", "expected"),
    [
        ((-1, 4), 8, 16, (1, 4)),
        ((-1, -1), 8, 12, (1, 3)),
        ((-1, -1, 2), 8, 24, (1, 3, 2)),
        ((-1, -1), 8, 0, (1, 0)),
        ((-1, 2), 0, 16, (2, 2)),
        ((2, 2), 0, 16, (2, 2)),
        ((), 0, 4, ()),
    ],
)
def test_a_raw_request_takes_its_shape_from_the_model(shape, batch, size, expected):
    request, options = decode_raw("m", "2", bytes(size), signature(shape, batch=batch), arrival_ns=3)
    assert request.inputs[0].shape == expected
    assert (request.model_name, request.model_version, request.arrival_ns, request.outputs) == ("m", "2", 3, None)
    assert options == WireOptions(default_binary=True)


@pytest.mark.parametrize(
    ("shape", "size", "word"),
    [
        ((-1, 4), 12, "expecting 16 bytes"),
        ((-1, 4), 32, "expecting 16 bytes"),
        ((-1, -1, 2), 12, "expecting 8 bytes"),
        ((-1, -1, -1), 12, "more than one variable-sized dimension"),
        ((-1, -1, 0), 4, "expecting 0 bytes"),
    ],
)
def test_raw_bytes_that_do_not_fit(shape, size, word):
    with pytest.raises(InvalidArgument, match=word):
        decode_raw("m", "", bytes(size), signature(shape))


@pytest.mark.parametrize("shapes", [(), ((-1, 4), (-1, 4))])
def test_raw_needs_exactly_one_input(shapes):
    with pytest.raises(InvalidArgument, match="must only have 1 input"):
        decode_raw("m", "", bytes(16), signature(*shapes))


def test_raw_text_is_the_whole_body():
    request, _ = decode_raw("m", "", memoryview(b"\x01\0\0\0hello"), signature((-1, 1), datatype=DataType.BYTES))
    assert request.inputs[0].array.tolist() == [[b"\x01\0\0\0hello"]]
    with pytest.raises(InvalidArgument, match=r"input shape \[1\]"):
        decode_raw("m", "", b"x", signature((-1, -1), datatype=DataType.BYTES))
