"""Run one batch: merge, run, split, and when it fails, find out whose fault it was.

Called in a worker thread (or on the loop for cheap models). Takes riders as values: reads them, never settles them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorquay.backends.api import Session
from tensorquay.batching.merge import merge, split
from tensorquay.batching.rider import Ride, Rider
from tensorquay.core.clock import Clock
from tensorquay.core.datatypes import Array
from tensorquay.core.signature import Signature


@dataclass(slots=True)
class Run:
    """One successful run of the model, for the statistics."""

    rows: int
    input_ns: int
    infer_ns: int
    output_ns: int


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One outcome per rider, in order, and the runs it took."""

    outcomes: list[Ride | Exception]
    runs: list[Run]


def execute(session: Session, signature: Signature, riders: Sequence[Rider], clock: Clock) -> BatchResult:
    """Run `riders` as one batch; if that fails and they are several, one by one.

    A poison request can so only fail itself. Riders that left meanwhile are not run again. Never raises for what the
    session does: every exception becomes the outcome of the riders it concerns.
    """
    try:
        outcomes, run = _run(session, signature, riders, clock)
    except Exception as failure:  # noqa: BLE001  a session may raise anything; it is handed on as the outcome
        if len(riders) == 1:
            return BatchResult([failure], [])
        return _one_by_one(session, signature, riders, clock, failure)
    return BatchResult(list(outcomes), [run])


def _one_by_one(
    session: Session, signature: Signature, riders: Sequence[Rider], clock: Clock, failure: Exception
) -> BatchResult:
    result = BatchResult([], [])
    for rider in riders:
        if rider.done:
            result.outcomes.append(failure)
            continue
        alone = execute(session, signature, [rider], clock)
        result.outcomes.extend(alone.outcomes)
        result.runs.extend(alone.runs)
    return result


def _run(session: Session, signature: Signature, riders: Sequence[Rider], clock: Clock) -> tuple[list[Ride], Run]:
    started_ns = clock.now_ns()
    feed: dict[str, Array] = {}
    for position, spec in enumerate(signature.inputs):
        first = riders[0].arrays[position]
        if first is None:
            continue
        if len(riders) == 1:
            feed[spec.name] = first
        else:
            # Equal keys: an input absent in the first rider is absent in all.
            feed[spec.name] = merge([array for rider in riders if (array := rider.arrays[position]) is not None])
    wanted = _union(signature, riders)
    names = [signature.outputs[position].name for position in wanted]
    merged_ns = clock.now_ns()
    arrays = session.run(feed, names)
    ran_ns = clock.now_ns()
    rows = [rider.rows for rider in riders]
    total = sum(rows)
    nothing: list[Array | None] = [None] * len(riders)
    columns: list[Sequence[Array | None]] = [nothing] * len(signature.outputs)
    for position, array in zip(wanted, arrays, strict=True):
        pieces = split(signature.outputs[position].name, array, rows) if signature.batches else [array]
        if signature.reshapes_outputs:
            pieces = [signature.output_to_wire(position, piece) for piece in pieces]
        columns[position] = pieces
    table = list(zip(*columns, strict=True)) if columns else [()] * len(riders)
    done_ns = clock.now_ns()
    input_ns, infer_ns, output_ns = merged_ns - started_ns, ran_ns - merged_ns, done_ns - ran_ns
    rides = [
        Ride(
            arrays=row,
            queue_ns=max(started_ns - rider.enqueued_ns, 0),
            input_ns=input_ns,
            infer_ns=infer_ns,
            output_ns=output_ns,
            batch_rows=total,
        )
        for rider, row in zip(riders, table, strict=True)
    ]
    return rides, Run(total, input_ns, infer_ns, output_ns)


def _union(signature: Signature, riders: Sequence[Rider]) -> Sequence[int]:
    """Output positions that some rider wants."""
    everything = range(len(signature.outputs))
    wanted: set[int] = set()
    for rider in riders:
        if rider.wanted is None:
            return everything
        wanted.update(rider.wanted)
    return sorted(wanted)
