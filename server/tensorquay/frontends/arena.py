"""Memory that two processes share, for tensors too large to be copied through a socket.

One side writes and owns the space (`Arena`); the other one only reads (`Lent`) and says when it has let go of a range.
The memory is a memfd of fixed size, sealed so that neither side can shrink it under the other (which would be SIGBUS
at the next access). Pages are real only once they were written, and the allocator keeps to low addresses, so what is
held is what was needed at most.
"""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from tensorquay.frontends.records import PADS, BrokenLink, Part, padded

ALIGNMENT = 64
"""Where ranges begin: a cache line, and what vector instructions like best."""

FROM_BYTES = 64 * 1024
"""Tensors of this many bytes together go through the arena; smaller ones are cheaper to copy through the socket."""

ARENA_BYTES = 64 * 2**20
"""Of each direction of each front end. What does not fit goes through the socket."""

_MAX_RANGES = 4096


class Space:
    """Which bytes of an arena are taken. First fit, lowest address. Pure.

    Args: size: bytes in all, a multiple of `ALIGNMENT`.
    """

    def __init__(self, size: int) -> None:
        self._free: list[tuple[int, int]] = [(0, size)]
        self._taken: dict[int, int] = {}

    @property
    def taken(self) -> int:
        """Ranges in use."""
        return len(self._taken)

    def take(self, size: int) -> int | None:
        """Where `size` (> 0) bytes are now taken, or None when there is no room for them."""
        size = -(-size // ALIGNMENT) * ALIGNMENT
        if len(self._taken) >= _MAX_RANGES:
            return None
        for position, (start, length) in enumerate(self._free):
            if length >= size:
                if length == size:
                    del self._free[position]
                else:
                    self._free[position] = (start + size, length - size)
                self._taken[start] = size
                return start
        return None

    def release(self, start: int) -> None:
        """The range at `start` is free again.

        Raises: BrokenLink when none was taken there.
        """
        size = self._taken.pop(start, None)
        if size is None:
            raise BrokenLink(f"a range of shared memory at {start} was released that is not in use")
        free = self._free
        position = bisect_left(free, (start, 0))
        if position < len(free) and free[position][0] == start + size:
            size += free.pop(position)[1]
        if position and free[position - 1][0] + free[position - 1][1] == start:
            before, length = free[position - 1]
            free[position - 1] = (before, length + size)
        else:
            free.insert(position, (start, size))


def make_memory(name: str, size: int) -> int:
    """A sealed memfd of `size` bytes; the caller closes the descriptor.

    Raises: OSError.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Arena:
    """The side that writes. Loop-confined; owner: its end of a link.

    Args: descriptor: of `make_memory`; not kept.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._memory = mmap.mmap(descriptor, size)
        self._view = memoryview(self._memory)
        self._space = Space(size)

    @property
    def taken(self) -> int:
        """Ranges the other side still uses."""
        return self._space.taken

    def put(self, parts: Sequence[Part], size: int) -> int | None:
        """Copy `parts` in, each padded to 8 bytes (`size` in all). Returns: where, or None when there is no room."""
        start = self._space.take(size)
        if start is None:
            return None
        at, view = start, self._view
        for part in parts:
            end = at + len(part)
            view[at:end] = part
            at = start + padded(end - start)
        return start

    def release(self, start: int) -> None:
        """The other side has let go of the range at `start`.

        Raises: BrokenLink.
        """
        self._space.release(start)

    def close(self) -> None:
        """Unmap."""
        self._view.release()
        self._memory.close()


class Lent:
    """The side that reads. Loop-confined, but its ranges may be let go of in any thread; owner: its end of a link.

    Nothing has to be given back: a tensor over a range holds it, and when the last one is gone, `released` is called.

    Args:
        descriptor: of `make_memory`; not kept.
        released: gets the starts of ranges that are not used any more, on the loop.
    """

    def __init__(
        self,
        descriptor: int,
        size: int,
        *,
        loop: asyncio.AbstractEventLoop,
        released: Callable[[Sequence[int]], None],
    ) -> None:
        self._memory: mmap.mmap | None = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        self._size = size
        self._loop = loop
        self._released = released
        self._watched: dict[int, weakref.ref[npt.NDArray[np.uint8]]] = {}
        self._gone: deque[int] = deque()
        self._woken = False
        self._closed = False

    def block(self, start: int, size: int) -> memoryview:
        """The range at `start`, read-only. It is held as long as any view of it lives.

        Raises: BrokenLink for a range that is none.
        """
        if size <= 0 or start + size > self._size or start in self._watched or self._memory is None:
            raise BrokenLink(f"{size} bytes of shared memory at {start} were lent, which cannot be")
        block = np.frombuffer(self._memory, np.uint8, size, start)
        self._watched[start] = weakref.ref(block, partial(self._let_go, start))
        return block.data

    def close(self) -> None:
        """Tell nobody any more. The memory goes with its last view."""
        self._closed = True
        self._memory = None

    def _let_go(self, start: int, _reference: object) -> None:
        """In whatever thread dropped the last view."""
        self._gone.append(start)
        if not self._woken and not self._closed:
            self._woken = True
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._woken = False
        starts = []
        while self._gone:
            start = self._gone.popleft()
            del self._watched[start]
            starts.append(start)
        if starts and not self._closed:
            self._released(starts)


def layout_bytes(parts: Sequence[Part]) -> int:
    """Bytes that `parts` take when each is padded."""
    return sum(padded(len(part)) for part in parts)


def inline(parts: Sequence[Part]) -> list[Part]:
    """`parts`, each padded, for a record."""
    out: list[Part] = []
    for part in parts:
        out.append(part)
        if len(part) & 7:
            out.append(PADS[-len(part) & 7])
    return out
