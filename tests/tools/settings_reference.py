"""docs/reference/settings.md: every setting of the server, as pydantic knows it."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import annotated_types
from pydantic.fields import FieldInfo
from tests.tools.markdown_tables import NOTICE, code, escaped, marked, sized, table

from tensorquay.commands.serve import serve
from tensorquay.config.server import ServerConfig
from tensorquay.config.server_sources import NOT_SETTINGS, PREFIX, flag_of, is_list
from tensorquay.config.server_values import RestrictedKey

INTRODUCTION = """\
Every setting of `tensorquay serve` can be given as a key of a TOML file (`--config server.toml`: the names below), as
an environment variable and as a flag; a later one of these three wins. How that works, and which settings matter most:
[operations.md](../operations.md#settings). `tensorquay serve --print-config` shows what is in force and where it came
from. What one model may be told in a file of its own: [model-config.md](model-config.md)."""


def settings_reference() -> str:
    """The page."""
    groups: dict[str, list[str]] = {}
    for name in ServerConfig.model_fields:
        groups.setdefault(flag_of(name).group, []).append(name)
    lines = ["# Settings", "", NOTICE, "", INTRODUCTION, ""]
    index = [[group, ", ".join(f"[{code(name)}](#{name})" for name in names)] for group, names in groups.items()]
    lines += table(["group", "settings"], index)
    for group, names in groups.items():
        lines += [f"## {group}", ""]
        for name in names:
            lines += _setting(name)
    lines += ["## Variables that are no settings", ""]
    lines += table(["variable", "what it is"], [[code(name), marked(text)] for name, text in NOT_SETTINGS.items()])
    return "\n".join(lines).rstrip("\n") + "\n"


def _setting(name: str) -> Iterator[str]:
    field = ServerConfig.model_fields[name]
    (option,) = (each for each in serve.params if each.name == name)
    flags = ", ".join(code(f"{spelling} {option.metavar}") for spelling in option.opts)
    yield from (f"### {name}", "", escaped(str(field.description)), "")
    default = _default_of_setting(name, field)
    row = [flags, code(PREFIX + name.upper()), _kind(name, field), default]
    yield from table(["flag", "variable", "value", "default"], [row])


def _default_of_setting(name: str, field: FieldInfo) -> str:
    shown = ServerConfig.model_construct().shown(name)
    if not shown:
        return "none"
    default = field.get_default(call_default_factory=True)
    if "bytes" in f"{name} {field.description}" and isinstance(default, int) and default:
        digits, _, unit = sized(default).partition(" ")
        return f"{code(digits)} {unit}".rstrip()
    return code(shown)


def _kind(name: str, field: FieldInfo) -> str:
    """The type and its bounds in words."""
    annotation = plain(field.annotation)
    bounds = _bounds(field)
    if isinstance(annotation, enum.EnumType):
        return ", ".join(code(str(member.value)) for member in annotation)
    words = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path"}
    if annotation == dict[str, RestrictedKey]:
        return f"list of texts, in a variable separated by `{flag_of(name).separator}`"
    if is_list(name):
        (inner, *_) = typing.get_args(annotation)
        return f"list of {words[inner]}s, in a variable separated by `{flag_of(name).separator}`"
    return ", ".join(filter(None, (words[annotation], bounds)))


def plain(annotation: Any) -> Any:
    """A type without `Annotated` and without None."""
    if typing.get_origin(annotation) is Annotated:
        return plain(typing.get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        (inner,) = (each for each in typing.get_args(annotation) if each is not type(None))
        return plain(inner)
    return annotation


def _bounds(field: FieldInfo) -> str:
    least: str | None = None
    most: str | None = None
    letters: list[str] = []
    for item in field.metadata:
        match item:
            case annotated_types.Ge(ge=low):
                least = f"{low}"
            case annotated_types.Gt(gt=low):
                least = f"more than {low}"
            case annotated_types.Le(le=high):
                most = f"{high}"
            case annotated_types.Lt(lt=high):
                most = f"less than {high}"
            case annotated_types.MinLen(min_length=low):
                letters.append("not empty" if low == 1 else f"at least {low} characters")
            case annotated_types.MaxLen(max_length=high):
                letters.append(f"at most {high} characters")
    if least is not None and most is not None:
        return f"{least} to {most}"
    if least is not None or most is not None:
        return f"at least {least}" if least is not None else f"at most {most}"
    return ", ".join(letters)
