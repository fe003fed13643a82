"""A clock that moves only when told to."""

from __future__ import annotations


class ManualClock:
    """Implements `core.clock.Clock`. Both readings advance together.

    Args: start_ns: the first monotonic reading. start_wall_ms: the first wall-clock reading, in ms since the epoch.
    """

    def __init__(self, start_ns: int = 1_000_000_000, start_wall_ms: int = 1_700_000_000_000) -> None:
        self._now_ns = start_ns
        self._wall_start_ms = start_wall_ms
        self._start_ns = start_ns

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return self._now_ns

    def wall_ms(self) -> int:
        """See `Clock.wall_ms`."""
        return self._wall_start_ms + (self._now_ns - self._start_ns) // 1_000_000

    def advance(self, ns: int = 0, *, us: int = 0, ms: int = 0, s: float = 0) -> int:
        """Move on by the sum of the amounts; returns the new monotonic reading.

        Raises: ValueError for a negative sum: monotonic time never goes back.
        """
        step = ns + us * 1_000 + ms * 1_000_000 + round(s * 1e9)
        if step < 0:
            raise ValueError(f"a monotonic clock cannot go back, got {step} ns")
        self._now_ns += step
        return self._now_ns
