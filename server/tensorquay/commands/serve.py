"""`tensorquay serve`: the options of every field of `ServerConfig`, and the start of the server.

The options are generated, so that a new field has its flag, its help and its aliases at once. Everything is passed on
as text: what a value means and whether it is right, `config/server.py` decides for all three sources alike.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Any

import click

from tensorquay.commands import tritonserver
from tensorquay.commands.folders import holds_nothing, refuse_model_folder, refuse_unreadable
from tensorquay.commands.memory import refuse_too_little_memory
from tensorquay.commands.output import console, table
from tensorquay.config.server import ControlMode, InvalidServerConfig, ServerConfig
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


class _Serve(click.Command):
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


def _option(name: str) -> click.Option:
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
    )


def _serve(
    repositories: tuple[str, ...], config_file: str | None, print_config: bool, **given: str | tuple[str, ...] | None
) -> None:
    ctx = click.get_current_context()
    command_line: dict[str, Any] = {name: value for name, value in given.items() if value not in {None, ()}}
    named = command_line.get("model_repository", ())
    if repositories or named:
        command_line["model_repository"] = [*named, *repositories]
    path = config_file or os.environ.get("TENSORQUAY_CONFIG")
    try:
        config = load(
            file=Path(path) if path else None,
            environment=os.environ,
            command_line=command_line,
            notes=ctx.meta["notes"],
        )
    except InvalidServerConfig as exc:
        for problem in exc.problems:
            click.echo(f"{ctx.command_path}: {problem}", err=True)
        ctx.exit(2)
    if print_config:
        _show(config)
        return
    if not config.model_repository:
        raise click.UsageError(
            "which models? Name a repository: 'tensorquay serve model_repo' or --model-repository=DIR", ctx
        )
    refuse_too_little_memory()
    for repository in config.model_repository:
        refuse_unreadable(repository)
        refuse_model_folder(repository)
    empty = [sentence for sentence in map(holds_nothing, config.model_repository) if sentence is not None]
    if _never_serves(config) and len(empty) == len(config.model_repository):
        raise click.ClickException(
            f"{'; '.join(empty)}. --model-control-mode=poll waits for models, --exit-on-error=false serves none"
        )
    for sentence in empty:
        click.echo(f"{ctx.command_path}: warning: {sentence}", err=True)
    for note in config.notes:
        click.echo(f"{ctx.command_path}: note: {note}", err=True)
    from tensorquay.app import run  # noqa: PLC0415 - brings ONNX Runtime and both front ends; only serving needs them

    ctx.exit(run(config))


def _never_serves(config: ServerConfig) -> bool:
    """Whether what is not in the repository now is never looked for again, and nobody said that this is all right."""
    return config.exit_on_error and config.model_control_mode is ControlMode.NONE


def _show(config: ServerConfig) -> None:
    rows = [[name, config.shown(name), config.origin(name)] for name in ServerConfig.model_fields]
    console().print(table("setting", "value", "origin", rows=rows))
    for note in config.notes:
        click.echo(f"note: {note}")


serve = _Serve(
    "serve",
    callback=_serve,
    params=[
        click.Argument(["repositories"], nargs=-1, metavar="[REPOSITORY]..."),
        click.Option(["--config", "config_file"], metavar="FILE", help="Settings in TOML; see docs/operations.md."),
        click.Option(["--print-config"], is_flag=True, help="Show every setting with its origin and exit."),
        *(_option(name) for name in ServerConfig.model_fields),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    short_help="Serve the models of a repository.",
    help="Serve the models of a repository over HTTP and gRPC until told to stop (SIGTERM or Ctrl-C).\n\n"
    "Every option can also stand in a TOML file (--config) and in the environment (TENSORQUAY_HTTP_PORT=8000). "
    "tritonserver's spellings are understood.",
)
