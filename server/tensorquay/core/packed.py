"""Tensors as the bytes they arrived in, and the outputs of a run as the bytes they leave in.

Most requests are joined to a batch, and answers cut out of one, without anybody looking at a single tensor. So arrays
and `Tensor` objects of one request are made only for who asks for them: a numpy array costs more than its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.tensors import Tensor

if TYPE_CHECKING:
    from tensorquay.core.signature import TensorSpec

Part: TypeAlias = Array | bytes | memoryview
"""One tensor of one request: an array, or the bytes of its fixed-size elements, row-major."""

_SLICED_BYTES = 4096
"""Up to here a copy of some bytes is cheaper than a view of them."""

_JOINED_BYTES = 64 * 1024
"""Up to here all rows of an output are copied to `bytes` at once, which makes each answer's slice cheap."""


def as_array(part: Part, datatype: DataType, shape: tuple[int, ...]) -> Array:
    """`part` as an array of that type and shape; no copy."""
    if isinstance(part, np.ndarray):
        return part
    # An empty buffer has no first element to point at.
    return np.frombuffer(part, datatype.numpy).reshape(shape) if len(part) else np.empty(shape, datatype.numpy)


class _Lazy(Sequence[Tensor]):
    """A sequence of tensors that are made when the first is asked for."""

    __slots__ = ("_made",)

    _made: list[Tensor] | None

    def _make(self) -> list[Tensor]:
        raise NotImplementedError

    def tensors(self) -> list[Tensor]:
        """All of them."""
        if self._made is None:
            self._made = self._make()
        return self._made

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        return self.tensors()[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensors())

    def __len__(self) -> int:
        return len(self.tensors())


class PackedLayout:
    """Where the tensors of requests like one before lie in their bytes.

    Args:
        tensors: those of the request before, all of fixed-size types whose bytes may be anything.
        offsets: where the bytes of each begin.
    """

    __slots__ = ("cuts", "datatypes", "names", "shapes")

    def __init__(self, tensors: Sequence[Tensor], offsets: Sequence[int]) -> None:
        self.names = tuple(tensor.name for tensor in tensors)
        self.datatypes = tuple(tensor.datatype for tensor in tensors)
        self.shapes = tuple(tensor.shape for tensor in tensors)
        self.cuts = tuple((offset, offset + tensor.byte_size) for tensor, offset in zip(tensors, offsets, strict=True))


class PackedTensors(_Lazy):
    """The inputs of a request whose layout is known. `parts`: the bytes of each, in the order they were sent."""

    __slots__ = ("_layout", "parts")

    def __init__(self, layout: PackedLayout, parts: Sequence[bytes | memoryview]) -> None:
        self._layout = layout
        self.parts = parts
        self._made = None

    @classmethod
    def cut(cls, layout: PackedLayout, data: bytes | memoryview, base: int) -> PackedTensors:
        """Those in `data`, `base` bytes further on than the layout counts."""
        if len(data) > _SLICED_BYTES:
            data = memoryview(data)
        return cls(layout, [data[base + start : base + stop] for start, stop in layout.cuts])

    def _make(self) -> list[Tensor]:
        layout = self._layout
        return [
            Tensor(name, datatype, as_array(part, datatype, shape))
            for name, datatype, shape, part in zip(
                layout.names, layout.datatypes, layout.shapes, self.parts, strict=True
            )
        ]


class BatchRun:
    """One run of a model, and what it gave to all who rode in it.

    Args:
        specs: the model's outputs.
        arrays: one per output, None where nobody wanted it.
        batches: whether axis 0 of each is `rows`; otherwise one rider had the run to himself.

    Attributes:
        shapes: of the outputs, without the axis of rows.
        known_bytes: what `bytes_of` has given.
        memo: what an encoder found out for one rider of this run and need not find out again for the others.
    """

    __slots__ = (
        "_texts",
        "arrays",
        "infer_ns",
        "input_ns",
        "known_bytes",
        "memo",
        "output_ns",
        "rows",
        "shapes",
        "specs",
    )

    def __init__(
        self,
        specs: tuple[TensorSpec, ...],
        arrays: Sequence[Array | None],
        rows: int,
        *,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
        batches: bool = True,
    ) -> None:
        self.specs = specs
        self.arrays = arrays
        self.rows = rows
        self.input_ns = input_ns
        self.infer_ns = infer_ns
        self.output_ns = output_ns
        skip = 1 if batches else 0
        self.shapes = tuple([None if array is None else array.shape[skip:] for array in arrays])
        self.memo: dict[object, Any] = {}
        self.known_bytes: dict[int, tuple[bytes | memoryview, int]] = {}
        self._texts: dict[int, list[bytes] | None] = {}

    def bytes_of(self, position: int) -> tuple[bytes | memoryview, int]:
        """The binary form of a whole output of a fixed-size type, and how many bytes of it are one row."""
        array = self.arrays[position]
        assert array is not None
        if array.nbytes <= _JOINED_BYTES:
            data: bytes | memoryview = array.tobytes()
        else:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        known = self.known_bytes[position] = data, len(data) // (self.rows or 1)
        return known

    def texts_of(self, position: int, write: Callable[[DataType, Array], list[bytes] | None]) -> list[bytes] | None:
        """What `write` makes of a whole output: a text per row, or None when it cannot. Asked once per run."""
        try:
            return self._texts[position]
        except KeyError:
            array = self.arrays[position]
            assert array is not None
            found = self._texts[position] = write(self.specs[position].datatype, array)
            return found


class Ride(_Lazy):
    """The rows of a run that answer one request: the tensors it asked for, and where its time went.

    Attributes:
        wanted: positions of the outputs that are the answer, in its order; None for all.
    """

    __slots__ = ("queue_ns", "run", "start", "stop", "wanted")

    def __init__(
        self, run: BatchRun, start: int, stop: int, queue_ns: int, wanted: tuple[int, ...] | None = None
    ) -> None:
        self.run = run
        self.start = start
        self.stop = stop
        self.queue_ns = queue_ns
        self.wanted = wanted
        self._made = None

    @property
    def compute_input_ns(self) -> int:
        """Of the run."""
        return self.run.input_ns

    @property
    def compute_infer_ns(self) -> int:
        """Of the run."""
        return self.run.infer_ns

    @property
    def compute_output_ns(self) -> int:
        """Of the run."""
        return self.run.output_ns

    @property
    def batch_rows(self) -> int:
        """Of the run."""
        return self.run.rows

    @property
    def rows(self) -> int:
        """Of these its own."""
        return self.stop - self.start

    @property
    def arrays(self) -> tuple[Array | None, ...]:
        """Its rows of every output, None where the run did not give it."""
        return tuple(None if whole is None else self._rows(whole) for whole in self.run.arrays)

    def buffer(self, position: int) -> bytes | memoryview:
        """The binary form of its rows of an output of a fixed-size type."""
        data, width = self.run.known_bytes.get(position) or self.run.bytes_of(position)
        if self.start == 0 and self.stop == self.run.rows:
            return data
        return data[self.start * width : self.stop * width]

    @property
    def _whole(self) -> bool:
        # Outputs of models that do not batch have no axis of rows; their riders are alone.
        return self.start == 0 and self.stop == self.run.rows

    def _rows(self, array: Array) -> Array:
        return array if self._whole else array[self.start : self.stop]

    def _make(self) -> list[Tensor]:
        run = self.run
        tensors: list[Tensor] = []
        for position in range(len(run.specs)) if self.wanted is None else self.wanted:
            spec, array = run.specs[position], run.arrays[position]
            assert array is not None
            tensors.append(Tensor(spec.name, spec.datatype, self._rows(array)))
        return tensors
