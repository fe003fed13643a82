"""The command `tensorquay`: finds the asked-for subcommand and tells what went wrong in one sentence.

Imports nothing but click until a subcommand is really asked for, so that `--help` and completion answer at once.
Further commands come from the entry-point group "tensorquay.commands" (a click command each); a broken one is told in
one sentence and never stops the others. Exit codes: 0 done, 1 failed, 2 used wrongly.
"""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from tensorquay import __version__

PLUGIN_GROUP = "tensorquay.commands"

_BUILT_IN = {
    "serve": ("tensorquay.commands.serve:serve", "Serve the models of a repository."),
    "check": ("tensorquay.commands.check:check", "Check a repository without serving it."),
    "models": ("tensorquay.commands.models:models", "Show, load and unload the models of a running server."),
    "top": ("tensorquay.commands.top:top", "Watch a running server."),
    "version": ("tensorquay.commands.version:version", "Show versions."),
    "health": ("tensorquay.commands.health:health", "Ask a running server whether it is ready."),
    "doctor": ("tensorquay.commands.doctor.command:doctor", "Say what keeps the server from working."),
}


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=PLUGIN_GROUP) if point.name not in _BUILT_IN}


class _Commands(click.Group):
    """Subcommands, imported when used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*_BUILT_IN, *sorted(_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name in _BUILT_IN:
            module, _, name = _BUILT_IN[cmd_name][0].partition(":")
            try:
                found = getattr(import_module(module), name)
            except ImportError as exc:
                doctor = "" if cmd_name == "doctor" else "; 'tensorquay doctor' says which"
                raise click.ClickException(
                    f"'{cmd_name}' cannot be loaded, a package of this installation is missing or broken: {exc}. "
                    f"pip install --force-reinstall 'tensorquay[cpu]' repairs all{doctor}"
                ) from exc
            assert isinstance(found, click.Command)
            return found
        point = _plugins().get(cmd_name)
        return None if point is None else _load_plugin(point)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known)}"
            ctx.fail(f"no such command '{name[:60]}', {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        rows = [(name, help_text) for name, (_, help_text) in _BUILT_IN.items()]
        for name, point in sorted(_plugins().items()):
            try:
                rows.append((name, _load_plugin(point).get_short_help_str(limit=70)))
            except click.ClickException:
                rows.append((name, "(cannot be loaded; run it to see why)"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _load_plugin(point: EntryPoint) -> click.Command:
    try:
        found = point.load()
    except Exception as exc:  # a stranger's code at import: whatever it raises is one sentence here
        raise click.ClickException(
            f"the command '{point.name}' ({point.value}) cannot be loaded: {type(exc).__name__}: {exc}"
        ) from exc
    if not isinstance(found, click.Command):
        raise click.ClickException(f"the command '{point.name}' ({point.value}) is no click command")
    return found


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"tensorquay {__version__}")
        ctx.exit(0)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 used wrongly.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Serve ONNX models over HTTP and gRPC, for Triton's clients and model repositories."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def _sentence(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        close = difflib.get_close_matches(error.option_name, error.possibilities or (), n=1)
        return f"no such option '{error.option_name[:60]}'" + (f", did you mean '{close[0]}'?" if close else "")
    return error.format_message().rstrip(".")


def _heed_sigterm_as_first_process() -> None:
    """Let SIGTERM end a container that has only begun: nothing is lost yet, so at once.

    The kernel keeps a signal from the first process of a container unless that asks for it. The server asks later, when
    everything is imported; until then `docker stop` would wait out its whole patience.
    Source: pid_namespaces(7), "The namespace init process".
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))


def _take_standard_streams() -> None:
    """Put the null device where standard input, output or error was closed by whoever started us.

    Otherwise the next file or socket gets that number: libraries print into it, and the event loop aborts the process
    when it closes it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing; children are to have it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115  for the life of the process


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _take_standard_streams()
    _heed_sigterm_as_first_process()
    try:
        outcome: Any = cli.main(
            args=None if arguments is None else list(arguments), prog_name="tensorquay", standalone_mode=False
        )
    except click.UsageError as exc:
        path = exc.ctx.command_path if exc.ctx is not None else "tensorquay"
        click.echo(f"{path}: {_sentence(exc)} (see '{path} --help')", err=True)
        return exc.exit_code
    except click.ClickException as exc:
        click.echo(f"tensorquay: {exc.format_message()}", err=True)
        return exc.exit_code
    except click.Abort:
        click.echo("tensorquay: stopped", err=True)
        return 1
    except BrokenPipeError:
        # Whoever read our output left (`| head`); writing again at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return outcome if isinstance(outcome, int) else 0
