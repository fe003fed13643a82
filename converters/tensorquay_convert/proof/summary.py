"""A proof in one sentence, and its numbers as text. Pure."""

from __future__ import annotations

import math

from tensorquay_convert.proof.verification import Verification


def verdict(verification: Verification) -> str:
    """One sentence."""
    ran = [case for case in verification.cases if not case.outside]
    if verification.passed:
        errors = [each.max_absolute for case in ran for each in case.comparisons if not math.isnan(each.max_absolute)]
        sizes = [f"{axis.name} {_range(axis.sizes)}" for axis in verification.axes if axis.sizes]
        at = f" at {', '.join(sizes)}" if sizes else ""
        return f"proven equal on {len(ran)} cases{at}; largest absolute error {number(max(errors, default=0.0))}"
    return f"not equal: {verification.problems[0]}"


def number(value: float | None) -> str:
    """Three digits; nothing for what was not measured."""
    if value is None or math.isnan(value):
        return ""
    return "0" if value == 0 else f"{value:.2e}"


def _range(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
