"""How good answers are against labels: accuracy, F1, errors, R². Pure; each agrees with scikit-learn's of its name."""

from __future__ import annotations

import math

import numpy as np

from tensorquay_convert.optimize.goals import Metric
from tensorquay_convert.tensors import Array

OF_CLASSES = frozenset({Metric.TOP1, Metric.TOP5, Metric.F1})
ERRORS = frozenset({Metric.MAE, Metric.RMSE})
"""The smaller the better."""
BEST = 5
"""Guesses that the metrics of classes look at."""
NO_CLASS = -1
"""The guess of a row that has none: it holds a NaN."""


def best_classes(scores: Array) -> Array:
    """The classes of the `BEST` highest scores of each row, the highest first and of equal ones the first.

    Args: scores: float [rows, classes].
    Returns: int64 [rows, min(BEST, classes)]; `NO_CLASS` all over for rows with a NaN.
    """
    found = np.argsort(-scores, axis=-1, kind="stable")[:, :BEST].astype(np.int64)
    found[np.isnan(scores).any(-1)] = NO_CLASS
    return found


def of_classes(metric: Metric, guesses: Array, labels: Array) -> float:
    """TOP1, TOP5 or F1 (macro-averaged over the classes that are labels or guesses).

    Args: guesses: int [rows, guesses per row], the best first. labels: int [rows], at least one.
    """
    if metric is Metric.F1:
        return _macro_f1(guesses[:, 0], labels)
    considered = guesses[:, :1] if metric is Metric.TOP1 else guesses
    return float((considered == labels[:, None]).any(-1).mean())


def of_numbers(metric: Metric, answers: Array, targets: Array) -> float | None:
    """MAE, RMSE or R² over all entries (at least one), of whatever shape; None when an answer is not finite."""
    left, right = answers.astype(np.float64).reshape(-1), targets.astype(np.float64).reshape(-1)
    if not np.isfinite(left).all():
        return None
    error = left - right
    if metric is Metric.MAE:
        return float(np.abs(error).mean())
    squares = float((error * error).mean())
    if metric is Metric.RMSE:
        return math.sqrt(squares)
    around = float(right.var())
    # Of targets that are all alike nothing can be explained.
    return 1 - squares / around if around > 0 else 1.0 if squares == 0 else 0.0


def lost(metric: Metric, before: float, after: float, size: float) -> float:
    """What a metric lost, as a share; negative when it gained.

    Points of accuracy, F1 or R²; for errors their relative increase. `size` (of the targets) stands in for an error
    that was 0.
    """
    if metric not in ERRORS:
        return before - after
    return (after - before) / (before or size or 1.0)


def _macro_f1(guesses: Array, labels: Array) -> float:
    found = []
    # A row without a guess is a miss of its class, and no class of its own.
    for each in np.union1d(labels, guesses[guesses != NO_CLASS]):
        both = int(((guesses == each) & (labels == each)).sum())
        found.append(2 * both / (int((guesses == each).sum()) + int((labels == each).sum())))
    return float(np.mean(found))
