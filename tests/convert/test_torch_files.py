"""PyTorch's files: exported programs, TorchScript, factories with weights; and what in them is not trusted."""

from __future__ import annotations

import json
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from tests.convert import torch_zoo as zoo  # noqa: E402
from torch import nn  # noqa: E402

from tensorquay_convert.errors import BadSource, CommandFailed, Unsupported  # noqa: E402
from tensorquay_convert.job import DeclaredInput, DynamicAxis, ImportJob, SourceKind  # noqa: E402
from tensorquay_convert.sources.torch_export import TorchExportConverter  # noqa: E402
from tensorquay_convert.sources.torch_factory import TorchFactoryConverter  # noqa: E402
from tensorquay_convert.sources.torch_module import ModuleSource  # noqa: E402
from tensorquay_convert.sources.torchscript import TorchScriptConverter  # noqa: E402
from tensorquay_convert.tensors import AxisRange  # noqa: E402

pytestmark = pytest.mark.frameworks


def quietly(_: str) -> None: ...


def open_pt2(path: Path, **job: Any) -> ModuleSource:
    return TorchExportConverter().open(ImportJob(str(path), **job), SourceKind.TORCH_EXPORT, quietly)


def open_script(path: Path, **job: Any) -> ModuleSource:
    return TorchScriptConverter().open(ImportJob(str(path), **job), SourceKind.TORCHSCRIPT, quietly)


def open_factory(source: str, **job: Any) -> ModuleSource:
    return TorchFactoryConverter().open(ImportJob(source, **job), SourceKind.TORCH_FACTORY, quietly)


@pytest.fixture(scope="module")
def tagger_pt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with two dynamic axes, one bounded, nested outputs; the class is not needed to open it."""
    torch.manual_seed(0)
    net = TwoHeads().eval()
    batch, seq = torch.export.Dim("batch"), torch.export.Dim("seq", max=40)
    program = torch.export.export(net, (torch.randn(3, 5, 8),), dynamic_shapes={"x": {0: batch, 1: seq}})
    path = tmp_path_factory.mktemp("pt2") / "model.pt2"
    torch.export.save(program, path)
    return path


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        inner = self.linear(x)
        return {"linear": torch.relu(inner), "more": (inner.mean(1), inner.amax(1))}


def test_an_exported_program_needs_no_class_and_gets_its_axis_names_back(tagger_pt2: Path, tmp_path: Path) -> None:
    source = open_pt2(tagger_pt2, dynamic=(DynamicAxis("x", 1, "seq"),))
    interface = source.facts.interface
    assert interface.inputs[0].shape == ("batch", "seq", 8)
    assert interface.axes == {"seq": AxisRange(1, 40)}
    assert [(each.name, each.shape) for each in interface.outputs] == [
        ("linear", ("batch", "seq", 4)),
        ("more_0", ("batch", 4)),
        ("more_1", ("batch", 4)),
    ]
    path, exported = zoo.export(source, tmp_path)
    assert exported.attempts == ()
    zoo.assert_equal(source, path, [{"batch": b, "seq": n} for b, n in ((1, 1), (2, 40), (3, 7), (7, 2))])
    inputs = zoo.inputs_at(source, {"batch": 2, "seq": 3})
    assert source.values_inside(inputs, ["mean", "amax"])


def test_a_program_without_dynamic_sizes_is_refused_unless_static_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "fixed.pt2"
    torch.export.save(torch.export.export(zoo.DigitsNet().eval(), (torch.rand(2, 1, 8, 8),)), path)
    with pytest.raises(BadSource, match=r"fixed to its example's sizes \(image \[2, 1, 8, 8\]\)") as failure:
        open_pt2(path)
    assert "dynamic_shapes=" in failure.value.remedy
    source = open_pt2(path, static=True)
    file, _ = zoo.export(source, tmp_path)
    zoo.assert_equal(source, file, [{}])


def test_an_axis_that_is_fixed_in_the_program_cannot_be_made_dynamic(tagger_pt2: Path) -> None:
    with pytest.raises(BadSource, match="axis 2 of 'x', which is not dynamic"):
        open_pt2(tagger_pt2, dynamic=(DynamicAxis("x", 2, "width"),))


def _rewritten(path: Path, target: Path, change: Callable[[str, bytes], bytes | None], add: dict[str, bytes]) -> Path:
    """A copy of an archive with other contents."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        folder = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            changed = change(name.removeprefix(f"{folder}/"), old.read(name))
            if changed is not None:
                new.writestr(name, changed)
        for name, content in add.items():
            new.writestr(f"{folder}/{name}", content)
    return target


def _in_program(old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        changed = content.decode().replace(old, new)
        assert changed != content.decode()
        return changed.encode()

    return change


class Touch:
    """Pickles into a call that would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_in_program("torch.ops.aten.relu.default", "torch.os.system"), "a call of torch.os.system"),
        (_in_program("torch.ops.aten.relu.default", "_operator.methodcaller"), "a call of _operator.methodcaller"),
        (
            _in_program("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default"),
            "a call of torch.ops.aten.from",
        ),
        (_in_program("torch.ops.aten.relu.default", "torch.ops.mine.fast.default"), "the operator 'mine::fast'"),
        (_in_program("Integer(", "__import__("), "a size that is no expression"),
        (_in_program("Symbol('s", "Symbol(().__class__, 's"), "a size that is no expression"),
        (
            _in_program('\\"type\\": \\"builtins.dict\\"', '\\"type\\": \\"mine.Thing\\"'),
            "only its author's code knows",
        ),
        (_in_program('\\"context\\": \\"[]\\"', '\\"context\\": \\"[__enum__]\\"'), "names code to import"),
        (_in_program('"name": "relu"', '"name": "relu): import os #"'), "a name that is none"),
        (lambda name, content: content[:50] if name == "models/model.json" else content, "is no JSON"),
        (lambda name, content: None if name == "models/model.json" else content, "holds no exported program"),
    ],
)
def test_a_program_that_could_run_code_is_refused_before_it_is_loaded(
    tagger_pt2: Path, tmp_path: Path, change: Any, words: str
) -> None:
    path = _rewritten(tagger_pt2, tmp_path / "evil.pt2", change, {})
    with pytest.raises((BadSource, Unsupported)) as failure:
        open_pt2(path)
    assert words in failure.value.sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("data/aotinductor/model/wrapper.so", "a compiled library"),
        ("data/constants/opaque_obj_0", "a pickled object"),
        ("data/weights/model.pt", "a pickled object"),
        ("data/constants/opaque_obj/0", "a pickled object"),
        ("models/inner/model.json", "which no exported program has"),
        ("Models/Model.json", "twice"),
        ("serialized_exported_program.json", "which no exported program has"),
    ],
)
def test_a_program_with_more_than_tensors_is_refused(tagger_pt2: Path, tmp_path: Path, name: str, words: str) -> None:
    path = _rewritten(tagger_pt2, tmp_path / "evil.pt2", lambda _, content: content, {name: b"..."})
    with pytest.raises(BadSource, match=words):
        open_pt2(path)


def test_pickles_inside_a_program_are_never_run(tagger_pt2: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    poison = tmp_path / "poison.pt"
    torch.save((Touch(trace),), poison)

    def change(name: str, content: bytes) -> bytes:
        return poison.read_bytes() if name == "data/sample_inputs/model.pt" else content

    with pytest.raises(BadSource, match="cannot be loaded as an exported program"):
        open_pt2(_rewritten(tagger_pt2, tmp_path / "evil.pt2", change, {}))

    def pickled(name: str, content: bytes) -> bytes:
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')

    with pytest.raises(BadSource, match="a pickled tensor"):
        open_pt2(_rewritten(tagger_pt2, tmp_path / "evil2.pt2", pickled, {}))

    def elsewhere(name: str, content: bytes) -> bytes:
        return content.replace(b'"path_name": "weight_0"', b'"path_name": "opaque_obj_0"')

    with pytest.raises(BadSource, match="weights that are kept in 'opaque_obj_0'"):
        open_pt2(_rewritten(tagger_pt2, tmp_path / "evil3.pt2", elsewhere, {}))
    assert not trace.exists()


def test_a_truncated_archive_is_refused(tagger_pt2: Path, tmp_path: Path) -> None:
    for opener, name in ((open_pt2, "half.pt2"), (open_script, "half.pt")):
        path = tmp_path / name
        path.write_bytes(tagger_pt2.read_bytes()[:2000])
        with pytest.raises(BadSource, match="not a whole PyTorch archive"):
            opener(path)


def _script(module: Any, path: Path) -> Path:
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.script(module), path)
    return path


class Loops(nn.Module):
    """Control flow by value: only scripted code keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for _ in range(int(steps.max())):
            x = torch.tanh(self.layer(x))
        return x, x.sum(1)


def test_a_scripted_module_keeps_its_loops_and_takes_names_in_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = _script(Loops().eval(), tmp_path / "model.pt")
    inputs = (DeclaredInput("INPUT__1", "int64", ("batch", 1)), DeclaredInput("INPUT__0", "float32", ("batch", 4)))
    source = open_script(path, inputs=inputs, outputs=("OUTPUT__0", "OUTPUT__1"))
    assert [each.name for each in source.facts.interface.inputs] == ["INPUT__0", "INPUT__1"]
    assert [each.name for each in source.facts.interface.outputs] == ["OUTPUT__0", "OUTPUT__1"]
    file, exported = zoo.export(source, tmp_path)
    assert exported.exporter == "torch.onnx.export(dynamo=False)"
    zoo.assert_equal(source, file, [{"batch": each} for each in zoo.BATCHES])
    given = {"INPUT__0": np.ones((2, 4), np.float32), "INPUT__1": np.full((2, 1), 3)}
    np.testing.assert_allclose(zoo.run_onnx(file, given)["OUTPUT__0"], source.run(given)["OUTPUT__0"], atol=1e-6)


def test_a_traced_module_takes_its_inputs_from_an_example_file(tmp_path: Path) -> None:
    images, _ = zoo.digits()
    net = zoo.trained().eval()
    with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
        torch.jit.save(torch.jit.trace(net, torch.from_numpy(images[:2])), tmp_path / "model.pt")
    net.train()
    np.savez(tmp_path / "example.npz", image=images[:2])
    source = open_script(tmp_path / "model.pt", examples=(str(tmp_path / "example.npz"),))
    assert source.facts.interface.inputs[0].shape == ("batch", 1, 8, 8)
    file, _ = zoo.export(source, tmp_path)
    zoo.assert_equal(source, file, [{"batch": each} for each in zoo.BATCHES])
    assert source.values_inside({"image": images[:1]}, ["x"]) == {}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_traced_attention_goes_through_torch_export(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with pytest.warns(DeprecationWarning, match=r"torch\.jit"):
            torch.jit.save(torch.jit.trace(encoder, torch.ones(2, 4, 8), check_trace=False), tmp_path / "model.pt")
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    source = open_script(tmp_path / "model.pt", inputs=(DeclaredInput("x", "float32", ("batch", 4, 8)),))
    file, exported = zoo.export(source, tmp_path)
    assert exported.exporter == "torch.export of the TorchScript graph"
    assert "transpose" in exported.attempts[0]
    zoo.assert_equal(source, file, [{"batch": each} for each in zoo.BATCHES])


def test_torchscript_that_does_not_tell_its_inputs_says_how_to_declare_them(tmp_path: Path) -> None:
    path = _script(Loops().eval(), tmp_path / "model.pt")
    with pytest.raises(BadSource, match="forward takes x, steps") as failure:
        open_script(path)
    assert "--input 'x:float32[batch,…]' --input 'steps:" in failure.value.remedy


class Saves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "stolen.pt")
        return x


class FromFile(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", size=1)


@pytest.mark.parametrize("module", [Saves(), FromFile()])
def test_torchscript_that_touches_files_is_refused(module: nn.Module, tmp_path: Path) -> None:
    path = _script(module, tmp_path / "model.pt")
    with pytest.raises(BadSource, match=r"a call of .*(save|from_file)"):
        open_script(path, inputs=(DeclaredInput("x", "float32", ("batch", 4)),))


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(zoo.DigitsNet(), tmp_path / "model.pt")
    with pytest.raises(BadSource, match="is a pickle of PyTorch"):
        open_script(tmp_path / "model.pt")


FACTORY = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x)

    def bare():
        return Net()

    def with_example():
        return Net(), torch.ones(2, 4)

    def raises():
        raise RuntimeError("no GPU in this house")

    def other():
        return 42

    CONSTANT = 7
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(textwrap.dedent(FACTORY))
    return path


@pytest.mark.parametrize("format_", ["safetensors", "pt"])
def test_a_factory_is_filled_with_weights(factory: Path, tmp_path: Path, format_: str) -> None:
    state = {"layer.weight": torch.full((3, 4), 0.5), "layer.bias": torch.arange(3.0)}
    weights = tmp_path / f"weights.{format_}"
    save_file(state, weights) if format_ == "safetensors" else torch.save(state, weights)
    source = open_factory(f"{factory}:with_example", weights=str(weights))
    assert source.facts.files == (factory, weights)
    path, _ = zoo.export(source, tmp_path)
    assert zoo.run_onnx(path, {"x": np.ones((3, 4), np.float32)})["output"].tolist() == [[2, 3, 4]] * 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "no GPU in this house (model.py:20 in raises)"),
        ("other", "gives a int, expected a torch.nn.Module"),
        ("absent", "has no 'absent'"),
        ("CONSTANT", "is a int, expected a function"),
        ("bare", "nothing says what the model takes; forward has the arguments x"),
    ],
)
def test_a_factory_that_does_not_make_a_model_is_refused(factory: Path, name: str, words: str) -> None:
    with pytest.raises(BadSource) as failure:
        open_factory(f"{factory}:{name}")
    assert words in failure.value.sentence


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("no_such_package.models:make", "there is no module 'no_such_package.models'"),
        ("/nowhere/model.py:make", "there is no Python file"),
        ("model.py", "names no factory"),
    ],
)
def test_a_factory_that_is_not_there_is_named(source: str, words: str) -> None:
    with pytest.raises(BadSource, match=words):
        open_factory(source)


def test_a_factory_file_that_cannot_be_imported_speaks_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("import nothing_that_exists\n")
    with pytest.raises(BadSource, match="needs the module 'nothing_that_exists'"):
        open_factory(f"{path}:make")
    path.write_text("1 / 0\n")
    with pytest.raises(BadSource, match=r"raises when it is imported: ZeroDivisionError: .*\(broken.py:1"):
        open_factory(f"{path}:make")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"layer.weight": torch.ones(3, 4)}, "missing layer.bias"),
        ({"layer.weight": torch.ones(3, 4), "layer.bias": torch.ones(3), "x": torch.ones(1)}, "unexpected x"),
        ({"layer.weight": torch.ones(4, 3), "layer.bias": torch.ones(3)}, r"layer.weight \[4, 3\], expected \[3, 4\]"),
        ([1, 2], "holds a list, expected tensors by name"),
        (None, "there are no weights at"),
        (b"PK rubbish", "cannot be read"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(factory: Path, tmp_path: Path, state: Any, words: str) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(state, bytes):
        path.write_bytes(state)
    elif state is not None:
        torch.save(state, path)
    with pytest.raises(BadSource, match=words):
        open_factory(f"{factory}:with_example", weights=str(path))


def test_pickled_weights_are_never_run(factory: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"layer.weight": Touch(trace)}, tmp_path / "weights.pt")
    with pytest.raises(BadSource, match="holds pickled objects"):
        open_factory(f"{factory}:with_example", weights=str(tmp_path / "weights.pt"))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            json.dumps({"inputs": [{"name": "y", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}),
            "do not fit",
        ),
        (json.dumps({"x": [[1.0, 2.0]]}), "raises on the example inputs"),
        (json.dumps({"x": "cat"}), "no numbers"),
        ("{", "cannot be read"),
    ],
)
def test_examples_that_do_not_fit_are_refused(factory: Path, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "example.json"
    path.write_text(content)
    with pytest.raises(CommandFailed, match=words):
        open_factory(f"{factory}:bare", examples=(str(path),))
