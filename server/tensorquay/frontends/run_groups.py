"""The requests of one front end that rode in one batch, and what is sent for all of them together.

Usually that is the batch's outputs once and which rows are whose. Only where they are large and others rode along,
each request gets its own rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorquay.core.datatypes import DataType
from tensorquay.core.messages import InferResponse
from tensorquay.core.packed import Ride
from tensorquay.frontends.arena import FROM_BYTES
from tensorquay.frontends.templates import Spec


@dataclass(slots=True)
class RunPart:
    """One record: `rows` rows of every output, and (call, first row, row after the last) of each request, flat."""

    rows: int
    buffers: list[bytes | memoryview]
    riders: tuple[int, ...]


class RunGroup:
    """See the module. Lives for one turn of the loop; owner: the owner's end of a link.

    Args:
        response: the answer to one of the requests.
        ride: its outputs.
    """

    __slots__ = ("_positions", "_run", "batches", "packable", "response", "riders")

    def __init__(self, response: InferResponse, ride: Ride) -> None:
        run = self._run = ride.run
        self.response = response
        self._positions = range(len(run.specs)) if ride.wanted is None else ride.wanted
        self.packable = all(run.specs[position].datatype is not DataType.BYTES for position in self._positions)
        """Whether the rows of every output can be cut out of its bytes."""
        self.batches = any(_rank(run.arrays[p]) > len(run.shapes[p] or ()) for p in self._positions)
        """Whether axis 0 of every output is its rows."""
        self.riders: tuple[int, ...] = ()

    def specs(self, rows: int) -> tuple[Spec, ...]:
        """Of the outputs, when there are `rows` rows."""
        run = self._run
        lead = (rows,) if self.batches else ()
        return tuple(
            [(run.specs[p].name, run.specs[p].datatype.wire, lead + (run.shapes[p] or ())) for p in self._positions]
        )

    def parts(self) -> Iterator[RunPart]:
        """What is sent."""
        run, riders = self._run, self.riders
        if not riders:
            return
        whole = [(run.known_bytes.get(position) or run.bytes_of(position)) for position in self._positions]
        covered = sum(riders[2::3]) - sum(riders[1::3]) == run.rows
        if covered or sum(len(data) for data, _ in whole) < FROM_BYTES:
            yield RunPart(run.rows, [data for data, _ in whole], riders)
            return
        for at in range(0, len(riders), 3):
            call, start, stop = riders[at : at + 3]
            rows = [data[start * width : stop * width] for data, width in whole]
            yield RunPart(stop - start, rows, (call, 0, stop - start))


def _rank(array: object) -> int:
    return int(getattr(array, "ndim", 0))
