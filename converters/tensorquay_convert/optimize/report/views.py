"""What the reports show of an outcome: variants in order, how good their answers are, what the gate allows. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tensorquay_convert.optimize import gate, measure, metrics
from tensorquay_convert.optimize.goals import Objective
from tensorquay_convert.optimize.report import words
from tensorquay_convert.optimize.results import Judgement, Outcome, Timing, Trial, Verdict
from tensorquay_convert.optimize.variants import Family

_ORDER = (
    Verdict.WON, Verdict.PASSED, Verdict.NOT_FASTER, Verdict.SLOWER, Verdict.INACCURATE, Verdict.UNCHANGED,
    Verdict.FAILED, Verdict.NOT_TRIED,
)  # fmt: skip
_ERRORS = frozenset(each.value for each in metrics.ERRORS)
_LEAST_RATIO = 1e-6
"""Beyond it, either way, something else was measured than a model against itself."""
_NOT_JUDGED = "accuracy was not judged on real data"
NOT_REAL = (
    f"{_NOT_JUDGED}: without --data the inputs are drawn from a seed. Give some with --data, and labels with --labels, "
    "before you rely on a variant of less precision"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A trial with the number that stands for it in tables and plots, from 1."""

    number: int
    trial: Trial
    won: bool

    @property
    def name(self) -> str:
        """For people; a hostile or empty name is still a row."""
        return self.trial.variant.name or "(no name)"

    @property
    def label(self) -> str:
        """Number and name."""
        return f"{self.number}. {self.name}"


@dataclass(frozen=True, slots=True)
class Loss:
    """How accuracy is drawn: one number per trial, 0 for no loss, and what the gate allows of it (None: not asked)."""

    kind: str
    name: str
    allowed: float | None

    def of(self, judgement: Judgement | None) -> float | None:
        """The loss; infinite for outputs that are NaN where they were not, None where it was not judged."""
        if judgement is None:
            return None
        if any(each.nonfinite for each in judgement.outputs):
            return math.inf
        if self.kind == "metric":
            return metric_loss(judgement)
        found = [self._of_output(each) for each in judgement.outputs]
        return max((each for each in found if each is not None and math.isfinite(each)), default=None)

    def _of_output(self, output: Any) -> float | None:
        if self.kind == "cosine":
            return None if output.cosine is None else 1.0 - output.cosine
        if self.kind == "top1":
            return None if output.top1 is None else 1.0 - output.top1
        error: float | None = output.relative_error
        return error


def rows(outcome: Outcome) -> tuple[Row, ...]:
    """All variants, the model as it is left out: the winner first, then by verdict, the better first."""

    def key(trial: Trial) -> tuple[bool, int, float]:
        score = trial.score if trial.score is not None and words.known(trial.score) else -math.inf
        return trial.variant.name != outcome.winner or not outcome.winner, _ORDER.index(trial.verdict), -score

    ordered = sorted((each for each in outcome.trials if each.variant.family is not Family.BASELINE), key=key)
    return tuple(
        Row(number, trial, won=bool(outcome.winner) and trial.variant.name == outcome.winner)
        for number, trial in enumerate(ordered, 1)
    )


def baseline(outcome: Outcome) -> Trial | None:
    """The model as it is, where it is among the trials."""
    return next((each for each in outcome.trials if each.variant.family is Family.BASELINE), None)


def baseline_name(outcome: Outcome) -> str:
    """What the model before is called."""
    found = baseline(outcome)
    return found.variant.name if found is not None and found.variant.name else "as it is"


def by_size(outcome: Outcome) -> bool:
    """Whether scores are of bytes: then 2 is half the size, at whatever speed."""
    return outcome.goals.get("objective") == Objective.SIZE.value


def scored_by(outcome: Outcome) -> str:
    """What a score is, as a table's head."""
    return "× smaller" if by_size(outcome) else "× baseline"


def warnings(outcome: Outcome) -> tuple[str, ...]:
    """What to mind, each once; that data was not real comes first, in one sentence."""
    found = [each for each in outcome.warnings if each and not each.startswith(_NOT_JUDGED)]
    return tuple(dict.fromkeys(found if outcome.data.real else [NOT_REAL, *found]))


def winner(found: tuple[Row, ...]) -> Row | None:
    """The row that won, if one did."""
    return next((each for each in found if each.won), None)


def tried(row: Row) -> bool:
    """Whether it was begun."""
    return row.trial.verdict is not Verdict.NOT_TRIED


def loss(outcome: Outcome) -> Loss:
    """What accuracy is drawn by: the task metric, else the best of what all outputs have."""
    judged = [each.judgement for each in outcome.trials if each.judgement is not None]
    rules = outcome.goals.get("gate")
    asked = rules if isinstance(rules, Mapping) else {}
    drop = _number(asked.get("max_drop"), gate.MAX_DROP)
    for each in judged:
        if metric_loss(each) is not None:
            of = f"increase of {each.metric}, relative" if each.metric in _ERRORS else f"{each.metric} lost"
            return Loss("metric", of, drop)
    outputs = [output for each in judged for output in each.outputs]
    if not outputs or any(words.known(each.cosine) for each in outputs):
        return Loss("cosine", "1 − mean cosine", 1.0 - _number(asked.get("min_cosine"), gate.MIN_COSINE))
    if any(words.known(each.relative_error) for each in outputs):
        return Loss("relative", "error, share of the output's size", gate.MAX_RELATIVE_ERROR)
    return Loss("top1", "share of answers that changed", drop)


def metric_loss(judgement: Judgement) -> float | None:
    """What the task metric lost: a share, or for errors the relative increase."""
    value, before = judgement.metric_value, judgement.metric_baseline
    if value is None or before is None or not (math.isfinite(value) and math.isfinite(before)):
        return None
    if judgement.metric not in _ERRORS:
        return before - value
    return (value - before) / before if before else 0.0 if value == before else math.inf


def metric(judgement: Judgement | None) -> str:
    """The task metric; empty without labels."""
    if judgement is None or judgement.metric_value is None:
        return ""
    return f"{judgement.metric or 'metric'} {words.exact(judgement.metric_value)}"


def likeness(judgement: Judgement | None) -> tuple[str, ...]:
    """The worst output's cosine and top-1, as far as outputs have them."""
    if judgement is None:
        return ()
    cosines = [each.cosine for each in judgement.outputs if each.cosine is not None and words.known(each.cosine)]
    shares = [each.top1 for each in judgement.outputs if each.top1 is not None and words.known(each.top1)]
    found = (f"cosine {words.exact(min(cosines))}",) if cosines else ()
    return (*found, f"top-1 same {words.share(min(shares), 2)}") if shares else found


def answers(judgement: Judgement | None) -> tuple[str, ...]:
    """How good the answers are: the metric where there is one, then the likeness."""
    found = metric(judgement)
    return (found, *likeness(judgement)) if found else likeness(judgement)


def max_error(judgement: Judgement | None) -> str:
    """The largest absolute error of all outputs; NaN and infinities are said instead."""
    if judgement is None:
        return ""
    bad = sum(each.nonfinite for each in judgement.outputs)
    if bad:
        return f"{bad:,} NaN or infinite"
    found = [each.max_error for each in judgement.outputs if each.max_error is not None]
    return words.small(max(found, default=None))


def fused(trial: Trial) -> int:
    """New fused operators of all passes."""
    return sum(sum(each.fused.values()) for each in trial.passes)


def quantized(trial: Trial) -> int:
    """Nodes that compute in less precision than before."""
    return sum(each.quantized for each in trial.passes)


def points(outcome: Outcome) -> tuple[str, ...]:
    """Names of the points that were timed, in the order of the data's, unknown ones last."""
    names = [each.name for each in outcome.data.points]
    timed = [each.point for trial in outcome.trials for each in trial.timings]
    timed += [each.point for each in outcome.noise]
    found = set(timed)
    return tuple(dict.fromkeys([*(name for name in names if name in found), *timed]))


def at(timings: tuple[Timing, ...], point: str) -> Timing | None:
    """The timing at a point."""
    return next((each for each in timings if each.point == point), None)


def baseline_at(outcome: Outcome, begun: Sequence[Row], point: str) -> Timing | None:
    """A timing that has the baseline's times at a point: against itself, else the first variant's."""
    found = [at(outcome.noise, point), *(at(each.trial.timings, point) for each in begun)]
    return next((each for each in found if each is not None), None)


def rows_per_second(timing: Timing, *, baseline: bool = False) -> str:
    """At the median; requests per second of an unbatched model."""
    p50 = timing.baseline_p50 if baseline else timing.p50
    return words.digits(max(1, timing.batch) / p50) if words.known(p50) and p50 > 0 else ""


def baseline_metric(begun: Sequence[Row]) -> str:
    """The task metric of the model as it came; empty without labels."""
    judged = [each.trial.judgement for each in begun if each.trial.judgement is not None]
    found = next((each for each in judged if each.metric_baseline is not None), None)
    return f"{found.metric or 'metric'} {words.exact(found.metric_baseline)}" if found is not None else ""


def noise(outcome: Outcome) -> tuple[float, float] | None:
    """The scores that mean nothing, as `choose.py` has it; None when it was not measured, or scores are of bytes."""
    batches = [each.batch for each in outcome.noise]
    objective = outcome.goals.get("objective")
    if by_size(outcome) or not batches:
        return None
    counted = {Objective.LATENCY.value: {min(batches)}, Objective.THROUGHPUT.value: {max(batches)}}
    wanted = counted.get(objective, set(batches)) if isinstance(objective, str) else set(batches)
    bands = [band for each in outcome.noise if each.batch in wanted and (band := noise_at(each)) is not None]
    if not bands:
        return None
    middle = math.exp(math.fsum(math.log(high) for _, high in bands) / len(bands))
    return 1 / middle, middle


def noise_at(timing: Timing | None) -> tuple[float, float] | None:
    """The ratios that mean nothing at a point, from the baseline against itself there."""
    if timing is None or not (_LEAST_RATIO <= timing.low <= timing.high <= 1 / _LEAST_RATIO):
        return None
    margin = measure.noise([timing])
    return 1 / (1 + margin), 1 + margin


def _number(value: Any, default: float) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return default
