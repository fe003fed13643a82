"""Laws of what front ends and owner exchange: records survive any cutting, shared memory is never lent twice."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tensorquay.core.datatypes import DataType
from tensorquay.core.messages import InferRequest, RequestedOutput
from tensorquay.core.tensors import Tensor, to_buffer
from tensorquay.frontends.arena import ALIGNMENT, Space, inline
from tensorquay.frontends.records import HEAD, BrokenLink, Kind, RecordReader, dump, record
from tensorquay.frontends.templates import MAX_TEMPLATES, RequestNumbers, RequestShape, sizes_of

bodies = st.lists(st.binary(max_size=300), max_size=12)


@given(bodies, st.lists(st.integers(1, 200), max_size=40))
def test_records_come_out_as_they_went_in_however_the_stream_is_cut(contents: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(b"".join(record(Kind.LOG, body, call=n)) for n, body in enumerate(contents))
    reader, got = RecordReader(), []
    sizes = iter(cuts)
    while stream:
        size = next(sizes, len(stream))
        buffer, starts = reader.feed(stream[:size])
        stream = stream[size:]
        for at in starts:
            length, kind, _, _, call, _ = HEAD.unpack_from(buffer, at)
            assert kind == Kind.LOG
            got.append((call, buffer[at + HEAD.size : at + length]))
    assert got == list(enumerate(contents))


@given(st.binary(min_size=HEAD.size, max_size=200))
def test_no_bytes_do_more_than_break_the_link(data: bytes) -> None:
    try:
        buffer, starts = RecordReader().feed(data)
    except BrokenLink:
        return
    assert all(at + HEAD.size <= len(buffer) for at in starts)


DTYPES = sorted(set(DataType) - {DataType.BYTES, DataType.BOOL}, key=lambda each: each.wire)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
texts = st.text(max_size=8)
parameters = st.dictionaries(
    texts, st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts, max_size=3
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype, shape = draw(st.sampled_from([*DTYPES, DataType.BYTES])), draw(shapes)
    count = int(np.prod(shape, dtype=int))
    if datatype is DataType.BYTES:
        flat = np.empty(count, np.object_)
        flat[:] = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count))
    else:
        size = count * datatype.item_bytes
        flat = (
            np.frombuffer(draw(st.binary(min_size=size, max_size=size)) or b"", datatype.numpy)
            if size
            else np.empty(0, datatype.numpy)
        )
    return Tensor(draw(texts), datatype, flat.reshape(shape))


@st.composite
def requests(draw: st.DrawFn) -> InferRequest:
    outputs = draw(st.none() | st.lists(st.builds(RequestedOutput, texts, st.integers(0, 9)), max_size=2))
    return InferRequest(
        draw(texts), draw(texts), draw(texts), draw(st.lists(tensors(), max_size=3)), outputs, draw(parameters),
        draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**63 - 1)),
    )  # fmt: skip


@given(st.lists(requests(), max_size=4))
def test_a_request_is_the_same_on_the_other_side(sent: list[InferRequest]) -> None:
    numbers, known = RequestNumbers(), {}
    for request in [*sent, *sent]:
        number, document = numbers.of(request)
        if document is not None:
            known[number] = RequestShape.parsed(json.loads(document))
        shape = known[number]
        buffers = [to_buffer(tensor) for tensor in request.inputs]
        sizes = sizes_of(request.inputs, buffers)
        payload = sizes + b"".join(inline(buffers))
        given_sizes, total = shape.tensors.sizes_at(payload, 0)
        assert total == len(payload) - len(sizes)
        got = shape.request(request.id, shape.tensors.read(payload, len(sizes), given_sizes), 0, None)
        assert (got.model_name, got.model_version, got.id) == (request.model_name, request.model_version, request.id)
        assert got.outputs == request.outputs
        assert dict(got.parameters) == dict(request.parameters)
        assert [type(value) for value in got.parameters.values()] == [
            type(value) for value in request.parameters.values()
        ]
        assert (got.priority, got.timeout_us) == (request.priority, request.timeout_us)
        for ours, theirs in zip(got.inputs, request.inputs, strict=True):
            assert (ours.name, ours.datatype, ours.shape) == (theirs.name, theirs.datatype, theirs.shape)
            assert to_buffer(ours) == to_buffer(theirs)


@given(st.lists(st.integers(0, 3 * MAX_TEMPLATES), max_size=200))
def test_a_number_always_means_what_was_said_last(models: list[int]) -> None:
    numbers, known = RequestNumbers(), {}
    for model in [*range(MAX_TEMPLATES + 5), *models]:
        number, document = numbers.of(InferRequest(f"m{model}", "", "", []))
        assert 0 <= number < MAX_TEMPLATES
        if document is not None:
            known[number] = json.loads(document)[0]
        assert known[number] == f"m{model}"


SIZE = 64 * ALIGNMENT


class Arenas(RuleBasedStateMachine):
    """Ranges never overlap and never leave the arena; when all are released, all of it is free again."""

    def __init__(self) -> None:
        super().__init__()
        self.space = Space(SIZE)
        self.taken: dict[int, int] = {}

    @rule(size=st.integers(1, SIZE + 1))
    def take(self, size: int) -> None:
        start = self.space.take(size)
        if start is None:
            assert size > self._largest_hole()
            return
        assert start % ALIGNMENT == 0
        assert start >= 0
        assert start + size <= SIZE
        assert all(start + size <= other or other + length <= start for other, length in self.taken.items())
        self.taken[start] = size

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        start = data.draw(st.sampled_from(sorted(self.taken)))
        self.space.release(start)
        del self.taken[start]

    @rule(start=st.integers(0, SIZE))
    def release_what_is_not_taken(self, start: int) -> None:
        if start not in self.taken:
            with pytest.raises(BrokenLink):
                self.space.release(start)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.space.taken == len(self.taken)
        if not self.taken:
            start = self.space.take(SIZE)
            assert start == 0
            self.space.release(0)

    def _largest_hole(self) -> int:
        edges = [0]
        for start, size in sorted(self.taken.items()):
            edges += [start, start + -(-size // ALIGNMENT) * ALIGNMENT]
        edges.append(SIZE)
        return max(stop - start for start, stop in zip(edges[::2], edges[1::2], strict=True))


TestArenas = Arenas.TestCase


def test_documents_say_every_number_a_client_may_send() -> None:
    said = {"huge": 2**64 - 1, "nothing": float("nan"), "endless": float("inf"), "half": "\ud800"}
    got = json.loads(dump(said))
    assert got["huge"] == 2**64 - 1
    assert got["nothing"] != got["nothing"]
    assert got["endless"] == float("inf")
    assert got["half"] == "\ud800"
