"""The parts that every report page is made of: escaped text, tables, lists, and the page around them. Pure.

Names and texts may come from a stranger's model: whatever goes through here is escaped, bounded and on one line, and a
policy in the page's head forbids scripts and fetching besides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tensorquay_convert.report.style import CSS

MAX_TEXT = 600
MAX_CELL = 200
_MAX_VALUES = 60
_MARKED = '<tr class="won">'

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, body: Iterable[str]) -> str:
    """The whole page. `title` is plain text, `body` markup."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def plain(value: object, most: int = MAX_TEXT) -> str:
    """One line, bounded; without control characters, half surrogates, and what turns the direction of text."""
    found = str(value)
    if len(found) > most:
        found = found[: most - 1] + "…"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in found)


def text(value: object, most: int = MAX_TEXT) -> str:
    """`plain`, escaped for elements and quoted attributes."""
    return escape(plain(value, most))


def sentence(value: str, most: int = MAX_TEXT) -> str:
    """With a capital first and a full stop."""
    return f"{text(value[:1].upper() + value[1:], most)}."


def values(value: Any) -> str:
    """A value of a JSON document: lists by commas, objects as name and value; bounded."""
    if isinstance(value, Mapping):
        items = [f"{text(key, 80)} {values(each)}" for key, each in list(value.items())[:_MAX_VALUES]]
        return ", ".join(items) + (" …" if len(value) > _MAX_VALUES else "")
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        items = [values(each) for each in value[:_MAX_VALUES]]
        return (" " if all(isinstance(each, str) for each in value) else "; ").join(items) + (
            " …" if len(value) > _MAX_VALUES else ""
        )
    return text(value)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names (plain) with what is said of them (markup)."""
    return f"<dl>{''.join(f'<dt>{text(name, 80)}</dt><dd>{said}</dd>' for name, said in pairs)}</dl>"


def cell(value: object) -> str:
    """A table's cell of text."""
    return f'<td class="t">{text(value, MAX_CELL)}</td>'


def number_cell(value: object) -> str:
    """A table's cell that does not break."""
    return f'<td class="n">{text(value, MAX_CELL)}</td>'


def said_cell(problem: str, fine: str) -> str:
    """What is wrong, or that it is fine."""
    return f'<td class="t no">{text(problem)}</td>' if problem else f'<td class="ok">{text(fine)}</td>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, marked: Collection[int] = ()) -> str:
    """A table; `rows` are cells as markup, `head` and `caption` plain; `marked`: rows that stand out."""
    said = f"<caption>{text(caption)}</caption>" if caption else ""
    top = "".join(f'<th scope="col">{text(each)}</th>' if each else "<td></td>" for each in head)
    body = "".join(f"{_MARKED if at in marked else '<tr>'}{''.join(row)}</tr>" for at, row in enumerate(rows))
    return f"<table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def wide(inner: str, label: str) -> str:
    """What may be wider than the screen: it scrolls by itself, by keyboard too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{text(label)}">{inner}</div>'


def bullets(items: Iterable[str]) -> str:
    """A list of plain texts."""
    return f"<ul>{''.join(f'<li>{text(each)}</li>' for each in items)}</ul>"
