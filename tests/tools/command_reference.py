"""docs/reference/cli.md: every command with its arguments and options, as click knows them.

Nothing of it depends on a terminal: texts are taken from the commands, not from their `--help`. Commands that other
distributions add are theirs to document.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import click
from tests.tools.markdown_tables import NOTICE, code, escaped, table

from tensorquay import cli
from tensorquay.config.server import ServerConfig
from tensorquay.config.server_sources import flag_of

DISTRIBUTION = "tensorquay"

_HELP = frozenset({"-h", "--help"})
_METAVARS = {"integer": "N", "float": "NUMBER", "integer range": "N", "float range": "NUMBER"}
_SAID_DEFAULT = re.compile(r"\s*\[default: (?P<default>[^]]*)\]")


def command_reference() -> str:
    """The page."""
    lines = [
        "# The command `tensorquay`",
        "",
        NOTICE,
        "",
        escaped(cli.cli.help or ""),
        "",
        *_epilog(cli.cli),
        "Every command takes `--help`. Errors are one sentence each on standard error.",
        "",
    ]
    root = click.Context(cli.cli, info_name="tensorquay", terminal_width=120)
    found = [(name, cli.cli.get_command(root, name)) for name in _ours(root)]
    commands = [(name, command) for name, command in found if command is not None]
    rows = [[f"[{code(f'tensorquay {name}')}](#tensorquay-{name})", escaped(_short(each))] for name, each in commands]
    lines += [*table(["command", "what it does"], rows), *_options(cli.cli, root)]
    for name, command in commands:
        lines += _command(command, click.Context(command, info_name=name, parent=root), 2)
    return "\n".join(lines).rstrip("\n") + "\n"


def _ours(root: click.Context) -> list[str]:
    foreign = {
        name
        for name, point in cli._plugins().items()
        if point.dist is not None and point.dist.name.lower() != DISTRIBUTION
    }
    return [name for name in cli.cli.list_commands(root) if name not in foreign]


def _short(command: click.Command) -> str:
    return command.short_help or command.get_short_help_str(limit=1000)


def _command(command: click.Command, context: click.Context, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {context.command_path}"
    yield ""
    yield code(f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}")
    yield ""
    yield from _paragraphs(command.help or "")
    yield from _arguments(command, context)
    yield from _options(command, context)
    yield from _epilog(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, info_name=name, parent=context), depth + 1)


def _paragraphs(text: str) -> Iterator[str]:
    """Help as click reads it: paragraphs, and those that begin with \\b as they are."""
    for paragraph in re.split(r"\n{2,}", inspect.cleandoc(text).replace("\f", "")):
        if paragraph.startswith("\b"):
            shown = [line.strip() for line in paragraph.removeprefix("\b").strip("\n").splitlines()]
            language = "sh" if all(line.startswith("tensorquay ") for line in shown) else "text"
            yield from (f"```{language}", *shown, "```", "")
        elif paragraph.strip():
            yield escaped(paragraph)
            yield ""


def _epilog(command: click.Command) -> Iterator[str]:
    if command.epilog:
        yield from _paragraphs(command.epilog)


def _arguments(command: click.Command, context: click.Context) -> Iterator[str]:
    """Arguments have no texts of their own in click: their command's help speaks of them."""
    rows = []
    for each in command.params:
        if isinstance(each, click.Argument):
            shown = each.make_metavar(context)
            # Commands that complain of a missing one in their own words are not "required" to click.
            needed = each.required or not shown.startswith("[")
            many = "one or more" if needed else "any number"
            rows.append([code(shown), many if each.nargs == -1 else "one" if needed else "may be left out"])
    if rows:
        yield from table(["argument", "how many"], rows)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    rows = []
    settings: dict[str, list[str]] = {}
    for each in command.params:
        if not isinstance(each, click.Option) or each.hidden or _HELP & set(each.opts):
            continue
        if command.name == "serve" and each.name in ServerConfig.model_fields:
            settings.setdefault(flag_of(each.name).group, []).append(f"[{code(each.opts[0])}](settings.md#{each.name})")
            continue
        rows.append(_option(each, context))
    if rows:
        yield from table(["option", "value", "default", "meaning"], rows)
    if settings:
        yield "And every setting, by group; [settings.md](settings.md) says what each does:"
        yield ""
        yield from table(["group", "options"], [[group, ", ".join(flags)] for group, flags in settings.items()])


def _option(option: click.Option, context: click.Context) -> list[str]:
    text = option.help or ""
    if not text:
        raise ValueError(f"{context.command_path} {option.opts[0]}: an option without a help text")
    said = _SAID_DEFAULT.search(text)
    default = said["default"] if said is not None else _default(option, context)
    names = ", ".join(map(code, (*option.opts, *option.secondary_opts)))
    meaning = escaped(_SAID_DEFAULT.sub("", text))
    if option.required:
        meaning += " Required."
    if option.multiple and "repeat" not in meaning:
        meaning += " Repeatable."
    return [names, "" if option.is_flag else _value(option, context), code(default) if default else "", meaning]


def _value(option: click.Option, context: click.Context) -> str:
    kind = option.type
    if isinstance(kind, click.Choice):
        return ", ".join(code(str(each.name if isinstance(each, Enum) else each)) for each in kind.choices)
    shown = code(option.metavar or _METAVARS.get(kind.name) or option.make_metavar(context))
    return f"{shown}, {_range(kind)}" if isinstance(kind, click.IntRange | click.FloatRange) else shown


def _range(kind: Any) -> str:
    """The bounds of a click range in words."""
    low, high = kind.min, kind.max
    above = "more than" if kind.min_open else "at least"
    below = "less than" if kind.max_open else "at most"
    if low is None or high is None:
        return f"{below} {high}" if low is None else f"{above} {low}"
    return f"{low} to {high}" if not kind.min_open and not kind.max_open else f"{above} {low}, {below} {high}"


def _default(option: click.Option, context: click.Context) -> str:
    value = option.to_info_dict()["default"]
    # A function would tell this machine's value.
    if option.is_flag or callable(value) or value is None or value in ("", ()):
        return ""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value.value if isinstance(value, Enum) else value)
