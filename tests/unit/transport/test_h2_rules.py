"""Every MUST of RFC 9113 that a server can be made to break by its client, as a table: what is sent → what comes back.

docs/http2.md quotes the ids.
"""

from __future__ import annotations

from collections.abc import Callable

import hyperframe.frame as hf
import pytest

from h2_drive import REQUEST, Later, Peer, prefixed
from tensorquay.transport import h2_frames as f
from tensorquay.transport.h2_frames import ErrorCode as E
from tensorquay.transport.h2_limits import H2Limits

Send = Callable[[Peer], object]


def raw(kind: int, flags: int, stream: int, payload: bytes = b"") -> Send:
    return lambda peer: peer.send(f.frame(kind, flags, stream, payload))


def opened(kind: int, flags: int, payload: bytes = b"") -> Send:
    """A frame on stream 1, which is open."""

    def send(peer: Peer) -> None:
        peer.open()
        peer.send(f.frame(kind, flags, 1, payload))

    return send


def block(*fields: tuple[str, str]) -> Send:
    """A request with exactly these fields on stream 1."""
    return lambda peer: peer.open(fields, end=True)


def more(*fields: tuple[str, str | None]) -> Send:
    """The usual request with these replaced or added."""
    return lambda peer: peer.open(peer.with_(*fields), end=True)


def in_block(kind: int, stream: int, flags: int = 0, payload: bytes = b"") -> Send:
    """HEADERS on stream 1 without END_HEADERS, then this frame."""

    def send(peer: Peer) -> None:
        peer.send(f.frame(f.HEADERS, 0, 1, peer.block()[:3]))
        peer.send(f.frame(kind, flags, stream, payload))

    return send


def hpack(data: bytes) -> Send:
    return raw(f.HEADERS, f.END_HEADERS | f.END_STREAM, 1, data)


def finished(*frames: bytes) -> Send:
    """Stream 1 is answered and closed, then these."""

    def send(peer: Peer) -> None:
        peer.call(b"x")
        assert peer.answer(1).status == "0"
        for frame in frames:
            peer.send(frame)

    return send


def setting(key: int, value: int) -> Send:
    return lambda peer: peer.send(f.settings({key: value}))


def windows(stream: int, *increments: int) -> Send:
    def send(peer: Peer) -> None:
        peer.open()
        for increment in increments:
            peer.send(f.window_update(stream, increment))

    return send


def trailers(*fields: tuple[str, str], end: bool = True) -> Send:
    def send(peer: Peer) -> None:
        peer.open()
        peer.data(1, prefixed(b"x"), end=False)
        peer.send(f.frame(f.HEADERS, f.END_HEADERS | (f.END_STREAM if end else 0), 1, peer.block(fields)))

    return send


def bigger_window(peer: Peer) -> None:
    peer.open()
    peer.send(f.window_update(1, 2**31 - 1 - 65_535))
    peer.send(f.settings({f.INITIAL_WINDOW_SIZE: 70_000}))


CONNECTION: list[tuple[str, Send, E]] = [
    ("4.2-frame-larger-than-allowed", lambda peer: peer.send(f.head(70_000, f.DATA, 0, 1)), E.FRAME_SIZE_ERROR),
    ("4.3-block-that-is-no-hpack", hpack(b"\x80"), E.COMPRESSION_ERROR),
    ("4.3-block-cut-short", hpack(b"\x40\x05ab"), E.COMPRESSION_ERROR),
    ("4.3-index-beyond-the-tables", hpack(b"\xff\x80\x01"), E.COMPRESSION_ERROR),
    ("4.3-endless-integer", hpack(b"\xff" + b"\xff" * 20), E.COMPRESSION_ERROR),
    ("4.3.1-table-larger-than-allowed", hpack(b"\x3f\xe2\x1f"), E.COMPRESSION_ERROR),
    ("5.1-idle-data", raw(f.DATA, 0, 1, b"x"), E.PROTOCOL_ERROR),
    ("5.1-idle-rst-stream", raw(f.RST_STREAM, 0, 1, bytes(4)), E.PROTOCOL_ERROR),
    ("5.1-idle-window-update", raw(f.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), E.PROTOCOL_ERROR),
    ("5.1-idle-continuation", raw(f.CONTINUATION, f.END_HEADERS, 1, b"x"), E.PROTOCOL_ERROR),
    ("5.1.1-even-stream", lambda peer: peer.send(f.frame(1, 5, 2, peer.block())), E.PROTOCOL_ERROR),
    ("5.1.1-stream-number-used-before", finished(f.frame(1, 5, 1, b"\x82")), E.PROTOCOL_ERROR),
    (
        "5.1.1-stream-number-that-went-back",
        lambda peer: [peer.send(f.frame(1, 5, stream, peer.block())) for stream in (5, 3)],
        E.PROTOCOL_ERROR,
    ),
    ("5.5-unknown-frame-in-a-header-block", in_block(0x20, 1), E.PROTOCOL_ERROR),
    ("6.1-data-without-a-stream", raw(f.DATA, 0, 0, b"x"), E.PROTOCOL_ERROR),
    ("6.1-data-padded-beyond-its-payload", opened(f.DATA, f.PADDED, b"\x05abcd"), E.PROTOCOL_ERROR),
    ("6.1-data-padded-without-a-length", opened(f.DATA, f.PADDED), E.FRAME_SIZE_ERROR),
    ("6.2-headers-without-a-stream", raw(f.HEADERS, 5, 0, b"\x82"), E.PROTOCOL_ERROR),
    ("6.2-headers-padded-beyond-their-payload", raw(f.HEADERS, 5 | f.PADDED, 1, b"\x05\x82"), E.PROTOCOL_ERROR),
    ("6.2-headers-padded-without-a-length", raw(f.HEADERS, 5 | f.PADDED, 1), E.FRAME_SIZE_ERROR),
    ("6.2-headers-too-short-for-priority", raw(f.HEADERS, 5 | f.HAS_PRIORITY, 1, b"\0\0"), E.FRAME_SIZE_ERROR),
    ("6.2-another-frame-in-a-header-block", in_block(f.PING, 0, 0, bytes(8)), E.PROTOCOL_ERROR),
    ("6.2-another-stream-in-a-header-block", in_block(f.CONTINUATION, 3, f.END_HEADERS), E.PROTOCOL_ERROR),
    ("6.2-headers-in-a-header-block", in_block(f.HEADERS, 1, f.END_HEADERS), E.PROTOCOL_ERROR),
    ("6.2-data-in-a-header-block", in_block(f.DATA, 1, 0, b"x"), E.PROTOCOL_ERROR),
    ("6.3-priority-without-a-stream", raw(f.PRIORITY, 0, 0, bytes(5)), E.PROTOCOL_ERROR),
    ("6.3-priority-of-wrong-length-on-idle", raw(f.PRIORITY, 0, 1, bytes(4)), E.FRAME_SIZE_ERROR),
    ("6.4-rst-stream-without-a-stream", raw(f.RST_STREAM, 0, 0, bytes(4)), E.PROTOCOL_ERROR),
    ("6.4-rst-stream-of-wrong-length", opened(f.RST_STREAM, 0, bytes(3)), E.FRAME_SIZE_ERROR),
    ("6.5-settings-on-a-stream", raw(f.SETTINGS, 0, 1), E.PROTOCOL_ERROR),
    ("6.5-settings-ack-with-payload", raw(f.SETTINGS, f.ACK, 0, bytes(6)), E.FRAME_SIZE_ERROR),
    ("6.5-settings-of-wrong-length", raw(f.SETTINGS, 0, 0, bytes(5)), E.FRAME_SIZE_ERROR),
    ("6.5.2-enable-push-beyond-1", setting(f.ENABLE_PUSH, 2), E.PROTOCOL_ERROR),
    ("6.5.2-initial-window-beyond-2^31-1", setting(f.INITIAL_WINDOW_SIZE, 2**31), E.FLOW_CONTROL_ERROR),
    ("6.5.2-max-frame-size-too-small", setting(f.MAX_FRAME_SIZE, 16_383), E.PROTOCOL_ERROR),
    ("6.5.2-max-frame-size-too-large", setting(f.MAX_FRAME_SIZE, 2**24), E.PROTOCOL_ERROR),
    ("6.6-push-promise-from-a-client", opened(f.PUSH_PROMISE, f.END_HEADERS, b"\0\0\0\2\x82"), E.PROTOCOL_ERROR),
    ("6.7-ping-on-a-stream", raw(f.PING, 0, 1, bytes(8)), E.PROTOCOL_ERROR),
    ("6.7-ping-of-wrong-length", raw(f.PING, 0, 0, bytes(7)), E.FRAME_SIZE_ERROR),
    ("6.8-goaway-on-a-stream", raw(f.GOAWAY, 0, 1, bytes(8)), E.PROTOCOL_ERROR),
    ("6.8-goaway-too-short", raw(f.GOAWAY, 0, 0, bytes(7)), E.FRAME_SIZE_ERROR),
    ("6.9-connection-window-update-by-0", windows(0, 0), E.PROTOCOL_ERROR),
    ("6.9-window-update-of-wrong-length", raw(f.WINDOW_UPDATE, 0, 0, bytes(3)), E.FRAME_SIZE_ERROR),
    ("6.9.1-connection-window-beyond-2^31-1", windows(0, 2**31 - 1), E.FLOW_CONTROL_ERROR),
    ("6.9.2-initial-window-pushes-a-stream-beyond", bigger_window, E.FLOW_CONTROL_ERROR),
    ("6.10-continuation-without-a-stream", raw(f.CONTINUATION, 4, 0, b"x"), E.PROTOCOL_ERROR),
    ("6.10-continuation-without-headers", opened(f.CONTINUATION, 4, b"x"), E.PROTOCOL_ERROR),
]

STREAM: list[tuple[str, Send, E]] = [
    ("5.1-half-closed-data", lambda peer: [peer.open(end=True), peer.data(1, b"x")], E.STREAM_CLOSED),
    ("5.1-closed-data", finished(f.frame(f.DATA, 0, 1, b"x")), E.STREAM_CLOSED),
    ("6.3-priority-of-wrong-length", opened(f.PRIORITY, 0, bytes(6)), E.FRAME_SIZE_ERROR),
    ("6.9-stream-window-update-by-0", windows(1, 0), E.PROTOCOL_ERROR),
    ("6.9.1-stream-window-beyond-2^31-1", windows(1, 2**31 - 1), E.FLOW_CONTROL_ERROR),
    ("8.1-pseudo-field-in-trailers", trailers((":path", "/")), E.PROTOCOL_ERROR),
    ("8.1-trailers-that-do-not-end", trailers(("x", "y"), end=False), E.PROTOCOL_ERROR),
    (
        "8.1.1-content-length-larger-than-content",
        lambda peer: peer.call(b"12345", "/t.T/Echo", ("content-length", "11")),
        E.PROTOCOL_ERROR,
    ),
    (
        "8.1.1-content-length-smaller-than-content",
        lambda peer: peer.call(b"12345", "/t.T/Echo", ("content-length", "9")),
        E.PROTOCOL_ERROR,
    ),
    ("8.1.1-content-length-that-is-no-number", more(("content-length", "ten")), E.PROTOCOL_ERROR),
    ("8.1.1-two-content-lengths", block(*REQUEST, ("content-length", "1"), ("content-length", "2")), E.PROTOCOL_ERROR),
    ("8.2.1-upper-case-name", block(*REQUEST, ("X-Big", "1")), E.PROTOCOL_ERROR),
    ("8.2.1-name-with-a-space", block(*REQUEST, ("x y", "1")), E.PROTOCOL_ERROR),
    ("8.2.1-name-with-a-colon", block(*REQUEST, ("x:y", "1")), E.PROTOCOL_ERROR),
    ("8.2.1-name-beyond-ascii", block(*REQUEST, ("x\u00e9", "1")), E.PROTOCOL_ERROR),
    ("8.2.1-empty-name", block(*REQUEST, ("", "1")), E.PROTOCOL_ERROR),
    ("8.2.1-value-with-nul", block(*REQUEST, ("x", "a\0b")), E.PROTOCOL_ERROR),
    ("8.2.1-value-with-lf", block(*REQUEST, ("x", "a\nb")), E.PROTOCOL_ERROR),
    ("8.2.1-value-with-cr", block(*REQUEST, ("x", "a\rb")), E.PROTOCOL_ERROR),
    ("8.2.1-value-that-begins-with-space", block(*REQUEST, ("x", " a")), E.PROTOCOL_ERROR),
    ("8.2.1-value-that-ends-with-a-tab", block(*REQUEST, ("x", "a\t")), E.PROTOCOL_ERROR),
    ("8.2.2-connection", block(*REQUEST, ("connection", "close")), E.PROTOCOL_ERROR),
    ("8.2.2-proxy-connection", block(*REQUEST, ("proxy-connection", "close")), E.PROTOCOL_ERROR),
    ("8.2.2-keep-alive", block(*REQUEST, ("keep-alive", "1")), E.PROTOCOL_ERROR),
    ("8.2.2-transfer-encoding", block(*REQUEST, ("transfer-encoding", "chunked")), E.PROTOCOL_ERROR),
    ("8.2.2-upgrade", block(*REQUEST, ("upgrade", "h3")), E.PROTOCOL_ERROR),
    ("8.2.2-te-other-than-trailers", more(("te", "gzip")), E.PROTOCOL_ERROR),
    ("8.3-unknown-pseudo-field", block((":proto", "x"), *REQUEST), E.PROTOCOL_ERROR),
    ("8.3-response-pseudo-field", block((":status", "200"), *REQUEST), E.PROTOCOL_ERROR),
    ("8.3-pseudo-field-after-a-regular-one", block(*REQUEST[:2], ("x", "y"), *REQUEST[2:]), E.PROTOCOL_ERROR),
    ("8.3-repeated-pseudo-field", block((":path", "/"), *REQUEST), E.PROTOCOL_ERROR),
    ("8.3.1-no-method", block(*REQUEST[1:]), E.PROTOCOL_ERROR),
    ("8.3.1-no-scheme", block(REQUEST[0], *REQUEST[2:]), E.PROTOCOL_ERROR),
    ("8.3.1-no-path", block(*REQUEST[:2], *REQUEST[3:]), E.PROTOCOL_ERROR),
    ("8.3.1-empty-path", more((":path", "")), E.PROTOCOL_ERROR),
    ("8.5-connect-with-a-path", more((":method", "CONNECT")), E.PROTOCOL_ERROR),
]


@pytest.fixture
def peer() -> Peer:
    """A connection whose calls stay open until the test answers, and whose frames are small."""
    return Peer(H2Limits(frame_bytes=65_536), routes={"/t.T/Later": Later()})


@pytest.mark.parametrize(("send", "code"), [c[1:] for c in CONNECTION], ids=[c[0] for c in CONNECTION])
def test_connection_errors(peer: Peer, send: Send, code: E) -> None:
    send(peer)
    assert peer.goaway == code
    assert len(peer.goaways) == 1
    assert peer.transport.closed == "eof", "after GOAWAY the connection must be closed"
    before = len(peer.frames)
    peer.send(f.frame(f.PING, 0, 0, bytes(8)))
    assert len(peer.frames) == before, "a closing connection serves nothing"


@pytest.mark.parametrize(("send", "code"), [c[1:] for c in STREAM], ids=[c[0] for c in STREAM])
def test_stream_errors(peer: Peer, send: Send, code: E) -> None:
    send(peer)
    assert peer.answer(1).reset == code
    assert not peer.goaways
    peer.next_stream = 9
    assert peer.answer(peer.call(b"still here")).messages == [b"still here"], "a stream error hurts its stream only"


@pytest.mark.parametrize("size", [0, 1, 23])
def test_3_4_what_is_no_preface_ends_the_connection(size: int) -> None:
    peer = Peer(handshake=False)
    peer.send(f.PREFACE[:size] + b"x" * (24 - size))
    assert peer.goaway == E.PROTOCOL_ERROR
    assert peer.transport.closed == "eof"


@pytest.mark.parametrize("first", [f.frame(f.PING, 0, 0, bytes(8)), f.SETTINGS_ACK, f.frame(0x77, 0, 0, b"x")])
def test_3_4_the_first_frame_must_be_settings(first: bytes) -> None:
    peer = Peer(handshake=False)
    peer.send(f.PREFACE + first)
    assert peer.goaway == E.PROTOCOL_ERROR


def test_3_4_our_preface_is_a_settings_frame() -> None:
    peer = Peer(handshake=False)
    peer.turn()
    first = peer.frames[0]
    assert isinstance(first, hf.SettingsFrame)
    assert "ACK" not in first.flags
    assert hf.SettingsFrame.ENABLE_PUSH not in first.settings
    assert 2**14 <= first.settings[hf.SettingsFrame.MAX_FRAME_SIZE] <= 2**24 - 1


@pytest.mark.parametrize("pieces", [1, 2, 7, 24, 33])
def test_3_4_the_preface_may_come_in_pieces(pieces: int) -> None:
    peer = Peer(handshake=False)
    peer.send(f.PREFACE + f.settings({}), pieces=pieces)
    assert peer.answer(peer.call(b"hi")).messages == [b"hi"]


def test_4_1_reserved_bits_and_unknown_flags_are_ignored(peer: Peer) -> None:
    frame = bytearray(f.frame(f.HEADERS, f.END_HEADERS | 0xD2, 1, peer.block()))
    frame[5] |= 0x80
    data = bytearray(f.frame(f.DATA, f.END_STREAM | 0xF6, 1, prefixed(b"hi")))
    data[5] |= 0x80
    peer.send(bytes(frame + data))
    assert peer.answer(1).messages == [b"hi"]


def test_5_1_after_our_reset_frames_are_ignored_and_hpack_goes_on(peer: Peer) -> None:
    stream = peer.open(peer.with_(("te", "gzip")))
    assert peer.answer(stream).reset == E.PROTOCOL_ERROR
    peer.data(stream, b"x" * 100, end=False)
    peer.send(f.window_update(stream, 5))
    peer.send(f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, stream, peer.block([("x-learnt", "value")])))
    peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    assert not peer.goaways
    answered = peer.open(peer.with_((":path", "/none"), ("x-learnt", "value")), end=True)
    assert "no method /none" in peer.answer(answered).text, "the table followed what the ignored block taught"


def test_5_1_a_whole_second_message_after_the_end_is_not_served() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    stream = peer.call(b"x", "/t.T/Later")
    peer.data(stream, prefixed(b"again"))
    assert peer.answer(stream).reset == E.STREAM_CLOSED
    assert len(later.calls) == 1
    assert later.gone_calls == 1


def test_5_1_1_an_even_stream_is_an_error_for_remembered_headers_too(peer: Peer) -> None:
    for _ in range(3):
        peer.call(b"x")
    (block,) = peer.connection._heads
    peer.send(f.frame(f.HEADERS, f.END_HEADERS, 100, block))
    assert peer.goaway == E.PROTOCOL_ERROR


def test_5_1_window_update_and_rst_stream_on_a_closed_stream_are_no_error(peer: Peer) -> None:
    finished(f.window_update(1, 5), f.frame(f.RST_STREAM, 0, 1, bytes(4)), f.frame(f.PRIORITY, 0, 1, bytes(5)))(peer)
    assert not peer.goaways
    assert peer.answer(1).reset is None, "a RST_STREAM is never answered with one"


def test_5_1_priority_on_an_idle_stream_is_no_error(peer: Peer) -> None:
    peer.send(f.frame(f.PRIORITY, 0, 41, bytes(5)))
    assert peer.answer(peer.call(b"hi")).messages == [b"hi"]


def test_5_1_2_one_stream_too_many_is_refused() -> None:
    peer = Peer(H2Limits(streams=2), routes={"/t.T/Later": (later := Later())})
    streams = [peer.call(b"x", "/t.T/Later") for _ in range(3)]
    assert [peer.answer(stream).reset for stream in streams] == [None, None, E.REFUSED_STREAM]
    later.calls[0][0].answer(b"done")
    peer.turn()
    assert peer.answer(peer.call(b"again")).messages == [b"again"], "an answered stream makes room"


def test_5_5_unknown_frames_settings_and_error_codes_are_ignored(peer: Peer) -> None:
    peer.send(f.frame(0x42, 0xFF, 77, b"whatever" * 10))
    peer.send(f.frame(0x43, 0, 0, b""))
    peer.send(f.settings({0x99: 7, 0xFFFF: 2**32 - 1}))
    stream = peer.open()
    peer.send(f.frame(f.RST_STREAM, 0, stream, b"\xff\xff\xff\xff"))
    peer.send(f.frame(f.GOAWAY, 0, 0, bytes(4) + b"\xff\xff\xff\xff" + b"debug" * 30))
    assert peer.answer(peer.call(b"hi")).messages == [b"hi"]


def test_6_1_padding_is_counted_against_the_windows_and_dropped(peer: Peer) -> None:
    stream = peer.open()
    payload = prefixed(b"padded")
    peer.send(f.frame(f.DATA, f.PADDED | f.END_STREAM, stream, b"\x0a" + payload + bytes(10)))
    assert peer.answer(stream).messages == [b"padded"]
    before = peer.connection._unacked
    peer.data(peer.open(), payload)
    assert peer.connection._unacked - before == len(payload)
    assert before == len(payload) + 11


def test_6_1_padding_may_be_the_whole_payload(peer: Peer) -> None:
    stream = peer.open()
    peer.data(stream, prefixed(b"x"), end=False)
    peer.send(f.frame(f.DATA, f.PADDED | f.END_STREAM, stream, b"\x03" + bytes(3)))
    assert peer.answer(stream).messages == [b"x"]


def test_6_2_padding_and_priority_of_headers_are_dropped(peer: Peer) -> None:
    payload = b"\x07" + bytes(5) + peer.block() + bytes(7)
    peer.send(f.frame(f.HEADERS, f.END_HEADERS | f.PADDED | f.HAS_PRIORITY, 1, payload))
    peer.data(1, prefixed(b"hi"))
    assert peer.answer(1).messages == [b"hi"]


def test_6_2_end_stream_of_headers_counts_after_continuation(peer: Peer) -> None:
    block = peer.block(peer.with_((":path", "/none")))
    peer.send(f.frame(f.HEADERS, f.END_STREAM, 1, block[:4]))
    peer.send(f.frame(f.CONTINUATION, 0, 1, b""))
    peer.send(f.frame(f.CONTINUATION, 0, 1, block[4:9]))
    peer.send(f.frame(f.CONTINUATION, f.END_HEADERS, 1, block[9:]))
    assert peer.answer(1).ended
    assert peer.answer(1).reset is None


def test_6_4_after_rst_stream_nothing_more_is_sent_on_it() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    stream = peer.call(b"x", "/t.T/Later")
    peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    assert later.gone_calls == 1
    before = len(peer.frames)
    later.calls[0][0].answer(b"too late")
    peer.turn()
    assert len(peer.frames) == before


def test_6_5_3_settings_are_acknowledged_each_in_order(peer: Peer) -> None:
    peer.send(f.settings({f.MAX_FRAME_SIZE: 20_000}) + f.settings({f.MAX_FRAME_SIZE: 30_000}) + f.settings({}))
    acks = [frame for frame in peer.frames if isinstance(frame, hf.SettingsFrame) and "ACK" in frame.flags]
    assert len(acks) == 4  # the handshake's, too


def test_6_5_2_table_size_is_obeyed_with_a_size_update(peer: Peer) -> None:
    peer.send(f.settings({f.HEADER_TABLE_SIZE: 0}))
    peer._decoder.max_allowed_table_size = 0  # hpack then insists on the update
    stream = peer.call(b"hi")
    assert peer.answer(stream).messages == [b"hi"]
    assert peer.answer(peer.call(b"ho")).messages == [b"ho"]


def test_6_7_ping_is_answered_with_its_payload_and_an_ack_is_not(peer: Peer) -> None:
    peer.send(f.ping(b"12345678", ack=False))
    peer.send(f.ping(b"87654321", ack=True))
    pongs = [frame for frame in peer.frames if isinstance(frame, hf.PingFrame)]
    assert [(pong.opaque_data, "ACK" in pong.flags) for pong in pongs] == [(b"12345678", True)]


def test_8_1_an_early_answer_asks_the_client_to_stop_without_error(peer: Peer) -> None:
    stream = peer.open(peer.with_((":path", "/none")))
    answer = peer.answer(stream)
    assert answer.ended
    assert answer.reset == E.NO_ERROR
    peer.data(stream, b"x" * 1000, end=False)
    peer.data(stream, b"x" * 20_000)
    assert not peer.goaways


def test_8_1_a_client_that_has_ended_when_its_early_answer_goes_out_is_not_reset(peer: Peer) -> None:
    headers = peer.with_((":path", "/none"))
    peer.send(
        f.frame(f.HEADERS, f.END_HEADERS, 1, peer.block(headers))
        + f.frame(f.DATA, f.END_STREAM, 1, b"x" * 20_000)
        + f.frame(f.HEADERS, f.END_HEADERS, 3, peer.block(headers))
        + f.frame(f.DATA, 0, 3, b"x" * 20_000)
        + f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, 3, peer.block([("x", "y")]))
        + f.frame(f.HEADERS, f.END_HEADERS, 5, peer.block(headers))
        + f.frame(f.RST_STREAM, 0, 5, bytes(4))
    )
    for stream in (1, 3, 5):
        assert peer.answer(stream).ended
        assert peer.answer(stream).reset is None
    assert not peer.goaways


def test_8_1_trailers_end_the_request(peer: Peer) -> None:
    trailers(("x-checksum", "1"))(peer)
    assert peer.answer(1).messages == [b"x"]
    assert peer.answer(1).status == "0"


def test_8_2_2_te_trailers_and_no_te_are_both_fine(peer: Peer) -> None:
    assert peer.answer(peer.call(b"hi", "/t.T/Echo", ("te", None))).messages == [b"hi"]


def test_8_3_1_host_may_stand_in_for_authority(peer: Peer) -> None:
    assert peer.answer(peer.call(b"hi", "/t.T/Echo", (":authority", None), ("host", "x"))).messages == [b"hi"]


def test_answers_carry_no_connection_specific_fields_and_no_upper_case(peer: Peer) -> None:
    for path in ("/t.T/Echo", "/none"):
        answer = peer.answer(peer.call(b"hi", path))
        for name in (*answer.headers, *answer.trailers):
            assert name == name.lower()
            assert name not in {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"}


def test_9_2_tls_without_alpn_h2_is_turned_away() -> None:
    class Tls:
        def selected_alpn_protocol(self) -> str | None:
            return "http/1.1"

    peer = Peer(handshake=False, ssl_object=Tls())
    assert peer.transport.closed == "close"
    assert not peer.transport.written
