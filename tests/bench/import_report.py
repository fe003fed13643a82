"""The measurements of `imports.py` for people: a table for a terminal, another for docs/performance.md.

A document in, text out.
"""

from __future__ import annotations

from typing import Any

from rich.table import Table
from tests.bench.report import number, piped

BEGIN = "<!-- tests.bench.imports writes between these lines -->"
END = "<!-- end of what tests.bench.imports writes -->"

_HEADS = ("source", "model", "exporter", "seconds", "peak MiB", "cases", "largest error")
_LEFT_ALIGNED = 3


def table(document: dict[str, Any]) -> Table:
    """What was imported, for a terminal."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for place, head in enumerate(_HEADS):
        shown.add_column(head, justify="left" if place < _LEFT_ALIGNED else "right", overflow="fold")
    for cells in rows(document):
        shown.add_row(*cells)
    return shown


def markdown(document: dict[str, Any]) -> str:
    """The table, what is missing in it, and what it was measured on, as Markdown."""
    head = "\n".join(surroundings(document))
    absent = [f"- `{name}`: {why}" for name, why in absences(document)]
    parts = [head, piped(_HEADS, rows(document), _LEFT_ALIGNED)]
    if absent:
        parts.append("Not in the table:\n\n" + "\n".join(absent))
    return "\n\n".join(parts)


def rows(document: dict[str, Any]) -> list[list[str]]:
    """The cells of what was imported, in the order of the bench."""
    return [
        [
            row["name"],
            row["model"],
            row["exporter"],
            number(row["seconds"]),
            number(row["peak_bytes"] / 2**20),
            str(row["cases"]),
            error(row["max_absolute"]),
        ]
        for row in document["rows"]
        if "seconds" in row
    ]


def absences(document: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, reason) of what was skipped or failed."""
    return [
        (row["name"], f"{state}: {row[state]}")
        for row in document["rows"]
        for state in ("skipped", "failed")
        if state in row
    ]


def surroundings(document: dict[str, Any]) -> list[str]:
    """On what, and when."""
    where = document["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items() if version != "absent")
    return [
        f"{where['when']}; {where['cpu']}, {where['cores']} cores ({where['budget']}), {where['system']}; "
        f"Python {where['python']}, {packages}.",
        f"One import of each; load average before: {', '.join(map(str, where['load_average_before']))}; taken by other "
        f"machines of the host: {where['stolen_percent']} % of the time.",
    ]


def error(value: float | str | None) -> str:
    """Two digits; a proof names what is no number, and nothing where nothing could be measured."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    return "0" if value == 0 else f"{value:.1e}"
