"""Which sizes of dynamic axes are run together: few enough to finish, many enough that no axis can be frozen unseen.

Pure. An axis without an upper bound is run up to `UNBOUNDED`, because somebody has to end. The number of cases grows
with the number of axes, not with the product of their sizes: each axis is swept while the others keep a middle size,
and two cases have all axes at their lowest and highest. That is not every pair, but every size of every axis, and
axes that only work when they are equal come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorquay_convert.tensors import BATCH, AxisRange, Interface

BATCHES = (1, 2, 3, 7)
UNBOUNDED = 512
SMALL_BASES = (16, 32, 64, 8, 128, 224, 4, 2, 1)
"""Middle sizes that are tried, best first: large enough for a convolution, small enough to be fast."""
MAX_SWEPT_AXES = 8


@dataclass(frozen=True, slots=True)
class Sizes:
    """One case's sizes. `name` tells people what is special about it; `needed`: the verdict needs it."""

    name: str
    of: Mapping[str, int]
    needed: bool = True


def dynamic_axes(interface: Interface) -> tuple[str, ...]:
    """The names of the inputs' dynamic axes, the batch first, each once."""
    found = {axis: None for spec in interface.inputs if not spec.optional for axis in spec.dynamic}
    return tuple(sorted(found, key=lambda axis: axis != BATCH))


def elements(interface: Interface, sizes: Mapping[str, int]) -> int:
    """Input elements of a case."""
    total = 0
    for spec in interface.inputs:
        if not spec.optional:
            count = 1
            for axis in spec.shape or ():
                count *= sizes[axis] if isinstance(axis, str) else axis
            total += count
    return total


def bounds(interface: Interface, axis: str) -> AxisRange:
    """The range an axis is run in: as declared, with its bounds moved to multiples of `multiple`."""
    declared = interface.axes.get(axis, AxisRange())
    step = max(1, declared.multiple)
    low = max(step, -(-declared.low // step) * step)
    high = None if declared.high is None else max(low, declared.high // step * step)
    return AxisRange(low, high, step)


def fit(wanted: int, within: AxisRange) -> int:
    """The allowed size nearest below `wanted`, or the lowest one."""
    high = wanted if within.high is None else min(wanted, within.high)
    return max(within.low, high // within.multiple * within.multiple)


def bases(interface: Interface, batch: int = 2) -> tuple[Mapping[str, int], ...]:
    """Sets of middle sizes to begin with, in the order to try them: the source is asked which it runs."""
    axes = dynamic_axes(interface)
    found: list[Mapping[str, int]] = []
    for size in SMALL_BASES:
        each = {axis: fit(batch if axis == BATCH else size, bounds(interface, axis)) for axis in axes}
        if each not in found:
            found.append(each)
    return tuple(found)


def plan(interface: Interface, base: Mapping[str, int], *, max_batch: int, case_elements: int) -> tuple[Sizes, ...]:
    """All sizes to run, the base first, without two that are alike.

    Cases above `case_elements` are left out, except the two smallest batches: those a verdict cannot do without.
    Returns: at most 4 + 5 + 3 x `MAX_SWEPT_AXES`.
    """
    found: list[Sizes] = [Sizes("base", dict(base))]
    axes = dynamic_axes(interface)
    batches: list[int] = []
    if BATCH in axes:
        within = bounds(interface, BATCH)
        batches = sorted({fit(each, within) for each in (*BATCHES, max_batch) if each <= max(max_batch, 2)})
        found += [Sizes(f"batch {size}", {**base, BATCH: size}, size <= 3) for size in batches]
    others = [axis for axis in axes if axis != BATCH][:MAX_SWEPT_AXES]
    for axis in others:
        for where, size in zip(("lowest", "highest", "between"), steps(bounds(interface, axis)), strict=True):
            found.append(Sizes(f"{axis} {size} ({where})", {**base, axis: size}, where == "highest"))
    if others:
        edges = {axis: steps(bounds(interface, axis)) for axis in others}
        low, high = ({**base, **{axis: each[at] for axis, each in edges.items()}} for at in (0, 1))
        if batches:
            low, high = {**low, BATCH: batches[0]}, {**high, BATCH: batches[min(2, len(batches) - 1)]}
        found += [Sizes("all lowest", low, needed=False), Sizes("all highest", high, needed=False)]
    if len(others) > 1:
        # Axes of different sizes, so that two which the conversion mixed up do not pass for each other.
        apart = {axis: fit(size + 3 + 2 * at, bounds(interface, axis)) for at, (axis, size) in enumerate(
            (axis, base[axis]) for axis in others)}  # fmt: skip
        found.append(Sizes("all different", {**base, **apart}, needed=False))
    return _distinct(interface, found, batches, case_elements)


def steps(within: AxisRange) -> tuple[int, int, int]:
    """The lowest, the highest and a size in between that is a power of nothing."""
    low = within.low
    high = within.high if within.high is not None else fit(max(UNBOUNDED, low), within)
    high = max(low, min(high, max(low, fit(UNBOUNDED, within))))
    middle = fit(low + (high - low) * 3 // 7 | 1, AxisRange(low, high, within.multiple))
    if middle == low and low + within.multiple < high:
        middle += within.multiple
    return low, high, middle


def _distinct(
    interface: Interface, found: Sequence[Sizes], batches: Sequence[int], case_elements: int
) -> tuple[Sizes, ...]:
    kept: list[Sizes] = []
    for each in found:
        small = each.name == "base" or (BATCH in each.of and each.of[BATCH] in batches[:2])
        if any(dict(each.of) == dict(other.of) for other in kept):
            continue
        if elements(interface, each.of) <= case_elements or small:
            kept.append(each)
    return tuple(kept)
