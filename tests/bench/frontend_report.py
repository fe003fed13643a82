"""The measurements of `frontends.py` for people: a table for a terminal, another for docs/performance.md.

A document in, text out.
"""

from __future__ import annotations

from typing import Any

from rich.table import Table
from tests.bench.report import number, piped, with_range

BEGIN = "<!-- tests.bench.frontends writes between these lines -->"
END = "<!-- end of what tests.bench.frontends writes -->"

_HEADS = (
    "model",
    "door",
    "in flight",
    "load from",
    "server",
    "server CPU µs",
    "goal",
    "floor µs",
    "served /s",
    "generator CPU µs",
    "rows per batch",
)
_LEFT_ALIGNED = 5


def table(document: dict[str, Any]) -> Table:
    """The table for a terminal."""
    shown = Table(*_HEADS[:_LEFT_ALIGNED], box=None, header_style="bold", pad_edge=False)
    for head in _HEADS[_LEFT_ALIGNED:]:
        shown.add_column(head, justify="right")
    for cells in rows(document):
        shown.add_row(*cells)
    return shown


def markdown(document: dict[str, Any]) -> str:
    """The table and what it was measured on, as Markdown."""
    return "\n".join(surroundings(document)) + "\n\n" + piped(_HEADS, rows(document), _LEFT_ALIGNED)


def rows(document: dict[str, Any]) -> list[list[str]]:
    """The cells: predictions first, then the floors; beside each server its rivals."""
    ordered = sorted(document["rows"], key=lambda row: row["model"] is None)
    return [_cells(row, promised=row["contender"] == document["contenders"][0]) for row in ordered]


def surroundings(document: dict[str, Any]) -> list[str]:
    """On what, when, how long."""
    where, how = document["environment"], document["settings"]
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    flags = f" Server flags: {' '.join(how['flags'])}." if how["flags"] else ""
    return [
        f"{where['when']}; {where['cpu']}, {where['cores']} cores ({where['budget']}), {where['system']}; "
        f"Python {where['python']}, {packages}.",
        f"{document['cores'].capitalize()}; {how['rounds']} rounds of about {how['seconds']:g} s; load average before: "
        f"{', '.join(map(str, where['load_average_before']))}; taken by other machines of the host: "
        f"{where['stolen_percent']} % of the time.{flags}",
        *(f"Note: {note}." for note in document.get("notes", ())),
    ]


def _cells(row: dict[str, Any], *, promised: bool) -> list[str]:
    """One row; the goal is this server's own."""
    goal, floor, batches = row["goal_us"], row["floor_us"], row.get("rows_per_batch")
    return [
        row["model"] or "–",
        f"{row['door']}, {row['note']}" if row["note"] else row["door"],
        row["shape"],
        row["generator"],
        row["contender"],
        with_range(row["server_cpu_us"]),
        "–" if goal is None or not promised else f"≤ {goal:g}",
        "–" if floor is None else number(floor),
        number(row["rate_s"]["median"]),
        number(row["generator_cpu_us"]["median"]),
        "–" if batches is None else number(batches["median"]),
    ]
