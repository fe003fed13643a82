"""Casting keeps values or refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay_client.casting import cast, cast_inputs
from tensorquay_client.errors import InvalidArgument
from tensorquay_client.messages import ModelMetadata, TensorMetadata
from tensorquay_client.tensors import wire_dtype

INTEGERS = ["INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64"]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3), st.sampled_from(INTEGERS))
def test_integers_are_kept_or_refused(values: list[int], datatype: str) -> None:
    limits = np.iinfo(wire_dtype(datatype))
    fits = all(limits.min <= value <= limits.max for value in values)
    try:
        tensor = cast("x", np.array(values, dtype=np.int64), datatype)
    except InvalidArgument:
        assert not fits
    else:
        assert fits
        assert tensor.datatype == datatype
        assert tensor.array.tolist() == values


@pytest.mark.parametrize(
    ("values", "datatype", "expected"),
    [
        ([1, 2], "FP32", [1.0, 2.0]),
        ([0.1], "FP32", [np.float32(0.1)]),
        ([0.1], "FP16", [np.float16(0.1)]),
        ([np.nan, np.inf], "FP16", [np.nan, np.inf]),
        ([1.0, -3.0], "INT8", [1, -3]),
        ([True, False], "INT64", [1, 0]),
        ([0, 1], "BOOL", [False, True]),
        ([1.5], "BF16", [0x3FC0]),
    ],
)
def test_values_that_survive(values: list[Any], datatype: str, expected: list[Any]) -> None:
    tensor = cast("x", np.array(values), datatype)
    assert tensor.datatype == datatype
    np.testing.assert_array_equal(tensor.array, expected)


@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        ([0.5], "INT32"),
        ([np.nan], "INT32"),
        ([np.inf], "INT64"),
        ([2.0**63], "INT64"),
        ([2], "BOOL"),
        ([-1], "UINT8"),
        ([1e6], "FP16"),
        ([1e300], "FP32"),
        ([2**24 + 1], "FP32"),
        (["1"], "FP32"),
        ([1], "BYTES"),
    ],
)
def test_values_that_do_not(values: list[Any], datatype: str) -> None:
    with pytest.raises(InvalidArgument, match=f"input 'x': the model expects {datatype}"):
        cast("x", np.array(values), datatype)


def test_names_the_model_does_not_have_pass_for_the_server_to_refuse() -> None:
    metadata = ModelMetadata("m", ("1",), "", (TensorMetadata("x", "FP32", (-1,)),), ())
    tensors = cast_inputs({"x": [1], "other": [1]}, metadata)
    assert {name: tensor.datatype for name, tensor in tensors.items()} == {"x": "FP32", "other": "INT64"}
