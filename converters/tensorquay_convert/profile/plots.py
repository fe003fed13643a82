"""The plots of a profile as inline SVG: where a run's time goes, curves over batch sizes. Pure: values in, markup out.

Nothing is told by colour alone: boxes carry their names, curves differ in their dashes and end in their thread count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

from tensorquay_convert.optimize.report import words
from tensorquay_convert.profile.results import Cell, NodeTime, Operators
from tensorquay_convert.report import svg
from tensorquay_convert.report.html import plain

MOST_CURVES = 5
_WIDTH = 860.0
_ROW = 34.0
_THIN = 1.2
"""Boxes narrower than this many pixels go together into one."""
_CHAR = 7.4
"""Pixels of a letter, about."""


def icicle(operators: Operators, identity: str) -> str:
    """One run as a bar, below it the operators it consists of, below each its nodes; widths are times."""
    inside = 1.0 - operators.outside
    spent = words.duration(operators.run_s)
    parts = [
        svg.start(
            3 * _ROW + 4, f"One profiled run of {spent}: operators by time, and their nodes", identity, width=_WIDTH
        ),
        _box(0, 0, _WIDTH, f"one run, {spent}", f"one run, {spent}"),
    ]
    x, tail = 0.0, 0.0
    for each in operators.operators:
        width = _WIDTH * inside * each.share
        if width < _THIN:
            tail += width
            continue
        said = f"{each.operator}, {words.share(each.share)} of the time in nodes, {words.counted(each.nodes, 'node')}"
        parts.append(_box(x, 1, width, each.operator, said))
        mine = (
            node for node in operators.nodes if (node.operator, node.provider) == (each.operator, each.provider)
        )  # fmt: skip
        parts.extend(_nodes(mine, x, width, inside))
        x += width
    if tail >= _THIN:
        parts.append(_box(x, 1, tail, "others", f"other operators, {words.share(tail / _WIDTH / inside)}"))
    x += tail
    rest = _WIDTH - x
    if rest >= _THIN:
        parts.append(_box(x, 1, rest, "outside", f"outside of nodes, {words.share(operators.outside)} of the run"))
    return "".join(parts) + "</svg>"


def _nodes(nodes: Iterable[NodeTime], x: float, most: float, inside: float) -> list[str]:
    parts, begin, small = [], x, 0
    for each in nodes:
        width = min(_WIDTH * inside * each.share, begin + most - x)
        if width < _THIN:
            small += 1
            continue
        said = f"{each.node} ({each.operator}), {words.share(each.share)}, {words.digits(each.call_us)} µs a call"
        parts.append(_box(x, 2, width, each.node, said))
        x += width
    rest = begin + most - x
    if small and rest >= _THIN:
        parts.append(_box(x, 2, rest, f"{small} more", f"{words.counted(small, 'shorter node')}"))
    return parts


def _box(x: float, row: int, width: float, name: str, said: str) -> str:
    y = row * _ROW + 2
    letters = int((width - 8) / _CHAR)
    text = svg.label(x + 5, y + 20, svg.short(plain(name), letters), "name", "start") if letters >= 3 else ""
    gap = min(2.0, width / 3)
    shape = svg.rect("band", x, y, width - gap, _ROW - 4)
    return f"<g><title>{escape(plain(said))}</title>{shape}{text}</g>"


def throughput(cells: Sequence[Cell], identity: str) -> str:
    """Items per second over the batch size, one curve for each thread count, with the spread of the rounds."""
    title = "Items per second at each batch size, by threads"
    return _curves(cells, identity, title, lambda cell: (cell.items_s, cell.low, cell.high), words.digits)


def latency(cells: Sequence[Cell], identity: str) -> str:
    """Time of one run over the batch size: the median, up to the 99th percentile."""
    title = "Time of one run at each batch size, by threads: median, and up to the 99th percentile"
    return _curves(cells, identity, title, lambda cell: (cell.p50_s, cell.p50_s, cell.p99_s), words.duration)


def _curves(
    cells: Sequence[Cell],
    identity: str,
    title: str,
    values: Callable[[Cell], tuple[float, float, float]],
    shown: Callable[[float], str],
) -> str:
    batches = sorted({each.batch for each in cells})
    threads = _shown_threads(sorted({each.threads for each in cells}))
    if len(batches) < 2:
        return ""
    left, right, top, bottom = 74.0, _WIDTH - 110.0, 12.0, 300.0
    every = [value for each in cells if each.threads in threads for value in values(each) if value > 0]
    low, high = math.log10(min(every)), math.log10(max(every))
    room = max(0.02, (high - low) * 0.05)

    def up(value: float) -> float:
        return bottom - (math.log10(value) - low + room) / (high - low + 2 * room) * (bottom - top)

    step = (right - left) / len(batches)
    places = {batch: left + step * (number + 0.5) for number, batch in enumerate(batches)}
    parts = [svg.start(bottom + 44, title, identity, width=_WIDTH)]
    for value in _ticks(low, high):
        parts += [
            svg.line("grid", left, up(value), right, up(value)),
            svg.label(left - 6, up(value) + 4, shown(value), anchor="end"),
        ]
    parts += [svg.label(x, bottom + 17, str(batch)) for batch, x in places.items()]
    parts.append(svg.label((left + right) / 2, bottom + 36, "batch size", "label"))
    ends = []
    for number, count in enumerate(threads):
        mine = sorted((each for each in cells if each.threads == count), key=lambda each: each.batch)
        points = [(places[each.batch], up(values(each)[0])) for each in mine]
        kind = f"series s{number}"
        parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        for each, (x, y) in zip(mine, points, strict=True):
            middle, least, most = values(each)
            said = f"batch {each.batch}, {_threads(count)}: {shown(middle)} ({shown(least)} to {shown(most)})"
            aside = x + (number - (len(threads) - 1) / 2) * 4
            parts.append(
                f"<g><title>{escape(said)}</title>{svg.line(f'{kind} whole', aside, up(least), aside, up(most))}"
                f'<circle class="end s{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/></g>'
            )
        ends.append((points[-1][1], number, count))
    parts.extend(_ends(ends, right, (top, bottom)))
    return "".join(parts) + "</svg>"


def _ends(ends: Sequence[tuple[float, int, int]], right: float, within: tuple[float, float]) -> list[str]:
    """The curves' names at their right ends, at least a line apart."""
    parts, y = [], within[0]
    ordered = sorted(ends)
    for at, (wanted, number, count) in enumerate(ordered):
        y = max(y, min(wanted, within[1] - 17.0 * (len(ordered) - 1 - at)))
        parts.append(svg.line(f"series s{number}", right + 4, y, right + 26, y))
        parts.append(svg.label(right + 31, y + 4, _threads(count), "name", "start"))
        y += 17
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two powers of ten."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    found = [each * 10.0**decade for decade in decades for each in (1, 2, 5)]
    inside = [each for each in found if low <= math.log10(each) <= high]
    return inside or [10.0 ** ((low + high) / 2)]


def _shown_threads(counts: Sequence[int]) -> list[int]:
    """At most `MOST_CURVES`, the fewest and the most among them."""
    if len(counts) <= MOST_CURVES:
        return list(counts)
    last = len(counts) - 1
    return [counts[at] for at in sorted({round(n * last / (MOST_CURVES - 1)) for n in range(MOST_CURVES)})]


def _threads(count: int) -> str:
    return words.counted(count, "thread")
