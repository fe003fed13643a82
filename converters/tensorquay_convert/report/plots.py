"""Plots as inline SVG, drawn here: no script, no library, no file beside the page. Pure: values in, markup out.

Colours come from the page's classes (`style.py`), so they follow light and dark. A point out of its tolerance is a
diamond, one within is a circle: nothing is told by colour alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tensorquay_convert.proof.summary import number
from tensorquay_convert.proof.verification import Case, Comparison, Sample
from tensorquay_convert.report import svg
from tensorquay_convert.report.html import plain

MAX_ROWS = 40
MAX_BARS = 8
_LEFT = 190
_RIGHT = 24
_ROW = 22
_TOP = 14
_LEAST = -16
_MOST = 40


@dataclass(frozen=True, slots=True)
class _Scale:
    """Exponents of ten to pixels. `zero`: where an error of exactly 0 is drawn."""

    low: int
    high: int
    left: float
    right: float

    def at(self, value: float) -> float:
        """The pixel of a positive number, kept within the axis."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)

    @property
    def zero(self) -> float:
        return self.left - 34


def errors(output: str, cases: Sequence[Case], identity: str) -> str:
    """The largest absolute error of one output in each case, on a logarithmic axis, beside what was allowed there."""
    every = [(case, each) for case in cases for each in case.comparisons if each.output == output]
    # All that failed are shown before any that held.
    shown = sorted(every, key=lambda pair: pair[1].within)[:MAX_ROWS]
    rows = [pair for pair in every if pair in shown]
    if not rows:
        return ""
    scale = _scale_of([each for _, each in rows])
    height = _TOP + len(rows) * _ROW + 34
    title = f"Largest absolute error of {output} in each case, and the tolerance there"
    parts = [svg.start(height, title, identity), _axis(scale, _TOP, _TOP + len(rows) * _ROW)]
    for at, (case, each) in enumerate(rows):
        parts.append(_row(case, each, _TOP + at * _ROW + _ROW / 2, scale))
    parts.append("</svg>")
    return "".join(parts)


def scatter(sample: Sample, identity: str) -> str:
    """What the ONNX model gives over what the source gives, on the diagonal when they agree."""
    points = [(x, y) for x, y in zip(sample.expected, sample.got, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return ""
    least, most = min(min(pair) for pair in points), max(max(pair) for pair in points)
    # Halved before they are subtracted: the span of the largest floats overflows.
    pad = (most / 2 - least / 2) * 0.1 or max(abs(most) * 0.05, 1e-9)
    low, high = max(least - pad, -sys.float_info.max), min(most + pad, sys.float_info.max)
    side, left, top = 300.0, 70.0, 12.0

    def place(value: float) -> float:
        return (value / 2 - low / 2) / (high / 2 - low / 2) * side

    title = f"{sample.output} in case {sample.case}: source and ONNX model, {len(points)} entries"
    parts = [svg.start(int(side + 62), title, identity, width=int(side + left + 20), small=True)]
    parts.append(f'<rect class="frame" x="{left}" y="{top}" width="{side}" height="{side}"/>')
    parts.append(f'<line class="limit" x1="{left}" y1="{top + side}" x2="{left + side}" y2="{top}"/>')
    parts += [
        f'<circle class="dot" cx="{left + place(x):.1f}" cy="{top + side - place(y):.1f}" r="3"/>' for x, y in points
    ]
    for value, anchor in ((least, "start"), (most, "end")):
        x, y = left + place(value), top + side - place(value)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{top + side + 17}" text-anchor="{anchor}">{value:.3g}</text>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    middle = left + side / 2
    parts.append(f'<text class="label" x="{middle}" y="{top + side + 38}" text-anchor="middle">source</text>')
    parts.append(
        f'<text class="label" x="14" y="{top + side / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {top + side / 2})">ONNX model</text></svg>'
    )
    return "".join(parts)


def histogram(sample: Sample, identity: str) -> str:
    """How many entries are off by how much, by powers of ten."""
    counted = dict(sample.histogram)
    exact = counted.pop(None, 0)
    exponents = [each for each in counted if each is not None]
    if exponents:
        low, high = max(min(exponents), max(exponents) - MAX_BARS + 1), max(exponents)
        bars = [(f"1e{each}", counted.get(each, 0)) for each in range(low, high + 1)]
        if low > min(exponents):
            bars[0] = ("less", sum(count for each, count in counted.items() if each is not None and each <= low))
    else:
        bars = []
    bars = [("exact", exact), *bars]
    most = max(count for _, count in bars) or 1
    side, left, top = 300.0, 16.0, 24.0
    width = 340.0
    title = f"{sample.output} in case {sample.case}: number of entries by the size of their error"
    parts = [svg.start(int(side + 62), title, identity, width=int(width + left + 16), small=True)]
    parts.append(f'<line class="frame" x1="{left}" y1="{top + side - 12}" x2="{left + width}" y2="{top + side - 12}"/>')
    step = width / len(bars)
    for at, (name, count) in enumerate(bars):
        # The root shows a few bad entries beside thousands of good ones; the numbers are above the bars.
        tall = math.sqrt(count / most) * (side - 12)
        x, base = left + at * step, top + side - 12
        parts.append(
            f'<rect class="bar" x="{x + 3:.1f}" y="{base - tall:.1f}" width="{step - 6:.1f}" height="{tall:.1f}"/>'
        )
        if count:
            parts.append(
                f'<text class="tick" x="{x + step / 2:.1f}" y="{base - tall - 5:.1f}" text-anchor="middle">'
                f"{_short(count)}</text>"
            )
        parts.append(
            f'<text class="tick" x="{x + step / 2:.1f}" y="{base + 16}" text-anchor="middle">{escape(name)}</text>'
        )
    parts.append(
        f'<text class="label" x="{left + width / 2}" y="{top + side + 26}" text-anchor="middle">'
        "absolute error</text></svg>"
    )
    return "".join(parts)


def _scale_of(rows: Sequence[Comparison]) -> _Scale:
    values = [each.max_absolute for each in rows] + [_allowed(each) for each in rows]
    exponents = [math.log10(each) for each in values if each > 0 and math.isfinite(each)]
    low = max(_LEAST, math.floor(min(exponents))) if exponents else -8
    high = min(_MOST, math.ceil(max(exponents) + 0.2)) if exponents else 0
    return _Scale(low, max(high, low + 2), _LEFT + 46, svg.WIDTH - _RIGHT)


def _allowed(each: Comparison) -> float:
    there = each.expected_there
    return each.atol + (each.rtol * abs(there) if isinstance(there, float) and math.isfinite(there) else 0.0)


def _axis(scale: _Scale, top: int, bottom: int) -> str:
    step = max(1, (scale.high - scale.low) // 6)
    parts = [
        f'<line class="grid" x1="{scale.zero}" y1="{top}" x2="{scale.zero}" y2="{bottom}"/>'
        f'<text class="tick" x="{scale.zero}" y="{bottom + 16}" text-anchor="middle">0</text>'
    ]
    for exponent in range(scale.low, scale.high + 1, step):
        x = scale.at(10.0**exponent)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>'
            f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">1e{exponent}</text>'
        )
    return "".join(parts)


def _row(case: Case, each: Comparison, y: float, scale: _Scale) -> str:
    said = f"{case.name}: {number(each.max_absolute) or each.problem}, allowed {number(_allowed(each)) or '0'}"
    name = plain(case.name)
    parts = [
        f"<g><title>{escape(plain(said))}</title>",
        f'<text class="name" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">'
        f"{escape(name if len(name) <= 24 else name[:23] + '…')}</text>",
    ]
    if _allowed(each) > 0:
        x = scale.at(_allowed(each))
        parts.append(f'<line class="limit" x1="{x:.1f}" y1="{y - 9}" x2="{x:.1f}" y2="{y + 9}"/>')
    error = each.max_absolute
    if math.isnan(error):
        parts.append(f'<text class="bad" x="{scale.left + 4}" y="{y + 4}">could not be compared</text>')
    else:
        x = scale.zero if error == 0 else scale.right if math.isinf(error) else scale.at(error)
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y}" r="4.5"/>'
            if each.within
            else f'<path class="bad" d="M{x:.1f} {y - 7}l7 7-7 7-7-7z"/>'
        )
    return "".join(parts) + "</g>"


def _short(count: int) -> str:
    for unit, size in (("M", 1_000_000), ("k", 10_000)):
        if count >= size:
            return f"{count / (size if unit == 'M' else 1000):.3g}{unit}"
    return str(count)
