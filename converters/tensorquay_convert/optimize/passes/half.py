"""The passes "float16" and "bfloat16": weights and arithmetic in 16 bits, inputs and outputs as they were.

Which nodes stay in FP32 is decided in one place for both: operators that have no 16-bit form in the operator set the
model uses, those that the float16 converter knows to suffer, control flow with all that is inside, and what the user
wants kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import TensorProto, inliner, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.optimize import files
from tensorquay_convert.optimize.passes import bfloat, casts, counts, graphs, prepared, schemas
from tensorquay_convert.optimize.passes.api import Pass, Workbench
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.sources import onnx_graph, onnx_rules

_HALVES = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
_CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_LARGEST_FLOAT16 = 65504.0
_FIRST_BFLOAT16_OPSET = 13
_MOST_KEPT = 50


def make_float16(parameters: Mapping[str, Any]) -> Pass:
    """`keep`: names of operators or nodes that stay in FP32. Raises: ValueError."""
    return Half("float16", _keep("float16", parameters))


def make_bfloat16(parameters: Mapping[str, Any]) -> Pass:
    """`keep`: names of operators or nodes that stay in FP32. Raises: ValueError."""
    return Half("bfloat16", _keep("bfloat16", parameters))


def _keep(name: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    keep = parameters.get("keep", ())
    names = isinstance(keep, Sequence) and not isinstance(keep, str) and all(isinstance(each, str) for each in keep)
    if set(parameters) - {"keep"} or not names:
        raise ValueError(f"{name} takes 'keep', a list of operators or nodes; got {dict(parameters)}")
    return tuple(keep)


@dataclass(frozen=True, slots=True)
class Half:
    """Computes in 16 bits what can be. `dtype`: float16 or bfloat16."""

    dtype: str
    keep: tuple[str, ...] = ()

    def apply(self, source: Path, target: Path, bench: Workbench) -> PassReport:
        """Raises: Unsupported for an operator set without this type, or when the runtime has no code for it."""
        opened = _described(source, bench)
        model = opened.model
        if any(kind in _HALVES for kind in _types(model)):
            why = "the model has 16-bit numbers already"
            return graphs.as_it_was(self.dtype, source, target, why, seconds=opened.seconds)
        opset = onnx_rules.opset_of(model)
        if self.dtype == "bfloat16" and opset < _FIRST_BFLOAT16_OPSET:
            raise Unsupported(
                f"bfloat16 needs operator set {_FIRST_BFLOAT16_OPSET}, the model has {opset}",
                remedy="import the model, which raises its operator set",
            )
        bench.say(f"{self.dtype}: converting weights")
        blocked, unknown = self._blocked(model)
        outside = _set_aside(model)
        kept = _kept(model, blocked)
        original = _copied(model) if self.dtype == "bfloat16" else None
        beyond = 0 if original is not None else _beyond(model)
        first = len(model.graph.node)
        converted = convert_float_to_float16(
            model,
            keep_io_types=True,
            disable_shape_infer=True,
            op_block_list=sorted({*DEFAULT_OP_BLOCK_LIST, *_CONTROL}),
            node_block_list=blocked,
        )
        if original is not None:
            bfloat.rewrite(converted, original)
        casts.tidy(converted, first, {*outside, *(value.name for value in opened.outputs)})
        weights = sum(each.data_type in _HALVES for each in converted.graph.initializer)
        nodes = casts.computing(converted)
        if not nodes:
            why = f"no node computes in FP32 that could compute in {self.dtype}"
            return graphs.as_it_was(self.dtype, source, target, why, seconds=opened.seconds)
        graphs.write(converted, opened, target, bench.settings)
        notes = [f"nothing in the model is called {onnx_graph.short(each)}" for each in unknown]
        if beyond:
            notes.append(f"numbers beyond float16's range (±65504) that were cut to it: {beyond}")
        return PassReport(
            self.dtype + (f", {', '.join(self.keep)} kept" if self.keep else ""),
            changed=True,
            summary=f"{counts.many(weights, 'weight')} and {counts.many(nodes, 'node')} in {self.dtype}, "
            f"{counts.many(len(kept), 'node')} kept in FP32",
            quantized=nodes,
            kept=kept[:_MOST_KEPT],
            seconds=opened.seconds,
            notes=tuple(notes),
        )

    def _blocked(self, model: Any) -> tuple[list[str], list[str]]:
        """Names of nodes that stay in FP32, and what of `keep` is nothing's name. Nodes without a name get one."""
        lacking = schemas.lacking(model, f"tensor({self.dtype})")
        taken = {node.name for node in model.graph.node}
        wanted, found, blocked = set(self.keep), set(), []
        for number, node in enumerate(model.graph.node):
            named = {node.name, node.op_type, counts.name_of(node)} & wanted
            found |= named
            if not (named or counts.name_of(node) in lacking):
                continue
            if not node.name:
                node.name = f"kept_{number}"
                while node.name in taken:
                    node.name += "_"
            blocked.append(node.name)
        return blocked, [each for each in self.keep if each not in found]


def _described(source: Path, bench: Workbench) -> graphs.Opened:
    """The model with its functions inlined and the types of its inner values told."""
    opened = graphs.opened(source)
    if opened.model.functions:
        opened.model = inliner.inline_local_functions(opened.model)
        source = bench.scratch / "inlined.onnx"
        files.save(opened.model, source)
    values, _ = prepared.inferred(source)
    prepared.describe(opened.model, values)
    return opened


def _types(model: Any) -> set[int]:
    """Element types of stored tensors and of inner values."""
    stored = {int(tensor.data_type) for tensor in onnx_graph.tensors_in(model)}
    return stored | set(casts.types(model).values())


def _set_aside(model: Any) -> set[str]:
    """Take outputs out that no node makes: inputs and stored tensors given out again. Returns their names.

    Nodes read a copy of such a tensor, which may be converted as they are.
    """
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    numbers = [number for number, value in enumerate(graph.output) if value.name not in made]
    names = {graph.output[number].name for number in numbers}
    for number in reversed(numbers):
        del graph.output[number]
    copies = {}
    for tensor in [each for each in graph.initializer if each.name in names]:
        copies[tensor.name] = f"{tensor.name}_inside"
        inside = graph.initializer.add()
        inside.CopyFrom(tensor)
        inside.name = copies[tensor.name]
    for node in graph.node:
        casts.rename(node, copies)
    return names


def _copied(model: Any) -> Any:
    found = type(model)()
    found.CopyFrom(model)
    return found


def _beyond(model: Any) -> int:
    """How many stored numbers float16 cannot hold; infinities are none."""
    count = 0
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = abs(numpy_helper.to_array(tensor))
            count += int(((values > _LARGEST_FLOAT16) & (values != float("inf"))).sum())
    return count


def _kept(model: Any, blocked: Collection[str]) -> tuple[str, ...]:
    """Nodes that go on computing with FP32: "Softmax 'probabilities'"; those that never did are none."""
    known, held = casts.types(model), {*DEFAULT_OP_BLOCK_LIST, *_CONTROL}
    return tuple(
        f"{node.op_type} {onnx_graph.short(node.name or next(iter(node.output), ''))}"
        for node in model.graph.node
        if (node.name in blocked or node.op_type in held)
        and any(known.get(name) == TensorProto.FLOAT for name in (*casts.reads(node), *node.output))
    )
