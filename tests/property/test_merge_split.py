"""Merging and splitting are inverse, for any number of riders, rows and element types."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.batching.merge import check_rows, merge
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ModelFailed
from tensorquay.core.packed import BatchRun, Ride
from tensorquay.core.signature import TensorSpec


@st.composite
def riders(draw):
    datatype = draw(st.sampled_from(list(DataType)))
    rest = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    rows = draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = []
    for count in rows:
        raw = rng.integers(0, 2, size=(count, *rest))
        if datatype is DataType.BYTES:
            part = np.empty(raw.shape, dtype=object)
            part.flat = [b"\x00\xff" * int(value) for value in raw.flat]
        else:
            part = raw.astype(datatype.numpy)
        parts.append(np.asfortranarray(part) if draw(st.booleans()) else part)
    return datatype, parts


def row_shape(parts):
    return parts[0].shape[1:]


@given(riders(), st.data())
def test_a_ride_gives_back_what_merge_took(parts, data):
    datatype, parts = parts
    rows = [len(part) for part in parts]
    # What was received comes as bytes, what was converted as an array; a batch may have both.
    packed = [part.tobytes() if datatype is not DataType.BYTES and data.draw(st.booleans()) else part for part in parts]
    batch = merge(packed, datatype, (sum(rows), *row_shape(parts)))
    assert batch.dtype == datatype.numpy
    check_rows("y", batch, sum(rows))
    run = BatchRun((TensorSpec("y", datatype, ()),), [batch], sum(rows), input_ns=0, infer_ns=0, output_ns=0)
    start = 0
    for part in parts:
        ride = Ride(run, start, start + len(part), 0)
        start += len(part)
        (tensor,) = ride
        assert tensor.array.shape == part.shape
        assert np.array_equal(tensor.array, part)
        if datatype is not DataType.BYTES:
            assert bytes(ride.buffer(0)) == part.tobytes()


@pytest.mark.parametrize("shape", [(), (2,), (4, 1)])
def test_an_output_whose_first_axis_is_no_batch_is_named(shape):
    with pytest.raises(ModelFailed, match=r"output 'y'.*batch of 3 rows.*max_batch_size to 0"):
        check_rows("y", np.zeros(shape), 3)
