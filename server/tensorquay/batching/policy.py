"""Decide when waiting requests become a batch.

Pure: no clock, no asyncio, no tensors; callers pass `now_ns` and anything with a key, rows and an age. The rule is
Triton's dynamic batcher with one difference: a request of another shape does not cut the batch short, later requests
of the first one's shape are taken past it (docs/batching.md). The oldest request always rides first, so nobody starves.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias


class Waiting(Protocol):
    """What the policy sees of a waiting request."""

    @property
    def key(self) -> Hashable:
        """Requests with equal keys may share a batch."""
        ...

    @property
    def rows(self) -> int:
        """Batch elements it brings."""
        ...

    @property
    def enqueued_ns(self) -> int:
        """When it began to wait."""
        ...


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a batch may be.

    `preferred_rows` ascending, each ≤ max_rows. `max_riders` 1 makes every request a run of its own.
    """

    max_rows: int
    max_delay_ns: int = 0
    preferred_rows: tuple[int, ...] = ()
    max_riders: int = 2**31


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run these now: ascending positions in the queue, the first is 0."""

    picks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing to run before `due_ns`, unless something arrives."""

    due_ns: int


Decision: TypeAlias = Dispatch | WaitUntil


def decide(queue: Sequence[Waiting], limits: BatchLimits, now_ns: int) -> Decision:
    """What to do with `queue` (in service order, not empty, each of ≤ `max_rows` rows). Same arguments, same answer.

    A batch leaves when it is full, when it reaches the largest preferred size, or when its oldest rider has waited
    `max_delay_ns`. If the delay has not passed but a smaller preferred size can be made while the next rider would
    not fit, the preferred size leaves.
    """
    head = queue[0]
    key = head.key
    max_rows = limits.max_rows
    preferred = limits.preferred_rows
    picks: list[int] = []
    rows = 0
    best_preferred = 0  # how many of `picks` make the largest preferred size met so far
    full = False
    oldest_ns = head.enqueued_ns
    for position, item in enumerate(queue):
        if item.key != key:
            continue
        if rows + item.rows > max_rows and picks:
            full = True
            break
        picks.append(position)
        rows += item.rows
        oldest_ns = min(oldest_ns, item.enqueued_ns)
        if preferred and rows in preferred:
            best_preferred = len(picks)
            if rows == preferred[-1]:
                return Dispatch(tuple(picks))
        if rows >= max_rows or len(picks) >= limits.max_riders:
            full = True
            break
    due_ns = oldest_ns + limits.max_delay_ns
    if full and best_preferred:
        return Dispatch(tuple(picks[:best_preferred]))
    if full or now_ns >= due_ns:
        return Dispatch(tuple(picks))
    return WaitUntil(due_ns)
