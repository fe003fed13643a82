"""ONNX files as sources. The original file on ONNX Runtime is what the published one must equal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tensorquay_convert.api import Exported, OpenSource, Say, SourceFacts
from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob, SourceKind
from tensorquay_convert.sources import onnx_axes, onnx_graph, onnx_rules
from tensorquay_convert.tensors import Array, Arrays, Axis, Interface, TensorSpec


class OnnxConverter:
    """Opens .onnx files."""

    kinds: tuple[SourceKind, ...] = (SourceKind.ONNX,)
    extra = "cpu"

    def open(self, job: ImportJob, kind: SourceKind, say: Say) -> OpenSource:
        """See `api.Converter`."""
        assert kind is SourceKind.ONNX
        path = Path(job.source)
        say(f"reading {path.name}")
        model = onnx_graph.read_model(path, job.source)
        onnx_graph.refuse_custom_operators(model)
        weights = onnx_graph.external_files(model, path.parent)
        if job.outputs:
            model = _with_outputs(model, job.outputs)
        interface = _declared(onnx_graph.interface_of(model), job)
        unknown = onnx_rules.unknown_axes(interface)
        if unknown:
            raise BadSource(
                f"the file does not say what shape input '{unknown[0]}' has",
                remedy=f"declare it: --input '{unknown[0]}:float32[batch,4]'",
            )
        say("loading it in ONNX Runtime")
        try:
            session = onnx_rules.session_for(path)
        except Exception as exc:  # the runtime's errors share no base
            raise BadSource(
                f"ONNX Runtime {onnxruntime.__version__} does not load '{job.source}': {onnx_rules.first_line(exc)}"
            ) from exc
        outputs = [spec.name for spec in interface.outputs]
        interface, notes = onnx_axes.tried(interface, lambda inputs: run_session(session, outputs, inputs))
        if not any(spec.dynamic for spec in interface.inputs):
            notes = (*notes, "every axis of every input is fixed: requests cannot be merged into batches")
        size = sum(each.stat().st_size for each in (path, *weights))
        facts = SourceFacts(
            kind=kind,
            shown=f"an ONNX model, operator set {onnx_rules.opset_of(model)}, {len(model.graph.node)} nodes, "
            f"{size} bytes"
            + (f", by {model.producer_name} {model.producer_version}".rstrip() if model.producer_name else ""),
            interface=interface,
            files=(path, *weights),
            versions={"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
            notes=notes,
        )
        return _OpenOnnx(path, session, facts, job)


class _OpenOnnx:
    def __init__(self, path: Path, session: Any, facts: SourceFacts, job: ImportJob) -> None:
        self._path = path
        self._session = session
        self._facts = facts
        self._job = job

    @property
    def facts(self) -> SourceFacts:
        return self._facts

    def run(self, inputs: Arrays) -> Arrays:
        return run_session(self._session, [spec.name for spec in self._facts.interface.outputs], inputs)

    def export(self, target: Path, say: Say) -> Exported:
        say("copying the model")
        model = onnx.load(self._path, load_external_data=False)
        base = self._path.parent.resolve()
        for each in onnx_graph.external_files(model, self._path.parent):
            copy = target.parent / each.relative_to(base)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(each, copy)
        _rename_axes(model, self._facts.interface)
        target.write_bytes(model.SerializeToString())
        return Exported(exporter=f"onnx {onnx.__version__}", opset=onnx_rules.opset_of(model))

    def values_inside(self, inputs: Arrays, names: Sequence[str]) -> Arrays:
        model = onnx.load(self._path)
        made = {name for node in model.graph.node for name in node.output if name}
        there = {value.name for value in model.graph.output}
        wanted = [name for name in names if name in made]
        model.graph.output.extend(
            onnx.helper.make_empty_tensor_value_info(name) for name in wanted if name not in there
        )
        if not wanted or model.ByteSize() > onnx_rules.INLINE_BYTES:
            return {}
        try:
            return run_session(onnx_rules.session_for(model.SerializeToString()), wanted, inputs)
        except Exception:  # noqa: BLE001 - a value that is no tensor cannot be an output: then nothing is known
            return {}

    def close(self) -> None:
        self._session = None


def run_session(session: Any, outputs: Sequence[str], inputs: Arrays) -> Arrays:
    """The named outputs of one run. Texts go in and come out as `bytes` in arrays of object."""
    known = {each.name for each in session.get_inputs()} | {
        each.name for each in session.get_overridable_initializers()
    }
    fed = {name: _to_runtime(value) for name, value in inputs.items() if name in known}
    found = session.run(list(outputs), fed)
    return {name: _from_runtime(value) for name, value in zip(outputs, found, strict=True)}


def _to_runtime(value: Array) -> Array:
    if value.dtype != np.dtype(object):
        return value
    texts = [each.decode() if isinstance(each, bytes) else each for each in value.reshape(-1).tolist()]
    return np.array(texts, dtype=object).reshape(value.shape)


def _from_runtime(value: Any) -> Array:
    found = np.asarray(value)
    if found.dtype.kind not in "OU":
        return found
    texts = [str(each).encode() if not isinstance(each, bytes) else each for each in found.reshape(-1).tolist()]
    return np.array(texts, dtype=object).reshape(found.shape)


def _with_outputs(model: Any, wanted: Sequence[str]) -> Any:
    there = {value.name: value for value in model.graph.output}
    absent = [name for name in wanted if name not in there]
    if absent:
        raise BadSource(f"the model has no output '{absent[0]}'; it has {', '.join(there)}")
    kept = [there[name] for name in wanted]
    fresh = onnx.ModelProto.FromString(model.SerializeToString())
    del fresh.graph.output[:]
    fresh.graph.output.extend(kept)
    return fresh


def _declared(interface: Interface, job: ImportJob) -> Interface:
    """The interface with what the user said about it: shapes the file leaves open, and names of axes.

    Raises: BadSource for an input that is not there, a dtype or fixed size that the file contradicts.
    """
    by_name = {spec.name: spec for spec in interface.inputs}
    for declared in job.inputs:
        if declared.name not in by_name:
            raise BadSource(f"the model has no input '{declared.name}'; it has {', '.join(by_name)}")
        by_name[declared.name] = _narrowed(by_name[declared.name], declared.dtype, declared.shape)
    names: dict[str, str] = {}
    for axis in job.dynamic:
        found = by_name.get(axis.tensor)
        if found is None:
            raise BadSource(f"--dynamic: the model has no input '{axis.tensor}'; it has {', '.join(by_name)}")
        if found.shape is None or not 0 <= axis.axis < len(found.shape):
            raise BadSource(f"--dynamic: input '{axis.tensor}' has no axis {axis.axis}")
        old = found.shape[axis.axis]
        if isinstance(old, int):
            raise BadSource(
                f"--dynamic: axis {axis.axis} of input '{axis.tensor}' is fixed at {old} in the file",
                remedy="export the model again with that axis dynamic",
            )
        names[old] = axis.name
    inputs = tuple(onnx_axes.renamed(by_name[spec.name], names) for spec in interface.inputs)
    outputs = tuple(onnx_axes.renamed(spec, names) for spec in interface.outputs)
    axes = {names.get(name, name): bounds for name, bounds in interface.axes.items()}
    return Interface(inputs, outputs, axes)


def _narrowed(spec: TensorSpec, dtype: str, shape: tuple[int | str, ...]) -> TensorSpec:
    if dtype != spec.dtype:
        raise BadSource(f"--input: '{spec.name}' is {spec.dtype} in the file, not {dtype}")
    if spec.shape is not None:
        wrong = len(shape) != len(spec.shape) or any(
            isinstance(ours, int) and ours != theirs for ours, theirs in zip(spec.shape, shape, strict=False)
        )
        if wrong:
            raise BadSource(f"--input: '{spec.name}' has shape {list(spec.shape)} in the file, not {list(shape)}")
    return replace(spec, shape=shape)


def _rename_axes(model: Any, interface: Interface) -> None:
    """Write the interface's names of axes into the graph."""
    shapes = {spec.name: spec.shape for spec in (*interface.inputs, *interface.outputs)}
    for value in (*model.graph.input, *model.graph.output):
        shape: tuple[Axis, ...] | None = shapes.get(value.name)
        if shape is None:
            continue
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            tensor.shape.CopyFrom(onnx.TensorShapeProto())
            for _ in shape:
                tensor.shape.dim.add()
        for axis, wanted in zip(tensor.shape.dim, shape, strict=True):
            axis.Clear()
            if isinstance(wanted, int):
                axis.dim_value = wanted
            else:
                axis.dim_param = wanted


def _made_by(model: Any) -> str:
    return f", by {model.producer_name} {model.producer_version}".rstrip() if model.producer_name else ""
