"""One sampled request and one batch run, as plain values: what spans are made of, elsewhere and later.

Filled in on the event loop, where nothing may be dear; `telemetry/otlp_encode.py` makes spans of them in the end. They
hold names, numbers and times, and never anything of a tensor.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tensorquay.core.trace_context import render

MAX_RUNS = 32
"""Runs that are kept of one request; one with more rows than a batch has several."""

MAX_LINKS = 128
"""Riders a batch is linked to."""

MAX_NAME = 256
"""Characters of names and ids that clients choose."""


class Entrance(enum.IntEnum):
    """How a request came."""

    HTTP = 0
    GRPC = 1
    GRPC_STREAM = 2


class RunTimes(NamedTuple):
    """When a run began, on the server's monotonic clock, and how long its parts took. All in nanoseconds."""

    start_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int


class Run(NamedTuple):
    """One run that a request rode in, and the batch's span."""

    queued_ns: int
    times: RunTimes
    rows: int
    batch_rows: int
    batch_trace_id: bytes
    batch_span_id: bytes


class RequestTrace:
    """A sampled request. Loop-confined until it has ended; owner: the door it came through.

    Args:
        ended: takes it when it has ended.
        parent_id: the caller's span, empty without one. state: the caller's tracestate.
    Attributes:
        version: the one that serves it; "" when none does. version_asked: the one it names, "" for none.
        queued_ns: when it was accepted, 0 if it never was.
        running_ns: when the last run with it began that it has not been told the end of, 0 if none did.
        error: the kind of its failure in lower case, "" for success.
        status: of the HTTP answer; 0 for gRPC.
        call: its number between a front end and the owner, -1 for none.
        batches: the runs it tells about: of each run, the first of its sampled riders does.
    """

    __slots__ = (
        "_ended",
        "arrival_ns",
        "batches",
        "call",
        "ended_ns",
        "entrance",
        "error",
        "model",
        "parent_id",
        "provider",
        "queued_ns",
        "request_id",
        "rows",
        "running_ns",
        "runs",
        "span_id",
        "state",
        "status",
        "trace_id",
        "version",
        "version_asked",
    )

    def __init__(
        self,
        ended: Callable[[RequestTrace], None],
        entrance: Entrance,
        arrival_ns: int,
        trace_id: bytes,
        span_id: bytes,
        parent_id: bytes = b"",
        state: str = "",
    ) -> None:
        self._ended: Callable[[RequestTrace], None] | None = ended
        self.entrance = entrance
        self.arrival_ns = arrival_ns
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.state = state
        self.model = self.version = self.version_asked = self.request_id = self.provider = self.error = ""
        self.rows = self.queued_ns = self.running_ns = self.ended_ns = self.status = 0
        self.call = -1
        self.runs: list[Run] = []
        self.batches: Sequence[BatchTrace] = ()

    @property
    def traceparent(self) -> bytes:
        """What tells others about its span."""
        return render(self.trace_id, self.span_id)

    def asks(self, model: str, version: str, request_id: str = "") -> None:
        """What it says itself."""
        self.model = model[:MAX_NAME]
        self.version_asked = version[:MAX_NAME]
        self.request_id = request_id[:MAX_NAME]

    def accepted(self, version: str, provider: str, rows: int) -> None:
        """It is about to wait for a batch of `version`, which runs on `provider`."""
        self.version = version
        self.provider = provider
        self.rows = rows

    def waited(self, since_ns: int) -> None:
        """It waits no more."""
        self.queued_ns = since_ns

    def rode(self, run: Run) -> None:
        """It was in a run, which has ended."""
        self.running_ns = 0
        if len(self.runs) < MAX_RUNS:
            self.runs.append(run)

    def leads(self, batch: BatchTrace) -> bool:
        """It tells about a run, which has ended. Returns: whether it could, as it tells about so many only."""
        if len(self.batches) >= MAX_RUNS:
            return False
        self.batches = (*self.batches, batch)
        return True

    def end(self, now_ns: int, *, error: str = "", status: int = 0) -> None:
        """It is answered; later ends do not count."""
        ended, self._ended = self._ended, None
        if ended is not None:
            self.ended_ns = now_ns
            self.error = error
            self.status = status
            ended(self)


class BatchTrace:
    """A run with at least one sampled rider, in a trace of its own.

    Attributes:
        riders: how many rode. links: (trace, span) of the sampled ones.
    """

    __slots__ = ("links", "model", "provider", "riders", "rows", "span_id", "times", "trace_id", "version")

    def __init__(
        self, trace_id: bytes, span_id: bytes, rider: RequestTrace, times: RunTimes, *, rows: int, riders: int
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.model = rider.model
        self.version = rider.version
        self.provider = rider.provider
        self.times = times
        self.rows = rows
        self.riders = riders
        self.links: list[tuple[bytes, bytes]] = []
