"""Whether the exported graph offers what its source does: names, order, dtypes, ranks, fixed axes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto

from tensorquay_convert.proof.graph import Graph, source_line
from tensorquay_convert.proof.verification import Culprit
from tensorquay_convert.tensors import Interface, TensorSpec


@dataclass(frozen=True, slots=True)
class FixedAxis:
    """An axis that the source calls dynamic and the graph's own declaration fixes."""

    axis: str
    tensor: str
    index: int
    size: int


@dataclass(frozen=True, slots=True)
class Contract:
    """What was found. `fixed`: of inputs, each is a problem too."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    fixed: tuple[FixedAxis, ...]
    culprit: Culprit | None


def check(graph: Graph, interface: Interface) -> Contract:
    """Compare the declarations of the graph with the interface."""
    problems: list[str] = []
    notes: list[str] = []
    fixed: list[FixedAxis] = []
    inputs = {value.name: value for value in graph.model.graph.input}
    outputs = {value.name: value for value in graph.model.graph.output}
    for what, specs, values in (("input", interface.inputs, inputs), ("output", interface.outputs, outputs)):
        for spec in specs:
            if spec.name not in values:
                if not spec.optional:
                    there = ", ".join(f"'{name}'" for name in values) or "none"
                    problems.append(f"the ONNX model has no {what} '{spec.name}'; it has {there}")
                continue
            wrong, axes = _declared(what, spec, values[spec.name])
            problems += wrong
            if what == "input":
                fixed += axes
            else:
                notes += [
                    f"the ONNX model declares axis {each.index} of output '{each.tensor}' as {each.size}, "
                    f"the source calls it '{each.axis}'"
                    for each in axes
                ]
    extra = [name for name in graph.inputs if name not in {spec.name for spec in interface.inputs}]
    problems += [f"the ONNX model needs an input '{name}' that the source does not have" for name in extra]
    culprit = None
    order = [spec.name for spec in interface.outputs]
    if sorted(order) == sorted(graph.outputs) and list(graph.outputs) != order:
        problems.append(f"the outputs come as {_list(graph.outputs)}, the source gives {_list(order)}")
        culprit = _misplaced(graph, order)
    elif unknown := [name for name in graph.outputs if name not in order]:
        notes.append(f"the ONNX model has outputs that the source does not: {_list(unknown)}")
    problems += [
        f"axis {each.index} of input '{each.tensor}' is frozen at {each.size} in the ONNX model, "
        f"the source takes any '{each.axis}'"
        for each in fixed
    ]
    if fixed and culprit is None:
        first = fixed[0]
        culprit = Culprit(
            node=f"input '{first.tensor}'",
            operator="graph input",
            output=first.tensor,
            max_absolute=float("nan"),
            sentence=f"the graph's input '{first.tensor}' itself declares axis {first.index} as {first.size}; "
            "no node is to blame",
        )
    return Contract(tuple(problems), tuple(notes), tuple(fixed), culprit)


def _declared(what: str, spec: TensorSpec, value: Any) -> tuple[list[str], list[FixedAxis]]:
    tensor = value.type.tensor_type
    dtype = TensorProto.DataType.Name(tensor.elem_type).lower()
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    problems: list[str] = []
    fixed: list[FixedAxis] = []
    if dtype not in {spec.dtype, "undefined"}:
        problems.append(f"{what} '{spec.name}' is {dtype} in the ONNX model, {spec.dtype} in the source")
    if spec.shape is None or not tensor.HasField("shape"):
        return problems, fixed
    if len(tensor.shape.dim) != len(spec.shape):
        problems.append(
            f"{what} '{spec.name}' has {len(tensor.shape.dim)} axes in the ONNX model, {len(spec.shape)} in the source"
        )
        return problems, fixed
    for index, (axis, declared) in enumerate(zip(spec.shape, tensor.shape.dim, strict=True)):
        if declared.WhichOneof("value") != "dim_value":
            continue
        if isinstance(axis, str):
            fixed.append(FixedAxis(axis, spec.name, index, int(declared.dim_value)))
        elif axis != declared.dim_value:
            problems.append(
                f"axis {index} of {what} '{spec.name}' is {declared.dim_value} in the ONNX model, {axis} in the source"
            )
    return problems, fixed


def _misplaced(graph: Graph, order: Sequence[str]) -> Culprit | None:
    first = next(name for name, wanted in zip(graph.outputs, order, strict=True) if name != wanted)
    node = graph.node_of(first)
    if node is None:
        return None
    return Culprit(
        node=node.name,
        operator=node.op_type,
        output=first,
        max_absolute=float("nan"),
        sentence=f"the graph's outputs are swapped: {node.op_type} node '{node.name}' makes '{first}', which comes "
        f"at the place of '{order[list(graph.outputs).index(first)]}'",
        source_line=source_line(node),
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
