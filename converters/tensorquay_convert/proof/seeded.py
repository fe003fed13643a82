"""Numbers from a seed that are the same on every platform and with every version of numpy.

Only the raw 64-bit stream of PCG64 is used, which numpy promises not to change; its distributions may change, and
go through the platform's logarithm. Everything here is integer arithmetic until one exact division by a power of two.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from tensorquay_convert.tensors import Array

_UNIFORMS = 12
"""Uniform numbers whose sum is nearly normal: their variance is 12 x 1/12 = 1 (Irwin-Hall). Tails end at 6."""
_CHUNK = 1 << 20


class Seeded:
    """A stream of its own for each (seed, labels). Owned by who draws."""

    def __init__(self, seed: int, *labels: str) -> None:
        words = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, *(zlib.crc32(label.encode()) for label in labels)]
        self._bits = np.random.PCG64(np.random.SeedSequence(words))

    def raw(self, count: int) -> Array:
        """`count` uint64."""
        drawn: Any = self._bits.random_raw(count)
        return np.asarray(drawn, dtype=np.uint64).reshape(count)

    def normal(self, shape: tuple[int, ...]) -> Array:
        """Nearly standard normal, float64, in steps of 2**-16, between -6 and 6."""
        count = _count(shape)
        found = np.empty(count, np.float64)
        for start in range(0, count, _CHUNK):
            stop = min(count, start + _CHUNK)
            total = np.zeros(stop - start, np.int64)
            for _ in range(_UNIFORMS // 4):
                words = self.raw(stop - start)
                for shift in (0, 16, 32, 48):
                    total += ((words >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
            # The middle of each step, so that the mean is exactly 0.
            found[start:stop] = (2 * total + _UNIFORMS - _UNIFORMS * 65536) / 131072.0
        return found.reshape(shape)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Array:
        """Float64 from `low` to below `high`."""
        share = (self.raw(_count(shape)) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
        return np.minimum(low + share * (high - low), high).reshape(shape)

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        """From `low` to `high`, both included; int64, or uint64 when `high` does not fit it."""
        span = high - low + 1
        words = self.raw(_count(shape))
        drawn = words if span >= 1 << 64 else words % np.uint64(span)
        if low >= 0:
            drawn = drawn + np.uint64(low)
            found = drawn if high > np.iinfo(np.int64).max else drawn.astype(np.int64)
        else:
            # Two's complement: the sum wraps to the right signed number.
            found = (drawn + np.uint64(low + (1 << 64))).astype(np.int64)
        return found.reshape(shape)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
