"""What counts as the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.unit.convert.proof.graphs import tensor

from tensorquay_convert.job import SourceKind, Tolerance
from tensorquay_convert.proof.compare import MAX_POINTS, compare, excess, off, sample
from tensorquay_convert.proof.inputs import to_dtype
from tensorquay_convert.proof.tolerances import DEFAULTS, allowed
from tensorquay_convert.tensors import BATCH, TensorSpec

_FLOATS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4), elements=st.floats(width=32)
)
_NONE = Tolerance()


def _spec(array: np.ndarray[Any, Any], dtype: str = "float32") -> TensorSpec:
    return TensorSpec("y", dtype, tuple(array.shape))


@given(_FLOATS)
def test_everything_equals_itself(values: np.ndarray[Any, Any]) -> None:
    found = compare(_spec(values), values, values.copy(), _NONE)
    assert found.within
    assert (found.max_absolute, found.problem) == (0.0, "")
    assert found.cosine is None or found.cosine == pytest.approx(1)
    assert found.top1 in {None, 1.0}


@given(_FLOATS, st.data())
def test_the_error_is_the_same_both_ways(values: np.ndarray[Any, Any], data: st.DataObject) -> None:
    other = data.draw(hnp.arrays(np.float32, values.shape, elements=st.floats(width=32)))
    there, back = compare(_spec(values), values, other, _NONE), compare(_spec(values), other, values, _NONE)
    assert there.max_absolute == back.max_absolute
    assert there.cosine == back.cosine or there.cosine == pytest.approx(back.cosine)
    assert there.top1 == back.top1


@given(_FLOATS, st.data(), st.floats(0, 10), st.floats(0, 10), st.floats(0, 10))
def test_more_tolerance_never_refuses_more(
    values: np.ndarray[Any, Any], data: st.DataObject, atol: float, rtol: float, more: float
) -> None:
    other = data.draw(hnp.arrays(np.float32, values.shape, elements=st.floats(width=32)))
    strict = compare(_spec(values), values, other, Tolerance(atol=atol, rtol=rtol))
    loose = compare(_spec(values), values, other, Tolerance(atol=atol + more, rtol=rtol + more))
    assert loose.within or not strict.within


@given(st.sampled_from(list(DEFAULTS)), st.floats(1e-3, 1e6), st.floats(1, 1000))
def test_tolerances_grow_with_the_scale_and_with_sensitivity(dtype: str, scale: float, factor: float) -> None:
    small, large = allowed(dtype, np.array([scale])), allowed(dtype, np.array([scale * factor]))
    assert large.atol >= small.atol
    assert allowed(dtype, np.array([scale]), widened=factor).atol >= small.atol


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e4])
def test_every_scale_is_judged_alike(scale: float) -> None:
    values = np.linspace(-1, 1, 32, dtype=np.float32) * np.float32(scale)
    good, bad = values * np.float32(1 + 3e-5), values * np.float32(1 + 1e-3)
    assert compare(_spec(values), values, good, _NONE).within
    assert not compare(_spec(values), values, bad + np.float32(scale * 1e-3), _NONE).within


def test_the_worst_entry_is_named() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    wrong = values.copy()
    wrong[1, 2] += 0.5
    found = compare(_spec(values), values, wrong, _NONE)
    assert (found.worst_index, found.expected_there, found.got_there) == ((1, 2), 6.0, 6.5)
    assert found.problem == "'y' differs at 1 of 12 entries: at [1, 2] it is 6.5, the source gives 6"
    assert found.top1 == 1
    assert excess(found) > 100


@pytest.mark.parametrize("pair", [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (np.inf, -np.inf), (np.nan, np.inf)])
def test_nan_and_infinities_must_be_in_the_same_places(pair: tuple[float, float]) -> None:
    left, right = (np.array([0.5, each], np.float32) for each in pair)
    found = compare(_spec(left), left, right, Tolerance(atol=1e30, rtol=1e30))
    assert not found.within
    assert "on one side only" in found.problem
    assert compare(_spec(left), left, left.copy(), _NONE).within


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        (None, np.zeros(2, np.float32), "the source gives no output"),
        (np.zeros(2, np.float32), None, "the ONNX model gives no output"),
        (np.zeros(2, np.float32), np.zeros(2, np.float64), "should be float32, the ONNX model gives float64"),
        (np.zeros((2, 1), np.float32), np.zeros((1, 2), np.float32), "has shape [1, 2], the source gives [2, 1]"),
    ],
)
def test_what_cannot_be_compared_says_why(expected: Any, got: Any, said: str) -> None:
    found = compare(tensor("y", "float32", 2), expected, got, _NONE)
    assert not found.within
    assert said in found.problem
    assert math.isnan(found.max_absolute)


def test_labels_are_exact_unless_a_share_is_allowed() -> None:
    spec, labels = tensor("label", "int64", BATCH), np.arange(10)
    wrong = labels.copy()
    wrong[3] = 9
    found = compare(spec, labels, wrong, _NONE)
    assert (found.within, found.top1, found.worst_index) == (False, 0.9, (3,))
    assert found.problem == "1 of 10 entries of 'label' differ"
    assert compare(spec, labels, wrong, Tolerance(min_top1=0.9)).within
    assert not compare(spec, labels, wrong, Tolerance(min_top1=0.95)).within


def test_texts_flags_and_the_largest_integers_are_exact() -> None:
    words = np.array([b"a", b"b"], object)
    assert compare(tensor("t", "string", 2), words, words.copy(), _NONE).within
    found = compare(tensor("t", "string", 2), words, np.array([b"a", b"c"], object), _NONE)
    assert (found.within, found.expected_there, found.got_there) == (False, "b", "c")
    flags = np.array([True, False])
    assert not compare(tensor("f", "bool", 2), flags, ~flags, _NONE).within
    high = np.array([2**63 - 1, -(2**63)])
    found = compare(tensor("i", "int64", 2), high, high[::-1].copy(), _NONE)
    assert found.max_absolute == pytest.approx(2.0**64)


def test_half_precision_is_judged_by_its_own_rounding() -> None:
    values = np.linspace(0.5, 2, 64)
    for dtype, off_by in (("float16", 1e-3), ("bfloat16", 8e-3)):
        good, bad = (to_dtype(values * (1 + each), dtype) for each in (off_by, 0.2))
        assert compare(_spec(values, dtype), to_dtype(values, dtype), good, _NONE).within
        assert not compare(_spec(values, dtype), to_dtype(values, dtype), bad, _NONE).within


def test_quantized_sources_get_the_steps_they_have() -> None:
    values = np.linspace(0, 1, 32, dtype=np.float32)
    moved = values + np.float32(3e-4)
    assert not compare(_spec(values), values, moved, _NONE).within
    assert compare(_spec(values), values, moved, _NONE, kind=SourceKind.TFLITE).within


def test_cosine_and_top1_can_be_asked_for() -> None:
    left = np.array([[1, 0.9], [0.2, 0.1]], np.float32)
    right = left[:, ::-1].copy()
    loose = Tolerance(atol=1.0)
    assert compare(_spec(left), left, right, loose).within
    assert "agrees in 0.00% of rows" in compare(_spec(left), left, right, Tolerance(atol=1.0, min_top1=0.5)).problem
    assert "cosine" in compare(_spec(left), left, right, Tolerance(atol=1.0, min_cosine=0.9999)).problem


def test_the_largest_floats_are_compared_without_overflow() -> None:
    values = np.full((2, 3), 3e38, np.float32)
    assert compare(_spec(values), values, values.copy(), _NONE).cosine == pytest.approx(1)
    assert not compare(_spec(values), values, -values, _NONE).within


@given(_FLOATS, st.data())
def test_values_inside_agree_with_themselves_and_tell_another_shape(values: Any, data: st.DataObject) -> None:
    assert off(values, values.copy()) == 0
    assert off(values, values[None]) == math.inf
    assert off(np.arange(3, dtype=np.int32), np.arange(3)) == 0
    assert off(np.arange(3), np.arange(3) + 1) == math.inf


def test_samples_are_bounded_and_hold_the_worst() -> None:
    values = np.zeros(100_000, np.float32)
    wrong = values.copy()
    wrong[777] = 5
    found = sample(tensor("y", "float32", 100_000), "case", values, wrong)
    assert found is not None
    assert len(found.expected) == len(found.got) <= MAX_POINTS
    assert 5.0 in found.got
    assert dict(found.histogram) == {None: 99_999, 0: 1}
