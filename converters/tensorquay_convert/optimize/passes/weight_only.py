"""Weights in 8 or 4 bits, in blocks with a scale each; everything is computed in floating point.

The work is `onnxruntime.quantization.matmul_nbits_quantizer`. It saves bytes and, where memory is what limits, time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from onnxruntime.quantization.onnx_model import ONNXModel

from tensorquay_convert.optimize import files
from tensorquay_convert.optimize.passes import graphs
from tensorquay_convert.optimize.passes.api import Pass, Workbench
from tensorquay_convert.optimize.passes.quantizable import (
    checked,
    copied,
    float_weights,
    ready,
    write,
)
from tensorquay_convert.optimize.passes.quiet import quiet, workshop
from tensorquay_convert.optimize.results import PassReport

ALLOWED: Mapping[str, Collection[Any] | type] = {
    "bits": (8, 4),
    "block_size": (16, 32, 64, 128, 256),
    "symmetric": bool,
}
_OLDEST_OPSET = 7
_MIB = 1 << 20
_MADE = "MatMulNBits"
_NOTHING = "nothing to quantize: no MatMul has a matrix of float32 weights"


def make(parameters: Mapping[str, Any]) -> Pass:
    """The pass; `bits` 8 (default) or 4, `block_size` 32 (default) to 256, `symmetric`. Raises: ValueError."""
    checked(parameters, ALLOWED)
    return _WeightOnly(
        int(parameters.get("bits", 8)),
        int(parameters.get("block_size", 32)),
        symmetric=bool(parameters.get("symmetric", False)),
    )


class _WeightOnly:
    def __init__(self, bits: int, block_size: int, *, symmetric: bool) -> None:
        self._bits, self._block_size, self._symmetric = bits, block_size, symmetric

    def apply(self, source: Path, target: Path, bench: Workbench) -> PassReport:
        """See `Pass`."""
        name = f"weights in {self._bits} bits, blocks of {self._block_size}"
        with workshop(bench) as folder:
            bench.say("reading the model")
            opened, notes = ready(source, folder, bench, least=_OLDEST_OPSET)
            # The library knows MatMul only; a Gemm is one with an Add.
            wrapped = ONNXModel(opened.model)
            wrapped.replace_gemm_with_matmul()
            model = wrapped.model
            weights = float_weights(model)
            products = [node for node in model.graph.node if node.op_type == "MatMul"]
            if not any(node.input[1] in weights for node in products):
                return graphs.as_it_was(name, source, target, _NOTHING, notes=notes)
            config = DefaultWeightOnlyQuantConfig(
                block_size=self._block_size, is_symmetric=self._symmetric, bits=self._bits
            )
            bench.say(f"quantizing the weights of {len(products)} MatMul")
            with quiet(folder) as heard:
                quantizer = MatMulNBitsQuantizer(copied(model), algo_config=config)
                quantizer.process()
            built = quantizer.model.model
            found = Counter(node.op_type for node in built.graph.node)
            if not found[_MADE]:
                return graphs.as_it_was(name, source, target, _NOTHING, notes=notes)
            write(built, opened, target, bench)
        saved = files.size(source) - files.size(target)
        summary = f"weights of {found[_MADE]} MatMul in {self._bits} bits, {saved / _MIB:.1f} MiB saved"
        if found["MatMul"]:
            summary += f"; {found['MatMul']} MatMul stay in FP32"
        return PassReport(name, changed=True, summary=summary, quantized=found[_MADE], notes=(*notes, *heard))
