"""TFLite files: float and quantized, dynamic and fixed batches, operators that reach outside, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.convert.tensorflow_zoo import TRAINED_ON, Zoo, assert_equal, digits, opened, run_onnx

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import SourceKind
from tensorquay_convert.sources import tensorflow_graph

pytestmark = pytest.mark.frameworks

KIND = SourceKind.TFLITE


def _converted(zoo: Zoo, path: Path, function: Any, *shape: int, flex: bool = False) -> Path:
    lite = zoo.tf.lite
    spec = zoo.tf.TensorSpec(shape, "float32", name="x")
    with tensorflow_graph.quiet():
        traced = zoo.tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()
        converter = lite.TFLiteConverter.from_concrete_functions([traced])
        if flex:
            converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS, lite.OpsSet.SELECT_TF_OPS]
        path.write_bytes(converter.convert())
    return path


def test_a_trained_float_cnn(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    images, labels = digits()
    source = opened(KIND, tensorflow_zoo.lite("float"))
    assert source.facts.shown.startswith("a TFLite model, ")
    assert [spec.shape for spec in source.facts.interface.inputs] == [("batch", 8, 8, 1)]
    path = assert_equal(source, tmp_path)
    answer = run_onnx(path, {"image": images[TRAINED_ON:]})["output_0"]
    assert (answer.argmax(1) == labels[TRAINED_ON:]).mean() > 0.9
    assert source.values_inside({"image": images[:1]}, ["anything"]) == {}
    source.close()


@pytest.mark.parametrize(("kind", "dtype"), [("int8", "float32"), ("int8io", "int8")])
def test_a_quantized_cnn_stays_quantized(tensorflow_zoo: Zoo, tmp_path: Path, kind: str, dtype: str) -> None:
    images, labels = digits()
    source = opened(KIND, tensorflow_zoo.lite(kind))
    assert source.facts.shown.startswith("a quantized TFLite model, ")
    assert any("judge by top-1 agreement" in note for note in source.facts.notes)
    assert source.facts.interface.inputs[0].dtype == dtype
    path = tmp_path / "model.onnx"
    source.export(path, lambda said: None)
    assert "DequantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}
    given = images[TRAINED_ON:]
    if dtype == "int8":
        given = np.clip(np.round(given * 255 / 16) - 128, -128, 127).astype("int8")
    answer = run_onnx(path, {"image": given})["output_0"]
    expected = source.run({"image": given})["output_0"]
    assert answer.dtype == expected.dtype == np.dtype(dtype)
    assert (answer.argmax(1) == expected.argmax(1)).mean() > 0.99
    assert (answer.argmax(1) == labels[TRAINED_ON:]).mean() > 0.88


def test_a_fixed_batch_is_freed_where_the_graph_allows_it(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    tf = tensorflow_zoo.tf
    weights = np.random.default_rng(0).standard_normal((4, 3)).astype("f4")
    source = opened(KIND, _converted(tensorflow_zoo, tmp_path / "free.tflite", lambda x: tf.tanh(x @ weights), 1, 4))
    assert source.facts.interface.inputs[0].shape == ("batch", 4)
    assert any("its batch axis was fixed at 1" in note for note in source.facts.notes)
    assert_equal(source, tmp_path)


def test_a_batch_that_is_built_in_is_refused_unless_static(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    path = tensorflow_zoo.lite("fixed")
    with pytest.raises(Unsupported, match=r"its batch axis is fixed at 1, and that is built into the graph") as caught:
        opened(KIND, path)
    assert "--static" in caught.value.remedy
    source = opened(KIND, path, static=True)
    assert source.facts.interface.inputs[0].shape == (1, 8, 8, 1)
    assert_equal(source, tmp_path)


def test_what_reaches_outside_is_refused(tensorflow_zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tf = tensorflow_zoo.tf

    def reads(x: Any) -> Any:
        return x + tf.strings.to_number(tf.io.read_file("/etc/hostname"))

    path = _converted(tensorflow_zoo, tmp_path / "reads.tflite", reads, 1, 4, flex=True)

    def made(*given: Any, **named: Any) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(tf.lite, "Interpreter", made)
    with pytest.raises(BadSource, match=r"has an operator that reads or writes files: FlexReadFile; it is not loaded"):
        opened(KIND, path)


def test_an_operator_without_onnx_is_named(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    path = _converted(tensorflow_zoo, tmp_path / "odd.tflite", tensorflow_zoo.tf.linalg.det, 1, 2, 2, flex=True)
    with pytest.raises(Unsupported, match=r"cannot run what 'odd.tflite' needs: FlexMatrixDeterminant"):
        opened(KIND, path).export(tmp_path / "model.onnx", lambda said: None)


def test_damage_and_signatures(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    whole = tensorflow_zoo.lite("float").read_bytes()
    path = tmp_path / "cut.tflite"
    for content in (whole[: len(whole) // 2], whole[:40], whole[:8] + bytes(64)):
        path.write_bytes(content)
        with pytest.raises(BadSource, match=r"'cut.tflite' is damaged or cut off"):
            opened(KIND, path)
    path.write_bytes(b"something else")
    with pytest.raises(BadSource, match=r"is no TFLite file"):
        opened(KIND, path)
    with pytest.raises(BadSource, match=r"has no signature 'nope'; there are 'serving_default'"):
        opened(KIND, tensorflow_zoo.lite("float"), signature="nope")
    with pytest.raises(BadSource, match=r"has no signatures, so none called 'nope'"):
        opened(KIND, tensorflow_zoo.lite("fixed"), signature="nope")
