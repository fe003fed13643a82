"""gRPC's length-prefixed messages out of whatever pieces a stream's data comes in.

A small message is collected, a large one is received into a buffer of its own, if possible straight from the socket.
Memory is taken as bytes arrive, not as they are promised: a prefix can promise 4 GiB for five bytes.
Source: gRPC over HTTP/2, "Length-Prefixed-Message".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tensorquay.core.errors import Overloaded, ServingError
from tensorquay.transport.buffers import POOLED_FROM_BYTES, BufferPool

PREFIX_BYTES = 5

_FIRST_BYTES = 2**20
"""A large message's first buffer, once this message has brought `_SERIOUS_BYTES`."""
_SERIOUS_BYTES = 4096
_GROWTH = 8
"""A full buffer is replaced by one so much larger: a sender gets at most this multiple of what it sent."""


@dataclass(slots=True)
class ReceiveBudget:
    """Bytes of unfinished messages, over all connections. Loop-confined; owner: the server. `limit` 0: no bound."""

    limit: int
    held: int = 0

    def take(self, count: int) -> None:
        """Book `count` more bytes.

        Raises: Overloaded when they do not fit beside what others hold.
        """
        if self.limit and self.held and self.held + count > self.limit:
            raise Overloaded(
                f"server overloaded: {self.held} bytes of requests are being received, at most {self.limit} may; "
                "retry after a pause (--max-inflight-bytes)",
                facts={"limit": self.limit},
                retry_after_s=1.0,
            )
        self.held += count


def too_large(size: int, limit: int) -> ServingError:
    """The answer to a message beyond the limit, in grpcio's words and with its status."""
    return Overloaded(f"Received message larger than max ({size} vs. {limit}, --grpc-max-message-size)")


class Inbox:
    """The messages of one call whose data does not come as one whole message. Owner: the call.

    Args:
        deliver: takes a message and whether it is compressed. Its `bytes` are its own; a memoryview is over a buffer
            that lives as long as the view.
        keeps: whether a large message stays booked until `close`: its client may end its side much later.
    """

    __slots__ = (
        "_booked",
        "_budget",
        "_buffer",
        "_compressed",
        "_deliver",
        "_filled",
        "_keeps",
        "_max_bytes",
        "_pool",
        "_prefix",
        "_since_ns",
        "_size",
        "_small",
        "_touched",
    )

    def __init__(
        self,
        budget: ReceiveBudget,
        pool: BufferPool,
        max_bytes: int,
        deliver: Callable[[bytes | memoryview, bool], None],
        *,
        keeps: bool = False,
    ) -> None:
        self._keeps = keeps
        self._budget = budget
        self._pool = pool
        self._max_bytes = max_bytes
        self._deliver = deliver
        self._prefix = b""
        self._compressed = False
        self._size = -1
        self._filled = 0
        self._booked = 0
        self._small: bytearray | None = None
        self._buffer: memoryview | None = None
        self._touched = True
        self._since_ns = 0

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and is not complete."""
        return self._size >= 0 or bool(self._prefix)

    def waits(self, now_ns: int) -> int:
        """How long, between calls of this method, nothing has come of an unfinished message; in nanoseconds."""
        if self._touched or not self.unfinished:
            self._touched = False
            self._since_ns = now_ns
        return now_ns - self._since_ns

    def feed(self, data: bytes | memoryview, start: int, stop: int) -> int:
        """Take `data[start:stop]`, at most to the end of the first message in it. Returns: where it stopped.

        Raises: ServingError when the message is refused; the inbox is of no more use then, except to `close`.
        """
        self._touched = True
        if self._size < 0:
            want = PREFIX_BYTES - len(self._prefix)
            self._prefix += bytes(data[start : min(stop, start + want)])
            if stop - start < want:
                return stop
            start += want
            self._begin()
            if self._size <= stop - start:
                end = start + self._size
                self._size = -1
                self._deliver(bytes(data[start:end]), self._compressed)
                return end
            if start == stop:
                return stop
        end = min(stop, start + self._size - self._filled)
        self._add(data[start:end], end - start)
        return end

    def direct(self) -> memoryview | None:
        """Where the next bytes of a large message belong, or None when there is no such place."""
        return None if self._buffer is None else self._buffer[self._filled :]

    def filled(self, count: int) -> None:
        """`count` bytes were written to what `direct` returned; no more than the message lacks."""
        self._touched = True
        self._filled += count
        self._check_complete()

    def close(self) -> None:
        """Let go of what was received: the call has ended, or is served."""
        self._small = self._buffer = None
        self._unbook()

    def _begin(self) -> None:
        prefix, self._prefix = self._prefix, b""
        if prefix[0] > 1:
            raise ServingError(f"the gRPC message has flag {prefix[0]}, only 0 and 1 are defined")
        self._compressed = prefix[0] == 1
        size = int.from_bytes(prefix[1:], "big")
        if size > self._max_bytes:
            raise too_large(size, self._max_bytes)
        self._size = size
        self._filled = 0

    def _add(self, piece: bytes | memoryview, count: int) -> None:
        if self._buffer is None and self._size >= POOLED_FROM_BYTES and self._filled + count >= _SERIOUS_BYTES:
            self._enlarge(max(_FIRST_BYTES, _GROWTH * (self._filled + count)))
        if self._buffer is None:
            self._budget.take(count)
            self._booked += count
            if self._small is None:
                self._small = bytearray()
            self._small += piece
            self._filled += count
        else:
            while count > (room := len(self._buffer) - self._filled):
                self._buffer[self._filled :] = piece[:room]
                self._filled += room
                piece, count = piece[room:], count - room
                self._enlarge(_GROWTH * self._filled)
            self._buffer[self._filled : self._filled + count] = piece
            self._filled += count
        self._check_complete()

    def _check_complete(self) -> None:
        if self._filled < self._size:
            return
        whole: bytes | memoryview
        if self._buffer is not None:
            whole, self._buffer = self._buffer[: self._size], None
        else:
            assert self._small is not None
            whole, self._small = bytes(self._small), None
        self._size = -1
        if not self._keeps:
            self._unbook()
        self._deliver(whole, self._compressed)

    def _enlarge(self, wanted: int) -> None:
        """Move what has arrived into a buffer of `wanted` bytes, or of the message's size if that is less."""
        capacity = min(wanted, self._size)
        self._budget.take(capacity - self._booked)
        self._booked = capacity
        try:
            buffer = self._pool.take(capacity)
        except MemoryError:
            raise Overloaded(f"no memory for a request of {self._size} bytes, retry later", retry_after_s=1.0) from None
        if self._small is not None:
            buffer[: self._filled] = self._small
            self._small = None
        elif self._buffer is not None:
            buffer[: self._filled] = self._buffer[: self._filled]
        self._buffer = buffer

    def _unbook(self) -> None:
        self._budget.held -= self._booked
        self._booked = 0
