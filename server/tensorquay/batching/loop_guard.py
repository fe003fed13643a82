"""When a model that runs on the event loop does so no longer.

A model is put there because its runs were measured cheap at load. What a run costs may depend on its data all the same
(a loop in the graph, a longer sequence), and a slow one on the loop holds up every client of the server.
"""

from __future__ import annotations

SLOW_NS = 5_000_000
"""A run that takes so long is slow; cheap ones take a fortieth of it."""

MOST_NS = 100_000_000
"""Slow runs may take so long together …"""

_FORGIVEN = 20
"""… less one part in so many of the time that has passed: what a busy machine does now and then is nobody's fault."""


class LoopGuard:
    """Counts slow runs of one version. Loop-confined; owner: its batcher."""

    __slots__ = ("_held_ns", "_seen_ns")

    def __init__(self) -> None:
        self._held_ns = 0
        self._seen_ns = 0

    def ends(self, run_ns: int, now_ns: int) -> bool:
        """A slow run of `run_ns` has ended at `now_ns`. Returns: whether it was one too many."""
        forgiven_ns = (now_ns - self._seen_ns) // _FORGIVEN
        self._seen_ns = now_ns
        self._held_ns = max(self._held_ns - forgiven_ns, 0) + run_ns
        return self._held_ns > MOST_NS
