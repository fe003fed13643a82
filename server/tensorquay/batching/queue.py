"""The waiting riders of one version: priority levels, queue policies, time-outs.

Loop-confined; owner: the batcher. Levels are made when first used: `priority_levels` may be as large as 2^64-1.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NoReturn

from tensorquay.batching.rider import Rider
from tensorquay.config.model import BatchingConfig, QueuePolicy, TimeoutAction
from tensorquay.core.errors import InvalidArgument, Overloaded, Rejection, Unavailable

_RETRY_AFTER_S = 1.0
"""Advice to a client refused at the door: HTTP's Retry-After has whole seconds."""

_HEAP_SLACK = 64


class _Level:
    __slots__ = ("delayed", "fresh", "policy", "waiting")

    def __init__(self, policy: QueuePolicy) -> None:
        self.policy = policy
        self.fresh: deque[Rider] = deque()
        self.delayed: deque[Rider] = deque()
        self.waiting = 0  # riders that have not left; the deques may hold some that have


class RiderQueue:
    """Riders in service order: by priority level, and within a level those that timed out (DELAY) last.

    Args:
        config: levels and policies.
        max_pending: the server's own bound on waiting riders, over all levels; 0 for none.
    """

    def __init__(self, config: BatchingConfig, max_pending: int) -> None:
        self._config = config
        self._max_pending = max_pending
        self._levels: dict[int, _Level] = {}
        self._order: list[int] = []
        self._expiry: list[tuple[int, int, Rider]] = []
        self._sequence = 0
        self.waiting = 0
        """Riders in it."""

    @property
    def timed(self) -> bool:
        """Whether anybody in it may have to leave unserved."""
        return bool(self._expiry)

    def push(self, riders: Sequence[Rider], now_ns: int) -> None:
        """Let `riders`, the pieces of one request (usually just one), wait: all of them or none.

        Raises: Unavailable when the level's `max_queue_size` is reached (Triton's answer, where a request counts once,
        split or not); Overloaded when the server's own bound is; InvalidArgument for a request that could never wait.
        """
        # Nearly every request has no priority, and nearly every model no levels.
        number = self._level_of(riders[0].priority) if riders[0].priority else self._config.default_priority_level
        level = self._levels.get(number)
        if level is None:
            level = self._add_level(number)
        policy = level.policy
        if policy.max_queue_size and level.waiting >= policy.max_queue_size:
            raise Unavailable(
                f"Exceeds maximum queue size ({policy.max_queue_size} requests wait); send fewer at once or retry",
                facts={"limit": policy.max_queue_size},
                rejection=Rejection.QUEUE_FULL,
            )
        if self._max_pending and self.waiting + len(riders) > self._max_pending:
            self._refuse(riders)
        for rider in riders:
            rider.level = number
            rider.enqueued_ns = now_ns
            if rider.timeout_us or rider.deadline_ns is not None or policy.default_timeout_us:
                self._time(rider, policy, now_ns)
            level.fresh.append(rider)
        level.waiting += len(riders)
        self.waiting += len(riders)

    def _refuse(self, riders: Sequence[Rider]) -> NoReturn:
        if len(riders) > self._max_pending:
            rows = sum(rider.rows for rider in riders)
            most = self._max_pending * riders[0].rows
            raise InvalidArgument(
                f"inference request of {rows} rows is {len(riders)} batches, at most {self._max_pending} fit into the "
                f"queue: send at most {most} rows at once (--max-queue-requests)",
                facts={"expected": f"<= {most}", "got": rows},
            )
        raise Overloaded(
            f"server overloaded: {self.waiting} requests wait for this model, at most {self._max_pending} may; "
            "retry after a pause",
            facts={"limit": self._max_pending},
            retry_after_s=_RETRY_AFTER_S,
            rejection=Rejection.SERVER_QUEUE_FULL,
        )

    def _time(self, rider: Rider, policy: QueuePolicy, now_ns: int) -> None:
        """Note when `rider` leaves unserved, if it ever does."""
        timeout_us = policy.default_timeout_us
        if rider.timeout_us and policy.allow_timeout_override:
            # A request may only shorten what the model's owner set.
            timeout_us = min(rider.timeout_us, timeout_us) if timeout_us else rider.timeout_us
        rider.expires_ns = now_ns + timeout_us * 1000 if timeout_us else 0
        if rider.deadline_ns is not None:
            rider.expires_ns = min(rider.expires_ns or rider.deadline_ns, rider.deadline_ns)
        if rider.expires_ns:
            self._sequence += 1
            heapq.heappush(self._expiry, (rider.expires_ns, self._sequence, rider))

    def front(self, count: int) -> list[Rider]:
        """The first `count` riders in service order."""
        found: list[Rider] = []
        for number in self._order:
            level = self._levels[number]
            if not level.waiting:
                continue
            for lane in (level.fresh, level.delayed):
                while lane and lane[0].done:
                    lane.popleft()
                found.extend(rider for rider in islice(lane, count - len(found)) if not rider.done)
                if len(found) >= count:
                    return found
        return found

    def take(self, riders: list[Rider]) -> None:
        """Remove `riders`, which `front` has just shown: they ride now."""
        lanes: dict[int, deque[Rider]] = {}
        levels = self._levels
        for rider in riders:
            rider.running = True
            level = levels[rider.level]
            level.waiting -= 1
            lane = level.delayed if rider.delayed else level.fresh
            if lane[0] is rider:
                lane.popleft()
            else:
                lanes[id(lane)] = lane
        self.waiting -= len(riders)
        for lane in lanes.values():
            kept = [rider for rider in lane if not (rider.running or rider.done)]
            lane.clear()
            lane.extend(kept)

    def forget(self, rider: Rider) -> None:
        """Account for a waiting rider that left; the caller has set `done`. It is dropped when its turn comes."""
        level = self._levels[rider.level]
        level.waiting -= 1
        self.waiting -= 1
        gone = len(level.fresh) + len(level.delayed) - level.waiting
        if gone > level.waiting + _HEAP_SLACK:
            # Riders that left must not keep their tensors alive behind a slow head.
            for lane in (level.fresh, level.delayed):
                kept = [rider for rider in lane if not rider.done]
                lane.clear()
                lane.extend(kept)

    def expire(self, now_ns: int) -> list[Rider]:
        """Riders whose time is over and who must be refused now; those with DELAY move behind their level instead."""
        refused: list[Rider] = []
        heap = self._expiry
        while heap and heap[0][0] <= now_ns:
            _, _, rider = heapq.heappop(heap)
            if rider.done or rider.running:
                continue
            if rider.deadline_ns is not None and rider.deadline_ns <= now_ns:
                refused.append(rider)
                continue
            level = self._levels[rider.level]
            if level.policy.timeout_action is TimeoutAction.REJECT:
                refused.append(rider)
            elif not rider.delayed:
                level.fresh.remove(rider)
                rider.delayed = True
                level.delayed.append(rider)
                if rider.deadline_ns is not None:
                    self._sequence += 1
                    heapq.heappush(heap, (rider.deadline_ns, self._sequence, rider))
        return refused

    def oldest_ns(self) -> int | None:
        """When the longest waiting rider came; None when nobody waits."""
        found = None
        for level in self._levels.values():
            # Fresh riders are in order of arrival; those put back are in the order in which they were.
            first = next((rider for rider in level.fresh if not rider.done), None)
            for rider in (first, *level.delayed):
                if rider is not None and not rider.done and (found is None or rider.enqueued_ns < found):
                    found = rider.enqueued_ns
        return found

    def next_expiry_ns(self) -> int | None:
        """When `expire` next has something to do, or None."""
        heap = self._expiry
        while heap and (heap[0][2].done or heap[0][2].running):
            heapq.heappop(heap)
        if len(heap) > 2 * self.waiting + _HEAP_SLACK:
            self._expiry = heap = [entry for entry in heap if not (entry[2].done or entry[2].running)]
            heapq.heapify(heap)
        return heap[0][0] if heap else None

    def _level_of(self, priority: int) -> int:
        levels = self._config.priority_levels
        # A priority beyond the levels means the default one: Triton's rule, which its clients may rely on.
        return priority if 0 < priority <= levels else self._config.default_priority_level

    def _add_level(self, number: int) -> _Level:
        # Empty levels go first: hostile priorities must not grow the table without bound.
        for other in [n for n, level in self._levels.items() if not (level.fresh or level.delayed)]:
            del self._levels[other]
        policy = self._config.priority_queue_policies.get(number, self._config.default_queue_policy)
        level = self._levels[number] = _Level(policy)
        self._order = sorted(self._levels)
        return level
