"""Medians, how sure they are, and where the next one will be. Pure numbers, no clocks.

Ratios are positive and multiply, so spreads are symmetric in their logarithms.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise

CONFIDENCE = 0.99
_STRETCH = {3: 6.8, 4: 2.8, 5: 1.8, 6: 1.3, 7: 1.05}
"""Rounds → how far beyond their extremes a 99 % interval reaches.

Fewer than 8 values have no order statistics that far out. The factors are Student's interval of a mean by half the
expected range of as many normally distributed values (tables of the t distribution and of the range, d2).
"""
_PARTS = 24
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Student's t at 97.5 % for 1, 2, 3 … degrees of freedom, from its usual table; beyond them the next value is near."""
_Z_995 = 2.576


def ratio_interval(rounds: Sequence[float]) -> tuple[float, float, float]:
    """The median of a sitting's ratios, in the order they were measured, and a 99 % interval of it.

    What disturbs a machine lasts longer than a round: neighbours are disturbed alike, and the rounds are fewer
    observations than they look. So the interval is that of the medians of up to `_PARTS` consecutive parts of at
    least 3 rounds, which are as good as independent; 8 parts are needed, below that it is that of the rounds.
    Undisturbed rounds would allow about four fifths of its width.
    """
    parts = min(_PARTS, len(rounds) // 3)
    if parts < 8:
        return median_interval(rounds)
    edges = [len(rounds) * part // parts for part in range(parts + 1)]
    _, low, high = median_interval([statistics.median(rounds[start:end]) for start, end in pairwise(edges)])
    middle = statistics.median(rounds)
    return middle, min(low, middle), max(high, middle)


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of 3 to 1000 positive values and a 99 % confidence interval of it, whatever their distribution.

    The interval is a pair of order statistics: the median lies below the k-th smallest of n values when at most k - 1
    of n fair coins fall on one side (Conover, Practical Nonparametric Statistics, on quantiles).
    """
    assert 3 <= len(values) <= 1000, "fewer say nothing about their spread, and of more the chances underflow"
    ordered = sorted(values)
    middle = statistics.median(ordered)
    stretch = _STRETCH.get(len(ordered))
    if stretch is not None:
        low = middle * (ordered[0] / middle) ** stretch
        return middle, low, middle * (ordered[-1] / middle) ** stretch
    rank = _rank(len(ordered))
    return middle, ordered[rank - 1], ordered[len(ordered) - rank]


def _rank(count: int) -> int:
    """The largest k for which the k-th smallest and k-th largest of `count` values hold the median with 99 %."""
    chance = below = 0.5**count
    rank = 1
    while rank < count:
        chance = chance * (count - rank + 1) / rank
        below += chance
        if 2 * below > 1 - CONFIDENCE:
            return rank
        rank += 1
    return rank


def next_interval(
    ratios: Sequence[float], errors: Sequence[float], *, usual: float, weight: int
) -> tuple[float, float, float]:
    """The median of some processes' ratios, and where a further process's will be, with 95 %.

    Student's prediction interval of the logarithms: their spread between processes is unknown and few are at hand, so
    it is estimated from them together with what is usual, which counts as `weight` observations (the conjugate prior
    of a variance); `usual` alone decides for a single process.

    Args:
        ratios: one per process. errors: the standard error of the logarithm of each, from within its process.
        usual: the standard deviation of logarithms between processes to expect.
    """
    logs = [math.log(each) for each in ratios]
    middle = statistics.median(logs)
    mean = math.fsum(logs) / len(logs)
    within = math.fsum(each * each for each in errors) / len(errors)
    seen = math.fsum((each - mean) ** 2 for each in logs)
    degrees = weight + len(logs) - 1
    deviation = math.sqrt((weight * (usual**2 + within) + seen) / degrees)
    half = _T_975[min(degrees, len(_T_975)) - 1] * deviation * math.sqrt(1 + 1 / len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def standard_error(low: float, high: float) -> float:
    """Of the logarithm of a median, from its 99 % interval."""
    return (math.log(high) - math.log(low)) / (2 * _Z_995)
