"""Plans of repeated requests: whatever they answer, the codecs would have answered the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.errors import ServingError
from tensorquay.protocol import v2_json, v2_proto
from tensorquay.protocol.repeats import JsonRequests, ProtoRequests
from tensorquay.protocol.schema import message_class

REQUEST = message_class("inference.ModelInferRequest")


def seen(decoded):
    request, options = decoded
    tensors = [(t.name, t.datatype, t.shape, t.array.tobytes()) for t in request.inputs]
    rest = (request.model_name, request.model_version, request.id, request.outputs, dict(request.parameters))
    return tensors, rest, request.priority, request.timeout_us, request.arrival_ns, options


def outcome(decode):
    try:
        return seen(decode())
    except ServingError as error:
        return error.message


def json_body(arrays, **more):
    inputs = [
        {"name": f"x{n}", "datatype": "FP32", "shape": list(a.shape), "parameters": {"binary_data_size": a.nbytes}}
        for n, a in enumerate(arrays)
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True, "priority": 2}, **more}).encode()
    return head + b"".join(a.tobytes() for a in arrays), len(head)


def proto_body(arrays, **more):
    message = REQUEST(model_name="m", **more)
    for n, a in enumerate(arrays):
        message.inputs.add(name=f"x{n}", datatype="FP32", shape=a.shape)
        message.raw_input_contents.append(a.tobytes())
    return message.SerializeToString()


shapes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=3)


@given(shapes, st.integers(0, 2**32 - 1))
def test_a_repeated_binary_request_is_decoded_as_if_it_were_new(shapes, seed):
    rng = np.random.default_rng(seed)
    repeats = JsonRequests("m", "1")
    for arrival in range(3):
        body, length = json_body([rng.random(shape, np.float32) for shape in shapes])
        expected = v2_json.decode_infer("m", "1", body, length, arrival_ns=arrival)
        assert seen(repeats.decode(body, length, shm=None, arrival_ns=arrival)) == seen(expected)
    assert len(repeats._plans) == 1


@given(shapes, st.integers(0, 2**32 - 1))
def test_a_repeated_message_is_decoded_as_if_it_were_new(shapes, seed):
    rng = np.random.default_rng(seed)
    repeats = ProtoRequests()
    for arrival in range(3):
        data = proto_body([rng.random(shape, np.float32) for shape in shapes])
        assert seen(repeats.decode(data, shm=None, arrival_ns=arrival)) == seen(
            v2_proto.decode_infer(data, arrival_ns=arrival)
        )


@given(st.data())
def test_a_message_that_was_damaged_after_a_good_one_is_judged_by_the_codec(data):
    good = proto_body([np.ones((2, 3), np.float32), np.zeros((1,), np.float32)])
    repeats = ProtoRequests()
    repeats.decode(good, shm=None, arrival_ns=0)
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    bad = bytes(bad)
    assert outcome(lambda: repeats.decode(bad, shm=None, arrival_ns=0)) == outcome(lambda: v2_proto.decode_infer(bad))


@pytest.mark.parametrize("change", [-1, 1, 100])
def test_missing_and_surplus_bytes_are_refused_as_ever(change):
    body, length = json_body([np.ones((4, 4), np.float32)])
    repeats = JsonRequests("m", "")
    repeats.decode(body, length, shm=None, arrival_ns=0)
    wrong = body + b"x" * change if change > 0 else body[:change]
    assert outcome(lambda: repeats.decode(wrong, length, shm=None, arrival_ns=0)) == outcome(
        lambda: v2_json.decode_infer("m", "", wrong, length)
    )


def test_requests_with_an_id_are_not_kept():
    json_repeats, proto_repeats = JsonRequests("m", ""), ProtoRequests()
    for number in range(5):
        body, length = json_body([np.ones((1,), np.float32)], id=str(number))
        assert json_repeats.decode(body, length, shm=None, arrival_ns=0)[0].id == str(number)
        data = proto_body([np.ones((1,), np.float32)], id=str(number))
        assert proto_repeats.decode(data, shm=None, arrival_ns=0)[0].id == str(number)
    assert not json_repeats._plans
    assert not proto_repeats._plans


def test_typed_contents_that_look_like_raw_ones_are_not_taken_for_them():
    raw = np.ones((1,), np.float32).tobytes()
    message = REQUEST(model_name="m")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1])
    tensor.contents.fp32_contents.append(1.0)
    # An unknown field whose bytes end like a raw tensor.
    data = message.SerializeToString() + b"\xf2\x06\x06" + b"\x3a\x04" + raw
    repeats = ProtoRequests()
    first = outcome(lambda: repeats.decode(data, shm=None, arrival_ns=0))
    assert first == outcome(lambda: v2_proto.decode_infer(data))
    assert not repeats._plans


def test_memory_for_plans_is_bounded():
    repeats = JsonRequests("m", "")
    protos = ProtoRequests()
    for number in range(1, 1500):
        body, length = json_body([np.zeros((number,), np.float32)])
        repeats.decode(body, length, shm=None, arrival_ns=0)
        protos.decode(proto_body([np.zeros((number,), np.float32)]), shm=None, arrival_ns=0)
    assert len(repeats._plans) <= 1024
    assert len(protos._plans) <= 1024
