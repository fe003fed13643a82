"""Chunked bodies: what is read, and what is refused because somebody else might read it differently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.transport.chunked import MAX_CHUNKS, BadChunk, ChunkedDecoder


def decode(*parts: bytes) -> tuple[bytes, bytes, bool]:
    decoder = ChunkedDecoder()
    body, after = [], b""
    for part in parts:
        pieces, after = decoder.feed(after + part)
        body += pieces
    return b"".join(body), after, decoder.done


@pytest.mark.parametrize(
    ("data", "body", "after"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET"),
        (b"a;name=value\r\n0123456789\r\n0;x\r\nTrailer: 1\r\n\r\n", b"0123456789", b""),
        (b"1 \r\na\r\n0\r\n\r\n", b"a", b""),
    ],
)
def test_what_the_grammar_allows_is_read(data, body, after):
    assert decode(data) == (body, after, True)


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"0x5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"1" * 16 + b"\r\n",
        b"5;" + b"x" * 5000,
        b"0\r\n" + (b"T: " + b"x" * 4000 + b"\r\n") * 5,
        b"1\r\na\r\n" * (MAX_CHUNKS + 1),
    ],
)
def test_anything_else_is_refused(data):
    with pytest.raises(BadChunk):
        decode(data)


@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=8),
    st.binary(max_size=20),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_the_cuts_of_the_network_change_nothing(chunks, after, cuts):
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + after
    decoder, body, rest, position, turn = ChunkedDecoder(), b"", b"", 0, 0
    while position < len(encoded) and not decoder.done:
        step = cuts[turn % len(cuts)]
        pieces, rest = decoder.feed(encoded[position : position + step])
        body += b"".join(pieces)
        position, turn = position + step, turn + 1
    assert decoder.done
    assert body == b"".join(chunks)
    assert rest + encoded[position:] == after


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_be_refused(data):
    try:
        body, after, _ = decode(data)
    except BadChunk:
        return
    assert len(body) + len(after) <= len(data)
