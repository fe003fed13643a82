"""The one owner of one version's queue: lets riders wait, obeys the policy, runs batches, settles everybody once.

Loop-confined: every method is called on the event loop. All decisions are in `policy.py` and `queue.py`; this file
only carries them out. A failing batch fails its riders and nothing else; the batcher itself cannot die of one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tensorquay.backends.api import Session
from tensorquay.batching.execute import BatchResult, execute
from tensorquay.batching.loop_guard import SLOW_NS, LoopGuard
from tensorquay.batching.oversize import divide
from tensorquay.batching.policy import BatchLimits, Decision, Dispatch, decide
from tensorquay.batching.queue import RiderQueue
from tensorquay.batching.rider import Outcome, Rider
from tensorquay.batching.run_traces import MakesIds, trace_runs, trace_starts
from tensorquay.batching.workers import Worker
from tensorquay.config.model import BatchingConfig, Oversize
from tensorquay.core.clock import Clock
from tensorquay.core.errors import Cancelled, DeadlineExceeded, InvalidArgument, Overloaded, Rejection, Unavailable
from tensorquay.core.signature import Signature
from tensorquay.telemetry.devices import FULL, Device, Devices
from tensorquay.telemetry.statistics import VersionStatistics

_log = logging.getLogger("tensorquay.batching")

_LOOKAHEAD_BATCHES = 4
"""How many batches' worth of riders the policy is shown: enough to find company past other shapes, bounded."""

_MIN_LOOKAHEAD = 64

_TURN_NS = 250_000
"""Cheap models run batch after batch in one turn of the loop for about so long; then others may read and write."""


class Batcher:
    """Queue and slots of one loaded version.

    Args:
        sessions: one per slot; the same session several times when it may run several batches at once.
        signature: what the version takes and gives.
        batching: queue and batch rules.
        stats: counters of the version; this object alone writes the batch and pending ones.
        inline: run batches on the loop (cheap models only) instead of in a thread per slot.
        stays_inline: also when runs turn out to be slow (`loop_guard.py`).
        max_pending: the server's own bound on waiting riders; 0 for none.
        spans: takes a record of every run with sampled riders; None while spans are off.
        devices: told of every run on a GPU; None: nobody wants to know.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        signature: Signature,
        batching: BatchingConfig,
        *,
        stats: VersionStatistics,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        inline: bool,
        stays_inline: bool = False,
        max_pending: int = 0,
        spans: MakesIds | None = None,
        devices: Devices | None = None,
    ) -> None:
        self._signature = signature
        self._batching = batching
        self._stats = stats
        self._clock = clock
        self._loop = loop
        self._inline = inline
        self._guard = LoopGuard() if inline and not stays_inline else None
        self._spans = spans
        self._max_rows = signature.max_batch_size or 1
        merges = signature.batches and batching.enabled
        self._limits = BatchLimits(
            max_rows=self._max_rows,
            max_delay_ns=batching.max_queue_delay_us * 1000 if merges else 0,
            preferred_rows=tuple(sorted(batching.preferred_batch_sizes)) if merges else (),
            max_riders=2**31 if merges else 1,
        )
        self._lookahead = max(_MIN_LOOKAHEAD, _LOOKAHEAD_BATCHES * self._max_rows) if merges else 1
        self._queue = RiderQueue(batching, max_pending)
        self._idle: list[tuple[Session, Worker]] = [
            (session, Worker(f"tq-{signature.model}-{slot}", loop)) for slot, session in enumerate(sessions)
        ]
        self._workers = [worker for _, worker in self._idle]
        self._places = {} if devices is None or inline else _places(sessions, devices)
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._unsettled = 0
        self._ordered: deque[Rider] = deque()
        self._closing: asyncio.Future[None] | None = None

    @property
    def pending(self) -> int:
        """Riders waiting, not yet in a run."""
        return self._queue.waiting

    @property
    def oldest_ns(self) -> int | None:
        """When the longest waiting rider came, on the clock; None when nobody waits."""
        return self._queue.oldest_ns()

    @property
    def inline(self) -> bool:
        """Whether batches run on the event loop, now."""
        return self._inline

    def turned_away(self, rows: int) -> None:
        """A request of `rows` that would have been taken was refused before it could be submitted."""
        if rows <= self._max_rows or (self._signature.batches and self._batching.oversize is not Oversize.REFUSE):
            self._stats.offered_rows += rows

    def submit(self, rider: Rider) -> None:
        """Let `rider` wait for a batch; it is settled exactly once, later, on the loop.

        Raises: InvalidArgument for more rows than the model takes when it may not be split; Unavailable or Overloaded
        when the queue is full or the version retires. After a raise nothing was accepted.
        """
        if self._closing is not None:
            raise Unavailable(
                f"model '{self._signature.model}' is being unloaded, retry", rejection=Rejection.UNLOADING
            )
        now_ns = self._clock.now_ns()
        riders: Sequence[Rider] = (rider,) if rider.rows <= self._max_rows else self._pieces(rider)
        try:
            self._queue.push(riders, now_ns)
        except (Unavailable, Overloaded):
            self._stats.offered_rows += rider.rows  # there is no room for it, but somebody wants it
            raise
        self._stats.offered_rows += rider.rows
        self._unsettled += len(riders)
        self._stats.pending += len(riders)
        if self._batching.preserve_ordering:
            self._ordered.extend(riders)
        if self._flush_scheduled:
            return
        if self._idle:
            self._schedule_flush()
        else:
            # Nothing can start now, but a time-out must be answered when it expires, not when its turn comes.
            self._wake_at(self._queue.next_expiry_ns())

    def cancel(self, rider: Rider) -> None:
        """The rider's client left: take it out of the queue. One that rides already finishes its run unseen."""
        if rider.done:
            return
        if rider.pieces:
            # The first piece to leave takes the others, and the request, with it.
            self.cancel(next(piece for piece in rider.pieces if not piece.done))
            return
        self._finish(rider, Cancelled("the client cancelled the request"))

    def hurry(self) -> None:
        """Nobody else is coming: what waits for company leaves as soon as there is a slot."""
        self._limits = replace(self._limits, max_delay_ns=0)
        if self._idle:
            self._schedule_flush()

    async def close(self) -> None:
        """Refuse new riders, wait until everybody accepted is settled, then end the threads.

        Bounded by the caller: a native run that never returns makes this wait for ever.
        """
        if self._closing is None:
            self._closing = self._loop.create_future()
            if self._unsettled == 0 and len(self._idle) == len(self._workers):
                self._closing.set_result(None)
        await asyncio.shield(self._closing)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for worker in self._workers:
            worker.stop()

    # -- acceptance

    def _pieces(self, rider: Rider) -> Sequence[Rider]:
        """What waits in the stead of a request with more rows than a batch."""
        if self._batching.oversize is Oversize.REFUSE or not self._signature.batches:
            raise InvalidArgument(
                f"inference request batch-size must be <= {self._max_rows} for '{self._signature.model}', "
                f"got {rider.rows}",
                facts={"expected": f"<= {self._max_rows}", "got": rider.rows},
            )
        rider.pieces = divide(rider, self._max_rows, self._signature.inputs, leave=self.cancel)
        return rider.pieces

    # -- obeying the policy

    def _schedule_flush(self) -> None:
        # Everything read in one turn of the loop is one candidate: the flush runs after this turn's reads.
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        queue = self._queue
        now_ns = begun_ns = self._clock.now_ns()
        wake_ns = None
        if queue.timed:
            self._expire(now_ns)
            wake_ns = queue.next_expiry_ns()
        while self._idle and queue.waiting:
            if self._inline and now_ns - begun_ns > _TURN_NS:
                self._schedule_flush()
                break
            decision, waiting = self._decide(now_ns)
            if not isinstance(decision, Dispatch):
                wake_ns = decision.due_ns if wake_ns is None else min(wake_ns, decision.due_ns)
                break
            self._start([waiting[pick] for pick in decision.picks])
            if self._inline:
                now_ns = self._clock.now_ns()
        if queue.waiting:
            self._wake_at(wake_ns)

    def _decide(self, now_ns: int) -> tuple[Decision, list[Rider]]:
        """What the policy says, and the riders it was shown.

        First as few as may be a batch: when all of them are one, nobody behind them can change that, and a long queue
        is not listed anew for every batch.
        """
        if self._lookahead > self._max_rows:
            waiting = self._queue.front(self._max_rows)
            decision = decide(waiting, self._limits, now_ns)
            if len(waiting) == self._queue.waiting:
                return decision, waiting
            if isinstance(decision, Dispatch) and len(decision.picks) == len(waiting):
                return decision, waiting
        waiting = self._queue.front(self._lookahead)
        return decide(waiting, self._limits, now_ns), waiting

    def _start(self, riders: list[Rider]) -> None:
        self._queue.take(riders)
        self._stats.pending -= len(riders)
        slot = self._idle.pop()
        session, worker = slot
        if self._inline:
            self._ran(slot, riders, execute(session, self._signature, riders, self._clock))
        else:
            if self._places and (place := self._places.get(id(session))) is not None:
                place[0].began(place[1])
            if self._spans is not None:
                trace_starts(riders, self._clock)
            work = partial(execute, session, self._signature, riders, self._clock)
            worker.submit(work, partial(self._ran, slot, riders))

    def _ran(self, slot: tuple[Session, Worker], riders: list[Rider], result: BatchResult) -> None:
        self._idle.append(slot)
        if self._places and (place := self._places.get(id(slot[0]))) is not None:
            place[0].ended(place[1])
        if not self._inline:
            # The next batch starts before this one's answers are written: the device does not wait for encoders.
            self._flush()
        wall_ms = self._clock.wall_ms()
        for run in result.runs:
            if run.infer_ns > SLOW_NS and self._guard is not None:
                self._was_slow(self._guard, run.infer_ns)
            self._stats.batch_executed(
                rows=run.rows,
                input_ns=run.input_ns,
                infer_ns=run.infer_ns,
                output_ns=run.output_ns,
                now_wall_ms=wall_ms,
            )
        if result.failed_rows:
            self._stats.failed_rows += result.failed_rows
        if self._spans is not None:
            trace_runs(self._spans, riders, result.outcomes)
        ordered = self._batching.preserve_ordering
        for rider, outcome in zip(riders, result.outcomes, strict=True):
            if rider.done:
                continue
            if ordered:
                self._finish(rider, outcome)
            else:
                rider.done = True
                self._settle(rider, outcome)
        self._check_closed()

    def _was_slow(self, guard: LoopGuard, run_ns: int) -> None:
        """A run on the loop has kept everybody waiting."""
        if not guard.ends(run_ns, self._clock.now_ns()):
            return
        self._guard = None
        self._inline = False
        _log.warning(
            "model '%s' runs in a thread of its own from now on: a run took %.0f ms, and as it was on the event loop, "
            'nobody was served meanwhile; execution.inline = "never" says so from the start',
            self._signature.model,
            run_ns / 1e6,
            extra={"event": "model_left_loop", "model": self._signature.model},
        )

    def _expire(self, now_ns: int) -> None:
        for rider in self._queue.expire(now_ns):
            if rider.deadline_ns is not None and rider.deadline_ns <= now_ns:
                text = "Deadline Exceeded: the request's deadline passed while it waited in the queue"
                self._finish(rider, DeadlineExceeded(text, rejection=Rejection.DEADLINE))
            else:
                text = "Request timeout expired: it waited longer in the queue than allowed"
                self._finish(rider, Unavailable(text, rejection=Rejection.QUEUE_TIMEOUT))

    def _wake_at(self, due_ns: int | None) -> None:
        if due_ns is None:
            return
        if self._timer is not None:
            if self._timer_ns <= due_ns:
                return
            self._timer.cancel()
        self._timer_ns = due_ns
        delay_s = max(due_ns - self._clock.now_ns(), 0) / 1e9
        self._timer = self._loop.call_later(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._flush()

    # -- settling

    def _finish(self, rider: Rider, outcome: Outcome) -> None:
        """The only place where a rider ends. A waiting one leaves the queue; later ones may have to wait for it."""
        rider.done = True
        if not rider.running:
            self._queue.forget(rider)
            self._stats.pending -= 1
        if self._batching.preserve_ordering:
            rider.held = outcome
            while self._ordered and (held := self._ordered[0].held) is not None:
                self._settle(self._ordered.popleft(), held)
        else:
            self._settle(rider, outcome)
        if self._closing is not None:
            self._check_closed()

    def _settle(self, rider: Rider, outcome: Outcome) -> None:
        self._unsettled -= 1
        rider.arrays = ()
        rider.settle(outcome)

    def _check_closed(self) -> None:
        if self._closing is None or self._closing.done():
            return
        if self._unsettled == 0 and len(self._idle) == len(self._workers):
            self._closing.set_result(None)


def _places(sessions: Sequence[Session], devices: Devices) -> dict[int, tuple[Device, int]]:
    """Id of each session that runs on a GPU → that GPU, and how much of it a run takes."""
    numbers = [session.placement.gpu for session in sessions]
    return {
        id(session): (devices.of(number), FULL // numbers.count(number))
        for session, number in zip(sessions, numbers, strict=True)
        if number is not None
    }
