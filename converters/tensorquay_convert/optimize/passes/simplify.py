"""The pass "simplify": what is constant is computed, what is dead or does nothing goes (onnxscript.optimizer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir
import onnx_ir.passes.common as onnx_ir_passes
from onnxscript import optimizer

from tensorquay_convert.optimize.passes import counts, graphs
from tensorquay_convert.optimize.passes.api import Pass, Workbench
from tensorquay_convert.optimize.results import PassReport

_MOST_ROUNDS = 10
_LARGEST_INPUT = 1 << 22
"""Entries of a constant that is computed with; larger ones are left to the runtime at load."""
_LARGEST_OUTPUT = 1 << 18
"""Entries of what is stored instead of a node: a larger one costs more file than the node costs time."""


def make(parameters: Mapping[str, Any]) -> Pass:
    """Takes no parameters. Raises: ValueError."""
    if parameters:
        raise ValueError(f"simplify takes no parameters; got {dict(parameters)}")
    return Simplify()


@dataclass(frozen=True, slots=True)
class Simplify:
    """Constant folding, dead code, identities and nodes that are there twice; functions are inlined."""

    def apply(self, source: Path, target: Path, bench: Workbench) -> PassReport:
        """Raises: Unsupported when the runtime does not load what comes out."""
        opened = graphs.opened(source)
        bench.say("simplify: folding constants")
        with graphs.quiet():
            model = onnx_ir.from_proto(opened.model)
            optimizer.optimize_ir(
                model, _MOST_ROUNDS, input_size_limit=_LARGEST_INPUT, output_size_limit=_LARGEST_OUTPUT
            )
            onnx_ir.passes.Sequential(onnx_ir_passes.IdentityEliminationPass(), onnx_ir_passes.RemoveUnusedNodesPass())(
                model
            )
            simplified = onnx_ir.to_proto(model)
        if _size(simplified) >= _size(opened.model):
            why = f"nothing to simplify in {counts.many(sum(opened.before.values()), 'node')}"
            return graphs.as_it_was("simplify", source, target, why, seconds=opened.seconds)
        graphs.write(simplified, opened, target, bench.settings)
        now = counts.operators(simplified)
        return PassReport(
            "simplify",
            changed=True,
            summary=f"computed constants and dropped what does nothing: {counts.sizes(opened.before, now)}",
            seconds=opened.seconds,
            notes=(counts.difference(opened.before, now) or "the same nodes with fewer weights",),
        )


def _size(model: Any) -> tuple[int, int]:
    """Nodes that compute something, and stored tensors. Constants as nodes count as stored ones."""
    now = counts.operators(model)
    constants = now.pop("Constant", 0)
    return sum(now.values()), len(model.graph.initializer) + constants
