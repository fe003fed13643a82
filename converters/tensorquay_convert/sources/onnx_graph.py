"""Questions about an ONNX graph: its nodes with those inside others, its interface, what feeds what, foreign parts.

Pure functions over `onnx.ModelProto`; what changes a graph is in `onnx_rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from onnx import TensorProto

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.tensors import BATCH, Axis, AxisRange, Interface, Meaning, TensorSpec, Values

KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets that ONNX Runtime brings itself; any other needs a library of its own, which a server does not load."""

_DTYPES: Mapping[int, str] = {
    TensorProto.BOOL: "bool",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.FLOAT16: "float16",
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.STRING: "string",
}
_EXTERNAL = TensorProto.EXTERNAL
_SAME_VALUES = {"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten"}
"""Operators whose output has the values of their first input: an index stays one through them."""


def graphs_in(graph: Any) -> Iterator[Any]:
    """`graph` and every graph inside its nodes' attributes. Depth is bounded: protobuf refuses more than 100 levels."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_in(attribute.g)
            for inner in attribute.graphs:
                yield from graphs_in(inner)


def all_nodes(model: Any) -> Iterator[Any]:
    """Every node: of the graph, of graphs inside it, of the model's functions."""
    for graph in graphs_in(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield node
            for attribute in node.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    for graph in graphs_in(inner):
                        yield from graph.node


def tensors_in(model: Any) -> Iterator[Any]:
    """Every stored tensor: initialisers and attributes, also of functions, and the parts of sparse ones."""
    for graph in graphs_in(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for node in all_nodes(model):
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield sparse.values
                yield sparse.indices


def refuse_custom_operators(model: Any) -> None:
    """Raises: Unsupported naming every operator that ONNX Runtime does not know by itself, and a node of it."""
    own = {(function.domain, function.name) for function in model.functions}
    foreign: dict[str, str] = {}
    for node in all_nodes(model):
        if node.domain not in KNOWN_DOMAINS and (node.domain, node.op_type) not in own:
            foreign.setdefault(f"{node.domain}::{node.op_type}", node.name or (node.output[0] if node.output else "?"))
    if foreign:
        listed = ", ".join(f"{operator} (node '{node}')" for operator, node in list(foreign.items())[:5])
        raise Unsupported(
            f"the model uses operators that ONNX Runtime has no code for: {listed}",
            remedy="export the model without custom operators; this server loads no operator libraries",
            facts={"operators": ", ".join(foreign)},
        )


def external_files(model: Any, folder: Path) -> tuple[Path, ...]:
    """The files beside the model that hold its weights, each once, resolved.

    Raises: BadSource for a reference that leaves `folder`, does not exist, or ends beyond its file.
    """
    base = folder.resolve()
    found: dict[Path, None] = {}
    for tensor in tensors_in(model):
        if tensor.data_location == _EXTERNAL:
            found.setdefault(_external_file(tensor, base))
    return tuple(found)


def _external_file(tensor: Any, base: Path) -> Path:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name, location = short(tensor.name or "an unnamed tensor"), entries.get("location", "")
    pure = PurePosixPath(location)
    outside = pure.is_absolute() or ".." in pure.parts or PureWindowsPath(location).drive or "\\" in location
    if not location or "\0" in location or outside:
        raise BadSource(
            f"the weights of {name} are kept at {short(location)}, expected a file inside the model's folder",
            remedy="keep a model's weights beside it, and save it again with a relative location",
        )
    path: Path = (base / location).resolve()
    if not path.is_relative_to(base):
        raise BadSource(f"the weights of {name}: {short(location)} is a link that leads out of the model's folder")
    if not path.is_file():
        raise BadSource(
            f"the weights of {name} are missing: there is no file {short(location)} beside the model",
            remedy="copy the model with all files that belong to it",
        )
    numbers = [entries.get("offset", "0"), entries.get("length", "0")]
    if not all(number.isascii() and number.isdigit() and len(number) < 19 for number in numbers):
        raise BadSource(f"the weights of {name}: offset and length are no numbers")
    end, size = sum(map(int, numbers)), path.stat().st_size
    if end > size:
        raise BadSource(
            f"the weights of {name} end at byte {end} of {short(location)}, which has {size} bytes: is it cut short?"
        )
    return path


def short(name: str) -> str:
    """A quoted name from a model, fit for one line."""
    shown = "".join(char if char.isprintable() else "?" for char in name[:80])
    return f"'{shown}{'…' if len(name) > 80 else ''}'"


def dtype_of(value: Any, what: str) -> str:
    """The element type of an input or output by our name. Raises: Unsupported for what is no plain tensor."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        is_zipmap = kind == "sequence_type" and "output" in what
        raise Unsupported(
            f"{what} '{value.name}' is a {(kind or 'value of no type').removesuffix('_type')}, expected a tensor",
            remedy="export the classifier with zipmap=False" if is_zipmap else "keep other outputs with --output-name",
        )
    found = _DTYPES.get(value.type.tensor_type.elem_type)
    if found is None:
        name = TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise Unsupported(f"{what} '{value.name}' has elements of type {name.lower()}, which cannot be served")
    return found


def shape_of(value: Any) -> tuple[Axis | None, ...] | None:
    """Sizes and names of axes; None for an axis of unknown size and no name; None for an unknown rank."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        axis.dim_param or None if axis.WhichOneof("value") != "dim_value" or axis.dim_value < 0 else int(axis.dim_value)
        for axis in tensor.shape.dim
    )


def graph_inputs(model: Any) -> list[Any]:
    """The inputs a caller gives; before IR 4 every initialiser was listed among them."""
    if model.ir_version >= 4:
        return list(model.graph.input)
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def interface_of(model: Any) -> Interface:
    """What the model takes and gives, with every dynamic axis named.

    The first axis of all inputs is called "batch" when it is dynamic in all of them and nothing says that they
    differ (`batch_axes`); an unnamed axis gets the name `<tensor>_<axis>`.
    Raises: Unsupported for inputs or outputs that are no tensors.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    batch = batch_axes(model)
    bounds = index_bounds(model)
    inputs = tuple(
        TensorSpec(
            value.name,
            dtype_of(value, "input"),
            named_shape(value, batch),
            _values(value, bounds),
            optional=value.name in stored,
        )
        for value in graph_inputs(model)
    )
    outputs = tuple(
        TensorSpec(value.name, dtype_of(value, "output"), named_shape(value, batch, unnamed=False))
        for value in model.graph.output
    )
    return Interface(inputs, outputs, _axis_ranges(model, inputs))


def batch_axes(model: Any) -> frozenset[str] | None:
    """The names under which the first axis of all inputs goes (empty: no name); None when requests cannot be stacked.

    They can when the first axis of every input is dynamic, the names agree, and no later axis has that name.
    """
    inputs = [shape_of(value) for value in graph_inputs(model)]
    if not inputs or any(not shape or isinstance(shape[0], int) for shape in inputs):
        return None
    names = {shape[0] for shape in inputs if shape} - {None}
    later = {axis for shape in inputs for axis in (shape or ())[1:]}
    if len(names) > 1 or names & later:
        return None
    return frozenset(str(name) for name in names)


def named_shape(value: Any, batch: frozenset[str] | None, *, unnamed: bool = True) -> tuple[Axis, ...] | None:
    """The shape with a name for every dynamic axis. `unnamed`: a first axis without a name is the batch as well."""
    shape = shape_of(value)
    if shape is None:
        return None
    named: list[Axis] = []
    for number, axis in enumerate(shape):
        is_batch = batch is not None and (axis in batch or (unnamed and axis is None and number == 0))
        named.append(BATCH if is_batch else f"{value.name}_{number}" if axis is None else axis)
    return tuple(named)


def index_bounds(model: Any) -> Mapping[str, int]:
    """Inputs that pick rows of a stored table, and how many rows it has: the vocabulary, mostly.

    Follows an input through operators that keep its values, to a `Gather` from an initialiser along its first axis.
    """
    rows = {tensor.name: int(tensor.dims[0]) for tensor in model.graph.initializer if tensor.dims}
    origin = {value.name: value.name for value in graph_inputs(model)}
    bounds: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type in _SAME_VALUES and node.input and node.input[0] in origin:
            origin.update(dict.fromkeys(node.output, origin[node.input[0]]))
        elif node.op_type == "Gather" and node.input[0] in rows and node.input[1] in origin:
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            if axis == 0:
                name = origin[node.input[1]]
                bounds[name] = min(bounds.get(name, rows[node.input[0]]), rows[node.input[0]])
    return bounds


def _values(value: Any, bounds: Mapping[str, int]) -> Values:
    """Which values an input takes, by what the graph does with it and, for masks and the like, by its name."""
    dtype, name = dtype_of(value, "input"), value.name.lower()
    high = float(bounds[value.name] - 1) if value.name in bounds else None
    if dtype == "string":
        return Values(Meaning.TEXT)
    if dtype == "bool":
        return Values(Meaning.MASK if "mask" in name else Meaning.FLAG)
    rank = len(shape_of(value) or ())
    if "mask" in name and rank == 2:
        return Values(Meaning.MASK, 0, 1)
    if "int" not in dtype:
        return Values()
    if "token_type" in name or "segment" in name:
        return Values(Meaning.SEGMENT_IDS, 0, 1 if high is None else high)
    if "position" in name:
        return Values(Meaning.POSITIONS, 0, high)
    if high is not None or "input_ids" in name or "token" in name:
        return Values(Meaning.TOKEN_IDS, 0, high)
    if dtype == "uint8" and rank in {3, 4}:
        return Values(Meaning.IMAGE, 0, 255)
    return Values()


def _axis_ranges(model: Any, inputs: Iterable[TensorSpec]) -> Mapping[str, AxisRange]:
    """The longest sequence a table of positions allows, where the graph slices or gathers one that says so by name."""
    tables = [
        int(tensor.dims[0])
        for tensor in model.graph.initializer
        if "position_embedding" in tensor.name and len(tensor.dims) == 2
    ]
    if not tables:
        return {}
    sequences = {
        spec.shape[1]
        for spec in inputs
        if spec.values.meaning in {Meaning.TOKEN_IDS, Meaning.MASK} and spec.shape is not None and len(spec.shape) > 1
    }
    return {axis: AxisRange(1, min(tables)) for axis in sequences if isinstance(axis, str)}


def read_model(path: Path, shown: str) -> Any:
    """The model without the weights that are kept beside it. Raises: BadSource."""
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as exc:
        raise BadSource(f"'{shown}' cannot be read: {exc.strerror}") from exc
    except Exception as exc:  # protobuf's own class of error differs between its implementations
        raise BadSource(f"'{shown}' is no ONNX model: it cannot be decoded; is it cut short?") from exc
    if not model.graph.node and not model.graph.output:
        raise BadSource(f"'{shown}' is no ONNX model: its graph is empty")
    return model
