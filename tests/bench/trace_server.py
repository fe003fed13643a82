"""A server that traces by turns: now as told, now not at all. For `trace_cost.py` only.

    python -m tests.bench.trace_server serve …      (with BENCH_SLICES naming the file to write)

As `metrics_server.py`. Spans are sent some time after their requests, so turns are long, and the first part of each,
in which what the turn before left is still sent, does not count. While nothing is traced one Python call is left per
request.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tensorquay.batching import batcher
from tensorquay.cli import main
from tensorquay.figures import Figures
from tensorquay.grpc_api.native_calls import TracedModelInfer
from tensorquay.transport.traced_route import TracedRoute

SETTLING_S = 0.5
SLICE_S = 1.5

_ON = {TracedRoute: TracedRoute.start, TracedModelInfer: TracedModelInfer.start}
_OFF: dict[Any, Any] = {
    TracedRoute: lambda route, body, arrival_ns, answer: route._start(body, arrival_ns, answer),
    TracedModelInfer: lambda infer, call, message: infer._plain(call, message),
}
_TRACE_RUNS = batcher.trace_runs


def _no_traces(*_: object) -> None:
    return


class Turns:
    """Switches between the two and keeps the figures of each turn."""

    def __init__(self, figures: Figures, path: Path) -> None:
        self._table = figures._statistics
        self._path = path
        self._tracing = True
        self._slices: list[tuple[bool, int, int]] = []
        self._begun = (0, 0)
        asyncio.get_running_loop().call_later(SETTLING_S, self._begin)

    def _now(self) -> tuple[int, int]:
        answered = sum(stats.success_count for stats in self._table.unordered())
        return answered, time.process_time_ns()

    def _begin(self) -> None:
        self._begun = self._now()
        asyncio.get_running_loop().call_later(SLICE_S, self._turn)

    def _turn(self) -> None:
        now = self._now()
        self._slices.append((self._tracing, now[0] - self._begun[0], now[1] - self._begun[1]))
        self._tracing = not self._tracing
        for where, start in (_ON if self._tracing else _OFF).items():
            where.start = start  # type: ignore[attr-defined]
        batcher.trace_runs = _TRACE_RUNS if self._tracing else _no_traces
        asyncio.get_running_loop().call_later(SETTLING_S, self._begin)

    def write(self) -> None:
        """The turns so far: traced or not, requests answered, CPU nanoseconds."""
        self._path.write_text(json.dumps(self._slices))


def _install(path: Path) -> None:
    start, stop = Figures.start, Figures.stop
    turns: list[Turns] = []

    def starting(figures: Figures) -> None:
        start(figures)
        turns.append(Turns(figures, path))

    def stopping(figures: Figures) -> None:
        stop(figures)
        turns[0].write()

    Figures.start = starting  # type: ignore[method-assign]
    Figures.stop = stopping  # type: ignore[method-assign]


if __name__ == "__main__":
    _install(Path(os.environ["BENCH_SLICES"]))
    sys.exit(main())
