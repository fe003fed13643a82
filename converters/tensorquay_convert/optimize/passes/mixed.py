"""Mixed precision: INT8 where it costs little, FP32 elsewhere; as much INT8 as the gate allows.

Nodes are put in order of what quantizing them alone costs (`sensitivity.py`). Of that order the longest beginning whose
model still passes the gate's rules is looked for by halving: it is built and judged whole, because losses add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorquay_convert.optimize import gate
from tensorquay_convert.optimize.passes import graphs
from tensorquay_convert.optimize.passes.api import Pass, Workbench
from tensorquay_convert.optimize.passes.dynamic_int8 import DynamicRecipe
from tensorquay_convert.optimize.passes.quantizable import Built, Plan, Recipe, finish, report_on, save_to_judge
from tensorquay_convert.optimize.passes.quiet import workshop
from tensorquay_convert.optimize.passes.sensitivity import Group, Judge, measured, stricter
from tensorquay_convert.optimize.passes.static_int8 import StaticRecipe
from tensorquay_convert.optimize.results import NodeSensitivity, PassReport
from tensorquay_convert.proof.runtime import RuntimeFailed

BASES: Mapping[str, type[DynamicRecipe] | type[StaticRecipe]] = {
    "dynamic int8": DynamicRecipe,
    "static int8": StaticRecipe,
}


def make(parameters: Mapping[str, Any]) -> Pass:
    """The pass. `base`: of `BASES`; all other parameters are its. Raises: ValueError."""
    base = BASES.get(str(parameters.get("base", "")))
    if base is None:
        raise ValueError(f"parameter 'base' is {parameters.get('base')!r}, expected one of {', '.join(BASES)}")
    return _Mixed(base({name: value for name, value in parameters.items() if name != "base"}))


class _Mixed:
    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def apply(self, source: Path, target: Path, bench: Workbench) -> PassReport:
        """See `Pass`."""
        name = f"mixed, {self._recipe.name}"
        with workshop(bench) as folder:
            plan = self._recipe.plan(source, folder, bench)
            if not plan.candidates:
                return graphs.as_it_was(name, source, target, "nothing to quantize", notes=plan.notes)
            bench.say("running the baseline")
            judge = Judge(bench)
            groups = measured(plan, judge, folder, bench)
            order = sorted(groups, key=lambda each: each.loss)
            search = _Search(plan, order, judge, folder, bench)
            count, built = search.longest()
            quantized = {node.name for group in order[:count] for node in group.nodes}
            bench.sensitivity[:] = [
                NodeSensitivity(node.name, node.operator, group.loss, node.name in quantized)
                for group in groups
                for node in group.nodes
            ]
            if built is None:
                why = "nothing was quantized: even the least sensitive node loses more than the gate allows"
                return graphs.as_it_was(name, source, target, why, notes=plan.notes)
            finish(built, plan, target, bench)
        kept = [each.name for each in plan.candidates if each.name not in quantized]
        return report_on(name, plan, built, kept=kept)


class _Search:
    """Looks for how many groups, the least sensitive first, can be quantized."""

    def __init__(self, plan: Plan, order: Sequence[Group], judge: Judge, folder: Path, bench: Workbench) -> None:
        self._plan, self._order, self._judge, self._folder, self._bench = plan, order, judge, folder, bench
        self._rules = stricter(bench.rules)

    def longest(self) -> tuple[int, Built | None]:
        """How many, and their model; 0 and None when not even the first one passes.

        Halving takes for granted that more nodes never lose less. Where that is not so a shorter beginning is found
        than there is, but it was judged whole.
        """
        low, best = 0, None
        high = len(self._order) + 1
        probe = len(self._order)
        while high - low > 1:
            self._bench.say(f"judging the {probe} least sensitive of {len(self._order)} parts in INT8")
            built = self._passing(probe)
            if built is None:
                high = probe
            else:
                low, best = probe, built
            probe = (low + high) // 2
        return low, best

    def _passing(self, count: int) -> Built | None:
        keep = {node.name for group in self._order[count:] for node in group.nodes}
        built = self._plan.build(keep)
        path = self._folder / "judged.onnx"
        save_to_judge(built, self._plan, path)
        try:
            outputs = self._judge.agreement(path)
        except RuntimeFailed:
            return None
        return None if gate.violations(outputs, self._rules) else built
