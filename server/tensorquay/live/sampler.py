"""Looks at the counters again and again and says what happened since the last look.

Versions that did nothing cost one comparison. Many busy ones are looked at in several turns of the loop, so that no
request waits for a sampling; each version's figures and the server's sum come from the same look at it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from tensorquay.core.clock import Clock
from tensorquay.core.ids import VersionKey
from tensorquay.telemetry.live import (
    NO_COUNTERS,
    Figures,
    ServerCounters,
    Sum,
    VersionCounters,
    VersionFigures,
    change,
    counters_of,
    version_figures,
)
from tensorquay.telemetry.statistics import StatisticsTable, VersionStatistics

_TURN_NS = 500_000
"""How long one turn of the loop is used before others get theirs."""

_UNMARKED = (0, 0, 0, 0)
_LOOK_EVERY = 16
"""Versions between two looks at how long this turn has taken."""


@dataclass(slots=True)
class _Seen:
    """A version at the last look. `mark` is made of what every request and run changes: equal, nothing happened."""

    stats: VersionStatistics
    mark: tuple[int, int, int, int]
    counters: VersionCounters


class Sampler:
    """Loop-confined; owner: the feed.

    Args:
        server: the process's own counters now.
        instances: of a version that serves; asked for versions that did something.
        cpu_ns: CPU time of this thread: on a busy machine the clock on the wall says nothing about cost.
    """

    def __init__(
        self,
        table: StatisticsTable,
        server: Callable[[], ServerCounters],
        instances: Callable[[VersionKey], int],
        *,
        clock: Clock,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        self._table = table
        self._server = server
        self._instances = instances
        self._clock = clock
        self._cpu_ns = cpu_ns
        self._seen: dict[int, _Seen] = {}
        self._before = ServerCounters()
        self._at_ns = 0
        self.cost_ns = 0
        """CPU time of the last sampling."""

    def begin(self) -> None:
        """The first interval begins now."""
        self._before = self._server()
        self._at_ns = self._clock.now_ns()

    async def sample(self) -> Figures:
        """What happened since the last call."""
        clock, cpu_ns = self._clock, self._cpu_ns
        at_ns, turn_ns = clock.now_ns(), cpu_ns()
        seconds = (at_ns - self._at_ns) / 1e9
        total = Sum()
        versions: list[VersionFigures] = []
        cost_ns = 0
        every = self._table.unordered()
        for number, stats in enumerate(every):
            if number % _LOOK_EVERY == 0 and (spent_ns := cpu_ns() - turn_ns) > _TURN_NS:
                cost_ns += spent_ns
                await asyncio.sleep(0)
                turn_ns = cpu_ns()
            self._look(stats, seconds, total, versions)
        if len(self._seen) > len(every):
            # The table has forgotten some; an object that is kept here cannot give its place to another.
            there = set(map(id, every))
            self._seen = {place: seen for place, seen in self._seen.items() if place in there}
        after = self._server()
        server = total.figures(self._before, after, seconds=seconds)
        self._before, self._at_ns = after, at_ns
        self.cost_ns = cost_ns + cpu_ns() - turn_ns
        return Figures(clock.wall_ms(), round(seconds, 3), server, versions)

    def _look(self, stats: VersionStatistics, seconds: float, total: Sum, versions: list[VersionFigures]) -> None:
        # By identity: hashing a name for each of a thousand versions costs more than all the rest.
        seen = self._seen.get(id(stats))
        mark = (stats.success_ns, stats.fail_count, stats.offered_rows, stats.last_inference_ms)
        if seen is None:
            seen = self._seen[id(stats)] = _Seen(stats, _UNMARKED, NO_COUNTERS)
        if mark == seen.mark and not stats.pending:
            return
        before, after = seen.counters, counters_of(stats)
        seen.mark, seen.counters = mark, after
        happened = change(before, after)
        total.add(happened)
        key = stats.key
        versions.append(
            version_figures(key.name, str(key.version), happened, seconds=seconds, instances=self._instances(key))
        )
