"""Text of ours as Markdown: cells that break no table, and nothing that is read as markup by mistake."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

NOTICE = "Written by `make docs` from the code; change it there."
"""Stands at the top of every page that is generated."""


def escaped(text: str) -> str:
    """`text` as it stands, in a sentence or a cell."""
    for character in "\\|<>*":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def code(text: str) -> str:
    """`text` between backquotes, in a cell too."""
    return f"`{text.replace('|', chr(92) + '|')}`"


def marked(text: str) -> str:
    """Code that is between backquotes already stays code."""
    return "`".join(part if place % 2 else _escaped_part(part) for place, part in enumerate(text.split("`")))


def _escaped_part(text: str) -> str:
    """As `escaped`, with the blanks at both ends."""
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{before}{escaped(text)}{after}" if text.strip() else text


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table; cells are Markdown already. A column without a single entry is left out."""
    used = [place for place in range(len(heads)) if any(row[place] for row in rows)]
    yield "| " + " | ".join(heads[place] for place in used) + " |"
    yield "|" + "---|" * len(used)
    for row in rows:
        yield "| " + " | ".join(row[place] for place in used) + " |"
    yield ""


def sized(number: int) -> str:
    """A number of bytes, in digits and, where it comes out even, in binary units."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number and number % 2**power == 0:
            return f"{number} ({number >> power} {unit})"
    return str(number)
