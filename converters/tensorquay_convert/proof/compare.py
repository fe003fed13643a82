"""Compare one output with what the source gave: name, dtype, shape, then every entry. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from tensorquay_convert.job import SourceKind, Tolerance
from tensorquay_convert.proof.tolerances import Allowed, allowed
from tensorquay_convert.proof.verification import Comparison, Sample
from tensorquay_convert.tensors import Array, TensorSpec

MAX_POINTS = 500
_FLOATS = {"float16", "float32", "float64", "bfloat16"}
_RELATIVE_ABOVE = 1e-6
"""Relative errors are measured at entries above this share of the output's largest: below, they say nothing."""


def compare(
    spec: TensorSpec,
    expected: Array | None,
    got: Array | None,
    wanted: Tolerance,
    *,
    kind: SourceKind | None = None,
    widened: float = 1.0,
) -> Comparison:
    """One output of one case.

    Args:
        spec: its name and the dtype that both must have.
        expected, got: the source's and the ONNX model's; None where that side did not give it.
        widened: see `tolerances.allowed`.
    """
    for side, value in (("the source", expected), ("the ONNX model", got)):
        if value is None:
            return incomparable(spec, f"{side} gives no output '{spec.name}'")
        if dtype_name(value, spec.dtype) != spec.dtype:
            shown = dtype_name(value, spec.dtype)
            return incomparable(spec, f"'{spec.name}' should be {spec.dtype}, {side} gives {shown}", value.shape)
    assert expected is not None
    assert got is not None
    if expected.shape != got.shape:
        problem = f"'{spec.name}' has shape {list(got.shape)}, the source gives {list(expected.shape)}"
        return incomparable(spec, problem, got.shape)
    if spec.dtype == "string" or (spec.dtype not in _FLOATS and wanted.atol is None and wanted.rtol is None):
        return _exact(spec, expected, got, wanted)
    left, right = as_numbers(expected, spec.dtype), as_numbers(got, spec.dtype)
    return _numbers(spec, left, right, allowed(spec.dtype, left, wanted, kind=kind, widened=widened))


def off(expected: Array, got: Array, *, bfloat16: bool = False) -> float:
    """How many times its dtype's default tolerance a value inside the graph is off; infinite for another shape.

    The dtypes may differ: an exporter may count in int64 where its framework counted in int32.
    Args: bfloat16: `got` holds bfloat16 bits, and `expected` as well where it is uint16.
    """
    if expected.shape != got.shape:
        return math.inf
    if "O" in expected.dtype.kind + got.dtype.kind:
        return 0.0 if np.array_equal(expected, got) else math.inf
    dtype = "bfloat16" if bfloat16 else _coarser(expected, got)
    left = as_numbers(expected, "bfloat16" if bfloat16 and expected.dtype == np.uint16 else "")
    right = as_numbers(got, dtype)
    if dtype not in _FLOATS:
        return 0.0 if np.array_equal(left, right) else math.inf
    limits = allowed(dtype, left)
    finite = np.isfinite(left) & np.isfinite(right)
    if not _within(left, right, Allowed(math.inf, 0.0))[0].all():
        return math.inf
    return float((np.abs(right[finite] - left[finite]) / limits.bound(left[finite])).max()) if finite.any() else 0.0


def _coarser(expected: Array, got: Array) -> str:
    if (expected.dtype.kind, got.dtype.kind) != ("f", "f"):
        return "int64"
    return str(min(expected.dtype, got.dtype, key=lambda each: each.itemsize).name)


def incomparable(spec: TensorSpec, problem: str, shape: tuple[int, ...] = ()) -> Comparison:
    """A comparison that could not be made."""
    nan = math.nan
    return Comparison(spec.name, spec.dtype, shape, nan, nan, (), nan, nan, None, None, 0.0, 0.0, False, problem)


def dtype_name(value: Array, expected: str) -> str:
    """An array's dtype as `tensors.DTYPES` calls it; uint16 is bfloat16 where that is what is expected."""
    if value.dtype.kind in "OUS":
        return "string"
    if value.dtype == np.uint16 and expected == "bfloat16":
        return "bfloat16"
    return str(value.dtype.name)


def as_numbers(value: Array, dtype: str) -> Array:
    """Float64 of any dtype but strings; bfloat16 from its bits."""
    if dtype == "bfloat16":
        value = (value.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return value.astype(np.float64)


def excess(comparison: Comparison) -> float:
    """How many times its tolerance the worst entry is off; infinite when nothing could be compared."""
    if comparison.within:
        return 0.0
    if math.isnan(comparison.max_absolute) or isinstance(comparison.expected_there, str):
        return math.inf
    bound = comparison.atol + comparison.rtol * abs(comparison.expected_there)
    return comparison.max_absolute / bound if bound > 0 else math.inf


def sample(spec: TensorSpec, case: str, expected: Array, got: Array) -> Sample | None:
    """At most `MAX_POINTS` entries, evenly spread and the worst ones among them, and the errors' histogram.

    Returns: None for texts and for shapes that differ.
    """
    if spec.dtype == "string" or expected.shape != got.shape or not expected.size:
        return None
    left, right = as_numbers(expected, spec.dtype).reshape(-1), as_numbers(got, spec.dtype).reshape(-1)
    error = _errors(left, right)
    every = np.linspace(0, left.size - 1, min(left.size, MAX_POINTS * 4 // 5)).astype(np.int64)
    worst = np.argsort(error, kind="stable")[-(MAX_POINTS // 5) :]
    picked = np.unique(np.concatenate([every, worst]))[:MAX_POINTS]
    return Sample(spec.name, case, _floats(left[picked]), _floats(right[picked]), _histogram(error))


def _histogram(error: Array) -> tuple[tuple[int | None, int], ...]:
    wrong = error[(error > 0) & np.isfinite(error)]
    counts: list[tuple[int | None, int]] = [(None, int((error == 0).sum()))]
    if wrong.size:
        exponents, numbers = np.unique(np.floor(np.log10(wrong)).astype(np.int64), return_counts=True)
        counts += list(zip(exponents.tolist(), numbers.tolist(), strict=True))
    return tuple(counts)


def _floats(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(float(each) for each in values)


def _exact(spec: TensorSpec, expected: Array, got: Array, wanted: Tolerance) -> Comparison:
    """Integers, flags and texts: all entries equal, or at least the share that the user asks for."""
    unequal = np.asarray(expected != got, dtype=bool)
    share = 1.0 - float(unequal.mean()) if unequal.size else 1.0
    least = 1.0 if wanted.min_top1 is None else wanted.min_top1
    number = spec.dtype not in {"string", "bool"}
    error = _differences(expected, got) if number else unequal.astype(np.float64)
    at = _index(error)
    wrong = int(unequal.sum())
    return Comparison(
        output=spec.name,
        dtype=spec.dtype,
        shape=tuple(expected.shape),
        max_absolute=float(error[at]) if error.size else 0.0,
        max_relative=0.0 if not wrong else math.inf if not number else _relative(expected, got),
        worst_index=tuple(int(each) for each in at),
        expected_there=_shown(expected[at]) if error.size else 0.0,
        got_there=_shown(got[at]) if error.size else 0.0,
        cosine=None,
        top1=share,
        atol=0.0,
        rtol=0.0,
        within=share >= least,
        problem="" if share >= least else f"{wrong} of {unequal.size} entries of '{spec.name}' differ",
    )


def _differences(expected: Array, got: Array) -> Array:
    """|expected - got| of integers of one dtype without wrapping around."""
    high, low = np.maximum(expected, got), np.minimum(expected, got)
    return high.astype(np.float64) - low.astype(np.float64)


def _relative(expected: Array, got: Array) -> float:
    reference = np.abs(expected.astype(np.float64))
    known = reference > 0
    return float((_differences(expected, got)[known] / reference[known]).max()) if known.any() else math.inf


def _numbers(spec: TensorSpec, expected: Array, got: Array, limits: Allowed) -> Comparison:
    within, problem = _within(expected, got, limits)
    error = _errors(expected, got)
    over = np.where(within, 0.0, np.maximum(error, np.finfo(np.float64).tiny))
    # An entry that is out of its bound is more telling than a larger error that is allowed.
    at = _index(over if over.size and over.max() > 0 else error)
    cosine, top1 = _cosine(expected, got), _top1(expected, got)
    fine = bool(within.all())
    if fine and limits.min_cosine is not None and cosine is not None and cosine < limits.min_cosine:
        fine, problem = False, f"the cosine of '{spec.name}' is {cosine:.6f}, below {limits.min_cosine}"
    if fine and limits.min_top1 is not None and top1 is not None and top1 < limits.min_top1:
        fine, problem = False, f"the largest entry of '{spec.name}' agrees in {top1:.2%} of rows only"
    if not within.all() and not problem:
        wrong = int(within.size - within.sum())
        problem = (
            f"'{spec.name}' differs at {wrong} of {within.size} entries: at {list(map(int, at))} it is "
            f"{got[at]:.6g}, the source gives {expected[at]:.6g}"
        )
    elif not within.all():
        problem = f"'{spec.name}': {problem}"
    scale = _scale(expected)
    reference = np.abs(expected)
    known = np.isfinite(error) & np.isfinite(reference) & (reference > max(scale * _RELATIVE_ABOVE, 0.0))
    return Comparison(
        output=spec.name,
        dtype=spec.dtype,
        shape=tuple(expected.shape),
        max_absolute=float(error.max()) if error.size else 0.0,
        max_relative=float((error[known] / reference[known]).max()) if known.any() else 0.0,
        worst_index=tuple(int(each) for each in at),
        expected_there=float(expected[at]) if error.size else 0.0,
        got_there=float(got[at]) if error.size else 0.0,
        cosine=cosine,
        top1=top1,
        atol=limits.atol,
        rtol=limits.rtol,
        within=fine,
        problem=problem,
    )


def _within(expected: Array, got: Array, limits: Allowed) -> tuple[Array, str]:
    """Which entries are right; and what is wrong when it is about NaN and infinities."""
    finite = np.isfinite(expected) & np.isfinite(got)
    same = np.isnan(expected) & np.isnan(got)
    same |= ~finite & (expected == got)
    within = same.copy()
    within[finite] = np.abs(got[finite] - expected[finite]) <= limits.bound(expected[finite])
    odd = ~finite & ~same
    if odd.any():
        at = tuple(np.argwhere(odd)[0].tolist())
        return within, (
            f"{int(odd.sum())} entries are NaN or infinite on one side only: at {list(at)} it is {got[at]:.6g}, "
            f"the source gives {expected[at]:.6g}"
        )
    return within, ""


def _errors(expected: Array, got: Array) -> Array:
    """Absolute errors; 0 where both are the same NaN or infinity, infinite where only one is."""
    error = np.full(expected.shape, np.inf)
    finite = np.isfinite(expected) & np.isfinite(got)
    error[finite] = np.abs(got[finite] - expected[finite])
    error[(np.isnan(expected) & np.isnan(got)) | (~finite & (expected == got))] = 0.0
    return error


def _index(error: Array) -> tuple[int, ...]:
    return tuple(int(each) for each in np.unravel_index(int(error.argmax()), error.shape)) if error.size else ()


def _scale(values: Array) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def _cosine(expected: Array, got: Array) -> float | None:
    """Of the whole outputs as vectors; None where an entry is not finite or a vector is zero."""
    if not expected.size or not (np.isfinite(expected).all() and np.isfinite(got).all()):
        return None
    left, right = _scale(expected), _scale(got)
    if left == 0 or right == 0:
        return None
    # Scaled first: squares of the largest floats overflow.
    a, b = (expected / left).reshape(-1), (got / right).reshape(-1)
    return max(-1.0, min(1.0, float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))))


def _top1(expected: Array, got: Array) -> float | None:
    """The share of rows whose largest entry is at the same place."""
    if expected.ndim < 2 or expected.shape[-1] < 2 or not expected.size:
        return None
    if np.isnan(expected).any() or np.isnan(got).any():
        return None
    return float((expected.argmax(-1) == got.argmax(-1)).mean())


def _shown(value: Any) -> float | str:
    if isinstance(value, bytes):
        return value[:80].decode(errors="replace")
    return value[:80] if isinstance(value, str) else float(value)
