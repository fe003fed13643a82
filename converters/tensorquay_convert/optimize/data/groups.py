"""Blocks of rows become groups of samples on disk: blocks of one shape together, divided, only what is used written."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize.data.blocks import PIECE_BYTES, Block
from tensorquay_convert.optimize.data.split import Split, calibration_target, permuted, split
from tensorquay_convert.optimize.samples import TEXT, Group, texts_to_disk
from tensorquay_convert.tensors import Array

MOST_CANDIDATES = 16_384
"""Rows that are looked at to divide them: many more than are used, few enough to compare one by one."""
FEW = 20


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that a group takes from a block: those that calibrate and those that judge, ascending. `first`: the number
    of the block's first row among all rows, which labels go by."""

    block: Block
    first: int
    calibration: tuple[int, ...]
    judging: tuple[int, ...]

    @property
    def rows(self) -> list[int]:
        """All of them, ascending."""
        return sorted((*self.calibration, *self.judging))


@dataclass(frozen=True, slots=True)
class Gathered:
    """A group before it is written: parts of one shape. `timed_only`: neither calibrates nor judges."""

    parts: tuple[Part, ...]
    timed_only: bool = False

    @property
    def rows(self) -> int:
        """How many will be written."""
        return sum(len(part.rows) for part in self.parts)


def divided(blocks: Sequence[Block], seed: int) -> tuple[tuple[Gathered, ...], list[str]]:
    """The user's rows as groups, by shape in the order of first appearance, and notes.

    Raises: BadSource for fewer than 2 rows, or rows that are all equal.
    """
    total = sum(block.rows for block in blocks)
    if total < 2:
        raise BadSource(
            f"the data hold {total} row, expected at least 2: one to calibrate with and another to judge with",
            remedy="give more rows; some hundreds make a judgement that means something",
        )
    firsts = np.cumsum([0, *(block.rows for block in blocks)]).tolist()
    order = permuted(total, seed, "split")[:MOST_CANDIDATES]
    owners = (np.searchsorted(firsts, order, side="right") - 1).tolist()
    per_block: dict[int, list[int]] = {}
    for row, owner in sorted(zip(order, owners, strict=True)):
        per_block.setdefault(owner, []).append(row)
    keys: dict[int, bytes] = {}
    sizes: dict[int, int] = {}
    for owner, rows in per_block.items():
        local = [row - firsts[owner] for row in rows]
        keys.update(zip(rows, blocks[owner].digests(local), strict=True))
        sizes.update(dict.fromkeys(rows, blocks[owner].row_bytes))
    try:
        found = split(order, keys, sizes, calibration_target(total))
    except ValueError as exc:
        raise BadSource(
            f"all {total} rows of the data are equal, expected at least 2 that differ",
            remedy="give rows as they will be served",
        ) from exc
    return _by_shape(blocks, firsts, found), _notes(total, len(order), len(set(keys.values())), found)


def _notes(total: int, looked_at: int, different: int, found: Split) -> list[str]:
    notes = []
    used = len(found.calibration) + len(found.judging)
    if total < FEW:
        notes.append(
            f"{total} rows are few ({len(found.calibration)} calibrate, {len(found.judging)} judge): "
            "the judgement on accuracy says little; some hundreds would do"
        )
    if different < looked_at:
        notes.append(f"{looked_at - different} of {looked_at} rows are repetitions; equal rows are never on both sides")
    if used < total:
        notes.append(
            f"of {total} rows {len(found.calibration)} calibrate and {len(found.judging)} judge; the rest is not used"
        )
    return notes


def _by_shape(blocks: Sequence[Block], firsts: Sequence[int], found: Split) -> tuple[Gathered, ...]:
    shapes: dict[object, list[Part]] = {}
    for block, first in zip(blocks, firsts, strict=False):
        calibration, judging = (
            tuple(row - first for row in rows[bisect_left(rows, first) : bisect_left(rows, first + block.rows)])
            for rows in (found.calibration, found.judging)
        )
        if calibration or judging:
            shapes.setdefault(block.signature, []).append(Part(block, first, calibration, judging))
    return tuple(Gathered(tuple(parts)) for parts in shapes.values())


def halved(block: Block, seed: int) -> Gathered:
    """A drawn block: half of its rows calibrates, half judges."""
    order = permuted(block.rows, seed, block.name)
    half = block.rows // 2
    return Gathered((Part(block, 0, tuple(sorted(order[:half])), tuple(sorted(order[half:]))),))


def timed(block: Block) -> Gathered:
    """A block whose rows are for timings only."""
    return Gathered((Part(block, 0, tuple(range(block.rows)), ()),), timed_only=True)


def write(folder: Path, number: int, group: Gathered, labels: Array | None) -> Group:
    """Write a group's arrays. `labels`: of all rows. Raises: OSError."""
    columns = group.parts[0].block.columns
    files = {name: f"g{number}-i{at}.npy" for at, name in enumerate(columns)}
    for name, file in files.items():
        longest = max(part.block.columns[name].longest for part in group.parts)
        shape = (group.rows, *columns[name].raw.shape[1:])
        dtypes = [np.dtype(part.block.columns[name].disk_dtype) for part in group.parts]
        with (folder / file).open("wb") as stream:
            _write(stream, shape, max(dtypes, key=lambda each: each.itemsize), _pieces(group, name, longest))
    calibration: list[int] = []
    judging: list[int] = []
    at = 0
    for part in group.parts:
        places = {row: at + place for place, row in enumerate(part.rows)}
        calibration += [places[row] for row in part.calibration]
        judging += [places[row] for row in part.judging]
        at += len(places)
    labelled = ""
    if labels is not None and not group.timed_only:
        labelled = f"g{number}-labels.npy"
        picked = [part.first + row for part in group.parts for row in part.rows]
        with (folder / labelled).open("wb") as stream:
            npy.write_array(stream, np.ascontiguousarray(labels[picked]), allow_pickle=False)
    return Group(
        name=_name(group.parts),
        rows=group.rows,
        files=files,
        calibration=() if group.timed_only else tuple(calibration),
        judging=tuple(judging),
        kinds={name: TEXT for name, column in columns.items() if column.spec.dtype == "string"},
        labels=labelled,
    )


def _pieces(group: Gathered, name: str, longest: int) -> Iterator[Array]:
    for part in group.parts:
        column, rows = part.block.columns[name], part.rows
        step = max(1, PIECE_BYTES // max(1, column.row_bytes))
        for start in range(0, len(rows), step):
            piece = column.take(rows[start : start + step])
            yield texts_to_disk(piece, longest) if column.spec.dtype == "string" else piece


def _write(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[np.generic], pieces: Iterator[Array]) -> None:
    """An npy file by ordinary writing: a full disk is an error there, and a signal in mapped memory."""
    npy.write_array_header_1_0(stream, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    for piece in pieces:
        stream.write(np.ascontiguousarray(piece).tobytes())


def _name(parts: Sequence[Part]) -> str:
    more = len(parts) - 1
    return parts[0].block.name + (f" and {more} more" if more else "")
