"""Answers cut out of a run's bytes are what the codecs write from the tensors of each rider."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferResponse
from tensorquay.core.packed import BatchRun, Ride
from tensorquay.core.signature import TensorSpec
from tensorquay.http_api.answers import AnswerShapes
from tensorquay.protocol import v2_json, v2_proto
from tensorquay.protocol.options import BINARY_DEFAULTS, JSON_DEFAULTS
from tensorquay.transport.http_message import JSON, OCTETS, HttpReply, render_head

TYPES = [each for each in DataType if each is not DataType.BYTES] + [DataType.BYTES]


def elements(datatype: DataType, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if datatype is DataType.BYTES:
        array = np.empty(shape, np.object_)
        array.flat = [b"%d" % value for value in rng.integers(0, 99, array.size)]
        return array
    if datatype is DataType.FP32 and seed % 5 == 0:
        return np.full(shape, np.nan, np.float32)
    return (rng.random(shape) * 100).astype(datatype.numpy)


@st.composite
def runs(draw):
    """A run and its rides: rows of several riders, some of whom want only some of the outputs."""
    kinds = draw(
        st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from([(), (3,), (2, 2), (0,)])), min_size=1, max_size=2)
    )
    rows = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    total = sum(rows)
    seed = draw(st.integers(0, 1000))
    specs = tuple(TensorSpec(f"y{n}", datatype, (-1, *shape)) for n, (datatype, shape) in enumerate(kinds))
    arrays = [elements(datatype, (total, *shape), seed + n) for n, (datatype, shape) in enumerate(kinds)]
    run = BatchRun(specs, arrays, total, input_ns=1, infer_ns=2, output_ns=3)
    rides, start = [], 0
    for count in rows:
        wanted = draw(st.sampled_from([None, (0,), tuple(reversed(range(len(kinds))))]))
        rides.append(Ride(run, start, start + count, 0, wanted))
        start += count
    return rides


def response(ride: Ride) -> InferResponse:
    return InferResponse("m", "1", "", ride, ride)


def by_tensors(ride: Ride) -> InferResponse:
    """The same answer, of which the encoders know nothing but its tensors."""
    return InferResponse("m", "1", "", list(ride), ride)


def encoded(answer: InferResponse, options):
    try:
        parts, header_length = v2_json.encode_infer(answer, options)
    except ServingError as error:
        return error.message
    return HttpReply(200, parts, JSON if header_length is None else OCTETS, [(b"x", str(header_length).encode())])


def filled_by(shapes: AnswerShapes, ride: Ride, options):
    try:
        return shapes.fill(response(ride), options)
    except ServingError as error:
        return error.message


@given(runs(), st.sampled_from([JSON_DEFAULTS, BINARY_DEFAULTS]))
def test_over_http(rides, options):
    shapes = AnswerShapes()
    for _ in range(2):
        for ride in rides:
            expected = encoded(by_tensors(ride), options)
            filled = filled_by(shapes, ride, options)
            if filled is None:
                if not isinstance(expected, str):
                    shapes.keep(response(ride), options, expected)
                continue
            if isinstance(filled, str):
                assert filled == expected
                continue
            body = b"".join(expected.parts)
            assert (filled.status, filled.content_type, b"".join(filled.parts)) == (200, expected.content_type, body)
            # Whoever writes heads himself needs them too.
            assert list(filled.headers) == (expected.headers if filled.content_type == OCTETS else [])
            if filled.written:
                head = render_head(expected if options is BINARY_DEFAULTS else HttpReply(200, expected.parts, JSON))
                assert filled.written == head + b"\r\n" + body


@given(runs())
def test_over_grpc(rides):
    for _ in range(2):
        for ride in rides:
            expected = v2_proto.encode_infer(by_tensors(ride), BINARY_DEFAULTS)
            assert v2_proto.encode_infer(response(ride), BINARY_DEFAULTS) == expected
