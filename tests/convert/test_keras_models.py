"""Keras files: trained models, names of inputs and outputs, and files that hold code, miss classes, or are damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.convert.tensorflow_zoo import TRAINED_ON, Zoo, assert_equal, digits, inner_values, opened, run_onnx

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import DeclaredInput, DynamicAxis, SourceKind
from tensorquay_convert.sources import tensorflow_graph
from tensorquay_convert.tensors import Meaning

pytestmark = pytest.mark.frameworks

KIND = SourceKind.KERAS


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_trained_cnn(tensorflow_zoo: Zoo, tmp_path: Path, suffix: str) -> None:
    images, labels = digits()
    source = opened(KIND, tensorflow_zoo.saved("cnn", suffix))
    assert source.facts.shown.startswith("a Keras model (Functional 'functional")
    assert source.facts.versions["keras"]
    path = assert_equal(source, tmp_path)
    answer = run_onnx(path, {"image": images[TRAINED_ON:]})["digit"]
    assert (answer.argmax(1) == labels[TRAINED_ON:]).mean() > 0.9


def test_a_trained_recurrent_net_at_any_length(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    images, labels = digits()
    source = opened(KIND, tensorflow_zoo.saved("reader"), dynamic=(DynamicAxis("rows", 1, "length"),))
    assert source.facts.interface.inputs[0].shape == ("batch", "length", 8)
    path = assert_equal(source, tmp_path)
    rows = images[TRAINED_ON:, ..., 0]
    assert (run_onnx(path, {"rows": rows})["digit"].argmax(1) == labels[TRAINED_ON:]).mean() > 0.8
    # Values around a recurrent layer lie time first in ONNX: none may be told as if it did not.
    inputs = {"rows": rows[:2]}
    names = [output for node in onnx.load(path).graph.node for output in node.output if output]
    known = source.values_inside(inputs, names)
    assert known
    for name, value in inner_values(path, inputs, list(known)).items():
        np.testing.assert_allclose(value, known.get(name, value), atol=1e-4, err_msg=name)


def test_two_inputs_and_two_outputs_keep_their_names(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    source = opened(KIND, tensorflow_zoo.saved("pair"))
    ids, mask = source.facts.interface.inputs
    assert (ids.name, ids.shape, ids.values.meaning, ids.values.high) == (
        "ids",
        ("batch", "axis1"),
        Meaning.TOKEN_IDS,
        29,
    )
    assert (mask.name, mask.shape, mask.values.meaning) == ("mask", ("batch", "axis1"), Meaning.MASK)
    assert [(each.name, each.shape) for each in source.facts.interface.outputs] == [
        ("pooled", ("batch", 16)),
        ("tokens", ("batch", "axis1", 16)),
    ]
    assert_equal(source, tmp_path)


def test_a_fixed_batch_is_freed(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    keras = tensorflow_zoo.keras
    model = keras.Sequential([keras.Input(batch_shape=(4, 6), name="x"), keras.layers.Dense(3, name="y")])
    tensorflow_zoo.save(model, tmp_path / "model.keras")
    source = opened(KIND, tmp_path / "model.keras")
    assert source.facts.interface.inputs[0].shape == ("batch", 6)
    assert_equal(source, tmp_path)


def test_a_model_that_was_never_called_needs_its_input_declared(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    keras = tensorflow_zoo.keras
    path = tmp_path / "model.keras"
    tensorflow_zoo.save(keras.Sequential([keras.layers.Dense(3)]), path)
    with pytest.raises(BadSource, match=r"does not say what it takes: it was never called"):
        opened(KIND, path)
    assert_equal(opened(KIND, path, inputs=(DeclaredInput("x", "float32", ("batch", 5)),)), tmp_path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_is_code_and_is_not_run(tensorflow_zoo: Zoo, tmp_path: Path, suffix: str) -> None:
    keras = tensorflow_zoo.keras
    path = tmp_path / f"model{suffix}"
    twice = keras.layers.Lambda(lambda x: x * 2, name="twice")
    tensorflow_zoo.save(keras.Sequential([keras.Input((2,)), twice]), path)
    with pytest.raises(BadSource, match=r"holds Python code: layer 'twice' \(Lambda\); such code is never run"):
        opened(KIND, path)


def test_a_class_that_is_not_keras_own_is_named(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    keras = tensorflow_zoo.keras

    class Mine(keras.layers.Layer):
        def call(self, x: object) -> object:
            return x

    path = tmp_path / "model.keras"
    tensorflow_zoo.save(keras.Sequential([keras.Input((2,)), Mine(name="own")]), path)
    with pytest.raises(BadSource, match=r"needs the class '.*Mine', which is not Keras' own") as caught:
        opened(KIND, path)
    assert "model.export" in caught.value.remedy


def test_texts_are_refused_by_layer(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    keras = tensorflow_zoo.keras
    path = tmp_path / "model.keras"
    words = keras.layers.StringLookup(vocabulary=["a", "b"], name="words")
    tensorflow_zoo.save(keras.Sequential([keras.Input((1,), dtype="string"), words]), path)
    with pytest.raises(Unsupported, match=r"layer 'words' \(StringLookup\) of 'model.keras' works on texts"):
        opened(KIND, path)


def test_tables_of_numbers_are_refused_by_operator(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    keras = tensorflow_zoo.keras
    path = tmp_path / "model.keras"
    lookup = keras.layers.IntegerLookup(vocabulary=[3, 5])
    tensorflow_zoo.save(keras.Sequential([keras.Input((1,), dtype="int64"), lookup]), path)
    with pytest.raises(Unsupported, match=r"LookupTableFindV2, node '.+'"):
        opened(KIND, path)


def test_damage_and_weights_alone(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    whole = tensorflow_zoo.saved("cnn")
    cut = tmp_path / "cut.keras"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(BadSource, match=r"'cut.keras' is no Keras model, or damaged or cut off"):
        opened(KIND, cut)
    cut.write_bytes(tensorflow_zoo.saved("cnn", ".h5").read_bytes()[:3000])
    with pytest.raises(BadSource, match=r"'cut.keras' cannot be read: it is damaged or cut off"):
        opened(KIND, cut)
    turned = bytearray(whole.read_bytes())
    turned[len(turned) // 2] ^= 0xFF
    cut.write_bytes(turned)
    with pytest.raises(BadSource, match=r"damaged"):
        opened(KIND, cut)
    with zipfile.ZipFile(cut, "w") as archive:
        archive.writestr("config.json", "{")
    with pytest.raises(BadSource, match=r"is no Keras model, or damaged"):
        opened(KIND, cut)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(cut, "w") as target:
        target.writestr("config.json", source.read("config.json"))
        target.writestr("metadata.json", source.read("metadata.json"))
    with pytest.raises(BadSource, match=r"cannot load 'cut.keras'"):
        opened(KIND, cut)
    weights = tmp_path / "model.weights.h5"
    with tensorflow_graph.quiet():
        tensorflow_zoo.cnn.save_weights(weights)
    with pytest.raises(BadSource, match=r"'model.weights.h5' holds weights only") as caught:
        opened(KIND, weights)
    assert "model.save('model.keras')" in caught.value.remedy


def test_captured_constants_are_no_inputs(tensorflow_zoo: Zoo, tmp_path: Path) -> None:
    keras = tensorflow_zoo.keras
    path = tmp_path / "model.keras"
    scaled = keras.layers.Normalization(mean=np.arange(3.0), variance=np.ones(3))
    tensorflow_zoo.save(keras.Sequential([keras.Input((3,), name="x"), scaled, keras.layers.Dense(2)]), path)
    source = opened(KIND, path)
    assert [spec.name for spec in source.facts.interface.inputs] == ["x"]
    assert_equal(source, tmp_path)
