"""Targets that read a connection's bytes: HTTP/1.1, HTTP/2 with gRPC on it, header blocks, chunked bodies."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import Sequence

import hpack as oracle
from tests.fuzz.h1_drive import Answer, converse
from tests.fuzz.mutators import mutated_frames, mutated_words
from tests.fuzz.target import Damage, Target, cut, keeping_cuts, with_cuts
from tests.property.test_h2_fuzz import drive

from tensorquay.transport import h2_frames as f
from tensorquay.transport.chunked import BadChunk, ChunkedDecoder
from tensorquay.transport.hpack import Decoder, HeaderListTooLarge, HpackError, encode

# -- HTTP/1.1


def read_h1(data: bytes) -> None:
    """However a connection's bytes are cut, the same requests get the same answers, in order, and then it ends."""
    pieces, payload = cut(data)
    with asyncio.Runner() as runner:
        whole = runner.run(converse([payload]))
        parts = runner.run(converse(pieces))
    assert _said(parts) == _said(whole)


def _said(answers: Sequence[Answer]) -> list[tuple[object, ...]]:
    """What must not depend on cuts: all but which of several mistakes was seen first."""
    return [(a.method, a.status, a.body) if a.status < 400 else ("refused",) for a in answers]


def _request(first: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join((first, *headers, "", "")).encode() + body


_CHUNKS = b"5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n"
_H1_REQUESTS = (
    _request("GET /echo HTTP/1.1", "Host: a"),
    _request("POST /echo HTTP/1.1", "Content-Length: 5", body=b"hello"),
    _request("POST /hold HTTP/1.1", "Content-Length: 3", "Expect: 100-continue", body=b"abc"),
    _request("POST /echo HTTP/1.1", "Transfer-Encoding: chunked", body=_CHUNKS),
    _request("POST /app HTTP/1.1", "Transfer-Encoding: chunked", body=_CHUNKS),
    _request("PUT /app?a=%20b HTTP/1.1", "Content-Length: 4", body=b"data"),
    _request("HEAD /echo HTTP/1.1", "Connection: keep-alive"),
    _request("HEAD /app HTTP/1.1"),
    _request("GET /echo HTTP/1.0", "Connection: keep-alive"),
    _request("GET http://h/echo?x HTTP/1.1", "Connection: close"),
    _request("GET /app HTTP/1.0"),
    _request("OPTIONS * HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    _request("POST /echo HTTP/1.1", "Content-Length: 2000"),
    b"\r\n\r\nGET /hold HTTP/1.1\r\n\r\n",
)


def h1_seeds() -> list[bytes]:
    """Each kind of request alone, cut, and behind another."""
    pairs = zip(_H1_REQUESTS, _H1_REQUESTS[1:] + _H1_REQUESTS[:1], strict=True)
    return [
        *(with_cuts(request, [len(request) // 2, len(request) - 2]) for request in _H1_REQUESTS),
        *(with_cuts(first + second, [20, len(first), len(first) + 9]) for first, second in pairs),
        with_cuts(b"".join(_H1_REQUESTS[:7])),
    ]


def _mutated_requests(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    """Lines changed or exchanged, or another request behind or before."""
    kind = random_.randrange(4)
    if kind == 0:
        return data + random_.choice(_H1_REQUESTS)
    if kind == 1:
        return random_.choice(_H1_REQUESTS) + data
    return mutated_words(data, random_, damage) if kind == 2 else damage(data)


# -- HTTP/2 and gRPC

_WITHOUT_HANDSHAKE = 0x80


def read_h2(data: bytes) -> None:
    """Whatever frames come, the connection answers with HTTP/2, holds little, and settles every call."""
    handshake = not (data[:1] and data[0] & _WITHOUT_HANDSHAKE)
    pieces, payload = cut(data)
    ends, position = [], 0
    for piece in pieces:
        position += len(piece)
        ends.append(position)
    drive(payload, ends[:-1], handshake=handshake)


def _call(stream: int, path: bytes, message: bytes, *more: tuple[bytes, bytes], compressed: int = 0) -> bytes:
    pseudo = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path)]
    block = encode([*pseudo, (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more])
    body = bytes((compressed,)) + len(message).to_bytes(4, "big") + message
    return f.frame(f.HEADERS, f.END_HEADERS, stream, block) + f.frame(f.DATA, f.END_STREAM, stream, body)


def h2_seeds() -> list[bytes]:
    """Calls of every kind, every frame type, and what belongs to flow control."""
    split = _call(1, b"/t.T/Echo", b"hello")
    head, body = split[:9], split[9:]
    length = int.from_bytes(head[:3], "big")
    continued = (
        f.frame(f.HEADERS, 0, 1, body[:7])
        + f.frame(f.CONTINUATION, f.END_HEADERS, 1, body[7:length])
        + f.frame(f.DATA, 0, 1, b"\0\0\0\0\x05he")
        + f.frame(f.DATA, f.PADDED | f.END_STREAM, 1, b"\x02llo\0\0")
    )
    control = b"".join(
        (
            f.settings({f.INITIAL_WINDOW_SIZE: 3, f.MAX_FRAME_SIZE: 20_000}),
            f.window_update(0, 100),
            f.ping(b"12345678", ack=False),
            f.frame(f.PRIORITY, 0, 3, bytes(5)),
            f.frame(11, 0, 3, b"unknown"),
            f.window_update(1, 70_000),
            f.frame(f.GOAWAY, 0, 0, bytes(8) + b"bye"),
        )
    )
    gzipped = gzip.compress(b"packed " * 9, mtime=0)
    calls = (
        _call(1, b"/t.T/Echo", b"hi"),
        _call(1, b"/t.T/Chat", b"hi", (b"grpc-timeout", b"10S"), (b"grpc-accept-encoding", b"gzip")),
        _call(1, b"/t.T/Later", b"hi", (b"grpc-timeout", b"1m"), (b"x-bin", b"AAE=")),
        _call(1, b"/t.T/Big", b"50000"),
        _call(1, b"/t.T/Echo", gzipped, (b"grpc-encoding", b"gzip"), compressed=1),
        _call(1, b"/none", b""),
        continued,
        _call(1, b"/t.T/Later", b"x") + f.rst_stream(1, f.ErrorCode.CANCEL),
        control + _call(1, b"/t.T/Big", b"20") + control,
        b"".join(_call(stream, b"/t.T/Chat", b"m" * stream) for stream in range(1, 21, 2)),
    )
    preface = f.PREFACE + f.settings({f.HEADER_TABLE_SIZE: 0})
    whole = bytes((_WITHOUT_HANDSHAKE + 1,)) + b"\0\x1e" + preface + calls[0]
    return [whole, *(with_cuts(call, [10, len(call) // 2]) for call in calls)]


def _mutated_connection(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    """As `keeping_cuts`, and the bit that says how the connection begins is kept."""
    first = data[0] & _WITHOUT_HANDSHAKE if data else 0
    out = bytearray(keeping_cuts(mutated_frames)(data, random_, damage))
    if first and not (out[0] & _WITHOUT_HANDSHAKE):
        # The low part says how many cuts follow, modulo nine: 144 is a multiple of nine with the bit set.
        out[0] += 144
    return bytes(out)


# -- header blocks

_LIST_BYTES = 2000
_TABLE_BYTES = 256


def read_hpack(data: bytes) -> None:
    """Blocks in a row say what another implementation reads in them, within bounds; what is said can be said again."""
    decoder, reader = Decoder(_LIST_BYTES, _TABLE_BYTES), oracle.Decoder(_LIST_BYTES)
    reader.max_allowed_table_size = _TABLE_BYTES
    reader.header_table_size = _TABLE_BYTES
    for block in _blocks(data):
        before = decoder.changes
        try:
            fields = decoder.decode(block)
        except (HpackError, HeaderListTooLarge) as error:
            # Both must refuse, each for its own reason.
            try:
                reader.decode(block, raw=True)
            except oracle.HPACKError:
                return
            raise AssertionError(f"only ours refused {block!r}: {error}") from error
        assert sum(len(name) + len(value) + 32 for name, value in fields) <= _LIST_BYTES
        assert decoder._size == sum(len(name) + len(value) + 32 for name, value in decoder._table) <= _TABLE_BYTES
        theirs = [(bytes(name), bytes(value)) for name, value in reader.decode(block, raw=True)]
        assert fields == theirs
        if decoder.changes == before:
            assert decoder.decode(block) == fields, "the same block said something else the second time"
        assert Decoder(2**20).decode(encode(fields)) == fields


def _blocks(data: bytes) -> list[bytes]:
    blocks = []
    while data:
        blocks.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    return blocks


def hpack_seeds() -> list[bytes]:
    """Blocks of another encoder, with and without its table and Huffman, and a table that is resized."""
    fields = [(b":path", b"/a.B/C"), (b"te", b"trailers"), (b"x-long", b"v" * 70), (b":method", b"POST")]
    seeds = []
    for huffman in (False, True):
        encoder = oracle.Encoder()
        encoder.header_table_size = _TABLE_BYTES
        blocks = [encoder.encode(fields, huffman=huffman), encoder.encode(fields[::-1], huffman=huffman)]
        encoder.header_table_size = 40
        blocks.append(encoder.encode(fields, huffman=huffman))
        seeds.append(b"".join(bytes((len(block),)) + block for block in blocks))
    return [*seeds, b"\x04\x3f\xe1\x01\x82", b"\x03\x7f\xff\x01"]


def _mutated_blocks(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    blocks = _blocks(data) or [b""]
    at = random_.randrange(len(blocks))
    if random_.random() < 0.3:
        blocks.insert(random_.randrange(len(blocks) + 1), blocks[at])
    else:
        blocks[at] = damage(blocks[at])
    return b"".join(bytes((min(len(block), 255),)) + block[:255] for block in blocks)


# -- chunked bodies


def read_chunked(data: bytes) -> None:
    """However it is cut, a body is the same body, with the same bytes behind it, or none."""
    pieces, payload = cut(data)
    whole, parts = _unchunked([payload]), _unchunked(pieces)
    assert whole == parts
    if whole is not None:
        body, done, behind = whole
        assert len(body) + len(behind) <= len(payload)
        assert payload.endswith(behind)
        assert done or not behind


def _unchunked(pieces: Sequence[bytes]) -> tuple[bytes, bool, bytes] | None:
    decoder = ChunkedDecoder()
    body = behind = b""
    try:
        for piece in pieces:
            if decoder.done:
                behind += piece
                continue
            found, rest = decoder.feed(piece)
            body, behind = body + b"".join(found), behind + rest
            assert len(decoder._line) <= 4096
    except BadChunk:
        return None
    return body, decoder.done, behind


def chunked_seeds() -> list[bytes]:
    """Bodies with extensions, trailers, upper and lower case, and bytes behind."""
    return [with_cuts(body, [1, 9]) for body in (_CHUNKS, _CHUNKS + b"GET /", b"0\r\n\r\n", b"1a\r\n" + b"x" * 26)]


TARGETS = (
    Target("h1", read_h1, h1_seeds, keeping_cuts(_mutated_requests)),
    Target("h2", read_h2, h2_seeds, _mutated_connection, max_bytes=8192),
    Target("hpack", read_hpack, hpack_seeds, _mutated_blocks, max_bytes=1024),
    Target("chunked", read_chunked, chunked_seeds, keeping_cuts(mutated_words), max_bytes=1024),
)
