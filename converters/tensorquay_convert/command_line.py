"""What the command lines share: options, signals, progress, failures in words, names made safe for a terminal."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from tensorquay_convert.errors import CommandFailed, ExitCode
from tensorquay_convert.progress import Bar, Lines, Silence
from tensorquay_convert.surroundings import own_environment

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

DEFAULT_REPOSITORY = "model_repo"
REPOSITORY_VARIABLE = "TENSORQUAY_MODEL_REPOSITORY"
PIPE_COLUMNS = 10_000
"""Nothing is wrapped where no terminal ends the lines."""

EXIT_CODES = (
    "Exit codes: "
    + ", ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in ExitCode)
    + "; 130, 143: stopped by Ctrl-C or SIGTERM, nothing published."
)
"""The end of each command's help."""

_BYTES = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>[kKmMgGtT]?)(?:i?[bB])?")
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>s|m|min|h)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600}
_SIGNAL_BASE = 128


class Stopped(BaseException):
    """A signal asks for the end; workers and stages go first."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def with_options(options: Sequence[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds `options` in their order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def read_bytes(_ctx: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """A callback: "4GiB" as bytes."""
    if text is None:
        return None
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(f"'{text}': expected a number of bytes, as in 4GiB or 800M")
    return int(float(match["number"]) * _UNITS[match["unit"].lower()])


def read_seconds(_ctx: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """A callback: "5m" as seconds."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match is not None else 0.0
    if not 0 < seconds <= 7 * 86400:
        raise click.BadParameter(f"'{text}': expected a time of up to a week, as in 90s, 5m or 2h")
    return seconds


def read_sizes(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, ...]:
    """A callback: "1,8,32" as ascending numbers, each once."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 1 << 20 for part in parts):
        raise click.BadParameter(f"'{text}': expected whole numbers from 1, as in 1,8,32")
    return tuple(sorted({int(part) for part in parts}))


MEMORY_LIMIT = click.option(
    "--memory-limit",
    metavar="BYTES",
    callback=read_bytes,
    help="Most memory of its processes together, as in 4GiB or 800M; else four fifths of what is available.",
)
REPOSITORY = click.option(
    "--repository",
    type=click.Path(path_type=Path),
    help=f"Model repository; else {REPOSITORY_VARIABLE}, else ./{DEFAULT_REPOSITORY}.",
)
OUTPUT = (
    click.option(
        "--progress",
        type=click.Choice(["auto", "plain", "json", "none"]),
        default="auto",
        show_default=True,
        help="How progress is told on standard error; auto: a bar on a terminal, lines else; json: one object a line.",
    ),
    click.option("--quiet", is_flag=True, help="Say nothing but errors."),
    click.option("--json", "as_json", is_flag=True, help="Print the result or the failure as one JSON object."),
)


def repository_of(given: Mapping[str, Any]) -> Path:
    """The repository that was asked for, or the usual one."""
    return Path(given["repository"] or own_environment().get(REPOSITORY_VARIABLE) or DEFAULT_REPOSITORY)


def carry_out(command: str, given: Mapping[str, Any], work: Callable[[Silence], Callable[[], None]]) -> int:
    """Do `work` under signals and progress, word its failure, and return the exit code.

    Args:
        command: "import": begins what is said of failures.
        given: the options of `OUTPUT`.
        work: takes the listener, raises CommandFailed, and returns how to show its result for people and programs.
    """
    as_json = given["as_json"]
    number = 0
    previous = {each: signal.signal(each, _stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        with _listener("none" if given["quiet"] else given["progress"]) as listener:
            show = work(listener)
    except CommandFailed as exc:
        _tell_failure(command, exc, as_json=as_json)
        return int(exc.code)
    except Stopped as exc:
        number = exc.number
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
    if number:
        _tell_stopped(command, number, as_json=as_json)
        return _SIGNAL_BASE + number
    show()
    return 0


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


def _listener(mode: str) -> Silence:
    if mode == "none":
        return Silence()
    if mode == "json":
        return Lines(sys.stderr, as_json=True)
    return Bar(sys.stderr) if mode == "auto" and sys.stderr.isatty() else Lines(sys.stderr)


def _tell_failure(command: str, failure: CommandFailed, *, as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    "result": "failed",
                    "code": int(failure.code),
                    "reason": failure.code.name.lower(),
                    "sentence": failure.sentence,
                    "remedy": failure.remedy,
                    "facts": failure.facts,
                },
                ensure_ascii=False,
            )
        )
        return
    click.echo(f"tensorquay {command}: {failure.sentence}", err=True)
    if failure.remedy:
        click.echo(f"  {failure.remedy}", err=True)


def _tell_stopped(command: str, number: int, *, as_json: bool) -> None:
    sentence = f"stopped by {signal.Signals(number).name}, nothing was published"
    if as_json:
        click.echo(json.dumps({"result": "stopped", "code": _SIGNAL_BASE + number, "sentence": sentence}))
    else:
        click.echo(f"tensorquay {command}: {sentence}", err=True)


def console() -> Console:
    """Where results for people go: as wide as the terminal, or unwrapped and plain into a pipe."""
    from rich.console import Console  # noqa: PLC0415 - only who reads the result needs it

    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(highlight=False, markup=False, width=width, no_color=width is not None)


def show(out: Console, print_all: Callable[[], None]) -> None:
    """Show what `print_all` prints on `out`, without the blanks that tables pad their right end with."""
    with out.capture() as shown:
        print_all()
    click.echo("\n".join(line.rstrip() for line in shown.get().rstrip("\n").split("\n")))


def facts(out: Console, **said: Sequence[str]) -> None:
    """Names with a few lines each, aligned."""
    from rich.table import Table  # noqa: PLC0415 - only who reads the result needs it

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=6, no_wrap=True)
    grid.add_column()
    for name, lines in said.items():
        for place, line in enumerate(lines):
            grid.add_row(plain(name if place == 0 else "", "bold"), plain(line))
    out.print(grid)


def plain(value: str, style: str = "") -> Text:
    """As it is, but for characters that would steer a terminal: names come from strangers' files."""
    from rich.text import Text  # noqa: PLC0415 - only who reads the result needs it

    return Text(
        "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in value), style
    )
