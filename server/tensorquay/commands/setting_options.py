"""Command-line options for every setting of the server, generated from `ServerConfig`, for the commands that take them.

A new field has its flag, its help and its aliases at once. Everything is passed on as text: what a value means and
whether it is right, `config/server.py` decides for all three sources alike. tritonserver's flags are understood.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tensorquay.commands import tritonserver
from tensorquay.config.server import ServerConfig
from tensorquay.config.server_sources import flag_of, is_list, load

_NAMES = {name: (name, *flag_of(name).aliases) for name in ServerConfig.model_fields}

_METAVARS: dict[Any, str] = {bool: "true|false", int: "N", float: "SECONDS"}


def _dashed(name: str) -> str:
    return name.replace("_", "-")


_BOOLEANS = frozenset(
    _dashed(spelling)
    for name, spellings in _NAMES.items()
    if ServerConfig.model_fields[name].annotation is bool
    for spelling in spellings
)


class SettingsCommand(click.Command):
    """Understands tritonserver's flags, and shows the options by group."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            translated = tritonserver.translate(args, _BOOLEANS)
        except tritonserver.Refused as exc:
            raise click.UsageError(str(exc), ctx) from exc
        ctx.meta["notes"] = translated.notes
        return super().parse_args(ctx, translated.arguments)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                known = parameter.name in ServerConfig.model_fields
                group = flag_of(str(parameter.name)).group if known else "Options"
                groups.setdefault(group, []).append(record)
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def option(name: str, *, hidden: bool = False) -> click.Option:
    """The option of field `name`; a hidden one is taken and not shown."""
    field, flag = ServerConfig.model_fields[name], flag_of(name)
    default = ServerConfig.model_construct().shown(name)
    kind = field.annotation
    choices = "|".join(str(member.value) for member in kind) if isinstance(kind, enum.EnumType) else ""
    metavar = flag.metavar or choices or _METAVARS.get(kind, "TEXT")
    shown = f" [default: {default}]" if default else ""
    return click.Option(
        [f"--{_dashed(spelling)}" for spelling in _NAMES[name]] + [name],
        metavar=metavar,
        multiple=is_list(name),
        help=f"{field.description}{shown}",
        hidden=hidden,
    )


def chosen(
    ctx: click.Context,
    repositories: Sequence[str],
    config_file: str | None,
    given: dict[str, str | tuple[str, ...] | None],
) -> ServerConfig:
    """The settings in force: file (`config_file` or TENSORQUAY_CONFIG) < environment < command line.

    Args:
        repositories: named without a flag.
        given: field name → what stands on the command line.
    Raises: InvalidServerConfig.
    """
    command_line: dict[str, Any] = {name: value for name, value in given.items() if value not in {None, ()}}
    named = command_line.get("model_repository", ())
    if repositories or named:
        command_line["model_repository"] = [*named, *repositories]
    path = config_file or os.environ.get("TENSORQUAY_CONFIG")
    return load(
        file=Path(path) if path else None,
        environment=os.environ,
        command_line=command_line,
        notes=ctx.meta["notes"],
    )
