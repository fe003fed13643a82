"""The pass "graph level": the runtime's own graph optimizations, done once and saved into the file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.optimize import files, session
from tensorquay_convert.optimize.passes import counts, graphs
from tensorquay_convert.optimize.passes.api import Pass, Workbench
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.sources import onnx_graph, onnx_rules

LEVELS = ("basic", "extended", "all")
_INLINE_BYTES = onnx_rules.INLINE_BYTES // 2
"""Above it the runtime writes weights beside the model: folding may enlarge it, and one file ends at 2 GiB."""


def make(parameters: Mapping[str, Any]) -> Pass:
    """`level`: basic, extended or all. Raises: ValueError."""
    unknown = set(parameters) - {"level"}
    level = parameters.get("level", "all")
    if unknown or level not in LEVELS:
        raise ValueError(f"graph level takes 'level', one of {', '.join(LEVELS)}; got {dict(parameters)}")
    return GraphLevel(level)


@dataclass(frozen=True, slots=True)
class GraphLevel:
    """What the runtime would do at each load, done once; at "all" the layout of weights as well."""

    level: str

    def apply(self, source: Path, target: Path, bench: Workbench) -> PassReport:
        """Raises: Unsupported when the runtime cannot do or save it."""
        name, began = f"graph level {self.level}", time.monotonic()
        before = onnx.load(str(source), load_external_data=False)
        graphs.plain_inputs(before)
        bench.say(f"{name}: optimizing the graph")
        optimize(source, target, self.level, bench)
        after = onnx.load(str(target), load_external_data=False)
        if counts.same(before, after):
            why = "nothing to optimize: the graph has the same nodes and weights afterwards"
            return graphs.as_it_was(name, source, target, why, seconds=time.monotonic() - began)
        _as_before(after, before)
        target.write_bytes(after.SerializeToString())
        graphs.try_out(target, bench.settings)
        was, now = counts.operators(before), counts.operators(after)
        fused = counts.fused(was, now)
        told = [f"fused {counts.listed(fused)}"] if fused else []
        told.append(counts.sizes(was, now))
        changes = counts.difference(was, now) or "the same nodes with other weights"
        return PassReport(
            name,
            changed=True,
            summary="; ".join(told),
            fused=fused,
            seconds=time.monotonic() - began,
            notes=(changes, *_ties(now, bench.settings.provider)),
        )


def optimize(source: Path, target: Path, level: str, bench: Workbench, *, without: tuple[str, ...] = ()) -> None:
    """Have the runtime optimize `source` for the provider of the settings and write what it makes of it.

    Args: without: its optimizers that are not to run, by its names for them.
    Raises: Unsupported with its first line.
    """
    options = session.session_options(replace(bench.settings, graph_optimization=level))
    data = target.with_name(target.name + ".optimized")
    if files.size(source) > _INLINE_BYTES:
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", data.name)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.optimized_model_filepath = str(target)
    names = list(session.PROVIDERS[bench.settings.provider])
    if names[0] not in onnxruntime.get_available_providers():
        raise Unsupported(f"execution provider '{bench.settings.provider}' is not in this build of ONNX Runtime")
    try:
        onnxruntime.InferenceSession(
            str(source), options, providers=names, disabled_optimizers=list(without), enable_fallback=0
        )
    except Exception as exc:  # the runtime's errors share no base
        reason = session.clean(str(exc), source.parent)
        raise Unsupported(f"ONNX Runtime cannot optimize and save the model: {reason}") from exc
    if not target.is_file():
        raise Unsupported("ONNX Runtime saved no optimized model")
    _gather(target, data, source.parent)


def _gather(target: Path, data: Path, folder: Path) -> None:
    """Bring home the weights that the runtime wrote to `data` or left where the source in `folder` has them."""
    model = onnx.load(str(target), load_external_data=False)
    away = [each for each in onnx_graph.tensors_in(model) if each.data_location == onnx.TensorProto.EXTERNAL]
    for tensor in away:
        written = any(each.key == "location" and each.value == data.name for each in tensor.external_data)
        onnx.external_data_helper.load_external_data_for_tensor(tensor, str(target.parent if written else folder))
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    if away:
        files.save(model, target)
    data.unlink(missing_ok=True)


def _as_before(after: Any, before: Any) -> None:
    """Give `after` its source's interface, and only the operator sets that it uses."""
    after.ir_version = max(after.ir_version, before.ir_version)
    for values, originals in ((after.graph.input, before.graph.input), (after.graph.output, before.graph.output)):
        del values[:]
        values.extend(originals)
    used = {node.domain or "ai.onnx" for node in onnx_graph.all_nodes(after)} | {"ai.onnx"}
    kept = [each for each in after.opset_import if (each.domain or "ai.onnx") in used]
    del after.opset_import[:]
    after.opset_import.extend(kept)


def _ties(now: Mapping[str, int], provider: str) -> tuple[str, ...]:
    """Where the file works and where not."""
    notes = []
    if any(name.startswith("com.microsoft.nchwc.") for name in now):
        notes.append("convolutions are laid out for this CPU's vectors (NCHWc): the file is for CPUs of this kind")
    if any(name.startswith("com.microsoft.") for name in now):
        notes.append(f"the file has operators of ONNX Runtime's own, made for provider {provider}")
    return tuple(notes)
