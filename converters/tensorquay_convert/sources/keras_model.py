"""Keras models in files of their own: `.keras`, and the older `.h5`.

A file may name code (lambdas, classes of strangers). It is read as data first, and what is not Keras' own is refused
by name; Keras then loads with its safe mode, always.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from tensorquay_convert.api import OpenSource, Say
from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import tensorflow_graph
from tensorquay_convert.sources.tensorflow_ops import refuse_texts
from tensorquay_convert.sources.tensorflow_source import Description, TensorflowSource
from tensorquay_convert.tensors import Arrays

_EXPORT = "in the training program, write the model with model.export('folder') and import that SavedModel"
_TEXT_LAYERS = frozenset({"StringLookup", "TextVectorization", "HashedCrossing"})
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_CONFIG_BYTES = 64 << 20


class KerasConverter:
    """Opens `.keras` and `.h5` files."""

    kinds = (SourceKind.KERAS,)
    extra = "tensorflow"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:
        """See `Converter`."""
        path = Path(job.source)
        config = _config(path)
        _refuse_code(config, path)
        tensorflow = tensorflow_graph.load_tensorflow(kind)
        say("loading the Keras model")
        with tensorflow_graph.quiet():
            model = _load(path)
            specs = _input_specs(tensorflow, model, job, path)
            function, structure = _traced(tensorflow, model, specs, path)
            what = f"the Keras model '{path.name}'"
            captured = len(function.captured_inputs)
            entered = function.inputs[: len(function.inputs) - captured]
            inputs = [
                tensorflow_graph.port(spec.name, tensor, what) for spec, tensor in zip(specs, entered, strict=True)
            ]
            outputs = [
                tensorflow_graph.port(name, tensor, what)
                for name, tensor in zip(structure, function.outputs, strict=True)
            ]
            frozen = tensorflow_graph.freeze(function, inputs, outputs)
        refuse_texts(frozen.graph_def, what)
        count = tensorflow_graph.counted(frozen, int(model.count_params()))
        about = Description(
            kind=kind,
            shown=f"a Keras model ({type(model).__name__} '{model.name}'), {count}",
            files=(path,),
            packages=("keras",),
        )

        def run(given: Arrays) -> Arrays:
            # As `model.predict` does it: traced. Eagerly, a recurrent layer would take seconds.
            tensors = [tensorflow_graph.to_tensor(tensorflow, given[each.name], each.dtype) for each in inputs]
            answers = tensorflow.nest.flatten(function(*tensors))
            return {name: tensorflow_graph.to_array(each) for name, each in zip(structure, answers, strict=True)}

        return TensorflowSource(job, frozen, run, about)


def _config(path: Path) -> Any:
    """The model's description as JSON, read without Keras.

    Raises: BadSource for what is neither form, has weights only, or is damaged.
    """
    weights_only = BadSource(
        f"'{path.name}' holds weights only, not the model they belong to",
        remedy="save the whole model: model.save('model.keras')",
    )
    try:
        with path.open("rb") as file:
            start = file.read(len(_HDF5))
        if start == _HDF5:
            return _hdf5_config(path, weights_only)
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _MOST_CONFIG_BYTES:
                raise BadSource(f"config.json in '{path.name}' is larger than any model's")
            damaged = archive.testzip()
            if damaged is not None:
                raise BadSource(f"'{damaged}' in '{path.name}' is damaged", remedy="copy or save it again")
            return json.loads(archive.read("config.json"))
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, KeyError, EOFError) as error:
        raise BadSource(
            f"'{path.name}' is no Keras model, or damaged or cut off ({' '.join(str(error).split())})",
            remedy="copy or save it again",
        ) from error
    except OSError as error:
        raise BadSource(
            f"'{path.name}' cannot be read: it is damaged or cut off ({' '.join(str(error).split())[:200]})",
            remedy="copy or save it again",
        ) from error


def _hdf5_config(path: Path, weights_only: BadSource) -> Any:
    h5py = import_module("h5py")  # comes with Keras; not one of the frameworks that the type checker is told about

    with h5py.File(path, "r") as file:
        written = file.attrs.get("model_config")
        if written is None:
            raise weights_only
        return json.loads(written)


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every description of an object in a model's description. Iterative: files may nest as deep as they like."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _refuse_code(config: Any, path: Path) -> None:
    """Refuse lambdas, and whatever is not Keras' own, by the name of the layer."""
    # What the model was compiled with is for training, and is not loaded.
    described = (
        {key: value for key, value in config.items() if key != "compile_config"} if isinstance(config, dict) else {}
    )
    for each in _objects(described):
        kind = str(each["class_name"])
        inner = each.get("config")
        layer = inner.get("name", kind) if isinstance(inner, dict) else kind
        if kind in {"Lambda", "__lambda__"}:
            raise BadSource(
                f"'{path.name}' holds Python code: layer '{layer}' ({kind}); such code is never run",
                remedy=f"replace it by a layer of Keras' own, or {_EXPORT}",
                facts={"layer": str(layer), "class": kind},
            )
        if kind in _TEXT_LAYERS:
            raise Unsupported(
                f"layer '{layer}' ({kind}) of '{path.name}' works on texts, which have no ONNX",
                remedy="save the model from the layer after it on, and look words up in the client",
                facts={"layer": str(layer), "class": kind},
            )
        registered, module = each.get("registered_name"), each.get("module")
        strange = module is not None and module.partition(".")[0] not in {"keras", "builtins"}
        if strange or (isinstance(registered, str) and ">" in registered):
            raise BadSource(
                f"'{path.name}' needs the class '{registered or kind}', which is not Keras' own and not in the file",
                remedy=_EXPORT,
                facts={"class": str(registered or kind), "layer": str(layer)},
            )


def _load(path: Path) -> Any:
    import keras  # noqa: PLC0415

    if keras.config.backend() != "tensorflow":
        raise BadSource(
            f"Keras is set to its '{keras.config.backend()}' backend here", remedy="set KERAS_BACKEND=tensorflow"
        )
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, KeyError, OSError, AttributeError, IndexError, RuntimeError) as error:
        raise BadSource(
            f"Keras {keras.__version__} cannot load '{path.name}': {' '.join(str(error).split())[:300]}",
            remedy=f"save it with this version of Keras, or {_EXPORT}",
        ) from error


def _input_specs(tensorflow: Any, model: Any, job: ImportJob, path: Path) -> list[Any]:
    """What the model takes, by the names of its input layers; declared inputs where it does not tell."""
    inputs = getattr(model, "inputs", None)
    if inputs:
        names = _names(getattr(model, "input_names", None), [each.name for each in inputs])
        return [
            tensorflow.TensorSpec(each.shape, each.dtype, name=name) for each, name in zip(inputs, names, strict=True)
        ]
    if not job.inputs:
        raise BadSource(
            f"'{path.name}' does not say what it takes: it was never called before it was saved",
            remedy="declare it: --input 'x:float32[batch,…]', or call the model once and save it again",
        )
    return [
        tensorflow.TensorSpec(
            [size if isinstance(size, int) else None for size in each.shape], each.dtype, name=each.name
        )
        for each in job.inputs
    ]


def _names(names: Sequence[str] | None, fallback: Sequence[str]) -> list[str]:
    """One name per tensor, made different where Keras has the same twice."""
    chosen = list(names) if names is not None and len(names) == len(fallback) else list(fallback)
    found: list[str] = []
    for name in chosen:
        number, plain = 1, name
        while name in found:
            name, number = f"{plain}_{number}", number + 1  # noqa: PLW2901
        found.append(name)
    return found


def _called(model: Any, tensors: Sequence[Any]) -> Any:
    """The model's answer in inference mode, its inputs given in the form it was built with."""
    import tensorflow as tf  # noqa: PLC0415

    structure = getattr(model, "_inputs_struct", None)
    if structure is not None:
        given = tf.nest.pack_sequence_as(structure, list(tensors))
    else:
        given = tensors[0] if len(tensors) == 1 else list(tensors)
    return model(given, training=False)


def _traced(tensorflow: Any, model: Any, specs: Sequence[Any], path: Path) -> tuple[Any, list[str]]:
    """The model as a concrete function, and what its flat outputs are called."""
    keys: list[str] = []

    def call(*tensors: Any) -> Any:
        answer = _called(model, tensors)
        keys[:] = sorted(answer) if isinstance(answer, dict) else []
        return tensorflow.nest.flatten(answer)

    try:
        function = tensorflow.function(call, input_signature=list(specs), autograph=False).get_concrete_function()
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        shapes = ", ".join(f"{spec.name}{spec.shape.as_list()}" for spec in specs)
        raise BadSource(
            f"'{path.name}' does not take {shapes}: {' '.join(str(error).split())[:300]}",
            remedy="check the inputs declared with --input",
        ) from error
    return function, _output_names(model, keys, len(function.outputs))


def _output_names(model: Any, keys: Sequence[str], count: int) -> list[str]:
    """Keys of a dict, else what Keras calls them (by their layers), else numbers."""
    if len(keys) == count:
        return list(keys)
    fallback = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    if count == 1 and hasattr(model, "pop") and model.layers:
        # A Sequential; Keras calls the outputs of all others by their layers.
        return [model.layers[-1].name]
    return _names(getattr(model, "output_names", None), fallback)
