"""numpy ⇄ wire, against tritonclient's own serialisers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient import utils as triton

from tensorquay_client.errors import InvalidArgument, ProtocolError
from tensorquay_client.tensors import Tensor, as_tensor, from_wire, to_wire

FIXED = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]


@pytest.mark.parametrize("dtype", FIXED)
def test_fixed_size_types_have_tritonclients_names_and_come_back(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = as_tensor(array)
    assert tensor.datatype == triton.np_to_triton_dtype(array.dtype)
    back = from_wire("x", tensor.datatype, [2, 3], bytes(to_wire(tensor)))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


def test_contiguous_arrays_are_sent_without_a_copy() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    view = to_wire(as_tensor(array))
    assert isinstance(view, memoryview)
    assert np.shares_memory(np.frombuffer(view, np.uint8), array)


def test_strided_and_big_endian_arrays_are_put_in_order() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4).T
    tensor = as_tensor(array)
    assert tensor.datatype == "INT32"
    assert bytes(to_wire(tensor)) == np.ascontiguousarray(array).astype("<i4").tobytes()


@given(hnp.arrays(np.object_, hnp.array_shapes(max_dims=3, max_side=4, min_side=0), elements=st.binary(max_size=20)))
def test_bytes_are_framed_as_tritonclient_does_and_come_back(array: np.ndarray) -> None:
    wire = bytes(to_wire(as_tensor(array)))
    expected = triton.serialize_byte_tensor(array)
    assert wire == (expected.item() if expected.size else b"")
    back = from_wire("x", "BYTES", array.shape, wire)
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize(
    "array", [np.array(["zwölf", ""]), np.array([b"zw\xc3\xb6lf", b""]), np.array(["zwölf", b""], dtype=object)]
)
def test_text_is_sent_as_utf8(array: np.ndarray) -> None:
    tensor = as_tensor(array)
    assert tensor.datatype == "BYTES"
    assert tensor.array.tolist() == ["zwölf".encode(), b""]


@pytest.mark.parametrize("value", [[["é", b"\xff\0"]], [[b"\xc3\xa9", b"\xff\0"]]])
def test_lists_of_bytes_lose_nothing(value: list[Any]) -> None:
    tensor = as_tensor(value)
    assert tensor.datatype == "BYTES"
    assert tensor.array.tolist() == [["é".encode(), b"\xff\0"]]


@given(hnp.arrays(np.float32, 5, elements=st.floats(width=32)))
def test_float32_becomes_the_nearest_bfloat16(array: np.ndarray) -> None:
    tensor = Tensor(array, "BF16")
    expected = array.astype(ml_dtypes.bfloat16)
    back = from_wire("x", "BF16", [5], bytes(to_wire(tensor)))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, expected.astype(np.float32))


def test_bfloat16_arrays_and_raw_bits_are_sent_as_they_are() -> None:
    array = np.array([[1.5, -2.0]], dtype=ml_dtypes.bfloat16)
    assert as_tensor(array).datatype == "BF16"
    assert bytes(to_wire(as_tensor(array))) == array.tobytes()
    assert bytes(to_wire(Tensor(array.view(np.uint16), "BF16"))) == array.tobytes()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros(2, np.complex64), "complex64"),
        (np.array(["2026-01-01"], "M8[D]"), "datetime64"),
        (np.array([1, None], dtype=object), "int at element 0"),
        ([[1, 2], [3]], "not an array"),
    ],
)
def test_what_has_no_wire_type_is_refused(value: Any, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        as_tensor(value)


def test_an_explicit_type_must_match() -> None:
    with pytest.raises(InvalidArgument, match="given as FP32"):
        Tensor(np.zeros(2, np.int64), "FP32")
    with pytest.raises(InvalidArgument, match="unknown data type 'FLOAT'"):
        Tensor(np.zeros(2), "FLOAT")


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP32", [2], b"\0" * 7),
        ("FP32", [2], b"\0" * 9),
        ("FP32", [-1], b""),
        ("FP32", ["2"], b"\0" * 8),
        ("FP32", [True], b"\0" * 4),
        ("FP32", [2**62, 0, 2**62], b""),
        ("FP32", [1] * 65, b"\0" * 4),
        ("BYTES", [2**40], b"\0" * 8),
        ("BYTES", [1], b"\x05\0\0\0abc"),
        ("BYTES", [1], b"\x01\0\0\0ab"),
        ("BYTES", [2], b"\x04\0\0\0abcd"),
        ("FLOAT", [1], b"\0" * 4),
    ],
)
def test_wrong_answers_are_refused(datatype: str, shape: list[object], data: bytes) -> None:
    with pytest.raises(ProtocolError):
        from_wire("x", datatype, shape, data)


def test_unaligned_data_comes_back_aligned() -> None:
    data = memoryview(b"x" + np.arange(4, dtype="<f8").tobytes())[1:]
    array = from_wire("x", "FP64", [4], data)
    assert array.flags.aligned
    assert array.tolist() == [0, 1, 2, 3]


def test_scalars_and_empty_axes() -> None:
    assert from_wire("x", "INT64", [], bytes(to_wire(as_tensor(np.int64(7))))).item() == 7
    assert from_wire("x", "FP32", [0, 3], bytes(to_wire(as_tensor(np.zeros((0, 3), "f4"))))).shape == (0, 3)
