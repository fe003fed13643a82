"""Static INT8: weights and activations in 8 bits, with ranges from calibration; written as QDQ.

The work is `onnxruntime.quantization.QDQQuantizer`; the runtime fuses what it writes into integer operators. Which
operators take part depends on the kind of net:

* With convolutions and no layer normalisation everything on the way is quantized, so that values stay in 8 bits
  between the layers.
* Else only products with weights and look-ups are, and their results are floats: residuals and normalisations of
  transformers do not stand 8 bits, and the runtime has one operator for quantized product and float result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.quant_utils import add_infer_metadata

from tensorquay_convert.optimize.passes import graphs
from tensorquay_convert.optimize.passes.api import Pass, Workbench
from tensorquay_convert.optimize.passes.calibrate import METHODS, calibrated, silent
from tensorquay_convert.optimize.passes.quantizable import (
    SHAPED,
    Built,
    Candidate,
    checked,
    copied,
    finish,
    float_values,
    float_weights,
    listed,
    ready,
    report_on,
)
from tensorquay_convert.optimize.passes.quiet import quiet, workshop
from tensorquay_convert.optimize.results import PassReport
from tensorquay_convert.optimize.variants import saturates

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_LOOKED_UP = "Gather"
_BETWEEN = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu")
"""Quantized by themselves where everything on the way is."""
_FOLLOWERS = (
    "Relu", "Clip", "MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Pad", "Resize", "Slice",
    "Split",
)  # fmt: skip
"""Take values in 8 bits when they come so, and change nothing otherwise."""
_NORMALISED = frozenset({"LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization", "RMSNormalization",
                         "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "Attention"})  # fmt: skip

ALLOWED: Mapping[str, Collection[Any] | type] = {
    "method": tuple(METHODS),
    "per_channel": bool,
    "symmetric_activations": bool,
    "reduce_range": bool,
    "operators": list,
}
_NOTHING = "nothing to quantize: no product or convolution with float32 weights"


def make(parameters: Mapping[str, Any]) -> Pass:
    """The pass. Raises: ValueError."""
    return _StaticInt8(StaticRecipe(parameters))


class StaticRecipe:
    """How to quantize: the parameters of the pass.

    `method`: how ranges are found. `per_channel`: a scale for each output of a weight. `symmetric_activations`: signed,
    around 0; default: as TensorRT needs it, unsigned elsewhere. `reduce_range`: weights in 7 bits; default: where the
    CPU's sums saturate. `operators`: only these of `WEIGHTED` and Gather.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """Raises: ValueError for parameters that nobody knows."""
        checked(parameters, ALLOWED)
        self._method = str(parameters.get("method", "minmax"))
        self._per_channel = bool(parameters.get("per_channel", True))
        self._symmetric: bool | None = parameters.get("symmetric_activations")
        self._reduce: bool | None = parameters.get("reduce_range")
        self._operators: tuple[str, ...] = tuple(parameters.get("operators") or ())
        unknown = sorted(set(self._operators) - {*WEIGHTED, _LOOKED_UP})
        if unknown:
            raise ValueError(f"operator {unknown[0]} is not among {', '.join((*WEIGHTED, _LOOKED_UP))}")

    @property
    def name(self) -> str:
        """For reports."""
        return f"static int8 QDQ, {self._method}, per {'channel' if self._per_channel else 'tensor'}"

    def plan(self, source: Path, folder: Path, bench: Workbench) -> StaticPlan:
        """See `Recipe`. Calibrates, unless nothing can be quantized."""
        bench.say("reading the model")
        opened, notes = ready(source, folder, bench)
        on_tensorrt = bench.settings.provider == "tensorrt"
        scheme = _Scheme(
            per_channel=self._per_channel,
            symmetric=on_tensorrt if self._symmetric is None else self._symmetric,
            reduce_range=saturates(bench.features) if self._reduce is None else self._reduce,
        )
        return StaticPlan(opened, notes, folder, bench, self._method, self._operators, scheme)


class _Scheme:
    """How numbers become 8 bits."""

    def __init__(self, *, per_channel: bool, symmetric: bool, reduce_range: bool) -> None:
        self.per_channel, self.symmetric, self.reduce_range = per_channel, symmetric, reduce_range


class StaticPlan:
    """See `Plan`."""

    def __init__(
        self,
        opened: graphs.Opened,
        notes: tuple[str, ...],
        folder: Path,
        bench: Workbench,
        method: str,
        operators: Collection[str],
        scheme: _Scheme,
    ) -> None:
        """Calibrates. Raises: as `calibrated`."""
        self.opened, self._folder, self._scheme = opened, folder, scheme
        model = opened.model
        kinds = {node.op_type for node in model.graph.node}
        self._throughout = bool(kinds & {"Conv", "ConvTranspose"}) and not kinds & _NORMALISED
        own = [*(operators or (*WEIGHTED, _LOOKED_UP)), *(_BETWEEN if self._throughout else ())]
        self._operators = tuple(own if not self._throughout else (*own, *_FOLLOWERS))
        self.kept: tuple[str, ...] = ()
        self.notes = notes
        weights, values = float_weights(model), float_values(model)
        found = [node for node in model.graph.node if node.op_type in own and _fits(node, weights, values)]
        self._followers = [node.name for node in model.graph.node if node.op_type in _FOLLOWERS]
        # Without a product there is nothing to win: the others only come along.
        if not any(node.op_type in WEIGHTED for node in found):
            self.candidates: tuple[Candidate, ...] = ()
            return
        self._ranges = calibrated(folder / SHAPED, self._operators, method, folder, bench)
        unknown = silent(self._ranges)
        dead = [node for node in found if unknown & {*node.input, *node.output}]
        if dead:
            self.kept = tuple(node.name for node in dead)
            left = listed(Counter(node.op_type for node in dead))
            self.notes += (f"{left} see or give nothing but zeros in the calibration samples and stay in FP32",)
            found = [node for node in found if node.name not in self.kept]
        self.candidates = tuple(Candidate(node.name, node.op_type) for node in found)

    def build(self, keep: Collection[str] = ()) -> Built:
        """See `Plan`."""
        wanted = [each.name for each in self.candidates if each.name not in keep]
        model = copied(self.opened.model)
        if not wanted:
            return Built(model, {})
        # The library infers shapes again where this mark is missing, and would lose those of the runtime's operators.
        add_infer_metadata(model)
        scheme = self._scheme
        options: dict[str, Any] = {"ActivationSymmetric": scheme.symmetric}
        if not self._throughout:
            options["OpTypesToExcludeOutputQuantization"] = ["Gemm", "MatMul"]
        with quiet(self._folder) as heard:
            quantizer = QDQQuantizer(
                model,
                scheme.per_channel,
                scheme.reduce_range,
                QuantType.QInt8,
                QuantType.QInt8 if scheme.symmetric else QuantType.QUInt8,
                self._ranges,
                [*wanted, *self._followers],
                [],
                list(self._operators),
                options,
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
        self.notes = tuple(dict.fromkeys((*self.notes, *heard)))
        built = quantizer.model.model
        return Built(built, self._counted(built, wanted))

    def _counted(self, built: Any, wanted: Collection[str]) -> Mapping[str, int]:
        """Operator → nodes of `wanted` that read values from 8 bits."""
        dequantized = {name for node in built.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
        reading = {node.name for node in built.graph.node if dequantized & set(node.input)}
        return Counter(each.operator for each in self.candidates if each.name in wanted and each.name in reading)


def _fits(node: Any, weights: Collection[str], values: Collection[str]) -> bool:
    """Whether a node computes float32, with a stored weight where its operator has one."""
    if not any(name in values for name in node.output):
        return False
    if node.op_type == _LOOKED_UP:
        return node.input[0] in weights
    if node.op_type in WEIGHTED:
        return len(node.input) > 1 and node.input[1] in weights
    return True


class _StaticInt8:
    def __init__(self, recipe: StaticRecipe) -> None:
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
            finish(built, plan, target, bench)
        return report_on(name, plan, built)
