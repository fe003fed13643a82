"""Chunked transfer coding (RFC 9112 §7.1), decoded incrementally and strictly.

Owns no I/O. Chunk extensions and trailers are read past, within bounds, and dropped; anything else that is not exactly
the grammar is an error, because a lenient reader is one half of a request smuggling.
"""

from __future__ import annotations

import enum

MAX_CHUNKS = 65_536
"""Most chunks of one body (Triton's own bound)."""

_MAX_LINE = 4096
_MAX_TRAILERS = 16_384
_HEX = frozenset(b"0123456789abcdefABCDEF")


class BadChunk(Exception):
    """The bytes are no chunked body."""


class _State(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    DONE = enum.auto()


class ChunkedDecoder:
    """One body. `feed` it what arrives; `done` tells that the body is complete."""

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._line = b""
        self._left = 0
        self._chunks = 0
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        """Whether the last chunk and its trailers have been read."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Pieces of the body in `data`, and what follows the body (empty unless `done`).

        Raises: BadChunk.
        """
        pieces: list[bytes] = []
        position, end = 0, len(data)
        while position < end and self._state is not _State.DONE:
            if self._state is _State.DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if self._left == 0:
                    self._state = _State.DATA_END
                continue
            line_end = data.find(b"\n", position)
            part = data[position:] if line_end < 0 else data[position : line_end + 1]
            self._line += part
            position += len(part)
            if len(self._line) > _MAX_LINE:
                raise BadChunk(f"a chunk's size line or a trailer is longer than {_MAX_LINE} bytes")
            if line_end >= 0:
                line, self._line = self._line, b""
                if not line.endswith(b"\r\n"):
                    raise BadChunk("a line does not end in CR LF")
                self._take_line(line[:-2])
        return pieces, data[position:] if self.done else b""

    def _take_line(self, line: bytes) -> None:
        if self._state is _State.DATA_END:
            if line:
                raise BadChunk("a chunk is longer than its size")
            self._state = _State.SIZE
        elif self._state is _State.SIZE:
            digits = line.split(b";", 1)[0].rstrip(b" \t")
            if not digits or len(digits) > 15 or not _HEX.issuperset(digits):
                raise BadChunk("a chunk's size is no hexadecimal number")
            self._left = int(digits, 16)
            self._chunks += 1
            if self._chunks > MAX_CHUNKS:
                raise BadChunk(f"the body has more than {MAX_CHUNKS} chunks")
            self._state = _State.DATA if self._left else _State.TRAILERS
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILERS:
                raise BadChunk(f"the trailers are longer than {_MAX_TRAILERS} bytes")
            if not line:
                self._state = _State.DONE
