"""Bodies on their way in, for hot routes: received once, into memory of the right size, within the server's budget."""

from __future__ import annotations

from typing import Protocol

from tensorquay.core.errors import InvalidArgument
from tensorquay.transport.buffers import POOLED_FROM_BYTES, BufferPool
from tensorquay.transport.chunked import ChunkedDecoder

_ALIGNMENT = 16
"""Tensors that begin at a multiple of this are run where they were received; others are copied first."""


class Budget(Protocol):
    """What an intake asks of its server."""

    max_body_bytes: int
    pool: BufferPool

    def book(self, count: int) -> None:
        """Count `count` more bytes as being received; negative when they have been.

        Raises: Overloaded.
        """
        ...


class Intake:
    """The body being received on one connection, if any. Loop-confined; owner: the connection."""

    __slots__ = ("_booked", "_buffer", "_chunks", "_filled", "_pieces", "_server")

    def __init__(self, server: Budget) -> None:
        self._server = server
        self._buffer = memoryview(b"")
        self._filled = 0
        self._chunks: ChunkedDecoder | None = None
        self._pieces: list[bytes] = []
        self._booked = 0

    @property
    def progress_bytes(self) -> int:
        """How much of it has come."""
        return self._booked if self._chunks is not None else self._filled

    def check_length(self, length: int) -> None:
        """Refuse a body of `length` bytes before its first.

        Raises: InvalidArgument when it is too long.
        """
        if length > self._server.max_body_bytes:
            raise self._too_large(f"{length} bytes")

    def begin(self, length: int, have: bytes, *, tensors_at: int) -> None:
        """Receive a body of `length` bytes, of which `have` is there.

        Args: tensors_at: where in it tensors begin; that place is aligned.
        Raises: Overloaded when the server's budget is spent.
        """
        self._book(length)
        if length >= POOLED_FROM_BYTES:
            skip = -tensors_at % _ALIGNMENT
            self._buffer = self._server.pool.take(length + skip)[skip:]
        else:
            self._buffer = memoryview(bytearray(length))
        self._buffer[: len(have)] = have
        self._filled = len(have)

    def room(self) -> memoryview:
        """Where the next bytes belong."""
        return self._buffer[self._filled :]

    def received(self, count: int) -> bool:
        """`count` bytes have been put there; whether the body is complete."""
        self._filled += count
        return self._filled == len(self._buffer)

    def begin_chunked(self) -> None:
        """Receive a chunked body."""
        self._chunks = ChunkedDecoder()

    def feed(self, data: bytes) -> tuple[bool, bytes]:
        """More of a chunked body: whether it is complete, and what follows it.

        Raises: BadChunk; InvalidArgument when it is too long; Overloaded.
        """
        assert self._chunks is not None
        pieces, after = self._chunks.feed(data)
        size = sum(map(len, pieces))
        if self._booked + size > self._server.max_body_bytes:
            raise self._too_large(f"more than {self._server.max_body_bytes} bytes")
        self._book(size)
        self._pieces.extend(pieces)
        return self._chunks.done, after

    def take(self) -> bytes | memoryview:
        """The complete body; the intake is free again."""
        body = b"".join(self._pieces) if self._chunks is not None else self._buffer
        self.drop()
        return body

    def drop(self) -> None:
        """Let go of everything, complete or not."""
        self._buffer, self._filled = memoryview(b""), 0
        self._chunks, self._pieces = None, []
        self._server.book(-self._booked)
        self._booked = 0

    def _book(self, count: int) -> None:
        self._server.book(count)
        self._booked += count

    def _too_large(self, got: str) -> InvalidArgument:
        limit = self._server.max_body_bytes
        return InvalidArgument(
            f"request body is {got}, at most {limit} bytes are accepted; send less or raise --http-max-input-size",
            facts={"limit": limit},
        )
