"""Small TensorFlow models for the import tests, made when first asked for, and how an import is compared with them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from sklearn.datasets import load_digits

from tensorquay_convert.api import OpenSource
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.registry import converter_for
from tensorquay_convert.sources import tensorflow_graph
from tensorquay_convert.sources.tensorflow_axes import sample
from tensorquay_convert.sources.tensorflow_source import Description, TensorflowSource

BATCHES = (1, 2, 3, 7)
TRAINED_ON = 1200


def tensorflow() -> Any:
    """TensorFlow, as the worker would load it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return tensorflow_graph.load_tensorflow(SourceKind.SAVED_MODEL)


def silently(say: str) -> None:
    """A `Say` that nobody hears."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images of shape (1797, 8, 8, 1), 0 to 16, and what they show."""
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype(np.float32), labels


def opened(kind: SourceKind, path: Path, **job: Any) -> OpenSource:
    """A source as the worker opens it."""
    return converter_for(kind).open(ImportJob(str(path), **job), kind, silently)


def of_function(function: Callable[..., Any], **specs: Any) -> TensorflowSource:
    """A Python function of tensors as a source; `specs` are (shape, dtype) by input name."""
    tf = tensorflow()
    given = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in specs.items()]
    with tensorflow_graph.quiet():
        concrete = tf.function(function, input_signature=given, autograph=False).get_concrete_function()
        inputs = [tensorflow_graph.port(name, each, "it") for name, each in zip(specs, concrete.inputs, strict=False)]
        outputs = [tensorflow_graph.port(f"y{index}", each, "it") for index, each in enumerate(concrete.outputs)]
        frozen = tensorflow_graph.freeze(concrete, inputs, outputs)

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        answers = tf.nest.flatten(concrete(*[tf.constant(arrays[name]) for name in specs]))
        return {f"y{index}": answer.numpy() for index, answer in enumerate(answers)}

    return TensorflowSource(ImportJob("function"), frozen, run, Description(SourceKind.GRAPH_DEF, "a function", ()))


def run_onnx(path: Path | bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime answers, by output name."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def assert_equal(source: OpenSource, folder: Path, atol: float = 1e-5, inputs: Any = None) -> Path:
    """Export `source` and compare at every batch size; the other dynamic axes differ from run to run."""
    path = folder / "model.onnx"
    source.export(path, silently)
    interface = source.facts.interface
    written = onnx.load(path, load_external_data=False).graph
    for found, specs in ((written.input, interface.inputs), (written.output, interface.outputs)):
        assert [each.name for each in found] == [spec.name for spec in specs]
        shapes = [tuple(d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim) for each in found]
        assert shapes == [spec.shape for spec in specs]
    generator = np.random.default_rng(7)
    for batch in BATCHES:
        sizes = {"batch": batch}
        for axis in {axis for spec in interface.inputs for axis in spec.dynamic} - {"batch"}:
            bounds = interface.axes.get(axis)
            low, multiple = (bounds.low, bounds.multiple) if bounds else (1, 1)
            sizes[axis] = min(low + multiple * (batch - 1), (bounds and bounds.high) or 1 << 30)
        given = inputs or {spec.name: sample(spec, sizes, generator) for spec in interface.inputs}
        expected, got = source.run(given), run_onnx(path, given)
        assert list(got) == list(expected)
        for name, value in expected.items():
            assert got[name].dtype == value.dtype
            np.testing.assert_allclose(got[name], value, atol=atol, rtol=1e-4, err_msg=f"{name} at {sizes}")
    return path


def inner_values(path: Path, inputs: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """Values inside the exported graph, by name."""
    model = onnx.load(path)
    outputs = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    return run_onnx(model.SerializeToString(), inputs)


class Zoo:
    """Models on disk under `root`; each is made once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tf = tensorflow()
        import keras

        self.keras = keras

    @functools.cached_property
    def cnn(self) -> Any:
        """A trained CNN with what is only right in inference mode."""
        layers = self.keras.layers
        self.keras.utils.set_random_seed(0)
        image = self.keras.Input((8, 8, 1), name="image")
        x = layers.Rescaling(1 / 16)(image)
        x = layers.Conv2D(12, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(0.2)(layers.Conv2D(16, 3, activation="gelu")(x))
        model = self.keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(layers.Flatten()(x)))
        return self._trained(model, epochs=9)

    @functools.cached_property
    def reader(self) -> Any:
        """A trained bidirectional LSTM that reads the rows of a digit, however many."""
        layers = self.keras.layers
        self.keras.utils.set_random_seed(0)
        return self._trained(
            self.keras.Sequential(
                [
                    self.keras.Input((None, 8), name="rows"),
                    layers.Bidirectional(layers.LSTM(16, return_sequences=True)),
                    layers.GRU(12),
                    layers.Dense(10, activation="softmax", name="digit"),
                ]
            ),
            epochs=4,
        )

    @functools.cached_property
    def pair(self) -> Any:
        """Attention over token ids with a mask and positions: two inputs, two named outputs."""
        keras, layers = self.keras, self.keras.layers
        keras.utils.set_random_seed(0)
        ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="mask")
        x = layers.Embedding(30, 8)(ids)
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask[:, None] > 0))
        tokens = layers.Dense(16, activation="gelu")(x)
        weights = keras.ops.cast(mask[..., None], "float32")
        pooled = keras.ops.sum(tokens * weights, axis=1) / keras.ops.sum(weights, axis=1)
        return keras.Model({"ids": ids, "mask": mask}, {"tokens": tokens, "pooled": pooled})

    def _trained(self, model: Any, epochs: int) -> Any:
        images, labels = digits()
        shaped = images if len(model.inputs[0].shape) == 4 else images[..., 0]
        with tensorflow_graph.quiet():
            model.compile(self.keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
            model.fit(shaped[:TRAINED_ON], labels[:TRAINED_ON], epochs=epochs, batch_size=64, verbose=0)
        return model

    def saved(self, name: str, suffix: str = ".keras") -> Path:
        """The model of that attribute, saved by Keras."""
        path = self.root / f"{name}{suffix}"
        if not path.exists():
            self.save(getattr(self, name), path)
        return path

    @staticmethod
    def save(model: Any, path: Path) -> None:
        """Keras' `save`, without its warnings about numpy and HDF5."""
        with tensorflow_graph.quiet():
            model.save(path)

    def exported(self, name: str) -> Path:
        """The same as a SavedModel."""
        path = self.root / f"{name}.savedmodel"
        if not path.exists():
            with tensorflow_graph.quiet():
                getattr(self, name).export(path, verbose=False)
        return path

    @functools.cached_property
    def frozen(self) -> Path:
        """The CNN as a frozen graph."""
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2,
        )

        cnn = self.cnn  # made, and trained, before anything is traced
        spec = self.tf.TensorSpec([None, 8, 8, 1], self.tf.float32, name="image")
        function = self.tf.function(lambda image: cnn(image, training=False), input_signature=[spec])
        graph = convert_variables_to_constants_v2(function.get_concrete_function()).graph.as_graph_def()
        path = self.root / "cnn.pb"
        path.write_bytes(graph.SerializeToString())
        return path

    def lite(self, kind: str) -> Path:
        """The CNN as TFLite: "float", "int8" inside, "int8io" at its ends too, "fixed" at batch 1."""
        path = self.root / f"cnn-{kind}.tflite"
        if path.exists():
            return path
        lite, cnn = self.tf.lite, self.cnn
        with tensorflow_graph.quiet():
            if kind == "fixed":
                spec = self.tf.TensorSpec([1, 8, 8, 1], self.tf.float32, name="image")
                function = self.tf.function(lambda image: cnn(image, training=False), input_signature=[spec])
                converter = lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
            else:
                converter = lite.TFLiteConverter.from_keras_model(cnn)
            if kind.startswith("int8"):
                converter.optimizations = [lite.Optimize.DEFAULT]
                converter.representative_dataset = lambda: ([each[None]] for each in digits()[0][:40])
            if kind == "int8io":
                converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = converter.inference_output_type = self.tf.int8
            path.write_bytes(converter.convert())
        return path

    def module(self, name: str, **signatures: tuple[Callable[..., Any], Mapping[str, Any]]) -> Path:
        """A `tf.Module` with a weight `w` of shape (4, 3), saved with signatures of (function of (w, …), specs)."""
        tf, path = self.tf, self.root / name
        if path.exists():
            return path
        holder = tf.Module()
        holder.w = tf.Variable(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32))
        functions = {}
        with tensorflow_graph.quiet():
            for key, (function, specs) in signatures.items():
                given = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in specs.items()]
                bound = functools.partial(function, holder.w)
                functions[key] = tf.function(bound, autograph=False).get_concrete_function(*given)
            tf.saved_model.save(holder, str(path), signatures=functions)
        return path
