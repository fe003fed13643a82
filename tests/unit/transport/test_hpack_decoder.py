"""HPACK: RFC 7541's own examples, its errors, and the bounds a hostile encoder meets."""

from __future__ import annotations

import hpack as oracle
import pytest
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

from tensorquay.transport.hpack import Decoder, HeaderListTooLarge, HpackError, encode
from tensorquay.transport.hpack_tables import CODE_LENGTHS, EOS, STATIC_TABLE, huffman_codes, huffman_machine

ROOMY = 2**20


def _hex(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


# RFC 7541, appendix C.3 and C.4: three requests, plain and Huffman-coded; C.6: three answers with a table of 256 bytes.
REQUESTS = [
    [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
PLAIN = [
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "8286 84be 5808 6e6f 2d63 6163 6865",
    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
]
CODED = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
]
ANSWERS = [
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 "
    "8f0b 97c8 e9ae 82ae 43d3",
    "4883 640e ffc1 c0bf",
    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 "
    "dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
]


@pytest.mark.parametrize("blocks", [PLAIN, CODED], ids=["plain", "huffman"])
def test_the_specifications_requests(blocks: list[str]) -> None:
    decoder = Decoder(ROOMY)
    assert [decoder.decode(_hex(block)) for block in blocks] == REQUESTS


def test_the_specifications_answers_evict_as_it_says() -> None:
    decoder = Decoder(ROOMY, max_table_bytes=256)
    first, second, third = (decoder.decode(_hex(block)) for block in ANSWERS)
    assert first[0] == (b":status", b"302")
    assert second == [(b":status", b"307"), *first[1:]]
    assert third[-1] == (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
    assert decoder._size == 215


def test_constants_are_the_specifications() -> None:
    assert STATIC_TABLE[1:] == HeaderTable.STATIC_TABLE
    assert list(CODE_LENGTHS) == list(REQUEST_CODES_LENGTH)
    assert [code for code, _ in huffman_codes()] == list(REQUEST_CODES)
    assert len(CODE_LENGTHS) == EOS + 1


def test_every_state_of_the_huffman_machine_is_an_inner_node() -> None:
    machine = huffman_machine()
    rows = [machine.row(state) for state in range(len(machine.rows))]
    assert len(rows) == 256
    assert all(step is None or 0 <= step[0] < 256 for row in rows for step in row)
    assert len(machine.finals) == 8


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"\x80", "index 0"),
        (b"\xbe", "outside the header tables"),
        (b"\xff\xff\xff\xff\xff\x0f", "too large"),
        (b"\xff\xff\xff\xff\xff\x80\x80\x80\x00", "too large"),
        (b"\x7e\x01x", "outside the header tables"),
        (b"\x40", "ends in the middle"),
        (b"\x40\x03ab", "ends in the middle"),
        (b"\x00\x7f\xff\xff\xff\x7f", "too large"),
        (b"\x00\x01a\x7f", "ends in the middle"),
        (b"\x3f\xe2\x1f", "4096 are allowed"),
        (b"\x82\x20", "must come first"),
        (b"\x00\x81\xff\x01a", "middle of a symbol"),
        (b"\x00\x82\xff\xff\x01a", "middle of a symbol"),
        (b"\x00\x81\x1e\x01a", "middle of a symbol"),
        (b"\x00\x84\xff\xff\xff\xff\x01a", "end-of-string"),
    ],
)
def test_damaged_blocks_are_refused(block: bytes, why: str) -> None:
    with pytest.raises(HpackError, match=why):
        Decoder(ROOMY).decode(block)


@pytest.mark.parametrize("cut", range(1, 17))
def test_every_cut_of_a_block_is_refused_or_says_less(cut: int) -> None:
    block = _hex(CODED[0])[:cut]
    try:
        fields = Decoder(ROOMY).decode(block)
    except HpackError:
        return
    assert fields == REQUESTS[0][: len(fields)]
    assert len(fields) < len(REQUESTS[0])


def test_a_list_that_is_too_large_is_read_to_its_end_so_the_table_stays_right() -> None:
    decoder, encoder = Decoder(200), oracle.Encoder()
    block = encoder.encode([("x-big", "v" * 300), ("x-later", "learnt")])
    with pytest.raises(HeaderListTooLarge, match="200 bytes"):
        decoder.decode(block)
    assert decoder.decode(encoder.encode([("x-later", "learnt")])) == [(b"x-later", b"learnt")]


def test_a_size_update_after_a_field_too_large_to_keep_is_still_too_late() -> None:
    with pytest.raises(HpackError, match="must come first"):
        Decoder(10).decode(b"\x00\x01x\x01y\x20")


def test_a_bomb_of_references_is_not_unpacked() -> None:
    decoder = Decoder(16_384)
    decoder.decode(b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000)
    with pytest.raises(HeaderListTooLarge):
        decoder.decode(b"\xbe" * 30_000)  # 120 MB, if anybody kept it


def test_the_table_is_bounded_by_bytes_and_an_entry_larger_than_it_empties_it() -> None:
    decoder = Decoder(ROOMY)
    for number in range(1000):
        decoder.decode(b"\x40\x04%04d\x01v" % number)
    assert decoder._size <= 4096
    assert len(decoder._table) == 4096 // 37
    assert decoder.decode(b"\xbe") == [(b"0999", b"v")]
    assert decoder.decode(b"\x40\x01a\x7f\xa1\x1f" + b"v" * 4128)[0][0] == b"a"
    assert (decoder._size, decoder._table) == (0, [])


def test_a_name_may_come_from_the_entry_that_its_own_insertion_evicts() -> None:
    decoder = Decoder(ROOMY, max_table_bytes=64)
    decoder.decode(b"\x40\x04name\x05value")
    assert decoder.decode(b"\x7e\x06value2") == [(b"name", b"value2")]
    assert decoder.decode(b"\xbe") == [(b"name", b"value2")]


def test_size_updates_evict_and_may_come_twice() -> None:
    decoder = Decoder(ROOMY)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.decode(b"\x20\x3f\xe1\x1f\x82") == [(b":method", b"GET")]
    with pytest.raises(HpackError):
        decoder.decode(b"\xbe")


def test_changes_tell_exactly_whether_a_block_still_means_the_same() -> None:
    decoder = Decoder(ROOMY)
    for block, changes in ((b"\x82", False), (b"\x40\x01a\x01b", True), (b"\xbe", False), (b"\x00\x01a\x01b", False)):
        before = decoder.changes
        decoder.decode(block)
        assert (decoder.changes != before) is changes
    before = decoder.changes
    decoder.decode(b"\x20")
    assert decoder.changes != before


@pytest.mark.parametrize(
    "fields",
    [
        [(b":status", b"200"), (b"content-type", b"application/grpc")],
        [(b"grpc-status", b"13"), (b"grpc-message", b"x" * 5000)],
        [(b":status", b"418"), (b"a", b""), (b"x" * 200, b"y" * 127), (b"content-length", b"0")],
        [],
    ],
)
def test_what_we_encode_is_read_by_others_without_their_table(fields: list[tuple[bytes, bytes]]) -> None:
    reader = oracle.Decoder()
    reader.max_header_list_size = ROOMY
    block = encode(fields)
    for _ in range(2):
        assert [(bytes(n), bytes(v)) for n, v in reader.decode(block, raw=True)] == fields
    assert len(reader.header_table.dynamic_entries) == 0
