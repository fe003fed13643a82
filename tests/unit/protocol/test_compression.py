"""Content codings: bounded, strict, and both ways."""

import gzip
import zlib
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.errors import InvalidArgument, InvariantViolation
from tensorquay.protocol import compression
from tensorquay.protocol.compression import (
    MAX_MEMBERS,
    accepted_encoding,
    compress,
    content_encoding,
    decompress,
)

TEXT = b"tensors " * 1000
CODINGS = ("gzip", "deflate")


@pytest.mark.parametrize("coding", CODINGS)
def test_round_trip_of_parts(coding):
    packed = compress([TEXT, memoryview(TEXT), b""], coding)
    assert len(packed) < len(TEXT)
    assert decompress(packed, coding, len(TEXT) * 2) == TEXT * 2
    assert decompress(memoryview(packed), coding, len(TEXT) * 2) == TEXT * 2


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=5)), max_size=5),
    st.integers(1, 300),
    st.sampled_from(CODINGS),
)
def test_whatever_size_the_steps_have_the_body_is_the_same(
    parts: list[tuple[int, bytes]], piece: int, coding: str
) -> None:
    body = b"".join(bytes(count) + tail for count, tail in parts)
    squeezed = compress([body], coding)
    with patch.object(compression, "_PIECE", piece):
        assert decompress(squeezed, coding, len(body)) == body
        if body:
            with pytest.raises(InvalidArgument):
                decompress(squeezed, coding, len(body) - 1)
        with pytest.raises(InvalidArgument):
            decompress(squeezed[:-1], coding, len(body))


def test_clients_libraries_understand_us():
    assert gzip.decompress(compress([TEXT], "gzip")) == TEXT
    assert zlib.decompress(compress([TEXT], "deflate")) == TEXT


@pytest.mark.parametrize("coding", CODINGS)
def test_the_limit_is_on_what_comes_out(coding):
    packed = compress([bytes(1000)], coding)
    assert decompress(packed, coding, 1000) == bytes(1000)
    with pytest.raises(InvalidArgument, match=r"larger than 999 bytes after decompression.*--http-max-input-size"):
        decompress(packed, coding, 999)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_stopped_at_the_limit(coding):
    import tracemalloc

    bomb = compress((bytes(2**20) for _ in range(256)), coding, level=9)
    assert len(bomb) < 2**19
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument, match="larger than"):
            decompress(bomb, coding, 2**20)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cut", [0, 1, 5, 20, -1])
def test_cut_data_is_refused(coding, cut):
    with pytest.raises(InvalidArgument, match="ends early"):
        decompress(compress([TEXT], coding)[:cut], coding, 10**6)


@pytest.mark.parametrize("coding", CODINGS)
def test_damaged_data_is_refused(coding):
    packed = bytearray(compress([TEXT], coding))
    packed[-3] ^= 0xFF
    with pytest.raises(InvalidArgument, match="damaged"):
        decompress(bytes(packed), coding, 10**6)
    with pytest.raises(InvalidArgument, match="damaged"):
        decompress(b"plain text", coding, 10**6)


def test_a_body_in_the_other_coding_is_refused():
    with pytest.raises(InvalidArgument, match="damaged"):
        decompress(compress([TEXT], "gzip"), "deflate", 10**6)
    with pytest.raises(InvalidArgument, match="damaged"):
        decompress(compress([TEXT], "deflate"), "gzip", 10**6)


def test_bytes_behind_the_end_are_refused():
    with pytest.raises(InvalidArgument, match="damaged"):
        decompress(compress([TEXT], "gzip") + b"garbage", "gzip", 10**6)
    with pytest.raises(InvalidArgument, match="goes on after its end"):
        decompress(compress([TEXT], "deflate") + b"\0", "deflate", 10**6)


def test_several_gzip_members_are_one_body_up_to_a_limit():
    member = compress([b"ab"], "gzip")
    assert decompress(member * 3, "gzip", 100) == b"ababab"
    assert decompress(member * MAX_MEMBERS, "gzip", 10**6) == b"ab" * MAX_MEMBERS
    with pytest.raises(InvalidArgument, match="members"):
        decompress(member * (MAX_MEMBERS + 1), "gzip", 10**6)


def test_members_that_meet_a_chunk_border():
    import random

    noise = random.Random(1).randbytes(64 * 1024)
    for keep in range(64 * 1024 - 60, 64 * 1024, 7):
        body = compress([noise[:keep]], "gzip") + compress([b"tail"], "gzip")
        assert decompress(body, "gzip", 10**6) == noise[:keep] + b"tail"


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("gzip", "gzip"),
        (" GZip ", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate", "deflate"),
        ("identity, gzip", "gzip"),
    ],
)
def test_content_encoding(header, coding):
    assert content_encoding(header) == coding


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, gzip", "gzip;q=1", "g" * 10_000])
def test_content_encodings_we_do_not_have(header):
    with pytest.raises(InvalidArgument, match="expected one of gzip, deflate, identity") as caught:
        content_encoding(header)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "gzip"),
        ("deflate;q=1, gzip;q=0.5", "deflate"),
        ("gzip;q=0", None),
        ("gzip; q=0.0, deflate", "deflate"),
        ("*", "gzip"),
        ("*;q=0.1, gzip;q=0", "deflate"),
        ("*;q=0", None),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("gzip;q=2", None),
        ("gzip;q=NaN, deflate;q=0.3", "deflate"),
        ("GZIP;Q=1.000", "gzip"),
        (",,;,gzip", "gzip"),
    ],
)
def test_accept_encoding(header, coding):
    assert accepted_encoding(header) == coding


def test_unknown_codings_are_our_own_mistake():
    with pytest.raises(InvariantViolation):
        decompress(b"", "br", 1)
    with pytest.raises(InvariantViolation):
        compress([b""], "br")
