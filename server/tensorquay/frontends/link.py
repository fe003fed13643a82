"""One end of the stream between a front end and the owner: records in, records out, one write per turn of the loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tensorquay.frontends.arena import FROM_BYTES, Arena, Lent, inline, layout_bytes
from tensorquay.frontends.records import HEAD, IN_ARENA, RANGE, BrokenLink, Kind, Part, RecordReader, record
from tensorquay.frontends.templates import Source

_log = logging.getLogger("tensorquay.frontends")

_SHARED_BYTES = 16 * 1024
"""Up to here the tensors of all records of one read are views over it. Beyond, a small request that waits long would
hold what came with it, so each payload is copied out."""

Handler = Callable[[bytes, int], None]
"""Takes a record: the buffer it is in and where it begins. Raises BrokenLink when it makes no sense."""


class Link(asyncio.Protocol):
    """See the module. Loop-confined; owner: whoever serves this end.

    Args:
        handlers: by kind.
        lost: called once when the other side has left, or when the link was given up.
        arena: this side's memory for large tensors.
        descriptor, arena_bytes: the other side's.
    """

    def __init__(
        self,
        handlers: Mapping[int, Handler],
        lost: Callable[[], None],
        *,
        arena: Arena,
        descriptor: int,
        arena_bytes: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._handlers = {**handlers, Kind.RELEASE: self._on_release}
        self._lost = lost
        self._arena = arena
        self._lent = Lent(descriptor, arena_bytes, loop=self._loop, released=self._tell_released)
        self._reader = RecordReader()
        self._transport: asyncio.WriteTransport | None = None
        self._broken = False
        self._out: list[Part] = []
        self._last: Callable[[], None] | None = None

    @classmethod
    async def over(cls, bound: socket.socket, make: Callable[[], Link]) -> Link:
        """The link that `make` makes, on a connected stream socket."""
        _, link = await asyncio.get_running_loop().create_unix_connection(make, sock=bound)
        return link

    # -- sending

    def send(self, parts: Sequence[Part]) -> None:
        """Send a record at the end of this turn. Parts must not change before."""
        if self._transport is None or self._broken:
            return
        if not self._out and self._last is None:
            self._loop.call_soon(self._flush)
        self._out.extend(parts)

    def at_the_end(self, call: Callable[[], None]) -> None:
        """Let `call` send its records when everything else of this turn has been sent. The latest one counts."""
        if not self._out and self._last is None:
            self._loop.call_soon(self._flush)
        self._last = call

    @property
    def is_open(self) -> bool:
        """Whether what is sent may still be heard."""
        return self._transport is not None and not self._broken

    @property
    def unsent_bytes(self) -> int:
        """What waits for the other side to read."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Send what waits, then end."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        last, self._last = self._last, None
        if last is not None and self.is_open:
            self._out.append(b"")  # so that `last` does not ask for another turn
            last()
        out, self._out = self._out, []
        if out and self._transport is not None and not self._broken:
            self._transport.write(b"".join(out))

    # -- payloads

    def payload(self, parts: Sequence[bytes | memoryview]) -> tuple[list[Part], int]:
        """Tensors' bytes as a record carries them, and the record's flags: large ones are put into the arena."""
        size = layout_bytes(parts)
        if size >= FROM_BYTES:
            start = self._arena.put(parts, size)
            if start is not None:
                return [RANGE.pack(start, size)], IN_ARENA
        return inline(parts), 0

    def source(self, data: bytes, at: int, end: int, *, flags: int, size: int) -> tuple[Source, int]:
        """Where tensors of `size` bytes are that a record says between `at` and `end`: a buffer and an offset.

        Raises: BrokenLink.
        """
        if flags & IN_ARENA:
            start, lent = RANGE.unpack_from(data, at)
            if lent != size:
                raise BrokenLink(f"{lent} bytes of tensors, expected {size}")
            return self._lent.block(start, lent), 0
        if size > end - at:
            raise BrokenLink(f"{end - at} bytes of tensors, expected {size}")
        if len(data) > _SHARED_BYTES:
            return data[at:end], 0
        return data, at

    @property
    def lent_ranges(self) -> int:
        """Ranges of this side's arena that the other side still uses."""
        return self._arena.taken

    def _tell_released(self, starts: Sequence[int]) -> None:
        self.send(record(Kind.RELEASE, *(start.to_bytes(8, "little") for start in starts), extra=len(starts)))

    def _on_release(self, data: bytes, at: int) -> None:
        count = HEAD.unpack_from(data, at)[5]
        at += HEAD.size
        for position in range(at, at + 8 * count, 8):
            self._arena.release(int.from_bytes(data[position : position + 8], "little"))

    # -- asyncio's side

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            buffer, starts = self._reader.feed(data)
            handlers = self._handlers
            for start in starts:
                # The kind is the fifth byte: see HEAD.
                handlers[buffer[start + 4]](buffer, start)
        except (BrokenLink, KeyError, ValueError, IndexError, struct.error) as error:
            self.abort()
            _log.error("the link between processes is broken: %r", error, extra={"event": "link_broken"})

    def abort(self) -> None:
        """End now."""
        self._broken = True
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._transport = None
        self._out.clear()
        self._lent.close()
        self._arena.close()
        self._lost()
