"""Decide which axes of a module's inputs are dynamic, what they are called, and how far they may go.

The user's word counts first (`--input`, `--dynamic`, `--static`), then examples of two sizes, then one rule: axis 0
that all inputs share is the batch. How far an axis goes, and what it does to the outputs, is found by running.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob
from tensorquay_convert.sources.torch_failures import own_words
from tensorquay_convert.sources.torch_tensors import resized
from tensorquay_convert.tensors import BATCH, Array, Arrays, Axis, AxisRange, Interface, TensorSpec

Run = Callable[[Arrays], Mapping[str, Array]]
Shape = tuple[Axis, ...]

LONGEST = 256
"""How far an axis without known bounds is tried; what still runs there counts as unbounded."""
_STEPS = (1, 2, 3, 4, 8, 16, 32)
_FREE_BATCH = 2


@dataclass(frozen=True, slots=True)
class Probed:
    """What was found: the interface, and inputs at sizes that are at least 2 and, where that runs, all different."""

    interface: Interface
    inputs: Arrays
    sizes: Mapping[str, int]


def name_axes(examples: Sequence[Arrays], declared: Mapping[str, Shape], job: ImportJob) -> dict[str, Shape]:
    """The shape of every input, dynamic axes by name.

    Args: examples: one or two sets of inputs, same names and ranks. declared: shapes that are known already.
    Raises: BadSource for `--dynamic` that fits no input, and for examples of different ranks.
    """
    first = examples[0]
    shapes: dict[str, list[Axis]] = {name: list(declared.get(name, array.shape)) for name, array in first.items()}
    if job.static:
        return {name: tuple(array.shape) for name, array in first.items()}
    _from_two_sizes(shapes, examples, declared)
    for each in job.dynamic:
        shape = shapes.get(each.tensor)
        if shape is None:
            raise BadSource(
                f"--dynamic names the input '{each.tensor}', the model has {', '.join(shapes)}",
                remedy="use one of these names",
            )
        if not -len(shape) <= each.axis < len(shape):
            raise BadSource(
                f"--dynamic names axis {each.axis} of '{each.tensor}', which has {len(shape)} axes",
                remedy="axes count from 0",
            )
        shape[each.axis] = each.name
    _name_batch(shapes, first, declared)
    return {name: tuple(shape) for name, shape in shapes.items()}


def _from_two_sizes(shapes: dict[str, list[Axis]], examples: Sequence[Arrays], declared: Mapping[str, Shape]) -> None:
    """Axes that differ between the examples are dynamic; equal pairs of sizes are one axis."""
    named: dict[tuple[int, int], str] = {}
    for other in examples[1:]:
        for name, array in examples[0].items():
            if len(other[name].shape) != array.ndim:
                raise BadSource(
                    f"the examples have input '{name}' with {array.ndim} and with {other[name].ndim} axes",
                    remedy="give examples of one rank",
                )
            for place, pair in enumerate(zip(array.shape, other[name].shape, strict=True)):
                if pair[0] != pair[1] and name not in declared:
                    free = BATCH if place == 0 else f"{name}_{place}"
                    shapes[name][place] = named.setdefault(pair, free)


def _name_batch(shapes: dict[str, list[Axis]], first: Arrays, declared: Mapping[str, Shape]) -> None:
    """Axis 0 is the batch where every undeclared input that has one shares its size."""
    if any(BATCH in shape for shape in shapes.values()):
        size = next(first[name].shape[shape.index(BATCH)] for name, shape in shapes.items() if BATCH in shape)
    else:
        sizes = {first[name].shape[0] for name, shape in shapes.items() if shape and name not in declared}
        if len(sizes) != 1:
            return
        size = sizes.pop()
    for name, shape in shapes.items():
        if shape and name not in declared and isinstance(shape[0], int) and first[name].shape[0] == size:
            shape[0] = BATCH


def probe(
    run: Run, dtypes: Mapping[str, str], inputs: Sequence[TensorSpec], example: Arrays, known: Mapping[str, AxisRange]
) -> Probed:
    """Run the model at several sizes to learn its outputs' shapes and its axes' bounds.

    Args:
        run: the model. Once it ran, `dtypes` has its outputs' types.
        inputs: specs with shapes.
        known: bounds that need no search.
    Raises: BadSource with the model's own words when it does not run on the example, or at no other size.
    """
    prober = _Prober(run, inputs, example)
    sizes = prober.start()
    base = prober.at(sizes)
    changed: dict[str, tuple[int, Mapping[str, Array]]] = {}
    axes: dict[str, AxisRange] = {}
    for axis in sizes:
        if axis in known:
            bounds = known[axis]
            changed[axis] = prober.within(sizes, axis, bounds)
        else:
            bounds, changed[axis] = prober.bounds(sizes, axis)
        if bounds != AxisRange():
            axes[axis] = bounds
    outputs = tuple(
        TensorSpec(
            name, dtypes[name], _output_shape(name, array, sizes, {k: (n, o[name]) for k, (n, o) in changed.items()})
        )
        for name, array in base.items()
    )
    return Probed(Interface(tuple(inputs), outputs, axes), prober.inputs(sizes), sizes)


def _output_shape(
    name: str, base: Array, sizes: Mapping[str, int], changed: Mapping[str, tuple[int, Array]]
) -> tuple[Axis, ...]:
    """Each axis by what moves it: nothing, exactly one input axis one to one, or something else."""
    shape: list[Axis] = []
    for place, size in enumerate(base.shape):
        movers = [axis for axis, (_, other) in changed.items() if other.shape[place] != size]
        if not movers:
            shape.append(size)
        elif len(movers) == 1 and (size, changed[movers[0]][1].shape[place]) == (
            sizes[movers[0]],
            changed[movers[0]][0],
        ):
            shape.append(movers[0])
        else:
            shape.append(f"{name}_{place}")
    return tuple(shape)


def _moved(changed: tuple[int, Array], place: int) -> bool:
    """Whether the output's axis has the input axis' other size."""
    return bool(changed[1].shape[place] == changed[0])


class _Prober:
    """Runs a model at chosen sizes."""

    def __init__(self, run: Run, specs: Sequence[TensorSpec], example: Arrays) -> None:
        self._run = run
        self._specs = specs
        self._example = example
        self._ranks: dict[str, int] = {}

    def inputs(self, sizes: Mapping[str, int]) -> Arrays:
        """The example at these sizes."""
        return {each.name: resized(self._example[each.name], each.shape or (), sizes) for each in self._specs}

    def at(self, sizes: Mapping[str, int]) -> Mapping[str, Array]:
        """The model's answer. Raises: BadSource in the model's own words, and when a rank depends on a size."""
        try:
            outputs = self._run(self.inputs(sizes))
        except BadSource:
            raise
        except Exception as exc:
            raise BadSource(
                f"the model raises{_shown(sizes)}: {own_words(exc)}",
                remedy="check the inputs' names, shapes and dtypes; --static keeps every size as it is",
            ) from exc
        for name, array in outputs.items():
            rank = self._ranks.setdefault(name, array.ndim)
            if rank != array.ndim:
                raise BadSource(
                    f"the model's output '{name}' has {array.ndim} axes{_shown(sizes)} and {rank} at another size",
                    remedy="name the axis where the model squeezes, or keep the sizes with --static",
                )
        return outputs

    def start(self) -> dict[str, int]:
        """Sizes to compare with: those of the example, from 2 up, and each another one where the model runs so."""
        own = {
            axis: self._example[spec.name].shape[place]
            for spec in self._specs
            for place, axis in enumerate(spec.shape or ())
            if isinstance(axis, str)
        }
        wanted: dict[str, int] = {}
        for axis, size in own.items():
            free = max(size, _FREE_BATCH) if axis != BATCH else _FREE_BATCH
            while free in wanted.values():
                free += 1
            wanted[axis] = free
        if wanted != own:
            if self._runs(wanted):
                return wanted
            self.at(own)
            if self._runs(own | {BATCH: _FREE_BATCH} if BATCH in own else own):
                return own | ({BATCH: _FREE_BATCH} if BATCH in own else {})
            self.at(wanted)
        return own

    def _runs(self, sizes: Mapping[str, int]) -> bool:
        try:
            self.at(sizes)
        except BadSource:
            return False
        return True

    def within(self, sizes: Mapping[str, int], axis: str, bounds: AxisRange) -> tuple[int, Mapping[str, Array]]:
        """The model's answer at another size that the bounds allow."""
        other = sizes[axis] + bounds.multiple
        if bounds.high is not None and other > bounds.high:
            other = sizes[axis] - bounds.multiple
        return other, self.at({**sizes, axis: other})

    def bounds(self, sizes: Mapping[str, int], axis: str) -> tuple[AxisRange, tuple[int, Mapping[str, Array]]]:
        """How far the axis goes, by trying; and the answer at the nearest other size.

        Raises: BadSource when no other size runs.
        """
        size = sizes[axis]
        step = next((each for each in _STEPS if self._runs({**sizes, axis: size + each})), 0)
        if not step:
            answer = self.at({**sizes, axis: size + 1})
            return AxisRange(size, size), (size, answer)
        changed = size + step, self.at({**sizes, axis: size + step})
        multiple = step if size % step == 0 else 1
        if axis == BATCH:
            # A request is often one row: a model that needs more is not served by the batch.
            self.at({**sizes, axis: multiple})
            return AxisRange(low=multiple, multiple=multiple), changed
        low = self._edge(sizes, axis, good=size, bad=0, multiple=multiple)
        ceiling = max(LONGEST, size + step) // multiple * multiple
        if self._runs({**sizes, axis: ceiling}):
            return AxisRange(low, None, multiple), changed
        return AxisRange(
            low, self._edge(sizes, axis, good=size + step, bad=ceiling, multiple=multiple), multiple
        ), changed

    def _edge(self, sizes: Mapping[str, int], axis: str, *, good: int, bad: int, multiple: int) -> int:
        """The last size that runs on the way from `good` to `bad`, which does not."""
        low, high = good // multiple, bad // multiple
        if abs(high - low) > 1 and self._runs({**sizes, axis: (high + (1 if low > high else -1)) * multiple}):
            return (high + (1 if low > high else -1)) * multiple
        while abs(high - low) > 1:
            middle = (low + high) // 2
            if self._runs({**sizes, axis: middle * multiple}):
                low = middle
            else:
                high = middle
        return low * multiple


def _shown(sizes: Mapping[str, int]) -> str:
    return f" at {', '.join(f'{axis} {size}' for axis, size in sizes.items())}" if sizes else " on the example inputs"
