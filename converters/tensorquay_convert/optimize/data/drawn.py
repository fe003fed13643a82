"""Rows for want of the user's: drawn by a seed, within what each input takes, with padding where there are masks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize.data import points
from tensorquay_convert.optimize.data.blocks import Block, Fitting, fitted
from tensorquay_convert.proof.inputs import Drawn, Style, draw, styles
from tensorquay_convert.proof.sizes import bases, bounds, dynamic_axes, elements, fit
from tensorquay_convert.tensors import BATCH, Arrays

ROWS = 256
"""In all groups together; half of them calibrates, half judges."""
MOST_BYTES = 256 << 20
MOST_GROUPS = 4
USUAL_SIZE = 64
"""Of a dynamic axis that nothing is said about, as far as its bounds allow."""
_ELEMENT_BYTES = 8
_UNPADDED = 8
"""One row in so many has no padding."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the dynamic axes for each group to draw, and what to tell the user about them."""

    sizes: tuple[Mapping[str, int], ...]
    notes: tuple[str, ...]


def sizes_to_draw(to: Fitting, asked: Mapping[str, tuple[int, ...]], guess: Mapping[str, int]) -> Plan:
    """Every combination of the asked sizes, at most `MOST_GROUPS`.

    Args:
        asked: by axis; checked by `refuse_sizes`. guess: of the other axes, one size each.
    """
    axes = free_axes(to)
    choices = []
    guessed = []
    for axis in axes:
        if axis in asked:
            choices.append(tuple(dict.fromkeys(asked[axis])))
            continue
        guessed.append(f"'{axis}' {guess[axis]}")
        choices.append((guess[axis],))
    combined = [dict(zip(axes, each, strict=True)) for each in itertools.product(*choices)]
    notes = []
    if guessed:
        notes.append(f"sizes of dynamic axes nobody gave: {', '.join(guessed)}")
    if len(combined) > MOST_GROUPS:
        # The first and last combinations are the smallest and largest.
        picked = sorted({round(at * (len(combined) - 1) / (MOST_GROUPS - 1)) for at in range(MOST_GROUPS)})
        notes.append(f"of {len(combined)} combinations of sizes {len(picked)} are used")
        combined = [combined[at] for at in picked]
    return Plan(tuple(combined), tuple(notes))


def free_axes(to: Fitting) -> list[str]:
    """The dynamic axes of the inputs but the one that requests are stacked on."""
    return [axis for axis in dynamic_axes(to.interface) if not (to.batched and axis == BATCH)]


def guesses(to: Fitting, asked: Mapping[str, tuple[int, ...]], single: int) -> Iterator[Mapping[str, int]]:
    """Sizes to try, best first, for the axes that nobody speaks of; of the others the first that was asked for.

    `single`: the size that a batch axis must have which requests are not stacked on; 0: any.
    """
    known = {axis: wanted[0] for axis, wanted in asked.items() if wanted} | ({BATCH: single} if single else {})
    for usual in (dict.fromkeys(free_axes(to), USUAL_SIZE), *bases(to.interface, batch=1)):
        yield {
            axis: known[axis] if axis in known else fit(usual[axis], bounds(to.interface, axis))
            for axis in free_axes(to)
        }


def refuse_sizes(to: Fitting, asked: Mapping[str, tuple[int, ...]]) -> None:
    """Raises: BadSource for an axis that is not there, or a size that it cannot have."""
    axes = free_axes(to)
    for axis, wanted in asked.items():
        if axis not in axes:
            there = ", ".join(f"'{each}'" for each in axes) or "none"
            raise BadSource(
                f"sizes are given for axis '{axis}', which the model does not have; its dynamic axes are: {there}",
                remedy="batch sizes go with --batch" if axis == BATCH else "name one of them",
            )
        within = bounds(to.interface, axis)
        for size in wanted:
            if size < within.low or (within.high is not None and size > within.high) or size % within.multiple:
                step = f" in steps of {within.multiple}" if within.multiple > 1 else ""
                most = "any size" if within.high is None else within.high
                raise BadSource(
                    f"size {size} is asked for axis '{axis}', expected {within.low} to {most}{step}",
                    remedy="ask for sizes that the model takes",
                )
            _row_bytes(to, {each: bounds(to.interface, each).low for each in axes} | {axis: size})


def _row_bytes(to: Fitting, sizes: Mapping[str, int]) -> int:
    """About what one row takes. Raises: BadSource when that is more than a run may."""
    one = elements(to.interface, {**sizes, BATCH: 1} if to.batched else sizes) * _ELEMENT_BYTES
    if one > points.MOST_BYTES:
        raise BadSource(
            f"one row at {', '.join(f'{axis} {size}' for axis, size in sizes.items())} takes {one} bytes, "
            f"expected at most {points.MOST_BYTES}",
            remedy="ask for smaller sizes",
        )
    return one


def blocks(to: Fitting, sizes: Sequence[Mapping[str, int]], rows: int, seed: int) -> Iterator[Block]:
    """A block for each of `sizes`, which share `rows`; fewer rows than 2 never, else at most `MOST_BYTES` in all."""
    for each in sizes:
        one = _row_bytes(to, each)
        count = max(2, min(rows // len(sizes), MOST_BYTES // len(sizes) // max(1, one)))
        arrays = _stacked(to, each, count, seed) if to.batched else _single(to, each, count, seed)
        name = ", ".join(f"{axis} {size}" for axis, size in each.items())
        yield fitted("the drawn rows", f"drawn, {name}" if name else "drawn", arrays, to)


def _stacked(to: Fitting, sizes: Mapping[str, int], rows: int, seed: int) -> Arrays:
    unpadded = rows // _UNPADDED if Style.FULL in styles(to.interface) else 0
    found = draw(to.interface, Drawn("usual", {**sizes, BATCH: rows}), seed)
    if not unpadded:
        return found
    full = draw(to.interface, Drawn("full", {**sizes, BATCH: rows}, Style.FULL), seed)
    return {name: np.concatenate([array[:-unpadded], full[name][-unpadded:]]) for name, array in found.items()}


def _single(to: Fitting, sizes: Mapping[str, int], rows: int, seed: int) -> Arrays:
    drawn = [draw(to.interface, Drawn("usual", sizes), seed + (number << 32)) for number in range(rows)]
    return {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}
