"""One request (or one piece of an oversize request) on its way through a batcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from tensorquay.core.packed import Part, Ride
from tensorquay.core.request_trace import RequestTrace
from tensorquay.core.signature import ShapeKey
from tensorquay.telemetry.tracing import Trace

Outcome: TypeAlias = Ride | Exception
"""A ride, a `ServingError` that is the answer, or an exception nobody expected (the engine words that one)."""


class Rider:
    """A waiting or riding request. Loop-confined; owner: the batcher it was submitted to.

    A subclass says what `settle` means. Not a dataclass, and made in one step: there is one for every request.

    Attributes:
        arrays: in the signature's input order; None for an optional input that was not sent.
        wanted: output positions, None for all.
        expires_ns: when it leaves the queue unserved; 0 for never.
        done: it was settled; it is skipped wherever it still lies.
        held: an outcome kept back until earlier riders have theirs (preserve_ordering).
        pieces: an oversize request never waits itself: these do, in its stead.
        trace: what is recorded of it, if it is one of the few.
    """

    __slots__ = (
        "arrays",
        "deadline_ns",
        "delayed",
        "done",
        "enqueued_ns",
        "expires_ns",
        "held",
        "key",
        "level",
        "pieces",
        "priority",
        "rows",
        "running",
        "timeout_us",
        "trace",
        "wanted",
    )

    def __init__(
        self,
        arrays: Sequence[Part | None],
        rows: int,
        key: ShapeKey,
        wanted: tuple[int, ...] | None = None,
        priority: int = 0,
        timeout_us: int = 0,
        deadline_ns: int | None = None,
    ) -> None:
        self.arrays = arrays
        self.rows = rows
        self.key = key
        self.wanted = wanted
        self.priority = priority
        self.timeout_us = timeout_us
        self.deadline_ns = deadline_ns
        self.enqueued_ns = 0
        self.expires_ns = 0
        self.level = 0
        self.delayed = False
        self.running = False
        self.done = False
        self.held: Outcome | None = None
        self.pieces: Sequence[Rider] = ()
        self.trace: Trace | RequestTrace | None = None

    def settle(self, outcome: Outcome) -> None:
        """Its end. Called exactly once, on the loop, by the batcher only; must not raise."""
        raise NotImplementedError
