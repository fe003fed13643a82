"""HPACK's constants: the static table, and the Huffman code as the machine that decodes it byte by byte.

The code is canonical, so its lengths are all there is to know. Source: RFC 7541, appendices A and B.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

Field: TypeAlias = tuple[bytes, bytes]
"""Name and value of one header field."""

STATIC_TABLE: tuple[Field, ...] = (
    (b"", b""),  # indices count from 1
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
)

STATIC_COUNT = len(STATIC_TABLE) - 1
"""61: greater indices point into the dynamic table."""

EOS = 256
"""The symbol that must never be sent; its first bits are the padding."""

CODE_LENGTHS = (
    *(13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28),
    *(28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28),
    *(6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6),
    *(5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10),
    *(13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7),
    *(7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6),
    *(15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5),
    *(6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28),
    *(20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23),
    *(24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24),
    *(22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23),
    *(21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23),
    *(26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25),
    *(19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27),
    *(20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23),
    *(26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26),
    30,
)
"""Bits of each symbol's code: 256 bytes, then EOS."""

Step: TypeAlias = tuple[int, bytes] | None
"""What one more byte does in a state: the next state and the text that is now complete; None for EOS."""


class HuffmanMachine:
    """The code as a state machine over bytes: a state is an inner node of the code's tree, 0 its root.

    Rows are made when a state is first reached: a string visits few of the 256, and all of them take 50 ms to make.
    """

    __slots__ = ("_tree", "finals", "rows")

    def __init__(self) -> None:
        self._tree = _tree()
        self.rows: list[list[Step] | None] = [None] * len(self._tree)
        # A string may end where its last bits are fewer than eight ones, the padding.
        state, finals = 0, []
        for _ in range(8):
            finals.append(state)
            state = self._tree[state][1]
        self.finals = frozenset(finals)

    def row(self, state: int) -> list[Step]:
        """For each of the 256 bytes, what it does in `state`."""
        row = self.rows[state]
        if row is None:
            row = self.rows[state] = [self._step(state, byte) for byte in range(256)]
        return row

    def _step(self, state: int, byte: int) -> Step:
        text = bytearray()
        for bit in range(7, -1, -1):
            state = self._tree[state][byte >> bit & 1]
            if state < 0:
                symbol = -1 - state
                if symbol == EOS:
                    return None
                text.append(symbol)
                state = 0
        return state, bytes(text)


@cache
def huffman_machine() -> HuffmanMachine:
    """The one machine; what it learns does not depend on who asks."""
    return HuffmanMachine()


def huffman_codes() -> list[tuple[int, int]]:
    """(code, bits) of each symbol, EOS last."""
    codes = [(0, 0)] * len(CODE_LENGTHS)
    code = length = 0
    for symbol in sorted(range(len(CODE_LENGTHS)), key=lambda each: (CODE_LENGTHS[each], each)):
        code <<= CODE_LENGTHS[symbol] - length
        length = CODE_LENGTHS[symbol]
        codes[symbol] = (code, length)
        code += 1
    return codes


def _tree() -> list[list[int]]:
    """Inner nodes as [where 0 leads, where 1 leads]; a leaf is −1 − symbol."""
    nodes = [[0, 0]]
    for symbol, (code, length) in enumerate(huffman_codes()):
        node = 0
        for bit in range(length - 1, 0, -1):
            side = code >> bit & 1
            if not nodes[node][side]:
                nodes.append([0, 0])
                nodes[node][side] = len(nodes) - 1
            node = nodes[node][side]
        nodes[node][code & 1] = -1 - symbol
    return nodes
