"""Operators for which tf2onnx alone writes an invalid or a wrong model, each through a real TensorFlow function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.convert.tensorflow_zoo import Zoo, assert_equal, of_function, opened, silently

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.job import SourceKind

pytestmark = pytest.mark.frameworks

ROW = ((None, 6), "float32")
EDGES = np.array([[-1.0, -0.999, -1e-7, 0.0, 1e-7, 3e38], [-0.0, 0.5, 1.0, 1.5, -40.0, 90.0]], np.float32)


@pytest.mark.parametrize("name", ["erfc", "expm1", "log1p"])
def test_functions_near_0_and_at_their_ends(tensorflow_zoo: Zoo, tmp_path: Path, name: str) -> None:
    tf = tensorflow_zoo.tf
    source = of_function(getattr(tf.math, name), x=ROW)
    assert_equal(
        source, tmp_path, atol=1e-6, inputs={"x": np.random.default_rng(0).uniform(-0.9, 3, (5, 6)).astype("f4")}
    )
    assert_equal(source, tmp_path, atol=1e-9, inputs={"x": EDGES})


@pytest.mark.parametrize(
    "build",
    [
        lambda tf, keras: keras.activations.gelu,
        lambda tf, keras: keras.activations.celu,
        lambda tf, keras: keras.layers.Discretization([-1.0, 0.0, 0.5]),
        lambda tf, keras: keras.layers.Normalization(mean=np.arange(6.0), variance=np.arange(1.0, 7)),
        lambda tf, keras: lambda x: tf.bitwise.bitwise_and(tf.cast(x * 9, tf.int32), 5),
        lambda tf, keras: lambda x: keras.ops.one_hot(keras.ops.argmax(x, axis=-1), 6),
    ],
    ids=["gelu", "celu", "discretization", "normalization", "bitwise", "one-hot-argmax"],
)
def test_what_keras_emits(tensorflow_zoo: Zoo, tmp_path: Path, build: Callable[..., Any]) -> None:
    assert_equal(of_function(build(tensorflow_zoo.tf, tensorflow_zoo.keras), x=ROW), tmp_path)


def test_argmax_knows_minus_zero(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    """Keras reads the sign bit to put -0 below 0; ONNX has no such view of a float."""
    source = of_function(lambda x: tensorflow_zoo.keras.ops.argmax(x, axis=-1), x=ROW)
    tricky = np.array([[-0.0, 0.0, -1, -np.inf, -0.0, -2], [-np.inf, -1, -0.0, -0.0, 0.0, -3]], np.float32)
    assert source.run({"x": tricky})["y0"].tolist() == [1, 4]
    assert_equal(source, tmp_path, inputs={"x": tricky})


@pytest.mark.parametrize("how", ["half_pixel_centers", "align_corners", ""])
@pytest.mark.parametrize("name", ["resize_bilinear", "resize_nearest_neighbor", "resize_bicubic"])
def test_images_are_resized_to_the_size_that_was_asked_for(
    tensorflow_zoo: Zoo, tmp_path: Path, name: str, how: str
) -> None:
    resize = getattr(tensorflow_zoo.tf.raw_ops, "".join(part.title() for part in name.split("_")))
    images = ((None, 12, 10, 3), "float32")
    for size in ([7, 9], [24, 17]):
        source = of_function(lambda x, s=size: resize(images=x, size=s, **({how: True} if how else {})), x=images)
        assert source.facts.interface.outputs[0].shape == ("batch", *size, 3)
        # TensorFlow's cubic coefficients come from a table of 1024 steps.
        assert_equal(source, tmp_path, atol=5e-3 if name == "resize_bicubic" else 1e-4)


def test_grouped_convolutions_are_inlined(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    layer = tensorflow_zoo.keras.layers.Conv2D(6, 3, groups=3, strides=2, padding="same")
    layer.build((None, 9, 9, 3))
    path = assert_equal(of_function(layer, x=((None, 9, 9, 3), "float32")), tmp_path)
    assert [node.op_type for node in onnx.load(path).graph.node].count("Conv") == 1


def test_outputs_may_be_inputs_or_each_other_and_inputs_unused(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    def passing(x: Any, unused: Any) -> tuple[Any, ...]:
        doubled = x * 2
        return x, doubled, doubled

    source = of_function(passing, x=ROW, unused=ROW)
    assert [spec.name for spec in source.facts.interface.inputs] == ["x", "unused"]
    assert_equal(source, tmp_path)


def test_indices_stay_within_their_table(tensorflow_zoo: Zoo) -> None:
    table = np.zeros((9, 2), np.float32)
    source = of_function(lambda ids: tensorflow_zoo.tf.gather(table, ids), ids=((None, None), "int64"))
    (spec,) = source.facts.interface.inputs
    assert (spec.values.low, spec.values.high) == (0, 8)


def test_what_has_no_onnx_is_named_with_its_node(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    tf = tensorflow_zoo.tf

    def unusual(x: Any) -> Any:
        return tf.math.lgamma(x, name="first") + tf.math.lgamma(x * 2, name="second") + tf.math.digamma(x, name="other")

    source = of_function(unusual, x=ROW)
    with pytest.raises(Unsupported, match=r"Digamma \(node 'other'\), Lgamma \(node 'first' and 1 more\)") as caught:
        source.export(tmp_path / "model.onnx", silently)
    assert caught.value.facts == {"operator": "Digamma", "node": "other", "nodes": 3}
    assert not (tmp_path / "model.onnx").exists()


def test_an_opset_tf2onnx_does_not_write_is_refused(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    path = tensorflow_zoo.module("opset", a=(lambda w, x: x @ w, {"x": ((None, 4), "float32")}))
    kind = SourceKind.SAVED_MODEL
    for opset in (13, 17):
        source = opened(kind, path, opset=opset)
        assert source.export(tmp_path / "m.onnx", silently).opset == opset
        assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset
    with pytest.raises(Unsupported, match="opset 23 is not one that tf2onnx writes"):
        opened(kind, path, opset=23).export(tmp_path / "n.onnx", silently)


def test_a_large_model_keeps_its_weights_beside_it(
    tensorflow_zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorquay_convert.sources.tensorflow_export.EXTERNAL_ABOVE_BYTES", 1000)
    table = tensorflow_zoo.tf.Variable(np.random.default_rng(0).standard_normal((6, 400)).astype("f4"))
    source = of_function(lambda x: x @ table, x=ROW)
    assert_equal(source, tmp_path)
    assert (tmp_path / "model.onnx").stat().st_size < 6 * 400 * 4 < (tmp_path / "model.onnx.data").stat().st_size + 1
