"""Which output the user's labels are about, and how good it is. Pure.

Labels of shape (rows, …) are about, of the outputs that fit in shape:

* classes (integers, or one-hot rows): the float output with one score per class, more classes than the highest label;
  else the integer output; else the float output of one number, for labels 0 and 1, cut at 0.5 when the baseline's
  numbers are all between 0 and 1 and at 0 otherwise;
* numbers: the output of one number per label.

Of several the one that looks like class scores by its name is taken, then the first. `GateRules.output` names another.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize import metrics
from tensorquay_convert.optimize.agreement import SCORES
from tensorquay_convert.optimize.goals import GateRules, Metric
from tensorquay_convert.proof.compare import as_numbers
from tensorquay_convert.tensors import Array, Arrays


class Form(enum.Enum):
    """How an output tells its answer."""

    SCORES = "one score per class"
    CLASS = "the number of a class"
    CUT = "one number, a class on either side of a threshold"
    NUMBER = "a number"


@dataclass(frozen=True, slots=True)
class Task:
    """What labels judge.

    Args:
        labels: int64 classes [answers], or float64 numbers [answers].
        per_row: answers of one row.
        same: integer outputs that may tell the same class once more.
    """

    output: str
    metric: Metric
    form: Form
    labels: Array
    per_row: int
    same: tuple[str, ...] = ()


def task_of(labels: Array, outputs: Arrays, rules: GateRules, bfloat16: Collection[str] = ()) -> Task:
    """What `labels` judge, going by shapes.

    Args:
        labels: (rows, …), of all judging rows.
        outputs: the baseline's of any of those rows, the first axis the rows.
    Raises: BadSource when no output fits, listing those that there are.
    """
    if rules.output and rules.output not in outputs:
        raise BadSource(f"the model has no output '{rules.output}' for labels to be about; {_listed(outputs)}")
    asked = {name: each for name, each in outputs.items() if rules.output in {"", name}}
    floats = {name for name, each in asked.items() if name in bfloat16 or each.dtype.kind == "f"}
    classes = _classes(labels)
    wanted = rules.metric
    if (wanted is None or wanted in metrics.OF_CLASSES) and classes is not None:
        found = _of_classes(classes, asked, floats)
        if found is not None:
            name, form = found
            same = tuple(
                other
                for other, each in outputs.items()
                if other != name and each.dtype.kind in "iu" and other not in bfloat16 and _answers(each, classes)
            )
            return Task(
                name,
                wanted or Metric.TOP1,
                form,
                classes.reshape(-1),
                classes[:1].size,
                same if not rules.output else (),
            )
    if wanted is None or wanted not in metrics.OF_CLASSES:
        fitting = [name for name, each in asked.items() if each.dtype.kind in "iuf" and _answers(each, labels)]
        if fitting:
            name = min(fitting, key=lambda each: (each not in floats, fitting.index(each)))
            numbers = labels.astype(np.float64).reshape(-1)
            return Task(name, wanted or Metric.RMSE, Form.NUMBER, numbers, labels[:1].size)
    what = f"{wanted.value} of labels" if wanted is not None else "labels"
    raise BadSource(
        f"no output fits {what} of shape {list(labels.shape)} and type {labels.dtype.name}; {_listed(outputs)}",
        remedy="give one class number per row, one-hot rows, or numbers of the output's shape",
    )


def answers(task: Task, output: Array, *, bfloat16: bool = False) -> Array:
    """What of one run's output `evaluate` needs, the rows along the first axis of both.

    Returns: int64 [answers, guesses] for classes, float64 [answers] for numbers.
    """
    if task.form is Form.CLASS:
        return output.reshape(-1, 1).astype(np.int64)
    numbers = as_numbers(output, "bfloat16" if bfloat16 else "")
    if task.form is Form.SCORES:
        return metrics.best_classes(numbers.reshape(-1, output.shape[-1]))
    return numbers.reshape(-1)


def evaluate(task: Task, baseline: Sequence[Array], found: Sequence[Array], labels: Array) -> float | None:
    """The metric of `found`, parts as `answers` gives them. None when it has no value, for answers that are NaN.

    Args:
        baseline: the baseline's, which decides on a threshold.
        labels: of these answers.
    """
    parts = np.concatenate(found)
    if task.form is Form.NUMBER:
        return metrics.of_numbers(task.metric, parts, labels)
    if task.form is Form.CUT:
        reference = np.concatenate(baseline)
        threshold = 0.5 if ((reference >= 0) & (reference <= 1)).all() else 0.0
        guesses = np.where(np.isnan(parts), metrics.NO_CLASS, parts > threshold).astype(np.int64)
        return metrics.of_classes(task.metric, guesses[:, None], labels)
    return metrics.of_classes(task.metric, parts, labels)


def same_answers(task: Task, scores: Sequence[Array], classes: Sequence[Array]) -> bool:
    """Whether an integer output tells the class of the highest score, in all rows of the baseline."""
    if task.form is not Form.SCORES:
        return False
    return bool(np.array_equal(np.concatenate(scores)[:, 0], np.concatenate(classes).reshape(-1)))


def _classes(labels: Array) -> Array | None:
    """Labels as class numbers, int64 (rows, …); None when they are other numbers."""
    if labels.ndim == 2 and labels.shape[1] >= 2 and _one_hot(labels):
        return np.asarray(labels.argmax(-1), np.int64)
    if labels.dtype.kind in "bui":
        return labels.astype(np.int64) if labels.size and labels.min() >= 0 else None
    return None


def _one_hot(labels: Array) -> bool:
    ones = labels == 1
    return bool(((labels == 0) | ones).all() and (ones.sum(-1) == 1).all())


def _of_classes(classes: Array, outputs: Arrays, floats: Collection[str]) -> tuple[str, Form] | None:
    highest = int(classes.max())
    scores = [name for name in floats if _scores(outputs[name], classes, highest)]
    if scores:
        order = list(outputs)
        return min(scores, key=lambda name: (SCORES.search(name.lower()) is None, order.index(name))), Form.SCORES
    for name, each in outputs.items():
        if name not in floats and each.dtype.kind in "iub" and _answers(each, classes):
            return name, Form.CLASS
    if highest <= 1:
        for name in outputs:
            if name in floats and _answers(outputs[name], classes):
                return name, Form.CUT
    return None


def _scores(output: Array, classes: Array, highest: int) -> bool:
    if output.ndim < 2 or output.shape[-1] < 2 or output.shape[-1] <= highest:
        return False
    return _answers(output[..., 0], classes)


def _answers(output: Array, labels: Array) -> bool:
    """Whether an output has one entry per label; axes of 1 do not count."""
    return _sizes(output) == _sizes(labels)


def _sizes(array: Array) -> list[int]:
    return [size for size in array.shape[1:] if size != 1]


def _listed(outputs: Mapping[str, Array]) -> str:
    listed = ", ".join(f"'{name}' {each.dtype.name}{['rows', *each.shape[1:]]}" for name, each in outputs.items())
    return f"its outputs are: {listed.replace(chr(39) + 'rows' + chr(39), 'rows')}"
