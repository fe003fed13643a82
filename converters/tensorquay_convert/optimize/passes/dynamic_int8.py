"""Dynamic INT8: weights in 8 bits in the file, activations quantized row by row while it runs. No calibration data.

The work is done by the quantizer below `onnxruntime.quantization.quantize_dynamic`. Whether it is worth it depends on
the operators and the CPU, and is measured: convolutions quantized this way (ConvInteger) are slow on most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from onnx import TensorProto
from onnxruntime.quantization import QuantizationMode, QuantType
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import add_infer_metadata

from tensorquay_convert.optimize.passes import graphs
from tensorquay_convert.optimize.passes.api import Pass, Workbench
from tensorquay_convert.optimize.passes.quantizable import (
    Built,
    Candidate,
    checked,
    copied,
    finish,
    float_weights,
    ready,
    report_on,
)
from tensorquay_convert.optimize.passes.quiet import quiet, workshop
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.optimize.variants import saturates

OPERATORS = ("MatMul", "Gemm", "Conv", "Attention", "LSTM", "Gather", "EmbedLayerNormalization")
"""What the library has dynamic forms of, as files call it; it makes a MatMul of a Gemm."""

ALLOWED: Mapping[str, Collection[Any] | type] = {
    "per_channel": bool,
    "operators": list,
    "convolutions": bool,
    "reduce_range": bool,
}
_WEIGHT = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Attention": 1, "LSTM": 1, "Gather": 0, "EmbedLayerNormalization": 2}
"""Which input of each operator has to be stored in the file."""
_NOTHING = "nothing to quantize: no node with float32 weights that the library has a dynamic form of"


def make(parameters: Mapping[str, Any]) -> Pass:
    """The pass. Raises: ValueError."""
    return _DynamicInt8(DynamicRecipe(parameters))


class DynamicRecipe:
    """How to quantize: the parameters of the pass.

    `per_channel`: a scale for each output of a weight. `operators`: only these. `convolutions`: Conv as well (default).
    `reduce_range`: weights in 7 bits; default: where the CPU's sums saturate.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """Raises: ValueError for parameters that nobody knows."""
        checked(parameters, ALLOWED)
        self._per_channel = bool(parameters.get("per_channel", True))
        self._reduce: bool | None = parameters.get("reduce_range")
        picked = parameters.get("operators") or OPERATORS
        unknown = sorted(set(picked) - set(OPERATORS))
        if unknown:
            raise ValueError(f"operator {unknown[0]} has no dynamic INT8 form; there are {', '.join(OPERATORS)}")
        self._operators = tuple(each for each in picked if each != "Conv" or parameters.get("convolutions", True))

    @property
    def name(self) -> str:
        """For reports."""
        return f"dynamic int8, per {'channel' if self._per_channel else 'tensor'}"

    def plan(self, source: Path, folder: Path, bench: Workbench) -> DynamicPlan:
        """See `Recipe`."""
        bench.say("reading the model")
        opened, notes = ready(source, folder, bench)
        reduce = saturates(bench.features) if self._reduce is None else self._reduce
        return DynamicPlan(opened, notes, folder, self._operators, per_channel=self._per_channel, reduce_range=reduce)


class DynamicPlan:
    """See `Plan`."""

    def __init__(
        self,
        opened: graphs.Opened,
        notes: tuple[str, ...],
        folder: Path,
        operators: Collection[str],
        *,
        per_channel: bool,
        reduce_range: bool,
    ) -> None:
        # What the library would do first; done here so that a node keeps one name through all of it.
        gemms = {f"{node.name}_MatMul": node.name for node in opened.model.graph.node if node.op_type == "Gemm"}
        wrapped = ONNXModel(opened.model)
        wrapped.replace_gemm_with_matmul()
        self.opened, self._model, self._folder = opened, wrapped.model, folder
        # The library infers them again, and refuses those of weights that it has transposed.
        del self._model.graph.value_info[:]
        self._per_channel, self._reduce_range = per_channel, reduce_range
        weights = float_weights(self._model)
        found: list[Candidate] = []
        kept: list[str] = []
        self._called: dict[str, str] = {}
        for node in self._model.graph.node:
            operator = "Gemm" if node.name in gemms else node.op_type
            place = _WEIGHT.get(node.op_type)
            if operator not in operators or place is None or len(node.input) <= place:
                continue
            if node.input[place] not in weights:
                continue
            if node.op_type == "Attention" and not _plain_attention(node):
                kept.append(node.name)
            else:
                self._called[node.name] = gemms.get(node.name, node.name)
                found.append(Candidate(self._called[node.name], operator))
        self.candidates = tuple(found)
        self.kept = tuple(kept)
        self.notes = notes
        if kept:
            self.notes += (f"{len(kept)} Attention stay in FP32: the library has no INT8 form of them",)

    def build(self, keep: Collection[str] = ()) -> Built:
        """See `Plan`."""
        wanted = [name for name, called in self._called.items() if called not in keep]
        if not wanted:
            return Built(copied(self._model), {})
        model = copied(self._model)
        # One time less that the library writes and reads the model: it infers shapes itself further down.
        add_infer_metadata(model)
        with quiet(self._folder) as heard:
            quantizer = ONNXQuantizer(
                model,
                self._per_channel,
                self._reduce_range,
                QuantizationMode.IntegerOps,
                False,
                QuantType.QInt8,
                QuantType.QUInt8,
                None,
                wanted,
                [],
                sorted({node.op_type for node in self._model.graph.node if node.name in wanted}),
                {"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        self.notes = tuple(dict.fromkeys((*self.notes, *heard)))
        built = quantizer.model.model
        return Built(built, self._counted(built, wanted))

    def _counted(self, built: Any, wanted: Collection[str]) -> Mapping[str, int]:
        """Operator → nodes of `wanted` that are not there any more as they were."""
        left = {node.name: (node.op_type, tuple(node.input)) for node in built.graph.node}
        operators = {each.name: each.operator for each in self.candidates}
        return Counter(
            operators[self._called[node.name]]
            for node in self._model.graph.node
            if node.name in wanted and left.get(node.name) != (node.op_type, tuple(node.input))
        )


def _plain_attention(node: Any) -> bool:
    """Whether the library's INT8 form does the same: it drops an attention bias, and leaves nodes with sizes alone."""
    sized = any(each.name == "qkv_hidden_sizes" for each in node.attribute)
    return not sized and not any(node.input[5:])


class _DynamicInt8:
    def __init__(self, recipe: DynamicRecipe) -> None:
        self._recipe = recipe

    def apply(self, source: Path, target: Path, bench: Workbench) -> PassReport:
        """See `Pass`."""
        name = self._recipe.name
        with workshop(bench) as folder:
            plan = self._recipe.plan(source, folder, bench)
            if not plan.candidates:
                return graphs.as_it_was(name, source, target, _NOTHING, notes=plan.notes)
            bench.say(f"quantizing {len(plan.candidates)} nodes")
            built = plan.build()
            if not built.quantized:
                return graphs.as_it_was(name, source, target, _NOTHING, notes=plan.notes)
            finish(built, plan, target, bench)
        return report_on(name, plan, built)
