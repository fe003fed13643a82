"""The measurements of `optimizations.py` for people: a table for a terminal, another for docs/performance.md.

A document in, text out.
"""

from __future__ import annotations

from typing import Any

from rich.table import Table
from tests.bench.report import piped

BEGIN = "<!-- tests.bench.optimizations writes between these lines -->"
END = "<!-- end of what tests.bench.optimizations writes -->"

_HEADS = ("model", "winner", "at", "× (claimed)", "× (again)", "holds", "answers", "bytes", "tried", "took")
_LEFT_ALIGNED = 3


def table(document: dict[str, Any]) -> Table:
    """What won, and whether it won again, for a terminal."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for place, head in enumerate(_HEADS):
        shown.add_column(head, justify="left" if place < _LEFT_ALIGNED else "right", overflow="fold")
    for cells in rows(document):
        shown.add_row(*cells)
    return shown


def markdown(document: dict[str, Any]) -> str:
    """The table, what is missing in it, and what it was measured on, as Markdown."""
    parts = ["\n".join(surroundings(document)), piped(_HEADS, rows(document), _LEFT_ALIGNED)]
    missing = absences(document)
    if missing:
        parts.append("Not in the table:\n\n" + "\n".join(f"- {each}" for each in missing))
    return "\n\n".join(parts)


def rows(document: dict[str, Any]) -> list[list[str]]:
    """One line for each point at which a winner was timed; one for a model that stays as it is."""
    found = []
    for row in document["rows"]:
        if "optimization" not in row:
            continue
        outcome = row["optimization"]
        tried = sum(each["verdict"] != "not tried" for each in outcome["trials"]) - 1
        end = [str(tried), f"{outcome['seconds']:.0f} s"]
        won = _winner(row)
        if won is None:
            found.append([row["model"], "none: as it was", *[""] * 6, *end])
            continue
        size = f"{won['bytes'] / outcome['subject']['bytes']:.0%}"
        for place, timing in enumerate(won["timings"]):
            again = row["again"].get(timing["point"])
            found.append([
                row["model"] if place == 0 else "",
                won["variant"]["name"] if place == 0 else "",
                timing["point"],
                f"{timing['ratio']:.2f} ({timing['low']:.2f} to {timing['high']:.2f})",
                "" if again is None else f"{again:.2f}",
                "" if again is None else "yes" if timing["low"] <= again <= timing["high"] else "NO",
                _answers(won["judgement"]) if place == 0 else "",
                size if place == 0 else "",
                *(end if place == 0 else ("", "")),
            ])  # fmt: skip
    return found


def wrong(row: dict[str, Any]) -> bool:
    """Whether a case failed, or a claim did not hold when it was measured again."""
    if "failed" in row:
        return True
    won = _winner(row) if "optimization" in row else None
    return won is not None and any(
        not each["low"] <= row["again"].get(each["point"], each["ratio"]) <= each["high"] for each in won["timings"]
    )


def absences(document: dict[str, Any]) -> list[str]:
    """What was skipped or failed, and why."""
    return [
        f"{row['name']}: {state}: {row[state]}"
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
        f"Taken by other machines of the host: {where['stolen_percent']} % of the time.",
    ]


def _winner(row: dict[str, Any]) -> dict[str, Any] | None:
    outcome = row["optimization"]
    return next((each for each in outcome["trials"] if each["variant"]["name"] == outcome["winner"]), None)


def _answers(judgement: dict[str, Any]) -> str:
    """How right the winner is, in the terms it was judged in."""
    if judgement["metric_value"] is not None:
        return f"{judgement['metric']} {judgement['metric_value']:.4f}, was {judgement['metric_baseline']:.4f}"
    cosines = [each["cosine"] for each in judgement["outputs"] if each["cosine"] is not None]
    return f"cosine {min(cosines):.4f}" if cosines else "equal"
