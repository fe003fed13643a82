"""Time a variant against the baseline in the same process, and tell a difference from noise.

One sitting is one process's rounds of A B or B A, A the baseline: what disturbs the machine disturbs both, and neither
is always the first. A round compares the middle runs of two blocks, the ratio is the median of the rounds', so that
neither a disturbed run nor a disturbed round counts. What differs from process to process (where memory lies, where a
pool's threads land) no single sitting sees: finalists sit more than once, and `timing` puts the sittings together.

What counts as a win: see `wins`. Calls know nothing of models here; the clock is the caller's.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tensorquay_convert.optimize.results import Point, Sitting, Timing
from tensorquay_convert.optimize.spread import next_interval, ratio_interval, standard_error

BLOCK_S = 2e-3
"""A timed block takes at least this: it outweighs a clock's error and the scheduler's small change."""
MIN_ROUNDS, MAX_ROUNDS = 10, 1000
SLOW_ROUNDS = 8
"""Rounds of a model so slow that `MIN_ROUNDS` would take more than `_PATIENCE` times what was given."""
LEAST_MARGIN = 0.01
"""No difference below 1 % is claimed, however quiet the machine is."""

_PATIENCE = 2.0
_WARM_SHARE, _WARM_LEAST_S = 0.2, 0.02
_WARM_MOST_RUNS = 4096
_STEADY = 0.97
_MAX_BLOCK = 4096
_TICK = 1e-9
_USUAL, _USUAL_SHARE = 0.01, 0.06
_WEIGHT = 4

Run = Callable[[], None]
Clock = Callable[[], float]


def sit(
    baseline: Run, variant: Run, point: Point, *, seconds: float, seed: int, clock: Clock = time.perf_counter
) -> Sitting:
    """Measure `variant` against `baseline` for about `seconds`, warming up (at most a fifth more) not counted.

    At least `MIN_ROUNDS` rounds, or `SLOW_ROUNDS` when those would take twice the time. The garbage collector is off
    meanwhile. Order of the two within a round: both equally often, drawn by `seed`.
    Raises: what the calls raise.
    """
    with _no_garbage_collection():
        first, second = _warm(baseline, variant, _WARM_SHARE * seconds, clock)
        runs_a, runs_b = _runs(first), _runs(second)
        times_a, times_b, ratios = array("d"), array("d"), array("d")
        begun = clock()
        for a_first in _orders(seed):
            if a_first:
                a = _block(baseline, runs_a, times_a, clock)
                b = _block(variant, runs_b, times_b, clock)
            else:
                b = _block(variant, runs_b, times_b, clock)
                a = _block(baseline, runs_a, times_a, clock)
            ratios.append(a / b)
            if _enough(len(ratios), clock() - begun, seconds):
                break
    ratio, low, high = ratio_interval(ratios)
    return Sitting(
        point=point.name, batch=point.batch, rounds=len(ratios),
        baseline_p50=statistics.median(times_a), baseline_p99=_p99(times_a),
        p50=statistics.median(times_b), p99=_p99(times_b),
        ratio=ratio, low=low, high=high,
    )  # fmt: skip


def timing(sittings: Sequence[Sitting]) -> Timing:
    """What the sittings at one point say together.

    The ratio is their median. `low` and `high` are where the ratio of one more sitting, in a new process, will be with
    95 %: not how well this ratio is known, but what a reader who measures again may find, for a claim has to
    reproduce. Two or three sittings do not tell how much processes differ, so what is usual counts as `_WEIGHT` more
    of them (`spread.next_interval`): 1 % of a model against itself, and `_USUAL_SHARE` of the difference (in
    logarithms: 1 % at 1.1 times, 3 % at 1.6, 8 % at 4), because other code suffers otherwise from the same
    disturbance. Each sitting's own uncertainty is added, and the bounds span at least what every sitting found within
    itself. Where processes differ more than usual, the sittings themselves show it, the better the more there are.
    """
    assert sittings, "nothing was measured"
    assert len({(each.point, each.batch) for each in sittings}) == 1, "sittings at different points"
    ratio, low, high = next_interval(
        [each.ratio for each in sittings],
        [standard_error(each.low, each.high) for each in sittings],
        usual=math.hypot(_USUAL, _USUAL_SHARE * math.log(statistics.median(each.ratio for each in sittings))),
        weight=_WEIGHT,
    )
    return Timing(
        point=sittings[0].point, batch=sittings[0].batch, sittings=len(sittings),
        baseline_p50=statistics.median(each.baseline_p50 for each in sittings),
        baseline_p99=statistics.median(each.baseline_p99 for each in sittings),
        p50=statistics.median(each.p50 for each in sittings),
        p99=statistics.median(each.p99 for each in sittings),
        ratio=ratio,
        low=min(low, *(each.low for each in sittings)),
        high=max(high, *(each.high for each in sittings)),
    )  # fmt: skip


def noise(timings: Sequence[Timing]) -> float:
    """How far from 1 a ratio may be without meaning anything (0.03: 3 %), from the baseline against itself.

    It is the farthest bound of any of them, at least `LEAST_MARGIN`; that alone without timings.
    """
    farthest = max((max(math.log(each.high), -math.log(each.low)) for each in timings), default=0.0)
    return max(LEAST_MARGIN, math.expm1(farthest))


def wins(found: Timing, margin: float) -> bool:
    """Faster by more than the noise: the ratio is beyond it, and the spread does not reach 1."""
    return found.ratio > 1 + margin and found.low > 1


def loses(found: Timing, margin: float) -> bool:
    """Slower by more than the noise: as `wins`, the other way round."""
    return found.ratio < 1 / (1 + margin) and found.high < 1


def _warm(baseline: Run, variant: Run, seconds: float, clock: Clock) -> tuple[float, float]:
    """Run both in ever longer blocks until neither gets faster, or for `seconds`; seconds of a run of each, then."""
    begun = clock()
    runs, before = 1, (math.inf, math.inf)
    while True:
        now = (_mean(baseline, runs, clock), _mean(variant, runs, clock))
        steady = all(new >= _STEADY * old for new, old in zip(now, before, strict=True))
        elapsed = clock() - begun
        if (steady and elapsed >= _WARM_LEAST_S) or elapsed >= seconds or runs >= _WARM_MOST_RUNS:
            return now
        runs, before = runs * 2, now


def _mean(call: Run, runs: int, clock: Clock) -> float:
    begun = clock()
    for _ in range(runs):
        call()
    return max(_TICK, clock() - begun) / runs


def _runs(seconds: float) -> int:
    return min(_MAX_BLOCK, max(1, math.ceil(BLOCK_S / seconds)))


def _orders(seed: int) -> Iterator[bool]:
    """For each round, whether the baseline is first: of two rounds once, by the toss of a coin."""
    coin = random.Random(seed)
    while True:
        first = coin.random() < 0.5
        yield first
        yield not first


def _block(call: Run, runs: int, times: array[float], clock: Clock) -> float:
    """Run `runs` times, note each; the middle one, or the mean where the clock is too coarse for a single run."""
    begun = last = clock()
    for _ in range(runs):
        call()
        now = clock()
        times.append(now - last)
        last = now
    return statistics.median(times[-runs:]) or max(_TICK, last - begun) / runs


def _enough(rounds: int, elapsed: float, seconds: float) -> bool:
    if rounds >= MAX_ROUNDS:
        return True
    if rounds >= MIN_ROUNDS:
        return elapsed >= seconds
    return rounds >= SLOW_ROUNDS and elapsed >= _PATIENCE * seconds


def _p99(times: Sequence[float]) -> float:
    """The smallest time that 99 % of runs did not exceed."""
    return sorted(times)[math.ceil(0.99 * len(times)) - 1]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
