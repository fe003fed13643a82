"""What metrics ask of the running server: the part of the composition root that joins its counters to the page.

Asks only when somebody scrapes, but for the utilization, whose past must be known (`telemetry/utilization.py`).
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tensorquay import __version__
from tensorquay.config.resources import usable_cores
from tensorquay.core.ids import VersionKey
from tensorquay.core.messages import IndexEntry
from tensorquay.engine import AdmissionCounters
from tensorquay.lifecycle.manager import ModelManager
from tensorquay.lifecycle.state import State
from tensorquay.lifecycle.table import UNLOADED
from tensorquay.telemetry.devices import Devices
from tensorquay.telemetry.jobs import JobCounters
from tensorquay.telemetry.processes import CpuUse
from tensorquay.telemetry.prometheus import Metrics, ReadyVersion, ServerFigures, VersionState
from tensorquay.telemetry.statistics import StatisticsTable
from tensorquay.telemetry.utilization import UtilizationMeter, VersionWork, Work

_FINAL = frozenset({State.READY.value, State.UNAVAILABLE.value})
_TIDY_S = 60.0
"""How often counters of versions that are gone are looked for."""


@dataclass(frozen=True, slots=True)
class FrontEndFigures:
    """How to ask for front ends: those alive and restarts so far, and the process ids of those alive."""

    counts: Callable[[], tuple[int, int]]
    pids: Callable[[], tuple[int, ...]]


class Figures:
    """See the module. Loop-confined; owner: `app.py`.

    Args:
        frontends: None when there are none.
        imports, optimizations: of the services; None where they are off.
        devices: how full each GPU was.
        spans: sent and lost; None while there are none.
    """

    def __init__(
        self,
        statistics: StatisticsTable,
        manager: ModelManager,
        admission: AdmissionCounters,
        *,
        frontends: FrontEndFigures | None,
        imports: JobCounters | None,
        optimizations: JobCounters | None,
        devices: Devices,
        spans: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self._statistics = statistics
        self._manager = manager
        self._admission = admission
        self._frontends = frontends
        self._devices = devices
        self._cpu = CpuUse(None if frontends is None else frontends.pids)
        self._meter = UtilizationMeter(self._work, cores=usable_cores())
        figures = ServerFigures(
            states=self._states,
            ready=self._ready,
            rejected=lambda: {"requests": admission.refused_requests, "bytes": admission.refused_bytes},
            inflight=lambda: (admission.requests, admission.bytes),
            frontends=None if frontends is None else frontends.counts,
            spans=spans,
            utilization=self._meter.value,
            imports=imports,
            optimizations=optimizations,
        )
        self._timer: asyncio.TimerHandle | None = None
        build = {"version": __version__, "python": platform.python_version()}
        self._metrics = Metrics(statistics, figures, build=build, tags=self._tags)

    async def render(self) -> tuple[bytes, str]:
        """See `Metrics.render`."""
        return await self._metrics.render()

    def start(self) -> None:
        """Begin to remember what the utilization is reckoned from, and to forget versions that are gone."""
        self._meter.start()
        self._timer = asyncio.get_running_loop().call_later(_TIDY_S, self._tidy)

    def stop(self) -> None:
        """Remember nothing more."""
        self._meter.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget_what_is_gone(self) -> None:
        """Counters of versions that were unloaded do not stay for ever (`StatisticsTable`)."""
        rows = self._manager.rows()
        self._statistics.forget_all_but({row.id.key for row in rows if row.reason != UNLOADED})

    def _tidy(self) -> None:
        self.forget_what_is_gone()
        self._timer = asyncio.get_running_loop().call_later(_TIDY_S, self._tidy)

    def _states(self) -> list[VersionState]:
        # One without a state was never asked for.
        return [
            VersionState(entry.name, entry.version, entry.state, failed=self._failed(entry))
            for entry in self._manager.index()
            if entry.state
        ]

    def _failed(self, entry: IndexEntry) -> bool:
        """A version that serves has a reason only when something newer was refused."""
        return entry.state in _FINAL and entry.reason not in {"", UNLOADED} and self._manager.wants(entry.name)

    def _ready(self) -> Iterator[ReadyVersion]:
        for served in self._manager.all_ready():
            loaded, batcher = served.loaded, served.batcher
            yield ReadyVersion(
                served.id.key,
                slots=len(loaded.sessions),
                inline=batcher.inline,
                oldest_ns=batcher.oldest_ns,
                node_shares=loaded.node_shares,
                file_bytes=loaded.file_bytes,
            )

    def _work(self) -> Work:
        own_ns, others_ns = int(self._cpu.own_seconds() * 1e9), int(self._cpu.other_seconds() * 1e9)
        return Work(
            at_ns=self._statistics.clock.now_ns(),
            cpu_ns=own_ns + others_ns,
            loop_ns=time.thread_time_ns(),
            frontends_ns=others_ns,
            frontends=0 if self._frontends is None else self._frontends.counts()[0],
            refused=sum(self._statistics.refusals.values()),
            gpus=self._devices.full_ns(),
            versions=self._versions(),
        )

    def _versions(self) -> dict[VersionKey, VersionWork]:
        serving = {served.id.key: served for served in self._manager.all_ready()}
        found = {}
        for stats in self._statistics.unordered():
            served = serving.get(stats.key)
            found[stats.key] = VersionWork(
                offered_rows=stats.offered_rows,
                run_rows=stats.inference_count,
                failed_rows=stats.failed_rows,
                run_ns=stats.compute_time.total,
                slots=0 if served is None else len(served.loaded.sessions),
                inline=served is not None and served.batcher.inline,
                gpus=frozenset() if served is None else served.loaded.gpus,
            )
        return found

    def _tags(self, name: str) -> Mapping[str, str]:
        model = self._manager.catalogue.get(name)
        return model.highest.effective.config.metric_tags if model is not None else {}
