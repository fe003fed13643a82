"""Header compression (RFC 7541): a decoder with bounds on everything a peer can choose, and the little encoder we need.

The decoder tells when its dynamic table changed (`changes`), so that its caller may keep what a block said: as long as
nothing was inserted, the same bytes say the same again. The encoder never touches the peer's table, so its blocks
stand for themselves and can be made once.
"""

from __future__ import annotations

from tensorquay.transport.hpack_tables import STATIC_COUNT, STATIC_TABLE, Field, huffman_machine

DEFAULT_TABLE_BYTES = 4096
"""SETTINGS_HEADER_TABLE_SIZE until somebody says otherwise; we never do."""

ENTRY_OVERHEAD = 32
"""What an entry counts beyond its texts (RFC 7541 §4.1), also in a header list's size (RFC 9113 §6.5.2)."""

NO_TABLE = b"\x20"
"""Instruction "my table has size 0": the first of a block after the peer allowed less than the default."""

_MAX_INTEGER = 2**24
"""Beyond every length and index that can be right here; stops integers that go on for ever."""


class HpackError(Exception):
    """A block that is no HPACK, or points outside the tables: the connection's state is lost (COMPRESSION_ERROR)."""


class HeaderListTooLarge(Exception):
    """A block says more than allowed. It was read to its end, so the connection goes on."""


class Decoder:
    """One connection's decoding context. Loop-confined; owner: the connection.

    Args:
        max_list_bytes: most that one block may say, counted as RFC 9113 §6.5.2 does.
        max_table_bytes: the dynamic table's bound, as announced to the peer.
    """

    __slots__ = ("_allowed", "_max_list_bytes", "_size", "_table", "_table_bytes", "changes")

    def __init__(self, max_list_bytes: int, max_table_bytes: int = DEFAULT_TABLE_BYTES) -> None:
        self._max_list_bytes = max_list_bytes
        self._allowed = max_table_bytes
        self._table_bytes = max_table_bytes
        # Newest last: dynamic index 62 is table[-1].
        self._table: list[Field] = []
        self._size = 0
        self.changes = 0

    def decode(self, block: bytes) -> list[Field]:
        """The fields of one complete header block, in order.

        Raises: HpackError; HeaderListTooLarge.
        """
        fields: list[Field] = []
        position, end = 0, len(block)
        room = self._max_list_bytes
        try:
            while position < end:
                first = block[position]
                if first >= 0x80:
                    index = first & 0x7F
                    position += 1
                    if index == 0x7F:
                        index, position = _integer(block, position, 0x7F)
                    field = self._entry(index)
                elif first >= 0x40:
                    field, position = self._literal(block, position, 0x3F)
                    self._insert(field)
                elif first >= 0x20:
                    if fields or room != self._max_list_bytes:
                        raise HpackError("a table size update must come first in a block")
                    position = self._resize(block, position)
                    continue
                else:
                    field, position = self._literal(block, position, 0x0F)
                room -= len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
                if room >= 0:
                    fields.append(field)
        except IndexError:
            raise HpackError("the header block ends in the middle of a field") from None
        if room < 0:
            raise HeaderListTooLarge(f"the headers are larger than {self._max_list_bytes} bytes")
        return fields

    def _entry(self, index: int) -> Field:
        if 0 < index <= STATIC_COUNT:
            return STATIC_TABLE[index]
        if not STATIC_COUNT < index <= STATIC_COUNT + len(self._table):
            raise HpackError(f"index {index} is outside the header tables")
        return self._table[STATIC_COUNT - index]

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[Field, int]:
        index = block[position] & mask
        position += 1
        if index == mask:
            index, position = _integer(block, position, mask)
        if index:
            name = self._entry(index)[0]
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        return (name, value), position

    def _insert(self, field: Field) -> None:
        self.changes += 1
        self._size += len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        self._table.append(field)
        if self._size > self._table_bytes:
            self._evict()

    def _evict(self) -> None:
        table, gone = self._table, 0
        while self._size > self._table_bytes:
            name, value = table[gone]
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD
            gone += 1
        del table[:gone]

    def _resize(self, block: bytes, position: int) -> int:
        size = block[position] & 0x1F
        position += 1
        if size == 0x1F:
            size, position = _integer(block, position, 0x1F)
        if size > self._allowed:
            raise HpackError(f"a header table of {size} bytes was asked for, {self._allowed} are allowed")
        self._table_bytes = size
        self.changes += 1
        self._evict()
        return position


def encode(fields: list[Field]) -> bytes:
    """`fields` as a header block that neither uses nor changes the dynamic table.

    Names are lower case; names and values shorter than 16 MiB.
    """
    parts: list[bytes] = []
    for field in fields:
        index = _whole_index(field)
        if index:
            parts.append(bytes((0x80 | index,)))
            continue
        name, value = field
        index = _name_index(name)
        parts.append(_prefixed(index, 0x0F))
        if not index:
            parts += (_prefixed(len(name), 0x7F), name)
        parts += (_prefixed(len(value), 0x7F), value)
    return b"".join(parts)


def _whole_index(field: Field) -> int:
    return STATIC_TABLE.index(field) if field[1] and field in STATIC_TABLE else 0


def _name_index(name: bytes) -> int:
    return next((index for index, (known, _) in enumerate(STATIC_TABLE) if index and known == name), 0)


def _prefixed(value: int, mask: int) -> bytes:
    """An integer whose first byte has the bits of `mask` free; the others are 0."""
    if value < mask:
        return bytes((value,))
    out = bytearray((mask,))
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """An integer that did not fit its prefix; `value` is the prefix."""
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            if value > _MAX_INTEGER:
                break
            return value, position
        shift += 7
        if shift > 28:
            break
    raise HpackError("an integer in a header block is too large")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    first = block[position]
    position += 1
    length = first & 0x7F
    if length == 0x7F:
        length, position = _integer(block, position, 0x7F)
    end = position + length
    if end > len(block):
        raise HpackError("the header block ends in the middle of a text")
    if first < 0x80:
        return block[position:end], end
    return _huffman(block[position:end]), end


def _huffman(coded: bytes) -> bytes:
    machine = huffman_machine()
    rows = machine.rows
    state = 0
    out: list[bytes] = []
    for byte in coded:
        step = (rows[state] or machine.row(state))[byte]
        if step is None:
            raise HpackError("a Huffman text contains the end-of-string symbol")
        state, text = step
        out.append(text)
    if state not in machine.finals:
        raise HpackError("a Huffman text ends in the middle of a symbol")
    return b"".join(out)
