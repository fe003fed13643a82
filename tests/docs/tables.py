"""The tables of a page as data, and what their cells may name: flags, keys of config.toml, metrics."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator

import httpx
from pydantic import BaseModel
from tests.docs.markdown import prose
from tests.support.serving import RunningServer

from tensorquay.commands.serve import serve
from tensorquay.config import toml_schema


def tables(page: str, section: str) -> list[list[list[str]]]:
    """The tables under the heading `## section`, each as rows of cells, without their header."""
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", prose(page), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page} has no section '{section}'"
    blocks = re.findall(r"^\|.*\|\n\|[-|: ]+\|\n((?:\|.*\|\n)+)", found[1], re.MULTILINE)
    return [[_cells(line) for line in block.splitlines()] for block in blocks]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def quoted(cell: str) -> list[str]:
    """What stands between backquotes in it."""
    return re.findall(r"`([^`]+)`", cell)


def flags(cell: str) -> set[str]:
    """The command-line flags that it names."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9_-]+", " ".join(quoted(cell))))


def our_flags() -> set[str]:
    """Every option of `tensorquay serve`, in all its spellings."""
    return {spelling for option in serve.params for spelling in option.opts if spelling.startswith("--")}


def toml_keys() -> set[str]:
    """Every key of a model's config.toml, dotted, tables of several entries without a number."""
    return set(_keys(toml_schema.ConfigTable, ""))


def _keys(table: type[BaseModel], path: str) -> Iterator[str]:
    for name, field in table.model_fields.items():
        yield path + name
        for inner in _tables_in(field.annotation):
            yield from _keys(inner, f"{path}{name}.")


def _tables_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in {list, dict, typing.Union, types.UnionType, typing.Annotated}:
        for argument in typing.get_args(annotation):
            yield from _tables_in(argument)


def metrics_of(server: RunningServer) -> set[str]:
    """The families on its page, as rules and dashboards name them."""
    page = httpx.get(f"http://{server.metrics}/metrics", timeout=30).text
    return set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
