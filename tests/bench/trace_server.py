"""A server that traces by turns: now as told, now not at all. For `trace_cost.py` only.

    python -m tests.bench.trace_server serve …      (see `turns.py`)

Spans are sent some time after their requests: so turns are long, nothing waits when a turn begins to count, and what is
left when it ends is sent before the next one counts, but at its cost. While nothing is traced one Python call is left
per HTTP request, and nothing per gRPC call.
"""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar

from tests.bench.turns import Turns, serve

from tensorquay.batching import batcher
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
    """One that can be told to send at once what it has. There is one in a server."""

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
        assert self._thread.ident is not None
        return time.clock_gettime_ns(time.pthread_getcpuclockid(self._thread.ident))


class TraceTurns(Turns):
    """Traces, or not."""

    def __init__(self, figures: Figures) -> None:
        (self._exporter,) = _Exporter.all
        self._sent_ns = 0
        super().__init__(figures, SLICE_S, SETTLING_S)

    def switch(self, *, on: bool) -> None:
        for where, start in (_ON if on else _OFF).items():
            where.start = start  # type: ignore[attr-defined]
        batcher.trace_runs = _TRACE_RUNS if on else _no_traces
        self._sent_ns = self._exporter.cpu_ns()
        self._exporter.sends_at_once(True)

    def late_ns(self) -> int:
        # What is sent while a traced turn settles is its own.
        return 0 if self._on else self._exporter.cpu_ns() - self._sent_ns

    def counts(self, *, on: bool) -> None:
        self._exporter.sends_at_once(not on)


if __name__ == "__main__":
    otel.SpanExporter = _Exporter  # type: ignore[misc]
    sys.exit(serve(TraceTurns))
