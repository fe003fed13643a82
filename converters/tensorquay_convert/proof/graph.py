"""The exported graph as the search for a culprit sees it: every node named, who makes what, where it comes from.

Owns a copy of the model's structure; weights kept in files of their own stay there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tensorquay_convert.tensors import Array

_TRACE_KEYS = ("pkg.torch.onnx.stack_trace",)
_PLACE_KEYS = ("pkg.torch.onnx.namespace", "pkg.torch.onnx.name_scopes", "namespace")
_MAX_TEXT = 300
_SMALL_CONSTANT = 4096


class Graph:
    """One model, read from its file. Changed only by who restores it (`repairs.py`)."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.model: Any = onnx.load(path, load_external_data=False)
        self.nodes: list[Any] = list(self.model.graph.node)
        taken = {node.name for node in self.nodes}
        for number, node in enumerate(self.nodes):
            if not node.name:
                name = f"{node.op_type}_{number}"
                node.name = name if name not in taken else f"{name}_unnamed"
        self.maker: dict[str, int] = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        self.stored: dict[str, Any] = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self.inputs: tuple[str, ...] = tuple(
            value.name for value in self.model.graph.input if value.name not in self.stored
        )
        self.outputs: tuple[str, ...] = tuple(value.name for value in self.model.graph.output)
        self.constants: Mapping[str, Any] = {
            node.output[0]: attribute.t
            for node in self.nodes
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.name == "value"
        }

    def value_names(self) -> list[str]:
        """Outputs of nodes in the graph's order, without constants."""
        return [name for node in self.nodes if node.op_type != "Constant" for name in node.output if name]

    def node_of(self, value: str) -> Any | None:
        """The node that makes a value; None for inputs and stored tensors."""
        at = self.maker.get(value)
        return None if at is None else self.nodes[at]

    def named(self, name: str) -> Any | None:
        """The node with that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def reaching(self, outputs: Iterable[str], stop: Collection[str] = ()) -> set[int]:
        """Numbers of the nodes that `outputs` depend on, without looking behind the values in `stop`."""
        found: set[int] = set()
        waiting = [name for name in outputs if name not in stop]
        while waiting:
            at = self.maker.get(waiting.pop())
            if at is None or at in found:
                continue
            found.add(at)
            waiting += [name for name in reads(self.nodes[at]) if name and name not in stop]
        return found

    def constant(self, name: str) -> Array | None:
        """A small stored value; None for what is not stored, large, or kept in another file."""
        tensor = self.stored.get(name, self.constants.get(name))
        if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        if int(np.prod(tensor.dims, dtype=np.int64)) > _SMALL_CONSTANT:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def with_outputs(self, names: Iterable[str], before: int | None = None) -> Any:
        """A copy whose outputs are `names` too (or only they, when it is cut before node number `before`)."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        if before is not None:
            del copy.graph.node[before:]
            del copy.graph.output[:]
        there = {value.name for value in copy.graph.output}
        copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(each) for each in names if each not in there)
        return copy

    def with_given(self, value: str, element_type: int, rank: int) -> Any:
        """A copy in which an inner value is an input, no longer an output, and what made it is read by nobody."""
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        node = copy.graph.node[self.maker[value]]
        for at, name in enumerate(node.output):
            if name == value:
                node.output[at] = f"{value}__replaced"
        copy.graph.input.append(onnx.helper.make_tensor_value_info(value, element_type, [None] * rank))
        for listed in (copy.graph.value_info, copy.graph.output):
            for at in reversed([at for at, each in enumerate(listed) if each.name == value]):
                del listed[at]
        return copy


def reads(node: Any) -> Iterator[str]:
    """Names a node reads, those read by graphs inside it included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                yield from reads(each)


def source_line(node: Any) -> str:
    """Where a node comes from in the model's source, as far as its exporter wrote it down; empty otherwise."""
    props = {each.key: each.value for each in getattr(node, "metadata_props", ())}
    for key in _TRACE_KEYS:
        frames = [line.strip() for line in props.get(key, "").splitlines() if line.strip().startswith("File ")]
        own = [frame for frame in frames if "site-packages" not in frame]
        if frames:
            return str((own or frames)[-1][:_MAX_TEXT])
    for key in _PLACE_KEYS:
        if props.get(key):
            return str(props[key].strip()[:_MAX_TEXT])
    return str(node.doc_string.strip().partition("\n")[0][:_MAX_TEXT])
