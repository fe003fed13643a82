"""Laws of the JSON codec: what goes in comes out, and nothing a stranger sends raises anything but a refusal."""

import json

import numpy as np
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferResponse, Timings
from tensorquay.core.tensors import Tensor
from tensorquay.protocol import compression, json_bodies
from tensorquay.protocol.json_text import _depth, parse_json_object
from tensorquay.protocol.options import WireOptions
from tensorquay.protocol.status import error_body
from tensorquay.protocol.v2_binary import parse_header_length
from tensorquay.protocol.v2_json import decode_infer, encode_infer

NUMBERS = [d for d in DataType if d not in {DataType.BYTES, DataType.FP16, DataType.BF16}]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def tensors(draw, *, json_only=False):
    if draw(st.booleans()):
        item = st.text(max_size=5).map(str.encode) if json_only else st.binary(max_size=5)
        shape = draw(SHAPES)
        array = np.empty(shape, dtype=np.object_)
        for index in np.ndindex(shape):
            array[index] = draw(item)
        return Tensor("t", DataType.BYTES, array)
    datatype = draw(st.sampled_from(NUMBERS if json_only else [d for d in DataType if d is not DataType.BYTES]))
    elements = {"allow_nan": False, "allow_infinity": False} if json_only and datatype.is_float else None
    return Tensor("t", datatype, draw(hnp.arrays(datatype.numpy, SHAPES, elements=elements)))


def through(tensor, options):
    answer = InferResponse("m", "1", "", [tensor], Timings(0, 0, 0, 0, 1))
    parts, length = encode_infer(answer, options)
    body = b"".join(parts)
    head = json.loads(body[:length])
    head["inputs"] = head.pop("outputs")
    request = orjson.dumps(head)
    (got,) = decode_infer("m", "", request + body[length:] if length else request, len(request) if length else None)[
        0
    ].inputs
    return got


def same(got, expected):
    return (
        got.datatype is expected.datatype
        and got.array.dtype == expected.datatype.numpy
        and got.shape == expected.shape
        and np.ascontiguousarray(got.array).tolist() == np.ascontiguousarray(expected.array).tolist()
    )


@given(tensors(json_only=True))
def test_json_keeps_every_value(tensor):
    assert same(through(tensor, WireOptions()), tensor)


@given(tensors())
def test_binary_keeps_every_bit(tensor):
    got = through(tensor, WireOptions(default_binary=True))
    if tensor.datatype is DataType.BYTES:
        assert same(got, tensor)
    else:
        assert got.shape == tensor.shape
        assert got.array.tobytes() == tensor.array.tobytes()


@given(tensors(json_only=True))
def test_nesting_does_not_matter(tensor):
    data = tensor.array.tolist()
    flat = np.ascontiguousarray(tensor.array).reshape(-1).tolist()
    if tensor.array.ndim == 0:
        return
    for shown in (data, flat):
        document = {"name": "t", "datatype": tensor.datatype.wire, "shape": list(tensor.shape), "data": shown}
        body = orjson.dumps({"inputs": [document]}, default=bytes.decode)
        assert same(decode_infer("m", "", body, None)[0].inputs[0], tensor)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["FP32", "BYTES", "INT8", "BOOL", "FP16", "x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
PARAMETERS = st.dictionaries(
    st.sampled_from(
        ["priority", "timeout", "sequence_id", "sequence_start", "binary_data", "binary_data_size", "classification",
         "binary_data_output", "shared_memory_region", "shared_memory_byte_size", "triton_x", "p"]
    ),
    JSON_VALUES, max_size=3,
) | JSON_VALUES  # fmt: skip
NAMES = st.sampled_from(["x", "y", ""]) | JSON_VALUES
SHAPE_VALUES = st.lists(st.integers(-1, 3) | JSON_VALUES, max_size=3) | JSON_VALUES
INPUTS = st.fixed_dictionaries(
    {},
    optional={
        "name": NAMES,
        "shape": SHAPE_VALUES,
        "datatype": st.sampled_from([d.wire for d in DataType]) | JSON_VALUES,
        "data": JSON_VALUES,
        "parameters": PARAMETERS,
    },
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON_VALUES,
        "inputs": st.lists(INPUTS | JSON_VALUES, max_size=3) | JSON_VALUES,
        "outputs": st.lists(st.fixed_dictionaries({}, optional={"name": NAMES, "parameters": PARAMETERS}), max_size=3)
        | JSON_VALUES,
        "parameters": PARAMETERS,
    },
)


def answered(call):
    """Whether `call` gives a value; anything but a refusal that can be sent propagates and fails the test."""
    try:
        call()
    except ServingError as error:
        body = error_body(error)
        assert len(body) < 20_000
        assert json.loads(body)["error"]
        return False
    return True


@given(REQUESTS, st.binary(max_size=16), st.integers(-5, 5))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_decoded_or_refused(document, tail, shift):
    head = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
    answered(lambda: decode_infer("m", "1", head, None))
    answered(lambda: decode_infer("m", "1", memoryview(head + tail), len(head) + shift))


@given(st.binary(max_size=200), st.none() | st.integers(-1, 210))
@settings(max_examples=300)
def test_any_bytes_are_decoded_or_refused(body, header_length):
    answered(lambda: decode_infer("m", "1", body, header_length))
    answered(lambda: json_bodies.decode_load(body))
    answered(lambda: json_bodies.decode_unload(body))
    answered(lambda: json_bodies.decode_index(body))
    answered(lambda: json_bodies.decode_shm_register(body, "r"))
    answered(lambda: parse_json_object(body, "it"))


VALID = (
    b'{"id":"1","parameters":{"timeout":5},"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4.5]]},'
    b'{"name":"b","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":6}}],'
    b'"outputs":[{"name":"y","parameters":{"classification":2,"binary_data":true}}]}'
)


@given(st.lists(st.tuples(st.integers(0, len(VALID) + 5), st.binary(max_size=3), st.integers(0, 3)), max_size=6))
@settings(max_examples=400)
def test_damaged_requests_are_decoded_or_refused(changes):
    body = bytearray(VALID + b"\x02\0\0\0hi")
    for position, new, removed in changes:
        body[position : position + removed] = new
    answered(lambda: decode_infer("m", "1", bytes(body), len(VALID)))
    answered(lambda: decode_infer("m", "1", bytes(body), None))


@given(
    st.recursive(
        st.integers() | st.text('[]{}"\\ab'),
        lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text('[{"\\'), s, max_size=3),
    )
)
def test_depth_counts_nesting_and_nothing_else(value):
    def depth(item):
        if isinstance(item, dict):
            return 1 + max(map(depth, item.values()), default=0)
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    assert _depth(json.dumps(value).encode()) == depth(value)


@given(st.text(max_size=12))
def test_any_header_is_a_length_or_refused(text):
    answered(lambda: parse_header_length(text, 100))


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]), st.integers(0, 1000))
def test_decompression_undoes_compression_within_its_limit(data, coding, limit):
    packed = compression.compress([data], coding)
    assert answered(lambda: compression.decompress(packed, coding, limit)) == (len(data) <= limit)
    assert compression.decompress(packed, coding, len(data)) == data


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 60), st.sampled_from(["gzip", "deflate"]))
def test_any_compressed_bytes_are_decoded_or_refused(data, junk, position, coding):
    packed = bytearray(compression.compress([data], coding))
    packed[position : position + len(junk)] = junk
    answered(lambda: compression.decompress(bytes(packed), coding, 1000))
    answered(lambda: compression.decompress(junk, coding, 1000))


@given(st.text(max_size=40), st.sampled_from(["gzip", "deflate", "identity", "*", ";q=0.5", ";q=0", ","]))
def test_any_coding_header_is_read_or_refused(text, piece):
    answered(lambda: compression.content_encoding(text + piece))
    assert compression.accepted_encoding(text + piece) in {None, "gzip", "deflate"}
