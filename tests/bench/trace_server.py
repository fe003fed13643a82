"""A server that traces by turns: now as told, now not at all. For `trace_cost.py` only.

    python -m tests.bench.trace_server serve …      (with BENCH_SLICES naming the file to write)

As `metrics_server.py`. Spans are sent some time after their requests: so turns are long, nothing waits when a
turn begins to count, and what is left when it ends is sent before the next one counts, but at its cost. While nothing
is traced one Python call is left per HTTP request, and nothing per gRPC call.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from tensorquay.batching import batcher
from tensorquay.cli import main
from tensorquay.figures import Figures
from tensorquay.grpc_api.native_calls import ModelInfer, TracedModelInfer
from tensorquay.telemetry import otel
from tensorquay.telemetry.span_export import SpanExporter
from tensorquay.transport.traced_route import TracedRoute

SETTLING_S = 0.5
SLICE_S = 1.5

_ON = {TracedRoute: TracedRoute.start, TracedModelInfer: TracedModelInfer.start}
_OFF: dict[Any, Any] = {
    TracedRoute: lambda route, body, arrival_ns, answer: route._start(body, arrival_ns, answer),
    TracedModelInfer: ModelInfer.start,
}
_TRACE_RUNS = batcher.trace_runs


def _no_traces(*_: object) -> None:
    return


class _Exporter(SpanExporter):
    """One that can be told to send all it has now. There is one in a server."""

    all: ClassVar[list[_Exporter]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._usual_s = self._delay_s
        self.all.append(self)

    def sends_at_once(self, yes: bool) -> None:
        with self._changed:
            self._delay_s = SETTLING_S / 5 if yes else self._usual_s
            self._changed.notify()

    def cpu_ns(self) -> int:
        """CPU time of its thread."""
        if self._thread is None:
            return 0
        assert self._thread.ident is not None
        return time.clock_gettime_ns(time.pthread_getcpuclockid(self._thread.ident))


class Turns:
    """Switches between the two and keeps the figures of each turn."""

    def __init__(self, figures: Figures, path: Path) -> None:
        self._table = figures._statistics
        self._path = path
        self._tracing = True
        self._slices: list[tuple[bool, int, int]] = []
        self._begun = (0, 0)
        self._sent_ns = 0
        asyncio.get_running_loop().call_later(SETTLING_S, self._begin)

    def _now(self) -> tuple[int, int]:
        answered = sum(stats.success_count for stats in self._table.unordered())
        return answered, time.process_time_ns()

    def _begin(self) -> None:
        exporter = _Exporter.all[0]
        if self._slices and self._slices[-1][0]:
            on, answered, cpu_ns = self._slices[-1]
            self._slices[-1] = (on, answered, cpu_ns + exporter.cpu_ns() - self._sent_ns)
        exporter.sends_at_once(not self._tracing)
        self._begun = self._now()
        asyncio.get_running_loop().call_later(SLICE_S, self._turn)

    def _turn(self) -> None:
        now = self._now()
        self._sent_ns = _Exporter.all[0].cpu_ns()
        self._slices.append((self._tracing, now[0] - self._begun[0], now[1] - self._begun[1]))
        self._tracing = not self._tracing
        for where, start in (_ON if self._tracing else _OFF).items():
            where.start = start  # type: ignore[attr-defined]
        _Exporter.all[0].sends_at_once(True)
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

    otel.SpanExporter = _Exporter  # type: ignore[misc]
    Figures.start = starting  # type: ignore[method-assign]
    Figures.stop = stopping  # type: ignore[method-assign]


if __name__ == "__main__":
    _install(Path(os.environ["BENCH_SLICES"]))
    sys.exit(main())
