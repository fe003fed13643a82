"""What quantizing one node costs: the model with that node alone in 8 bits, against the baseline.

Judged on calibration rows, never on those of the gate: a choice that was made by the judge's own rows proves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tensorquay_convert.optimize import gate
from tensorquay_convert.optimize.agreement import Agreements
from tensorquay_convert.optimize.goals import GateRules
from tensorquay_convert.optimize.passes.api import Workbench
from tensorquay_convert.optimize.passes.quantizable import Built, Candidate, Plan, save_to_judge
from tensorquay_convert.optimize.results import OutputAgreement
from tensorquay_convert.proof.runtime import Runtime, RuntimeFailed
from tensorquay_convert.tensors import Arrays

MOST_GROUPS = 48
"""Nodes are taken together beyond this many: neighbours in the graph, which mostly are of one layer."""
_FEWEST_GROUPS, _SEARCH = 4, 8
_FEWEST_ROWS, _MOST_ROWS = 64, 256
_BYTES = 16 << 20
"""Inputs and answers beyond `_FEWEST_ROWS` rows."""
_MEASURED = 2
"""Every second batch is enough to put nodes in order; the model that comes of it is judged on all."""
WORST = 1.0
"""The loss where there are no answers, or they are not finite."""
MARGIN = 0.75
"""Share of what the gate allows to be lost that may be lost here: the gate judges other rows."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes that are quantized or kept together. `loss`: see `loss_of`."""

    nodes: tuple[Candidate, ...]
    loss: float


class Judge:
    """Compares a model with the baseline on some calibration rows. Owner: one pass."""

    def __init__(self, bench: Workbench) -> None:
        """Runs the baseline. Raises: RuntimeFailed."""
        self._index = bench.samples.index
        self._batched = self._index.batched
        self._baseline = Runtime(bench.baseline)
        self._asked: list[tuple[Arrays, Arrays]] = []
        self._ask(bench, 1)
        size = sum(each.nbytes for part in self._asked for arrays in part for each in arrays.values())
        # Rows of small answers cost little, and a share of changed answers needs many.
        rows = min(_MOST_ROWS, max(_FEWEST_ROWS, _BYTES * self._rows() // max(1, size)))
        self._ask(bench, rows)
        self._bfloat16 = tuple(name for name in self._baseline.outputs if self._baseline.is_bfloat16(name))

    def _ask(self, bench: Workbench, rows: int) -> None:
        """Keep the baseline's answers to about as many calibration rows, from all over them: all lengths have a say."""
        index = bench.samples.index
        step = gate.BATCH if index.batched else 1
        count = sum(-(-len(group.calibration) // step) for group in index.groups)
        wanted = min(count, -(-rows // step))
        picked = {place * count // wanted for place in range(wanted)} if wanted else set()
        self._asked = [
            (inputs, self._baseline.run(inputs))
            for place, inputs in enumerate(bench.samples.calibration(step))
            if place in picked
        ]

    def _rows(self) -> int:
        """Of the first batch."""
        return len(next(iter(self._asked[0][0].values()))) if self._batched and self._asked else 1

    def agreement(self, path: Path, *, every: int = 1) -> tuple[OutputAgreement, ...]:
        """How the outputs of the model at `path` agree with the baseline's. Raises: RuntimeFailed.

        Args: every: 2 looks at every second batch.
        """
        model = Runtime(path)
        found = Agreements(batched=self._batched, bfloat16=self._bfloat16)
        for inputs, expected in self._asked[::every]:
            found.add(expected, model.run(inputs), self._index.content(inputs))
        return found.results()


def loss_of(outputs: Sequence[OutputAgreement]) -> float:
    """1 - mean cosine of the worst output; where no output has one, the share of changed answers, or the error."""
    if any(each.problem or each.nonfinite for each in outputs):
        return WORST
    for losses in (
        [1 - each.cosine for each in outputs if each.cosine is not None],
        [1 - each.top1 for each in outputs if each.top1 is not None],
        [min(WORST, each.relative_error) for each in outputs if each.relative_error is not None],
    ):
        if losses:
            return max(0.0, *losses)
    return 0.0


def measured(plan: Plan, judge: Judge, folder: Path, bench: Workbench) -> tuple[Group, ...]:
    """The loss of each node of the plan, or of each few neighbours where there are many; in the graph's order.

    How many are taken together follows from how long one takes, so that all of it ends within `bench.patience_s`.

    Raises: what the library raises; OSError.
    """
    names = {each.name for each in plan.candidates}
    total, done = len(plan.candidates), 0
    started = time.monotonic()
    _loss(plan.build(set()), plan, judge, folder)
    took = max(1e-3, time.monotonic() - started)
    # The search afterwards takes about as many again as halving the number of groups does.
    most = min(MOST_GROUPS, max(_FEWEST_GROUPS, int(bench.patience_s / took) - _SEARCH))
    found = []
    for nodes in grouped(plan.candidates, most):
        done += len(nodes)
        bench.say(f"measuring sensitivity, node {done} of {total}")
        keep = names - {each.name for each in nodes}
        found.append(Group(nodes, _loss(plan.build(keep), plan, judge, folder)))
    return tuple(found)


def grouped(candidates: Sequence[Candidate], most: int = MOST_GROUPS) -> tuple[tuple[Candidate, ...], ...]:
    """Neighbours together, at most `most` groups of sizes that differ by one at most."""
    count = min(most, len(candidates))
    edges = [place * len(candidates) // count for place in range(count + 1)] if count else [0]
    return tuple(tuple(candidates[start:stop]) for start, stop in pairwise(edges))


def _loss(built: Built, plan: Plan, judge: Judge, folder: Path) -> float:
    path = folder / "alone.onnx"
    save_to_judge(built, plan, path)
    try:
        return loss_of(judge.agreement(path, every=_MEASURED))
    except RuntimeFailed:
        return WORST


def stricter(rules: GateRules) -> GateRules:
    """The rules with what they allow to be lost cut to `MARGIN`; defaults are the gate's."""
    cosine = gate.MIN_COSINE if rules.min_cosine is None else rules.min_cosine
    drop = gate.MAX_DROP if rules.max_drop is None else rules.max_drop
    return GateRules(
        max_drop=None if rules.max_drop is None and rules.min_cosine is not None else drop * MARGIN,
        min_cosine=1 - (1 - cosine) * MARGIN,
        metric=rules.metric,
        output=rules.output,
    )
