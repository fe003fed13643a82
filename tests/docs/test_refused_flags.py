"""The refused flags of tritonserver that docs/operations.md lists are those of the code, with the same advice."""

from __future__ import annotations

import re
from pathlib import Path

from tensorquay.commands.tritonserver import REFUSED, REFUSED_UNLESS, REFUSED_WHEN_ON

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def rows() -> list[str]:
    """The table as it must stand there: one row per reason, its flags in the code's order."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        by_reason.setdefault(reason, []).append(f"`--{name}`")
    for name, reason in REFUSED_WHEN_ON.items():
        by_reason.setdefault(reason, []).append(f"`--{name}` (unless false)")
    for name, (accepted, reason) in REFUSED_UNLESS.items():
        by_reason.setdefault(reason, []).append(f"`--{name}` (unless {accepted})")
    return [f"| {', '.join(flags)} | {reason} |" for reason, flags in by_reason.items()]


def test_the_table_is_the_codes() -> None:
    found = re.search(r"^\| refused \| because, or instead \|\n\|---\|---\|\n((?:\|.*\n)+)", OPERATIONS, re.MULTILINE)
    assert found is not None
    assert found[1].splitlines() == rows()
