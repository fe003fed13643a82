"""On which line of a TOML file something is wrong. Pure; asked only when a file is refused.

tomllib tells lines of bad syntax only. A file that it accepts is a row of statements, each a header or `key = value`,
and each can be read alone: so a key is looked for by reading them one after another.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping

_MAX_CHARACTERS = 1 << 14
_MAX_LINES = 50
"""Longest file, and longest statement in it, that are looked through: each line of a statement reads it again."""


_SYNTAX: Mapping[str, str] = {
    "Expected '=' after a key": "TOML writes 'key = value', not 'key: value'",
    "Invalid value": "text stands between quotes, truth is true or false, numbers have no unit",
    "Invalid statement": "a line is 'key = value', '[table]' or '# comment'",
    "Cannot overwrite a value": "a key or table is given twice; keep one",
    "Cannot declare": "a key or table is given twice; keep one",
    "Illegal character": "text on one line ends with the quote that it begins with",
}
"""How tomllib's complaint begins, and what to do about it."""


def syntax_problem(error: Exception) -> tuple[str, str, int | None]:
    """What tomllib complains about, what to do about it (or nothing), and the line where it names one."""
    told = str(error)
    where = re.search(r" \(at line (\d+), column (\d+)\)$", told)
    hint = next((hint for begin, hint in _SYNTAX.items() if told.startswith(begin)), "")
    rule = f"not TOML: {told}" if where is None else f"not TOML: {told[: where.start()]}, at column {where[2]}"
    return rule[:240], hint, int(where[1]) if where is not None else None


def line_of(text: str, key: str) -> int | None:
    """The line, from 1, where `key` ("input[1].dims") is written in `text`, which tomllib accepts.

    Of a key that is not written, the line of the table that lacks it. None where there is none, or the file is long.
    """
    wanted, best, found = _plain(key), "", None
    for written, line in _statements(text) if len(text) <= _MAX_CHARACTERS else ():
        name = _plain(written)
        near = wanted == name or wanted.startswith((f"{name}.", f"{name}["))
        if near and len(name) > len(best):
            best, found = name, line
    return found


def _plain(key: str) -> str:
    """Without the position of a first entry: `[input]` and `[[input]]` begin the same table."""
    return key.replace("[0]", "")


def _statements(text: str) -> Iterator[tuple[str, int]]:
    """Each header and each key under it, dotted, with its line."""
    counts: dict[str, int] = {}
    table, start, pending = "", 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        if not pending:
            start = number
        pending += line + "\n"
        try:
            read = tomllib.loads(pending)
        except (ValueError, RecursionError):
            if number - start >= _MAX_LINES:
                return
            continue  # the value goes on in the next line
        begun, pending = pending.lstrip(), ""
        if begun.startswith("["):
            table = _dotted(read, counts, several=begun.startswith("[["))
            yield table, start
        elif read:
            key = _dotted(read, {}, several=False)
            yield f"{table}.{key}" if table else key, start


def _dotted(read: object, counts: dict[str, int], *, several: bool) -> str:
    """The name that one statement gives, as deep as it gives a single one.

    Args: counts: how many tables each `[[name]]` has begun, less one; `several` begins one more.
    """
    name = ""
    while isinstance(read, dict) and len(read) == 1:
        ((key, read),) = read.items()
        name = f"{name}.{key}" if name else str(key)
        if several and isinstance(read, list):
            counts[name] = counts.get(name, -1) + 1
        if name in counts:
            name += f"[{counts[name]}]"
    return name
