"""The measured models: shapes of well-known networks with random weights, built by `onnx.helper`.

Weights are random because speed does not depend on their values; they are scaled so that activations stay finite and
answers to different inputs differ, or a mix-up of rows could not be seen.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tests.support.graphs import model, value


class _Graph:
    """Nodes and weights in the making; tensors are named by number."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[Any] = []
        self.weights: list[TensorProto] = []
        self._random = np.random.default_rng(seed)
        self._shared: dict[str, str] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node with one output; returns the output's name."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        """A weight."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def shared(self, key: str, array: np.ndarray) -> str:
        """A constant that several nodes use."""
        if key not in self._shared:
            self._shared[key] = self.constant(array)
        return self._shared[key]

    def random(self, *shape: int, scale: float) -> str:
        """A weight of normally distributed numbers."""
        return self.constant(self._random.standard_normal(shape, np.float32) * np.float32(scale))

    def dense(self, x: str, inputs: int, outputs: int, *, gain: float = 1.0) -> str:
        """x · W + b over the last axis."""
        product = self.node("MatMul", x, self.random(inputs, outputs, scale=gain / inputs**0.5))
        return self.node("Add", product, self.random(outputs, scale=0.02))

    def conv(self, x: str, inputs: int, outputs: int, size: int, *, stride: int = 1, gain: float = 2**0.5) -> str:
        """A convolution with bias, as exporters leave it when they fold the batch normalisation into it."""
        weights = self.random(outputs, inputs, size, size, scale=gain / (inputs * size * size) ** 0.5)
        pad = size // 2
        return self.node(
            "Conv",
            x,
            weights,
            self.random(outputs, scale=0.02),
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[pad] * 4,
        )


def mlp(sizes: tuple[int, ...] = (128, 256, 256, 10)) -> ModelProto:
    """x FP32 [batch, 128] → y FP32 [batch, 10]: two hidden layers of 256 with ReLU, 101,386 parameters."""
    graph = _Graph(1)
    x = "x"
    for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
        x = graph.dense(x, inputs, outputs, gain=2**0.5)
        if layer < len(sizes) - 2:
            x = graph.node("Relu", x)
    return _finish(graph, x, [value("x", "FP32", ["batch", sizes[0]])], value("y", "FP32", ["batch", sizes[-1]]))


def global_average() -> ModelProto:
    """image FP32 [batch, 3, 224, 224] → y FP32 [batch, 3, 1, 1]: the mean of each channel; 600 KB in, 12 bytes out."""
    graph = _Graph(4)
    image = value("image", "FP32", ["batch", 3, 224, 224])
    return _finish(graph, graph.node("GlobalAveragePool", "image"), [image], value("y", "FP32", ["batch", 3, 1, 1]))


def resnet50() -> ModelProto:
    """image FP32 [batch, 3, 224, 224] → y FP32 [batch, 1000]: ResNet-50's layers, 25.5 million parameters.

    Source: He et al., "Deep Residual Learning for Image Recognition", table 1; the stride is in the 3 × 3 convolution.
    """
    graph = _Graph(2)
    x = graph.node("Relu", graph.conv("image", 3, 64, 7, stride=2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            branch = graph.node("Relu", graph.conv(x, channels, width, 1))
            branch = graph.node("Relu", graph.conv(branch, width, width, 3, stride=stride))
            # A small gain here, or sixteen additions would make the activations grow without bound.
            branch = graph.conv(branch, width, width * 4, 1, gain=0.3)
            if block == 0:
                x = graph.conv(x, channels, width * 4, 1, stride=stride, gain=1.0)
                channels = width * 4
            x = graph.node("Relu", graph.node("Add", x, branch))
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    y = graph.dense(x, channels, 1000)
    image = value("image", "FP32", ["batch", 3, 224, 224])
    return _finish(graph, y, [image], value("y", "FP32", ["batch", 1000]))


def bert(layers: int = 6, hidden: int = 384, heads: int = 12, vocabulary: int = 30_522) -> ModelProto:
    """input_ids, attention_mask INT64 [batch, sequence] → embedding FP32 [batch, 384], averaged over the tokens.

    MiniLM's shape: 6 layers, 384 wide, 12 heads, feed-forward of 1536, up to 512 positions; 22.6 million parameters.
    """
    graph = _Graph(3)
    tokens = graph.node("Gather", graph.random(vocabulary, hidden, scale=1.0), "input_ids")
    axes = graph.node("Shape", "input_ids", start=1, end=2)
    ends = graph.shared("zero", np.zeros(1, np.int64))
    positions = graph.node("Slice", graph.random(512, hidden, scale=0.3), ends, axes, ends)
    x = _normalised(graph, graph.node("Add", tokens, positions), hidden)
    mask = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden_mask = graph.node("Unsqueeze", mask, graph.constant(np.array([1, 2], np.int64)))
    away = graph.node("Sub", graph.shared("one", np.array(1, np.float32)), hidden_mask)
    bias = graph.node("Mul", away, graph.constant(np.array(-10_000, np.float32)))
    for _ in range(layers):
        x = _normalised(graph, graph.node("Add", x, _attention(graph, x, bias, hidden, heads)), hidden)
        inner = _gelu(graph, graph.dense(x, hidden, hidden * 4))
        x = _normalised(graph, graph.node("Add", x, graph.dense(inner, hidden * 4, hidden)), hidden)
    weights = graph.node("Unsqueeze", mask, graph.constant(np.array([2], np.int64)))
    token_axis = graph.constant(np.array([1], np.int64))
    total = graph.node("ReduceSum", graph.node("Mul", x, weights), token_axis, keepdims=0)
    count = graph.node("ReduceSum", weights, token_axis, keepdims=0)
    some = graph.node("Max", count, graph.constant(np.array(1e-9, np.float32)))
    y = graph.node("Div", total, some)
    inputs = [value(name, "INT64", ["batch", "sequence"]) for name in ("input_ids", "attention_mask")]
    return _finish(graph, y, inputs, value("y", "FP32", ["batch", hidden]))


def _attention(graph: _Graph, x: str, bias: str, hidden: int, heads: int) -> str:
    size = hidden // heads
    split = graph.shared("split", np.array([0, 0, heads, size], np.int64))
    query, key, worth = (graph.node("Reshape", graph.dense(x, hidden, hidden), split) for _ in range(3))
    scores = graph.node(
        "MatMul",
        graph.node("Transpose", query, perm=[0, 2, 1, 3]),
        graph.node("Transpose", key, perm=[0, 2, 3, 1]),
    )
    scaled = graph.node("Div", scores, graph.shared("root", np.array(size**0.5, np.float32)))
    shares = graph.node("Softmax", graph.node("Add", scaled, bias), axis=-1)
    mixed = graph.node("MatMul", shares, graph.node("Transpose", worth, perm=[0, 2, 1, 3]))
    joined = graph.shared("join", np.array([0, 0, hidden], np.int64))
    back = graph.node("Reshape", graph.node("Transpose", mixed, perm=[0, 2, 1, 3]), joined)
    return graph.dense(back, hidden, hidden)


def _gelu(graph: _Graph, x: str) -> str:
    erf = graph.node("Erf", graph.node("Div", x, graph.shared("sqrt2", np.array(2**0.5, np.float32))))
    grown = graph.node("Mul", x, graph.node("Add", erf, graph.shared("one", np.array(1, np.float32))))
    return graph.node("Mul", grown, graph.shared("half", np.array(0.5, np.float32)))


def _normalised(graph: _Graph, x: str, size: int) -> str:
    scale, shift = graph.constant(np.ones(size, np.float32)), graph.random(size, scale=0.02)
    return graph.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-12)


def _finish(graph: _Graph, last: str, inputs: list[Any], output: Any) -> ModelProto:
    graph.nodes.append(helper.make_node("Identity", [last], [output.name]))
    return model(graph.nodes, inputs, [output], graph.weights)
