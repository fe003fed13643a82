"""What the machine says about itself: CPU use and memory, for Triton's nv_cpu_* gauges.

Reads /proc; on systems without it there is nothing to say. The numbers are the whole machine's, as Triton's are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Main memory, in bytes."""

    total: int
    used: int


def memory(proc: Path = Path("/proc")) -> MemoryState | None:
    """Total and used memory, or None where it cannot be known."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        values = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines) if rest}
        return MemoryState(values["MemTotal"], values["MemTotal"] - values["MemAvailable"])
    except (OSError, ValueError, KeyError, IndexError):
        return None


class CpuMeter:
    """The share of all CPUs' time that was busy lately, 0 to 1. Owner: who scrapes.

    Lately: since a look that is at least a second ago, which with one who scrapes is the last one. Two Prometheus of a
    pair may look one right after the other; what happened in between says nothing, and is counted in whole ticks.

    Args: second: so much time have all CPUs together in a second, in ticks.
    """

    def __init__(self, proc: Path = Path("/proc"), *, second: int | None = None) -> None:
        self._stat = proc / "stat"
        self._second = _TICKS * (os.cpu_count() or 1) if second is None else second
        self._newer = self._older = (0, 0)
        self._share = 0.0
        self.read()
        # Not what was before us.
        self._older, self._share = self._newer, 0.0

    def read(self) -> float | None:
        """The share (the previous answer when no time passed), or None where it cannot be known."""
        try:
            with self._stat.open() as stream:
                fields = [int(text) for text in stream.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        if len(fields) < 4:
            return None
        total = sum(fields)
        idle = fields[3] + (fields[4] if len(fields) > 4 else 0)  # idle and waiting for I/O
        busy = total - idle
        if total - self._newer[1] >= self._second:
            self._older, self._newer = self._newer, (busy, total)
        if total > self._older[1]:
            self._share = min(1.0, max(0.0, (busy - self._older[0]) / (total - self._older[1])))
        return self._share
