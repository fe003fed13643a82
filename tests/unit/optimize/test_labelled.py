"""Metrics against scikit-learn's, and the output that labels are about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize import labelled, metrics
from tensorquay_convert.optimize.goals import GateRules, Metric
from tensorquay_convert.optimize.labelled import Form
from tensorquay_convert.tensors import Array, Arrays

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 7, 300)


def test_metrics_agree_with_scikit_learn() -> None:
    scores = RNG.random((300, 7)) + 0.6 * np.eye(7)[CLASSES]
    guesses = metrics.best_classes(scores)
    top5 = sklearn_metrics.top_k_accuracy_score(CLASSES, scores, k=5)
    assert metrics.of_classes(Metric.TOP1, guesses, CLASSES) == (scores.argmax(-1) == CLASSES).mean()
    assert metrics.of_classes(Metric.TOP5, guesses, CLASSES) == pytest.approx(top5)
    f1 = sklearn_metrics.f1_score(CLASSES, scores.argmax(-1), average="macro")
    assert metrics.of_classes(Metric.F1, guesses, CLASSES) == pytest.approx(f1)
    targets = RNG.standard_normal((100, 3))
    answers = targets + RNG.normal(0, 0.3, targets.shape)
    flat = targets.reshape(-1), answers.reshape(-1)
    assert metrics.of_numbers(Metric.MAE, answers, targets) == pytest.approx(sklearn_metrics.mean_absolute_error(*flat))
    assert metrics.of_numbers(Metric.RMSE, answers, targets) == pytest.approx(
        sklearn_metrics.mean_squared_error(*flat) ** 0.5
    )
    assert metrics.of_numbers(Metric.R2, answers, targets) == pytest.approx(sklearn_metrics.r2_score(*flat))
    assert metrics.of_numbers(Metric.R2, np.ones(3), np.ones(3)) == 1.0
    assert metrics.of_numbers(Metric.R2, np.zeros(3), np.ones(3)) == 0.0
    assert metrics.of_numbers(Metric.MAE, np.array([1, np.nan]), np.zeros(2)) is None


def test_a_row_with_nan_has_no_class() -> None:
    scores = np.array([[0.0, np.nan], [1.0, 0.0]])
    guesses = metrics.best_classes(scores)
    assert guesses.tolist() == [[-1, -1], [0, 1]]
    assert metrics.of_classes(Metric.TOP1, guesses, np.array([1, 0])) == 0.5
    # Class 0: found once of once; class 1: missed.
    assert metrics.of_classes(Metric.F1, guesses, np.array([1, 0])) == 0.5


@pytest.mark.parametrize(
    ("metric", "before", "after", "lost"),
    [
        (Metric.TOP1, 0.98, 0.97, 0.01), (Metric.R2, 0.5, 0.6, -0.1), (Metric.RMSE, 2.0, 2.1, 0.05),
        (Metric.MAE, 2.0, 1.0, -0.5), (Metric.MAE, 0.0, 0.1, 0.01), (Metric.MAE, 0.0, 0.0, 0.0),
    ],
)  # fmt: skip
def test_what_a_metric_lost(metric: Metric, before: float, after: float, lost: float) -> None:
    assert metrics.lost(metric, before, after, size=10.0) == pytest.approx(lost)


def test_an_error_that_was_nothing_for_targets_that_are_nothing() -> None:
    assert metrics.lost(Metric.RMSE, 0.0, 0.5, size=0.0) == 0.5


# -- what labels are about

SCORES, OTHER, DIGIT = np.zeros((4, 10), np.float32), np.zeros((4, 10), np.float32), np.zeros(4, np.int64)
NUMBER, PAIR = np.zeros((4, 1), np.float32), np.zeros((4, 2), np.float32)
TOKENS = np.zeros((4, 6, 3), np.float32)
KINDS = np.array([0, 3, 9, 1])


@pytest.mark.parametrize(
    ("labels", "outputs", "rules", "output", "metric", "form"),
    [
        (KINDS, {"features": OTHER, "logits": SCORES, "digit": DIGIT}, {}, "logits", Metric.TOP1, Form.SCORES),
        (KINDS, {"digit": DIGIT, "y": SCORES}, {}, "y", Metric.TOP1, Form.SCORES),
        (KINDS, {"digit": DIGIT, "y": SCORES}, {"output": "digit"}, "digit", Metric.TOP1, Form.CLASS),
        (KINDS, {"digit": DIGIT, "y": PAIR}, {}, "digit", Metric.TOP1, Form.CLASS),
        (KINDS, {"y": SCORES}, {"metric": Metric.TOP5}, "y", Metric.TOP5, Form.SCORES),
        (np.eye(10)[KINDS], {"y": SCORES}, {}, "y", Metric.TOP1, Form.SCORES),
        (np.eye(10)[KINDS], {"y": SCORES}, {"metric": Metric.RMSE}, "y", Metric.RMSE, Form.NUMBER),
        (np.array([0, 1, 1, 0]), {"y": NUMBER}, {}, "y", Metric.TOP1, Form.CUT),
        (np.array([0, 1, 1, 0]), {"y": NUMBER}, {"metric": Metric.MAE}, "y", Metric.MAE, Form.NUMBER),
        (KINDS, {"y": NUMBER}, {}, "y", Metric.RMSE, Form.NUMBER),
        (KINDS / 2, {"digit": DIGIT, "y": NUMBER}, {}, "y", Metric.RMSE, Form.NUMBER),
        (np.ones((4, 2)) / 3, {"y": PAIR}, {"metric": Metric.R2}, "y", Metric.R2, Form.NUMBER),
        (np.zeros((4, 6), np.int64), {"logits": TOKENS}, {}, "logits", Metric.TOP1, Form.SCORES),
        (KINDS, {"y": SCORES[:, None]}, {}, "y", Metric.TOP1, Form.SCORES),
    ],
)
def test_the_output_that_labels_are_about(
    labels: Array, outputs: Arrays, rules: dict[str, Any], output: str, metric: Metric, form: Form
) -> None:
    found = labelled.task_of(labels, outputs, GateRules(**rules))
    assert (found.output, found.metric, found.form) == (output, metric, form)
    assert len(found.labels) == len(labels) * found.per_row


@pytest.mark.parametrize(
    ("labels", "outputs", "rules", "said"),
    [
        (KINDS, {"y": PAIR}, {}, r"no output fits labels of shape \[4\] .* outputs are: 'y' float32\[rows, 2\]"),
        (KINDS, {"y": SCORES}, {"output": "z"}, "no output 'z' for labels to be about; its outputs are: 'y'"),
        (KINDS - 1, {"y": SCORES}, {}, "no output fits labels"),
        (KINDS / 2, {"y": SCORES}, {"metric": Metric.F1}, "no output fits f1 of labels"),
        (np.zeros((4, 3)) + 0.5, {"y": SCORES}, {}, r"no output fits labels of shape \[4, 3\]"),
        (KINDS, {"t": np.array([b""] * 4, object)}, {}, "no output fits"),
        (KINDS, {}, {}, "no output fits"),
    ],
)
def test_labels_that_are_about_nothing(labels: Array, outputs: Arrays, rules: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSource, match=said):
        labelled.task_of(labels, outputs, GateRules(**rules))


@pytest.mark.parametrize(
    ("scale", "shift", "threshold"), [(1.0, 0.0, 0.5), (10.0, -5.0, 0.0)], ids=["probability", "logit"]
)
def test_one_number_for_two_classes_is_cut_where_the_baseline_says(
    scale: float, shift: float, threshold: float
) -> None:
    raw = np.array([0.1, 0.6, 0.4, 0.9]) * scale + shift
    task = labelled.task_of(np.array([0, 1, 1, 1]), {"y": raw[:, None].astype(np.float32)}, GateRules())
    answers = labelled.answers(task, raw[:, None].astype(np.float32))
    assert labelled.evaluate(task, [answers], [answers], task.labels) == 0.75
    broken = np.where(np.arange(4) == 1, np.nan, answers)
    assert labelled.evaluate(task, [answers], [broken], task.labels) == 0.5
