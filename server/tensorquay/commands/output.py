"""How commands print tables: with colours and the terminal's width for people, plain and unwrapped for pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 10_000
"""Nobody wraps a line that another program reads."""


def console() -> Console:
    """Standard output as it is now."""
    if sys.stdout.isatty():
        return Console(highlight=False, markup=False)
    return Console(highlight=False, markup=False, width=_PIPE_WIDTH, no_color=True, force_terminal=False)


def table(*headers: str, rows: Iterable[Sequence[str]], styles: dict[str, str] | None = None) -> Table:
    """A borderless table; `styles` gives a cell with exactly that text a style ("READY": "green")."""
    made = Table(*headers, box=None, pad_edge=False, show_edge=False, header_style="bold")
    for row in rows:
        # Text, not markup: a model's name or a reason may contain brackets.
        made.add_row(*(Text(cell, style=(styles or {}).get(cell, "")) for cell in row))
    return made
