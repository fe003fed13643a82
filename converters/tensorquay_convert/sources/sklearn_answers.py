"""What a fitted scikit-learn model gives: the names, dtypes and methods behind each output.

| model | outputs |
|---|---|
| classifier | `label` (batch), `probabilities` (batch, classes); without those `scores`, its decision function |
| regressor | `variable` (batch, targets) |
| clusterer | `label` (batch), `scores` (batch, clusters): its distances |
| mixture | `label` (batch), `probabilities` (batch, components) |
| outlier detector | `label` (batch): 1 or -1, `scores` (batch, 1): its decision function |
| transformer | `variable` (batch, features) |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorquay_convert.errors import BadSource, Unsupported
from tensorquay_convert.sources.sklearn_inputs import Taken
from tensorquay_convert.tensors import Array


@dataclass(frozen=True, slots=True)
class Answer:
    """One output: the method that gives it, and its dtype. A rank of 1 is a label."""

    name: str
    method: str
    dtype: str
    rank: int

    def of(self, model: Any, given: Any) -> Array:
        """What the model says. Raises: whatever it raises."""
        value = getattr(model, self.method)(given)
        value = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
        if self.dtype == "string":
            found = np.empty(value.size, object)
            found[:] = [str(each).encode() for each in value.reshape(-1).tolist()]
            return found
        return value.reshape(-1 if self.rank == 1 else (len(value), -1)).astype(self.dtype)


def answers_of(model: Any, taken: Taken) -> tuple[Answer, ...]:
    """The outputs of a fitted model, in order.

    Raises: BadSource for an estimator that cannot answer for new rows; Unsupported for several labels at once.
    """
    floats = "float64" if any(spec.dtype == "float64" for spec in taken.specs) else "float32"
    last = _last(model)
    kind = getattr(last, "_estimator_type", None) or _kind_of(last)
    if kind == "classifier" and hasattr(model, "predict"):
        label = Answer("label", "predict", label_dtype(model), 1)
        if hasattr(model, "predict_proba"):
            return label, Answer("probabilities", "predict_proba", floats, 2)
        return (
            (label, Answer("scores", "decision_function", floats, 2))
            if hasattr(model, "decision_function")
            else (label,)
        )
    if kind == "outlier_detector" and hasattr(model, "predict") and hasattr(model, "decision_function"):
        return Answer("label", "predict", "int64", 1), Answer("scores", "decision_function", floats, 2)
    if kind == "clusterer" and hasattr(model, "predict"):
        label = Answer("label", "predict", "int64", 1)
        return (label, Answer("scores", "transform", floats, 2)) if hasattr(model, "transform") else (label,)
    if hasattr(model, "predict_proba") and hasattr(model, "predict") and kind != "regressor":
        return Answer("label", "predict", "int64", 1), Answer("probabilities", "predict_proba", floats, 2)
    if hasattr(model, "predict"):
        return (Answer("variable", "predict", floats, 2),)
    if hasattr(model, "transform"):
        return (Answer("variable", "transform", floats, 2),)
    raise BadSource(
        f"{type(last).__name__} cannot answer for rows it was not fitted on (no predict, no transform)",
        remedy="save an estimator that can, for instance a classifier fitted on its labels",
    )


def label_dtype(model: Any) -> str:
    """ "int64" or "string". Raises: Unsupported when there are several labels, or they are neither."""
    classes = getattr(model, "classes_", None)
    if classes is None:
        return "int64"
    if isinstance(classes, list | tuple):
        raise Unsupported(
            f"{type(_last(model)).__name__} gives {len(classes)} labels for each row, which is not supported",
            remedy="save one model for each label",
        )
    kind = np.asarray(classes).dtype.kind
    if kind in "biu" or (kind == "f" and all(float(each).is_integer() for each in classes)):
        return "int64"
    if all(isinstance(each, str) for each in np.asarray(classes).tolist()):
        return "string"
    raise Unsupported(
        f"the classes of {type(_last(model)).__name__} are neither whole numbers nor texts: {list(classes)[:5]}",
        remedy="fit the model on labels of one of these kinds",
    )


def class_names(model: Any, answers: Sequence[Answer], kept: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names of the classes, for the output that has one column for each."""
    classes = getattr(model, "classes_", None)
    if (
        classes is None
        or len(answers) != 2
        or answers[1].name not in kept
        or answers[1].name not in {"probabilities", "scores"}
    ):
        return {}
    if answers[1].name == "scores" and len(classes) == 2:
        return {}
    whole = label_dtype(model) == "int64"
    return {answers[1].name: tuple(str(int(each)) if whole else str(each) for each in np.asarray(classes).tolist())}


def _last(model: Any) -> Any:
    while hasattr(model, "steps") and not isinstance(model.steps[-1][1], str):
        model = model.steps[-1][1]
    return model


def _kind_of(model: Any) -> str | None:
    try:
        kind: str | None = model.__sklearn_tags__().estimator_type
    except (AttributeError, TypeError):
        return None
    return kind
