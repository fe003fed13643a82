"""A request with more rows than the model's maximum, as several riders with one answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tensorquay.batching.rider import Outcome, Ride, Rider
from tensorquay.core.datatypes import Array


def divide(rider: Rider, max_rows: int, *, leave: Callable[[Rider], None]) -> list[Rider]:
    """Pieces of at most `max_rows` rows, in order, whose rides are joined into `rider`'s one outcome.

    Args: leave: how a piece leaves its queue; called for the others as soon as one fails or the client has left.
    The joined times: longest wait, summed computing, largest batch.
    """
    pieces: list[Rider] = []
    joint = _Joint(rider, pieces, leave)
    for number, start in enumerate(range(0, rider.rows, max_rows)):
        stop = min(start + max_rows, rider.rows)
        pieces.append(
            Rider(
                arrays=[None if array is None else array[start:stop] for array in rider.arrays],
                rows=stop - start,
                key=rider.key,
                settle=joint.slot(number),
                wanted=rider.wanted,
                priority=rider.priority,
                timeout_us=rider.timeout_us,
                deadline_ns=rider.deadline_ns,
            )
        )
    return pieces


class _Joint:
    """Collects the pieces' outcomes. Loop-confined; owner: the pieces' settle callbacks."""

    def __init__(self, rider: Rider, pieces: list[Rider], leave: Callable[[Rider], None]) -> None:
        self._rider = rider
        self._pieces = pieces
        self._leave = leave
        self._rides: dict[int, Ride] = {}
        self._failed = False

    def slot(self, number: int) -> Callable[[Outcome], None]:
        """The settle callback of piece `number`."""
        return lambda outcome: self._arrived(number, outcome)

    def _arrived(self, number: int, outcome: Outcome) -> None:
        if self._failed:
            return
        if not isinstance(outcome, Ride):
            self._failed = True
            for other in self._pieces:
                self._leave(other)
            self._rider.done = True
            self._rider.settle(outcome)
            return
        self._rides[number] = outcome
        if len(self._rides) == len(self._pieces):
            self._rider.done = True
            self._rider.settle(self._joined())

    def _joined(self) -> Ride:
        rides = [self._rides[number] for number in range(len(self._pieces))]
        arrays: list[Array | None] = []
        for parts in zip(*(ride.arrays for ride in rides), strict=True):
            present = [part for part in parts if part is not None]
            arrays.append(np.concatenate(present) if present else None)
        return Ride(
            arrays=tuple(arrays),
            queue_ns=max(ride.queue_ns for ride in rides),
            input_ns=sum(ride.input_ns for ride in rides),
            infer_ns=sum(ride.infer_ns for ride in rides),
            output_ns=sum(ride.output_ns for ride in rides),
            batch_rows=max(ride.batch_rows for ride in rides),
        )
