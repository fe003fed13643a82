"""Types and shapes inside a graph, as quantization and half precision need them: inferred afresh, and only where sure.

What a file says of its inner values may be stale, and quantizers refuse a graph whose words and facts differ. So all of
it is dropped; ONNX's own inference goes first, the runtime's symbolic one fills in its operators, and what neither
knows is taken from the file again. Nothing is said of weights: quantizers turn those around and compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
from onnx import shape_inference

from tensorquay_convert.optimize import files
from tensorquay_convert.optimize.passes import graphs
from tensorquay_convert.optimize.passes.api import Workbench
from tensorquay_convert.sources import onnx_graph

_SHAPE_BYTES = 1 << 10
"""Weights are read for inference up to this size: shapes are small, and inference copies the model."""
_WHOLE = frozenset({onnx.TensorProto.INT32, onnx.TensorProto.INT64})
"""Types of shapes and indices, of which larger tensors stay where they are in the file."""


def prepared(source: Path, target: Path, bench: Workbench) -> tuple[str, ...]:
    """Write `source` to `target` with the types and shapes of its inner values inferred afresh.

    The graph is the same: no node, name or weight changes. Shapes that cannot be told are left out.

    Returns: notes for the user, empty mostly.
    Raises: OSError; BadSource for weights that are missing.
    """
    bench.say("inferring shapes")
    found, notes = inferred(source)
    model = files.load(source)
    describe(model, found)
    files.save(model, target)
    return notes


def inferred(source: Path) -> tuple[list[Any], tuple[str, ...]]:
    """What is known of the inner values of the model's main graph (`value_info`), and notes.

    Works without the weights of models that keep them beside the file, so that size does not matter.
    Raises: OSError; BadSource for weights that are missing.
    """
    model = onnx.load(str(source), load_external_data=False)
    onnx_graph.external_files(model, source.parent)
    _only_shapes(model, source.parent)
    told = {value.name: value for value in model.graph.value_info}
    for graph in onnx_graph.graphs_in(model.graph):
        del graph.value_info[:]
    notes: list[str] = []
    found = _by_onnx(model, source.parent, notes)
    values = [name for node in model.graph.node for name in node.output if name]
    if any(name not in found for name in values) and _has_own_operators(model):
        found = _by_runtime(model, source.parent, notes) | found
    known = {**told, **{name: value for name, value in found.items() if value.type.WhichOneof("value")}}
    given = {value.name for value in model.graph.output}
    read = {name for node in model.graph.node for name in node.input} & set(values)
    unknown = read - set(known) - given
    if not unknown:
        notes = []
    inner = dict.fromkeys(name for name in values if name not in given)
    return [known[name] for name in inner if name in known], tuple(notes)


def describe(model: Any, values: Iterable[Any]) -> None:
    """Replace what `model` says of the inner values of its graphs by `values`, which are of its main graph."""
    for graph in onnx_graph.graphs_in(model.graph):
        del graph.value_info[:]
    model.graph.value_info.extend(values)


def _only_shapes(model: Any, folder: Path) -> None:
    """Read small weights, and forget the contents of large ones: for inference they count as kept elsewhere."""
    for tensor in onnx_graph.tensors_in(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            length = next((int(each.value) for each in tensor.external_data if each.key == "length"), _SHAPE_BYTES + 1)
            if length <= _SHAPE_BYTES:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
                tensor.data_location = onnx.TensorProto.DEFAULT
                del tensor.external_data[:]
        elif len(tensor.raw_data) > _SHAPE_BYTES and tensor.data_type not in _WHOLE:
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="elsewhere")


def _by_onnx(model: Any, folder: Path, notes: list[str]) -> dict[str, Any]:
    try:
        whole = shape_inference.infer_shapes(model, data_prop=True)
    except Exception as exc:  # noqa: BLE001 - native code; shapes are a help, and the note says what is missing
        notes.append(f"shapes could not be inferred by ONNX: {graphs.said(exc, folder)}")
        return {}
    return {value.name: value for value in whole.graph.value_info}


def _by_runtime(model: Any, folder: Path, notes: list[str]) -> dict[str, Any]:
    try:
        from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference  # noqa: PLC0415 - needs sympy

        with graphs.quiet():
            whole = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    except Exception as exc:  # noqa: BLE001 - it raises what it likes on graphs that it does not know
        notes.append(f"shapes behind the runtime's own operators could not be inferred: {graphs.said(exc, folder)}")
        return {}
    return {value.name: value for value in whole.graph.value_info}


def _has_own_operators(model: Any) -> bool:
    return any(node.domain not in {"", "ai.onnx", "ai.onnx.ml"} for node in onnx_graph.all_nodes(model))
