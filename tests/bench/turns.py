"""A server that does something by turns, now as built and now not at all, and writes down what each turn took.

Two processes of one program differ by some percent, so what a feature costs is measured within one. The turns are taken
on the event loop, between two requests; of each is written: whether it was on, how many requests were answered, how
much CPU time the process took. For `metrics_server.py` and `trace_server.py` only.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from tensorquay.cli import main
from tensorquay.figures import Figures

SLICES = "BENCH_SLICES"
"""The variable that names the file to write."""


class Turns:
    """See the module; a subclass says what is on or off.

    Args:
        figures: of the server. slice_s: how long each turn counts.
        settling_s: how long before that it does not; 0: turns count as soon as they begin.
    """

    def __init__(self, figures: Figures, slice_s: float, settling_s: float = 0.0) -> None:
        self._table = figures._statistics
        self._slice_s = slice_s
        self._settling_s = settling_s
        self._on = True
        self._slices: list[tuple[bool, int, int]] = []
        self._begun = (0, 0)
        if settling_s:
            self._in(settling_s, self._begin)
        else:
            self._begin()

    def switch(self, *, on: bool) -> None:
        """A turn ends, the next one begins."""
        raise NotImplementedError

    def late_ns(self) -> int:
        """CPU time that belongs to the last turn and was spent since; asked once, when the next one begins to count."""
        return 0

    def counts(self, *, on: bool) -> None:
        """A turn begins to count."""

    def write(self, path: Path) -> None:
        """The turns so far."""
        path.write_text(json.dumps(self._slices))

    @staticmethod
    def _in(delay_s: float, what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, what)

    def _now(self) -> tuple[int, int]:
        answered = sum(stats.success_count for stats in self._table.unordered())
        return answered, time.process_time_ns()

    def _begin(self) -> None:
        if self._slices:
            on, answered, cpu_ns = self._slices[-1]
            self._slices[-1] = (on, answered, cpu_ns + self.late_ns())
        self.counts(on=self._on)
        self._begun = self._now()
        self._in(self._slice_s, self._turn)

    def _turn(self) -> None:
        now = self._now()
        self._slices.append((self._on, now[0] - self._begun[0], now[1] - self._begun[1]))
        self._on = not self._on
        self.switch(on=self._on)
        if self._settling_s:
            self._in(self._settling_s, self._begin)
        else:
            self._begin()


def serve(begin: Callable[[Figures], Turns]) -> int:
    """The command line's server, with turns from its start to its end. Returns: its exit code."""
    start, stop = Figures.start, Figures.stop
    turns: list[Turns] = []

    def starting(figures: Figures) -> None:
        start(figures)
        turns.append(begin(figures))

    def stopping(figures: Figures) -> None:
        stop(figures)
        turns[0].write(Path(os.environ[SLICES]))

    Figures.start = starting  # type: ignore[method-assign]
    Figures.stop = stopping  # type: ignore[method-assign]
    return main()
