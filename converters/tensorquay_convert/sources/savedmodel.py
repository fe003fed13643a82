"""TensorFlow SavedModels: one signature of a folder that a stranger may have made.

The graph is read as data and refused by operator before TensorFlow loads (and so runs) anything of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorquay_convert.api import OpenSource, Say
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import tensorflow_graph
from tensorquay_convert.sources.tensorflow_graph import Frozen
from tensorquay_convert.sources.tensorflow_ops import reached, refuse_dangerous, refuse_texts
from tensorquay_convert.sources.tensorflow_source import Description, TensorflowSource
from tensorquay_convert.tensors import Arrays

_DEFAULT = "serving_default"
_SERVE = "serve"
_TRITON = "model.savedmodel"
_INITIALIZER = "__saved_model_init_op"
_TRAINING = "__saved_model_train_op"


class SavedModelConverter:
    """Opens SavedModel folders; also a folder that holds one as `model.savedmodel`, as Triton's repositories do."""

    kinds = (SourceKind.SAVED_MODEL,)
    extra = "tensorflow"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:
        """See `Converter`."""
        folder = _folder(Path(job.source))
        tensorflow = tensorflow_graph.load_tensorflow(kind)
        say("reading the SavedModel's graph")
        saved = _read(folder)
        meta = _meta_graph(saved, folder)
        _check(meta, folder)
        names = _signatures(meta)
        chosen = _chosen(names, job.signature, folder)
        _check_signature(meta, chosen, folder)
        say("loading the SavedModel")
        with tensorflow_graph.quiet():
            loaded = _load(tensorflow, folder, list(meta.meta_info_def.tags))
            function = loaded.signatures[chosen]
            frozen, parameters = _frozen(function, f"signature '{chosen}'")
        others = [name for name in names if name != chosen]
        notes = [f"signature '{chosen}' was chosen; also there: {', '.join(others)}"] if others else []
        about = Description(
            kind=kind,
            shown=f"a TensorFlow SavedModel, signature '{chosen}', {tensorflow_graph.counted(frozen, parameters)}",
            files=tuple(sorted(path for path in folder.rglob("*") if path.is_file())),
            notes=tuple(notes),
        )

        def run(inputs: Arrays) -> Arrays:
            # `loaded` owns the variables; the function alone does not keep them.
            given = {
                each.name: tensorflow_graph.to_tensor(tensorflow, inputs[each.name], each.dtype)
                for each in frozen.inputs
            }
            answers: Mapping[str, Any] = loaded.signatures[chosen](**given)
            return {name: tensorflow_graph.to_array(answer) for name, answer in answers.items()}

        return TensorflowSource(job, frozen, run, about)


def _folder(path: Path) -> Path:
    for folder in (path, path / _TRITON, path.parent):
        if (folder / "saved_model.pb").is_file():
            return folder
        if (folder / "saved_model.pbtxt").is_file():
            raise BadSource(
                f"'{folder.name}' is a SavedModel in text form (saved_model.pbtxt)",
                remedy="save it in binary form: tf.saved_model.save without as_text",
            )
    raise BadSource(f"'{path.name}' is no SavedModel: there is no saved_model.pb in it")


def _read(folder: Path) -> Any:
    from google.protobuf.message import DecodeError  # noqa: PLC0415
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # noqa: PLC0415

    saved = SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    except DecodeError as error:
        raise BadSource(
            f"saved_model.pb in '{folder.name}' is damaged or cut off ({error})", remedy="copy or export it again"
        ) from error
    return saved


def _meta_graph(saved: Any, folder: Path) -> Any:
    """The graph for serving; a model with a single graph of other tags is taken as well."""
    tagged = [(set(each.meta_info_def.tags), each) for each in saved.meta_graphs]
    plain = [each for tags, each in tagged if tags == {_SERVE}]
    serving = [each for tags, each in tagged if _SERVE in tags]
    if plain or serving:
        return (plain or serving)[0]
    if len(tagged) == 1:
        return tagged[0][1]
    known = "; ".join(",".join(sorted(tags)) or "no tags" for tags, _ in tagged) or "none at all"
    raise BadSource(
        f"'{folder.name}' has no graph tagged '{_SERVE}' (its graphs: {known})", remedy="export it for serving"
    )


def _check(meta: Any, folder: Path) -> None:
    """Refuse what loading would run.

    TensorFlow 2 runs functions of the object graph while loading; TensorFlow 1's loader runs the saver's restore
    operation and an initializer, which may read a checkpoint, but never write one.
    """
    what = f"the SavedModel '{folder.name}'"
    graph = meta.graph_def
    roots = list(meta.object_graph_def.concrete_functions)
    for key in (_INITIALIZER, _TRAINING):
        if key in meta.signature_def:
            roots += [tensor.name for tensor in meta.signature_def[key].outputs.values()]
    for key in ("saved_model_main_op", "legacy_init_op"):
        roots += list(meta.collection_def[key].node_list.value) if key in meta.collection_def else []
    refuse_dangerous(graph, what, roots=roots)
    if meta.saver_def.restore_op_name and not meta.object_graph_def.nodes:
        restoring = reached(graph, [meta.saver_def.restore_op_name])
        for node in graph.node:
            if node.name in restoring and node.op in {"SaveV2", "MergeV2Checkpoints"}:
                raise BadSource(
                    f"{what} writes a checkpoint when it is loaded: {node.op}, node '{node.name}'; it is not loaded",
                    remedy="export the model again",
                    facts={"operator": node.op, "node": node.name},
                )


def _signatures(meta: Any) -> tuple[str, ...]:
    return tuple(sorted(name for name in meta.signature_def if name not in {_INITIALIZER, _TRAINING}))


def _chosen(names: tuple[str, ...], asked: str, folder: Path) -> str:
    there = ", ".join(f"'{name}'" for name in names)
    if asked:
        if asked not in names:
            raise BadSource(
                f"'{folder.name}' has no signature '{asked}'; it has {there or 'none'}",
                remedy="name one of them with --signature",
                facts={"signature": asked},
            )
        return asked
    if _DEFAULT in names:
        return _DEFAULT
    if len(names) == 1:
        return names[0]
    if not names:
        raise BadSource(
            f"'{folder.name}' has no signature: nothing says what goes in and what comes out",
            remedy="save it with signatures: tf.saved_model.save(module, path, signatures=…), or Keras' model.export",
        )
    raise BadSource(
        f"'{folder.name}' has several signatures and none is '{_DEFAULT}': {there}",
        remedy="name one with --signature",
    )


def _check_signature(meta: Any, chosen: str, folder: Path) -> None:
    """Refuse texts, and checkpoints that this signature would touch, by the graph alone."""
    graph = meta.graph_def
    outputs = [tensor.name for tensor in meta.signature_def[chosen].outputs.values()]
    used = reached(graph, outputs)
    part = type(graph)()
    part.node.extend(node for node in graph.node if node.name in used)
    part.library.function.extend(each for each in graph.library.function if each.signature.name in used)
    what = f"signature '{chosen}' of '{folder.name}'"
    refuse_dangerous(part, what, checkpoints=False)
    refuse_texts(part, what)


def _load(tensorflow: Any, folder: Path, tags: list[str]) -> Any:
    try:
        return tensorflow.saved_model.load(str(folder), tags=tags)
    except (
        tensorflow.errors.OpError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        RuntimeError,
    ) as error:
        said = " ".join(str(error).split())[:200]
        missing = [] if any((folder / "variables").glob("*")) else ["its variables are not there"]
        raise BadSource(
            f"TensorFlow cannot load '{folder.name}': {', '.join([*missing, said])}",
            remedy="copy the whole folder (saved_model.pb, variables/, assets/), or export it again",
        ) from error


def _frozen(function: Any, what: str) -> tuple[Frozen, int]:
    """The signature as a graph with the signature's names, and how many parameters it has."""
    import tensorflow as tf  # noqa: PLC0415

    captured = len(function.captured_inputs)
    entered = function.inputs[: len(function.inputs) - captured]
    specs = [spec for spec in tf.nest.flatten(function.structured_input_signature) if isinstance(spec, tf.TensorSpec)]
    inputs = [tensorflow_graph.port(spec.name, tensor, what) for spec, tensor in zip(specs, entered, strict=True)]
    outputs = [
        tensorflow_graph.port(name, tensor, what) for name, tensor in sorted(function.structured_outputs.items())
    ]
    # What the signature calls its outputs are specs; the tensors in the graph come in the same (sorted) order.
    left = [
        tensorflow_graph.port(each.name, tensor, what) for each, tensor in zip(outputs, function.outputs, strict=True)
    ]
    return tensorflow_graph.freeze(function, inputs, left), tensorflow_graph.parameters(function)
