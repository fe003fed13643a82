"""Rows of one shape from one place: arrays as they came, given out as the model takes them.

Large arrays stay where they are (memory-mapped) and are looked at piece by piece.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize.data.values import converted, takes_ids
from tensorquay_convert.proof.compare import dtype_name
from tensorquay_convert.proof.sizes import bounds
from tensorquay_convert.tensors import BATCH, Array, Arrays, Interface, TensorSpec

PIECE_BYTES = 16 << 20
"""Values are checked, hashed and written in pieces of about so many bytes."""
_ROWS_AT_ONCE = 1024
"""Of a mapped file: reading one maps its surroundings as well, some 64 KiB."""


@dataclass(frozen=True, slots=True)
class Column:
    """One input's values. `raw`: shape (rows, …); `longest`: bytes of its longest text, 0 for numbers."""

    where: str
    spec: TensorSpec
    raw: Array
    vocabulary: int | None
    longest: int = 0

    @property
    def disk_dtype(self) -> str:
        """What its file holds; a text is one byte longer there (`samples.texts_to_disk`)."""
        if self.spec.dtype == "string":
            return f"S{self.longest + 1}"
        return np.dtype("uint16" if self.spec.dtype == "bfloat16" else self.spec.dtype).str

    @property
    def row_bytes(self) -> int:
        """Of one row on disk."""
        return int(prod(self.raw.shape[1:]) * np.dtype(self.disk_dtype).itemsize)

    def take(self, rows: Sequence[int]) -> Array:
        """These rows, as the model takes them."""
        found = []
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            found.append(np.asarray(self.raw[list(rows[start : start + _ROWS_AT_ONCE])]))
            _forget(self.raw)
        return converted(self.where, self.spec, np.concatenate(found), rows[0], self.vocabulary)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one shape.

    Args:
        name: where they come from, for people.
        columns: by input, in the model's order.
        sizes: of the dynamic axes, without the one that rows are stacked on.
    """

    name: str
    rows: int
    columns: Mapping[str, Column]
    sizes: Mapping[str, int]

    @property
    def signature(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Equal for blocks whose rows have one shape."""
        return tuple((name, column.raw.shape[1:]) for name, column in self.columns.items())

    @property
    def row_bytes(self) -> int:
        """Of one row on disk, all inputs."""
        return sum(column.row_bytes for column in self.columns.values())

    def take(self, rows: Sequence[int]) -> Arrays:
        """These rows, as the model takes them."""
        return {name: column.take(rows) for name, column in self.columns.items()}

    def digests(self, rows: Sequence[int]) -> Iterator[bytes]:
        """What tells each of these rows from others: equal for equal shapes and values."""
        step = max(1, PIECE_BYTES // max(1, self.row_bytes))
        for start in range(0, len(rows), step):
            arrays = self.take(rows[start : start + step])
            for at in range(len(next(iter(arrays.values())))):
                digest = hashlib.blake2b(repr(self.signature).encode(), digest_size=16)
                for array in arrays.values():
                    digest.update(repr(array[at].tolist()).encode() if array.dtype == object else array[at].tobytes())
                yield digest.digest()


@dataclass(frozen=True, slots=True)
class Fitting:
    """What arrays are fitted to. `vocabulary`: input name → rows of the table its values pick from."""

    interface: Interface
    vocabulary: Mapping[str, int]
    batched: bool


def fitted(where: str, name: str, arrays: Mapping[str, Array], to: Fitting) -> Block:
    """Arrays of a file as a block, every value checked.

    Args:
        where: the file as the user named it, for sentences; `name`: short, for the record.
        arrays: by input name, all of them inputs of the model; of a batched model (rows, …), else (requests, *shape);
            an array that is one request, or whose axis of requests stands for a fixed first axis of 1, is taken too.
    Raises: BadSource saying which input, what was expected, what the file holds, what to do.
    """
    specs = [spec for spec in to.interface.inputs if spec.name in arrays]
    raw = {spec.name: _rows(where, spec, arrays[spec.name], to) for spec in specs}
    counts = {each: len(array) for each, array in raw.items()}
    first = specs[0].name
    for each, count in counts.items():
        if count != counts[first]:
            raise BadSource(
                f"{where}: input '{first}' has {counts[first]} rows and input '{each}' has {count}, expected as many",
                remedy="give the same rows for every input",
            )
    if not counts[first]:
        raise BadSource(f"{where}: holds no rows", remedy="give at least 2 rows of inputs")
    sizes: dict[str, int] = {}
    for spec in specs:
        _measure(where, spec, raw[spec.name].shape[0 if to.batched else 1 :], to, sizes)
    columns = {spec.name: _checked(where, spec, raw[spec.name], to) for spec in specs}
    return Block(name, counts[first], columns, sizes)


def _rows(where: str, spec: TensorSpec, array: Array, to: Fitting) -> Array:
    """The array with rows, or requests, as its first axis."""
    shape = spec.shape or ()
    wanted = ("rows", *shape[1:]) if to.batched else ("requests", *shape)
    fits = array.ndim == len(wanted) and _agree(array.shape[1:], wanted[1:])
    if fits:
        return array
    if not to.batched and array.ndim == len(shape):
        if _agree(array.shape, shape):
            return array[None]
        if shape[:1] == (1,) and _agree(array.shape[1:], shape[1:]):
            return array[:, None]
    shown = ", ".join(str(axis) for axis in wanted)
    raise BadSource(
        f"{where}: input '{spec.name}' has shape {list(array.shape)}, expected ({shown})",
        remedy=f"reshape it; its first axis counts {wanted[0]}",
    )


def _agree(sizes: Sequence[int], shape: Sequence[int | str]) -> bool:
    return len(sizes) == len(shape) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(shape, sizes, strict=True)
    )


def _measure(where: str, spec: TensorSpec, found: Sequence[int], to: Fitting, sizes: dict[str, int]) -> None:
    """Note the sizes of dynamic axes; refuse those that differ between inputs or are out of bounds."""
    for at, (axis, size) in enumerate(zip(spec.shape or (), found, strict=True)):
        if isinstance(axis, int) or (to.batched and at == 0 and axis == BATCH):
            continue
        what = f"{where}: axis {at} of input '{spec.name}' ('{axis}')"
        if sizes.setdefault(axis, size) != size:
            raise BadSource(
                f"{what} is {size}, and {sizes[axis]} in another input, expected one size",
                remedy="pad the inputs of a file to one length",
            )
        within = bounds(to.interface, axis)
        if size < within.low or (within.high is not None and size > within.high) or size % within.multiple:
            step = f" in steps of {within.multiple}" if within.multiple > 1 else ""
            most = "any size" if within.high is None else within.high
            raise BadSource(f"{what} is {size}, expected {within.low} to {most}{step}", remedy="cut or pad the inputs")


def _checked(where: str, spec: TensorSpec, raw: Array, to: Fitting) -> Column:
    vocabulary = to.vocabulary.get(spec.name) if takes_ids(spec) else None
    if raw.dtype.hasobject and spec.dtype != "string":
        raise BadSource(
            f"{where}: input '{spec.name}' is {spec.dtype}, the file holds {dtype_name(raw, spec.dtype)}",
            remedy="give numbers",
        )
    step = max(1, PIECE_BYTES // max(1, prod(raw.shape[1:]) * raw.dtype.itemsize))
    longest = 0
    for start in range(0, len(raw), step):
        piece = converted(where, spec, np.asarray(raw[start : start + step]), start, vocabulary)
        if spec.dtype == "string":
            longest = max(longest, *map(len, piece.reshape(-1).tolist()), 0)
        _forget(raw)
    return Column(where, spec, raw, vocabulary, longest)


def _forget(array: Array) -> None:
    """Let go of the pages of a mapped file that were read: they count as this process's memory, which is limited."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
