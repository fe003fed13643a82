"""What the quantization passes have in common: models they refuse, what is done before, what must hold afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx
from onnx import TensorProto, version_converter

from tensorquay_convert.errors import Unsupported
from tensorquay_convert.optimize import files
from tensorquay_convert.optimize.passes import counts, graphs
from tensorquay_convert.optimize.passes.api import Workbench
from tensorquay_convert.optimize.passes.fold import fold_weights
from tensorquay_convert.optimize.passes.prepared import prepared
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.sources import onnx_graph, onnx_rules

OLDEST_OPSET = 13
"""Scales per channel are there since operator set 13."""
_COMPUTES_QUANTIZED = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv",
    "QLinearMatMul", "MatMulNBits", "MatMulBnb4", "MatMulInteger16", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "QGemm", "QAttention", "QMoE", "DynamicQuantizeLSTM", "GatherBlockQuantized", "QEmbedLayerNormalization",
    "QOrderedMatMul", "QOrderedAttention",
})  # fmt: skip
SHAPED = "shaped.onnx"
"""The file in a workshop that `ready` leaves: the model as it was, with shapes; calibrators run it."""
_HALVES = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that can be quantized. `operator` as the user's file calls it."""

    name: str
    operator: str


@dataclass(frozen=True, slots=True)
class Built:
    """A quantized model. `quantized`: operator → nodes that compute in 8 bits."""

    model: Any
    quantized: Mapping[str, int]


class Plan(Protocol):
    """A model that is ready to be quantized, as a whole or in part.

    Attributes:
        opened: the model, and the interface to give back to what becomes of it.
        candidates: nodes that whole-model quantization quantizes, in the graph's order.
        kept: nodes that are left out on purpose. notes: for the user.
    """

    opened: graphs.Opened
    candidates: tuple[Candidate, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...]

    def build(self, keep: Collection[str] = ()) -> Built:
        """Quantize every candidate but those named in `keep`. The same arguments give the same bytes."""
        ...


class Recipe(Protocol):
    """A way to quantize. `name`: with what matters of its parameters, for people."""

    @property
    def name(self) -> str: ...

    def plan(self, source: Path, folder: Path, bench: Workbench) -> Plan:
        """Make `source` ready; temporary files go to `folder`. Raises: CommandFailed."""
        ...


def ready(
    source: Path, folder: Path, bench: Workbench, *, least: int = OLDEST_OPSET
) -> tuple[graphs.Opened, tuple[str, ...]]:
    """The model with shapes inferred, a unique name for each node, constants as initialisers, opset `least` or newer.

    Returns: it, with its weights in memory, and notes for the user.
    Raises: Unsupported for quantized and half-precision models, and for operator sets that cannot be raised; OSError;
        BadSource for weights that are missing.
    """
    refuse(source)
    raised, notes = _raised(source, folder, least)
    notes += prepared(raised, folder / SHAPED, bench)
    opened = graphs.opened(folder / SHAPED)
    _constants_to_initializers(opened.model)
    folded = fold_weights(opened.model)
    if folded:
        notes += (f"{folded} nodes that put weights together were computed once",)
    _name_nodes(opened.model)
    return opened, notes


def refuse(source: Path) -> None:
    """Raises: Unsupported for models that are quantized already, or in half precision; OSError."""
    model = onnx.load(str(source), load_external_data=False)
    found = Counter(node.op_type for node in onnx_graph.all_nodes(model) if node.op_type in _COMPUTES_QUANTIZED)
    if found:
        raise Unsupported(
            f"the model is quantized already, it has {listed(found)}",
            remedy="quantize the float model it was made from",
        )
    halves = Counter(_HALVES[each.data_type] for each in onnx_graph.tensors_in(model) if each.data_type in _HALVES)
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if kind in _HALVES:
            halves[_HALVES[kind]] += 1
    if halves:
        raise Unsupported(
            f"the model is in half precision, {listed(halves)} tensors; quantization needs float32",
            remedy="quantize the float32 model it was made from",
        )


def _raised(source: Path, folder: Path, least: int) -> tuple[Path, tuple[str, ...]]:
    head = onnx.load(str(source), load_external_data=False)
    now = onnx_rules.opset_of(head)
    if now >= least:
        return source, ()
    try:
        raised = version_converter.convert_version(files.load(source), least)
        onnx_rules.session_for(raised.SerializeToString())
    except Exception as exc:  # the converter and the runtime are native code and raise what they like
        raise Unsupported(
            f"quantization needs operator set {least}, the model has {now}, and raising it did not work: "
            f"{graphs.said(exc)}"
        ) from exc
    target = folder / "raised.onnx"
    files.save(raised, target)
    return target, (f"operator set raised from {now} to {least}",)


def _constants_to_initializers(model: Any) -> None:
    """The libraries look for weights among the initialisers only."""
    given = {each.name for each in model.graph.output}
    kept = []
    for node in model.graph.node:
        value = next((each for each in node.attribute if each.name == "value"), None)
        if value is None or counts.name_of(node) != "Constant" or node.output[0] in given:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        added = model.graph.initializer.add()
        added.CopyFrom(value.t)
        added.name = node.output[0]
    if len(kept) < len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _name_nodes(model: Any) -> None:
    """The libraries pick nodes by name; some exporters give none, or one twice."""
    used = Counter(node.name for node in model.graph.node)
    taken = set(used)
    for number, node in enumerate(model.graph.node):
        if node.name and used[node.name] == 1:
            continue
        name = f"{node.op_type}_{number}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)


def float_values(model: Any) -> frozenset[str]:
    """Names of computed float32 values, as far as their type is known."""
    known = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    stored = {each.name for each in model.graph.initializer}
    return frozenset(
        each.name for each in known if each.type.tensor_type.elem_type == TensorProto.FLOAT and each.name not in stored
    )


def float_weights(model: Any) -> frozenset[str]:
    """Names of initialisers in float32."""
    return frozenset(each.name for each in model.graph.initializer if each.data_type == TensorProto.FLOAT)


def copied(model: Any) -> Any:
    """A copy: the libraries change what they are given."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    return found


def finish(built: Built, plan: Plan, target: Path, bench: Workbench) -> None:
    """Write a quantized model with the interface of its source, and load it.

    Raises: Unsupported when the runtime does not load it or an output is lost; OSError.
    """
    write(built.model, plan.opened, target, bench)


def save_to_judge(built: Built, plan: Plan, path: Path) -> None:
    """Write a quantized model with the interface of its source, untried; `built` stays as it is. Raises: OSError."""
    model = copied(built.model)
    graphs.restore(model, plan.opened)
    files.save(model, path)


def write(model: Any, opened: graphs.Opened, target: Path, bench: Workbench) -> None:
    """As `finish`."""
    # Shapes inside the graph, and the mark that they were inferred, were for the libraries; some are wrong by now.
    del model.graph.value_info[:]
    kept = [each for each in model.metadata_props if not each.key.startswith("onnx.")]
    kept = [onnx.StringStringEntryProto(key=each.key, value=each.value) for each in kept]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    graphs.write(model, opened, target, bench.settings)


def report_on(name: str, plan: Plan, built: Built, *, kept: Iterable[str] = ()) -> PassReport:
    """The report of a pass that quantized something."""
    left = Counter(each.operator for each in plan.candidates)
    left.subtract(built.quantized)
    summary = f"quantized {listed(built.quantized)}"
    stay = Counter({operator: count for operator, count in left.items() if count > 0})
    if stay:
        summary += f"; {listed(stay)} stay in FP32"
    total = sum(built.quantized.values())
    return PassReport(name, changed=True, summary=summary, quantized=total, kept=(*plan.kept, *kept), notes=plan.notes)


def listed(found: Mapping[str, int]) -> str:
    """ "3 Conv, 1 Gemm": the most frequent first."""
    return counts.listed(dict(sorted(found.items(), key=lambda each: (-each[1], each[0]))))


def checked(parameters: Mapping[str, Any], allowed: Mapping[str, Collection[Any] | type]) -> None:
    """Raises: ValueError for a parameter that is not in `allowed`, or has another type or value."""
    for name, value in parameters.items():
        if name not in allowed:
            raise ValueError(f"unknown parameter '{name}', expected one of {', '.join(allowed)}")
        wanted = allowed[name]
        if isinstance(wanted, type):
            if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
                raise ValueError(f"parameter '{name}' is {value!r}, expected a value of type {wanted.__name__}")
        elif value not in wanted or isinstance(value, bool):
            raise ValueError(f"parameter '{name}' is {value!r}, expected one of {', '.join(map(str, wanted))}")
