"""What any load generator reports, and the shape of load it is asked for."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class GeneratorFailed(Exception):
    """A load generator did not do what it was asked, or an answer was not a success: there is no figure."""


@dataclass(frozen=True)
class Shape:
    """How many requests, and how many of them at once: `streams` on each of `connections` (1 over HTTP/1.1)."""

    requests: int
    connections: int
    streams: int = 1

    @property
    def in_flight(self) -> int:
        """Requests under way at once."""
        return self.connections * self.streams


@dataclass(frozen=True)
class Reading:
    """One measurement.

    Args:
        requests: in the window that the times are of.
        answered: all that the generator got a success for, by its own report; the server must have counted as many.
        seconds: length of the window.
        server_cpu_s, generator_cpu_s: user and system time in the window.
        body_bytes: of all answers together, where the generator counts them exactly.
    """

    requests: int
    answered: int
    seconds: float
    server_cpu_s: float
    generator_cpu_s: float
    body_bytes: int | None = None


CpuClock = Callable[[], float]
"""CPU seconds of the server's processes so far."""


def missing(program: str, package: str) -> str | None:
    """Why `program` cannot be used, and what to do; None when it can."""
    if shutil.which(program) is not None:
        return None
    return (
        f"{program} is not installed (Debian: apt-get install {package}); the project's own generator takes its place"
    )


def children_cpu_s() -> float:
    """CPU seconds of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tail(lines: Sequence[str], limit: int = 4000) -> str:
    """The end of what a program said."""
    return "".join(lines)[-limit:].strip()
