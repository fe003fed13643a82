"""What every exported model must be before it is proven: whole, checked, loadable, with our names for its axes.

`finish` is run on what any exporter wrote, and on an ONNX file that was given. It changes the file in place; whether
the changes were right is the proof's to say, which compares with the untouched source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnx import checker, shape_inference, version_converter

from tensorquay_convert.api import Say
from tensorquay_convert.errors import BadSource, CommandFailed, Unsupported
from tensorquay_convert.sources import onnx_graph
from tensorquay_convert.tensors import Interface

OLDEST_OPSET = 17
"""Graphs of older operator sets are raised to it: optimisers and newer runtimes know little of what was before."""
INLINE_BYTES = 1_500_000_000
"""Weights up to this many bytes go into the model's file; protobuf ends at 2 GiB."""
DATA_FILE = "model.onnx.data"

_IR_REFUSED = re.compile(r"[Uu]nsupported model IR version: \d+, max supported IR version: (\d+)")


@dataclass(frozen=True, slots=True)
class Finished:
    """What `finish` left: the operator set of the model, its files, and what was changed or could not be."""

    opset: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def finish(
    path: Path,
    interface: Interface,
    say: Say,
    *,
    opset: int | None = None,
    outputs: Sequence[str] = (),
    blame: Callable[[str], CommandFailed] = Unsupported,
) -> Finished:
    """Make the model at `path` fit to be served, or refuse it.

    Args:
        interface: the source's: its names go to the dynamic axes of inputs and outputs.
        opset: raise the operator set to this one; None: to `OLDEST_OPSET` where it is older, if that works.
        outputs: keep only these, in this order; empty: all.
        blame: makes the error for a model that is invalid or does not load.
    Raises: Unsupported for operators without code, for outputs that are not there, an operator set that cannot be
        reached; BadSource for weights that are missing or outside; `blame` for the rest.
    """
    model = onnx_graph.read_model(path, path.name)
    onnx_graph.refuse_custom_operators(model)
    weights = onnx_graph.external_files(model, path.parent)
    notes: list[str] = []
    inline = sum(each.stat().st_size for each in weights) + path.stat().st_size <= INLINE_BYTES
    if inline and weights:
        onnx.load_external_data_for_model(model, str(path.parent))
        _forget_external(model)
    _drop_stored_inputs(model)
    if outputs:
        _keep_outputs(model, outputs)
    _drop_unused(model)
    if inline:
        say("raising the operator set and inferring shapes")
        model, raised = _raise_opset(model, opset)
        notes.extend(raised)
        model, inferred = _infer_shapes(model)
        notes.extend(inferred)
        _name_axes(model, interface)
    elif opset is not None and opset != opset_of(model):
        raise Unsupported(f"a model of this size cannot be moved from operator set {opset_of(model)} to {opset}")
    files = _save(model, path, weights if not inline else (), say)
    say("checking the model")
    _check(path, blame)
    say("loading the model in ONNX Runtime")
    notes.extend(_load(path, blame))
    if inline:
        for each in weights:
            _remove(each, path.parent.resolve())
    return Finished(opset_of(onnx.load(path, load_external_data=False)), files, tuple(notes))


def opset_of(model: Any) -> int:
    """The version of ONNX's own operator set that a model uses; 0 when it uses none."""
    return max((int(each.version) for each in model.opset_import if each.domain in {"", "ai.onnx"}), default=0)


def unknown_axes(interface: Interface) -> tuple[str, ...]:
    """Inputs whose rank nobody knows."""
    return tuple(spec.name for spec in interface.inputs if spec.shape is None)


def session_for(path: Path | bytes, *, quiet: bool = True) -> Any:
    """An ONNX Runtime session on the CPU. Raises: whatever the runtime raises."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4 if quiet else 2
    source = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _forget_external(model: Any) -> None:
    for tensor in onnx_graph.tensors_in(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]


def _drop_stored_inputs(model: Any) -> None:
    """Before IR 4 initialisers were listed as inputs; nobody meant callers to give them."""
    if model.ir_version >= 4:
        return
    kept = onnx_graph.graph_inputs(model)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = 8


def _keep_outputs(model: Any, wanted: Sequence[str]) -> None:
    there = {value.name: value for value in model.graph.output}
    absent = [name for name in wanted if name not in there]
    if absent:
        raise Unsupported(f"the model has no output '{absent[0]}'; it has {', '.join(there)}")
    kept = [onnx.ValueInfoProto.FromString(there[name].SerializeToString()) for name in wanted]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    needed, alive = {value.name for value in kept}, []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            alive.append(node)
            needed |= _reads(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(alive)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _reads(node: Any) -> set[str]:
    """Names a node reads, graphs inside it included."""
    found = set(node.input)
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for each in inner.node:
                found |= _reads(each)
            found |= {value.name for value in inner.output}
    return found


def _drop_unused(model: Any) -> None:
    """Stored tensors that nothing reads: some exporters leave them, and they cost memory in every server."""
    needed = {value.name for value in model.graph.output}
    for node in model.graph.node:
        needed |= _reads(node)
    declared = {value.name for value in model.graph.input}
    unused = [
        number
        for number, tensor in enumerate(model.graph.initializer)
        if tensor.name not in needed and tensor.name not in declared
    ]
    for number in reversed(unused):
        del model.graph.initializer[number]


def _name_axes(model: Any, interface: Interface) -> None:
    """Give the dynamic axes of inputs and outputs the interface's names. A fixed axis stays one: the proof tells."""
    shapes = {spec.name: spec.shape for spec in (*interface.inputs, *interface.outputs)}
    renamed: dict[str, str] = {}
    for value in (*model.graph.input, *model.graph.output):
        shape = shapes.get(value.name)
        tensor = value.type.tensor_type
        if shape is None or not tensor.HasField("shape") or len(shape) != len(tensor.shape.dim):
            continue
        for axis, wanted in zip(tensor.shape.dim, shape, strict=True):
            fixed = axis.WhichOneof("value") == "dim_value" and axis.dim_value >= 0
            if isinstance(wanted, str) and not fixed:
                if axis.dim_param:
                    renamed.setdefault(axis.dim_param, wanted)
                axis.Clear()
                axis.dim_param = wanted
    for value in model.graph.value_info:
        if value.type.WhichOneof("value") == "tensor_type":
            for axis in value.type.tensor_type.shape.dim:
                if axis.dim_param in renamed:
                    axis.dim_param = renamed[axis.dim_param]


def _raise_opset(model: Any, wanted: int | None) -> tuple[Any, list[str]]:
    now = opset_of(model)
    target = wanted if wanted is not None else max(now, OLDEST_OPSET)
    if now in {0, target}:
        return model, []
    if wanted is None and any(each.domain == "com.microsoft" for each in model.opset_import):
        return model, [f"operator set {now} kept: the converter does not know the runtime's own operators"]
    try:
        raised = version_converter.convert_version(model, target)
        session_for(raised.SerializeToString())
    except Exception as exc:  # the converter is native code and raises what it likes
        reason = first_line(exc)
        if wanted is not None:
            raise Unsupported(
                f"the model cannot be moved from operator set {now} to {target}: {reason}", remedy="leave --opset out"
            ) from exc
        return model, [f"operator set {now} kept, raising it to {target} did not work: {reason}"]
    return raised, [f"operator set raised from {now} to {target}"]


def _infer_shapes(model: Any) -> tuple[Any, list[str]]:
    """The model with the shapes of its inner values in it, as far as they can be told."""
    try:
        return shape_inference.infer_shapes(model, check_type=True), []
    except Exception as exc:  # noqa: BLE001 - native code; shapes are a help, never a condition
        return model, [f"shapes could not be inferred: {first_line(exc)}"]


def _save(model: Any, path: Path, weights: Sequence[Path], say: Say) -> tuple[Path, ...]:
    """Write the model; one that is too large keeps its weights in one file beside it."""
    if not weights:
        path.write_bytes(model.SerializeToString())
        return (path,)
    say("gathering the weights into one file")
    onnx.load_external_data_for_model(model, str(path.parent))
    fresh = path.with_name(DATA_FILE + ".new")
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=fresh.name,
        size_threshold=1024,
    )
    for each in weights:
        _remove(each, path.parent.resolve())
    data = path.with_name(DATA_FILE)
    fresh.rename(data)
    plain = onnx.load(path, load_external_data=False)
    for tensor in onnx_graph.tensors_in(plain):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data.name
    path.write_bytes(plain.SerializeToString())
    return (path, data)


def _remove(file: Path, folder: Path) -> None:
    """Remove a file in `folder`, and the folders below it that are empty then. Nothing outside of it."""
    if not file.is_relative_to(folder):
        return
    file.unlink(missing_ok=True)
    for parent in file.parents:
        if parent == folder or any(parent.iterdir()):
            return
        parent.rmdir()


def _check(path: Path, blame: Callable[[str], CommandFailed]) -> None:
    try:
        checker.check_model(str(path))
    except Exception as exc:  # checker.ValidationError, and what its native code raises besides
        raise blame(f"the model is not valid ONNX: {first_line(exc)}") from exc


def _load(path: Path, blame: Callable[[str], CommandFailed]) -> list[str]:
    """Load it as the server will; a file format one step too new for the runtime is written in its newest."""
    notes: list[str] = []
    for again in (True, False):
        try:
            session_for(path)
            break
        except Exception as exc:  # the runtime's errors share no base
            refused = _IR_REFUSED.search(str(exc))
            if refused is None or not again:
                raise blame(
                    f"ONNX Runtime {onnxruntime.__version__} does not load the model: {first_line(exc)}"
                ) from exc
            model = onnx.load(path, load_external_data=False)
            notes.append(f"file format {model.ir_version} lowered to {refused[1]}, the newest that ONNX Runtime reads")
            model.ir_version = int(refused[1])
            path.write_bytes(model.SerializeToString())
    return notes


def first_line(exc: BaseException) -> str:
    """The first line of an error that says something, cut to a sentence's length."""
    for line in str(exc).splitlines():
        if line.strip():
            return line.strip()[:300]
    return type(exc).__name__


def not_valid(text: str) -> CommandFailed:
    """For a file that was given as ONNX: it is the source that is wrong."""
    return BadSource(text)
