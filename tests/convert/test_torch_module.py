"""nn.Module objects: interface found by running, exported, equal at every size, looked into."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from tests.convert import torch_zoo as zoo  # noqa: E402
from torch import nn  # noqa: E402

from tensorquay_convert.errors import BadSource, Unsupported  # noqa: E402
from tensorquay_convert.job import DeclaredInput, DynamicAxis, ImportJob  # noqa: E402
from tensorquay_convert.sources.torch_module import open_module  # noqa: E402
from tensorquay_convert.tensors import AxisRange, Meaning  # noqa: E402

pytestmark = pytest.mark.frameworks

JOB = ImportJob("module")


def test_a_trained_net_is_exported_in_eval_mode_and_left_as_it_was(tmp_path: Path) -> None:
    images, labels = zoo.digits()
    net = zoo.trained()
    source = open_module(net, torch.from_numpy(images[:1]), JOB)
    (spec,) = source.facts.interface.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("image", "float32", ("batch", 1, 8, 8))
    assert [each.shape for each in source.facts.interface.outputs] == [("batch", 10)]
    path, exported = zoo.export(source, tmp_path)
    assert exported.exporter == "torch.onnx.export(dynamo=True)"
    assert exported.attempts == ()
    assert exported.opset >= 18
    zoo.assert_equal(source, path, [{"batch": each} for each in zoo.BATCHES])
    answer = zoo.run_onnx(path, {"image": images[1200:]})["output"]
    assert (answer.argmax(1) == labels[1200:]).mean() > 0.9
    # Bisection: nearly every node's output is known, and agrees.
    inputs = {"image": images[:3]}
    names = [output for node in onnx.load(path).graph.node for output in node.output]
    known = source.values_inside(inputs, [*names, "no such value"])
    assert len(known) >= len(names) - 1
    for name, value in zoo.inner_values(path, inputs, list(known)).items():
        np.testing.assert_allclose(value, known[name], atol=1e-5)
    source.close()
    assert net.training
    assert net.drop.training


def test_examples_of_two_sizes_tell_the_axes_and_running_tells_how_far_they_go(tmp_path: Path) -> None:
    torch.manual_seed(0)
    examples = [{"ids": torch.randint(0, 50, (1, 5))}, {"ids": torch.randint(0, 50, (3, 9))}]
    source = open_module(zoo.Tagger(), examples, JOB)
    interface = source.facts.interface
    assert interface.inputs[0].shape == ("batch", "ids_1")
    assert (interface.inputs[0].values.meaning, interface.inputs[0].values.high) == (Meaning.TOKEN_IDS, 49)
    assert interface.axes == {"ids_1": AxisRange(1, 24)}
    assert {each.name: each.shape for each in interface.outputs} == {
        "logits": ("batch", "ids_1", 3),
        "state_pooled_0": ("batch", 16),
        "state_hidden": ("batch", "ids_1", 16),
    }
    path, _ = zoo.export(source, tmp_path)
    zoo.assert_equal(source, path, [{"batch": b, "ids_1": n} for b, n in ((1, 1), (2, 24), (3, 7), (7, 2))])
    inputs = zoo.inputs_at(source, {"batch": 3, "ids_1": 6})
    names = [output for node in onnx.load(path).graph.node for output in node.output]
    known = source.values_inside(inputs, names)
    assert len(known) > len(names) / 2
    for name, value in zoo.inner_values(path, inputs, list(known)).items():
        np.testing.assert_allclose(value.reshape(known[name].shape), known[name], atol=1e-5)


def test_optional_inputs_masks_and_chosen_outputs(tmp_path: Path) -> None:
    ids = torch.randint(0, 50, (2, 6))
    axes = (DynamicAxis("ids", 1, "seq"), DynamicAxis("mask", 1, "seq"))
    source = open_module(
        zoo.Tagger(),
        {"ids": ids, "mask": torch.ones_like(ids)},
        ImportJob("m", dynamic=axes, outputs=("state_hidden",)),
    )
    assert [each.values.meaning for each in source.facts.interface.inputs] == [Meaning.TOKEN_IDS, Meaning.MASK]
    assert [each.name for each in source.facts.interface.outputs] == ["state_hidden"]
    path, _ = zoo.export(source, tmp_path)
    inputs = {"ids": ids.numpy(), "mask": np.array([[1] * 6, [1, 1, 1, 0, 0, 0]])}
    np.testing.assert_allclose(
        zoo.run_onnx(path, inputs)["state_hidden"], source.run(inputs)["state_hidden"], atol=1e-5
    )


def test_a_recurrent_net_reads_any_number_of_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = open_module(zoo.Reader(), torch.rand(2, 5, 8), ImportJob("m", dynamic=(DynamicAxis("rows", 1, "seq"),)))
    path, _ = zoo.export(source, tmp_path)
    zoo.assert_equal(source, path, [{"batch": b, "seq": n} for b, n in ((1, 1), (2, 9), (7, 3))])


class Clash(nn.Module):
    """Its output has the name of an inner value of the exported graph, its input too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, relu: torch.Tensor) -> dict[str, torch.Tensor]:
        inner = self.layer(relu)
        return {"linear": self.layer(torch.relu(inner)), "relu": inner}


def test_names_of_outputs_never_clash_with_inner_ones(tmp_path: Path) -> None:
    source = open_module(Clash(), torch.randn(2, 4), JOB)
    assert [each.name for each in source.facts.interface.outputs] == ["linear", "relu_out"]
    path, exported = zoo.export(source, tmp_path)
    assert exported.attempts == ()
    zoo.assert_equal(source, path, [{"batch": each} for each in zoo.BATCHES])


class Looked(nn.Module):
    """What only tracing can write: a choice by value that torch.export cannot follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if float(x.abs().sum()) > 0 else x


def test_what_torch_export_cannot_follow_falls_back_to_tracing_and_says_so(tmp_path: Path) -> None:
    source = open_module(Looked(), torch.randn(2, 4), JOB)
    path, exported = zoo.export(source, tmp_path)
    assert exported.exporter == "torch.onnx.export(dynamo=False)"
    (attempt,) = exported.attempts
    assert "data-dependent" in attempt
    assert "test_torch_module.py" in attempt
    assert any("tracing fixed a choice" in each and "test_torch_module.py" in each for each in exported.notes)
    zoo.assert_equal(source, path, [{"batch": each} for each in zoo.BATCHES])


class Singular(nn.Module):
    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        shifted = matrix + 1
        return torch.linalg.svd(shifted, full_matrices=False).S


def test_an_unsupported_operator_is_named_with_node_and_line(tmp_path: Path) -> None:
    source = open_module(Singular(), torch.randn(2, 4, 4), JOB)
    with pytest.raises(Unsupported) as failure:
        zoo.export(source, tmp_path)
    assert "svd" in str(failure.value.facts["operator"])
    assert failure.value.facts["node"]
    assert "torch.linalg.svd(shifted" in str(failure.value.facts["line"])
    assert "test_torch_module.py" in failure.value.sentence
    assert not list(tmp_path.iterdir())


def test_an_axis_can_stay_static(tmp_path: Path) -> None:
    source = open_module(zoo.DigitsNet(), torch.rand(4, 1, 8, 8), ImportJob("m", static=True))
    assert source.facts.interface.inputs[0].shape == (4, 1, 8, 8)
    path, _ = zoo.export(source, tmp_path)
    zoo.assert_equal(source, path, [{}])


def test_inputs_can_be_declared_instead_of_given() -> None:
    job = ImportJob("m", inputs=(DeclaredInput("image", "float32", ("batch", 1, 8, 8)),))
    assert open_module(zoo.DigitsNet(), None, job).facts.interface.inputs[0].shape == ("batch", 1, 8, 8)


class Halves(nn.Module):
    """Works for even lengths only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], 2, x.shape[1] // 2).sum(1)


def test_an_axis_that_has_to_be_even_is_found_out() -> None:
    source = open_module(Halves(), torch.randn(2, 6), ImportJob("m", dynamic=(DynamicAxis("x", 1, "width"),)))
    assert source.facts.interface.axes["width"].multiple == 2


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("I want a blue tensor")


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, training=True)


class Squeezes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.squeeze()


class OnlyTwo(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(2, 4)


class Counts(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x, 3


@pytest.mark.parametrize(
    ("module", "example", "words"),
    [
        (Raises(), torch.ones(2, 4), "I want a blue tensor (test_torch_module.py"),
        (zoo.DigitsNet(), torch.ones(2, 3, 8, 8), "raises on the example inputs (image float32[2, 3, 8, 8])"),
        (zoo.DigitsNet(), (torch.ones(2, 1, 8, 8), 7), "do not fit forward(image"),
        (zoo.DigitsNet(), {"image": "a cat"}, "no tensor among the example inputs"),
        (zoo.DigitsNet(), None, "nothing says what the model takes; forward has the arguments image"),
        (Noise(), torch.ones(2, 64), "another 'output' each time"),
        (Squeezes(), torch.ones(2, 4), "axes at batch 1"),
        (OnlyTwo(), torch.ones(2, 4), "raises at batch 3"),
        (Counts(), torch.ones(2, 4), "gives a int as 'output_1'"),
        (zoo.DigitsNet, torch.ones(2, 4), "expected a torch.nn.Module, got type"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_sentence(module: nn.Module, example: object, words: str) -> None:
    with pytest.raises(BadSource) as failure:
        open_module(module, example, JOB)
    assert words in failure.value.sentence


@pytest.mark.parametrize(
    ("axis", "words"),
    [(DynamicAxis("picture", 0, "b"), "the model has image"), (DynamicAxis("image", 9, "b"), "which has 4 axes")],
)
def test_dynamic_axes_have_to_be_there(axis: DynamicAxis, words: str) -> None:
    with pytest.raises(BadSource, match=words):
        open_module(zoo.DigitsNet(), torch.rand(2, 1, 8, 8), ImportJob("m", dynamic=(axis,)))
