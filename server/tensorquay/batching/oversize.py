"""A request with more rows than the model's maximum, as several riders with one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tensorquay.batching.rider import Outcome, Rider
from tensorquay.core.datatypes import Array
from tensorquay.core.packed import BatchRun, Part, Ride, as_array
from tensorquay.core.signature import TensorSpec


def divide(rider: Rider, max_rows: int, inputs: Sequence[TensorSpec], *, leave: Callable[[Rider], None]) -> list[Rider]:
    """Pieces of at most `max_rows` rows, in order, whose rides are joined into `rider`'s one outcome.

    Args: inputs: the signature's. leave: how a piece leaves its queue; called for the others as soon as one fails or
        the client has left.
    The joined times: longest wait, summed computing; the rows are all of them.
    """
    pieces: list[Rider] = []
    joint = _Joint(rider, pieces, leave)
    arrays = [
        None if part is None or rest is None else as_array(part, spec.datatype, (rider.rows, *rest))
        for part, rest, spec in zip(rider.arrays, rider.key, inputs, strict=True)
    ]
    for start in range(0, rider.rows, max_rows):
        stop = min(start + max_rows, rider.rows)
        pieces.append(_Piece(joint, [None if array is None else array[start:stop] for array in arrays], stop - start))
    return pieces


class _Piece(Rider):
    """Some rows of a request, which it shares everything else with."""

    __slots__ = ("_joint", "_number")

    def __init__(self, joint: _Joint, arrays: Sequence[Part | None], rows: int) -> None:
        whole = joint.rider
        super().__init__(arrays, rows, whole.key, whole.wanted, whole.priority, whole.timeout_us, whole.deadline_ns)
        self.trace = whole.trace
        self._joint = joint
        self._number = len(joint.pieces)

    def settle(self, outcome: Outcome) -> None:
        self._joint.arrived(self._number, outcome)


class _Joint:
    """Collects the pieces' outcomes. Loop-confined; owner: the pieces."""

    def __init__(self, rider: Rider, pieces: list[Rider], leave: Callable[[Rider], None]) -> None:
        self.rider = rider
        self.pieces = pieces
        self._leave = leave
        self._rides: dict[int, Ride] = {}
        self._failed = False

    def arrived(self, number: int, outcome: Outcome) -> None:
        """Piece `number` has ended."""
        if self._failed:
            return
        if not isinstance(outcome, Ride):
            self._failed = True
            for other in self.pieces:
                self._leave(other)
            self.rider.done = True
            self.rider.settle(outcome)
            return
        self._rides[number] = outcome
        if len(self._rides) == len(self.pieces):
            self.rider.done = True
            self.rider.settle(self._joined())

    def _joined(self) -> Ride:
        rides = [self._rides[number] for number in range(len(self.pieces))]
        arrays: list[Array | None] = []
        for parts in zip(*(ride.arrays for ride in rides), strict=True):
            present = [part for part in parts if part is not None]
            arrays.append(np.concatenate(present) if present else None)
        run = BatchRun(
            rides[0].run.specs,
            arrays,
            self.rider.rows,
            input_ns=sum(ride.run.input_ns for ride in rides),
            infer_ns=sum(ride.run.infer_ns for ride in rides),
            output_ns=sum(ride.run.output_ns for ride in rides),
        )
        return Ride(run, 0, self.rider.rows, max(ride.queue_ns for ride in rides), self.rider.wanted)
