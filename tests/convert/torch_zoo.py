"""Small PyTorch models for the import tests, and how an exported one is compared with its source."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from sklearn.datasets import load_digits
from torch import nn

from tensorquay_convert.api import Exported, OpenSource
from tensorquay_convert.sources.torch_tensors import resized, seeded

BATCHES = (1, 2, 3, 7)


class DigitsNet(nn.Module):
    """Convolution, batch normalisation, dropout: what is only right in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(16 * 4 * 4, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = nn.functional.max_pool2d(torch.relu(self.norm(self.conv(image))), 2)
        return self.head(self.drop(features.flatten(1)))


class Reader(nn.Module):
    """A recurrent net that reads the rows of a digit; the number of rows may change."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(rows)[0][:, -1])


class Result(NamedTuple):
    logits: torch.Tensor
    state: dict[str, Any]


class Tagger(nn.Module):
    """Token ids, learned positions, attention; nested outputs, one of them None."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(50, 16)
        self.positions = nn.Embedding(24, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.linear = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> Result:
        hidden = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        hidden = self.encoder(hidden, src_key_padding_mask=None if mask is None else mask == 0)
        return Result(self.linear(hidden), {"pooled": (hidden.mean(1), None), "hidden": hidden})


@functools.cache
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """1797 images, float32 (n, 1, 8, 8) from 0 to 1, and what they show."""
    data = load_digits()
    return (data.images[:, None] / 16).astype(np.float32), data.target.astype(np.int64)


@functools.cache
def trained() -> DigitsNet:
    """A DigitsNet that was trained on the first 1200 digits; the same object for every test, in training mode."""
    torch.manual_seed(0)
    net = DigitsNet()
    images, labels = (torch.from_numpy(each[:1200]) for each in digits())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(60):
        rows = slice(step * 200 % 1200, step * 200 % 1200 + 200)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
        optimizer.step()
    return net


def inputs_at(source: OpenSource, sizes: Mapping[str, int], seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded inputs of these sizes of the dynamic axes."""
    return {
        each.name: seeded(
            each.dtype,
            [sizes[axis] if isinstance(axis, str) else axis for axis in each.shape or ()],
            each.values,
            seed + n,
        )
        for n, each in enumerate(source.facts.interface.inputs)
    }


def run_onnx(path: Path, inputs: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(path)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def export(source: OpenSource, folder: Path) -> tuple[Path, Exported]:
    path = folder / "model.onnx"
    return path, source.export(path, lambda _: None)


def assert_equal(
    source: OpenSource, path: Path, sizes: Sequence[Mapping[str, int]], *, atol: float = 1e-5, worst: float = 1e-4
) -> None:
    """The file has the interface's names, order and axes, and answers as the source does at all these sizes."""
    graph = onnx.load(path, load_external_data=False).graph
    interface = source.facts.interface
    for declared, specs in ((graph.input, interface.inputs), (graph.output, interface.outputs)):
        assert [each.name for each in declared] == [each.name for each in specs]
        for each, spec in zip(declared, specs, strict=True):
            axes = tuple(dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim)
            assert axes == spec.shape
    for each in sizes:
        inputs = inputs_at(source, each)
        expected, got = source.run(inputs), run_onnx(path, inputs)
        assert list(expected) == [spec.name for spec in interface.outputs]
        for spec in interface.outputs:
            assert got[spec.name].shape == expected[spec.name].shape
            assert str(got[spec.name].dtype) == spec.dtype
            np.testing.assert_allclose(got[spec.name], expected[spec.name], atol=atol, rtol=worst)


def inner_values(path: Path, inputs: Mapping[str, Any], names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Values inside the graph, as ONNX Runtime computes them."""
    model = onnx.load(path)
    given = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in given)
    options = onnxruntime.SessionOptions()
    # The types declared for inner values hold for the traced sizes only; ONNX Runtime says so on standard error.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return dict(zip(names, session.run(list(names), dict(inputs)), strict=True))


def resize(array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    return resized(array, ("batch", *array.shape[1:]), {"batch": size})
