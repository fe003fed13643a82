"""docs/reference/settings.md: every setting of the server and key of a model's config.toml, as pydantic knows them."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tests.tools.markdown_tables import NOTICE, code, escaped, sized, table

from tensorquay.commands.serve import serve
from tensorquay.config.server import ServerConfig
from tensorquay.config.server_sources import NOT_SETTINGS, PREFIX, flag_of, is_list
from tensorquay.config.server_values import RestrictedKey
from tensorquay.config.toml_schema import ConfigTable

_TABLES = {"one": "a table", "named": "a table for each name", "several": "any number of tables"}

INTRODUCTION = """\
Every setting of `tensorquay serve` can be given as a key of a TOML file (`--config server.toml`: the names below), as
an environment variable and as a flag; a later one of these three wins. How that works, and which settings matter most:
[operations.md](../operations.md#settings). `tensorquay serve --print-config` shows what is in force and where it came
from."""

MODELS = """\
Keys of `config.toml` in a model's folder, by table. All may be left out, except what is called required; "not said"
leaves the choice to the model, the server or the runtime. What each means, its bounds, and the same in Triton's
`config.pbtxt`: [configuration.md](../configuration.md)."""


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
    lines += table(["variable", "what it is"], [[code(name), _marked(text)] for name, text in NOT_SETTINGS.items()])
    lines += ["## A model's config.toml", "", MODELS, ""]
    lines += _tables(ConfigTable, "")
    return "\n".join(lines).rstrip("\n") + "\n"


def _marked(text: str) -> str:
    """Code that is between backquotes already stays code."""
    return "`".join(part if place % 2 else escaped_part(part) for place, part in enumerate(text.split("`")))


def escaped_part(text: str) -> str:
    """As `escaped`, with the blanks at both ends."""
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    return f"{before}{escaped(text)}{after}" if text.strip() else text


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
    annotation = _plain(field.annotation)
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


def _plain(annotation: Any) -> Any:
    """Without `Annotated` and without None."""
    if typing.get_origin(annotation) is Annotated:
        return _plain(typing.get_args(annotation)[0])
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        (inner,) = (each for each in typing.get_args(annotation) if each is not type(None))
        return _plain(inner)
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


def _tables(model: type[BaseModel], path: str) -> Iterator[str]:
    """The keys of one table, then the tables in it."""
    rows: list[list[str]] = []
    inner: list[tuple[type[BaseModel], str]] = []
    for name, field in model.model_fields.items():
        below, kind = _nested(field.annotation)
        where = f"{path}.{name}" if path else name
        if below is not None:
            shown = {"one": where, "named": f"{where}.NAME", "several": where}[kind]
            inner.append((below, shown))
            brackets = f"[[{shown}]]" if kind == "several" else f"[{shown}]"
            rows.append([code(brackets), _TABLES[kind], ""])
            continue
        rows.append([code(name), _model_kind(field.annotation), _model_default(field)])
    yield from (f"### {_title(path)}", "")
    yield from table(["key", "value", "default"], rows)
    for each, shown in inner:
        yield from _tables(each, shown)


def _title(path: str) -> str:
    return f"config.toml, `{path}`" if path else "config.toml, at the top"


def _nested(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    plain = _plain(annotation)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return plain, "one"
    for origin, kind in ((list, "several"), (dict, "named")):
        if typing.get_origin(plain) is origin:
            inner = _plain(typing.get_args(plain)[-1])
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                return inner, kind
    return None, ""


def _model_kind(annotation: Any) -> str:
    plain = _plain(annotation)
    if typing.get_origin(plain) is Literal:
        return ", ".join(code(f'"{each}"') for each in typing.get_args(plain))
    words = {bool: "true or false", int: "integer", float: "number", str: "text"}
    if typing.get_origin(plain) is list:
        return f"list of {words[_plain(typing.get_args(plain)[0])]}s"
    if typing.get_origin(plain) is dict:
        return "table of texts"
    return words[plain]


def _model_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ("", [], {}):
        return "not said"
    if isinstance(default, bool):
        return code(str(default).lower())
    return code(f'"{default}"' if isinstance(default, str) else str(default))
