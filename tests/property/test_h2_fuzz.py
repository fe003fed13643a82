"""Whatever bytes come, a connection answers with HTTP/2, never with an exception, and holds little.

Three sources: any bytes; frames with any fields; and an honest session, mutated and cut at any places. The last must
say the same however it is cut.
"""

from __future__ import annotations

import logging
from typing import Any

import hpack as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from h2_drive import Chat, Later, Peer, prefixed
from tensorquay.transport import h2_frames as f
from tensorquay.transport.h2_ending import State
from tensorquay.transport.h2_limits import H2Limits
from tensorquay.transport.hpack import Decoder, HeaderListTooLarge, HpackError, encode

LIMITS = H2Limits(
    streams=8,
    frame_bytes=100_000,
    stream_window=70_000,
    connection_window=100_000,
    header_list_bytes=2000,
    header_block_bytes=2000,
    continuations=3,
    cached_blocks=4,
    resets=20,
    chatter=50,
    unsent_bytes=10**6,
)

PATHS = ("/t.T/Echo", "/t.T/Chat", "/t.T/Later", "/t.T/Big", "/none")


class Bugs(logging.Handler):
    """Every error logged: in this test our own mistakes would be nothing else."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def drive(data: bytes, cuts: list[int], *, handshake: bool = True) -> Peer:
    """A peer that has sent `data` in pieces; time passes, the loop turns, and everything it must hold is checked."""
    bugs = Bugs()
    logger = logging.getLogger("tensorquay.grpc")
    logger.addHandler(bugs)
    try:
        later = Later()
        peer = Peer(
            LIMITS,
            routes={"/t.T/Chat": Chat(holds_after=3), "/t.T/Later": later},
            max_message_bytes=200_000,
            max_receiving_bytes=300_000,
            handshake=handshake,
        )
        position = 0
        for cut in (*cuts, len(data)):
            if cut > position:
                peer.send(data[position:cut])
                position = cut
        _check(peer)
        for call, message in later.calls:
            call.answer(message)
        for call in list(peer.connection.calls.values()):
            call.go_on()
        peer.turn()
        peer.clock.advance(s=1000)
        peer.server.expire()
        peer.server.sweep()
        peer.turn()
        _check(peer)
        peer.connection.connection_lost(None)
        assert peer.server.memory.budget.held == 0
        assert not peer.connection.calls
        assert peer.server.connections == 0
    finally:
        logger.removeHandler(bugs)
    assert not bugs.records, bugs.records[0].exc_info
    return peer


def _check(peer: Peer) -> None:
    connection = peer.connection
    assert len(connection.calls) <= LIMITS.streams
    assert len(connection._heads) <= LIMITS.cached_blocks
    assert len(connection._rest) <= 2300 + 16_384
    assert connection._block is None or len(connection._block) <= LIMITS.header_block_bytes
    # What a fault was about stays counted on a connection that reads nothing more.
    assert connection.deaf or connection._waiting + connection._unacked <= LIMITS.connection_window
    assert connection._decoder._size <= 4096
    assert connection.writer.unsent == sum(sum(map(len, c.pending or ())) for c in connection.calls.values())
    assert peer.server.memory.budget.held <= 300_000 + 200_000
    if connection.state is State.CLOSING:
        assert not connection.calls


def frames() -> st.SearchStrategy[bytes]:
    """Frames of any type with any fields, most of them nearly right."""
    block = st.one_of(
        st.builds(
            lambda path, extra: encode(
                [
                    (b":method", b"POST"),
                    (b":scheme", b"http"),
                    (b":path", path.encode()),
                    (b"content-type", b"application/grpc"),
                    *extra,
                ]
            ),
            st.sampled_from(PATHS),
            st.lists(
                st.sampled_from(
                    [
                        (b"grpc-timeout", b"1m"),
                        (b"grpc-encoding", b"gzip"),
                        (b"x-bin", b"AA"),
                        (b"content-length", b"7"),
                        (b"X", b"1"),
                        (b"te", b"x"),
                        (b"x", b"y" * 3000),
                    ]
                ),
                max_size=2,
            ),
        ),
        st.binary(max_size=30),
    )
    message = st.one_of(
        st.builds(prefixed, st.binary(max_size=30), st.integers(0, 2)),
        st.binary(max_size=20),
        st.builds(lambda n: prefixed(b"m" * n), st.sampled_from([100, 16_375, 70_000, 150_000, 250_000])),
        st.just(prefixed(b"90000")),
    )
    payload = st.one_of(block, message, st.integers(0, 2**32 - 1).map(lambda n: n.to_bytes(4, "big")))
    stream = st.one_of(st.integers(0, 12), st.integers(0, 2**32 - 1))
    flags = st.one_of(st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]), st.integers(0, 255))
    usual = st.one_of(
        st.builds(lambda s, b: f.frame(f.HEADERS, 4, 2 * s + 1, b), st.integers(0, 9), block),
        st.builds(lambda s, m, e: f.frame(f.DATA, e, 2 * s + 1, m), st.integers(0, 9), message, st.integers(0, 1)),
        st.builds(f.window_update, st.integers(0, 12), st.integers(0, 2**31 - 1)),
        st.builds(lambda k, v: f.settings({k: v}), st.integers(0, 8), st.integers(0, 2**17)),
    )
    odd = st.builds(
        f.frame,
        st.integers(0, 12),
        flags,
        stream,
        payload,
    )
    lies = st.builds(
        lambda length, kind, flags, stream, payload: f.head(length, kind, flags, stream) + payload,
        st.integers(0, 2**24 - 1),
        st.integers(0, 12),
        flags,
        stream,
        st.binary(max_size=20),
    )
    return st.one_of(usual, usual, usual, odd, lies)


cuts = st.lists(st.integers(0, 3000), max_size=8).map(sorted)


@given(st.binary(max_size=300), cuts, st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes, cuts: list[int], handshake: bool) -> None:
    drive(data, cuts, handshake=handshake)


@given(st.lists(frames(), max_size=25).map(b"".join), cuts)
@settings(max_examples=500, deadline=None)
def test_any_frames(data: bytes, cuts: list[int]) -> None:
    drive(data, cuts)


def session() -> bytes:
    """Honest calls of every kind on one connection."""
    encoder = oracle.Encoder()
    out = [f.PREFACE, f.settings({f.INITIAL_WINDOW_SIZE: 40_000}), f.window_update(0, 10**6)]
    for number, path in enumerate((*PATHS, *PATHS)):
        stream = 2 * number + 1
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("x-number", str(number)),
        ]
        block = encoder.encode(fields)
        if number % 3:
            out.append(f.frame(f.HEADERS, f.END_HEADERS, stream, block))
        else:
            out.append(f.frame(f.HEADERS, 0, stream, block[:5]))
            out.append(f.frame(f.CONTINUATION, f.END_HEADERS, stream, block[5:]))
        size = (10, 20_000, 35_000)[number % 3]
        message = prefixed(b"50000" if path == "/t.T/Big" else bytes([65 + number]) * size)
        out.append(f.frame(f.DATA, 0, stream, message[:7]))
        out.append(f.frame(f.DATA, f.PADDED, stream, b"\x03" + message[7:20_000] + bytes(3)))
        out.append(f.frame(f.DATA, f.END_STREAM, stream, message[20_000:]))
        out.append(f.ping(b"%08d" % number, ack=False))
        out.append(f.window_update(stream, 50_000))
    return b"".join(out)


SESSION = session()


def said(peer: Peer) -> dict[int, Any]:
    """All answers. Whether a client is asked to stop sending depends, rightly, on what has arrived by then."""
    return {
        stream: (answer.headers, bytes(answer.data), answer.trailers, answer.ended, answer.reset or None)
        for stream, answer in peer.answers.items()
    }


WHOLE = said(drive(SESSION, [], handshake=False))


def test_the_session_itself_is_served() -> None:
    assert sum(answer[3] for answer in WHOLE.values()) == 10
    assert WHOLE[1][1] == prefixed(b"A" * 10)


@given(st.lists(st.integers(1, len(SESSION)), max_size=60).map(sorted))
@settings(max_examples=100, deadline=None)
def test_the_same_bytes_say_the_same_however_they_are_cut(cuts: list[int]) -> None:
    assert said(drive(SESSION, cuts, handshake=False)) == WHOLE


def test_the_same_bytes_say_the_same_one_at_a_time_at_the_interesting_places() -> None:
    cuts = [cut for start in range(0, len(SESSION), 9973) for cut in range(start, min(start + 40, len(SESSION)))]
    assert said(drive(SESSION, sorted({*cuts, *range(120)}), handshake=False)) == WHOLE


@given(
    st.lists(st.tuples(st.integers(0, len(SESSION) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, len(SESSION)), st.integers(0, 50)), max_size=2),
    st.lists(st.integers(1, len(SESSION)), max_size=5).map(sorted),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_session(changes: list[tuple[int, int]], losses: list[tuple[int, int]], cuts: list[int]) -> None:
    data = bytearray(SESSION)
    for position, value in changes:
        # Heads of frames are where damage is interesting; most of the rest is payload.
        data[position if position % 2 else position % 500] = value
    for position, count in losses:
        del data[position : position + count]
    drive(bytes(data), cuts, handshake=False)


fields = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([b":path", b"te", b"grpc-timeout", b"x-a"]), st.binary(min_size=1, max_size=40)),
        st.one_of(st.sampled_from([b"", b"POST", b"application/grpc"]), st.binary(max_size=200)),
    ),
    max_size=20,
)


@given(st.lists(fields, max_size=8), st.sampled_from([0, 64, 512, 4096]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_hpack_reads_what_another_implementation_writes(
    lists: list[list[tuple[bytes, bytes]]], table: int, huffman: bool
) -> None:
    encoder, decoder = oracle.Encoder(), Decoder(2**20)
    encoder.header_table_size = table
    for expected in lists:
        assert decoder.decode(encoder.encode(expected, huffman=huffman)) == expected


@given(fields)
@settings(max_examples=200, deadline=None)
def test_another_implementation_reads_what_hpack_writes(expected: list[tuple[bytes, bytes]]) -> None:
    reader = oracle.Decoder()
    assert [(bytes(n), bytes(v)) for n, v in reader.decode(encode(expected), raw=True)] == expected


@given(st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=500, deadline=None)
def test_hpack_and_another_implementation_agree_on_any_bytes(blocks: list[bytes]) -> None:
    """Both refuse, or both say the same; after a refusal neither goes on."""
    reader, decoder = oracle.Decoder(), Decoder(65_536)
    for block in blocks:
        try:
            expected = [(bytes(n), bytes(v)) for n, v in reader.decode(block, raw=True)]
        except oracle.HPACKError:
            expected = None
        try:
            got = decoder.decode(block)
        except (HpackError, HeaderListTooLarge):
            got = None
        assert got == expected
        if got is None:
            return
