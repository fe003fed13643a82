"""Time as a dependency: monotonic nanoseconds from whoever is handed in, so that tests own the clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A source of monotonic time."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary start; never goes back."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch: for stamps people read, never for intervals."""
        ...


class SystemClock:
    """The machine's own clocks."""

    # The function itself: a method around it would double the price of every look at the clock.
    now_ns = staticmethod(time.monotonic_ns)

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return time.time_ns() // 1_000_000
