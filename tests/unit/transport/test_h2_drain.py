"""The graceful end: warn, let streams finish, then close; and the abrupt ones."""

from __future__ import annotations

import hyperframe.frame as hf

from h2_drive import Chat, Later, Peer, prefixed
from tensorquay.transport import h2_frames as f
from tensorquay.transport.h2_connection import Connection
from tensorquay.transport.h2_ending import State
from tensorquay.transport.h2_frames import ErrorCode as E


def drain_ping(peer: Peer) -> bytes:
    return next(x.opaque_data for x in peer.frames if isinstance(x, hf.PingFrame) and "ACK" not in x.flags)


def test_a_drain_is_two_goaways_with_the_peers_ping_between_them() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    before = peer.call(b"before", "/t.T/Later")
    peer.connection.warn()
    peer.turn()
    assert [(g.last_stream_id, g.error_code) for g in peer.goaways] == [(2**31 - 1, E.NO_ERROR)]
    racing = peer.call(b"racing", "/t.T/Later")
    assert len(later.calls) == 2, "what the client sent before it heard of it is served"
    peer.send(f.ping(drain_ping(peer), ack=True))
    assert [g.last_stream_id for g in peer.goaways] == [2**31 - 1, racing]
    late = peer.call(b"late", "/t.T/Later")
    peer.send(f.window_update(late, 10) + f.frame(f.RST_STREAM, 0, late, bytes(4)))
    assert len(later.calls) == 2
    assert not peer.answer(late).headers
    for call, message in later.calls:
        assert not peer.transport.closed
        call.answer(message)
        peer.turn()
    assert peer.answer(before).messages == [b"before"]
    assert peer.answer(racing).messages == [b"racing"]
    assert peer.transport.closed == "eof"
    assert peer.connection.state is State.CLOSING
    assert {g.error_code for g in peer.goaways} == {E.NO_ERROR}


def test_headers_ignored_while_draining_still_teach_the_table() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    kept = peer.call(b"x", "/t.T/Later")
    peer.connection.warn()
    peer.connection.drain()
    peer.open(peer.with_(("x-new", "learnt")), end=True)
    ignored = peer.open(peer.with_(("x-new", "learnt")), end=True)  # by index: an error, had the table not followed
    assert [g.error_code for g in peer.goaways] == [0, 0]
    assert not peer.answer(ignored).headers
    assert not peer.transport.closed
    later.calls[0][0].answer(b"done")
    peer.turn()
    assert peer.answer(kept).messages == [b"done"]
    assert peer.transport.closed == "eof"


def test_calls_whose_client_is_not_done_are_ended_by_a_drain_and_the_others_are_not() -> None:
    later, chat = Later(), Chat()
    peer = Peer(routes={"/t.T/Later": later, "/t.T/Chat": chat})
    asked = peer.call(b"x", "/t.T/Later")
    asking, chatting = peer.open(), peer.open(peer.with_((":path", "/t.T/Chat")))
    peer.data(chatting, prefixed(b"hi"), end=False)
    peer.connection.warn()
    peer.connection.drain()
    peer.turn()
    assert [peer.answer(stream).status for stream in (asking, chatting, asked)] == ["14", "14", None]
    assert chat.gone_calls == 1
    assert peer.answer(chatting).messages == [b"hi"]


def test_an_idle_connection_closes_as_soon_as_the_client_has_heard() -> None:
    peer = Peer()
    peer.connection.warn()
    peer.turn()
    assert not peer.transport.closed
    peer.send(f.ping(drain_ping(peer), ack=True))
    assert peer.transport.closed == "eof"


def test_a_connection_that_never_began_closes_at_once() -> None:
    peer = Peer(handshake=False)
    peer.connection.warn()
    peer.turn()
    assert peer.transport.closed == "eof"


def test_another_ping_ack_does_not_end_the_warning() -> None:
    peer = Peer()
    peer.connection.warn()
    peer.send(f.ping(b"whatever", ack=True))
    assert peer.connection.state is State.WARNED


def test_a_drain_ends_too_when_the_last_call_is_reset() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    stream = peer.call(b"x", "/t.T/Later")
    peer.connection.drain()
    peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    assert later.gone_calls == 1
    assert peer.transport.closed == "eof"


def test_a_drain_waits_for_answers_that_wait_for_a_window() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = peer.call(b"slow")
    peer.connection.drain()
    peer.turn()
    assert not peer.transport.closed
    peer.send(f.window_update(stream, 100))
    assert peer.answer(stream).messages == [b"slow"]
    assert peer.transport.closed == "eof"


def test_cut_answers_what_is_left_cancels_it_and_closes() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    stream = peer.call(b"x", "/t.T/Later")
    half = peer.open()
    peer.data(half, prefixed(b"abc")[:5], end=False)
    peer.connection.cut()
    peer.turn()
    assert peer.answer(stream).status == "14"
    assert peer.answer(half).status == "14"
    assert later.gone_calls == 1
    assert peer.transport.closed == "eof"
    later.calls[0][0].answer(b"too late")
    peer.turn()
    assert not peer.answer(stream).messages


def test_a_lost_connection_cancels_its_calls_and_says_nothing() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    peer.call(b"x", "/t.T/Later")
    peer.call(b"y", "/t.T/Later")
    peer.turn()
    before = len(peer.transport.written)
    peer.transport.closed = "close"
    peer.connection.connection_lost(ConnectionResetError())
    assert later.gone_calls == 2
    for call, _ in later.calls:
        call.answer(b"nobody hears")
    peer.loop.turn()
    assert len(peer.transport.written) == before
    assert peer.server.connections == 0


def test_steps_out_of_order_do_nothing() -> None:
    peer = Peer()
    for step in (Connection.drain, Connection.warn, Connection.drain, Connection.cut, Connection.drain):
        step(peer.connection)
    peer.turn()
    assert len(peer.goaways) == 1
    assert peer.transport.closed == "eof"
