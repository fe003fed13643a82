"""Starts the front-end processes, watches them, replaces those that end, and stops them in order.

A front end that ends by itself takes its own connections with it and nothing else: what it had under way is cancelled,
its memory given back, and another process starts in its place, after a pause that doubles while they keep ending. One
that hangs is ended, because the kernel goes on to give it new connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tensorquay.core.clock import Clock
from tensorquay.core.errors import ServingError
from tensorquay.frontends.arena import ARENA_BYTES, Arena, make_memory
from tensorquay.frontends.control_stream import ControlListener, make_channel
from tensorquay.frontends.link import Link
from tensorquay.frontends.owner import Owned, OwnerEnd
from tensorquay.frontends.process import FrontEndProcess, in_words
from tensorquay.frontends.settings import FrontEndSettings
from tensorquay.transport.asgi_exchange import AsgiApp

_log = logging.getLogger("tensorquay.frontends")

_START_TIMEOUT_S = 60.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_STEADY_NS = 60 * 10**9
"""A front end that lived so long was well: the next pause is the first one again."""

_LATE_S = 2.0
"""How much longer than its grace a front end may take to end before it is killed."""


class FrontEndFailed(ServingError):
    """A front-end process did not start."""


class _FrontEnd:
    """One process that is alive, and what it has of this one."""

    def __init__(self, process: FrontEndProcess, end: OwnerEnd, link: Link, control: ControlListener) -> None:
        self.process = process
        self.end = end
        self._link = link
        self._control = control

    async def ended(self) -> int:
        """Wait for its end, and let go of everything. Returns the exit status, negative for a signal."""
        code = await asyncio.shield(self.process.ended)
        self._link.abort()
        await self._control.stop()
        return code


class FrontEnds:
    """See the module. Loop-confined; owner: the composition root.

    Args:
        count: how many processes.
        template: what they are told; descriptors and log levels are filled in for each.
        app: serves HTTP requests that are not hot.
        silence_s: how long one may not answer before it is taken to hang; 0: for ever.
    """

    def __init__(
        self, count: int, template: FrontEndSettings, owned: Owned, app: AsgiApp, *, silence_s: float, clock: Clock
    ) -> None:
        self._count = count
        self._silence_s = silence_s
        self._template = template
        self._owned = owned
        self._app = app
        self._clock = clock
        self._live: dict[int, _FrontEnd] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._draining = False
        self.restarts = 0
        """Processes started in the place of one that ended."""

    @property
    def alive(self) -> int:
        """How many accept connections."""
        return len(self._live)

    @property
    def pids(self) -> tuple[int, ...]:
        """Their process ids."""
        return tuple(front.process.pid for front in self._live.values())

    async def start(self) -> None:
        """Start all; returns when they accept connections.

        Raises: FrontEndFailed, with whatever did start still to be stopped.
        """
        loop = asyncio.get_running_loop()
        ready = [loop.create_future() for _ in range(self._count)]
        self._keepers = [
            loop.create_task(self._keep(number, future), name=f"front-end-{number}")
            for number, future in enumerate(ready)
        ]
        outcomes = await asyncio.gather(*ready, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    def drain(self) -> None:
        """The server is stopping: connections of front ends close with their next answer."""
        self._draining = True
        for front in self._live.values():
            front.end.drain()

    async def stop(self, grace_s: float) -> None:
        """Let all stop accepting and finish what they have within `grace_s`; kill those that do not end."""
        self._stopping.set()
        for front in self._live.values():
            front.end.stop(grace_s)
        if not self._keepers:
            return
        _, late = await asyncio.wait(self._keepers, timeout=grace_s + _LATE_S)
        if late:
            _log.warning("%d front ends did not end in time and are killed", len(late), extra={"event": "killed"})
            for front in list(self._live.values()):
                front.process.kill()
            for keeper in late:
                keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    # -- one place among them

    async def _keep(self, number: int, first: asyncio.Future[None]) -> None:
        """Have one process in place `number` until told to stop. `first` tells how the first start went."""
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            begun_ns = self._clock.now_ns()
            why = await self._live_once(number, first)
            if self._stopping.is_set():
                return
            if not first.done():
                first.set_exception(FrontEndFailed(f"front end {number} did not start: it {why}"))
                return
            if self._clock.now_ns() - begun_ns > _STEADY_NS:
                pause_s = _FIRST_PAUSE_S
            _log.error(
                "front end %d %s; another one starts in %.1f s",
                number,
                why,
                pause_s,
                extra={"event": "front_end_ended", "front_end": number},
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self.restarts += 1

    async def _live_once(self, number: int, first: asyncio.Future[None]) -> str:
        """One process from start to end. Returns: how it ended, in words."""
        ready = asyncio.Event()
        try:
            front = await self._spawn(ready.set)
        except OSError as error:
            return f"could not be started ({error.strerror or error})"
        ending = asyncio.ensure_future(front.ended())
        try:
            waiting = asyncio.ensure_future(ready.wait())
            await asyncio.wait({ending, waiting}, timeout=_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not ready.is_set() and not ending.done():
                front.process.kill()
                await ending
                return f"was not ready after {_START_TIMEOUT_S:.0f} s"
            if ready.is_set():
                self._live[number] = front
                _log.info("front end %d is ready", number, extra={"event": "front_end_ready", "front_end": number})
                if not first.done():
                    first.set_result(None)
                if self._draining:
                    front.end.drain()
                if self._stopping.is_set():
                    front.end.stop(0)
                if self._silence_s and await self._hangs(front, ending):
                    front.process.kill()
                    await ending
                    return f"did not answer for {self._silence_s:g} s and was killed"
            return in_words(await asyncio.shield(ending))
        except asyncio.CancelledError:
            # Only `stop` cancels, when time is up. No process may be left behind.
            front.process.kill()
            await ending
            raise
        finally:
            self._live.pop(number, None)

    async def _hangs(self, front: _FrontEnd, ending: asyncio.Future[Any]) -> bool:
        """Wait until `front` has ended, or answers no more. Returns: whether it still runs."""
        silent: asyncio.Future[None] = asyncio.ensure_future(front.end.silent(self._silence_s))
        try:
            await asyncio.wait([ending, silent], return_when=asyncio.FIRST_COMPLETED)
        finally:
            silent.cancel()
        return not ending.done()

    async def _spawn(self, ready: Callable[[], None]) -> _FrontEnd:
        """Start a process and the link to it.

        Raises: OSError.
        """
        with contextlib.ExitStack() as theirs:
            ours, link_end = socket.socketpair()
            theirs.enter_context(link_end)
            channel, channel_end = make_channel()
            theirs.enter_context(channel_end)
            memories = []
            for name in ("requests", "answers"):
                memories.append(make_memory(f"tensorquay-{name}", ARENA_BYTES))
                theirs.callback(os.close, memories[-1])
            requests, answers = memories
            end = OwnerEnd(self._owned, ready=ready)
            make = partial(
                Link, end.handlers(), end.lost, arena=Arena(answers, ARENA_BYTES), descriptor=requests,
                arena_bytes=ARENA_BYTES,
            )  # fmt: skip
            link = await Link.over(ours, make)
            end.attach(link)
            control = ControlListener(self._app, channel)
            settings = replace(
                self._template,
                link=link_end.fileno(),
                channel=channel_end.fileno(),
                requests=requests,
                answers=answers,
                arena_bytes=ARENA_BYTES,
                log_level=logging.getLogger("tensorquay").level,
                library_level=logging.getLogger().level,
            )
            inherited = (link_end.fileno(), channel_end.fileno(), requests, answers)
            try:
                process = FrontEndProcess(inherited, settings.to_json())
            except OSError:
                link.abort()
                await control.stop()
                raise
        return _FrontEnd(process, end, link, control)
