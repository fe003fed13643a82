"""The gate: whether a variant's answers are still right. What fails here is never published.

Answers are compared with the baseline's on the judging rows, in batches of `BATCH`: what a dynamically quantized model
answers for a row depends on the others of its batch. The baseline's answers are kept in files (`reference`).

What is asked, where the user does not say:

* Always: the same outputs, of the same shape and dtype, and no NaN or infinity where the baseline has none.
* With labels: the metric (top-1 for classes, root mean square error for numbers) of the output that they are about may
  lose `MAX_DROP`; its similarity is then asked only by `--min-cosine`.
* Every other output: class scores keep the top-1 in `1 - MAX_DROP` of their rows and a mean cosine of `MIN_COSINE`;
  other floats a mean cosine of `MIN_COSINE` and a root mean square error of `MAX_RELATIVE_ERROR` of their size, because
  a cosine does not see that an answer was doubled; floats of one number per row that error only; integers, flags and
  texts are equal in `1 - MAX_DROP` of their entries.

`GateRules.min_cosine` replaces `MIN_COSINE`, and is then all that is asked of floats' similarity; `max_drop` replaces
`MAX_DROP`, and brings the rule on top-1 back beside it. Drops are counted, not tested for significance: of few samples
none may be lost, and the rule says how many there were.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from tensorquay_convert.errors import BadSource, NotPublished
from tensorquay_convert.optimize import labelled, metrics
from tensorquay_convert.optimize.agreement import Agreements
from tensorquay_convert.optimize.goals import GateRules
from tensorquay_convert.optimize.labelled import Task
from tensorquay_convert.optimize.plain import from_plain, to_plain
from tensorquay_convert.optimize.results import Judgement, OutputAgreement
from tensorquay_convert.optimize.samples import Samples
from tensorquay_convert.optimize.session import Opened
from tensorquay_convert.tensors import Array, Arrays

Say = Callable[[str], None]

BATCH = 16
MAX_DROP = 0.005
MIN_COSINE = 0.99
MAX_RELATIVE_ERROR = 0.25
"""A cosine of 0.99 with the size kept is a relative error of 0.14; the rest is for the size."""

FEW = 100
"""Below so many samples a rule in per cent rests on single ones, and that is said."""
MAX_BYTES = 2 << 30
"""Answers of the baseline that are kept; with more, fewer rows are judged."""

_BATCH_BYTES = 128 << 20
_INDEX = "reference.json"
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class _Reference:
    """What `reference` kept: of every `step`-th batch of `batch` rows, the outputs in the order of `outputs`."""

    batch: int
    step: int
    outputs: tuple[str, ...]
    bfloat16: tuple[str, ...]
    texts: tuple[str, ...]


def reference(
    baseline: Opened,
    samples: Samples,
    folder: Path,
    say: Say,
    *,
    seconds: float = 60.0,
    rules: GateRules | None = None,
) -> tuple[str, ...]:
    """Keep the baseline's answers to the judging rows in `folder`, which is made.

    When all of them would take more than `seconds` or `MAX_BYTES`, only every second, third, … batch is judged.

    Args: rules: given, labels that fit no output are refused here, once, and not with every variant.
    Returns: what the user should know.
    Raises: DoesNotRun; BadSource; NotPublished when `folder` cannot be written.
    """
    first = next(samples.judging(1), None)
    if first is None:
        raise BadSource("there is no sample to judge answers with", remedy="give more rows with --data")
    outputs = baseline.run(first)
    begun = time.perf_counter()
    baseline.run(first)
    took = time.perf_counter() - begun
    size = max(1, sum(_bytes(each) for each in outputs.values()))
    labels = samples.labels()
    if rules is not None and labels is not None:
        labelled.task_of(labels, _by_rows(outputs, samples), rules, baseline.bfloat16)
    rows = sum(len(each.judging) for each in samples.index.groups)
    batch = max(1, min(BATCH, _BATCH_BYTES // size)) if samples.index.batched else 1
    most = max(batch, min(MAX_BYTES // size, int(seconds / max(took, 1e-9))))
    step = -(-rows // most)
    texts = tuple(name for name, each in outputs.items() if each.dtype.kind == "O")
    kept = _Reference(batch, step, tuple(outputs), tuple(sorted(baseline.bfloat16)), texts)
    judged = sum(end - start for start, end in _picked(samples, kept))
    total = len(list(_picked(samples, kept)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, inputs in enumerate(islice(samples.judging(batch), 0, None, step)):
            say(f"answering what is judged, {number + 1} of {total}")
            found = baseline.run(inputs)
            for place, name in enumerate(kept.outputs):
                np.save(folder / _file(number, place), _storable(found[name]), allow_pickle=False)
        (folder / _INDEX).write_text(json.dumps(to_plain(kept)), encoding="utf-8")
    except OSError as exc:
        raise NotPublished(
            f"the model's answers cannot be written to '{folder}': {exc.strerror or exc}",
            remedy="free some space there",
        ) from exc
    return _notes(judged, rows, labels=labels is not None)


def judge(variant: Opened, samples: Samples, folder: Path, rules: GateRules, say: Say) -> Judgement:
    """Whether the variant's answers are still right.

    Args: folder: where `reference` kept the baseline's answers.
    Raises: DoesNotRun; BadSource for labels that fit no output; OSError and ValueError when `folder` is not whole.
    """
    kept = from_plain(_Reference, json.loads((folder / _INDEX).read_text(encoding="utf-8")))
    picked = list(_picked(samples, kept))
    agreements = Agreements(batched=samples.index.batched, bfloat16=kept.bfloat16)
    every = samples.labels()
    answers: _Answers | None = None
    rows = 0
    for number, inputs in enumerate(islice(samples.judging(kept.batch), 0, None, kept.step)):
        say(f"judging, {number + 1} of {len(picked)}")
        expected, got = _load(folder, number, kept), variant.run(inputs)
        agreements.add(expected, got, samples.index.content(inputs))
        start, end = picked[number]
        rows += end - start
        if agreements.broken:
            break
        if every is not None:
            if answers is None:
                task = labelled.task_of(every, _by_rows(expected, samples), rules, kept.bfloat16)
                answers = _Answers(task, kept.bfloat16)
            answers.add(expected, got, start, end)
    outputs = agreements.results()
    if answers is None:
        return Judgement(outputs, rows, _rule(rules, rows), violations(outputs, rules))
    if agreements.broken:
        return Judgement(outputs, rows, answers.rule(rules, rows), violations(outputs, rules))
    before, after, failed = answers.verdict(rules, rows)
    return Judgement(
        outputs,
        rows,
        answers.rule(rules, rows),
        (*failed, *violations(outputs, rules, labelled=answers.judged())),
        metric=answers.task.metric.value,
        metric_value=after,
        metric_baseline=before,
    )


class _Answers:
    """Both models' answers to what labels are about, batch by batch. Owner: one `judge`."""

    def __init__(self, task: Task, bfloat16: Collection[str]) -> None:
        self.task = task
        self._bfloat16 = bfloat16
        self._labels: list[Array] = []
        self._others = False
        self._tasks = {task.output: task}
        self._tasks |= {name: replace(task, output=name, form=labelled.Form.CLASS) for name in task.same}
        self._before: dict[str, list[Array]] = {name: [] for name in self._tasks}
        self._after: dict[str, list[Array]] = {name: [] for name in self._tasks}

    def add(self, expected: Arrays, got: Arrays, start: int, end: int) -> None:
        """Outputs of the judging rows from `start` to `end`."""
        self._others = len(expected) > 1
        for name, task in self._tasks.items():
            bits = name in self._bfloat16
            self._before[name].append(labelled.answers(task, expected[name], bfloat16=bits))
            self._after[name].append(labelled.answers(task, got[name], bfloat16=bits))
        self._labels.append(self.task.labels[start * self.task.per_row : end * self.task.per_row])

    def judged(self) -> tuple[str, ...]:
        """The outputs that labels judge: theirs, and integer ones that tell the same class."""
        scores = self._before[self.task.output]
        same = (name for name in self.task.same if labelled.same_answers(self.task, scores, self._before[name]))
        return (self.task.output, *same)

    def verdict(self, rules: GateRules, rows: int) -> tuple[float | None, float | None, tuple[str, ...]]:
        """The metric of the baseline and of the variant, and what of it is not allowed."""
        labels = np.concatenate(self._labels)
        size = float(np.sqrt(np.mean(np.square(labels.astype(np.float64))))) if labels.size else 0.0
        allowed = MAX_DROP if rules.max_drop is None else rules.max_drop
        metric, failed, told = self.task.metric, [], []
        for name in self.judged():
            before, after = (
                labelled.evaluate(self._tasks[name], self._before[name], found, labels)
                for found in (self._before[name], self._after[name])
            )
            told.append((before, after))
            what = f"{metric.value} of output '{name}' on {rows} labelled samples"
            if before is None or after is None:
                failed.append(f"{what} has no value: answers are not finite numbers")
            elif (loss := metrics.lost(metric, before, after, size)) > allowed + _ROUNDING:
                how = "more" if metric in metrics.ERRORS else "lost"
                change = f"{_percent(loss)} {how}, at most {_percent(allowed)} may be"
                failed.append(f"{what} is {after:.5g}, was {before:.5g}: {change}")
        return (*told[0], tuple(failed))

    def rule(self, rules: GateRules, rows: int) -> str:
        """What is asked, in one line."""
        allowed = _percent(MAX_DROP if rules.max_drop is None else rules.max_drop)
        metric = self.task.metric
        may = f"may grow by {allowed} of itself" if metric in metrics.ERRORS else f"may drop {allowed}"
        one = f" (one sample is {_percent(1 / rows)})" if metric in metrics.OF_CLASSES else ""
        cosine = f"; mean cosine at least {rules.min_cosine:g}" if rules.min_cosine is not None else ""
        others = "; other outputs as without labels" if self._others else ""
        few = f"; fewer than {FEW} samples prove little" if rows < FEW else ""
        return f"{metric.value} of '{self.task.output}' on {rows} labelled samples {may}{one}{cosine}{others}{few}"


def compare_outputs(
    expected: Arrays, got: Arrays, *, batched: bool = True, bfloat16: Collection[str] = ()
) -> tuple[OutputAgreement, ...]:
    """How much one run's outputs agree; for more than one run see `agreement.Agreements`.

    Args:
        batched: the first axis of outputs is that of samples.
        bfloat16: outputs whose arrays hold bfloat16 bits.
    """
    found = Agreements(batched=batched, bfloat16=bfloat16)
    found.add(expected, got)
    return found.results()


def violations(
    outputs: Sequence[OutputAgreement], rules: GateRules, *, labelled: Collection[str] = ()
) -> tuple[str, ...]:
    """What is asked of the outputs' likeness and not kept, a sentence each: what, got, allowed.

    Args: labelled: outputs that labels judge, of which less is asked here.
    """
    return tuple(said for output in outputs for said in _violated(output, rules, judged=output.name in labelled))


def _violated(output: OutputAgreement, rules: GateRules, *, judged: bool) -> list[str]:
    if output.problem:
        return [output.problem]
    name = f"output '{output.name}'"
    found = []
    if output.nonfinite:
        found.append(f"{name}: {output.nonfinite} entries are NaN or infinite and were not, none may")
    least = rules.min_cosine if rules.min_cosine is not None else None if judged else MIN_COSINE
    if least is not None and output.cosine is not None and output.cosine < least - _ROUNDING:
        found.append(f"{name}: mean cosine {output.cosine:.5f}, at least {least:g} is asked")
    if judged:
        return found
    floats = output.relative_error is not None
    if output.top1 is not None and (rules.min_cosine is None or rules.max_drop is not None or not floats):
        same = 1 - (MAX_DROP if rules.max_drop is None else rules.max_drop)
        if output.top1 < same - _ROUNDING:
            what = "the largest entry stays in" if floats else "equal in"
            of = "rows" if floats else "entries"
            found.append(f"{name}: {what} {output.top1:.2%} of {of}, at least {same:.2%} is asked")
    scores = output.top1 is not None and floats
    size_asked = output.cosine is None or (rules.min_cosine is None and not scores)
    if output.relative_error is not None and size_asked and output.relative_error > MAX_RELATIVE_ERROR:
        found.append(
            f"{name}: error {output.relative_error:.2%} of its size, at most {MAX_RELATIVE_ERROR:.0%} is asked"
        )
    return found


def _rule(rules: GateRules, rows: int) -> str:
    """What is asked without labels, in one line."""
    few = f"; fewer than {FEW} samples prove little" if rows < FEW else ""
    same = _percent(1 - (MAX_DROP if rules.max_drop is None else rules.max_drop))
    if rules.min_cosine is not None:
        parts = [f"mean cosine at least {rules.min_cosine:g}"]
        parts += [f"the same top-1 in {same} of rows"] if rules.max_drop is not None else []
    else:
        parts = [f"mean cosine at least {MIN_COSINE:g}", f"for class scores the same top-1 in {same} of rows"]
    return f"on {rows} samples without labels: {', '.join(parts)}, integers equal in {same}{few}"


def _notes(judged: int, rows: int, *, labels: bool) -> tuple[str, ...]:
    what = "labelled samples" if labels else "samples"
    found = []
    if judged < rows:
        found.append(f"{judged} of {rows} {what} are judged: all of them would take too much time or space")
    if judged < FEW:
        found.append(
            f"answers are judged on {judged} {what} only, of which one is {_percent(1 / judged)}: "
            f"give at least {FEW} for rules in per cent"
        )
    return tuple(found)


def _picked(samples: Samples, kept: _Reference) -> Iterator[tuple[int, int]]:
    """First and last judging row + 1 of every batch that is judged, as `Samples.judging` makes them."""
    ranges, start = [], 0
    for group in samples.index.groups:
        end = start + len(group.judging)
        ranges += [(first, min(end, first + kept.batch)) for first in range(start, end, kept.batch)]
        start = end
    return islice(ranges, 0, None, kept.step)


def _by_rows(outputs: Arrays, samples: Samples) -> Arrays:
    """With an axis of rows, which outputs of single requests lack."""
    return outputs if samples.index.batched else {name: each[None] for name, each in outputs.items()}


def _file(number: int, place: int) -> str:
    return f"r{number}-{place}.npy"


def _bytes(array: Array) -> int:
    return sum(len(each) for each in array.reshape(-1).tolist()) if array.dtype.kind == "O" else array.nbytes


def _storable(array: Array) -> Array:
    """Texts with a mark at their end: arrays of fixed size lose the zero bytes there."""
    if array.dtype.kind != "O":
        return array
    return np.array([each + b"." for each in array.reshape(-1).tolist()], "S").reshape(array.shape)


def _load(folder: Path, number: int, kept: _Reference) -> Arrays:
    found: dict[str, Array] = {}
    for place, name in enumerate(kept.outputs):
        array = np.load(folder / _file(number, place), allow_pickle=False)
        if name in kept.texts:
            texts = np.empty(array.size, object)
            texts[:] = [each[:-1] for each in array.reshape(-1).tolist()]
            array = texts.reshape(array.shape)
        found[name] = array
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
