"""What other processes have used: CPU time and peak memory, from the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessTree:
    """A process and the children it had when this was made."""

    processes: tuple[psutil.Process, ...]

    @classmethod
    def of(cls, pid: int) -> ProcessTree:
        """The tree below `pid`."""
        root = psutil.Process(pid)
        return cls((root, *root.children(recursive=True)))

    def cpu_s(self) -> float:
        """User and system time so far, in seconds, ended children included; the kernel counts in steps of 10 ms."""
        times = [process.cpu_times() for process in self.processes]
        return float(sum(time.user + time.system + time.children_user + time.children_system for time in times))

    def peak_bytes(self) -> int:
        """Largest resident size each process ever had, summed."""
        return sum(_status(process.pid, "VmHWM") for process in self.processes)

    def resident_bytes(self) -> int:
        """Resident now, summed."""
        return sum(_status(process.pid, "VmRSS") for process in self.processes)


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no {field}: it has ended")
