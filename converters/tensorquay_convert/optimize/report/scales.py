"""Axes: values to pixels, and where the ticks are. Pure.

Ratios are drawn by their logarithm, so that twice as fast and half as fast are equally far from 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tensorquay_convert.optimize.report import words

_SLOWEST, _FASTEST = 0.01, 100.0
_LEAST, _MOST = -9, 1


@dataclass(frozen=True, slots=True)
class Ratios:
    """× baseline on a logarithmic axis from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel, kept within the axis."""
        kept = min(max(value, self.low), self.high) if not math.isnan(value) else self.low
        share = math.log(kept / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Round ratios within the axis and what to write there."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [each * 10.0**decade for decade in decades for each in (1, 2, 5)]
        inside = [each for each in found if self.low <= each <= self.high]
        if len(inside) < 4:
            inside = _even(self.low, self.high)
        return tuple((each, f"{each:.3g}") for each in inside)


@dataclass(frozen=True, slots=True)
class Losses:
    """Powers of ten from pixel `start` (least) to `end` (most); `zero` is the pixel of no loss, beside the axis."""

    low: int
    high: int
    start: float
    end: float
    zero: float

    def at(self, value: float) -> float:
        """The pixel, kept within the axis; no loss, or less than none, is at `zero`."""
        if math.isnan(value) or value >= 10.0**self.high:
            return self.end
        if value <= 0:
            return self.zero
        if value < 10.0**self.low:
            return self.start
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Powers of ten within the axis, and where there is no loss."""
        step = max(1, math.ceil((self.high - self.low) / 8))
        return ((0.0, "≤ 0"), *((10.0**each, _power(each)) for each in range(self.low, self.high + 1, step)))


def ratios(values: Iterable[float], start: float, end: float) -> Ratios:
    """An axis that holds `values` and 1, with room at both ends."""
    kept = [min(max(each, _SLOWEST), _FASTEST) for each in values if words.known(each) and each > 0]
    low, high = min([1.0, *kept]), max([1.0, *kept])
    room = max((high / low) ** 0.06, 1.03)
    return Ratios(low / room, high * room, start, end)


def losses(values: Iterable[float], start: float, end: float, zero: float) -> Losses:
    """An axis that holds every positive one of `values`."""
    exponents = [math.log10(each) for each in values if words.known(each) and each > 0]
    low = max(_LEAST, math.floor(min(exponents))) if exponents else -3
    high = min(_MOST, math.ceil(max(exponents))) if exponents else -1
    low = min(low, _MOST - 2)
    return Losses(low, max(high, low + 2), start, end, zero)


def _even(low: float, high: float) -> list[float]:
    """Ticks at even steps of 1, 2 or 5 tenths."""
    rough = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(each * size for each in (1, 2, 5, 10) if each * size >= rough)
    first = math.ceil(low / step)
    return [each * step for each in range(first, math.floor(high / step) + 1)]


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if exponent >= -3 else f"1e{exponent}"
