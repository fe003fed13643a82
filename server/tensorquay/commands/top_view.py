"""How `tensorquay top` looks: a frame for a terminal of any size, a block of text for everything else. Pure.

Columns that do not fit are left out, the least telling first; names are shortened, numbers never.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from tensorquay.commands.top_state import Line, State, number, text

_STYLES = {"READY": "green", "UNAVAILABLE": "red", "LOADING": "yellow", "UNLOADING": "yellow"}
_GAP = 2
_LEAST_NAME = 12
_MOST_REASONS = 4
_TREND_CELLS = 24
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.:-=+*#"


@dataclass(frozen=True, slots=True)
class Look:
    """What the user chose, and what the terminal can show.

    Args: sort: position in `SORTS`. first: versions scrolled away. unicode: whether block characters can be shown.
    """

    width: int = 80
    height: int = 24
    sort: int = 0
    first: int = 0
    unicode: bool = True


@dataclass(frozen=True, slots=True)
class _Column:
    """`keep`: columns with a lower one are left out first."""

    title: str
    keep: int
    cell: Callable[[Line], str]


_COLUMNS = (
    _Column("state", 9, lambda line: line.state),
    _Column("req/s", 9, lambda line: rate(line.requests)),
    _Column("fail/s", 7, lambda line: rate(line.failures)),
    _Column("p50 ms", 3, lambda line: millis(line.p50)),
    _Column("p95 ms", 5, lambda line: millis(line.p95)),
    _Column("p99 ms", 8, lambda line: millis(line.p99)),
    _Column("queue", 6, lambda line: f"{line.waiting:.0f}"),
    _Column("rows", 2, lambda line: "" if line.rows is None else f"{line.rows:.1f}"),
    _Column("busy", 4, lambda line: f"{line.busy:.0%}"),
    _Column("on", 1, lambda line: line.provider),
)

SORTS: Sequence[tuple[str, Callable[[Line], tuple[float | str, ...]]]] = (
    ("traffic", lambda line: (-line.requests, -line.failures, -line.waiting)),
    ("failures", lambda line: (-line.failures,)),
    ("p99", lambda line: (-(line.p99 or 0.0),)),
    ("queue", lambda line: (-line.waiting,)),
    ("busy", lambda line: (-line.busy,)),
    ("name", lambda line: (line.model,)),
)
"""Names of the orders and their keys; equal versions are in order of their names."""


def frame(state: State, look: Look) -> Text:
    """Exactly what fits into `look.width` times `look.height` cells."""
    head = _head(state, look)
    lines = ordered(state, look.sort)
    reasons = _reasons(lines, look.width, min(_MOST_REASONS, max(look.height - len(head) - 4, 0)))
    room = max(look.height - len(head) - len(reasons) - 4, 1)
    first = min(look.first, max(len(lines) - room, 0))
    rows = _table(lines[first : first + room], look.width)
    body = [*head, Text(), *rows]
    if reasons:
        body += [Text(), *reasons]
    body = body[: look.height - 1]
    body += [Text()] * (look.height - 1 - len(body))
    return Text("\n").join([_cut(each, look.width) for each in (*body, _foot(lines, first, room, look))])


def block(state: State, width: int, *, unicode: bool) -> Text:
    """Everything, for a pipe or a single look; as long as it has to be."""
    look = Look(width, 10_000, unicode=unicode)
    lines = ordered(state, 0)
    rows = [*_head(state, look), Text(), *_table(lines, width)]
    if reasons := _reasons(lines, width, 10_000):
        rows += [Text(), *reasons]
    return Text("\n").join([*rows, Text()])


def ordered(state: State, sort: int) -> list[Line]:
    """The versions, by the order in position `sort`."""
    key = SORTS[sort % len(SORTS)][1]
    return sorted(state.lines(), key=lambda line: (*key(line), line.model, _natural(line.version)))


def _natural(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() and len(version) < 20 else (0, version)


# -- parts


def _head(state: State, look: Look) -> list[Text]:
    hello, server = state.hello, state.server
    title = Text.assemble(
        ("tensorquay ", "bold"),
        (text(hello.get("version")), "bold"),
        "  ",
        text(state.url),
        *(("  up ", "dim"), _age(state)),
        *((f"  control {what}", "dim") for what in (text(hello.get("control_mode")),) if what),
    )
    if state.trouble:
        title = Text.assemble(
            (f"no connection: {text(state.trouble)}; trying again", "bold red"), "  ", text(state.url)
        )
    latency = server.get("latency_ms")
    times = latency if isinstance(latency, dict) else {}
    parts = [
        _labelled("requests/s", rate(number(server.get("requests_per_s")) or 0.0), _trend(state.requests, look)),
        _labelled("failures/s", rate(number(server.get("failures_per_s")) or 0.0)),
        _labelled("refused/s", rate(number(server.get("refused_per_s")) or 0.0)),
        _labelled("p50", _or_dash(millis(number(times.get("p50"))), " ms")),
        _labelled("p95", _or_dash(millis(number(times.get("p95"))), " ms")),
        _labelled("p99", _or_dash(millis(number(times.get("p99"))), " ms"), _trend(state.latency, look)),
        _labelled("waiting", f"{number(server.get('waiting')) or 0:.0f}"),
        _labelled("in flight", f"{number(server.get('inflight_requests')) or 0:.0f}"),
        _labelled("CPU", _of(server, "cpu_cores", "cpu_limit_cores", _cores), _trend(state.cpu, look)),
        _labelled("memory", _of(server, "memory_bytes", "memory_limit_bytes", size)),
    ]
    throttled = number(server.get("throttled_share"))
    if throttled:
        parts.append(_labelled("throttled", f"{throttled:.0%}"))
    return [title, *_flowed(parts, look.width)]


def _flowed(parts: Sequence[Text], width: int) -> list[Text]:
    """`parts` one behind the other, a new line where the next one does not fit."""
    lines: list[Text] = []
    for part in parts:
        if lines and lines[-1].cell_len + 3 + part.cell_len <= width:
            lines[-1] = Text.assemble(lines[-1], "   ", part)
        else:
            lines.append(part)
    return lines


def _table(lines: Sequence[Line], width: int) -> list[Text]:
    names = [line.name for line in lines]
    widest = max([cell_len("version"), *map(cell_len, names)])
    columns = list(_COLUMNS)
    cells = {column.title: [column.cell(line) for line in lines] for column in columns}
    sizes = {title: max([cell_len(title), *map(cell_len, found)]) for title, found in cells.items()}
    while True:
        left = width - sum(sizes[column.title] + _GAP for column in columns)
        if left >= min(widest, _LEAST_NAME) or len(columns) == 1:
            break
        columns.remove(min(columns, key=lambda column: column.keep))
    # A name that is cut off says less than the least telling column.
    while left < min(widest, width // 3) and len(columns) > 1 and min(column.keep for column in columns) < 6:
        columns.remove(min(columns, key=lambda column: column.keep))
        left = width - sum(sizes[column.title] + _GAP for column in columns)
    named = max(min(left, widest), 1)
    rows = [Text(_fitted("version", named), style="bold")]
    for column in columns:
        rows[0].append(" " * _GAP + _aligned(column.title, sizes[column.title], column))
    for number_, line in enumerate(lines):
        row = Text(_fitted(names[number_], named))
        for column in columns:
            cell = _aligned(cells[column.title][number_], sizes[column.title], column)
            row.append(" " * _GAP)
            row.append(cell, style=_style(column, line))
        rows.append(row)
    return rows


def _style(column: _Column, line: Line) -> str:
    if column.title == "state":
        return _STYLES.get(line.state, "")
    if column.title == "fail/s" and line.failures:
        return "red"
    return ""


def _aligned(cell: str, wide: int, column: _Column) -> str:
    pad = " " * (wide - cell_len(cell))
    return cell + pad if column.title in {"state", "on"} else pad + cell


def _reasons(lines: Sequence[Line], width: int, most: int) -> list[Text]:
    """Why versions are as they are, those that do not serve first."""
    told = sorted(
        (line for line in lines if line.reason and line.reason != "unloaded"), key=lambda line: line.state == "READY"
    )
    shown = told if len(told) <= most else told[: max(most - 1, 0)]
    found = [
        _cut(Text.assemble((f"{line.name} {line.state}: ", _STYLES.get(line.state, "")), line.reason), width)
        for line in shown
    ]
    if len(shown) < len(told) and most:
        found.append(Text(f"and {len(told) - len(shown)} more with a reason", style="dim"))
    return found


def _foot(lines: Sequence[Line], first: int, room: int, look: Look) -> Text:
    arrows = ("←→", "↑↓") if look.unicode else ("left/right", "up/down")
    last = min(first + room, len(lines))
    span = f"{first + 1}-{last} of {len(lines)}" if len(lines) > room else f"{len(lines)}"
    order = SORTS[look.sort % len(SORTS)][0]
    return Text(f"q quit   {arrows[0]} by {order}   {arrows[1]} scroll   {span} versions", style="dim")


def _labelled(label: str, value: str, trend: str = "") -> Text:
    made = Text.assemble((f"{label} ", "dim"), (value, "bold"))
    return Text.assemble(made, " ", (trend, "cyan")) if trend else made


def _trend(values: Sequence[float], look: Look) -> str:
    """The newest values as bars, from 0 to the highest of them."""
    cells = min(_TREND_CELLS, max(look.width // 5, 8))
    shown = list(values)[-cells:]
    bars = _BARS if look.unicode else _ASCII_BARS
    highest = max(shown, default=0.0)
    if highest <= 0:
        return bars[0] * len(shown)
    return "".join(bars[min(int(value / highest * len(bars)), len(bars) - 1)] for value in shown)


def _cut(line: Text, width: int) -> Text:
    line = line.copy()
    line.truncate(width, overflow="ellipsis")
    return line


def _fitted(name: str, wide: int) -> str:
    if cell_len(name) <= wide:
        return set_cell_size(name, wide)
    # The end tells versions of one model apart.
    end = name[-max(wide // 3, 1) :]
    return set_cell_size(f"{set_cell_size(name, max(wide - cell_len(end) - 1, 0))}…{end}", wide)


# -- values


def rate(value: float) -> str:
    """Per second: whole from 100 on."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def millis(value: float | None) -> str:
    """Milliseconds with three digits; empty for none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(count: float) -> str:
    """Bytes in the unit that fits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _cores(count: float) -> str:
    return f"{count:.2f}".rstrip("0").rstrip(".") or "0"


def _of(server: object, used: str, limit: str, shown: Callable[[float], str]) -> str:
    found = server if isinstance(server, dict) else {}
    have, most = number(found.get(used)), number(found.get(limit))
    if have is None:
        return "–"
    return shown(have) if most is None else f"{shown(have)} of {shown(most)}"


def _or_dash(value: str, unit: str) -> str:
    return f"{value}{unit}" if value else "–"


def _age(state: State) -> str:
    started = number(state.hello.get("started_ms"))
    if started is None or state.at_ms is None:
        return "–"
    seconds = max(int((state.at_ms - started) / 1000), 0)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    if seconds < 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"
