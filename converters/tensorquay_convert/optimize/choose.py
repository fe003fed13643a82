"""Which variant wins, and why each of the others does not. Pure: trials and noise in, verdicts out.

A variant wins only when its judgement passed, it was timed at every point that counts, it is better than the baseline
by more than the noise there (the baseline against itself, measured the same way), and it loses nowhere that counts:
at the smallest batch for LATENCY, the largest for THROUGHPUT, everywhere for BALANCED and SIZE. Not to have been seen
to lose is not enough: where its bounds reach down to a loss of more than `WORST_LOSS` (or the noise, if that is more),
it may be slower there, and does not win.

Among those the best score wins. What is within the noise of the best is as good: then the one that changes the model
least wins (settings before graphs before fusions, 16 bits before 8), then the more accurate, the one of fewer passes,
the faster. So the same model measured twice does not get INT8 once and a fused graph the other time for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from tensorquay_convert.optimize.goals import Goals, Objective
from tensorquay_convert.optimize.measure import LEAST_MARGIN, loses
from tensorquay_convert.optimize.measure import noise as margin_of
from tensorquay_convert.optimize.results import Timing, Trial, Verdict
from tensorquay_convert.optimize.variants import Family

_CHANGES = (
    Family.BASELINE, Family.RUNTIME, Family.GRAPH, Family.FUSION, Family.HALF, Family.WEIGHTS, Family.MIXED,
    Family.STATIC_INT8, Family.DYNAMIC_INT8,
)  # fmt: skip
"""From the least change to a model's arithmetic to the most."""
_KEPT = frozenset({Verdict.FAILED, Verdict.NOT_TRIED, Verdict.UNCHANGED})
"""Verdicts about what happened before measuring, which are not for this module to change."""
WORST_LOSS = 0.1
"""How much slower a winner may turn out to be at a point, by the lower bound of its ratio there."""
_COSINE_DIGITS = 4
_SURPRISE = 2.0


def score(
    timings: Sequence[Timing], objective: Objective, bytes_before: int, bytes_after: int
) -> tuple[float, float, float]:
    """How many times better by the objective, and its bounds.

    The geometric mean of the ratios of the points that count (at least one), its bounds those of the points' bounds,
    since points of one process may all err the same way; for SIZE the ratio of bytes, which has no spread.
    """
    if objective is Objective.SIZE:
        ratio = bytes_before / max(1, bytes_after)
        return ratio, ratio, ratio
    counted = counting(timings, objective)
    assert counted, "nothing was timed"
    return (
        _mean([each.ratio for each in counted]),
        _mean([each.low for each in counted]),
        _mean([each.high for each in counted]),
    )


def counting(timings: Sequence[Timing], objective: Objective) -> tuple[Timing, ...]:
    """The timings that the objective looks at."""
    if objective in {Objective.BALANCED, Objective.SIZE}:
        return tuple(timings)
    batches = [each.batch for each in timings]
    wanted = min(batches, default=0) if objective is Objective.LATENCY else max(batches, default=0)
    return tuple(each for each in timings if each.batch == wanted)


def can_still_win(timings: Sequence[Timing], best: float, noise: Sequence[Timing], objective: Objective) -> bool:
    """Whether it is worth measuring a variant further.

    A point that was not timed yet may turn out up to `_SURPRISE` times better than the best that was seen.

    Args:
        timings: of the variant so far.
        best: the best score so far, or its lower bound; 0 when nothing won yet. SIZE does not look at it.
        noise: the baseline against itself, at every point.
    """
    wanted = {each.point for each in counting(noise, objective)}
    seen = [each for each in timings if not wanted or each.point in wanted]
    if any(loses(each, _margin(noise, each.point)) for each in seen):
        return False
    if objective is Objective.SIZE or not seen:
        return True
    highs = [each.high for each in seen]
    highs += [_SURPRISE * max(highs)] * len(wanted - {each.point for each in seen})
    margin = _overall(noise, seen)
    # What may be within the noise of the best may be preferred to it.
    return _mean(highs) > max(1 + margin, best / (1 + margin))


def verdict(trial: Trial, noise: Sequence[Timing], objective: Objective) -> tuple[Verdict, str]:
    """What is to be said of one trial by itself: PASSED when it may win. The reason is one sentence or empty.

    Args:
        trial: its `score` is looked at for SIZE only; else it is found from the timings.
        noise: the baseline against itself; its points are those that have to be measured.
    """
    if trial.verdict in _KEPT:
        return trial.verdict, trial.reason
    if trial.judgement is None:
        return Verdict.FAILED, trial.reason or "its answers were not judged"
    if not trial.judgement.passed:
        first, *others = trial.judgement.failed
        return Verdict.INACCURATE, first + (f" (and {len(others)} more)" if others else "")
    counted = _with_noise(trial.timings, noise, objective)
    for each in sorted(counted, key=lambda each: each.ratio):
        if loses(each, _margin(noise, each.point)):
            return Verdict.SLOWER, _slower(each, counted, _margin(noise, each.point))
    wanted = [each.point for each in counting(noise, objective)]
    if not counted or set(wanted) - {each.point for each in counted}:
        return Verdict.NOT_FASTER, _not_measured(counted)
    for each in counted:
        if each.low < 1 / (1 + max(WORST_LOSS, _margin(noise, each.point))):
            return (
                Verdict.NOT_FASTER,
                f"at {each.point} it may be slower: {_times(each.ratio)}, down to {_times(each.low)}",
            )
    if objective is Objective.SIZE:
        return _smaller(trial)
    return _faster(counted, noise, objective)


def choose(
    trials: Sequence[Trial], noise: Sequence[Timing], goals: Goals, *, among: Collection[str] | None = None
) -> tuple[tuple[Trial, ...], str]:
    """The trials with their final verdicts and scores, in their order, and the winner's name; empty when none wins.

    Args:
        trials: those about the baseline itself are returned as they are and never win.
        noise: the baseline against itself at every point; without it nothing wins.
        among: names of the variants that may win (whose files there still are); None: all.
    """
    decided = [_decided(each, noise, goals.objective) for each in trials]
    able = [
        number
        for number, each in enumerate(decided)
        if each.verdict is Verdict.PASSED
        and each.variant.family is not Family.BASELINE
        and (among is None or each.variant.name in among)
    ]
    if not able:
        return tuple(_unconfirmed(each) for each in decided), ""
    best = max(_scored(decided[number]) for number in able)
    margin = LEAST_MARGIN if goals.objective is Objective.SIZE else _overall(noise, counting(noise, goals.objective))
    close = [number for number in able if _scored(decided[number]) * (1 + margin) >= best]
    winner = min(close, key=lambda number: _preference(decided[number]))
    for number in able:
        if number == winner:
            decided[number] = replace(decided[number], verdict=Verdict.WON, reason="")
        elif number in close:
            said = (
                f"as good as '{decided[winner].variant.name}' within the noise, which changes less or is more accurate"
            )
            decided[number] = replace(decided[number], reason=said)
    return tuple(decided), decided[winner].variant.name


def _unconfirmed(trial: Trial) -> Trial:
    """What passed when it was tried and cannot win: its file is gone, and nobody can time it again."""
    if trial.verdict is not Verdict.PASSED or trial.variant.family is Family.BASELINE:
        return trial
    reason = "better when it was tried, but not among the best, which alone are timed again"
    return replace(trial, verdict=Verdict.NOT_FASTER, reason=reason)


def _decided(trial: Trial, noise: Sequence[Timing], objective: Objective) -> Trial:
    if trial.variant.family is Family.BASELINE:
        return trial
    found, reason = verdict(trial, noise, objective)
    decided = replace(trial, verdict=found, reason=reason)
    counted = _with_noise(trial.timings, noise, objective)
    if objective is Objective.SIZE or not counted:
        return decided
    middle, low, high = score(counted, objective, 0, 0)
    return replace(decided, score=middle, score_low=low, score_high=high)


def _with_noise(timings: Sequence[Timing], noise: Sequence[Timing], objective: Objective) -> tuple[Timing, ...]:
    """The timings at the points that count, which are those of the noise: a variant may lack some of them."""
    wanted = {each.point for each in counting(noise, objective)}
    return tuple(each for each in timings if each.point in wanted)


def _faster(counted: Sequence[Timing], noise: Sequence[Timing], objective: Objective) -> tuple[Verdict, str]:
    middle, low, _ = score(counted, objective, 0, 0)
    margin = _overall(noise, counted)
    where = f"at {counted[0].point}" if len(counted) == 1 else "overall"
    if middle <= 1 + margin:
        return Verdict.NOT_FASTER, f"{_times(middle)} {where}, within the noise of {_percent(margin)}"
    if low <= 1:
        return Verdict.NOT_FASTER, f"{_times(middle)} {where}, but its spread reaches down to {_times(low)}"
    return Verdict.PASSED, ""


def _smaller(trial: Trial) -> tuple[Verdict, str]:
    if trial.score is None:
        return Verdict.NOT_FASTER, "its size is not known"
    if trial.score <= 1 + LEAST_MARGIN:
        return Verdict.NOT_FASTER, f"not smaller: {1 / trial.score:.0%} of the model's bytes"
    return Verdict.PASSED, ""


def _slower(worst: Timing, counted: Sequence[Timing], margin: float) -> str:
    found = f"{_times(worst.ratio)} at {worst.point}, slower by more than the noise of {_percent(margin)}"
    fastest = max(counted, key=lambda each: each.ratio)
    return found + (f", though {_times(fastest.ratio)} at {fastest.point}" if fastest.ratio > 1 + margin else "")


def _not_measured(counted: Sequence[Timing]) -> str:
    if not counted:
        return "it was not timed"
    seen = ", ".join(f"{_times(each.ratio)} at {each.point}" for each in counted)
    return f"{seen}; not timed further, because it could not win any more"


def _margin(noise: Sequence[Timing], point: str) -> float:
    """At one point; of all where that one was not measured."""
    return margin_of([each for each in noise if each.point == point] or noise)


def _overall(noise: Sequence[Timing], counted: Sequence[Timing]) -> float:
    """Of a geometric mean over these points."""
    return _mean([1 + _margin(noise, each.point) for each in counted]) - 1


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(math.fsum(math.log(each) for each in ratios) / len(ratios))


def _scored(trial: Trial) -> float:
    return 0.0 if trial.score is None else trial.score


def _preference(trial: Trial) -> tuple[int, float, int, float, str]:
    """The smaller, the rather among equals."""
    cosines = [] if trial.judgement is None else [each.cosine for each in trial.judgement.outputs]
    worst = min((each for each in cosines if each is not None), default=1.0)
    return (
        _CHANGES.index(trial.variant.family),
        -round(worst, _COSINE_DIGITS),
        len(trial.variant.steps),
        -_scored(trial),
        trial.variant.name,
    )


def _times(ratio: float) -> str:
    return f"{ratio:.2f} ×"


def _percent(share: float) -> str:
    return f"± {100 * share:.1f} %".replace(".0 %", " %")
