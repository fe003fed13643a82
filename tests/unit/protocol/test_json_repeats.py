"""Repeated JSON requests: whatever a plan reads, the codec would have read the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ServingError
from tensorquay.core.packed import PackedTensors
from tensorquay.protocol import v2_json
from tensorquay.protocol.repeats import JsonRequests

RANGES = {
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "UINT8": st.integers(0, 255),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53)),
}


def seen(decoded):
    request, options = decoded
    tensors = [(t.name, t.datatype, t.shape, t.array.dtype, t.array.tolist()) for t in request.inputs]
    return tensors, request.id, request.outputs, dict(request.parameters), request.priority, options


def outcome(decode):
    try:
        return seen(decode())
    except ServingError as error:
        return error.message


def plain(body: bytes):
    return outcome(lambda: v2_json.decode_infer("m", "", body, None))


def repeated(requests: JsonRequests, body: bytes):
    return outcome(lambda: requests.decode(body, None, shm=None, arrival_ns=0))


def taught(body: bytes) -> JsonRequests:
    requests = JsonRequests("m", "")
    for _ in range(2):
        requests.decode(body, None, shm=None, arrival_ns=0)
    return requests


def document(inputs, **more) -> dict:
    return {
        "inputs": [
            {"name": f"x{number}", "shape": [len(values)], "datatype": datatype, "data": values}
            for number, (datatype, values) in enumerate(inputs)
        ],
        **more,
    }


@st.composite
def like_requests(draw):
    """Two requests that differ in their elements only, written in one of the ways clients write."""
    kinds = draw(st.lists(st.tuples(st.sampled_from(list(RANGES)), st.integers(0, 5)), min_size=1, max_size=3))
    more = draw(st.sampled_from([{}, {"parameters": {"priority": 1, "data": "[1]"}}, {"outputs": [{"name": "data"}]}]))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
    return [
        json.dumps(
            document([(kind, draw(st.lists(RANGES[kind], min_size=n, max_size=n))) for kind, n in kinds], **more),
            separators=separators,
        ).encode()
        for _ in range(2)
    ]


@given(like_requests())
def test_a_repeated_request_is_read_as_if_it_were_new(bodies):
    first, second = bodies
    requests = taught(first)
    decoded, _ = requests.decode(second, None, shm=None, arrival_ns=0)
    assert type(decoded.inputs) is PackedTensors, "the short way was not taken"
    assert repeated(requests, second) == plain(second)


GOOD = json.dumps(document([("INT32", [1, 2, 3]), ("FP32", [0.5, 1.5])])).encode()
PIECES = [
    b"[",
    b"]",
    b",",
    b'"data"',
    b"true",
    b"false",
    b"null",
    b"1.5",
    b"1e3",
    b"-",
    b'"',
    b"{",
    b"}",
    b"\xff",
    b" ",
]


@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 4), st.sampled_from(PIECES)), max_size=4))
def test_a_request_that_was_damaged_after_a_good_one_is_judged_by_the_codec(edits):
    body = GOOD
    for at, removed, put in edits:
        body = body[:at] + put + body[at + removed :]
    assert repeated(taught(GOOD), body) == plain(body)


@pytest.mark.parametrize(
    "data",
    ["[1,2]", "[1,2,3,4]", "[1,true,3]", "[1,null,3]", '[1,"2",3]', "[1,2.5,3]", "[1,2147483648,3]", "[[1,2,3]]",
     "[1,,3]", "[]", "{}", "[1,2,3", "7", "[1,2,3] ", "[1, 2 ,3]", "[1,2,1e400]"],
)  # fmt: skip
def test_elements_that_differ_in_kind_or_number_are_judged_by_the_codec(data):
    body = GOOD.replace(b"[1, 2, 3]", data.encode())
    assert repeated(taught(GOOD), body) == plain(body)


@pytest.mark.parametrize(
    "body",
    [
        document([("INT32", [[1, 2], [3, 4]])]),
        document([("BOOL", [True, False])]),
        document([("BYTES", ["a]", '"data":[1]'])]),
        document([("INT32", [1])], id="7"),
        document([("INT32", [1])], data=[1]),
    ],
    ids=["nested", "bool", "texts", "id", "another data"],
)
def test_what_cannot_be_learnt_stays_with_the_codec(body):
    if isinstance(body["inputs"][0]["data"][0], list):
        body["inputs"][0]["shape"] = [2, 2]
    text = json.dumps(body).encode()
    requests = taught(text)
    assert repeated(requests, text) == plain(text)
    changed = text.replace(b"1", b"9")
    assert repeated(requests, changed) == plain(changed)


def test_a_member_that_is_repeated_is_not_learnt():
    text = b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT32","data":[1],"data":[2]}]}'
    requests = taught(text)
    changed = text.replace(b"[1],", b"[5],")
    assert repeated(requests, changed) == plain(changed)


def test_memory_is_bounded():
    requests = JsonRequests("m", "")
    for number in range(2100):
        body = json.dumps(document([("INT32", [1])], parameters={"p": number})).encode()
        body = body.replace(b'"x0"', b'"x%d"' % number)
        requests.decode(body, None, shm=None, arrival_ns=0)
    assert len(requests._texts) <= 1024


def test_elements_become_bytes_of_their_type():
    requests = taught(GOOD)
    decoded, _ = requests.decode(GOOD.replace(b"0.5", b"7"), None, shm=None, arrival_ns=0)
    integers, floats = decoded.inputs
    assert integers.array.tolist() == [1, 2, 3]
    assert floats.datatype is DataType.FP32
    assert floats.array.dtype == np.float32
    assert floats.array.tolist() == [7.0, 1.5]
