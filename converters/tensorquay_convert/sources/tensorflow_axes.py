"""Find out by running a model which of its axes are the same, which are fixed, and what sizes it takes.

A framework says "unknown" where ONNX and the server want a name, bounds, and whether two inputs grow together. The
model itself knows: it is run at a few sizes, all different, and its answers' shapes tell. Knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tensorquay_convert.tensors import (
    BATCH,
    Array,
    Arrays,
    Axis,
    AxisRange,
    Interface,
    Meaning,
    TensorSpec,
    Values,
)

Attempt = Callable[[Arrays], "Arrays | str"]
"""Runs the model; answers with its outputs, or with why it could not."""

_BATCHES = (2, 3)
_SCALES = (4, 1, 16, 32)
"""Sizes that are tried: multiples of these. Networks that halve images want multiples, short position tables do not."""
_FAR = 64
"""Scale at which an output's axis has to be what it was before it counts as fixed: strides hide small differences."""
_LOWEST_TRIED = 32
_HIGHEST_TRIED = 512


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output as the framework declares it. `shape` None: unknown rank; None inside: unknown size.

    `tensor` is what the framework calls it, where that is not `name`. `axes` holds names the user gave to axes.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None
    tensor: str = ""
    values: Values = field(default_factory=Values)


Named = Mapping[tuple[str, int], str]
"""Axis names that are decided already, by tensor and axis."""


def settle(
    inputs: Sequence[Port], outputs: Sequence[Port], named: Named, attempt: Attempt
) -> tuple[Interface, tuple[str, ...]]:
    """The interface of a model whose input ranks are known, and what to tell the user about it.

    Names: the batch axis is `BATCH` on every input that has an unknown axis 0; other unknown axes get `named`'s name,
    else one of their own per tensor, else (when the model only runs with equal sizes) one per axis number.
    """
    why = ""
    for share in (_own_name, _shared_name, _only_name):
        specs = tuple(_spec(port, named, share) for port in inputs)
        names = _axis_names(specs)
        for scale in _SCALES:
            first, second = _sizes(names, scale, 0), _sizes(names, scale, 1)
            small, large = _run(specs, first, attempt), _run(specs, second, attempt)
            if not isinstance(small, str) and not isinstance(large, str):
                far = _run(specs, _sizes(names, _FAR, 1), attempt)
                found = tuple(
                    _output(
                        port,
                        (first, small[port.name]),
                        (second, large[port.name]),
                        named,
                        None if isinstance(far, str) else far[port.name].shape,
                    )
                    for port in outputs
                )
                # The larger of two sizes that work leaves room to look downwards.
                return Interface(specs, found, _ranges(specs, second, attempt)), ()
            why = why or (small if isinstance(small, str) else str(large))
            if names.keys() <= {BATCH}:
                break
    specs = tuple(_spec(port, named, _own_name) for port in inputs)
    undecided = tuple(_spec(port, named, _own_name) for port in outputs)
    return Interface(specs, undecided), (f"the model did not run on seeded inputs, so its axes are guessed: {why}",)


def sample(spec: TensorSpec, sizes: Mapping[str, int], generator: np.random.Generator) -> Array:
    """Valid values for `spec` with every dynamic axis at the size `sizes` names."""
    shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape or ())
    values = spec.values
    if spec.dtype == "bool":
        return np.ones(shape, bool) if values.meaning is Meaning.MASK else generator.random(shape) < 0.5
    dtype = np.dtype("uint16" if spec.dtype == "bfloat16" else spec.dtype)
    if values.meaning is Meaning.MASK:
        return np.ones(shape, dtype)
    if dtype.kind in "iu":
        low = int(values.low or 0)
        high = int(values.high) if values.high is not None else low + 1
        return generator.integers(low, max(low, min(high, low + 255)) + 1, shape).astype(dtype)
    if values.high is not None:
        low, high = int(values.low or 0), int(values.high)
        return generator.integers(low, high + 1, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _own_name(port: Port, axis: int) -> str:
    return f"{port.name}_{axis}"


def _shared_name(port: Port, axis: int) -> str:  # noqa: ARG001  the three ways are called alike
    return f"axis{axis}"


def _only_name(port: Port, axis: int) -> str:  # noqa: ARG001
    return "size"


def _spec(port: Port, named: Named, share: Callable[[Port, int], str]) -> TensorSpec:
    shape: list[Axis] = []
    for axis, size in enumerate(port.shape or ()):
        if size is not None:
            shape.append(size)
        else:
            shape.append(named.get((port.name, axis)) or (BATCH if axis == 0 else share(port, axis)))
    return TensorSpec(port.name, port.dtype, tuple(shape) if port.shape is not None else None, port.values)


def _axis_names(specs: Sequence[TensorSpec]) -> dict[str, None]:
    """Every dynamic axis of `specs` once, in order."""
    return {axis: None for spec in specs for axis in spec.dynamic}


def _sizes(names: Mapping[str, None], scale: int, which: int) -> dict[str, int]:
    """A size for every name; no two names have the same pair of sizes over `which` 0 and 1."""
    others = [name for name in names if name != BATCH]
    sizes = {name: scale * (1 + index + which * (1 + len(others))) for index, name in enumerate(others)}
    if BATCH in names:
        sizes[BATCH] = _BATCHES[which]
    return sizes


def _run(specs: Sequence[TensorSpec], sizes: Mapping[str, int], attempt: Attempt) -> Arrays | str:
    generator = np.random.default_rng(0)
    answer = attempt({spec.name: sample(spec, sizes, generator) for spec in specs})
    if not isinstance(answer, str) and any(array.size == 0 for array in answer.values()):
        return f"an output is empty at {dict(sizes)}"
    return answer


def _output(
    port: Port,
    first: tuple[Mapping[str, int], Array],
    second: tuple[Mapping[str, int], Array],
    named: Named,
    far: tuple[int, ...] | None,
) -> TensorSpec:
    """What an output's axes are called, from its shapes at two sets of sizes, and `far` away where it ran there."""
    (sizes, small), (others, large) = first, second
    if small.ndim != large.ndim:
        return TensorSpec(port.name, port.dtype, None, port.values)
    shape: list[Axis] = []
    for axis, (here, there) in enumerate(zip(small.shape, large.shape, strict=True)):
        fitting = [name for name in sizes if (sizes[name], others[name]) == (here, there)]
        if here == there and (far is None or far[axis] == here):
            shape.append(here)
        elif (port.name, axis) in named:
            shape.append(named[port.name, axis])
        else:
            shape.append(fitting[0] if fitting else _own_name(port, axis))
    return TensorSpec(port.name, port.dtype, tuple(shape), port.values)


def _ranges(specs: Sequence[TensorSpec], working: Mapping[str, int], attempt: Attempt) -> dict[str, AxisRange]:
    """Bounds of the axes other than the batch that the model's own refusals show; others are left out."""
    found: dict[str, AxisRange] = {}
    for name in _axis_names(specs):
        if name == BATCH:
            continue

        def works(size: int, name: str = name) -> bool:
            return not isinstance(_run(specs, {**working, name: size}, attempt), str)

        start = working[name]
        low = next((size for size in range(1, min(start, _LOWEST_TRIED)) if works(size)), start)
        multiple = low if low > 1 and not works(low + 1) and works(2 * low) else 1
        high = None
        if all(len(spec.shape or ()) <= 3 for spec in specs if name in spec.dynamic):
            high = _highest(works, start, multiple)
        if low > 1 or high is not None:
            found[name] = AxisRange(low, high, multiple)
    return found


def _highest(works: Callable[[int], bool], start: int, multiple: int) -> int | None:
    """The largest size that works, if that is below `_HIGHEST_TRIED`; sizes are `multiple`s."""
    good = start
    while good < _HIGHEST_TRIED:
        if not works(2 * good):
            break
        good *= 2
    else:
        return None
    bad = 2 * good
    while bad - good > multiple:
        middle = (good + bad) // 2 // multiple * multiple
        if middle == good:
            break
        good, bad = (middle, bad) if works(middle) else (good, middle)
    return good


def with_values(ports: Sequence[Port], values: Mapping[str, Values]) -> tuple[Port, ...]:
    """The same ports with what is known about their values, by name."""
    return tuple(replace(port, values=values.get(port.name, port.values)) for port in ports)
