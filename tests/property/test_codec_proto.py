"""Laws of the protobuf codec: values survive, both ways of reading agree, and nothing but refusals is raised."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferResponse, Timings
from tensorquay.core.tensors import Tensor
from tensorquay.protocol import health, proto_bodies, reflection, v2_proto
from tensorquay.protocol.options import WireOptions
from tensorquay.protocol.proto_scan import split_raw
from tensorquay.protocol.schema import message_class
from tensorquay.protocol.status import error_body

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
TEXT = st.text(max_size=6)


@st.composite
def tensors(draw):
    name = draw(st.text(min_size=1, max_size=5))
    datatype = draw(st.sampled_from(list(DataType)))
    if datatype is DataType.BYTES:
        shape = draw(SHAPES)
        array = np.empty(shape, dtype=np.object_)
        for index in np.ndindex(shape):
            array[index] = draw(st.binary(max_size=4))
        return Tensor(name, datatype, array)
    return Tensor(name, datatype, draw(hnp.arrays(datatype.numpy, SHAPES)))


def bits(tensor):
    return tensor.array.tolist() if tensor.datatype is DataType.BYTES else tensor.array.tobytes()


@given(st.lists(tensors(), max_size=4, unique_by=lambda t: t.name), TEXT)
def test_an_answer_read_as_a_request_gives_the_tensors_back(outputs, request_id):
    """The two messages share their numbers up to the raw contents, so one can be turned into the other."""
    data = v2_proto.encode_infer(InferResponse("m", "1", request_id, outputs, Timings(0, 0, 0, 0, 1)), WireOptions())
    answer = message_class("inference.ModelInferResponse").FromString(data)
    request = message_class("inference.ModelInferRequest")(
        model_name=answer.model_name, id=answer.id, raw_input_contents=answer.raw_output_contents
    )
    for output in answer.outputs:
        request.inputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
    got, _ = v2_proto.decode_infer(request.SerializeToString())
    assert got.id == request_id
    assert [(t.name, t.datatype, t.shape, bits(t)) for t in got.inputs] == [
        (t.name, t.datatype, t.shape, bits(t)) for t in outputs
    ]


@st.composite
def requests(draw):
    message = message_class("inference.ModelInferRequest")(
        model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT),
        raw_input_contents=draw(st.lists(st.binary(max_size=12), max_size=3)),
    )  # fmt: skip
    for key in draw(st.lists(st.sampled_from(["priority", "timeout", "sequence_id", "triton_x", "p"]), max_size=2)):
        message.parameters[key].int64_param = draw(st.integers(-2, 2**63 - 1))
    for _ in range(draw(st.integers(0, 3))):
        item = message.inputs.add(
            name=draw(st.sampled_from(["x", "y", ""])),
            datatype=draw(st.sampled_from([*(d.wire for d in DataType), "?"])),
            shape=draw(st.lists(st.integers(-1, 3) | st.integers(-(2**63), 2**63 - 1), max_size=3)),
        )
        if draw(st.booleans()):
            item.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=4)))
        if draw(st.booleans()):
            item.contents.int_contents.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
        if draw(st.booleans()):
            item.parameters["shared_memory_region"].string_param = draw(TEXT)
    for _ in range(draw(st.integers(0, 2))):
        output = message.outputs.add(name=draw(st.sampled_from(["x", "y", ""])))
        if draw(st.booleans()):
            output.parameters["classification"].int64_param = draw(st.integers(-1, 2**63 - 1))
    return message.SerializeToString()


def answered(call):
    """What `call` gives, or None for a refusal that can be sent; anything else propagates and fails the test."""
    try:
        return call()
    except ServingError as error:
        text = error_body(error)
    assert len(text) < 20_000
    return None


@given(requests())
@settings(max_examples=300)
def test_any_request_is_decoded_or_refused(data):
    answered(lambda: v2_proto.decode_infer(data))


@given(requests(), st.lists(st.tuples(st.integers(0, 100), st.binary(max_size=3), st.integers(0, 3)), max_size=5))
@settings(max_examples=400)
def test_damaged_requests_are_decoded_or_refused(data, changes):
    body = bytearray(data)
    for position, new, removed in changes:
        body[position : position + removed] = new
    answered(lambda: v2_proto.decode_infer(bytes(body)))


@given(requests())
def test_finding_raw_contents_ourselves_gives_what_the_library_gives(data):
    whole = message_class("inference.ModelInferRequest").FromString(data)
    rest, raw = split_raw(data)
    assert [bytes(item) for item in raw] == list(whole.raw_input_contents)
    del whole.raw_input_contents[:]
    assert message_class("inference.ModelInferRequest").FromString(rest) == whole


@given(st.binary(max_size=60))
@settings(max_examples=400)
def test_what_the_scan_accepts_is_read_alike_by_the_library(data):
    found = answered(lambda: split_raw(data))
    if found is None:
        return
    whole = answered(lambda: v2_proto.parse("inference.ModelInferRequest", data))
    rest = answered(lambda: v2_proto.parse("inference.ModelInferRequest", found[0]))
    if whole is not None and rest is not None:
        assert [bytes(item) for item in found[1]] == list(whole.raw_input_contents)


@given(st.binary(max_size=80))
@settings(max_examples=300)
def test_any_bytes_are_decoded_or_refused(data):
    for decode in (
        v2_proto.decode_infer, proto_bodies.decode_name_version, proto_bodies.decode_index, proto_bodies.decode_load,
        proto_bodies.decode_unload, proto_bodies.decode_region_name, proto_bodies.decode_shm_register,
        proto_bodies.decode_trace_setting, proto_bodies.decode_log_settings, reflection.answer,
    ):  # fmt: skip
        answered(lambda decode=decode: decode(data))
    answered(lambda: health.check(data, ready=True))
