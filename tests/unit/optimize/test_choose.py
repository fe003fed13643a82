"""Who wins, and why the others do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay_convert.optimize.choose import can_still_win, choose, score, verdict
from tensorquay_convert.optimize.goals import Goals, Objective
from tensorquay_convert.optimize.measure import loses, noise
from tensorquay_convert.optimize.results import Judgement, OutputAgreement, Timing, Trial, Verdict
from tensorquay_convert.optimize.variants import Family, Step, Variant

BATCHES = (1, 8, 32)


def at(batch: int, ratio: float, half: float = 0.02) -> Timing:
    low, high = ratio / (1 + half), ratio * (1 + half)
    return Timing(f"batch {batch}", batch, 2, 1.0, 1.1, 1.0 / ratio, 1.1 / ratio, ratio, low, high)


NOISE = tuple(at(batch, 1.0) for batch in BATCHES)
"""2 % everywhere."""


def agreement(cosine: float = 0.999) -> OutputAgreement:
    return OutputAgreement("y", cosine, cosine, 0.1, 0.01, None)


def trial(
    name: str, *ratios: float, family: Family = Family.STATIC_INT8, half: float = 0.02, failed: Sequence[str] = (),
    cosine: float = 0.999, steps: int = 1, size: float | None = None,
) -> Trial:  # fmt: skip
    timings = tuple(at(batch, ratio, half) for batch, ratio in zip(BATCHES, ratios, strict=False))
    return Trial(
        Variant(name, family, (Step("pass"),) * steps), Verdict.NOT_FASTER, timings=timings,
        judgement=Judgement((agreement(cosine),), 400, "rule", tuple(failed)), bytes=100, score=size,
    )  # fmt: skip


def chosen(
    *trials: Trial, objective: Objective = Objective.BALANCED, noise: Sequence[Timing] = NOISE
) -> tuple[dict[str, Trial], str]:
    found, winner = choose(trials, noise, Goals(objective))
    assert [each.variant for each in found] == [each.variant for each in trials]
    return {each.variant.name: each for each in found}, winner


def test_the_fastest_that_is_right_wins() -> None:
    found, winner = chosen(trial("a", 1.5, 1.5, 1.5), trial("b", 2, 2, 2), trial("c", 4, 4, 4, failed=["wrong"]))
    assert winner == "b"
    assert {name: each.verdict for name, each in found.items()} == {
        "a": Verdict.PASSED, "b": Verdict.WON, "c": Verdict.INACCURATE,
    }  # fmt: skip
    assert found["b"].score == pytest.approx(2)
    assert found["c"].reason == "wrong"
    assert found["b"].reason == ""


def test_nothing_wins_among_nothing() -> None:
    assert choose([], NOISE, Goals()) == ((), "")


@pytest.mark.parametrize(
    ("one", "objective", "said"),
    [
        (trial("a", 1.01, 1.0, 1.0), Objective.BALANCED, "1.00 × overall, within the noise of ± 2 %"),
        (trial("a", 1.01), Objective.LATENCY, "1.01 × at batch 1, within the noise of ± 2 %"),
        (trial("a", 2, 2, 1.015), Objective.THROUGHPUT, "1.01 × at batch 32, within the noise of ± 2 %"),
        (
            trial("a", 1.2, 1.2, 1.2, half=0.3), Objective.BALANCED,
            "1.20 × overall, but its spread reaches down to 0.92 ×",
        ),
        (
            trial("a", 1.3), Objective.BALANCED,
            "1.30 × at batch 1; not timed further, because it could not win any more",
        ),
        (trial("a"), Objective.BALANCED, "it was not timed"),
        (trial("a", 1, 1, 1, size=1.0), Objective.SIZE, "not smaller: 100% of the model's bytes"),
        (trial("a", 1, 1, 1), Objective.SIZE, "its size is not known"),
    ],
)  # fmt: skip
def test_what_is_not_faster_says_so(one: Trial, objective: Objective, said: str) -> None:
    found, winner = chosen(one, objective=objective)
    assert (winner, found["a"].verdict, found["a"].reason) == ("", Verdict.NOT_FASTER, said)


@pytest.mark.parametrize(
    ("one", "objective", "said"),
    [
        (trial("a", 0.2, 0.2, 0.2), Objective.BALANCED, "0.20 × at batch 1, slower by more than the noise of ± 2 %"),
        (
            trial("a", 0.8, 2, 3), Objective.BALANCED,
            "0.80 × at batch 1, slower by more than the noise of ± 2 %, though 3.00 × at batch 32",
        ),
        (trial("a", 1, 1, 0.9, size=4.0), Objective.SIZE, "0.90 × at batch 32, slower by more than the noise of ± 2 %"),
        (trial("a", 0.9, 2, 2), Objective.LATENCY, "0.90 × at batch 1, slower by more than the noise of ± 2 %"),
    ],
)  # fmt: skip
def test_what_loses_somewhere_that_counts_is_slower(one: Trial, objective: Objective, said: str) -> None:
    found, winner = chosen(one, objective=objective)
    assert (winner, found["a"].verdict, found["a"].reason) == ("", Verdict.SLOWER, said)


def test_the_objective_says_where() -> None:
    small, large = trial("small", 2, 1, 0.5), trial("large", 0.5, 1, 2)
    assert chosen(small, large, objective=Objective.LATENCY)[1] == "small"
    assert chosen(small, large, objective=Objective.THROUGHPUT)[1] == "large"
    assert chosen(small, large)[1] == ""
    lean, lighter = trial("lean", 1, 1, 1, size=4.0), trial("lighter", 3, 3, 3, size=2.0)
    assert chosen(lean, lighter, objective=Objective.SIZE)[1] == "lean"


def test_what_may_be_slower_at_one_batch_does_not_win_for_being_faster_at_another() -> None:
    shaky = trial("shaky", 1.7, 1.5, 1.2)
    shaky = replace(shaky, timings=(*shaky.timings[:2], at(32, 1.2, half=0.4)))
    found, winner = chosen(shaky, trial("sure", 1.1, 1.1, 1.1))
    assert winner == "sure"
    assert found["shaky"].reason == "at batch 32 it may be slower: 1.20 ×, down to 0.86 ×"
    assert chosen(shaky, objective=Objective.LATENCY)[1] == "shaky"


def test_several_sizes_at_one_batch_count_together() -> None:
    short, long = replace(at(1, 2.0), point="seq 16"), replace(at(1, 0.5), point="seq 128")
    quiet = (replace(at(1, 1.0), point="seq 16"), replace(at(1, 1.0), point="seq 128"))
    one = replace(trial("a"), timings=(short, long))
    found, winner = chosen(one, objective=Objective.LATENCY, noise=quiet)
    assert (winner, found["a"].verdict) == ("", Verdict.SLOWER)


def test_among_equals_the_least_change_wins() -> None:
    quantized, fused = trial("int8", 2.02, 2.02, 2.02), trial("fused", 2, 2, 2, family=Family.FUSION)
    found, winner = chosen(quantized, fused)
    assert winner == "fused"
    assert found["int8"].verdict is Verdict.PASSED
    assert found["int8"].reason == "as good as 'fused' within the noise, which changes less or is more accurate"
    assert chosen(trial("int8", 2.1, 2.1, 2.1), fused)[1] == "int8"


def test_then_the_more_accurate_then_the_one_of_fewer_passes_then_the_faster() -> None:
    rough, exact = trial("rough", 2.02, 2, 2, cosine=0.992), trial("exact", 2, 2, 2, cosine=0.998)
    assert chosen(rough, exact)[1] == "exact"
    assert chosen(trial("two", 2.02, 2, 2, steps=2), trial("one", 2, 2, 2))[1] == "one"
    assert chosen(trial("b", 2.02, 2, 2), trial("a", 2, 2, 2))[1] == "b"
    assert chosen(trial("b", 2, 2, 2), trial("a", 2, 2, 2))[1] == "a"


def test_the_noise_of_a_point_is_its_own() -> None:
    loud = (at(1, 1.0), at(8, 1.0), at(32, 1.0, half=0.3))
    assert chosen(trial("a", 1.1), objective=Objective.LATENCY, noise=loud)[1] == "a"
    assert chosen(trial("a", 1.2, 1.2, 1.2), objective=Objective.THROUGHPUT, noise=loud)[1] == ""


def test_without_noise_nothing_wins() -> None:
    assert chosen(trial("a", 3, 3, 3), noise=())[1] == ""


def test_what_was_not_judged_does_not_win() -> None:
    found, winner = chosen(replace(trial("a", 3, 3, 3), judgement=None))
    assert (winner, found["a"].verdict, found["a"].reason) == ("", Verdict.FAILED, "its answers were not judged")


@pytest.mark.parametrize("before", [Verdict.FAILED, Verdict.NOT_TRIED, Verdict.UNCHANGED])
def test_what_did_not_come_to_measuring_keeps_its_reason(before: Verdict) -> None:
    found, winner = chosen(replace(trial("a", 3, 3, 3), verdict=before, reason="the disk is full"))
    assert (winner, found["a"].verdict, found["a"].reason) == ("", before, "the disk is full")


def test_the_baseline_never_wins() -> None:
    baseline = replace(trial("as it is", 3, 3, 3, family=Family.BASELINE), verdict=Verdict.PASSED)
    found, winner = chosen(baseline)
    assert winner == ""
    assert found["as it is"] == baseline


def test_choosing_again_comes_to_the_same() -> None:
    trials = (trial("a", 2, 2, 2), trial("b", 1, 1, 1), trial("c", 2, 2, 2, failed=["x", "y"]), trial("d", 0.5))
    once, winner = choose(trials, NOISE, Goals())
    assert choose(once, NOISE, Goals()) == (once, winner)
    assert once[2].reason == "x (and 1 more)"


def test_the_score_is_the_geometric_mean_where_it_counts() -> None:
    timings = (at(1, 1.0), at(8, 2.0), at(32, 4.0))
    assert score(timings, Objective.BALANCED, 10, 5) == pytest.approx((2.0, 2.0 / 1.02, 2.0 * 1.02))
    assert score(timings, Objective.LATENCY, 10, 5)[0] == pytest.approx(1.0)
    assert score(timings, Objective.THROUGHPUT, 10, 5)[0] == pytest.approx(4.0)
    assert score(timings, Objective.SIZE, 10, 5) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("timings", "best", "objective", "can"),
    [
        ((), 5.0, Objective.BALANCED, True),
        ((at(1, 0.5),), 0.0, Objective.BALANCED, False),
        ((at(1, 0.99),), 0.0, Objective.BALANCED, True),
        ((at(1, 1.0),), 3.5, Objective.BALANCED, False),
        ((at(1, 2.0),), 3.0, Objective.BALANCED, True),
        ((at(1, 1.5), at(8, 1.5), at(32, 1.5)), 2.0, Objective.BALANCED, False),
        ((at(1, 1.98), at(8, 1.98), at(32, 1.98)), 2.0, Objective.BALANCED, True),
        ((at(1, 0.5),), 0.0, Objective.THROUGHPUT, True),
        ((at(1, 1.0),), 0.0, Objective.LATENCY, False),
        ((at(1, 1.0),), 9.0, Objective.SIZE, True),
        ((at(1, 0.5),), 0.0, Objective.SIZE, False),
    ],
)
def test_what_cannot_win_is_not_measured_further(
    timings: tuple[Timing, ...], best: float, objective: Objective, can: bool
) -> None:
    assert can_still_win(timings, best, NOISE, objective) is can


RATIOS = st.floats(0.05, 20)
TIMINGS = st.builds(at, st.sampled_from(BATCHES), RATIOS, st.floats(0.001, 0.6))


@st.composite
def any_trial(draw: st.DrawFn) -> Trial:
    found = {each.batch: each for each in draw(st.lists(TIMINGS, max_size=4))}
    failed = draw(st.lists(st.sampled_from(["cosine 0.9, at least 0.99 is asked", "NaN"]), max_size=2))
    judgement = Judgement((agreement(draw(st.floats(0.9, 1))),), 400, "rule", tuple(failed))
    return Trial(
        Variant(draw(st.uuids()).hex, draw(st.sampled_from(Family)), (Step("p"),) * draw(st.integers(0, 3))),
        draw(st.sampled_from(Verdict)), draw(st.sampled_from(["", "a reason"])),
        judgement=draw(st.sampled_from([None, judgement, judgement])), timings=tuple(found.values()),
        bytes=draw(st.integers(1, 1000)), score=draw(st.none() | RATIOS),
    )  # fmt: skip


@given(
    st.lists(any_trial(), max_size=6),
    st.lists(TIMINGS, max_size=4, unique_by=lambda each: each.batch).map(tuple),
    st.sampled_from(Objective),
)
def test_no_winner_is_wrong_or_within_the_noise(
    trials: list[Trial], quiet: tuple[Timing, ...], objective: Objective
) -> None:
    found, winner = choose(trials, quiet, Goals(objective))
    assert [each.variant for each in found] == [each.variant for each in trials]
    won = [each for each in found if each.verdict is Verdict.WON and each.variant.family is not Family.BASELINE]
    assert [each.variant.name for each in won] == ([winner] if winner else [])
    for each in found:
        if each.variant.family is not Family.BASELINE and each.verdict not in {Verdict.WON, Verdict.PASSED}:
            assert each.reason or each.verdict in {Verdict.FAILED, Verdict.NOT_TRIED, Verdict.UNCHANGED}
    for each in won:
        assert each.judgement is not None
        assert each.judgement.passed
        assert each.score is not None
        assert each.score > 1.01
        assert {point.point for point in each.timings} or not quiet
        margins = {point.point: noise([point]) for point in quiet}
        if objective in {Objective.BALANCED, Objective.SIZE}:
            assert {point.point for point in each.timings} >= set(margins)
            assert not any(loses(point, margins[point.point]) for point in each.timings if point.point in margins)
        if objective is not Objective.SIZE:
            assert each.score_low is not None
            assert each.score_low > 1
            counted = [each.ratio for each in each.timings if each.point in margins]
            assert max(counted) > 1 + min(margins.values())


@given(st.lists(any_trial(), max_size=6), st.sampled_from(Objective), st.randoms(use_true_random=False))
def test_the_order_of_trials_does_not_matter(trials: list[Trial], objective: Objective, random: object) -> None:
    _, winner = choose(trials, NOISE, Goals(objective))
    assert choose(trials[::-1], NOISE, Goals(objective))[1] == winner


@given(any_trial(), st.sampled_from(Objective))
def test_a_failed_gate_is_never_chosen_however_fast(one: Trial, objective: Objective) -> None:
    fast = tuple(at(batch, 1000.0, half=0.001) for batch in BATCHES)
    wrong = replace(
        one, timings=fast, score=1000.0, judgement=Judgement((), 400, "rule", ("top1 0.5, was 0.99",)),
        variant=replace(one.variant, family=Family.STATIC_INT8),
    )  # fmt: skip
    found, winner = choose([wrong], NOISE, Goals(objective))
    assert winner == ""
    assert found[0].verdict not in {Verdict.WON, Verdict.PASSED}


@given(st.lists(TIMINGS, min_size=3, max_size=3, unique_by=lambda each: each.batch), st.sampled_from(Objective))
def test_who_would_win_is_not_cut(timings: list[Timing], objective: Objective) -> None:
    """Cutting early looks at fewer points than choosing; what it cuts with all of them does not win."""
    one = replace(trial("a", size=2.0), timings=tuple(timings))
    if not can_still_win(timings, 0.0, NOISE, objective):
        assert choose([one], NOISE, Goals(objective))[1] == ""


def test_a_verdict_by_itself() -> None:
    assert verdict(trial("a", 2, 2, 2), NOISE, Objective.BALANCED) == (Verdict.PASSED, "")
    assert math.isclose(score(trial("a", 2, 2, 2).timings, Objective.BALANCED, 0, 0)[0], 2.0)
