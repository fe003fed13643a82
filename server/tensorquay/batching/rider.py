"""One request (or one piece of an oversize request) on its way through a batcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tensorquay.core.datatypes import Array
from tensorquay.core.signature import ShapeKey


@dataclass(slots=True)
class Ride:
    """What a rider gets: arrays per output position (None where it did not ask), and where the time went, in ns."""

    arrays: tuple[Array | None, ...]
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    batch_rows: int


Outcome: TypeAlias = Ride | Exception
"""A ride, a `ServingError` that is the answer, or an exception nobody expected (the engine words that one)."""


@dataclass(slots=True, eq=False)
class Rider:
    """A waiting or riding request. Loop-confined; owner: the batcher it was submitted to.

    `arrays` are in the signature's input order. `wanted` are output positions, None for all. `settle` is called
    exactly once, on the loop, by the batcher only; a rider whose `done` is set is skipped wherever it still lies.
    """

    arrays: Sequence[Array | None]
    rows: int
    key: ShapeKey
    settle: Callable[[Outcome], None]
    wanted: tuple[int, ...] | None = None
    priority: int = 0
    timeout_us: int = 0
    deadline_ns: int | None = None
    enqueued_ns: int = 0
    expires_ns: int = 0
    """When it leaves the queue unserved; 0 for never."""
    level: int = 0
    delayed: bool = False
    running: bool = False
    done: bool = False
    held: Outcome | None = None
    """An outcome kept back until earlier riders have theirs (preserve_ordering)."""
    pieces: list[Rider] = field(default_factory=list)
    """An oversize request never waits itself: these do, in its stead."""
