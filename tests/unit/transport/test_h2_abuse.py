"""Hostile and broken peers: each bound of `H2Limits` has a test here that crosses it, and one that stays below.

docs/http2.md quotes the names.
"""

from __future__ import annotations

import hyperframe.frame as hf
import pytest

from h2_drive import REQUEST, Chat, Later, Peer, prefixed
from tensorquay.transport import h2_frames as f
from tensorquay.transport.h2_frames import ErrorCode as E
from tensorquay.transport.h2_limits import H2Limits


def alive(peer: Peer) -> bool:
    """Whether the connection still serves."""
    return peer.answer(peer.call(b"alive")).messages == [b"alive"]


# -- floods


def test_rapid_reset_ends_the_connection_and_every_call_is_cancelled() -> None:
    later = Later()
    peer = Peer(H2Limits(resets=50, resets_per_s=10), routes={"/t.T/Later": later})
    for _ in range(60):
        stream = peer.call(b"x", "/t.T/Later")
        peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    assert peer.goaway == E.ENHANCE_YOUR_CALM
    assert later.gone_calls == len(later.calls) == 51
    assert not peer.connection.calls


def test_resets_at_a_rate_that_real_clients_have_are_fine() -> None:
    peer = Peer(H2Limits(resets=50, resets_per_s=10), routes={"/t.T/Later": Later()})
    for _ in range(300):
        stream = peer.call(b"x", "/t.T/Later")
        peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
        peer.clock.advance(ms=100)
    assert not peer.goaways


def test_resets_of_answered_calls_are_not_counted() -> None:
    peer = Peer(H2Limits(resets=5, resets_per_s=0))
    for _ in range(50):
        stream = peer.call(b"x")
        peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    assert alive(peer)


def test_resets_that_we_are_made_to_send_count_too() -> None:
    peer = Peer(H2Limits(resets=50, resets_per_s=10), routes={"/t.T/Later": Later()})
    for _ in range(60):
        stream = peer.call(b"x", "/t.T/Later")
        peer.send(f.window_update(stream, 0))
    assert peer.goaway == E.ENHANCE_YOUR_CALM


NOISE = {
    "settings": f.settings({}),
    "settings-ack": f.SETTINGS_ACK,
    "ping-ack": f.ping(bytes(8), ack=True),
    "priority": f.frame(f.PRIORITY, 0, 9, bytes(5)),
    "connection-window-update": f.window_update(0, 1),
    "goaway": f.frame(f.GOAWAY, 0, 0, bytes(8)),
    "unknown": f.frame(0x55, 0, 0, b"x" * 20),
    "empty-data": f.frame(f.DATA, 0, 1, b""),
    "stream-window-update": f.window_update(1, 1),
    "rst-stream-of-a-closed-stream": f.frame(f.RST_STREAM, 0, 3, bytes(4)),
    "window-update-of-a-closed-stream": f.window_update(3, 1),
    "empty-data-of-a-refused-call": f.frame(f.DATA, 0, 5, b""),
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_floods_of_frames_that_do_nothing_end_the_connection(noise: bytes) -> None:
    peer = Peer(H2Limits(chatter=100))
    peer.open()
    assert peer.call(b"answered") == 3
    peer.open(peer.with_((":path", "/none")))
    peer.send(noise * 99)
    assert not peer.goaways
    peer.send(noise * 5)
    assert peer.goaway == E.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("noise", [NOISE["settings"], NOISE["connection-window-update"]], ids=["settings", "window"])
def test_the_same_frames_between_answers_or_over_time_are_fine(noise: bytes) -> None:
    peer = Peer(H2Limits(chatter=100))
    for _ in range(5):
        peer.send(noise * 90)
        assert alive(peer)
    for _ in range(5):
        peer.send(noise * 90)
        peer.clock.advance(s=1)
        peer.server.sweep()
    assert not peer.goaways


def test_answers_on_a_stream_that_stays_open_are_answers_too() -> None:
    # gRPC's C++ client widens the window and pings for each message it reads, thousands of them in a second.
    peer = Peer(H2Limits(chatter=100), routes={"/t.T/Chat": Chat()})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    for index in range(100):
        peer.data(stream, prefixed(b"%d" % index), end=False)
        peer.send(f.window_update(0, 7) + f.window_update(stream, 7) + f.ping(bytes(8), ack=False))
    assert not peer.goaways
    assert peer.answer(stream).messages[-1] == b"99"


def test_ping_flood_with_calls_under_way_ends_the_connection() -> None:
    peer = Peer(H2Limits(chatter=100))
    peer.open()
    peer.send(f.ping(bytes(8), ack=False) * 101)
    assert peer.goaway == E.ENHANCE_YOUR_CALM


def test_continuation_flood_ends_the_connection() -> None:
    peer = Peer(H2Limits(continuations=5))
    peer.send(f.frame(f.HEADERS, 0, 1, b"\x82"))
    peer.send(f.frame(f.CONTINUATION, 0, 1, b"") * 5)
    assert not peer.goaways
    peer.send(f.frame(f.CONTINUATION, 0, 1, b""))
    assert peer.goaway == E.ENHANCE_YOUR_CALM


def test_a_header_block_that_is_too_large_ends_the_connection() -> None:
    block = peer_block = b"\x00\x01x\x7f\xa1\x1e" + b"v" * 4000
    for frames in (
        f.frame(f.HEADERS, f.END_HEADERS, 1, block * 5),
        f.frame(f.HEADERS, 0, 1, peer_block) + f.frame(f.CONTINUATION, 0, 1, block) * 4,
        f.head(2**24 - 1, f.HEADERS, f.END_HEADERS, 1),
    ):
        peer = Peer(H2Limits(header_block_bytes=16_384))
        peer.send(frames)
        assert peer.goaway == E.ENHANCE_YOUR_CALM
        assert len(peer.connection._rest) < 20_000


def test_headers_larger_than_announced_are_refused_and_the_connection_goes_on() -> None:
    peer = Peer(H2Limits(header_list_bytes=1000, header_block_bytes=32_768))
    answer = peer.answer(peer.open(peer.with_(("x-big", "y" * 2000)), end=True))
    assert answer.status == "8"
    assert "1000%20bytes" in answer.text or "1000 bytes" in answer.text
    assert alive(peer)


def test_an_hpack_bomb_is_refused_without_unpacking_it() -> None:
    peer = Peer()
    bomb = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 20_000  # says 80 MB
    peer.send(f.frame(f.HEADERS, 5, 1, bomb))
    assert peer.answer(1).status == "8"


def test_many_settings_in_one_frame_end_the_connection() -> None:
    peer = Peer()
    peer.send(f.frame(f.SETTINGS, 0, 0, b"\0\x04\0\0\0\1" * 65))
    assert peer.goaway == E.ENHANCE_YOUR_CALM


def test_header_blocks_remembered_are_bounded_in_number_and_size() -> None:
    peer = Peer(H2Limits(cached_blocks=10, cached_block_bytes=200))
    for number in range(100):
        headers = [(b":path", b"/p%d" % number), *((n.encode(), v.encode()) for n, v in REQUEST if n != ":path")]
        block = b"".join(
            b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value
            for name, value in sorted(headers, key=lambda field: field[0][:1] != b":")
        )
        stream, peer.next_stream = peer.next_stream, peer.next_stream + 2
        peer.send(f.frame(f.HEADERS, 5, stream, block))
        assert f"/p{number}" in peer.answer(stream).text
    assert 0 < len(peer.connection._heads) <= 10
    peer.connection._heads.clear()
    peer.send(f.frame(f.HEADERS, 5, peer.next_stream, block + b"\x00\x01x\x7f\x80\x01" + b"v" * 255))
    assert not peer.connection._heads


def test_streams_forgotten_are_bounded() -> None:
    peer = Peer(H2Limits(chatter=10**6))
    for _ in range(1100):
        peer.open(peer.with_((":path", "/none")))
    assert len(peer.connection._forgotten) == 1024


# -- keepalive


def test_pings_without_calls_that_come_too_fast_are_too_many() -> None:
    peer = Peer(H2Limits(ping_interval_s=300, ping_strikes=2))
    for _ in range(3):
        peer.send(f.ping(bytes(8), ack=False))
        peer.clock.advance(s=10)
    assert not peer.goaways
    peer.send(f.ping(bytes(8), ack=False))
    assert peer.goaway == E.ENHANCE_YOUR_CALM
    assert peer.goaways[0].additional_data == b"too_many_pings"


def test_pings_that_are_slow_or_beside_calls_or_after_answers_are_no_strikes() -> None:
    peer = Peer(H2Limits(ping_interval_s=300, ping_strikes=0))
    for _ in range(5):
        peer.send(f.ping(bytes(8), ack=False))
        peer.clock.advance(s=301)
    for _ in range(5):
        assert alive(peer)
        peer.send(f.ping(bytes(8), ack=False))
        peer.clock.advance(s=1)
    assert alive(peer)
    peer.open()
    for _ in range(20):
        peer.send(f.ping(bytes(8), ack=False))
    assert not peer.goaways


def test_a_silent_peer_is_pinged_and_then_dropped() -> None:
    peer = Peer(H2Limits(keepalive_s=100, keepalive_timeout_s=20))
    peer.server.sweep()
    peer.clock.advance(s=101)
    peer.server.sweep()
    peer.turn()
    assert peer.count(hf.PingFrame) == 1
    peer.clock.advance(s=19)
    peer.server.sweep()
    assert not peer.transport.closed
    peer.clock.advance(s=2)
    peer.server.sweep()
    assert peer.transport.closed == "abort"


def test_a_silent_peer_that_answers_the_ping_is_kept() -> None:
    peer = Peer(H2Limits(keepalive_s=100, keepalive_timeout_s=20))
    for _ in range(3):
        peer.server.sweep()
        peer.clock.advance(s=101)
        peer.server.sweep()
        peer.turn()
        peer.send(f.ping(b"tq-alive", ack=True))
        peer.clock.advance(s=30)
        peer.server.sweep()
    assert peer.count(hf.PingFrame) == 3
    assert not peer.transport.closed


# -- time


@pytest.mark.parametrize("sent", [b"", f.PREFACE[:10], f.PREFACE, f.PREFACE + f.settings({})[:8]])
def test_a_connection_that_does_not_begin_is_closed(sent: bytes) -> None:
    peer = Peer(H2Limits(opening_s=20), handshake=False)
    if sent:
        peer.send(sent)
    peer.clock.advance(s=19)
    peer.server.sweep()
    assert not peer.transport.closed
    peer.clock.advance(s=2)
    peer.server.sweep()
    peer.turn()
    assert peer.goaway == E.SETTINGS_TIMEOUT


def test_a_window_that_stays_closed_loses_its_stream_and_its_memory() -> None:
    peer = Peer(H2Limits(stall_s=60), settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = peer.call(b"1000000", "/t.T/Big")
    for _ in range(6):
        peer.clock.advance(s=10)
        peer.server.sweep()
    assert peer.connection.writer.unsent > 10**6
    peer.clock.advance(s=1)
    peer.server.sweep()
    peer.turn()
    assert peer.answer(stream).reset == E.CANCEL
    assert peer.connection.writer.unsent == 0
    assert not peer.goaways


def test_a_window_that_opens_slowly_loses_nothing() -> None:
    peer = Peer(H2Limits(stall_s=60), settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = peer.call(b"20", "/t.T/Big")
    for _ in range(25):
        peer.clock.advance(s=59)
        peer.server.sweep()
        peer.send(f.window_update(stream, 1))
    assert peer.answer(stream).ended


def test_a_connections_window_that_stays_closed_ends_it() -> None:
    peer = Peer(H2Limits(stall_s=60), settings={f.INITIAL_WINDOW_SIZE: 2**20})
    peer.call(b"100000", "/t.T/Big")
    peer.clock.advance(s=61)
    peer.server.sweep()
    peer.turn()
    assert peer.goaway == E.ENHANCE_YOUR_CALM


def test_a_socket_that_takes_nothing_is_dropped() -> None:
    peer = Peer(H2Limits(stall_s=60))
    peer.connection.pause_writing()
    peer.server.sweep()
    peer.clock.advance(s=30)
    peer.server.sweep()
    assert not peer.transport.closed
    peer.clock.advance(s=31)
    peer.server.sweep()
    assert peer.transport.closed == "abort"


def test_a_message_that_stops_in_the_middle_ends_its_call() -> None:
    peer = Peer(H2Limits(arrival_s=60))
    stream = peer.open()
    peer.data(stream, prefixed(b"x" * 100)[:50], end=False)
    for _ in range(3):
        peer.server.sweep()
        peer.clock.advance(s=50)
        peer.data(stream, b"x", end=False)
    assert not peer.answer(stream).ended
    for _ in range(3):
        peer.server.sweep()
        peer.clock.advance(s=50)
    peer.turn()
    assert peer.answer(stream).status == "4"
    assert alive(peer)


@pytest.mark.parametrize(
    "begun",
    [
        f.head(100, f.HEADERS, f.END_HEADERS, 1) + b"x",
        f.frame(f.HEADERS, 0, 1, b"\x82"),
        f.head(100, f.HEADERS, 4, 1)[:5],
    ],
)
def test_a_frame_or_header_block_that_stops_in_the_middle_ends_the_connection(begun: bytes) -> None:
    peer = Peer(H2Limits(arrival_s=60))
    peer.send(begun)
    peer.server.sweep()
    peer.clock.advance(s=61)
    peer.server.sweep()
    peer.turn()
    assert peer.goaway == E.ENHANCE_YOUR_CALM


def test_a_header_block_that_trickles_ends_the_connection() -> None:
    peer = Peer(H2Limits(arrival_s=60))
    peer.send(f.frame(f.HEADERS, 0, 1, b"\x82"))
    for _ in range(8):
        peer.server.sweep()
        peer.clock.advance(s=10)
        peer.send(f.frame(f.CONTINUATION, 0, 1, b"\x82"))
    peer.server.sweep()
    peer.turn()
    assert peer.goaway == E.ENHANCE_YOUR_CALM


def test_a_streaming_call_may_be_silent_between_messages() -> None:
    peer = Peer(H2Limits(arrival_s=60), routes={"/t.T/Chat": Chat()})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    for _ in range(3):
        peer.data(stream, prefixed(b"hi"), end=False)
        peer.server.sweep()
        peer.clock.advance(s=1000)
        peer.server.sweep()
    assert peer.answer(stream).messages == [b"hi"] * 3


def test_a_closing_connection_is_closed_for_good_soon() -> None:
    peer = Peer(H2Limits(linger_s=2))
    peer.send(f.frame(f.DATA, 0, 0, b"x"))
    assert peer.transport.closed == "eof"
    peer.server.sweep()
    assert peer.transport.closed == "eof"
    peer.clock.advance(s=3)
    peer.server.sweep()
    assert peer.transport.closed == "abort"


# -- memory


def test_connections_beyond_the_bound_are_turned_away() -> None:
    first = Peer(H2Limits(connections=1))
    second = Peer(server=first.server)
    assert second.goaway == E.ENHANCE_YOUR_CALM
    assert alive(first)
    second.connection.connection_lost(None)
    first.connection.connection_lost(None)
    third = Peer(server=first.server)
    assert third.answer(third.call(b"x", "/none")).ended


def test_messages_beyond_the_limit_are_refused_by_their_prefix() -> None:
    peer = Peer(max_message_bytes=1000)
    stream = peer.open()
    peer.data(stream, b"\0\x7f\xff\xff\xff", end=False)
    answer = peer.answer(stream)
    assert answer.status == "8"
    assert "larger than max (2147483647 vs. 1000" in answer.text
    assert peer.answer(peer.call(b"x" * 1000)).messages == [b"x" * 1000]
    assert peer.answer(peer.call(b"x" * 1001)).status == "8"


def test_answers_beyond_the_limit_are_refused() -> None:
    peer = Peer(max_message_bytes=1000)
    answer = peer.answer(peer.call(b"1001", "/t.T/Big"))
    assert answer.status == "8"
    assert "Sent message larger than max (1001 vs. 1000" in answer.text


def test_a_promise_of_gigabytes_takes_no_memory() -> None:
    peer = Peer(H2Limits(streams=4096), max_receiving_bytes=2**20)
    for _ in range(200):
        peer.data(peer.open(), b"\0\x7f\xff\xff\xff" + b"x" * 100, end=False)
    budget = peer.server.memory.budget
    assert budget.held == 200 * 100
    assert not any(answer.ended for answer in peer.answers.values())
    peer.connection.connection_lost(None)
    assert budget.held == 0


def test_what_is_being_received_is_bounded_over_all_connections() -> None:
    first = Peer(max_receiving_bytes=100_000)
    second = Peer(server=first.server)
    second.routes = first.routes
    held = first.open()
    first.data(held, prefixed(b"x" * 60_000)[:50_000], end=False)
    refused = second.open()
    second.data(refused, prefixed(b"x" * 60_000)[:55_000], end=False)
    answer = second.answer(refused)
    assert answer.status == "8"
    assert answer.headers["grpc-retry-pushback-ms"] == "1000"
    assert first.server.memory.budget.held == 49_995
    first.data(held, b"x" * 10_005)
    assert len(first.answer(held).messages[0]) == 60_000
    assert first.server.memory.budget.held == 0


def test_memory_of_calls_that_end_is_given_back() -> None:
    peer = Peer(max_receiving_bytes=10**6)
    budget = peer.server.memory.budget
    reset, cut, answered = peer.open(), peer.open(peer.with_(("grpc-timeout", "1S"))), peer.open()
    for stream in (reset, cut, answered):
        peer.data(stream, prefixed(b"x" * 60_000)[:40_000], end=False)
    assert budget.held == 3 * 39_995
    peer.send(f.frame(f.RST_STREAM, 0, reset, bytes(4)))
    assert budget.held == 2 * 39_995
    peer.clock.advance(s=2)
    peer.server.expire()
    assert budget.held == 39_995
    peer.data(answered, b"x" * 20_005)
    assert budget.held == 0
