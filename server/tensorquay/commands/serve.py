"""`tensorquay serve`: an option for every setting of the server, and its start."""

from __future__ import annotations

import click

from tensorquay.commands.folders import holds_nothing, refuse_model_folder, refuse_unreadable
from tensorquay.commands.memory import refuse_too_little_memory
from tensorquay.commands.output import console, table
from tensorquay.commands.setting_options import SettingsCommand, chosen, option
from tensorquay.config.server import ControlMode, InvalidServerConfig, ServerConfig


def _serve(
    repositories: tuple[str, ...], config_file: str | None, print_config: bool, **given: str | tuple[str, ...] | None
) -> None:
    ctx = click.get_current_context()
    try:
        config = chosen(ctx, repositories, config_file, given)
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
    try:
        from tensorquay.app import run  # noqa: PLC0415 - brings both front ends; only serving needs them
    except ImportError as exc:
        raise click.ClickException(
            f"a package of this installation is missing or broken: {exc}. 'tensorquay doctor' says what to do"
        ) from exc

    ctx.exit(run(config))


def _never_serves(config: ServerConfig) -> bool:
    """Whether what is not in the repository now is never looked for again, and nobody said that this is all right."""
    return config.exit_on_error and config.model_control_mode is ControlMode.NONE


def _show(config: ServerConfig) -> None:
    rows = [[name, config.shown(name), config.origin(name)] for name in ServerConfig.model_fields]
    console().print(table("setting", "value", "origin", rows=rows))
    for note in config.notes:
        click.echo(f"note: {note}")


serve = SettingsCommand(
    "serve",
    callback=_serve,
    params=[
        click.Argument(["repositories"], nargs=-1, metavar="[REPOSITORY]..."),
        click.Option(
            ["--config", "config_file"],
            metavar="FILE",
            help="Settings in TOML: a key for each option below, with underscores.",
        ),
        click.Option(["--print-config"], is_flag=True, help="Show every setting with its origin and exit."),
        *(option(name) for name in ServerConfig.model_fields),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    short_help="Serve the models of a repository.",
    epilog="Exit codes: 0 everything accepted was answered; 1 the start failed, or time ran out before that; 2 wrong "
    "settings; 130, 143 ended on the spot by a second Ctrl-C or SIGTERM.",
    help="Serve the models of a repository over HTTP and gRPC until told to stop (SIGTERM or Ctrl-C).\n\n"
    "Every option can also stand in a TOML file (--config) and in the environment (TENSORQUAY_HTTP_PORT=8000). "
    "tritonserver's spellings are understood.",
)
