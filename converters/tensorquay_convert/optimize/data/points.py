"""Where timings are taken: shapes of the samples times batch sizes, at most eight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorquay_convert.optimize.results import Point
from tensorquay_convert.tensors import BATCH

MOST_POINTS = 8
_MOST_SHAPES = 4
MOST_BYTES = 512 << 20
"""Of the inputs of one run."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A group as a place to time at. `asked`: the user named its sizes. `row_bytes`: of one row, all inputs."""

    group: int
    rows: int
    row_bytes: int
    sizes: Mapping[str, int]
    asked: bool = False


def choose(shapes: Sequence[Shape], batches: Sequence[int], *, batched: bool) -> tuple[tuple[Point, ...], list[str]]:
    """The points to try, by group and batch, and what is left out and why.

    Shapes that were asked for come first, then those with most rows; the smallest and the largest batch are always
    among a shape's.
    """
    notes = []
    ranked = sorted(shapes, key=lambda shape: (not shape.asked, -shape.rows, shape.group))
    kept = sorted(ranked[:_MOST_SHAPES], key=lambda shape: shape.group)
    if len(kept) < len(shapes):
        notes.append(f"timed at {len(kept)} of the {len(shapes)} shapes in the data")
    wanted = sorted(set(batches)) if batched else [0]
    sizes = _thinned(wanted, MOST_POINTS // len(kept))
    if len(sizes) < len(wanted):
        left = ", ".join(str(each) for each in wanted if each not in sizes)
        notes.append(f"batch sizes that are not timed, for there would be too many points: {left}")
    points = []
    for shape in kept:
        for batch in sizes:
            point = Point(_name(batch, shape.sizes), batch, shape.group, dict(shape.sizes))
            size = max(1, batch) * shape.row_bytes
            if size > MOST_BYTES:
                notes.append(f"{point.name} is not timed: its inputs take {size} bytes, at most {MOST_BYTES} are used")
            else:
                points.append(point)
    return tuple(points), notes


def _thinned(batches: Sequence[int], most: int) -> list[int]:
    """At most `most` of them (at least 2), evenly, the first and the last among them."""
    if len(batches) <= most:
        return list(batches)
    return [batches[at] for at in sorted({round(n * (len(batches) - 1) / (most - 1)) for n in range(most)})]


def _name(batch: int, sizes: Mapping[str, int]) -> str:
    """Unique among shapes: of one model they differ in their sizes."""
    listed = [f"batch {batch}"] if batch else []
    listed += [f"{_SHORT.get(axis, axis)} {size}" for axis, size in sizes.items()]
    return ", ".join(listed) or "single requests"


_SHORT = {"sequence": "seq", "sequence_length": "seq", BATCH: "rows"}
