"""`tensorquay top`: the live figures of a running server in a terminal, or as text for everything else.

Reads `/v2/live` only. At a terminal it draws over the whole screen until told to stop; into a pipe, and for a counted
number of looks, it writes a block of text, or a line of JSON, for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import click
from rich.console import Console
from rich.live import Live

from tensorquay.commands.server_options import Server, address_of, server_options
from tensorquay.commands.tls_options import Reaching
from tensorquay.commands.top_state import State
from tensorquay.commands.top_stream import PATH, Lost, events
from tensorquay.commands.top_view import SORTS, Look, block, frame

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0
_PIPE_WIDTH = 200
_PAGE = 10
_STOPPING = (signal.SIGINT, signal.SIGTERM)


@click.command(
    short_help="Watch a running server.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--once", is_flag=True, help="Print what is known now, and exit.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Print that many times, and exit.")
@server_options
def top(
    once: bool,
    count: int | None,
    url: str | None,
    timeout_s: float | None,
    headers: Mapping[str, str],
    as_json: bool,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    insecure: bool,
) -> None:
    """Watch a running server: requests, failures, times, queues and load, of all of it and of every version.

    At a terminal q ends it, left and right choose the order, up and down scroll. Otherwise (also where TERM is dumb),
    and with --once or --count, it prints a block of text per second; with --json a line of JSON. Times are estimates
    from histograms.
    """
    server = Server(address_of(url), timeout_s, headers, as_json, None, Reaching(ca, cert, key, insecure))
    wanted = 1 if once else count
    state = State(server.url)
    if as_json:
        out: Out = _Lines()
    elif wanted is None and sys.stdout.isatty() and not Console().is_dumb_terminal:
        out = _Screen(state)
    else:
        out = _Blocks()
    asyncio.run(_until_stopped(server, state, out, wanted))


class Out(Protocol):
    """Where figures go."""

    def open(self, stop: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """While this lasts there is something to show; the user may want to `stop`."""
        ...

    def show(self, state: State) -> None:
        """There are new figures."""
        ...

    def changed(self, state: State) -> None:
        """Something else is new: the models, or that there is no connection."""
        ...


class _Plain:
    """What does not own the screen: troubles go to standard error, once."""

    def __init__(self) -> None:
        self._told = ""

    @contextlib.contextmanager
    def open(self, stop: Callable[[], None]) -> Iterator[None]:  # noqa: ARG002  nobody can ask for it here
        yield

    def changed(self, state: State) -> None:
        if state.trouble and not self._told:
            click.echo(f"no connection to {state.url}: {state.trouble}; trying again", err=True)
        elif self._told and not state.trouble:
            click.echo(f"connected to {state.url} again", err=True)
        self._told = state.trouble


class _Lines(_Plain):
    """The server's own words."""

    def show(self, state: State) -> None:
        click.echo(json.dumps(state.figures, ensure_ascii=False))


class _Blocks(_Plain):
    def __init__(self) -> None:
        super().__init__()
        at_terminal = sys.stdout.isatty()
        self._console = Console(
            highlight=False, markup=False, emoji=False, soft_wrap=True, no_color=None if at_terminal else True
        )
        self._width = self._console.width if at_terminal else _PIPE_WIDTH

    def show(self, state: State) -> None:
        self._console.print(block(state, self._width, unicode=_can_bars(self._console)))


class _Screen:
    """The whole terminal, and its keys."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._look = Look(unicode=_can_bars(self._console))
        self._live = Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False)
        self._stop: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def open(self, stop: Callable[[], None]) -> Iterator[None]:
        self._stop = stop
        loop = asyncio.get_running_loop()
        with self._live, _keys(self._pressed):
            loop.add_signal_handler(signal.SIGWINCH, self._draw)
            try:
                yield
            finally:
                loop.remove_signal_handler(signal.SIGWINCH)

    def show(self, state: State) -> None:  # noqa: ARG002  it has it
        self._draw()

    def changed(self, state: State) -> None:  # noqa: ARG002  it has it
        self._draw()

    def _draw(self) -> None:
        width, height = self._console.size
        self._look = replace(self._look, width=width, height=height)
        self._live.update(frame(self._state, self._look), refresh=True)

    def _pressed(self, keys: bytes) -> None:
        look = self._look
        for key in _split(keys):
            match key:
                case b"q" | b"Q" | b"\x03" | b"":
                    self._stop()
                    return
                case b"\x1b[C" | b"\x1bOC" | b"s":
                    look = replace(look, sort=(look.sort + 1) % len(SORTS))
                case b"\x1b[D" | b"\x1bOD":
                    look = replace(look, sort=(look.sort - 1) % len(SORTS))
                case b"\x1b[A" | b"\x1bOA" | b"k":
                    look = replace(look, first=look.first - 1)
                case b"\x1b[B" | b"\x1bOB" | b"j":
                    look = replace(look, first=look.first + 1)
                case b"\x1b[5~":
                    look = replace(look, first=look.first - _PAGE)
                case b"\x1b[6~":
                    look = replace(look, first=look.first + _PAGE)
                case _:
                    continue
        most = max(len(self._state.lines()) - 1, 0)
        self._look = replace(look, first=min(max(look.first, 0), most))
        self._draw()


async def _until_stopped(server: Server, state: State, out: Out, wanted: int | None) -> None:
    """Follow `server` until `wanted` figures were shown, or the user has enough.

    Raises: ClickException.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in _STOPPING:
        loop.add_signal_handler(number, stopping.set)
    try:
        with out.open(stopping.set):
            following = asyncio.ensure_future(_follow(server, state, out, wanted))
            stopped = asyncio.ensure_future(stopping.wait())
            await asyncio.wait((following, stopped), return_when=asyncio.FIRST_COMPLETED)
            for task in (following, stopped):
                task.cancel()
            ended, _ = await asyncio.gather(following, stopped, return_exceptions=True)
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)
    # Only now: the screen is the user's again.
    if isinstance(ended, BaseException) and not isinstance(ended, asyncio.CancelledError):
        raise ended


async def _follow(server: Server, state: State, out: Out, wanted: int | None) -> None:
    """Raises: ClickException when there is no server at first, or it will never tell us more."""
    shown, was_there, pause_s = 0, False, _FIRST_PAUSE_S
    while True:
        try:
            async for event in events(server):
                news = _taken(state, event.name, event.data, server)
                if event.name == "bye":
                    raise Lost("the server is stopping")
                was_there, pause_s = True, _FIRST_PAUSE_S
                if state.trouble:
                    state.trouble = ""
                    out.changed(state)
                # What is past is worth a line only if nothing else was shown.
                if news and (event.name == "figures" or not shown):
                    out.show(state)
                    shown += 1
                    if shown == wanted:
                        return
                elif event.name == "models":
                    out.changed(state)
        except Lost as lost:
            if not was_there:
                raise click.ClickException(f"no answer from {server.url}: {lost}") from lost
            if not state.trouble:
                state.trouble = str(lost)
                out.changed(state)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _taken(state: State, name: str, data: Any, server: Server) -> bool:
    try:
        return state.take(name, data)
    except (TypeError, KeyError, AttributeError, ValueError) as exc:
        raise click.ClickException(
            f"{server.url}{PATH} does not tell live figures as a Tensorquay server does"
        ) from exc


def _can_bars(console: Console) -> bool:
    return console.encoding.lower().replace("-", "").startswith("utf8")


@contextlib.contextmanager
def _keys(pressed: Callable[[bytes], None]) -> Iterator[None]:
    """Hand on every key at once while this lasts, if there is a keyboard."""
    if not sys.stdin.isatty():
        yield
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    # Not raw: Ctrl-C stays a signal.
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, lambda: pressed(_read(descriptor)))
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 256)
    except OSError:
        return b""  # the terminal is gone


def _split(data: bytes) -> Iterator[bytes]:
    """The keys in what a terminal sent; nothing at all is the end of the input."""
    if not data:
        yield b""
    at = 0
    while at < len(data):
        end = at + 1
        if data[at : at + 1] == b"\x1b" and data[at + 1 : at + 2] in {b"[", b"O"}:
            end = at + 2
            while end < len(data) and not data[end : end + 1].isalpha() and data[end : end + 1] != b"~":
                end += 1
            end += 1
        yield data[at:end]
        at = end
