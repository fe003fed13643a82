"""What the machine says about itself: CPU use and memory, for Triton's nv_cpu_* gauges.

Reads /proc; on systems without it there is nothing to say. The numbers are the whole machine's, as Triton's are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    """The share of all CPUs' time that was busy since the last look, 0 to 1. Owner: who scrapes."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._stat = proc / "stat"
        self._busy = self._total = 0
        self._share = 0.0
        self.read()

    def read(self) -> float | None:
        """The share since the last call (the previous answer when no time passed), or None where it cannot be known."""
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
        if total > self._total:
            self._share = min(1.0, max(0.0, (busy - self._busy) / (total - self._total)))
            self._busy, self._total = busy, total
        return self._share
