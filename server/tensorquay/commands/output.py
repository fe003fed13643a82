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
        made.add_row(*(Text(plain(cell), style=(styles or {}).get(cell, "")) for cell in row))
    return made


def plain(text: str) -> str:
    """`text` without what a terminal would obey or turn around: such characters are shown by their number."""
    return text if text.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
