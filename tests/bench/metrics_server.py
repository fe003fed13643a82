"""A server that records its metrics by turns: now as built, now not at all. For `metrics_cost.py` only.

    python -m tests.bench.metrics_server serve …      (with BENCH_SLICES naming the file to write)

The turns are taken on the event loop, between two requests, and each is written down: whether metrics were recorded,
how many requests were answered, how much CPU time the process took. While nothing is recorded, one addition is left:
somebody must count the requests. So what is compared is everything else that `VersionStatistics` does per request and
per run.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tensorquay.cli import main
from tensorquay.figures import Figures
from tensorquay.telemetry.statistics import VersionStatistics

SLICE_S = 0.1

_RECORDING = {
    name: getattr(VersionStatistics, name) for name in ("request_succeeded", "batch_executed", "request_failed")
}


def _only_count(stats: VersionStatistics, *_: int) -> None:
    stats._request[0] += 1


def _nothing(*_: Any, **__: Any) -> None:
    return


_NULL = {"request_succeeded": _only_count, "batch_executed": _nothing, "request_failed": _nothing}


class Turns:
    """Switches between the two and keeps the figures of each turn."""

    def __init__(self, figures: Figures, path: Path) -> None:
        self._table = figures._statistics
        self._path = path
        self._recording = True
        self._slices: list[tuple[bool, int, int]] = []
        self._begun = self._now()

    def start(self) -> None:
        """Take turns until the end."""
        asyncio.get_running_loop().call_later(SLICE_S, self._turn)

    def _now(self) -> tuple[int, int]:
        answered = sum(stats.success_count for stats in self._table.unordered())
        return answered, time.process_time_ns()

    def _turn(self) -> None:
        now = self._now()
        self._slices.append((self._recording, now[0] - self._begun[0], now[1] - self._begun[1]))
        self._recording = not self._recording
        for name, what in (_RECORDING if self._recording else _NULL).items():
            setattr(VersionStatistics, name, what)
        self._begun = self._now()
        self.start()

    def write(self) -> None:
        """The turns so far: recorded or not, requests answered, CPU nanoseconds."""
        self._path.write_text(json.dumps(self._slices))


def _install(path: Path) -> None:
    start, stop = Figures.start, Figures.stop
    turns: list[Turns] = []

    def starting(figures: Figures) -> None:
        start(figures)
        turns.append(Turns(figures, path))
        turns[0].start()

    def stopping(figures: Figures) -> None:
        stop(figures)
        turns[0].write()

    Figures.start = starting  # type: ignore[method-assign]
    Figures.stop = stopping  # type: ignore[method-assign]


if __name__ == "__main__":
    _install(Path(os.environ["BENCH_SLICES"]))
    sys.exit(main())
