"""Drawn inputs keep what is declared, cases stay few, and a seed means the same everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.convert.proof.graphs import tensor

from tensorquay_convert.proof import inputs, sizes
from tensorquay_convert.proof.inputs import Drawn, Style
from tensorquay_convert.proof.seeded import Seeded
from tensorquay_convert.tensors import BATCH, DTYPES, AxisRange, Interface, Meaning, TensorSpec, Values

_SIZES: Mapping[str, int] = {BATCH: 3, "seq": 5}


def _draw(spec: TensorSpec, style: Style = Style.USUAL, seed: int = 0, at: Mapping[str, int] = _SIZES) -> np.ndarray:  # type: ignore[type-arg]
    return inputs.draw(Interface((spec,), ()), Drawn("case", at, style), seed)[spec.name]


@st.composite
def _specs(draw: st.DrawFn) -> TensorSpec:
    dtype = draw(st.sampled_from(DTYPES))
    meaning = draw(st.sampled_from(list(Meaning)))
    shape = tuple(draw(st.lists(st.sampled_from([BATCH, "seq", 1, 2, 4]), max_size=4)))
    low = draw(st.none() | st.integers(0, 5))
    high = None if low is None else draw(st.none() | st.integers(low, low + 40))
    return TensorSpec("x", dtype, shape, Values(meaning, low, high))


@given(_specs(), st.sampled_from(list(Style)), st.integers(-(2**63), 2**64))
def test_every_input_has_its_shape_dtype_and_values(spec: TensorSpec, style: Style, seed: int) -> None:
    found = _draw(spec, style, seed)
    assert found.shape == inputs.shape_of(spec, _SIZES)
    assert found.flags.c_contiguous
    if spec.dtype == "string" or spec.values.meaning is Meaning.TEXT:
        assert all(isinstance(each, bytes) for each in found.reshape(-1))
        return
    assert found.dtype.name == {"bfloat16": "uint16"}.get(spec.dtype, spec.dtype)
    if spec.dtype == "bfloat16" or spec.values.meaning in {Meaning.MASK, Meaning.FLAG} or spec.dtype == "bool":
        return
    if spec.values.low is not None and spec.values.meaning is not Meaning.SEGMENT_IDS:
        assert found.size == 0 or found.min() >= spec.values.low
    if spec.values.high is not None and not spec.dtype.startswith("float"):
        assert found.size == 0 or found.max() <= spec.values.high


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 6))
def test_masks_are_padded_at_the_end_and_never_empty(seed: int, length: int, rows: int) -> None:
    mask = _draw(tensor("m", "int64", BATCH, "seq", meaning=Meaning.MASK), seed=seed, at={BATCH: rows, "seq": length})
    assert set(np.unique(mask)) <= {0, 1}
    assert (mask[:, 0] == 1).all()
    assert (np.diff(mask, axis=1) <= 0).all()
    assert mask[0].all()


def test_a_seed_means_the_same_numbers_everywhere() -> None:
    """The digest is the contract: a change of it changes every proof that was recorded."""
    drawn = Seeded(7, "a").normal((1000,)).tobytes() + Seeded(7, "b").integers((1000,), -3, 2**40).tobytes()
    drawn += Seeded(-1, "c").uniform((1000,), 0.0, 1.0).tobytes()
    assert hashlib.sha256(drawn).hexdigest()[:16] == "e2e04f829bab432c"


def test_normal_numbers_are_normal() -> None:
    drawn = Seeded(0, "x").normal((200_000,))
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01
    assert 0.94 < (np.abs(drawn) < 1.96).mean() < 0.96


def test_integers_reach_both_ends_of_every_range() -> None:
    assert set(Seeded(0, "x").integers((200,), -1, 1).tolist()) == {-1, 0, 1}
    assert Seeded(0, "x").integers((5,), 0, 2**64 - 1).dtype == np.uint64
    wide = Seeded(0, "x").integers((100,), -(2**63), 2**63 - 1)
    assert wide.dtype == np.int64
    assert wide.min() < 0 < wide.max()


def test_equal_names_are_equal_sizes() -> None:
    interface = Interface((tensor("a", "float32", BATCH, "seq"), tensor("b", "float32", "seq", BATCH)), ())
    found = inputs.draw(interface, Drawn("case", _SIZES), 0)
    assert (found["a"].shape, found["b"].shape) == ((3, 5), (5, 3))
    assert not np.array_equal(found["a"], found["b"].T)


def test_special_values_are_what_they_are_called() -> None:
    spec = tensor("x", "float32", BATCH, 4)
    assert not _draw(spec, Style.ZEROS).any()
    assert np.abs(_draw(spec, Style.TINY)).max() < 1e-5
    assert np.array_equal(_draw(spec, Style.HALVES) * 2 % 1, np.zeros((3, 4), np.float32))
    ids = tensor("ids", "int64", BATCH, "seq", meaning=Meaning.TOKEN_IDS, low=0, high=49)
    assert set(np.unique(_draw(ids, Style.ENDS))) == {0, 49}
    gaps = TensorSpec("x", "float32", (BATCH, 40), Values(missing=True))
    assert Style.MISSING in inputs.styles(Interface((gaps,), ()))
    assert 0 < np.isnan(_draw(gaps, Style.MISSING)).mean() < 0.6
    assert not np.isnan(_draw(gaps)).any()


@pytest.mark.parametrize("dtype", ["float32", "int64", "string"])
def test_choices_are_the_only_values(dtype: str) -> None:
    choices: tuple[str | float, ...] = ("red", "blue") if dtype == "string" else (2.0, 5.0)
    found = _draw(TensorSpec("x", dtype, (BATCH, 9), Values(choices=choices)))
    expected = {b"red", b"blue"} if dtype == "string" else {2, 5}
    assert set(found.reshape(-1).tolist()) == expected


def test_columns_keep_their_own_ranges() -> None:
    spec = TensorSpec("x", "float32", (BATCH, 2), Values(columns=((0.0, 1.0), (1000.0, 2000.0))))
    found = _draw(spec, at={BATCH: 50})
    assert 0 <= found[:, 0].min() <= found[:, 0].max() <= 1
    assert 1000 <= found[:, 1].min() <= found[:, 1].max() <= 2000


_RANGES = st.builds(
    lambda low, span, step: AxisRange(low, None if span is None else low * step + span, step),
    st.integers(0, 40), st.none() | st.integers(0, 700), st.sampled_from([1, 2, 8, 32]),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([BATCH, "a", "b", "c", "d"]), _RANGES, min_size=1), st.integers(1, 64))
def test_plans_stay_within_the_axes_and_show_each_at_its_edges(ranges: dict[str, AxisRange], max_batch: int) -> None:
    interface = Interface((tensor("x", "float32", *ranges),), (), ranges)
    base = sizes.bases(interface)[0]
    planned = sizes.plan(interface, base, max_batch=max_batch, case_elements=1 << 62)
    assert len(planned) <= 10 + 4 * len(ranges)
    assert len({tuple(sorted(each.of.items())) for each in planned}) == len(planned)
    for each in planned:
        for axis, size in each.of.items():
            within = sizes.bounds(interface, axis)
            assert size % within.multiple == 0
            assert size >= within.low
            assert within.high is None or size <= within.high
    for axis in ranges:
        if axis != BATCH:
            assert set(sizes.steps(sizes.bounds(interface, axis))) <= {each.of[axis] for each in planned}


def test_the_batches_asked_for_are_run() -> None:
    interface = Interface((tensor("x", "float32", BATCH, 4),), ())
    planned = sizes.plan(interface, {BATCH: 2}, max_batch=32, case_elements=1 << 30)
    assert sorted(each.of[BATCH] for each in planned) == [1, 2, 3, 7, 32]


def test_huge_images_are_run_at_two_batches() -> None:
    interface = Interface((tensor("x", "float32", BATCH, 3, 3000, 3000),), ())
    planned = sizes.plan(interface, {BATCH: 2}, max_batch=32, case_elements=32_000_000)
    assert sorted(each.of[BATCH] for each in planned) == [1, 2]
