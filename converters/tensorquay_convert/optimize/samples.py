"""Samples on disk, as every job of an optimisation reads them: to calibrate with, to judge with, to time with.

Written once by `prepare.py`. A group holds rows of one shape; groups differ in their other axes (lengths). Rows of
calibration and of judging never overlap: what was calibrated on proves nothing.

    <folder>/index.json      groups, with rows, file names and which rows are for what
    <folder>/g0-i1.npy       input 1 of group 0, shape (rows, …); without a batch axis: (requests, …)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tensorquay_convert.optimize.plain import from_plain, to_plain
from tensorquay_convert.optimize.results import Point
from tensorquay_convert.tensors import Array, Arrays

INDEX = "index.json"
TEXT = "text"
"""What is noted for inputs of texts: objects of `bytes` in memory, fixed-size bytes on disk (`texts_to_disk`)."""
_END = b"\x01"


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one shape.

    Args:
        name: where they come from, for people.
        files: input name → file in the folder. `kinds`: input name → `TEXT` where it holds texts.
        calibration, judging: row numbers, ascending; they do not overlap. A drawn group may have none for judging.
        labels: file with one label per row (first axis as the inputs'), or empty.
    """

    name: str
    rows: int
    files: Mapping[str, str]
    calibration: tuple[int, ...]
    judging: tuple[int, ...]
    kinds: Mapping[str, str]
    labels: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """The whole of `index.json`. `batched`: rows of a group may be stacked on the first axis.

    `padded`: outputs with an entry for each position of a sequence, to the mask input that tells content from padding.
    """

    groups: tuple[Group, ...]
    points: tuple[Point, ...]
    batched: bool
    real: bool
    seed: int
    padded: Mapping[str, str] = field(default_factory=dict)

    def content(self, inputs: Arrays) -> dict[str, Array]:
        """For outputs that have padding: which positions are content, bool [rows, length]."""
        return {output: inputs[mask] != 0 for output, mask in self.padded.items() if mask in inputs}


class Samples:
    """Reads a folder of samples; files are mapped, not loaded. Not for several threads."""

    def __init__(self, folder: Path) -> None:
        """Raises: OSError or ValueError for a folder that `write_index` did not finish."""
        self.folder = folder
        self.index = from_plain(Index, json.loads((folder / INDEX).read_text(encoding="utf-8")))

    def calibration(self, batch: int, most: int | None = None) -> Iterator[Arrays]:
        """Inputs for calibration, at most `batch` rows each, at most `most` rows in all."""
        left = most
        for number, group in enumerate(self.index.groups):
            rows = group.calibration if left is None else group.calibration[:left]
            yield from self._batches(number, rows, batch)
            if left is not None:
                left -= len(rows)

    def judging(self, batch: int) -> Iterator[Arrays]:
        """Inputs for judging, at most `batch` rows each, in the order of `labels`."""
        for number, group in enumerate(self.index.groups):
            yield from self._batches(number, group.judging, batch)

    def labels(self) -> Array | None:
        """Labels of the judging rows in their order; None when no group has any."""
        found = [
            np.load(self.folder / group.labels, mmap_mode="r", allow_pickle=False)[list(group.judging)]
            for group in self.index.groups
            if group.labels and group.judging
        ]
        return np.concatenate(found) if found else None

    def timing(self, point: Point) -> Arrays:
        """Inputs of one run at `point`: rows of its group, repeated where there are fewer than its batch."""
        group = self.index.groups[point.group]
        rows = [number % group.rows for number in range(max(1, point.batch))]
        return next(iter(self._batches(point.group, rows, len(rows))))

    def _batches(self, number: int, rows: Sequence[int], batch: int) -> Iterator[Arrays]:
        group = self.index.groups[number]
        whole = {
            name: np.load(self.folder / file, mmap_mode="r", allow_pickle=False) for name, file in group.files.items()
        }
        step = batch if self.index.batched else 1
        for start in range(0, len(rows), max(1, step)):
            picked = list(rows[start : start + step])
            yield {
                name: _in_memory(array[picked] if self.index.batched else array[picked[0]], group.kinds.get(name, ""))
                for name, array in whole.items()
            }


def _in_memory(array: Array, kind: str) -> Array:
    if kind != TEXT:
        # It makes one axis of a single number.
        return np.ascontiguousarray(array).reshape(array.shape)
    found = np.empty(array.size, object)
    found[:] = [each[: -len(_END)] for each in array.reshape(-1).tolist()]
    return found.reshape(array.shape)


def texts_to_disk(texts: Array, longest: int) -> Array:
    """Objects of `bytes`, none longer than `longest`, as an array that a file of kind `TEXT` holds.

    Each is followed by one byte that is not zero: numpy takes zeros at the end of fixed-size bytes for padding, and
    texts may end in them.
    """
    marked = [each + _END for each in texts.reshape(-1).tolist()]
    return np.array(marked, f"S{longest + len(_END)}").reshape(texts.shape)


def write_index(folder: Path, index: Index) -> None:
    """Finish a folder. Raises: OSError."""
    (folder / INDEX).write_text(json.dumps(to_plain(index), indent=1), encoding="utf-8")
