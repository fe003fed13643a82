"""A setting is proposed when it beats the default beyond noise, and not before."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.profile.made import cell

from tensorquay_convert.profile.recommend import REACHED, advise


def test_the_defaults_are_fine_when_more_threads_and_larger_batches_are_faster() -> None:
    advice = advise([cell(1, 1, 10e-3), cell(1, 2, 6e-3), cell(8, 1, 60e-3), cell(8, 2, 32e-3)], 2)
    assert advice.snippet == ""
    assert advice.sentences[0].startswith("the defaults are fine")
    assert (advice.throughput.batch, advice.throughput.threads, advice.throughput.share) == (8, 2, 1.0)
    assert (advice.latency.batch, advice.latency.threads) == (1, 2)
    assert advice.default is not None
    assert (advice.default.batch, advice.default.threads) == (8, 2)


def test_fewer_threads_are_proposed_when_they_are_faster() -> None:
    advice = advise([cell(1, 1, 1e-3), cell(1, 2, 2e-3), cell(8, 1, 7e-3), cell(8, 2, 10e-3)], 2)
    assert tomllib.loads(advice.snippet) == {"execution": {"intra_op_threads": 1}}
    assert advice.sentences[0] == "with 1 thread it does 1.43 × the items/s of the default 2 at batch 8 (1.43 to 1.43)"


def test_what_fewer_threads_cost_alone_is_said() -> None:
    advice = advise([cell(1, 1, 4e-3), cell(1, 2, 2e-3), cell(8, 1, 7e-3), cell(8, 2, 10e-3)], 2)
    assert "a request alone then takes 4 ms instead of 2 ms: leave it out where that matters more" in advice.sentences


def test_a_bound_on_batches_is_proposed_when_larger_ones_are_slower() -> None:
    advice = advise([cell(1, 2, 2e-3), cell(8, 2, 8e-3), cell(32, 2, 64e-3)], 2)
    assert tomllib.loads(advice.snippet) == {"max_batch_size": 8}
    assert "batches of 8 give 2.00 × the items/s of batches of 32" in advice.sentences[0]


def test_both_together_are_one_file() -> None:
    cells = [
        cell(1, 1, 2e-3),
        cell(1, 2, 3e-3),
        cell(8, 1, 8e-3),
        cell(8, 2, 12e-3),
        cell(32, 1, 64e-3),
        cell(32, 2, 64e-3),
    ]
    assert tomllib.loads(advise(cells, 2).snippet) == {"max_batch_size": 8, "execution": {"intra_op_threads": 1}}


def test_the_smallest_batch_with_the_fewest_threads_that_is_nearly_as_good_is_the_best() -> None:
    cells = [
        cell(1, 1, 2e-3),
        cell(1, 2, 1.9e-3),
        cell(4, 1, 4.1e-3),
        cell(4, 2, 4e-3),
        cell(16, 1, 16.4e-3),
        cell(16, 2, 16e-3),
    ]
    advice = advise(cells, 2)
    assert (advice.throughput.batch, advice.throughput.threads) == (4, 1)
    assert advice.throughput.share == pytest.approx(4 / 4.1)
    assert (advice.latency.batch, advice.latency.threads) == (1, 1)
    assert advice.snippet == ""


def test_what_noise_may_explain_is_not_proposed() -> None:
    noisy = [cell(8, 1, 9e-3, wobble=0.3), cell(8, 2, 10e-3, wobble=-0.3), cell(16, 2, 20e-3, wobble=0.3)]
    advice = advise(noisy, 2)
    assert advice.snippet == ""
    assert not any("do no harm" in each for each in advice.sentences)
    assert any("measure again when it is idle" in each for each in advice.sentences)


def test_a_gain_too_small_to_matter_is_not_proposed() -> None:
    assert advise([cell(8, 1, 0.98, wobble=0.0), cell(8, 2, 1.0, wobble=0.0)], 2).snippet == ""


def test_without_the_default_nothing_is_claimed_of_it() -> None:
    advice = advise([cell(1, 3, 1e-3), cell(8, 3, 4e-3)], 2)
    assert advice.default is None
    assert advice.sentences[0] == "the default of 2 threads was not measured, so nothing is said about thread counts"
    assert not any("defaults are fine" in each for each in advice.sentences)


def test_a_model_that_does_not_batch() -> None:
    advice = advise([cell(0, 1, 5e-3), cell(0, 2, 9e-3)], 2)
    assert tomllib.loads(advice.snippet) == {"execution": {"intra_op_threads": 1}}
    assert "for a request" in advice.sentences[0]


@given(
    st.dictionaries(
        st.tuples(st.sampled_from([1, 2, 4, 8, 16, 32]), st.sampled_from([1, 2, 4])), st.floats(1e-5, 10), min_size=1
    ),
    st.sampled_from([1, 2, 4]),
    st.floats(0, 0.4),
)
def test_the_pick_is_measured_and_nearly_the_best(
    times: dict[tuple[int, int], float], default: int, wobble: float
) -> None:
    cells = [cell(batch, threads, seconds, wobble=wobble) for (batch, threads), seconds in times.items()]
    advice = advise(cells, default)
    best = max(each.items_s for each in cells)
    assert advice.throughput.items_s >= REACHED * best * (1 - 1e-9)
    assert advice.latency.batch == min(each.batch for each in cells)
    said = tomllib.loads(advice.snippet)
    assert said.get("max_batch_size", advice.throughput.batch) == advice.throughput.batch
    assert said.get("execution", {"intra_op_threads": advice.throughput.threads}) == {
        "intra_op_threads": advice.throughput.threads
    }
    assert bool(advice.sentences)
