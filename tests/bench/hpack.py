"""As much of HPACK (RFC 7541) as a load generator needs: six request headers, and the status of an answer.

We tell the server that our decoder's table is empty, so every block it sends stands for itself and need not be decoded
twice.
"""

from __future__ import annotations

_METHOD_POST, _SCHEME_HTTP, _AUTHORITY, _PATH, _CONTENT_TYPE = 3, 6, 1, 4, 31
_STATIC_ENTRIES = 61
_STATUS = {8: b"200", 9: b"204", 10: b"206", 11: b"304", 12: b"400", 13: b"404", 14: b"500"}
_STATUS_NAMES = range(8, 15)

_CODES = {
    "-": "010110",
    "0": "00000",
    "a": "00011",
    "c": "00100",
    "g": "100110",
    "p": "101011",
    "r": "101100",
    "s": "01000",
    "t": "01001",
    "u": "101101",
}
"""Huffman codes (RFC 7541, appendix B) of the letters in "grpc-status" and of "0"."""


def huffman(text: str) -> bytes:
    """`text` in HPACK's Huffman code, padded with ones. Knows the letters of `_CODES` only."""
    bits = "".join(_CODES[letter] for letter in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


_GRPC_STATUS = {b"grpc-status", huffman("grpc-status")}
_ZERO = {b"0", huffman("0")}


class RequestBlocks:
    """The header block of every call on one connection, to one method.

    As gRPC's own clients do, the first one teaches the server's table the headers, and later ones only point at them.

    Args: table_bytes: the server's SETTINGS_HEADER_TABLE_SIZE; with a small one every block is spelled out.
    """

    def __init__(self, path: str, authority: str, table_bytes: int) -> None:
        named = ((_AUTHORITY, b"", authority), (_PATH, b"", path), (_CONTENT_TYPE, b"", "application/grpc"))
        others = ((0, b"te", "trailers"), (0, b"user-agent", "tensorquay-bench"))
        fields = [(index, name, value.encode()) for index, name, value in (*named, *others)]
        start = bytes((0x80 | _METHOD_POST, 0x80 | _SCHEME_HTTP))
        # An entry takes its texts and 32 bytes; names from the static table are at most 12.
        learnt = sum(32 + 12 + len(value) for _, _, value in fields) <= table_bytes
        prefix, bits = (0x40, 6) if learnt else (0x00, 4)
        first = start + b"".join(_literal(prefix, bits, *field) for field in fields)
        # The newest entry comes first in the table; pseudo-headers must come first in the block.
        later = start + bytes(0x80 | (_STATIC_ENTRIES + 1 + place) for place in reversed(range(len(fields))))
        self._first: bytes | None = first
        self._later = later if learnt else first

    def next(self) -> bytes:
        """The block of the next call; blocks must be sent in the order they are asked for."""
        block, self._first = self._first or self._later, None
        return block


def outcome(block: bytes) -> tuple[bytes | None, bool | None]:
    """What a block of the server says: its `:status`, and whether `grpc-status` is 0; None for what it does not say.

    Raises: ValueError for a block that is damaged or points into the table we do not have.
    """
    status: bytes | None = None
    good: bool | None = None
    position = 0
    while position < len(block):
        byte = block[position]
        if byte & 0x80:
            index, position = _integer(block, position, 7)
            if not 0 < index <= _STATIC_ENTRIES:
                raise ValueError(f"index {index} is outside the static table")
            status = _STATUS.get(index, status)
        elif byte & 0xE0 == 0x20:
            _, position = _integer(block, position, 5)  # a table size update
        else:
            index, position = _integer(block, position, 6 if byte & 0x40 else 4)
            name = b""
            if not index:
                name, position = _string(block, position)
            value, position = _string(block, position)
            if index in _STATUS_NAMES:
                status = value
            elif name in _GRPC_STATUS:
                good = value in _ZERO
    return status, good


def _literal(prefix: int, bits: int, index: int, name: bytes, value: bytes) -> bytes:
    largest = (1 << bits) - 1
    start = bytes((prefix | index,)) if index < largest else bytes((prefix | largest, index - largest))
    texts = (value,) if index else (name, value)
    return start + b"".join(bytes((len(text),)) + text for text in texts)


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    largest = (1 << bits) - 1
    value = block[position] & largest
    position += 1
    if value < largest:
        return value, position
    shift = 0
    while True:
        if position >= len(block) or shift > 28:
            raise ValueError("the header block ends inside a number")
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, position


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    if position >= len(block):
        raise ValueError("the header block ends before a text")
    length, position = _integer(block, position, 7)
    if length > len(block) - position:
        raise ValueError("the header block ends inside a text")
    return block[position : position + length], position + length
