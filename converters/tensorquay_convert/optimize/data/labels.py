"""The user's labels (`--labels`): one for each row of the data, in the order of its files.

* `.npy`, or `.npz` with one array: numbers, first axis the rows.
* `.txt`, `.csv` or any other text: one number a line; a heading on the first line is skipped.

Whole numbers are classes (int64) when a metric of classes is asked for, or when nothing is asked and they are stored
as integers; other numbers are targets (float64).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize.data.files import Budget, archive, existing, mapped
from tensorquay_convert.optimize.goals import GateRules, Metric
from tensorquay_convert.tensors import Array, Interface, TensorSpec

MAX_TEXT = 64 << 20
_CLASSES = {Metric.TOP1, Metric.TOP5, Metric.F1}
_KINDS = "give labels as npy, as npz with one array, or as text with one number a line"
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def read_labels(text: str, rows: int, rules: GateRules, interface: Interface) -> Array:
    """Labels, shape (rows, …), int64 or float64.

    Args:
        rows: of the data, all files together.
        interface: of the model: classes beyond those that it has are refused.
    Raises: BadSource saying which label is wrong, what was expected and what to do.
    """
    path = existing(text, _KINDS)
    kind = path.suffix.lower()
    if kind == ".npy":
        found = np.asarray(mapped(path, text))
    elif kind == ".npz":
        arrays = archive(path, text, Budget(MAX_TEXT * 8))
        if len(arrays) != 1:
            raise BadSource(
                f"{text}: holds {len(arrays)} arrays ({', '.join(sorted(arrays)[:10])}), expected one of labels",
                remedy=_KINDS,
            )
        found = next(iter(arrays.values()))
    else:
        found = _lines(path, text)
    if found.dtype.kind not in "biuf":
        raise BadSource(f"{text}: labels are {found.dtype.name}, expected numbers", remedy="number the classes from 0")
    if found.ndim == 0 or len(found) != rows:
        there = "a single number" if found.ndim == 0 else f"{len(found)} labels"
        raise BadSource(f"{text}: holds {there}, expected {rows}: one for each row of the data", remedy=_KINDS)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    found = _typed(text, found, rules)
    _known_classes(text, found, rules, interface)
    return found


def _lines(path: Path, where: str) -> Array:
    size = path.stat().st_size
    if size > MAX_TEXT:
        raise BadSource(f"{where}: has {size} bytes, expected at most {MAX_TEXT}", remedy="give labels as npy")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as exc:
        raise BadSource(f"{where}: is no text that can be read: {exc}", remedy=_KINDS) from exc
    while lines and not lines[-1].strip():
        lines.pop()
    values: list[int | float] = []
    for number, line in enumerate(lines, start=1):
        value = _number(line.strip())
        if value is not None:
            values.append(value)
        elif number > 1 or len(lines) == 1 or "," in line or not line.strip():
            raise BadSource(f"{where}: line {number} is {line[:40]!r}, expected one number", remedy=_KINDS)
    whole = all(isinstance(each, int) for each in values)
    return np.array(values, np.int64 if whole else np.float64)


def _number(text: str) -> int | float | None:
    if _WHOLE.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return None


def _typed(where: str, labels: Array, rules: GateRules) -> Array:
    if labels.dtype.kind == "f":
        _refuse(where, labels, ~np.isfinite(labels), "expected finite numbers")
    if rules.metric in _CLASSES:
        _refuse(where, labels, labels != np.rint(labels), f"expected whole numbers: {rules.metric.value} is of classes")
    elif labels.dtype.kind == "f" or rules.metric is not None:
        return labels.astype(np.float64)
    _refuse(where, labels, np.abs(labels.astype(np.float64)) >= 2.0**63, "expected the number of a class")
    return labels.astype(np.int64)


def _known_classes(where: str, labels: Array, rules: GateRules, interface: Interface) -> None:
    """Refuse classes that the model cannot answer: labels counted from 1 would make every variant equally wrong."""
    output = _scores(rules, interface)
    if labels.dtype != np.int64 or labels.ndim != 1 or output is None or output.shape is None:
        return
    classes = output.shape[-1]
    assert isinstance(classes, int)
    _refuse(
        where, labels, (labels < 0) | (labels >= classes),
        f"expected 0 to {classes - 1}: output '{output.name}' has {classes} classes",
    )  # fmt: skip


def _scores(rules: GateRules, interface: Interface) -> TensorSpec | None:
    """The only output that labels could be about, if it has one number for each class."""
    asked = [spec for spec in interface.outputs if spec.name == rules.output] if rules.output else interface.outputs
    shaped = [
        spec
        for spec in asked
        if spec.dtype.startswith(("float", "bfloat")) and spec.shape is not None and len(spec.shape) == 2
    ]
    last = shaped[0].shape[-1] if len(shaped) == 1 and shaped[0].shape else None
    return shaped[0] if isinstance(last, int) and last > 1 else None


def _refuse(where: str, labels: Array, wrong: Array, expected: str) -> None:
    count = int(np.count_nonzero(wrong))
    if count:
        at = int(np.argmax(wrong.reshape(len(labels), -1).any(axis=1)))
        first = labels[at][wrong[at]] if labels.ndim > 1 else labels[at]
        shown = np.asarray(first).reshape(-1)[0]
        raise BadSource(
            f"{where}: the label of row {at} is {shown}{f' and {count - 1} more are like it' if count > 1 else ''}, "
            f"{expected}",
            remedy="check the labels, and that they are in the order of the data",
        )
