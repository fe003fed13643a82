"""Give an exported graph the interface's names: of inputs, outputs and dynamic axes, none defined twice.

Exporters write names of their own, and take a wanted output name that an inner value already has: a file that
ONNX Runtime refuses ("Duplicate definition"). So graphs are exported under names nothing else has, and renamed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from tensorquay_convert.tensors import Interface, TensorSpec

UNWANTED = "tensorquay:unwanted:"
"""How the name of an output begins that is exported only because the exporter cannot leave it out."""

_SYMBOL = re.compile(r"[A-Za-z_]\w*")


def placeholder_names(interface: Interface) -> tuple[list[str], list[str]]:
    """Names to export inputs and outputs under: colons are in no Python name and no parameter's."""
    inputs = [f"tensorquay:in:{place}" for place in range(len(interface.inputs))]
    return inputs, [f"tensorquay:out:{place}" for place in range(len(interface.outputs))]


def finish(path: Path, interface: Interface) -> Mapping[str, str]:
    """Rename in the file what was exported under `placeholder_names`, and write the interface's shapes.

    Returns: the exporter's names of inner values that had to give way, by the names they have now.
    Raises: ValueError when the graph has not these inputs and outputs.
    """
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    inputs, outputs = placeholder_names(interface)
    kept = [each for each in graph.output if not each.name.startswith(UNWANTED)]
    _replace(graph.output, kept)
    got = [each.name for each in graph.input], [each.name for each in graph.output]
    if sorted(got[1]) != sorted(outputs) or not set(got[0]) <= set(inputs):
        raise ValueError(f"the exported graph has other inputs or outputs than the model: {got[0]}, {got[1]}")
    _restore_unused_inputs(graph, inputs, interface)
    wanted = dict(zip(inputs, interface.inputs, strict=True)) | dict(zip(outputs, interface.outputs, strict=True))
    given_way = _make_way(graph, {spec.name for spec in wanted.values()})
    axes = _axis_names(graph, wanted)
    _rename(graph, {old: spec.name for old, spec in wanted.items()})
    for each in [*graph.input, *graph.output]:
        spec = next(spec for spec in wanted.values() if spec.name == each.name)
        _set_shape(each, spec)
    for each in graph.value_info:
        for dim in each.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = _SYMBOL.sub(lambda found: axes.get(found[0], found[0]), dim.dim_param)
    _reorder(graph, interface)
    onnx.save(model, path)
    return given_way


def _restore_unused_inputs(graph: onnx.GraphProto, inputs: Sequence[str], interface: Interface) -> None:
    """Inputs that do not matter are dropped by the old exporter; whoever serves the model still sends them."""
    present = {each.name for each in graph.input}
    for name, spec in zip(inputs, interface.inputs, strict=True):
        if name not in present:
            kind = onnx.TensorProto.DataType.Value("FLOAT" if spec.dtype == "float32" else _onnx_name(spec.dtype))
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, list(spec.shape or ())))


def _onnx_name(dtype: str) -> str:
    return {"float64": "DOUBLE"}.get(dtype, dtype.upper())


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside its nodes (If, Loop, Scan)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.HasField("g") or attribute.graphs else []:
                yield from _graphs(inner)


def _make_way(graph: onnx.GraphProto, wanted: set[str]) -> dict[str, str]:
    """Rename inner values that have a wanted name."""
    defined = {
        name
        for each in _graphs(graph)
        for names in (
            (each.name for each in each.initializer),
            (output for node in each.node for output in node.output),
            (entry.name for entry in each.input),
        )
        for name in names
    }
    moved = {}
    for name in sorted(wanted & defined):
        free = f"{name}:inner"
        while free in defined:
            free += "_"
        moved[name] = free
    _rename(graph, moved)
    return {new: old for old, new in moved.items()}


def _rename(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    for each in _graphs(graph):
        for node in each.node:
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]
        for named in (*each.input, *each.output, *each.value_info, *each.initializer):
            named.name = new.get(named.name, named.name)
        for annotation in each.quantization_annotation:
            annotation.tensor_name = new.get(annotation.tensor_name, annotation.tensor_name)


def _axis_names(graph: onnx.GraphProto, wanted: Mapping[str, TensorSpec]) -> dict[str, str]:
    """The interface's axis names by the exporter's ("s77")."""
    names: dict[str, str] = {}
    for each in graph.input:
        for dim, axis in zip(each.type.tensor_type.shape.dim, wanted[each.name].shape or (), strict=False):
            if isinstance(axis, str) and _SYMBOL.fullmatch(dim.dim_param or ""):
                names[dim.dim_param] = axis
    return names


def _set_shape(value: onnx.ValueInfoProto, spec: TensorSpec) -> None:
    if spec.shape is None:
        return
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for axis in spec.shape:
        dim = shape.dim.add()
        if isinstance(axis, str):
            dim.dim_param = axis
        else:
            dim.dim_value = axis
    # An unknown rank and rank 0 look alike unless the field is there.
    value.type.tensor_type.shape.SetInParent()


def _reorder(graph: onnx.GraphProto, interface: Interface) -> None:
    for field, specs in ((graph.input, interface.inputs), (graph.output, interface.outputs)):
        by_name = {each.name: each for each in field}
        ordered = [by_name[spec.name] for spec in specs]
        _replace(field, ordered)


def _replace(field: Any, entries: Sequence[Any]) -> None:
    """Put these entries, which may be the field's own, in its place."""
    copies = [type(each).FromString(each.SerializeToString()) for each in entries]
    del field[:]
    field.extend(copies)
