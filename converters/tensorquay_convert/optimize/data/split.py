"""Which rows calibrate and which judge. Pure.

Rows are taken in an order that the seed decides. A third of them, at most 256, calibrates; of the rest at most 2,048
rows or 1 GiB judge. Rows that are equal go to one side together: what was calibrated on proves nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tensorquay_convert.proof.seeded import Seeded

MOST_CALIBRATION = 256
MOST_JUDGING = 2048
CALIBRATION_BYTES = 256 << 20
JUDGING_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Split:
    """Numbers of rows, ascending; none is in both."""

    calibration: tuple[int, ...]
    judging: tuple[int, ...]


def permuted(count: int, seed: int, label: str) -> list[int]:
    """0 … count - 1 in an order that is the same for the same arguments on every machine."""
    order: list[int] = np.argsort(Seeded(seed, label).raw(count), kind="stable").tolist()
    return order


def split(order: Sequence[int], keys: Mapping[int, Hashable], sizes: Mapping[int, int], target: int) -> Split:
    """Divide the rows of `order`, of which at least two differ.

    Args:
        keys: row → what it is; rows with equal keys are equal.
        sizes: row → bytes.
        target: rows that should calibrate; fewer do when that would take more than `CALIBRATION_BYTES`, or when equal
            rows do not come out even, but never none.
    Raises: ValueError when there are no two rows that differ.
    """
    units: dict[Hashable, list[int]] = {}
    for row in order:
        units.setdefault(keys[row], []).append(row)
    if len(units) < 2:
        raise ValueError("no two rows differ")
    chosen: set[Hashable] = set()
    rows, taken = 0, 0
    for key, unit in units.items():
        size = sum(sizes[row] for row in unit)
        if rows + len(unit) <= target and taken + size <= CALIBRATION_BYTES and len(chosen) + 1 < len(units):
            chosen.add(key)
            rows, taken = rows + len(unit), taken + size
    if not chosen:
        chosen.add(min(units, key=lambda key: len(units[key])))
    judging: list[int] = []
    taken = 0
    for row in order:
        if keys[row] in chosen:
            continue
        taken += sizes[row]
        if judging and (len(judging) == MOST_JUDGING or taken > JUDGING_BYTES):
            break
        judging.append(row)
    return Split(tuple(sorted(row for key in chosen for row in units[key])), tuple(sorted(judging)))


def calibration_target(rows: int) -> int:
    """How many of the user's rows should calibrate."""
    return max(1, min(MOST_CALIBRATION, rows // 3))
