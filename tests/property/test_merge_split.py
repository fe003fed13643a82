"""Merging and splitting are inverse, for any number of riders, rows and element types."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.batching.merge import merge, split
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ModelFailed


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
    return parts


@given(riders())
def test_split_gives_back_what_merge_took(parts):
    batch = merge(parts)
    assert batch.dtype == parts[0].dtype
    pieces = split("y", batch, [len(part) for part in parts])
    assert len(pieces) == len(parts)
    for piece, part in zip(pieces, parts, strict=True):
        assert piece.shape == part.shape
        assert np.array_equal(piece, part)


@pytest.mark.parametrize("shape", [(), (2,), (4, 1)])
def test_an_output_whose_first_axis_is_no_batch_is_named(shape):
    with pytest.raises(ModelFailed, match=r"output 'y'.*batch of 3 rows.*max_batch_size to 0"):
        split("y", np.zeros(shape), [1, 2])
