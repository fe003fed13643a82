"""docs/reference/model-config.md: every key of a model's config.toml, from the texts beside its declaration."""

from __future__ import annotations

import re
import typing
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tests.tools.markdown_tables import NOTICE, code, marked, table
from tests.tools.settings_reference import plain

from tensorquay.config.toml_key import Declared, Key, declared, is_named, table_in
from tensorquay.config.toml_schema import ConfigTable

INTRODUCTION = """\
A model needs no configuration. Where one is wanted, it is a file `config.toml` in the model's folder, beside the
versions, or Triton's `config.pbtxt`; never both. All keys may be left out, except what is called required; after
"default" stands what holds then. How the two files compare, how the batch size is found and when a GPU is insisted on:
[configuration.md](../configuration.md). `tensorquay check` prints what is in force, and names the file, line and key of
what is wrong.

The last column is the field of `config.pbtxt` that says the same. Every field of Triton's schema, whether it is obeyed,
accepted without effect or refused: [migrate-from-triton.md](../migrate-from-triton.md#configpbtxt)."""

_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_TABLES = {"one": "a table", "named": "a table for each name", "several": "any number of tables"}


def model_reference() -> str:
    """The page."""
    tables: dict[str, list[Declared]] = {}
    for each in declared(ConfigTable):
        tables.setdefault(each.table, []).append(each)
    lines = ["# A model's config.toml", "", NOTICE, "", INTRODUCTION, ""]
    shown: dict[type[BaseModel], str] = {}
    headings = {"": "At the top of the file"} | {
        _below(each): f"`{_brackets(each)}`"
        for keys in tables.values()
        for each in keys
        if table_in(each.field.annotation) is not None
    }
    classes = {_below(each): table_in(each.field.annotation) for keys in tables.values() for each in keys}
    for path, keys in tables.items():
        lines += [f"## {headings[path]}", ""]
        declares = classes.get(path)
        if declares is not None and declares in shown:
            other = shown[declares]
            lines += [f"The same keys as [{headings[other]}](#{_anchor(other)}).", ""]
            continue
        if declares is not None:
            shown[declares] = path
        lines += table(["key", "what it decides", "value", "default", "config.pbtxt"], [_row(each) for each in keys])
    return "\n".join(lines).rstrip("\n") + "\n"


def _row(each: Declared) -> list[str]:
    inner, key = table_in(each.field.annotation), each.key
    if inner is None:
        name, value, default = code(each.name), _value(each), _default(each.field, key)
    else:
        name = f"[{code(_brackets(each))}](#{_anchor(_below(each))})"
        value, default = _TABLES[_kind(each.field.annotation)], ""
    return [name, marked(key.text), value, default, _pbtxt(key)]


def _kind(annotation: Any) -> str:
    origin = typing.get_origin(plain(annotation))
    return "named" if is_named(plain(annotation)) else "several" if origin is list else "one"


def _below(each: Declared) -> str:
    """The path of the table that a key begins."""
    return f"{each.path}.NAME" if _kind(each.field.annotation) == "named" else each.path


def _brackets(each: Declared) -> str:
    return f"[[{each.path}]]" if _kind(each.field.annotation) == "several" else f"[{_below(each)}]"


def _anchor(path: str) -> str:
    """Of a heading, as the places that show Markdown make it."""
    return re.sub(r"[^\w-]", "", path.lower())


def _value(each: Declared) -> str:
    """The type, its bounds, and an example where the form is not obvious."""
    annotation, key = plain(each.field.annotation), each.key
    if typing.get_origin(annotation) is Literal:
        return ", ".join(code(f'"{choice}"') for choice in typing.get_args(annotation))
    bounds = "" if key.bounds is None else f", {key.bounds[0]} to {key.bounds[1]}"
    if typing.get_origin(annotation) is list:
        return f"list of {_WORDS[plain(typing.get_args(annotation)[0])]}s{bounds}: {code(key.example)}"
    if typing.get_origin(annotation) is dict:
        return f"table of texts: {code(key.example)}"
    told = f"{_WORDS[annotation]}{bounds}"
    return f"{told}: {code(key.example)}" if annotation is str else told


def _default(field: FieldInfo, key: Key) -> str:
    if field.is_required():
        return "**required**"
    if key.unsaid:
        return marked(key.unsaid)
    default = field.get_default(call_default_factory=True)
    shown = f'"{default}"' if isinstance(default, str) else str(default)
    return code(shown.lower() if isinstance(default, bool) else shown)


def _pbtxt(key: Key) -> str:
    parameter = re.fullmatch(r"parameters\[(.+)\]", key.pbtxt)
    return f"parameter {code(parameter[1])}" if parameter else code(key.pbtxt) if key.pbtxt else ""
