"""What a TensorFlow graph says about the values it takes, and how the ONNX model lays out the ones in between.

Reads protobufs only; runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay_convert.tensors import Meaning, Values

_PASSING = frozenset(
    {"Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "Transpose", "StopGradient", "PlaceholderWithDefault"}
)
_GATHERS = frozenset({"Gather", "GatherV2", "ResourceGather"})
_CHANNELS_FIRST = frozenset(
    {
        "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool",
        "InstanceNormalization", "BatchNormalization", "Resize", "DepthToSpace", "SpaceToDepth",
        "ConvInteger", "QLinearConv",
    }
)  # fmt: skip
_ELEMENTWISE = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "Tanh",
        "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Clip", "Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal",
        "Erf", "Floor", "Ceil", "Round", "Identity", "Cast", "Where", "Dropout", "Pad", "Concat", "Sum", "Slice",
        "QuantizeLinear", "DequantizeLinear", "ThresholdedRelu", "Sign", "Greater", "Less", "Equal", "Not",
    }
)  # fmt: skip


_RECURRENT = frozenset({"LSTM", "GRU", "RNN", "Scan", "Loop"})
_RESHAPING = frozenset({"Squeeze", "Unsqueeze", "Gather", "Split", "Expand"})


def index_ranges(graph_def: Any, inputs: Mapping[str, str]) -> dict[str, Values]:
    """Values of inputs that index a table, or that are called masks, by name.

    An input that reaches the indices of a Gather over a constant of n rows (through casts and reshapes) is below n.

    Args: inputs: interface names by tensor name.
    """
    nodes = {node.name: node for node in graph_def.node}
    meant: dict[str, Values] = {}
    for node in graph_def.node:
        bound = _bound(node, nodes)
        if bound is None:
            continue
        name = inputs.get(_origin(bound[0], nodes) + ":0")
        if name is not None:
            known = meant.get(name, Values(Meaning.TOKEN_IDS, 0, bound[1])).high
            meant[name] = Values(Meaning.TOKEN_IDS, 0, min(bound[1], known if known is not None else bound[1]))
    for name in inputs.values():
        if "mask" in name.lower() and name not in meant:
            meant[name] = Values(Meaning.MASK, 0, 1)
    return meant


def _bound(node: Any, nodes: Mapping[str, Any]) -> tuple[str, int] | None:
    """The tensor that `node` takes as indices and the largest that is valid."""
    if node.op in _GATHERS and len(node.input) > 1:
        table = nodes.get(_origin(node.input[0], nodes))
        if len(node.input) > 2:
            axis = nodes.get(_origin(node.input[2], nodes))
            if axis is None or axis.op != "Const" or _scalar(axis) != 0:
                return None
        if table is not None and table.op == "Const" and table.attr["value"].tensor.tensor_shape.dim:
            return node.input[1], int(table.attr["value"].tensor.tensor_shape.dim[0].size) - 1
    if node.op == "OneHot":
        depth = nodes.get(_origin(node.input[1], nodes))
        if depth is not None and depth.op == "Const":
            return node.input[0], _scalar(depth) - 1
    return None


def _scalar(node: Any) -> int:
    from tensorflow import make_ndarray  # noqa: PLC0415

    return int(make_ndarray(node.attr["value"].tensor).ravel()[0])


def _origin(tensor: str, nodes: Mapping[str, Any]) -> str:
    """The node a tensor comes from, seen through what only passes values on."""
    name = tensor.partition(":")[0].removeprefix("^")
    for _ in range(len(nodes)):
        node = nodes.get(name)
        if node is None or not node.input or (node.op not in _PASSING and node.op != "SelectV2"):
            break
        # Keras turns negative ids around before it looks them up: where(x < 0, x + n, x).
        name = node.input[2 if node.op == "SelectV2" else 0].partition(":")[0]
    return name


@dataclass(frozen=True, slots=True)
class Layout:
    """How the ONNX model holds a value: its rank, and whether channels come first where TensorFlow has them last."""

    rank: int
    channels_first: bool


def layouts(model: Path) -> dict[str, Layout | None]:
    """The layout of the values of an exported graph, by name, as far as its ranks are known.

    tf2onnx puts transposes around convolutions and recurrent layers and then moves them outwards; what lies between
    keeps its name. None: values that cannot be compared, because time may come before the batch.
    """
    import onnx  # noqa: PLC0415

    graph = onnx.load(model, load_external_data=False).graph
    first: set[str] = set()
    unknown: set[str] = set()
    for node in graph.node:
        passes = node.op_type in _ELEMENTWISE
        if node.op_type in _CHANNELS_FIRST or (passes and first.intersection(node.input)):
            first.update(node.output)
        if node.op_type in _RECURRENT or ((passes or node.op_type in _RESHAPING) and unknown.intersection(node.input)):
            unknown.update(node.output)
    ranks = {
        each.name: len(each.type.tensor_type.shape.dim)
        for each in graph.value_info
        if each.type.tensor_type.HasField("shape")
    }
    known = {name: Layout(rank, rank > 2 and name in first) for name, rank in ranks.items() if name not in unknown}
    return {**dict.fromkeys(unknown), **known}
