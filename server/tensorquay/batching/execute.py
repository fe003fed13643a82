"""Run one batch: merge, run, and when it fails, find out whose fault it was.

Called in a worker thread (or on the loop for cheap models). Takes riders as values: reads them, never settles them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorquay.backends.api import Session
from tensorquay.batching.merge import check_rows, merge
from tensorquay.batching.rider import Outcome, Rider
from tensorquay.core.clock import Clock
from tensorquay.core.datatypes import Array
from tensorquay.core.packed import BatchRun, Ride
from tensorquay.core.signature import Signature


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One outcome per rider, in order, the successful runs it took, and the rows of those that failed."""

    outcomes: list[Outcome]
    runs: list[BatchRun]
    failed_rows: int = 0


def execute(session: Session, signature: Signature, riders: Sequence[Rider], clock: Clock) -> BatchResult:
    """Run `riders` as one batch; if that fails and they are several, one by one.

    A poison request can so only fail itself. Riders that left meanwhile are not run again. Never raises for what the
    session does: every exception becomes the outcome of the riders it concerns.
    """
    try:
        return _run(session, signature, riders, clock)
    except Exception as failure:  # noqa: BLE001  a session may raise anything; it is handed on as the outcome
        if len(riders) == 1:
            return BatchResult([failure], [], riders[0].rows)
        return _one_by_one(session, signature, riders, clock, failure)


def _one_by_one(
    session: Session, signature: Signature, riders: Sequence[Rider], clock: Clock, failure: Exception
) -> BatchResult:
    outcomes: list[Outcome] = []
    runs: list[BatchRun] = []
    failed_rows = 0
    for rider in riders:
        if rider.done:
            outcomes.append(failure)
            failed_rows += rider.rows
            continue
        alone = execute(session, signature, [rider], clock)
        outcomes.extend(alone.outcomes)
        runs.extend(alone.runs)
        failed_rows += alone.failed_rows
    return BatchResult(outcomes, runs, failed_rows)


def _run(session: Session, signature: Signature, riders: Sequence[Rider], clock: Clock) -> BatchResult:
    started_ns = clock.now_ns()
    total = 0
    wanted: Sequence[int] | None = ()
    for rider in riders:
        total += rider.rows
        if rider.wanted is None:
            wanted = None
    batches = signature.max_batch_size > 0
    feed: dict[str, Array] = {}
    for position, spec in enumerate(signature.inputs):
        # Equal keys: an input absent in the first rider is absent in all.
        rest = riders[0].key[position]
        if rest is not None:
            parts = [part for rider in riders if (part := rider.arrays[position]) is not None]
            feed[spec.name] = merge(parts, spec.datatype, (total, *rest) if batches else rest)
    names: Sequence[str]
    if wanted is None:
        names = signature.output_names
    else:
        wanted = _union(riders)
        names = [signature.output_names[position] for position in wanted]
    merged_ns = clock.now_ns()
    arrays: list[Array | None] = list(session.run(feed, names))
    ran_ns = clock.now_ns()
    if wanted is not None:
        given = dict(zip(wanted, arrays, strict=True))
        arrays = [given.get(position) for position in range(len(signature.outputs))]
    for position, array in enumerate(arrays):
        if array is None:
            continue
        if batches:
            check_rows(signature.output_names[position], array, total)
        if signature.reshapes_outputs:
            arrays[position] = signature.output_to_wire(position, array)
    run = BatchRun(
        signature.outputs,
        arrays,
        total,
        input_ns=merged_ns - started_ns,
        infer_ns=ran_ns - merged_ns,
        output_ns=clock.now_ns() - ran_ns,
        batches=batches,
    )
    outcomes: list[Outcome] = []
    start = 0
    for rider in riders:
        stop = start + rider.rows
        queue_ns = started_ns - rider.enqueued_ns
        outcomes.append(Ride(run, start, stop, max(0, queue_ns), rider.wanted))
        start = stop
    return BatchResult(outcomes, [run])


def _union(riders: Sequence[Rider]) -> list[int]:
    """Output positions that some rider wants."""
    wanted: set[int] = set()
    for rider in riders:
        wanted.update(rider.wanted or ())
    return sorted(wanted)
