"""How outputs agree, and what is asked of their likeness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensorquay_convert.optimize.agreement import Agreements, looks_like_classes
from tensorquay_convert.optimize.gate import compare_outputs, violations
from tensorquay_convert.optimize.goals import GateRules
from tensorquay_convert.optimize.results import OutputAgreement
from tensorquay_convert.tensors import Array, Arrays

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet(np.ones(10), 400).astype(np.float32)
VECTORS = RNG.standard_normal((400, 32)).astype(np.float32)


def only(expected: Array, got: Array, name: str = "y", **how: Any) -> OutputAgreement:
    (found,) = compare_outputs({name: expected}, {name: got}, **how)
    return found


def test_equal_outputs_agree_in_everything() -> None:
    outputs = {
        "probabilities": PROBABILITIES, "embedding": VECTORS, "digit": PROBABILITIES.argmax(-1),
        "value": VECTORS[:, :1], "flag": VECTORS[:, 0] > 0, "text": np.array([b"a", b"b\0"] * 200, object),
        "empty": np.zeros((400, 0), np.float32), "scalar": np.float32(3) * np.ones((), np.float32),
    }  # fmt: skip
    found = compare_outputs(outputs, outputs)
    assert [each.name for each in found] == list(outputs)
    assert violations(found, GateRules()) == ()
    assert found[0] == OutputAgreement("probabilities", pytest.approx(1), pytest.approx(1), 0, 0, 1, 0, 0)
    assert (found[1].top1, found[2].cosine, found[2].top1) == (None, None, 1.0)
    assert (found[3].cosine, found[3].relative_error, found[3].top1) == (None, 0.0, None)


def test_the_numbers_of_an_agreement_are_those_of_their_definitions() -> None:
    expected, got = VECTORS, VECTORS + RNG.normal(0, 0.1, VECTORS.shape).astype(np.float32)
    found = only(expected, got)
    left, right = expected.astype(float), got.astype(float)
    cosines = (left * right).sum(-1) / np.linalg.norm(left, axis=-1) / np.linalg.norm(right, axis=-1)
    assert found.cosine == pytest.approx(cosines.mean())
    assert found.min_cosine == pytest.approx(cosines.min())
    assert found.max_error == pytest.approx(np.abs(left - right).max())
    assert found.mean_error == pytest.approx(np.abs(left - right).mean())
    assert found.relative_error == pytest.approx(np.sqrt(np.mean((left - right) ** 2) / np.mean(left**2)))
    assert found.top1 == pytest.approx((left.argmax(-1) == right.argmax(-1)).mean())


@given(st.lists(st.integers(1, 400), max_size=6), st.sampled_from([np.float32, np.float64, np.float16]))
def test_batches_do_not_matter(cuts: list[int], dtype: Any) -> None:
    expected = {"p": PROBABILITIES.astype(dtype), "v": VECTORS[:, :1].astype(dtype), "n": np.arange(400)}
    got = {"p": np.roll(expected["p"], 1, 0), "v": expected["v"] * dtype(1.5), "n": np.arange(400) // 2 * 2}
    whole = compare_outputs(expected, got)
    parts = Agreements()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 400], strict=True):
        parts.add(*({name: each[start:end] for name, each in side.items()} for side in (expected, got)))
    for one, other in zip(whole, parts.results(), strict=True):
        assert one == replace(
            other, cosine=pytest.approx(other.cosine), mean_error=pytest.approx(other.mean_error),
            relative_error=pytest.approx(other.relative_error),
        )  # fmt: skip


def test_large_outputs_are_compared_in_parts() -> None:
    expected = np.ones((5, 1 << 20), np.float32)
    found = only(expected, np.concatenate([expected[:4], -expected[4:]]))
    assert found.cosine == pytest.approx(0.6)
    assert found.min_cosine == pytest.approx(-1)


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(width=32)),
    st.randoms(use_true_random=False),
)
def test_any_floats_give_plain_numbers(expected: Array, random: Any) -> None:
    got = expected.copy()
    for _ in range(random.randrange(3)):
        got[random.randrange(len(got)), random.randrange(got.shape[1])] = random.choice([np.nan, np.inf, 0, 3e38])
    found = only(expected, got)
    for number in (found.cosine, found.min_cosine, found.max_error, found.mean_error, found.relative_error):
        assert number is None or np.isfinite(number)
    assert found.nonfinite == np.sum(np.isfinite(expected) & ~np.isfinite(got))
    assert found.cosine is None or -1 <= found.cosine <= 1
    violations([found], GateRules())


def test_nan_that_was_there_before_is_nothing_new() -> None:
    expected = VECTORS.copy()
    expected[3, 4] = np.nan
    assert violations([only(expected, expected.copy(), "embedding")], GateRules()) == ()
    got = expected.copy()
    got[5, 6] = np.inf
    (said,) = violations([only(expected, got, "embedding")], GateRules())
    assert said == "output 'embedding': 1 entries are NaN or infinite and were not, none may"


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        ({"y": VECTORS}, {"y": VECTORS[:, :5]}, "output 'y' has shape [400, 5], the baseline gives [400, 32]"),
        ({"y": VECTORS}, {"y": VECTORS.astype(np.float16)}, "output 'y' is float16, the baseline gives float32"),
        ({"y": VECTORS}, {}, "output 'y' is missing"),
        ({}, {"z": VECTORS}, "output 'z' is new: the baseline has none of this name"),
        ({"y": np.array([b""], object)}, {"y": VECTORS}, "output 'y' is float32, the baseline gives object"),
    ],
)
def test_other_shapes_dtypes_and_names_fail(expected: Arrays, got: Arrays, said: str) -> None:
    assert violations(compare_outputs(expected, got), GateRules(min_cosine=0.0, max_drop=1.0)) == (said,)


def test_bfloat16_is_compared_as_numbers() -> None:
    ones, twos = np.full((4, 3), 0x3F80, np.uint16), np.full((4, 3), 0x4000, np.uint16)
    found = only(ones, twos, bfloat16=["y"])
    assert (found.max_error, found.relative_error) == (1.0, 1.0)
    assert found.cosine == pytest.approx(1)


def test_integers_beyond_floats_are_told_apart() -> None:
    large = np.array([2**62, 2**62 + 1], np.int64)
    assert only(large, large[::-1].copy()).top1 == 0.0


def test_the_output_of_a_single_request_is_one_row() -> None:
    found = only(VECTORS[0], -VECTORS[0], batched=False)
    assert found.cosine == pytest.approx(-1)
    assert only(PROBABILITIES[:1], PROBABILITIES[:1, ::-1], batched=False).top1 == 0.0


@pytest.mark.parametrize(
    ("name", "rows", "of_a_row", "classes"),
    [
        ("logits", VECTORS, (32,), True),
        ("token_logits", VECTORS, (7, 32), True),
        ("output", VECTORS, (32,), True),
        ("output", VECTORS, (7, 32), False),
        ("y", PROBABILITIES, (7, 10), True),
        ("sentence_embedding", VECTORS, (32,), False),
        ("pooler_output", VECTORS, (32,), False),
        ("class_embedding", VECTORS, (32,), False),
        ("output", VECTORS / np.linalg.norm(VECTORS, axis=-1, keepdims=True), (32,), False),
        ("logits", VECTORS[:, :1], (1,), False),
        ("logits", VECTORS, (3, 7, 32), False),
        ("output", np.zeros((0, 5)), (5,), True),
    ],
)
def test_what_looks_like_class_scores(name: str, rows: Array, of_a_row: tuple[int, ...], classes: bool) -> None:
    assert looks_like_classes(name, rows.astype(np.float64), of_a_row) is classes


# -- what is asked of the outputs


def flipped(rows: int) -> Array:
    """Probabilities with another winner in so many rows, and hardly another direction."""
    found = PROBABILITIES.copy()
    for row in range(rows):
        first, second = np.argsort(-found[row])[:2]
        found[row, [first, second]] = found[row, [second, first]]
    return found


@pytest.mark.parametrize(
    ("rules", "expected", "got", "said"),
    [
        (GateRules(), PROBABILITIES, flipped(2), None),
        (GateRules(), PROBABILITIES, flipped(3), "the largest entry stays in 99.25% of rows, at least 99.50%"),
        (GateRules(max_drop=0.01), PROBABILITIES, flipped(4), None),
        (GateRules(max_drop=0.01), PROBABILITIES, flipped(5), "98.75% of rows, at least 99.00%"),
        (GateRules(min_cosine=0.5), PROBABILITIES, flipped(40), None),
        (GateRules(min_cosine=0.5, max_drop=0.01), PROBABILITIES, flipped(40), "90.00% of rows"),
        (GateRules(min_cosine=0.9999), PROBABILITIES, flipped(400), "mean cosine 0.9"),
        (GateRules(), np.arange(400), np.arange(400) + (np.arange(400) < 3), "equal in 99.25% of entries"),
        (GateRules(min_cosine=0.9), np.arange(400), np.arange(400) + (np.arange(400) < 3), "equal in 99.25%"),
        (GateRules(), VECTORS[:, :1], VECTORS[:, :1] * 1.2, None),
        (GateRules(), VECTORS[:, :1], VECTORS[:, :1] * 1.3, "error 30.0"),
        (GateRules(), VECTORS[:, :1] + 1000, VECTORS[:, :1] * 1.3 + 1000, "error 30.0"),
        (GateRules(min_cosine=0.9), VECTORS[:, :1], VECTORS[:, :1] * 1.3, "error 30.0"),
    ],
)  # fmt: skip
def test_rules(rules: GateRules, expected: Array, got: Array, said: str | None) -> None:
    found = violations([only(expected, got.astype(expected.dtype))], rules)
    assert (len(found) == 0) if said is None else (len(found) == 1 and said in found[0])


def test_a_doubled_answer_is_wrong_though_its_cosine_is_1() -> None:
    (said,) = violations([only(VECTORS, VECTORS * 2, "embedding")], GateRules())
    assert said == "output 'embedding': error 100.00% of its size, at most 25% is asked"
    assert violations([only(VECTORS, VECTORS * 2, "embedding")], GateRules(min_cosine=0.99)) == ()


# -- padding


def test_what_a_mask_marks_as_padding_is_not_compared() -> None:
    random = np.random.default_rng(3)
    content = np.array([[True, True, False], [True, False, False]])
    for expected in (
        random.standard_normal((2, 3, 4)).astype(np.float32),
        random.integers(0, 9, (2, 3)).astype(np.int64),
        random.standard_normal((2, 3)).astype(np.float32),
    ):
        got = expected.copy()
        got[~content] = 100
        plain, masked = Agreements(), Agreements()
        plain.add({"y": expected}, {"y": got})
        masked.add({"y": expected}, {"y": got}, {"y": content})
        assert plain.results()[0].max_error > 50  # type: ignore[operator]
        found = masked.results()[0]
        assert found.max_error == 0
        assert found.cosine is None or found.cosine == pytest.approx(1)
        assert found.top1 in {None, 1.0}


def test_what_is_wrong_in_the_content_is_still_seen() -> None:
    content = np.array([[True, True, False]])
    expected = np.ones((1, 3, 2), np.float32)
    got = expected.copy()
    got[0, 1] = np.nan
    found = Agreements()
    found.add({"y": expected}, {"y": got}, {"y": content})
    assert found.results()[0].nonfinite == 2


def test_padding_is_not_counted_as_agreement() -> None:
    content = np.array([[True] + [False] * 9])
    scores = np.zeros((1, 10, 3), np.float32)
    scores[..., 0] = 1
    other = scores.copy()
    other[0, 0] = [0, 1, 0]
    found = Agreements()
    found.add({"logits": scores}, {"logits": other}, {"logits": content})
    assert found.results()[0].top1 == 0.0
