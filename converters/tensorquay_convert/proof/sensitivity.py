"""How much the source's own answer moves when its inputs move by a rounding error.

Some places of some models magnify rounding: a normalization of rows without variance, a difference of large
numbers, a softmax of huge logits. No conversion, however right, gives the same digits there. Where the source itself
answers differently to inputs that differ in the last bits, the default tolerance is widened, and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tensorquay_convert.api import OpenSource
from tensorquay_convert.proof.compare import as_numbers
from tensorquay_convert.proof.seeded import Seeded
from tensorquay_convert.proof.tolerances import allowed
from tensorquay_convert.tensors import Array, Arrays

_ROUNDINGS = 16.0
"""A graph rounds many times where the nudge rounds once."""


def widening(source: OpenSource, inputs: Arrays, expected: Arrays, seed: int) -> Mapping[str, float]:
    """By output: how many default tolerances 16 roundings of the inputs are worth; only what is above 1.

    Costs one run of the source. Raises: whatever the source raises.
    """
    nudged = {name: _nudged(value, Seeded(seed, "nudge", name)) for name, value in inputs.items()}
    if all(nudged[name] is value for name, value in inputs.items()):
        return {}
    found: dict[str, float] = {}
    again = source.run(nudged)
    for name, value in expected.items():
        other = again.get(name)
        if other is None or other.shape != value.shape or value.dtype.kind != "f":
            continue
        left, right = as_numbers(value, ""), as_numbers(other, "")
        finite = np.isfinite(left) & np.isfinite(right)
        if not finite.any():
            continue
        bound = allowed(value.dtype.name, left).bound(left[finite])
        moved = float((np.abs(left[finite] - right[finite]) / bound).max()) * _ROUNDINGS
        if moved > 1:
            found[name] = moved
    return found


def _nudged(value: Array, stream: Seeded) -> Array:
    """Each number moved to its neighbour above or below; anything but floats stays the very same array."""
    if value.dtype.kind != "f" or not value.size:
        return value
    up = stream.integers(value.shape, 0, 1).astype(bool)
    zero = value == 0
    moved = np.nextafter(value, np.where(up, np.inf, -np.inf).astype(value.dtype))
    # The neighbours of 0 are denormal: a zero is exact, and stays.
    return np.where(zero, value, moved).astype(value.dtype)
