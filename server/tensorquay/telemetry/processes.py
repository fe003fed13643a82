"""CPU time of this server's processes: its own and its front ends'."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_MAX_STAT_BYTES = 4096


class CpuUse:
    """CPU seconds, user and system, of this process and of others, since each began. Owner: who asks.

    What an ended process had used stays in the sum, as far as it was seen: the sum never goes back.

    Args:
        others: process ids of the front ends alive now.
        proc: where Linux shows processes; elsewhere only this process is counted.
    """

    def __init__(self, others: Callable[[], Iterable[int]] | None = None, *, proc: Path = Path("/proc")) -> None:
        self._others = others
        self._proc = proc
        self._alive: dict[int, float] = {}
        self._ended = 0.0

    def own_seconds(self) -> float:
        """This process's."""
        return time.process_time()

    def other_seconds(self) -> float:
        """The others'."""
        if self._others is None:
            return 0.0
        before, self._alive = self._alive, {}
        for pid in self._others():
            used = cpu_seconds_of(pid, self._proc)
            if used is None:
                # It lives, and cannot be looked at just now (no free descriptor): what it had used, it has used.
                used = before.get(pid, 0.0)
            self._alive[pid] = used
        for pid, used in before.items():
            # A number may be given to a new process, which begins at zero.
            if self._alive.get(pid, -1.0) < used:
                self._ended += used
        return self._ended + sum(self._alive.values())

    def seconds(self) -> float:
        """All of it."""
        return self.own_seconds() + self.other_seconds()


def cpu_seconds_of(pid: int, proc: Path = Path("/proc")) -> float | None:
    """CPU seconds that process `pid` has used; None where that cannot be known (it ended, no /proc, garbage)."""
    try:
        with (proc / str(pid) / "stat").open("rb") as stream:
            # The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
            fields = stream.read(_MAX_STAT_BYTES).rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, ValueError, IndexError):
        return None
