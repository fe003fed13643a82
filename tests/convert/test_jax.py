"""JAX: functions with parameters and flax modules, from a factory or in hand, are served as they answered."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("jax2onnx")

import jax.numpy as jnp  # noqa: E402
from tests.convert import tabular  # noqa: E402
from tests.support.serving import RunningServer  # noqa: E402

from tensorquay_convert.errors import BadSource, Unsupported  # noqa: E402
from tensorquay_convert.importing import import_model  # noqa: E402
from tensorquay_convert.job import DeclaredInput, DynamicAxis, ImportJob, SourceKind  # noqa: E402
from tensorquay_convert.sources.jax_factory import JaxConverter, open_function  # noqa: E402

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:jax2onnx.*"),
]

MODEL = """
    import jax, jax.numpy as jnp, numpy as np

    def predict(params, input):
        hidden = jnp.tanh(input @ params["w"] + params["b"])
        return {"scores": jax.nn.softmax(hidden @ params["out"]), "norm": (hidden ** 2).sum(-1)}

    def make():
        random = np.random.default_rng(0)
        params = {name: random.normal(size=shape).astype("float32") * 0.3
                  for name, shape in (("w", (13, 8)), ("b", (8,)), ("out", (8, 3)))}
        return predict, params, (np.zeros((2, 13), "float32"),)

    def raises():
        raise RuntimeError("no weights today")

    number = lambda: 3
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(textwrap.dedent(MODEL))
    return path


def opened(source: str, **job: Any) -> Any:
    return JaxConverter().open(ImportJob(source, **job), SourceKind.JAX_FACTORY, tabular.say)


def test_from_a_factory_to_a_server(module: Path, tmp_path: Path, serve: Callable[..., RunningServer]) -> None:
    rows = np.random.default_rng(1).normal(size=(5, 13)).astype(np.float32)
    expected = opened(f"{module}:make").run({"input": rows})
    results, told = tabular.imported_and_served({"jax": f"{module}:make"}, tmp_path / "repo", serve, rows)
    assert (results["jax"].kind, results["jax"].proof["passed"]) == (SourceKind.JAX_FACTORY, True)
    assert told["jax"].keys() == {"scores", "norm"}
    for name, value in expected.items():
        np.testing.assert_allclose(told["jax"][name], value, atol=1e-5)


def test_a_convolutional_net_of_flax_in_hand(tmp_path: Path) -> None:
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self) -> None:
            rngs = nnx.Rngs(0)
            self.conv = nnx.Conv(1, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.head = nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, image: Any) -> Any:
            features = nnx.max_pool(nnx.relu(self.norm(self.conv(image))), window_shape=(2, 2), strides=(2, 2))
            return self.head(features.reshape(features.shape[0], -1))

    net = Net()
    net.eval()
    source = open_function(net, np.zeros((2, 8, 8, 1), np.float32), ImportJob("net"))
    assert source.facts.interface.inputs[0].shape == ("batch", 8, 8, 1)
    assert source.facts.interface.outputs[0].shape == ("batch", 10)
    tabular.prove(source, tmp_path, np.random.default_rng(0).random((32, 8, 8, 1), np.float32))


def test_a_second_axis_can_be_dynamic_and_outputs_chosen(tmp_path: Path) -> None:
    job = ImportJob("f", dynamic=(DynamicAxis("ids", 1, "seq"),), outputs=("mean",))
    table = jnp.asarray(np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32))

    def embed(ids: Any) -> Any:
        found = jnp.take(table, ids, axis=0)
        return {"mean": found.mean(1), "all": found}

    source = open_function(embed, {"ids": np.zeros((2, 5), np.int32)}, job)
    assert source.facts.interface.inputs[0].shape == ("batch", "seq")
    assert [each.name for each in source.facts.interface.outputs] == ["mean"]
    path = tabular.finished(source, tmp_path)
    for shape in ((1, 1), (3, 9), (7, 2)):
        ids = np.random.default_rng(1).integers(0, 50, shape).astype(np.int32)
        tabular.assert_same(tabular.run_onnx(path, {"ids": ids}), dict(source.run({"ids": ids})))


@pytest.mark.parametrize(
    ("name", "job", "words"),
    [
        ("absent", {}, "has no function 'absent'"),
        ("raises", {}, "RuntimeError: no weights today"),
        ("number", {}, "gives a int, expected a function"),
        ("make", {"weights": "w.safetensors"}, "--weights is not used"),
        ("make", {"outputs": ("label",)}, "no output 'label'; it has norm, scores"),
        ("make", {"inputs": (DeclaredInput("x", "float32", ("batch", 7)),)}, r"does not take x:float32\['batch', 7\]"),
        ("make", {"inputs": (DeclaredInput("x", "float64", ("batch", 13)),)}, "JAX makes float32"),
        ("make", {"dynamic": (DynamicAxis("input", 5, "n"),)}, "there is no axis 5"),
    ],
)
def test_what_cannot_be_opened_is_refused(name: str, job: Any, words: str, module: Path) -> None:
    with pytest.raises(BadSource, match=words):
        opened(f"{module}:{name}", **job)


def test_a_function_that_says_nothing_about_its_inputs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    with pytest.raises(BadSource, match="nothing says what the function takes"):
        import_model(jnp.sin, name="m", repository=tmp_path / "repo")


def test_a_primitive_without_onnx_is_named(tmp_path: Path) -> None:
    source = open_function(lambda x: jnp.linalg.svd(x)[1], np.zeros((2, 3, 3), np.float32), ImportJob("svd"))
    with pytest.raises(Unsupported, match="svd"):
        source.export(tmp_path / "model.onnx", tabular.say)
