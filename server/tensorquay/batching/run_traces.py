"""What a batch run adds to the traces of its riders, and the trace of the run itself. Only while spans are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tensorquay.batching.rider import Outcome, Rider
from tensorquay.core.clock import Clock
from tensorquay.core.packed import Ride
from tensorquay.core.request_trace import MAX_LINKS, BatchTrace, RequestTrace, Run, RunTimes


class MakesIds(Protocol):
    """Whoever records spans."""

    def ids(self) -> tuple[bytes, bytes]:
        """A new trace's id and a new span's."""


def trace_starts(riders: Sequence[Rider], clock: Clock) -> None:
    """A run of `riders` begins: whoever of the sampled is answered before its end was running, not waiting."""
    for rider in riders:
        if type(rider.trace) is RequestTrace:
            rider.trace.running_ns = clock.now_ns()


def trace_runs(recorder: MakesIds, riders: Sequence[Rider], outcomes: Sequence[Outcome]) -> None:
    """Before they settle: tell the sampled of `riders` what they rode in."""
    # This is done for every run, and most have no sampled rider.
    for rider in riders:
        if rider.trace is not None:
            break
    else:
        return
    batches: dict[int, BatchTrace] = {}
    untold: set[int] = set()
    for rider, outcome in zip(riders, outcomes, strict=True):
        trace = rider.trace
        if type(trace) is not RequestTrace or type(outcome) is not Ride or rider.done:
            continue
        run = outcome.run
        batch = batches.get(id(run))
        if batch is None:
            # A run is of all riders or, after a failure, of one.
            company = 1 if run.rows == rider.rows else len(riders)
            times = RunTimes(rider.enqueued_ns + outcome.queue_ns, run.input_ns, run.infer_ns, run.output_ns)
            batch = BatchTrace(*recorder.ids(), trace, times, rows=run.rows, riders=company)
            batches[id(run)] = batch
            untold.add(id(run))
        if id(run) in untold and trace.leads(batch):
            untold.discard(id(run))
        trace.rode(Run(rider.enqueued_ns, batch.times, rider.rows, run.rows, batch.trace_id, batch.span_id))
        if len(batch.links) < MAX_LINKS:
            batch.links.append((trace.trace_id, trace.span_id))
