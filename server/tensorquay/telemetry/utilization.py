"""One number to scale on: the load offered to this server, divided by what it can do. 1 is all of it.

The definition. Over a window of T seconds, the largest of five shares:

- a version's instances: (rows that arrived × mean seconds of run per row, as now batched) ÷ (T × instances), for
  versions that run in threads of their own. Rows turned away for lack of capacity have arrived too; rows
  whose run failed had their turn, and another server would not answer them either.
- a GPU: (how long it was full × what its versions would have run ÷ what they have run) ÷ T. All instances of a version
  that are on it fill it, half of them fill half of it, and the runs of several versions add up, to full at most. So two
  versions that keep one GPU busy for 60 % of the time each are told as the time in which either ran, 60 to 100 %.
- the event loop: (its CPU time + the run time it would have spent on the rows of inline versions that arrived and
  were not run) ÷ T. Reading, decoding, encoding, writing and all inline versions share this one thread.
- the front ends: their CPU time ÷ (T × how many). Each is an event loop of its own.
- the CPU: (CPU time of all processes + what the rows that arrived and were not run would have cost) ÷ (T × cores that
  this process may use). Many lukewarm versions, none of which fills its instances, are seen here.

Why so. The share of time that instances are busy cannot pass 1, so an autoscaler that reads it takes one step where
three are needed; demand can. An average over versions hides a hot one among many idle; a sum over versions is not what
any of them can do; so the most loaded resource counts. CPU use alone does not see a GPU, nor one event loop that is
full on a machine with many cores.

What it is not. Where reading and writing fill the event loop or the front ends, what comes beyond waits in sockets,
which nobody can count: then the value stays near 1 (keep a target well below). Twice the traffic is a little less than
twice the value while batches still grow, because a row then costs less. Clients that repeat what was refused offer
more. A version whose runs last longer than the window is seen when they end. A GPU may be able to run several small
models side by side, which nobody can count from outside: several versions on one are then told as more than they need,
as by `nvidia-smi`, and servers are added early. CPU that loading takes counts while there is traffic, and nothing does
when nobody asked for a prediction in the window: then it is 0. Requests that the transport turned away are counted in
CPU only, since nobody knows their rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tensorquay.core.ids import VersionKey

WINDOW_S = 30.0
"""The value is a mean over the last so many seconds, or up to `TICK_S` more; since the start while that is less ago."""

TICK_S = 5.0
"""How often the counters are remembered, whoever scrapes."""


@dataclass(frozen=True, slots=True)
class VersionWork:
    """One version's counters: rows that arrived, rows that were run, and for how long, in nanoseconds; rows whose run
    failed, which had their turn and need no other server.

    `slots`: runs it can do at once now; 0 for one that serves no more. `inline`: on the event loop. `gpus`: the numbers
    of those it has instances on.
    """

    offered_rows: int = 0
    run_rows: int = 0
    run_ns: int = 0
    slots: int = 0
    inline: bool = False
    gpus: frozenset[int] = frozenset()
    failed_rows: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """Everything that was done so far. All times are in nanoseconds.

    Attributes:
        at_ns: when, on a clock that never goes back.
        cpu_ns: CPU time of all processes; of it `loop_ns` the event loop's thread and `frontends_ns` the front ends.
        frontends: how many there are.
        refused: inference requests that reached no version.
        gpus: how long each was full, by number (`telemetry/devices.py`).
    """

    at_ns: int = 0
    cpu_ns: int = 0
    loop_ns: int = 0
    frontends_ns: int = 0
    frontends: int = 0
    refused: int = 0
    gpus: Mapping[int, int] = field(default_factory=dict)
    versions: Mapping[VersionKey, VersionWork] = field(default_factory=dict)


def utilization(before: Work, after: Work, *, cores: float) -> float:
    """The number, from two looks. Pure; 0 or more; 0 when no time passed or nobody asked for a prediction.

    Multiplying all counters and the time between by the same factor changes nothing; more rows that arrived never
    make it less.

    Args: cores: CPUs this process may use; may be below 1.
    """
    span_ns = after.at_ns - before.at_ns
    if span_ns <= 0:
        return 0.0
    asked = after.refused > before.refused
    threads = loop_extra_ns = unrun_ns = run_in_threads_ns = 0.0
    on_gpus = {number: _OnGpu(full_ns - before.gpus.get(number, 0)) for number, full_ns in after.gpus.items()}
    for key, now in after.versions.items():
        past = before.versions.get(key, _NOTHING)
        if past.offered_rows > now.offered_rows or past.run_rows > now.run_rows:
            past = _NOTHING  # it was forgotten and came back
        offered, rows, run_ns = (
            now.offered_rows - past.offered_rows,
            now.run_rows - past.run_rows,
            now.run_ns - past.run_ns,
        )
        asked = asked or offered > 0 or rows > 0
        # Without a run in the window, what a row has cost so far is the best guess.
        row_ns = run_ns / rows if rows > 0 else (now.run_ns / now.run_rows if now.run_rows else 0.0)
        missing_ns = max(offered - rows - (now.failed_rows - past.failed_rows), 0) * row_ns
        if now.inline:
            loop_extra_ns += missing_ns
            continue
        unrun_ns += missing_ns
        run_in_threads_ns += run_ns
        if now.slots:
            threads = max(threads, (run_ns + missing_ns) / (span_ns * now.slots))
        for number in now.gpus & on_gpus.keys():
            on_gpus[number].run_ns += run_ns
            on_gpus[number].missing_ns += missing_ns
    if not asked:
        return 0.0
    cpu_ns = after.cpu_ns - before.cpu_ns
    loop_ns = after.loop_ns - before.loop_ns
    frontends_ns = after.frontends_ns - before.frontends_ns
    # CPU time per nanosecond of a run in a thread: less than 1 on a GPU, more where a run uses several cores.
    per_run = 1.0 if run_in_threads_ns <= 0 else max(cpu_ns - loop_ns - frontends_ns, 0) / run_in_threads_ns
    cpu_demand_ns = cpu_ns + loop_extra_ns + unrun_ns * min(per_run, max(cores, 1.0))
    return max(
        threads,
        *(each.demand_ns / span_ns for each in on_gpus.values()),
        (loop_ns + loop_extra_ns) / span_ns,
        frontends_ns / (span_ns * after.frontends) if after.frontends else 0.0,
        cpu_demand_ns / (span_ns * cores),
        0.0,
    )


_NOTHING = VersionWork()


@dataclass(slots=True)
class _OnGpu:
    """What one GPU did between two looks, and what its versions did there and elsewhere, and would have."""

    full_ns: int
    run_ns: float = 0.0
    missing_ns: float = 0.0

    @property
    def demand_ns(self) -> float:
        """How long it would have been full, had everything been run."""
        return self.full_ns * (1 + self.missing_ns / self.run_ns) if self.run_ns > 0 else self.full_ns


class UtilizationMeter:
    """Remembers the counters every `TICK_S`, so that the value does not depend on who asks, or how often.

    Loop-confined; owner: the composition root. `look` must be called on the event loop's own thread.

    Args: look: the counters now. cores: see `utilization`.
    """

    def __init__(self, look: Callable[[], Work], *, cores: float) -> None:
        self._look = look
        self._cores = cores
        self._past: deque[Work] = deque([look()], maxlen=round(WINDOW_S / TICK_S) + 1)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to remember."""
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Remember nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def remember(self) -> None:
        """Keep the counters as they are now; the oldest ones are forgotten."""
        self._past.append(self._look())

    def value(self) -> float:
        """The utilization from the oldest counters remembered until now."""
        return utilization(self._past[0], self._look(), cores=self._cores)

    def _tick(self) -> None:
        self.remember()
        self.start()
