"""Whether axes that are called dynamic are dynamic: run, with right answers, at several sizes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from tensorquay_convert.proof.contract import FixedAxis
from tensorquay_convert.proof.sizes import bounds
from tensorquay_convert.proof.verification import AxisProof, Case
from tensorquay_convert.tensors import BATCH, Interface


def prove(interface: Interface, cases: Sequence[Case], fixed: Sequence[FixedAxis]) -> tuple[AxisProof, ...]:
    """One entry for each dynamic axis of the inputs.

    `sizes` are those at which every case was right; an axis is dynamic with two of them. It is frozen when there is
    one, and at other sizes the model does not run, gives another shape, or gives other values throughout. Other
    values alone say nothing about the batch, nor about an axis that is right at 1: many mistakes do not show there.
    """
    return tuple(_axis(interface, name, cases, fixed) for name in _names(interface))


def frozen_at(axis: AxisProof) -> int | None:
    """The only size at which the model is right; None when the axis is not frozen."""
    return axis.sizes[0] if not axis.dynamic and len(axis.sizes) == 1 else None


def _names(interface: Interface) -> tuple[str, ...]:
    return tuple({axis: None for spec in interface.inputs if not spec.optional for axis in spec.dynamic})


def _axis(interface: Interface, name: str, cases: Sequence[Case], fixed: Sequence[FixedAxis]) -> AxisProof:
    tensors = tuple(spec.name for spec in (*interface.inputs, *interface.outputs) if name in spec.dynamic)
    ran = [case for case in cases if name in case.sizes and not case.outside]
    failed = {case.sizes[name] for case in ran if not case.passed}
    right = tuple(sorted({case.sizes[name] for case in ran} - failed))
    wrong = tuple(sorted(failed - {case.sizes[name] for case in ran if case.passed}))
    misshapen = any(case.problem or any(isnan(each.max_absolute) for each in case.comparisons) for case in ran)
    refused = tuple(sorted({case.sizes[name] for case in cases if name in case.sizes and case.outside}))
    declared = [each for each in fixed if each.axis == name]
    if declared:
        first = declared[0]
        problem = f"axis '{name}' is frozen at {first.size}: input '{first.tensor}' is declared so"
        return AxisProof(name, tensors, right, dynamic=False, problem=problem)
    within = bounds(interface, name)
    if within.high == within.low:
        return AxisProof(name, tensors, right, dynamic=False)
    if len(right) == 1 and wrong and (misshapen or (right[0] > 1 and name != BATCH)):
        where = ", ".join(f"'{each}'" for each in tensors)
        listed = ", ".join(map(str, wrong))
        problem = (
            f"axis '{name}' of {where} is frozen at {right[0]}: the ONNX model is right there, and not at {listed}"
        )
        return AxisProof(name, tensors, right, dynamic=False, problem=problem)
    if len(right) == 1 and not failed:
        at = f", the source itself does not run at {', '.join(map(str, refused))}" if refused else ""
        problem = f"axis '{name}' is called dynamic and was only seen at {right[0]}{at}"
        return AxisProof(name, tensors, right, dynamic=False, problem=problem)
    return AxisProof(name, tensors, right, dynamic=len(right) > 1)
