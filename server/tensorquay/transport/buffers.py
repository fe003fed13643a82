"""Memory for large request bodies: received into once, lent to the tensors over it, used again when they are gone.

A fresh 600 KB buffer per request costs page faults that take longer than the copy they save (docs/performance.md).
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

POOLED_FROM_BYTES = 64 * 1024
"""Smaller bodies are plain bytes."""

_MAX_POOLED_BYTES = 8 * 2**20
_MAX_KEPT = 64
# What `getrefcount` sees of a buffer that only the pool knows: the list, the loop variable, and its own argument.
_FREE = 3

Buffer = npt.NDArray[np.uint8]
"""One-dimensional bytes; whoever makes a view of it keeps it from being used again."""


class BufferPool:
    """Buffers that nobody uses any more, found by their reference counts. Loop-confined; owner: one server.

    Nothing has to be given back: a tensor over a body holds its buffer, and lets go of it when the prediction ends.
    """

    def __init__(self) -> None:
        self._kept: list[Buffer] = []

    def take(self, size: int) -> memoryview:
        """`size` writable bytes with whatever they held before; the caller writes them all."""
        if size > _MAX_POOLED_BYTES:
            return np.empty(size, np.uint8).data
        best: Buffer | None = None
        for buffer in self._kept:
            if sys.getrefcount(buffer) == _FREE and size <= len(buffer) and (best is None or len(buffer) < len(best)):
                best = buffer
        if best is None or len(best) > 4 * size:
            # Rounded up, so that bodies of nearly one size share buffers.
            best = np.empty(-(-size // POOLED_FROM_BYTES) * POOLED_FROM_BYTES, np.uint8)
            if len(self._kept) >= _MAX_KEPT:
                self._drop_one()
            self._kept.append(best)
        return best.data[:size]

    def _drop_one(self) -> None:
        """Make room: forget a free buffer if there is one, else the oldest; it lives until its user is done."""
        for position, buffer in enumerate(self._kept):
            if sys.getrefcount(buffer) == _FREE:
                del self._kept[position]
                return
        del self._kept[0]
