"""What the process uses and may use, as one reading: its CPU time, its memory, the container's limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tensorquay.telemetry.container import Container
from tensorquay.telemetry.live import ServerCounters
from tensorquay.telemetry.processes import CpuUse


@dataclass(frozen=True, slots=True)
class Inside:
    """What the server holds now, and what it has turned away so far: at the door, or before a version was found."""

    requests: int
    bytes: int
    refused: int


class Process:
    """Reads `ServerCounters`. Owner: who samples.

    Memory is the container's where that has a limit, so that it can be compared with it; else what this process and
    its front ends have in main memory.

    Args:
        inside: asked at each reading.
        others: process ids of the front ends alive now.
    """

    def __init__(
        self,
        inside: Callable[[], Inside],
        others: Callable[[], Iterable[int]] = tuple,
        *,
        root: Path = Path("/"),
    ) -> None:
        self._inside = inside
        self._others = others
        self._proc = root / "proc"
        self._cpu = CpuUse(others, proc=self._proc)
        self._container = Container(root)

    def read(self) -> ServerCounters:
        """The counters now; some twenty small reads of kernel files."""
        inside, found = self._inside(), self._container.read()
        memory = found.memory_bytes if found.memory_limit_bytes is not None else None
        return ServerCounters(
            inflight_requests=inside.requests,
            inflight_bytes=inside.bytes,
            refused=inside.refused,
            cpu_seconds=self._cpu.seconds(),
            cpu_limit_cores=found.cpu_limit_cores if found.cpu_limit_cores is not None else _processors(),
            cpu_periods=found.cpu_periods,
            throttled_periods=found.cpu_throttled_periods,
            memory_bytes=memory if memory is not None else self._resident(),
            memory_limit_bytes=found.memory_limit_bytes,
        )

    def _resident(self) -> int | None:
        own = resident_bytes("self", self._proc)
        if own is None:
            return None
        return own + sum(resident_bytes(str(pid), self._proc) or 0 for pid in self._others())


def resident_bytes(pid: str, proc: Path = Path("/proc")) -> int | None:
    """Main memory of a process, in bytes; None where that cannot be known."""
    try:
        with (proc / pid / "statm").open("rb") as stream:
            return int(stream.read(256).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _processors() -> float | None:
    """CPUs this process may be scheduled on."""
    try:
        return float(len(os.sched_getaffinity(0)))
    except (AttributeError, OSError):
        return None
