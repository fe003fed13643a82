"""What people are told about one key of config.toml, kept beside the key's declaration in `toml_schema.py`.

The generated reference and the hints of refusals are made of it. Bounds are told here and enforced by `rules.py`; a
test holds the two together, as it does examples and `parse_toml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Key:
    """The text of one key.

    Args:
        text: what it decides, with its unit; sentences, in Markdown.
        example: a value as TOML writes it; empty for a table.
        pbtxt: the field of config.pbtxt that says the same, dotted, or "parameters[key]"; empty where Triton has none.
        bounds: least and greatest number, of each entry where it is a list.
        unsaid: what holds when it is left out and that is no value of its own.
    """

    text: str
    example: str = ""
    pbtxt: str = ""
    bounds: tuple[float, float] | None = None
    unsaid: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """One key as it was declared. `path` is dotted; "NAME" stands for a name that the user chooses."""

    path: str
    key: Key
    field: FieldInfo

    @property
    def name(self) -> str:
        """As it stands in its table."""
        return self.path.rpartition(".")[2]

    @property
    def table(self) -> str:
        """The table it stands in, as a heading writes it; empty at the top of the file."""
        return self.path.rpartition(".")[0]


def key_of(field: FieldInfo) -> Key:
    """Raises: LookupError for a key that was declared without a text."""
    for item in field.metadata:
        if isinstance(item, Key):
            return item
    raise LookupError("a key of config.toml needs a Key, its text, in its annotation")


def declared(table: type[BaseModel], above: str = "") -> Iterator[Declared]:
    """Every key of `table` and of the tables in it, each table's own keys first."""
    inner: list[tuple[type[BaseModel], str]] = []
    for name, field in table.model_fields.items():
        path = f"{above}.{name}" if above else name
        yield Declared(path, key_of(field), field)
        below = table_in(field.annotation)
        if below is not None:
            inner.append((below, f"{path}.NAME" if is_named(field.annotation) else path))
    for below, path in inner:
        yield from declared(below, path)


def table_in(annotation: Any) -> type[BaseModel] | None:
    """The table class within `X`, `X | None`, `list[X]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inside = (table_in(argument) for argument in get_args(annotation))
    return next((found for found in inside if found is not None), None)


def is_named(annotation: Any) -> bool:
    """Whether users name the entries."""
    return get_origin(annotation) is dict
