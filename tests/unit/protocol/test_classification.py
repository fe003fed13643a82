"""The classification extension: order, text and shape."""

import numpy as np
import pytest

from tensorquay.core.classification import MAX_ENTRIES, classify
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.tensors import Tensor


def classes(values, k, labels=(), datatype=DataType.FP32, batches=False):
    got = classify(Tensor("y", datatype, np.array(values, dtype=datatype.numpy)), k, labels, batches=batches)
    assert got.name == "y"
    assert got.datatype is DataType.BYTES
    return got.array


def test_the_best_come_first_with_index_and_label():
    got = classes([0.1, 0.7, 0.2], 2, ["cat", "dog", "owl"])
    assert got.tolist() == [b"0.700000:1:dog", b"0.200000:2:owl"]
    assert got.shape == (2,)


def test_labels_may_be_missing_or_empty():
    assert classes([3, 2, 1], 3, ["a", ""]).tolist() == [b"3.000000:0:a", b"2.000000:1", b"1.000000:2"]


@pytest.mark.parametrize(
    ("datatype", "values", "expected"),
    [
        (DataType.UINT8, [0, 255, 128], [b"255:1", b"128:2", b"0:0"]),
        (DataType.UINT64, [1, 2**64 - 1, 0], [b"18446744073709551615:1", b"1:0", b"0:2"]),
        (DataType.INT8, [-128, 127, 0], [b"127:1", b"0:2", b"-128:0"]),
        (DataType.INT64, [-(2**63), 5, 2**63 - 1], [b"9223372036854775807:2", b"5:1", b"-9223372036854775808:0"]),
        (DataType.FP16, [0.5, -1, 2], [b"2.000000:2", b"0.500000:0", b"-1.000000:1"]),
        (DataType.BF16, [0x3F00, 0xBF80, 0x4000], [b"2.000000:2", b"0.500000:0", b"-1.000000:1"]),
        (DataType.FP64, [1e-7, 123456.7890123, -0.0], [b"123456.789012:1", b"0.000000:0", b"-0.000000:2"]),
    ],
    ids=lambda value: getattr(value, "wire", None),
)
def test_values_are_printed_as_std_to_string_does(datatype, values, expected):
    assert classes(values, 3, datatype=datatype).tolist() == expected


def test_equal_values_keep_their_order_and_nan_is_last():
    nan, inf = float("nan"), float("inf")
    assert classes([1, nan, 1, inf, -inf, 1], 9).tolist() == [
        b"inf:3", b"1.000000:0", b"1.000000:2", b"1.000000:5", b"-inf:4", b"nan:1",
    ]  # fmt: skip


def test_every_row_of_a_batch_is_sorted_for_itself():
    got = classes([[1, 2], [4, 3]], 1, ["a", "b"], batches=True)
    assert got.tolist() == [[b"2.000000:1:b"], [b"4.000000:0:a"]]


def test_inner_axes_are_flattened():
    values = np.arange(12).reshape(2, 2, 3)
    assert classes(values, 1, batches=True).tolist() == [[b"5.000000:5"], [b"11.000000:5"]]
    assert classes(values, 1).tolist() == [b"11.000000:11"]


@pytest.mark.parametrize(
    ("shape", "batches", "expected"),
    [((3,), False, (3,)), ((), False, (1,)), ((0,), False, (0,)), ((2, 3), True, (2, 3)), ((2, 0), True, (2, 0)),
     ((0, 3), True, (0, 3)), ((2,), True, (2, 1))],
)  # fmt: skip
def test_k_is_capped_at_what_there_is(shape, batches, expected):
    assert classes(np.zeros(shape), 1000, batches=batches).shape == expected


@pytest.mark.parametrize("datatype", [DataType.BYTES, DataType.BOOL], ids=lambda d: d.wire)
def test_types_without_an_order(datatype):
    with pytest.raises(InvalidArgument, match=f"output 'y'.*{datatype.wire}"):
        classes([b"a"] if datatype is DataType.BYTES else [True], 1, datatype=datatype)


def test_the_answer_is_bounded():
    big = np.zeros(MAX_ENTRIES + 1, dtype=np.float32)
    with pytest.raises(InvalidArgument, match="more than 1000000"):
        classes(big, MAX_ENTRIES + 1)
    assert len(classes(big, 3)) == 3
    with pytest.raises(InvalidArgument, match="at least 1"):
        classes([1], 0)
