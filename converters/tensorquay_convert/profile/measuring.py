"""What a worker does for a profile: one job, from plain values to plain values. Each runs in its own process.

Memory is measured in a process that does nothing else; times of different batches and thread counts are taken in turns,
because a machine that slows down for a while must not decide which of them is best.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tensorquay_convert.errors import BadSource
from tensorquay_convert.optimize.machine import machine_of
from tensorquay_convert.optimize.plain import from_plain, to_plain
from tensorquay_convert.optimize.results import Point, Subject
from tensorquay_convert.optimize.samples import Samples
from tensorquay_convert.optimize.session import DoesNotRun, Opened, open_session
from tensorquay_convert.optimize.spread import median_interval
from tensorquay_convert.profile.events import MOST_NODES, Log, Tally, Trace, by_operator, placements
from tensorquay_convert.profile.jobs import (
    Curved,
    CurveJob,
    Held,
    MemoryJob,
    OperatorsJob,
    Prepared,
    PrepareJob,
    Timed,
)
from tensorquay_convert.profile.resident import resident
from tensorquay_convert.profile.results import Cell, Curve, Memory, MemoryPoint, Operators

MIN_ROUNDS, MAX_ROUNDS = 5, 15
_PATIENCE = 2.0
"""How many times the given seconds a curve may take before its slowest places are left out."""
_MOST_RUNS = 5000
"""Of one cell in one round."""
_MOST_EVENTS = 100_000
"""That one trace is to hold: about 100 MB in the runtime's own format."""
_MOST_INSIDE = 50
"""Runs of a model with loops: nobody knows how many events each makes."""
_TURNS = 20
_ROUGH = 0.5
"""What profiling may add, as a share of a run, before it is said that times are rough."""
_MOST_SAID = 8
"""Places that are named in a sentence."""

Say = Callable[[str], None]


def perform(request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """Do what `jobs.request_of` wrote. Returns: plain values of the job's result. Raises: CommandFailed; OSError."""
    kind, work = _JOBS[request["job"]]
    return {"event": "done", "result": to_plain(work(from_plain(kind, request["values"]), say))}


def _prepare(job: PrepareJob, say: Say) -> Prepared:
    # Memory is measured in a process that does not hold what this brings.
    from tensorquay_convert.optimize.prepare import NOT_JUDGED, prepare  # noqa: PLC0415

    subject, data = prepare(job.model, job.name, job.data, "", job.goals, job.samples, say)
    # Nothing is judged here.
    return Prepared(subject, replace(data, notes=tuple(each for each in data.notes if each != NOT_JUDGED)))


# -- memory


def _memory(job: MemoryJob, say: Say) -> Held:
    samples = Samples(job.samples)
    gc.collect()
    before = resident()
    say("loading the model")
    opened = open_session(job.model, job.settings)
    loaded = resident()
    kept: list[Point] = []
    found: list[MemoryPoint] = []
    left_out: list[str] = []
    for number, point in enumerate(sorted(job.points, key=lambda each: each.batch), start=1):
        say(f"memory, {point.name}, {number} of {len(job.points)}")
        try:
            run = opened.prepared(samples.timing(point))
        except (DoesNotRun, MemoryError) as exc:
            why = exc.sentence if isinstance(exc, DoesNotRun) else "there is not enough memory"
            left_out.append(f"{point.name} is left out: {why}")
            continue
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        del run
        after = resident()
        kept.append(point)
        found.append(MemoryPoint(point.name, point.batch, after.now_bytes, after.peak_bytes, seconds))
    if not kept:
        raise BadSource(f"the model runs at none of the batch sizes: {'; '.join(left_out)}")
    memory = Memory(
        threads=job.settings.intra_op_threads, before_bytes=before.now_bytes, loaded_bytes=loaded.now_bytes,
        loading_peak_bytes=loaded.peak_bytes, load_s=opened.load_seconds, points=tuple(found),
        gpu=len(opened.providers) > 1,
    )  # fmt: skip
    return Held(memory, tuple(kept), tuple(left_out))


# -- batch by threads


def _curve(job: CurveJob, say: Say) -> Curved:
    samples, sessions = Samples(job.samples), _Sessions(job)
    points = {point.name: point for point in sorted(job.points, key=lambda each: each.batch)}
    took, left_out = _probed(job, points, sessions, samples, say)
    kept, rounds, slow = plan_rounds(took, job.seconds)
    share = job.seconds / (rounds * len(kept))
    times: dict[_Place, list[list[float]]] = {each: [] for each in kept}
    order = random.Random(job.seed)
    counts = sorted({threads for _, threads in kept})
    with _no_garbage_collection():
        for number in range(1, rounds + 1):
            say(f"batch sizes and threads, round {number} of {rounds}")
            for threads in order.sample(counts, len(counts)):
                names = [name for name, each in kept if each == threads]
                with sessions.of(threads) as opened:
                    for name in order.sample(names, len(names)):
                        run = opened.prepared(samples.timing(points[name]))
                        times[name, threads].append(_timed(run, runs_within(share, took[name, threads])))
                        del run
    cells = [
        _cell(point, threads, times[name, threads])
        for name, point in points.items() for threads in counts if (name, threads) in times
    ]  # fmt: skip
    how = (
        f"{rounds} rounds; in each, every thread count and every batch once, in an order drawn by a seed"
        + ("" if job.keep else "; the model was loaded again each time, as it is too large to be held several times")
    )  # fmt: skip
    return Curved(Curve(tuple(cells), how), _for_lack_of_time((*left_out, *slow), took))


_Place = tuple[str, int]
"""A point's name and a thread count."""


def _probed(
    job: CurveJob, points: Mapping[str, Point], sessions: _Sessions, samples: Samples, say: Say
) -> tuple[dict[_Place, float], list[_Place]]:
    """How long a run takes at each place, about; and places so slow that this was not tried.

    Work grows at most with the batch: going up from the smallest tells in time what would take too long.
    """
    took: dict[_Place, float] = {}
    left_out: list[_Place] = []
    for number, threads in enumerate(sorted(job.threads, reverse=True), start=1):
        say(f"trying thread counts, {number} of {len(job.threads)}")
        with sessions.of(threads) as opened:
            before: tuple[int, float] | None = None
            for name, point in points.items():
                if before is None:
                    expected = job.run_s[name] if took else 0.0
                else:
                    expected = before[1] * max(1, point.batch) / before[0]
                if 2 * MIN_ROUNDS * expected > _PATIENCE * job.seconds:
                    left_out.append((name, threads))
                    continue
                run = opened.prepared(samples.timing(point))
                took[name, threads] = min(_timed(run, 1))
                before = max(1, point.batch), took[name, threads]
                del run
    return took, left_out


def plan_rounds(took: Mapping[_Place, float], seconds: float) -> tuple[list[_Place], int, list[_Place]]:
    """Which places are timed, in how many rounds, and which are left out because all would take too long.

    The slowest are left out first. Places are in the order of `took`, which is not empty.
    """
    slow: list[_Place] = []
    whole = 0.0
    for place in sorted(took, key=lambda each: took[each]):
        # A warm-up run and a timed one.
        cost = 2 * took[place]
        if whole and MIN_ROUNDS * (whole + cost) > _PATIENCE * seconds:
            slow.append(place)
        else:
            whole += cost
    rounds = min(MAX_ROUNDS, max(MIN_ROUNDS, math.floor(seconds / whole))) if whole > 0 else MAX_ROUNDS
    return [each for each in took if each not in slow], rounds, slow


def _for_lack_of_time(places: Sequence[_Place], took: Mapping[_Place, float]) -> tuple[str, ...]:
    """One sentence on what is not in the curve, or none."""
    if not places:
        return ()
    said = [
        f"{name} with {threads} thread{'' if threads == 1 else 's'}"
        + (f" ({took[name, threads]:.2g} s a run)" if (name, threads) in took else "")
        for name, threads in places[:_MOST_SAID]
    ]
    more = f", and {len(places) - _MOST_SAID} more" if len(places) > _MOST_SAID else ""
    return (f"not in the curve, because there is too little time (--seconds): {', '.join(said)}{more}",)


def runs_within(seconds: float, run_s: float) -> int:
    """How many runs, at least one, take about so long; the one that warms up is one of them."""
    return min(_MOST_RUNS, max(1, math.floor(seconds / run_s) - 1)) if run_s > 0 else _MOST_RUNS


class _Sessions:
    """One session for each thread count, kept, or made for each use. Owner: one curve."""

    def __init__(self, job: CurveJob) -> None:
        self._job = job
        self._kept: dict[int, Opened] = {}

    @contextmanager
    def of(self, threads: int) -> Iterator[Opened]:
        """A session with so many threads. Raises: as `open_session`."""
        settings = replace(self._job.settings, intra_op_threads=threads)
        opened = self._kept.get(threads) or open_session(self._job.model, settings)
        if self._job.keep:
            self._kept[threads] = opened
        try:
            yield opened
        finally:
            if not self._job.keep:
                opened.close()


def _timed(run: Callable[[], None], runs: int) -> list[float]:
    """Seconds of each of some runs in a row."""
    found = []
    last = time.perf_counter()
    for _ in range(runs):
        run()
        now = time.perf_counter()
        found.append(now - last)
        last = now
    return found


def _cell(point: Point, threads: int, rounds: Sequence[Sequence[float]]) -> Cell:
    middles = [statistics.median(each) for each in rounds]
    every = sorted(each for one in rounds for each in one)
    rows = max(1, point.batch)
    return Cell(
        point=point.name, batch=point.batch, threads=threads, items_s=rows / statistics.median(middles),
        low=rows / max(middles), high=rows / min(middles), p50_s=statistics.median(every),
        p99_s=every[math.ceil(0.99 * len(every)) - 1], runs=len(every), rounds=tuple(middles),
    )  # fmt: skip


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# -- operators


def _operators(job: OperatorsJob, say: Say) -> Timed:
    samples = Samples(job.samples)
    inputs = samples.timing(job.point)
    say("loading the model twice, once with the runtime's profiling")
    traced = open_session(job.model, job.settings, trace=job.scratch / "events")
    plain = open_session(job.model, job.settings)
    run_traced, run_plain = traced.prepared(inputs), plain.prepared(inputs)
    warm = 1 + len(_timed(run_traced, 2))
    run_s = min(_timed(run_plain, 2))
    holders = holders_in(job.subject)
    turns, runs = plan_turns(job.seconds, run_s, job.subject.nodes, loops=bool(holders))
    on: list[list[float]] = []
    off: list[list[float]] = []
    with _no_garbage_collection():
        for turn in range(1, turns + 1):
            say(f"time by operator, {job.point.name}, turn {turn} of {turns}")
            # Neither is always the first.
            for each in (run_traced, run_plain) if turn % 2 else (run_plain, run_traced):
                (on if each is run_traced else off).append(_timed(each, runs))
    say("reading the runtime's trace")
    del run_traced, run_plain
    log = Log(traced.end_trace())
    tally, trace = Tally(holders), Trace(f"{job.subject.name}, {job.point.name}")
    for number, run in enumerate(log.runs()):
        if number >= warm:
            tally.add(run)
            trace.add(run)
    nodes = tally.nodes()
    if not nodes:
        raise BadSource("ONNX Runtime's profiling told of no node: everything in this model is computed when it loads")
    trace.write(job.trace, {"model": job.subject.name, "point": job.point.name, "sha256": job.subject.sha256})
    ratio, low, high = median_interval(
        [statistics.median(with_it) / statistics.median(without) for with_it, without in zip(on, off, strict=True)]
    )
    operators = Operators(
        point=job.point.name, batch=job.point.batch, threads=job.settings.intra_op_threads, runs=len(tally.run_us),
        run_s=statistics.median(each for turn in on for each in turn),
        plain_run_s=statistics.median(each for turn in off for each in turn),
        overhead=ratio - 1, overhead_low=low - 1, overhead_high=high - 1, outside=tally.outside,
        operators=by_operator(nodes, job.subject), nodes=nodes[:MOST_NODES], placements=placements(nodes),
        nodes_in_file=job.subject.nodes, nodes_left_out=max(0, len(nodes) - MOST_NODES), unread=log.unread,
        gone=_gone(job.subject, (each.operator for each in nodes)),
        notes=_notes(traced, job.subject, log.unread, ratio - 1),
    )  # fmt: skip
    return Timed(operators, machine_of(plain), {"events": len(trace.events), "runs": trace.runs})


def holders_in(subject: Subject) -> frozenset[str]:
    """Operators of the model that run graphs inside them."""
    return frozenset({"If", "Loop", "Scan", "SequenceMap", "BeamSearch", "GreedySearch", "Sampling"}).intersection(
        name.rpartition(".")[2] for name in subject.operators
    )


def plan_turns(seconds: float, run_s: float, nodes: int, *, loops: bool) -> tuple[int, int]:
    """How many turns, at least 3, of how many runs each, profiled and not, within time and the size of a trace."""
    most = _MOST_INSIDE if loops else max(3, _MOST_EVENTS // max(1, nodes))
    runs = min(most, max(3, math.floor(seconds / (2 * max(run_s, 1e-6)))))
    turns = min(_TURNS, runs)
    return turns, runs // turns


def _gone(subject: Subject, ran: Iterable[str]) -> dict[str, int]:
    """Operators of the file of which none runs: computed when the model was loaded, or fused into others."""
    there = set(ran)
    return {name: count for name, count in subject.operators.items() if name.rpartition(".")[2] not in there}


def _notes(opened: Opened, subject: Subject, unread: int, overhead: float) -> tuple[str, ...]:
    found = ["the runtime counts whole microseconds: what takes less than one per call is told too short"]
    if overhead > _ROUGH:
        found.append("nodes are so short here that profiling takes longer than they do: their times are rough")
    if len(opened.providers) > 1:
        found.append("a GPU works on while the runtime goes on: the time of its nodes is that of handing them over")
    if unread:
        found.append(f"{unread} lines of the runtime's trace could not be read, so times are too short")
    if subject.operators and holders_in(subject):
        found.append("the time of If, Loop and Scan nodes is without that of the nodes inside them")
    return tuple(found)


_JOBS: Mapping[str, tuple[type[Any], Callable[[Any, Say], Any]]] = {
    "PrepareJob": (PrepareJob, _prepare),
    "MemoryJob": (MemoryJob, _memory),
    "CurveJob": (CurveJob, _curve),
    "OperatorsJob": (OperatorsJob, _operators),
}
