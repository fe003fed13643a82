"""The first job of an optimisation: read and check the model and the data, and write the samples of all other jobs.

With the user's files (`--data`, `--labels`) every value is checked, and rows are divided as `data/split.py` says: a
seeded order, a third of the rows (at most 256) calibrates, the rest (at most 2,048 rows or 1 GiB) judges, equal rows
stay together and labels with their rows. Files whose rows have one shape are one group. Without files rows are drawn
by the seed, 128 to calibrate and 128 to judge with.

The same model, files and goals make the same folder, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tensorquay_convert.errors import BadSource, NotPublished, Unsupported
from tensorquay_convert.optimize.data import drawn, files, groups, points
from tensorquay_convert.optimize.data.blocks import Block, Fitting, fitted
from tensorquay_convert.optimize.data.labels import read_labels
from tensorquay_convert.optimize.goals import Goals
from tensorquay_convert.optimize.passes.api import Say
from tensorquay_convert.optimize.results import DataFacts, Point, Subject
from tensorquay_convert.optimize.samples import Index, Samples, write_index
from tensorquay_convert.optimize.subject import (
    MOST_ELEMENTS,
    TOO_LARGE,
    Opened,
    Stacking,
    describe,
    open_model,
    stacking,
)
from tensorquay_convert.proof.inputs import Drawn, draw
from tensorquay_convert.proof.runtime import Runtime, RuntimeFailed
from tensorquay_convert.proof.sizes import elements
from tensorquay_convert.tensors import BATCH, Array, Arrays, Interface, Meaning

NOT_JUDGED = "accuracy was not judged on real data: the samples are drawn; give your own with --data"
MOST_FILES = 10_000
_TIMED_ROWS = 8
"""Rows that are drawn for sizes that are only timed; timings repeat them."""


@dataclass(frozen=True, slots=True)
class _Material:
    """What will be written. `asked`: numbers of groups at sizes that the user named."""

    groups: tuple[groups.Gathered, ...]
    labels: Array | None
    notes: tuple[str, ...]
    asked: frozenset[int] = frozenset()


def prepare(
    model: Path, name: str, data: Sequence[str], labels: str, goals: Goals, folder: Path, say: Say
) -> tuple[Subject, DataFacts]:
    """Read the model and the data, and write the samples into `folder`, which exists and is empty.

    Args:
        data: files as the user named them. labels: a file, or empty.
    Raises: BadSource and Unsupported as `subject.open_model` and the modules in `data/` do, Unsupported when the model
        runs at no point, NotPublished when the samples cannot be written.
    """
    if labels and not data:
        raise BadSource("--labels is given and --data is not", remedy="give the rows that the labels are of")
    if len(data) > MOST_FILES:
        raise BadSource(f"{len(data)} files of data are given, expected at most {MOST_FILES}", remedy="give an npz")
    say("reading the model")
    opened = open_model(model)
    say("reading the data" if data else "looking for inputs that the model takes")
    budget = files.Budget()
    read = [files.read(each, opened.interface, budget) for each in data]
    stacked = stacking(opened, _hints(opened, read, goals), _witness(opened, read))
    to = Fitting(opened.interface, opened.vocabulary, stacked.batched)
    drawn.refuse_sizes(to, goals.sizes)
    say("checking the data" if data else "drawing samples")
    material = _real(opened, to, read, labels, goals) if read else _drawn(opened, to, stacked, goals)
    say("writing the samples")
    try:
        index = _write(folder, material, to, real=bool(read), seed=goals.seed)
        say("trying the model at every point")
        chosen, notes = _points(opened.runtime, Samples(folder), material, goals)
        padded = padded_outputs(opened.interface) if index.batched else {}
        write_index(folder, replace(index, points=chosen, padded=padded))
    except OSError as exc:
        raise NotPublished(
            f"the samples cannot be written to '{folder}': {exc.strerror or exc}", remedy="free some space there"
        ) from exc
    facts = DataFacts(
        real=bool(read),
        calibration=sum(len(each.calibration) for each in index.groups),
        judging=sum(len(each.judging) for each in index.groups),
        labels=material.labels is not None,
        points=chosen,
        notes=(*material.notes, *notes, *_said(padded)),
    )
    return describe(opened, name, stacked), facts


def padded_outputs(interface: Interface) -> dict[str, str]:
    """Outputs with an entry for each position of a sequence, to the mask that tells content from padding.

    Its first two axes are the mask's, by name; with more than one mask (an encoder's and a decoder's) the axes tell
    which, and where they do not, none is taken.
    """
    masks = [spec for spec in interface.inputs if spec.values.meaning is Meaning.MASK and len(spec.shape or ()) == 2]
    found = {}
    for output in interface.outputs:
        fitting = [mask.name for mask in masks if mask.shape == (output.shape or ())[:2] and mask.dynamic[1:]]
        if len(fitting) == 1:
            found[output.name] = fitting[0]
    return found


def _said(padded: Mapping[str, str]) -> Iterator[str]:
    for output, mask in padded.items():
        yield f"output '{output}': positions that '{mask}' marks as padding are not compared"


def _hints(opened: Opened, read: Sequence[files.Read], goals: Goals) -> Iterator[Mapping[str, int]]:
    """Sizes at which the model is likely to run: the user's, then those of the first file."""
    asked = {axis: wanted[0] for axis, wanted in goals.sizes.items() if wanted}
    if asked:
        yield asked
    for each in read[:1]:
        sizes: dict[str, int] = {}
        for spec in opened.interface.inputs:
            shape, array = spec.shape or (), each.arrays.get(spec.name)
            if array is not None and len(shape) > 1 and array.ndim >= len(shape):
                found = array.shape[1 - len(shape) :]
                sizes |= {axis: size for axis, size in zip(shape[1:], found, strict=True) if isinstance(axis, str)}
        if all(size > 0 for size in sizes.values()):
            yield sizes


def _witness(opened: Opened, read: Sequence[files.Read]) -> Arrays | None:
    """Three rows of the user's, when they fit a model whose requests are stacked."""
    if not read:
        return None
    arrays = {name: array[:3] for name, array in read[0].arrays.items() if array.ndim}
    try:
        block = fitted(read[0].where, read[0].name, arrays, Fitting(opened.interface, {}, batched=True))
        return block.take([row % block.rows for row in range(3)])
    except BadSource:
        # What is wrong with them is said once it is known whether requests are stacked.
        return None


def _real(opened: Opened, to: Fitting, read: Sequence[files.Read], labels: str, goals: Goals) -> _Material:
    blocks = [fitted(each.where, each.name, each.arrays, to) for each in read]
    total = sum(block.rows for block in blocks)
    given = read_labels(labels, total, goals.gate, opened.interface) if labels else None
    found, notes = groups.divided(blocks, goals.seed)
    there = [part.block.sizes for group in found for part in group.parts[:1]]
    extra, asked = _timed_only(to, there, goals)
    if extra:
        listed = "; ".join(each.parts[0].block.name for each in extra)
        notes.append(f"sizes that the data do not have are timed with drawn rows, and not judged: {listed}")
    numbers = {number for number, sizes in enumerate(there) if sizes in asked}
    numbers |= set(range(len(found), len(found) + len(extra)))
    return _Material((*found, *extra), given, tuple(notes), frozenset(numbers))


def _timed_only(
    to: Fitting, there: Sequence[Mapping[str, int]], goals: Goals
) -> tuple[list[groups.Gathered], list[Mapping[str, int]]]:
    """Drawn groups at the asked sizes that the data do not have, and all the asked sizes."""
    if not goals.sizes:
        return [], []
    plan = drawn.sizes_to_draw(to, goals.sizes, there[0])
    absent = [sizes for sizes in plan.sizes if sizes not in there]
    return [groups.timed(each) for each in drawn.blocks(to, absent, _TIMED_ROWS, goals.seed)], list(plan.sizes)


def _drawn(opened: Opened, to: Fitting, stacked: Stacking, goals: Goals) -> _Material:
    guess = _running(opened, drawn.guesses(to, goals.sizes, stacked.batch))
    plan = drawn.sizes_to_draw(to, goals.sizes, guess)
    found = [groups.halved(block, goals.seed) for block in drawn.blocks(to, plan.sizes, drawn.ROWS, goals.seed)]
    asked = frozenset(range(len(found))) if goals.sizes else frozenset()
    return _Material(tuple(found), None, (NOT_JUDGED, *plan.notes), asked)


def _running(opened: Opened, guesses: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """The first sizes at which the model runs one request. Raises: Unsupported when there are none."""
    failed = TOO_LARGE
    for sizes in guesses:
        whole = {BATCH: 1, **sizes}
        if elements(opened.interface, whole) > MOST_ELEMENTS:
            continue
        try:
            opened.runtime.run(draw(opened.interface, Drawn("one", whole), seed=0))
        except RuntimeFailed as exc:
            failed = exc.sentence
        else:
            return sizes
    raise Unsupported(
        f"the model runs with no drawn inputs at any size that was tried; at last: {failed}",
        remedy="give inputs that it takes with --data",
    )


def _write(folder: Path, material: _Material, to: Fitting, *, real: bool, seed: int) -> Index:
    """All arrays, and an index that has no points yet."""
    written = tuple(
        groups.write(folder, number, group, material.labels) for number, group in enumerate(material.groups)
    )
    index = Index(groups=written, points=(), batched=to.batched, real=real, seed=seed)
    write_index(folder, index)
    return index


def _points(
    runtime: Runtime, samples: Samples, material: _Material, goals: Goals
) -> tuple[tuple[Point, ...], list[str]]:
    """The points at which the model runs. Raises: Unsupported when there are none."""
    shapes = []
    for number, group in enumerate(material.groups):
        block: Block = group.parts[0].block
        shapes.append(points.Shape(number, group.rows, block.row_bytes, block.sizes, number in material.asked))
    wanted, notes = points.choose(shapes, goals.batches, batched=samples.index.batched)
    kept = []
    for point in wanted:
        try:
            runtime.run(samples.timing(point))
        except RuntimeFailed as exc:
            notes.append(f"{point.name} is left out: {exc.sentence}")
        else:
            kept.append(point)
    if not kept:
        raise Unsupported(
            f"there is nothing to time the model at: {notes[-1]}",
            remedy="give other batch sizes with --batch, or inputs that it takes with --data",
        )
    return tuple(kept), notes
