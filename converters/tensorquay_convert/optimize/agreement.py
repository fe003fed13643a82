"""How much a variant's outputs agree with the baseline's: summed up batch by batch, in bounded memory. Pure.

A row is what belongs to one sample: an entry of the first axis, or the whole output of a model without a batch axis.
Cosines are of rows. Positions of a sequence that a mask marks as padding are compared in no way: what a model answers
there means nothing, and differs most.

An output "looks like class scores" when its rows hold at least two entries along one axis (or along two, one score per
class and token) and

* its name says so (logits, probabilities, scores, …), or its rows are probabilities: not negative, summing to 1;
* or, for rows of one axis, nothing speaks against it: neither its name (embedding, hidden state, box, …) nor rows of
  length 1, which are directions.

The doubtful are taken for classes because that asks more of a variant: its top-1 has to stay.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator

import numpy as np

from tensorquay_convert.optimize.results import OutputAgreement
from tensorquay_convert.proof.compare import as_numbers
from tensorquay_convert.tensors import Array, Arrays

_CHUNK = 1 << 21
"""Entries compared at a time: as float64 with their temporaries about 100 MiB."""
SCORES = re.compile(r"logit|prob|score|softmax|class|label")
_NO_SCORES = re.compile(r"embed|hidden|pool|feature|vector|state|encod|box|mask|regress|coord|landmark")
_MOST_SCORE_AXES = 2


class Agreements:
    """All outputs of a model against the baseline's. Not for several threads.

    Args:
        batched: the first axis of outputs is that of samples; False: every `add` is one sample.
        bfloat16: outputs whose arrays hold bfloat16 bits.
    """

    def __init__(self, *, batched: bool = True, bfloat16: Collection[str] = ()) -> None:
        self._batched, self._bfloat16 = batched, frozenset(bfloat16)
        self._outputs: dict[str, _Agreement] = {}

    def add(self, expected: Arrays, got: Arrays, content: Arrays | None = None) -> None:
        """The baseline's and the variant's outputs for the same inputs. A missing or additional one is a problem.

        Args: content: by output, which positions of its second axis mean something, bool [rows, length].
        """
        for name in [*expected, *(each for each in got if each not in expected)]:
            known = self._outputs.get(name)
            if known is None:
                known = _Agreement(name, batched=self._batched, bfloat16=name in self._bfloat16)
                self._outputs[name] = known
            known.add(expected.get(name), got.get(name), None if content is None else content.get(name))

    @property
    def broken(self) -> bool:
        """Whether an output could not be compared; then nothing that follows can mend it."""
        return any(each.broken for each in self._outputs.values())

    def results(self) -> tuple[OutputAgreement, ...]:
        """What was found so far, in the baseline's order."""
        return tuple(each.result() for each in self._outputs.values())


class _Agreement:
    """One output."""

    def __init__(self, name: str, *, batched: bool, bfloat16: bool) -> None:
        self._name, self._batched = name, batched
        self._dtype = "bfloat16" if bfloat16 else ""
        self._problem = ""
        self._floats = self._classes = self._single = False
        self._decided = False
        self._shift = 0.0
        self._cosine_sum, self._cosine_min, self._cosines = 0.0, math.inf, 0
        self._error_sum = self._error_squares = self._error_max = 0.0
        self._sum = self._squares = 0.0
        self._entries = self._nonfinite = 0
        self._same = self._asked = 0

    def add(self, expected: Array | None, got: Array | None, content: Array | None = None) -> None:
        """The same rows of both; None where that side gives no such output. `content`: see `Agreements.add`."""
        self._problem = self._problem or _difference(self._name, expected, got)
        if self._problem or expected is None or got is None or not expected.size:
            return
        if expected.dtype.kind in "OSU":
            self._same += int(np.sum(np.asarray(expected == got)))
            self._asked += expected.size
            return
        self._floats = bool(self._dtype) or expected.dtype.kind == "f"
        left, right = self._rows(expected), self._rows(got)
        told = _told(left, content, expected.shape)
        for part in _chunks(left):
            if not self._floats:
                # Before they become floats, which do not hold all of int64.
                self._same += int(((left[part] == right[part]) & told[part]).sum())
                self._asked += int(told[part].sum())
            # What is not a number in the baseline is compared with nothing.
            known = np.where(told[part], as_numbers(left[part], self._dtype), np.nan)
            self._add(known, as_numbers(right[part], self._dtype), expected.shape)

    @property
    def broken(self) -> bool:
        """Whether it could not be compared."""
        return bool(self._problem)

    def _rows(self, value: Array) -> Array:
        """Two axes: samples, and what belongs to each."""
        count = value.shape[0] if self._batched and value.ndim else 1
        return value.reshape(count, -1)

    def _add(self, expected: Array, got: Array, shape: tuple[int, ...]) -> None:
        if self._floats and not self._decided:
            self._decide(expected, shape)
        known, there = np.isfinite(expected), np.isfinite(got)
        self._nonfinite += int(np.sum(known & ~there))
        both = known & there
        left, right = np.where(both, expected, 0.0), np.where(both, got, 0.0)
        error = np.abs(left - right)
        self._entries += int(both.sum())
        self._error_max = max(self._error_max, float(error.max(initial=0.0)))
        self._error_sum += float(error.sum())
        if not self._floats:
            return
        with np.errstate(over="ignore"):
            self._error_squares += float((error * error).sum())
            centred = np.where(both, left - self._shift, 0.0)
            self._sum += float(centred.sum())
            self._squares += float((centred * centred).sum())
        if not self._single:
            self._add_cosines(left, right)
        if self._classes:
            scores, others = expected.reshape(-1, shape[-1]), got.reshape(-1, shape[-1])
            told = np.isfinite(scores).all(-1)
            # A row with a NaN has no largest entry: argmax gives the NaN's place, which is not the baseline's answer.
            fine = told & ~np.isnan(others).any(-1)
            self._same += int(np.sum(scores.argmax(-1)[fine] == others.argmax(-1)[fine]))
            self._asked += int(told.sum())

    def _add_cosines(self, left: Array, right: Array) -> None:
        """Of each row; a row that is zero on one side only has nothing of the other's direction."""
        left_scale, right_scale = np.abs(left).max(-1), np.abs(right).max(-1)
        told = (left_scale > 0) | (right_scale > 0)
        both = (left_scale > 0) & (right_scale > 0)
        found = np.zeros(left.shape[0])
        # Scaled first: squares of the largest floats overflow.
        a, b = left[both] / left_scale[both, None], right[both] / right_scale[both, None]
        dot, sizes = np.einsum("ij,ij->i", a, b), np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b)
        found[both] = np.clip(dot / np.sqrt(sizes), -1.0, 1.0)
        picked = found[told]
        self._cosine_sum += float(picked.sum())
        self._cosine_min = min(self._cosine_min, float(picked.min(initial=math.inf)))
        self._cosines += int(picked.size)

    def _decide(self, expected: Array, shape: tuple[int, ...]) -> None:
        """What kind of output it is, by the baseline's first rows."""
        self._decided = True
        self._single = expected.shape[1] == 1
        if self._single:
            finite = expected[np.isfinite(expected)]
            self._shift = float(finite[0]) if finite.size else 0.0
        of_a_row = shape[1:] if self._batched else _without_ones(shape)
        self._classes = looks_like_classes(self._name, expected.reshape(-1, shape[-1]) if shape else expected, of_a_row)

    def result(self) -> OutputAgreement:
        """What was found so far."""
        if self._problem:
            return OutputAgreement(self._name, None, None, None, None, None, problem=self._problem)
        compared = self._entries > 0
        return OutputAgreement(
            name=self._name,
            cosine=self._cosine_sum / self._cosines if self._cosines else None,
            min_cosine=self._cosine_min if self._cosines else None,
            max_error=_finite(self._error_max) if compared else None,
            mean_error=_finite(self._error_sum / self._entries) if compared else None,
            top1=self._same / self._asked if self._asked else None,
            nonfinite=self._nonfinite,
            relative_error=self._relative() if compared and self._floats else None,
        )

    def _relative(self) -> float | None:
        """Root mean square error by root mean square; absolute where the baseline is zero all over."""
        mean = self._sum / self._entries
        size = self._squares / self._entries
        if self._single:
            around = size - mean * mean
            whole = size + 2 * mean * self._shift + self._shift**2
            # All rows alike, or one row only: there is no spread to compare with.
            size = around if around > 1e-12 * whole else whole
        return _finite(math.sqrt(self._error_squares / self._entries) / (math.sqrt(size) if size > 0 else 1.0))


def looks_like_classes(name: str, rows: Array, of_a_row: tuple[int, ...]) -> bool:
    """Whether a float output is a score per class: see the module.

    Args:
        rows: float64 [any, classes], the baseline's.
        of_a_row: the output's shape but for the axis of samples.
    """
    if not 1 <= len(of_a_row) <= _MOST_SCORE_AXES or of_a_row[-1] < 2:
        return False
    lowered = name.lower()
    if _NO_SCORES.search(lowered):
        return False
    finite = rows[np.isfinite(rows).all(-1)]
    if SCORES.search(lowered) or _probabilities(finite):
        return True
    return len(of_a_row) == 1 and not _unit_length(finite)


def _probabilities(rows: Array) -> bool:
    return bool(rows.size and (rows >= 0).all() and (np.abs(rows.sum(-1) - 1) < 1e-2).all())


def _unit_length(rows: Array) -> bool:
    if not rows.size:
        return False
    with np.errstate(over="ignore"):
        return bool((np.abs((rows * rows).sum(-1) - 1) < 1e-2).all())


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without the leading axes of 1 that a model for single requests has."""
    first = next((axis for axis, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _told(rows: Array, content: Array | None, shape: tuple[int, ...]) -> Array:
    """Which entries of `rows` are compared, bool of their shape."""
    if content is None or content.shape != shape[:2] or not content.size:
        return np.broadcast_to(np.True_, rows.shape)
    return np.repeat(content, rows.shape[1] // content.shape[1], axis=1)


def _chunks(rows: Array) -> Iterator[slice]:
    step = max(1, _CHUNK // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], step):
        yield slice(start, start + step)


def _difference(name: str, expected: Array | None, got: Array | None) -> str:
    """Why the two cannot be compared; empty when they can."""
    if expected is None:
        return f"output '{name}' is new: the baseline has none of this name"
    if got is None:
        return f"output '{name}' is missing"
    if expected.dtype.kind in "OSU" and got.dtype.kind in "OSU":
        pass
    elif expected.dtype != got.dtype:
        return f"output '{name}' is {got.dtype.name}, the baseline gives {expected.dtype.name}"
    if expected.shape != got.shape:
        return f"output '{name}' has shape {list(got.shape)}, the baseline gives {list(expected.shape)}"
    return ""


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
