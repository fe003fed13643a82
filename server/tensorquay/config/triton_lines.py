"""On which line of a config.pbtxt a field stands. Pure; asked only when a file is refused.

protobuf tells lines of bad syntax only; once it has read a text, nothing knows where a field was written. A text that
it accepts is simple enough to be gone through by hand.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tensorquay.config.triton_schema import ModelConfigMessage

_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>\[\]:,;]|[^\s{}<>\[\]:,;"'#]+""")


@dataclass(slots=True)
class _Block:
    """A message that is being gone through; lives within one call of `_fields`."""

    schema: Any
    path: str = ""
    name: str = ""
    """The field in it that was begun last."""
    counts: dict[str, int] = field(default_factory=dict)
    """How many blocks of each field were begun in it."""

    def below(self, name: str) -> str:
        """The path of its field `name`; the value in a map's entry has none of its own."""
        return self.path if self.entry and name == "value" else f"{self.path}.{name}" if self.path else name

    @property
    def entry(self) -> bool:
        """Whether it is an entry of a map."""
        return bool(self.schema.GetOptions().map_entry)

    def begun(self) -> _Block:
        """The block of its field that was begun last."""
        schema = self.schema.fields_by_name[self.name].message_type
        number = self.counts[self.name] = self.counts.get(self.name, -1) + 1
        path, keyed = self.below(self.name), self.entry or schema.GetOptions().map_entry
        return _Block(schema, path if keyed else f"{path}[{number}]")


def line_of(text: str, key: str) -> int | None:
    """The line, from 1, where `key` ("instance_group[1].count", "parameters[owner]") is written in `text`.

    Args: text: what protobuf accepts as text.
    Returns: of a field that is not written, the line of the block that lacks it; None where there is none either.
    """
    wanted, best, found = _plain(key), "", None
    for written, line in _fields(text):
        name = _plain(written)
        near = wanted == name or wanted.startswith((f"{name}.", f"{name}["))
        if near and len(name) > len(best):
            best, found = name, line
    return found


def _plain(key: str) -> str:
    """Without the position of a first entry: a field that stands once is written like the first of several."""
    return key.replace("[0]", "")


def _fields(text: str) -> Iterator[tuple[str, int]]:
    """Each field and each block with its line; the n-th block of its name as "name[n]", a map's entry by its key."""
    tokens = [(found[0], found.start()) for found in _TOKEN.finditer(text) if not found[0].startswith("#")]
    blocks, line, at = [_Block(ModelConfigMessage.DESCRIPTOR)], 1, 0
    for (token, start), (after, _) in itertools.pairwise([*tokens, ("", 0)]):
        line, at = line + text.count("\n", at, start), start
        here = blocks[-1]
        if token in {"{", "<"}:
            blocks.append(here.begun())
            yield blocks[-1].path, line
        elif token in {"}", ">"} and len(blocks) > 1:
            blocks.pop()
        elif after in {":", "{", "<", "["} and token not in {"]", ":", ",", ";", "["}:
            here.name = token
            yield here.below(token), line
        elif here.entry and here.name == "key" and token not in {":", ",", ";", "[", "]"}:
            named = token.strip("'\"")
            here.path = f"{here.path}[{named}]"
            here.name = ""
            yield here.path, line
