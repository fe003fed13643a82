"""Plots of an optimisation as inline SVG: the front, the curves over batches, the layers' sensitivity. Pure.

Shapes, dashes and words say what colours say: a star won, a circle passed, a square is not faster, a diamond failed
the gate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tensorquay_convert.optimize.report import scales, views, words
from tensorquay_convert.optimize.report.views import Loss, Row
from tensorquay_convert.optimize.results import NodeSensitivity, Outcome, Timing, Verdict
from tensorquay_convert.report import svg
from tensorquay_convert.report.html import plain

MAX_DOTS = 80
MAX_CURVES = 5
MAX_POINTS = 12
MAX_LAYERS = 40
_STAR = "M0 -8L2.1 -2.7 7.6 -2.5 3.3 1 4.7 6.5 0 3.4 -4.7 6.5 -3.3 1 -7.6 -2.5 -2.1 -2.7Z"
_DIAMOND = "M0 -6.5L6.5 0 0 6.5 -6.5 0Z"
_SQUARE = "M-4.5 -4.5H4.5V4.5H-4.5Z"
_TRIANGLE = "M0 -6L5.8 4.5H-5.8Z"
_ROUND = "M-5 0A5 5 0 1 1 5 0A5 5 0 1 1 -5 0Z"
_STAGGERED = (0.0, 8.0, -8.0)
"""Pixels between marks without loss, which would lie on one line."""
_SERIES = (_STAR, _ROUND, _SQUARE, _TRIANGLE, _DIAMOND)


def mark(row: Row, x: float, y: float) -> str:
    """The shape of a trial's verdict."""
    if row.won:
        shape, kind = _STAR, "won"
    elif row.trial.verdict is Verdict.INACCURATE:
        shape, kind = _DIAMOND, "bad"
    elif row.trial.verdict in {Verdict.WON, Verdict.PASSED}:
        shape, kind = _ROUND, "dot"
    else:
        shape, kind = _SQUARE, "idle"
    return _shape(shape, kind, x, y)


def keys(*, noise: bool) -> str:
    """What the shapes of the front mean, as markup beside it."""
    named = (
        (_STAR, "won", "won"),
        (_ROUND, "dot", "faster, not the fastest"),
        (_SQUARE, "idle", "not faster"),
        (_DIAMOND, "bad", "not accurate enough"),
    )
    opened = '<span><svg class="mark" viewBox="-9 -9 18 18" aria-hidden="true">'
    drawn = [f"{opened}{_shape(shape, kind, 0, 0)}</svg>{said}</span>" for shape, kind, said in named]
    drawn.append('<span><span class="key tick"></span>most the gate allows</span>')
    if noise:
        drawn.append('<span><span class="key band"></span>noise: the baseline against itself</span>')
    return f'<p class="sub keys">{" ".join(drawn)}</p>'


def front(outcome: Outcome, rows: Sequence[Row], loss: Loss, identity: str) -> str:
    """Speed (or smallness, when that is the objective) to the right, loss downwards: the best is at the top right."""
    found = [(row, score, lost) for row in rows if (score := _score(row)) and (lost := _lost(row, loss)) is not None]
    if not found:
        return ""
    found = found[:MAX_DOTS]
    left, right, top, bottom = 78.0, svg.WIDTH - 20.0, 16.0, 336.0
    band = views.noise(outcome)
    spans = [each for row, score, _ in found for each in (score, row.trial.score_low, row.trial.score_high)]
    across = scales.ratios([each for each in (*spans, *(band or ())) if each is not None], left + 12, right)
    seen = [lost for _, _, lost in found] + ([loss.allowed] if loss.allowed else [])
    down = scales.losses(seen, top + 44, bottom - 10, top + 14)
    along = "size" if views.by_size(outcome) else "speed"
    title = f"Each variant's {along} against the baseline's, and {loss.name}: {len(found)} variants"
    parts = [svg.start(bottom + 50, title, identity)]
    if band is not None:
        parts.append(_band(across.at(band[0]), top, across.at(band[1]), bottom))
    for value, said in across.ticks():
        parts += [
            svg.line("grid", across.at(value), top, across.at(value), bottom),
            svg.label(across.at(value), bottom + 17, f"{said} ×"),
        ]
    for value, said in down.ticks():
        parts += [
            svg.line("grid", left, down.at(value), right, down.at(value)),
            svg.label(left - 8, down.at(value) + 4, said, anchor="end"),
        ]
    parts.append(svg.line("one", across.at(1.0), top, across.at(1.0), bottom))
    if loss.allowed is not None:
        y = down.at(loss.allowed)
        parts.append(svg.line("limit", left, y, right, y))
    places = _places(found, across, down)
    for (row, score, lost), (x, y) in zip(found, places, strict=True):
        parts.append(_dot(row, score, (lost, loss.name), x, y, across))
    gate = None if loss.allowed is None else down.at(loss.allowed)
    parts += _numbers([row for row, _, _ in found], places, (left, right), gate)
    parts.append(
        svg.label((left + right) / 2, bottom + 40, f"{views.scored_by(outcome)} (better to the right)", "label")
    )
    middle = (top + bottom) / 2
    parts.append(
        f'<text class="label" x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{escape(plain(svg.short(loss.name, 36)))} (better upwards)</text></svg>"
    )
    return "".join(parts)


def curves(outcome: Outcome, rows: Sequence[Row], identity: str) -> str:
    """The best few variants at each point: how many times faster than the baseline there, with bounds."""
    names = views.points(outcome)[:MAX_POINTS]
    shown = best(rows, names)
    if len(names) < 2 or not shown:
        return ""
    width = max(svg.WIDTH, 270 + 64.0 * len(names))
    left, right, top, bottom = 62.0, width - 208.0, 16.0, 316.0
    timings = {row.number: [views.at(row.trial.timings, name) for name in names] for row in shown}
    noise = [views.at(outcome.noise, name) for name in names]
    drawn = [each for found in (*timings.values(), noise) for each in found if each is not None]
    up = scales.ratios([value for each in drawn for value in (each.ratio, each.low, each.high)], bottom - 6, top + 6)
    step = (right - left) / len(names)
    places = [left + step * (number + 0.5) for number in range(len(names))]
    title = f"How many times faster than the baseline at {len(names)} points: the best {len(shown)} variants"
    parts = [svg.start(bottom + 58, title, identity, width=width)]
    for value, said in up.ticks():
        parts += [
            svg.line("grid", left, up.at(value), right, up.at(value)),
            svg.label(left - 8, up.at(value) + 4, f"{said} ×", anchor="end"),
        ]
    for name, x, timing in zip(names, places, noise, strict=True):
        band = views.noise_at(timing)
        if band is not None:
            parts.append(_band(x - step * 0.42, up.at(band[1]), x + step * 0.42, up.at(band[0])))
        for number, part in enumerate(name.split(", ")[:3]):
            parts.append(svg.label(x, bottom + 17 + 15 * number, svg.short(part, max(6, int(step / 6.4)))))
    parts.append(svg.line("one", left, up.at(1.0), right, up.at(1.0)))
    ends = []
    # The first look is the winner's.
    for number, row in enumerate(shown, 0 if shown[0].won else 1):
        # Side by side, so that the spread of one does not hide the others'.
        aside = (number - (len(shown) - 1) / 2) * min(8.0, step / 10)
        parts.append(_series(number, row, timings[row.number], [x + aside for x in places], up))
        last = [each for each in timings[row.number] if each is not None][-1]
        ends.append((up.at(last.ratio), number, row))
    parts += _ends(ends, right, (top, bottom))
    return "".join(parts) + "</svg>"


def best(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The winner and the fastest of the rest that were timed at any of the points, those that passed the gate first."""
    timed = [row for row in rows if any(each.point in names and words.known(each.ratio) for each in row.trial.timings)]

    def key(row: Row) -> tuple[bool, bool, float]:
        passed = row.trial.judgement is None or row.trial.judgement.passed
        return not row.won, not passed, -(row.trial.score or 0.0)

    found = sorted(timed, key=key)
    return found[: MAX_CURVES if found and found[0].won else MAX_CURVES - 1]


def sensitivity(layers: Sequence[NodeSensitivity], identity: str) -> str:
    """What quantizing each node alone costs, the most costly first; a hollow bar is kept in FP32."""
    found = sorted(layers, key=lambda each: -each.loss if words.known(each.loss) else -math.inf)[:MAX_LAYERS]
    if not found:
        return ""
    row, top, left, right = 22.0, 12.0, 262.0, svg.WIDTH - 96.0
    bottom = top + row * len(found)
    along = scales.losses([each.loss for each in found], left + 36, right, left)
    parts = [svg.start(bottom + 46, f"What quantizing a node alone costs: {len(found)} nodes", identity)]
    for value, said in along.ticks():
        x = along.at(value)
        parts += [svg.line("grid", x, top, x, bottom), svg.label(x, bottom + 16, said)]
    for number, each in enumerate(found):
        y = top + row * number
        said = "quantized" if each.quantized else "kept FP32"
        x = along.at(each.loss)
        tip = f"{each.node} ({each.operator}): loss {words.small(each.loss)}, {said}"
        parts.append(
            f"<g><title>{escape(plain(tip))}</title>"
            + svg.label(left - 8, y + 15, svg.short(plain(each.node), 36), "name", "end")
            + svg.rect("bar" if each.quantized else "kept", left, y + 4, max(2.0, x - left), row - 8)
            + svg.label(max(x, left + 2) + 6, y + 15, said, anchor="start")
            + "</g>"
        )
    parts.append(svg.label((left + right) / 2, bottom + 38, "loss when only this node is quantized", "label"))
    return "".join(parts) + "</svg>"


def _score(row: Row) -> float | None:
    score = row.trial.score
    return score if score is not None and words.known(score) and score > 0 else None


def _lost(row: Row, loss: Loss) -> float | None:
    lost = loss.of(row.trial.judgement)
    return None if lost is None or math.isnan(lost) else lost


def _dot(row: Row, score: float, lost: tuple[float, str], x: float, y: float, across: scales.Ratios) -> str:
    low, high = row.trial.score_low, row.trial.score_high
    bounds = words.between(low, high)
    said = f"{row.label}: {words.times(score)}{f' ({bounds})' if bounds else ''}"
    said += f", {lost[1]} {words.small(lost[0])}"
    spread = ""
    if bounds and low is not None and high is not None:
        spread = svg.line("spread", across.at(low), y, across.at(high), y)
    return f"<g><title>{escape(plain(f'{said}, {row.trial.verdict.value}'))}</title>{spread}{mark(row, x, y)}</g>"


def _places(
    found: Sequence[tuple[Row, float, float]], across: scales.Ratios, down: scales.Losses
) -> list[tuple[float, float]]:
    level = sorted(score for _, score, lost in found if lost <= 0)
    places = []
    for _, score, lost in found:
        aside = _STAGGERED[level.index(score) % len(_STAGGERED)] if lost <= 0 else 0.0
        places.append((across.at(score), down.at(lost) + aside))
    return places


def _numbers(
    rows: Sequence[Row], places: Sequence[tuple[float, float]], within: tuple[float, float], gate: float | None
) -> list[str]:
    """Numbers beside the marks where there is room for them; the tooltips have all."""
    left, right = within
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in places]
    taken += [] if gate is None else [(left, gate - 2, right, gate + 2)]
    parts = []
    for row, (x, y) in zip(rows, places, strict=True):
        said = svg.short(plain(row.label), 36) if row.won else str(row.number)
        wide = 6.6 * len(said) + 4
        beside = ((9, -9), (9, 17), (-9 - wide, -9), (-9 - wide, 17), (-wide / 2, -16), (-wide / 2, 24))
        for dx, dy in (*beside, (9 - wide, -24), (9 - wide, -38)):
            box = (x + dx, y + dy - 11, x + dx + wide, y + dy + 2)
            free = all(box[2] < each[0] or box[0] > each[2] or box[3] < each[1] or box[1] > each[3] for each in taken)
            if free and box[0] > left and box[2] < right + 12:
                taken.append(box)
                parts.append(svg.label(box[0], y + dy, said, "name", "start"))
                break
    return parts


def _series(number: int, row: Row, timings: Sequence[Timing | None], places: Sequence[float], up: scales.Ratios) -> str:
    kind = f"series s{number}"
    here = [(x, each) for x, each in zip(places, timings, strict=True) if each is not None and words.known(each.ratio)]
    points = " ".join(f"{x:.1f},{up.at(each.ratio):.1f}" for x, each in here)
    parts = [f'<polyline class="{kind}" points="{points}"/>']
    for x, each in here:
        bounds = words.between(each.low, each.high)
        said = f"{row.label}, {each.point}: {words.times(each.ratio)}{f' ({bounds})' if bounds else ''}"
        spread = svg.line(f"{kind} whole", x, up.at(each.low), x, up.at(each.high)) if bounds else ""
        shape = _shape(_SERIES[number], f"end s{number}", x, up.at(each.ratio))
        parts.append(f"<g><title>{escape(plain(said))}</title>{spread}{shape}</g>")
    return "".join(parts)


def _ends(ends: Sequence[tuple[float, int, Row]], right: float, within: tuple[float, float]) -> list[str]:
    """The curves' names at their right ends, in the curves' order, at least a line apart."""
    parts, y = [], within[0]
    ordered = sorted(ends, key=lambda each: (each[0], each[1]))
    for at, (wanted, number, row) in enumerate(ordered):
        # What is still to come needs its lines above the bottom.
        y = max(y, min(wanted, within[1] - 16.0 * (len(ordered) - 1 - at)))
        parts.append(_shape(_SERIES[number], f"end s{number}", right + 14, y))
        parts.append(svg.label(right + 26, y + 4, svg.short(plain(row.label), 28), "name", "start"))
        y += 17
    return parts


def _band(x1: float, y1: float, x2: float, y2: float) -> str:
    """What noise spans; thin ones are still seen."""
    return svg.rect("band", x1, y1, max(2.0, x2 - x1), max(2.0, y2 - y1))


def _shape(path: str, kind: str, x: float, y: float) -> str:
    return f'<path class="{kind}" transform="translate({x:.1f} {y:.1f})" d="{path}"/>'
