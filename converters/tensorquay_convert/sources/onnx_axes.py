"""What only running a model tells about axes that its file leaves unnamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tensorquay_convert.tensors import Arrays, Axis, Interface, TensorSpec

Run = Callable[[Arrays], Arrays]
"""Runs the model: inputs by name to all outputs by name. Texts are `bytes` in arrays of object, bfloat16 is uint16."""


def tried(interface: Interface, run: Run) -> tuple[Interface, tuple[str, ...]]:
    """The interface with what only running the model tells about axes that the file leaves unnamed.

    `input_ids` and `attention_mask` look unrelated when their axes have no names: different sizes are tried first,
    then equal ones. An unnamed axis of an output is called like the input's axis whose size it always has.
    """
    notes: tuple[str, ...] = ()
    made = {
        axis: number
        for spec in interface.inputs
        for number, axis in enumerate(spec.shape or ())
        if isinstance(axis, str) and axis == f"{spec.name}_{number}"
    }
    if len(made) > 1 and _shapes(interface, run, 2) is None:
        groups: dict[int, list[str]] = {}
        for axis, number in made.items():
            groups.setdefault(number, []).append(axis)
        names = {axis: members[0] for members in groups.values() for axis in members}
        tied = replace(interface, inputs=tuple(renamed(spec, names) for spec in interface.inputs))
        if len(groups) < len(made) and _shapes(tied, run, 2) is not None:
            interface = tied
            told = "; ".join(", ".join(members) for members in groups.values() if len(members) > 1)
            notes = (f"axes that must have one size, as trying showed: {told}",)
    return _named_outputs(interface, run), notes


def _named_outputs(interface: Interface, run: Run) -> Interface:
    first, second = _shapes(interface, run, 2), _shapes(interface, run, 11)
    if first is None or second is None:
        return interface
    sizes = {axis: (_size(interface, axis, 2), _size(interface, axis, 11)) for axis in _axes(interface)}
    outputs = []
    for spec in interface.outputs:
        found = zip(first[spec.name], second[spec.name], strict=False)
        if spec.shape is None:
            shape: tuple[Axis, ...] = tuple(
                low if low == high else f"{spec.name}_{number}" for number, (low, high) in enumerate(found)
            )
            found = zip(first[spec.name], second[spec.name], strict=False)
        else:
            shape = spec.shape
        by_size = {pair: axis for axis, pair in sizes.items()}
        outputs.append(
            replace(
                spec,
                shape=tuple(
                    by_size.get(pair, axis) if axis == f"{spec.name}_{number}" else axis
                    for number, (axis, pair) in enumerate(zip(shape, found, strict=False))
                ),
            )
        )
    return replace(interface, outputs=tuple(outputs))


def _axes(interface: Interface) -> list[str]:
    """The inputs' dynamic axes, each once, in order."""
    return list(dict.fromkeys(axis for spec in interface.inputs for axis in spec.dynamic))


def _size(interface: Interface, axis: str, start: int) -> int:
    """A size for an axis that no other axis has."""
    return start + _axes(interface).index(axis)


def _shapes(interface: Interface, run: Run, start: int) -> Mapping[str, tuple[int, ...]] | None:
    """The outputs' shapes on zeros, every axis with a size of its own from `start` up; None when it does not run."""
    dtypes: Mapping[str, Any] = {"string": object, "bfloat16": np.uint16}
    inputs = {}
    for spec in interface.inputs:
        shape = [_size(interface, axis, start) if isinstance(axis, str) else axis for axis in spec.shape or ()]
        inputs[spec.name] = np.zeros(shape, dtypes.get(spec.dtype, spec.dtype))
        if spec.dtype == "string":
            inputs[spec.name].fill(b"")
    try:
        found = run(inputs)
    except Exception:  # noqa: BLE001 - the runtime's errors share no base, and each is the answer "no"
        return None
    return {name: value.shape for name, value in found.items()}


def renamed(spec: TensorSpec, names: Mapping[str, str]) -> TensorSpec:
    """`spec` with its dynamic axes called as `names` says."""
    if spec.shape is None:
        return spec
    return replace(spec, shape=tuple(names.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.shape))
