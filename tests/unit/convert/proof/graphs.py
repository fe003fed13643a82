"""Small ONNX graphs as exporters write them, and a source made of the graph as it should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tensorquay_convert.api import Exported, Say, SourceFacts
from tensorquay_convert.job import SourceKind
from tensorquay_convert.proof.runtime import Runtime
from tensorquay_convert.tensors import BATCH, Array, Arrays, AxisRange, Interface, Meaning, TensorSpec, Values

_TYPES = {
    "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16, "int64": TensorProto.INT64, "int32": TensorProto.INT32,
    "bool": TensorProto.BOOL, "string": TensorProto.STRING,
}  # fmt: skip


class GraphSource:
    """A framework whose model is an ONNX graph: what the right export would be. `blind`: it shows nothing inside."""

    def __init__(
        self, model: Any, interface: Interface, *, blind: bool = False, knows: Sequence[str] | None = None,
        kind: SourceKind = SourceKind.TORCH_FACTORY,
    ) -> None:  # fmt: skip
        self._model = model
        self._blind = blind
        self._knows = knows
        self._runtime = Runtime(model, optimized=False)
        self.facts = SourceFacts(kind, "a graph", interface, (), {})
        self.runs = 0

    def run(self, inputs: Arrays) -> Arrays:
        self.runs += 1
        return self._runtime.run(inputs)

    def export(self, target: Path, say: Say) -> Exported:
        onnx.save(self._model, target)
        return Exported("test", 18)

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        made = {name for node in self._model.graph.node for name in node.output if name}
        wanted = [name for name in names if name in made and (self._knows is None or name in self._knows)]
        if self._blind or not wanted:
            return {}
        copy = onnx.ModelProto.FromString(self._model.SerializeToString())
        there = {value.name for value in copy.graph.output}
        copy.graph.output.extend(helper.make_empty_tensor_value_info(each) for each in wanted if each not in there)
        return Runtime(copy, optimized=False).run(inputs, wanted)

    def close(self) -> None:
        return None


def tensor(name: str, dtype: str, *shape: int | str, meaning: Meaning = Meaning.NUMBERS, **bounds: float) -> TensorSpec:
    return TensorSpec(name, dtype, shape, Values(meaning, **bounds))


def build(
    nodes: Sequence[Any], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec],
    stored: Mapping[str, Array] | None = None, axes: Mapping[str, AxisRange] | None = None, opset: int = 18,
) -> tuple[Any, Interface]:  # fmt: skip
    def value(spec: TensorSpec) -> Any:
        return helper.make_tensor_value_info(spec.name, _TYPES[spec.dtype], list(spec.shape or ()))

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [value(spec) for spec in inputs],
        [value(spec) for spec in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (stored or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model, Interface(tuple(inputs), tuple(outputs), axes or {})


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any) -> Any:
    return helper.make_node(operator, list(inputs), list(outputs), name=name, **attributes)


def numbers(seed: int, *shape: int, scale: float = 1.0) -> Array:
    found: Array = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
    return found


def changed(model: Any, change: Callable[[Any], None]) -> Any:
    """A copy of a model with `change` applied to its graph."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    change(copy.graph)
    return copy


def node_named(graph: Any, name: str) -> Any:
    return next(each for each in graph.node if each.name == name)


def set_attribute(graph: Any, name: str, attribute: str, value: Any) -> None:
    found = node_named(graph, name)
    kept = [each for each in found.attribute if each.name != attribute]
    del found.attribute[:]
    found.attribute.extend([*kept, helper.make_attribute(attribute, value)])


def set_stored(graph: Any, name: str, change: Callable[[Array], Array]) -> None:
    found = next(each for each in graph.initializer if each.name == name)
    old = numpy_helper.to_array(found)
    found.CopyFrom(numpy_helper.from_array(np.array(change(old), order="C"), name))


def classifier() -> tuple[Any, Interface]:
    """An image classifier and what it is made of: padding, convolution, normalization, two heads of one shape."""
    nodes = [
        node("Pad", ["image", "pads"], ["padded"], "node_pad", mode="reflect"),
        node("Conv", ["padded", "kernel"], ["conv"], "node_conv", kernel_shape=[3, 3], dilations=[1, 1]),
        node("BatchNormalization", ["conv", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["bn"], "node_bn",
             epsilon=1e-3),
        node("Relu", ["bn"], ["relu"], "node_relu"),
        node("Transpose", ["relu"], ["last"], "node_transpose", perm=[0, 2, 3, 1]),
        node("Reshape", ["last", "flat"], ["pixels"], "node_view"),
        node("MatMul", ["pixels", "mix"], ["mixed"], "node_linear"),
        node("LayerNormalization", ["mixed", "ln.scale", "ln.bias"], ["normal"], "node_norm", axis=-1, epsilon=1e-5),
        node("ReduceMean", ["normal", "pool.axes"], ["pooled"], "node_mean", keepdims=0),
        node("MatMul", ["pooled", "head.a"], ["logits_a"], "node_head_a"),
        node("MatMul", ["pooled", "head.b"], ["logits_b"], "node_head_b"),
        node("Softmax", ["logits_a"], ["colour"], "node_softmax", axis=-1),
        node("Tanh", ["logits_b"], ["shape"], "node_tanh"),
    ]  # fmt: skip
    stored = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "kernel": numbers(1, 8, 3, 3, 3, scale=0.3),
        "bn.scale": 1 + numbers(2, 8, scale=0.1), "bn.bias": numbers(3, 8, scale=0.1),
        "bn.mean": numbers(4, 8, scale=0.1), "bn.var": np.full(8, 0.05, np.float32),
        "flat": np.array([0, -1, 8]), "mix": numbers(5, 8, 8, scale=0.4),
        "ln.scale": 1 + numbers(6, 8, scale=0.1), "ln.bias": numbers(7, 8, scale=0.1), "pool.axes": np.array([1]),
        "head.a": numbers(8, 8, 5), "head.b": numbers(9, 8, 5),
    }  # fmt: skip
    return build(
        nodes,
        [tensor("image", "float32", BATCH, 3, 8, 8)],
        [tensor("colour", "float32", BATCH, 5), tensor("shape", "float32", BATCH, 5)],
        stored,
    )


def reader() -> tuple[Any, Interface]:
    """A reader of token ids with a mask, a dynamic length, and an epsilon as exporters of old write it."""
    nodes = [
        node("Gather", ["table", "ids"], ["embedding"], "node_embedding"),
        node("ReduceMean", ["embedding", "last"], ["mean"], "node_mean", keepdims=1),
        node("Sub", ["embedding", "mean"], ["centred"], "node_sub"),
        node("Mul", ["centred", "centred"], ["squared"], "node_mul"),
        node("ReduceMean", ["squared", "last"], ["variance"], "node_var", keepdims=1),
        node("Add", ["variance", "epsilon"], ["safe"], "node_add_epsilon"),
        node("Sqrt", ["safe"], ["deviation"], "node_sqrt"),
        node("Div", ["centred", "deviation"], ["normal"], "node_div"),
        node("MatMul", ["normal", "query"], ["queries"], "node_query"),
        node("Transpose", ["normal"], ["keys"], "node_keys", perm=[0, 2, 1]),
        node("MatMul", ["queries", "keys"], ["scores"], "node_scores"),
        node("Cast", ["mask"], ["kept"], "node_cast", to=TensorProto.FLOAT),
        node("Sub", ["one", "kept"], ["away"], "node_away"),
        node("Mul", ["away", "minus"], ["bias"], "node_bias"),
        node("Unsqueeze", ["bias", "pool.axes"], ["bias_rows"], "node_unsqueeze"),
        node("Add", ["scores", "bias_rows"], ["masked"], "node_masked"),
        node("Softmax", ["masked"], ["attention"], "node_softmax", axis=-1),
        node("MatMul", ["attention", "normal"], ["context"], "node_context"),
        node("Gather", ["context", "first"], ["sentence"], "node_first", axis=1),
    ]
    stored = {
        "table": numbers(1, 50, 6, scale=0.05), "last": np.array([-1]), "epsilon": np.array(1e-3, np.float32),
        "query": numbers(2, 6, 6), "one": np.array(1, np.float32), "minus": np.array(-1e4, np.float32),
        "pool.axes": np.array([1]), "first": np.array(0),
    }  # fmt: skip
    return build(
        nodes,
        [
            tensor("ids", "int64", BATCH, "seq", meaning=Meaning.TOKEN_IDS, low=0, high=49),
            tensor("mask", "int64", BATCH, "seq", meaning=Meaning.MASK, low=0, high=1),
        ],
        [tensor("sentence", "float32", BATCH, 6), tensor("context", "float32", BATCH, "seq", 6)],
        stored,
        {"seq": AxisRange(1, 64)},
    )
