"""Faults planted in graphs that PyTorch's exporter really wrote: each is refused with its node named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tensorquay_convert.job import DynamicAxis, ImportJob  # noqa: E402
from tensorquay_convert.proof.verify import ProofOptions, verify  # noqa: E402
from tensorquay_convert.sources import onnx_rules  # noqa: E402
from tensorquay_convert.sources.torch_module import open_module  # noqa: E402

pytestmark = pytest.mark.frameworks


class Vision(nn.Module):
    """Reflecting padding, convolution, tokens of pixels, attention, two heads of one shape."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3)
        self.query, self.key = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        self.norm = nn.LayerNorm(16)
        self.left, self.right = nn.Linear(16, 5), nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        padded = nn.functional.pad(image, (1, 1, 1, 1), mode="reflect")
        pixels = torch.relu(self.conv(padded)).flatten(2).transpose(1, 2)
        scores = self.query(pixels) @ self.key(pixels).transpose(1, 2)
        mixed = self.norm(torch.softmax(scores / 4, dim=-1) @ pixels).reshape(image.shape[0], -1, 16)
        pooled = mixed.mean(1)
        return torch.tanh(self.left(pooled)), torch.sigmoid(self.right(pooled))


class Rows(nn.Module):
    """Normalization of what comes in, and a step over time of any length."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 8, bias=False)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.mix(self.norm(rows)), dim=-1)


def _node(graph: Any, operator: str) -> Any:
    return next(each for each in graph.node if each.op_type == operator)


def _attribute(graph: Any, operator: str, name: str, value: Any) -> str:
    node = _node(graph, operator)
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    return str(node.name)


def _transpose_weight(graph: Any) -> str:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for name in node.input:
            if node.op_type in {"MatMul", "Gemm"} and name in stored and stored[name].dims[:] in ([16, 16], [8, 8]):
                old = numpy_helper.to_array(stored[name])
                stored[name].CopyFrom(numpy_helper.from_array(np.array(old.T, order="C"), name))
                return str(node.name)
    raise AssertionError("no square weight")


def _freeze(graph: Any) -> str:
    node = [each for each in graph.node if each.op_type == "Reshape"][-1]
    node.input[1] = "frozen"
    graph.initializer.append(numpy_helper.from_array(np.array([2, -1, 16]), "frozen"))
    return str(node.name)


def _swap(graph: Any) -> str:
    first, second = _node(graph, "Tanh"), _node(graph, "Sigmoid")
    first.output[0], second.output[0] = second.output[0], first.output[0]
    return str(second.name)


FAULTS: dict[str, tuple[type[nn.Module], Callable[[Any], str]]] = {
    "transposed weight": (Vision, _transpose_weight),
    "frozen batch": (Vision, _freeze),
    "wrong padding mode": (Vision, lambda graph: _attribute(graph, "Pad", "mode", "constant")),
    "swapped outputs": (Vision, _swap),
    "dropped epsilon": (Rows, lambda graph: _attribute(graph, "LayerNormalization", "epsilon", 0.0)),
    "softmax over the wrong axis": (Rows, lambda graph: _attribute(graph, "Softmax", "axis", 1)),
    "dilated convolution": (Vision, lambda graph: _attribute(graph, "Conv", "dilations", [2, 2])),
}


def _opened(kind: type[nn.Module], folder: Path) -> tuple[Any, Path]:
    module = kind().eval()
    if kind is Vision:
        source = open_module(module, {"image": torch.rand(2, 3, 10, 10)}, ImportJob("module"))
    else:
        job = ImportJob("module", dynamic=(DynamicAxis("rows", 1, "time"),))
        source = open_module(module, {"rows": torch.rand(2, 5, 8)}, job)
    path = folder / "model.onnx"
    source.export(path, lambda text: None)
    onnx_rules.finish(path, source.facts.interface, lambda text: None)
    return source, path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[type[nn.Module], tuple[Any, Path]]:
    return {kind: _opened(kind, tmp_path_factory.mktemp(kind.__name__)) for kind in (Vision, Rows)}


@pytest.mark.parametrize("kind", [Vision, Rows])
def test_what_the_exporter_wrote_passes(kind: type[nn.Module], exported: Any) -> None:
    source, path = exported[kind]
    proof = verify(source, path, ProofOptions(), lambda text: None)
    assert proof.problems == ()
    assert all(axis.dynamic for axis in proof.axes)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_refused_with_its_node_named(fault: str, exported: Any, tmp_path: Path) -> None:
    kind, plant = FAULTS[fault]
    source, path = exported[kind]
    model = onnx.load(path)
    planted = plant(model.graph)
    wrong = tmp_path / "model.onnx"
    onnx.save(model, wrong)
    proof = verify(source, wrong, ProofOptions(), lambda text: None)
    assert not proof.passed
    assert proof.culprit is not None
    assert proof.culprit.node == planted, proof.culprit.sentence
    assert proof.advice


def test_the_line_of_the_models_source_is_told(exported: Any, tmp_path: Path) -> None:
    source, path = exported[Rows]
    model = onnx.load(path)
    _attribute(model.graph, "Softmax", "axis", 1)
    wrong = tmp_path / "model.onnx"
    onnx.save(model, wrong)
    culprit = verify(source, wrong, ProofOptions(), lambda text: None).culprit
    assert culprit is not None
    assert "test_planted_faults.py" in culprit.source_line
