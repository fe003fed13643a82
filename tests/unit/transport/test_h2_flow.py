"""Flow control both ways: nothing is sent beyond a window, nothing is taken beyond ours, and streams take turns."""

from __future__ import annotations

import hyperframe.frame as hf
import pytest

from h2_drive import Big, Chat, Echo, Later, Peer, prefixed
from tensorquay.transport import h2_frames as f
from tensorquay.transport.h2_frames import ErrorCode as E
from tensorquay.transport.h2_limits import H2Limits


def sizes(peer: Peer, stream: int) -> list[int]:
    return [len(x.data) for x in peer.frames if isinstance(x, hf.DataFrame) and x.stream_id == stream]


def updates(peer: Peer, stream: int) -> list[int]:
    return [x.window_increment for x in peer.frames if isinstance(x, hf.WindowUpdateFrame) and x.stream_id == stream]


# -- sending


def test_an_answer_stops_at_the_streams_window_and_goes_on_with_it() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 1000})
    stream = peer.call(b"5000", "/t.T/Big")
    assert len(peer.answer(stream).data) == 1000
    assert not peer.answer(stream).ended
    peer.send(f.window_update(stream, 7))
    assert len(peer.answer(stream).data) == 1007
    peer.send(f.window_update(stream, 2**20))
    assert peer.answer(stream).messages == [b"z" * 5000]
    assert peer.answer(stream).status == "0"


def test_an_answer_stops_at_the_connections_window() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 2**20})
    first, second = peer.call(b"60000", "/t.T/Big"), peer.call(b"60000", "/t.T/Big")
    assert len(peer.answer(first).data) + len(peer.answer(second).data) == 65_535
    peer.send(f.window_update(0, 2**20))
    assert peer.answer(first).ended
    assert peer.answer(second).ended


def test_with_a_window_of_0_headers_go_out_and_data_waits() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = peer.call(b"hi")
    assert peer.answer(stream).headers[":status"] == "200"
    assert not peer.answer(stream).data
    peer.send(f.window_update(stream, 7))
    assert peer.answer(stream).messages == [b"hi"]
    assert peer.answer(stream).ended


def test_many_small_answers_stop_at_the_connections_window() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 2**20})
    streams = [peer.call(b"9995", "/t.T/Big") for _ in range(8)]
    assert sum(len(peer.answer(stream).data) for stream in streams) == 65_535
    assert [peer.answer(stream).ended for stream in streams] == [True] * 6 + [False] * 2
    peer.send(f.window_update(0, 2**20))
    assert all(peer.answer(stream).ended for stream in streams)


def test_refusals_need_no_window() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 0})
    assert peer.answer(peer.call(b"hi", "/none")).ended


def test_a_window_may_become_negative_and_counts_from_there() -> None:
    peer = Peer()
    stream = peer.call(b"100000", "/t.T/Big")
    peer.send(f.window_update(0, 2**20))
    assert len(peer.answer(stream).data) == 65_535
    peer.send(f.settings({f.INITIAL_WINDOW_SIZE: 10}))  # the window is now 10 − 65535
    peer.send(f.window_update(stream, 65_525))
    assert len(peer.answer(stream).data) == 65_535
    peer.send(f.window_update(stream, 3))
    assert len(peer.answer(stream).data) == 65_538
    peer.send(f.settings({f.INITIAL_WINDOW_SIZE: 2**20}))
    assert peer.answer(stream).ended


def test_frames_are_no_larger_than_the_peer_takes() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 2**20})
    peer.send(f.window_update(0, 2**20))
    small = peer.call(b"100000", "/t.T/Big")
    assert max(sizes(peer, small)) == 16_384
    peer.send(f.settings({f.MAX_FRAME_SIZE: 50_000}))
    large = peer.call(b"100000", "/t.T/Big")
    assert max(sizes(peer, large)) == 50_000


def test_a_small_answer_of_exactly_the_frame_size_is_one_frame_and_one_more_byte_two() -> None:
    peer = Peer()
    exact, beyond = peer.call(b"16379", "/t.T/Big"), peer.call(b"16380", "/t.T/Big")
    assert sizes(peer, exact) == [16_384]
    assert sizes(peer, beyond) == [16_384, 1]


def test_large_answers_take_turns() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 2**24})
    streams = [peer.call(b"3000000", "/t.T/Big") for _ in range(3)]
    peer.frames.clear()
    peer.send(f.window_update(0, 2**24))
    order = [x.stream_id for x in peer.frames if isinstance(x, hf.DataFrame)]
    firsts = [order.index(stream) for stream in streams]
    last_of_first = len(order) - 1 - order[::-1].index(streams[0])
    assert max(firsts) < last_of_first, "no answer waits for another one to end"
    assert all(peer.answer(stream).ended for stream in streams)


def test_streams_that_had_to_wait_for_a_turn_of_the_loop_go_first_in_the_next() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 2**24})
    streams = [peer.call(b"2000000", "/t.T/Big") for _ in range(8)]
    peer.frames.clear()
    peer.send(f.window_update(0, 2**26))
    order = [x.stream_id for x in peer.frames if isinstance(x, hf.DataFrame)]
    shares = [stream for stream, before in zip(order, [0, *order], strict=False) if stream != before]
    assert sorted(shares[:8]) == streams, "everybody sends once before anybody sends twice"


def test_a_small_answer_overtakes_large_ones_that_wait_for_their_own_windows() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 1000})
    peer.call(b"50000", "/t.T/Big")
    assert peer.answer(peer.call(b"quick")).messages == [b"quick"]


def test_everything_of_a_loop_turn_is_one_write() -> None:
    peer = Peer()
    peer.turn()
    before = peer.transport.writes
    requests = b"".join(
        f.frame(f.HEADERS, f.END_HEADERS, stream, peer.block()) + f.frame(f.DATA, 1, stream, prefixed(b"hi"))
        for stream in range(1, 21, 2)
    )
    peer.send(requests)
    assert all(peer.answer(stream).messages == [b"hi"] for stream in range(1, 21, 2))
    assert peer.transport.writes == before + 1


def test_while_the_socket_takes_nothing_calls_stay_open_and_nothing_is_written() -> None:
    peer = Peer(H2Limits(streams=3))
    peer.connection.pause_writing()
    streams = [peer.call(b"hi") for _ in range(3)]
    assert not any(peer.answer(stream).headers for stream in streams)
    assert peer.answer(peer.call(b"one more")).reset == E.REFUSED_STREAM
    peer.connection.resume_writing()
    peer.turn()
    assert [peer.answer(stream).messages for stream in streams] == [[b"hi"]] * 3


def test_a_reset_lets_go_of_what_waits() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = peer.call(b"100000", "/t.T/Big")
    assert peer.connection.writer.unsent > 100_000
    peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    assert peer.connection.writer.unsent == 0
    peer.send(f.window_update(0, 2**20))
    assert not peer.answer(stream).data


def test_unsent_is_exact_after_everything_was_sent() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 300})
    streams = [peer.call(b"1000", "/t.T/Big") for _ in range(5)]
    for _ in range(10):
        for stream in streams:
            if not peer.answer(stream).ended:
                peer.send(f.window_update(stream, 117))
    assert all(peer.answer(stream).ended for stream in streams)
    assert peer.connection.writer.unsent == 0
    assert not peer.connection.calls


def test_a_client_that_leaves_its_answers_gets_no_more_work_done() -> None:
    later = Later()
    peer = Peer(H2Limits(unsent_bytes=1000), routes={"/t.T/Later": later}, settings={f.INITIAL_WINDOW_SIZE: 0})
    peer.call(b"2000", "/t.T/Big")
    refused = peer.answer(peer.call(b"x", "/t.T/Later"))
    assert refused.status == "8"
    assert refused.headers["grpc-retry-pushback-ms"] == "1000"
    assert not later.calls


# -- receiving


def test_windows_open_again_when_half_of_them_is_consumed() -> None:
    peer = Peer(H2Limits(stream_window=70_000, connection_window=140_000), routes={"/t.T/Chat": Chat()})
    peer.turn()
    assert updates(peer, 0) == [140_000 - 65_535]
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    for _ in range(7):
        peer.data(stream, prefixed(b"x" * 9_995), end=False)
    assert updates(peer, stream) == [40_000]
    assert updates(peer, 0)[1:] == [70_000]


@pytest.mark.parametrize("pieces", [0, 1000])
def test_more_than_the_streams_window_is_an_error_of_the_stream(pieces: int) -> None:
    chat = Chat(holds_after=1)
    peer = Peer(H2Limits(stream_window=70_000, connection_window=2**20), routes={"/t.T/Chat": chat})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    peer.data(stream, prefixed(b"x" * 30_000), end=False)
    peer.send(f.frame(f.DATA, 0, stream, b"y" * 40_000), pieces=pieces)
    assert peer.answer(stream).reset == E.FLOW_CONTROL_ERROR
    assert chat.gone_calls == 1
    assert not peer.goaways


def test_more_than_the_connections_window_is_an_error_of_the_connection() -> None:
    chat = Chat(holds_after=1)
    peer = Peer(H2Limits(stream_window=70_000, connection_window=100_000), routes={"/t.T/Chat": chat})
    for _ in range(3):
        stream = peer.open(peer.with_((":path", "/t.T/Chat")))
        chat.got.clear()
        peer.data(stream, prefixed(b""), end=False)
        peer.data(stream, b"y" * 60_000, end=False)
        if peer.goaways:
            break
    assert peer.goaway == E.FLOW_CONTROL_ERROR


@pytest.mark.parametrize("frame", [1000, 2**20])
def test_what_a_call_does_not_take_opens_no_window_until_it_does(frame: int) -> None:
    chat = Chat(holds_after=1)
    peer = Peer(H2Limits(stream_window=70_000, connection_window=70_000), routes={"/t.T/Chat": chat})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    data = b"".join(prefixed(b"%05d" % number) for number in range(6000))
    for start in range(0, len(data), frame):
        peer.data(stream, data[start : start + frame], end=False)
    assert (chat.got, updates(peer, stream), updates(peer, 0)[1:]) == ([b"00000"], [], [])
    chat.holds_after = 0
    peer.connection.calls[stream].go_on()
    peer.turn()
    assert chat.got == [b"%05d" % number for number in range(6000)]
    assert updates(peer, stream) == [60_000]
    assert updates(peer, 0)[1:] == [60_000]
    assert peer.connection._waiting == 0


def test_a_held_call_hears_of_the_clients_end_only_after_its_messages() -> None:
    chat = Chat(holds_after=1)
    peer = Peer(routes={"/t.T/Chat": chat})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    peer.data(stream, prefixed(b"a") + prefixed(b"b") + prefixed(b"c"))
    assert not peer.answer(stream).ended
    peer.connection.calls[stream].go_on()
    peer.turn()
    assert peer.answer(stream).messages == [b"a", b"b", b"c"]
    assert peer.answer(stream).ended


def test_backlogs_of_calls_that_end_give_their_window_back() -> None:
    chat = Chat(holds_after=1)
    peer = Peer(H2Limits(stream_window=70_000, connection_window=140_000), routes={"/t.T/Chat": chat})
    for _ in range(8):
        chat.got.clear()
        stream = peer.open(peer.with_((":path", "/t.T/Chat")))
        peer.data(stream, prefixed(b""), end=False)
        peer.data(stream, b"y" * 60_000, end=False)
        peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    assert not peer.goaways
    assert peer.connection._waiting == 0


def test_data_of_ended_calls_counts_for_the_connection_only() -> None:
    peer = Peer(H2Limits(stream_window=70_000, connection_window=140_000))
    stream = peer.open(peer.with_((":path", "/none")))
    for _ in range(30):
        peer.data(stream, b"y" * 10_000, end=False)
    assert not peer.goaways
    assert sum(updates(peer, 0)) >= 140_000
    assert updates(peer, stream) == []


def test_a_drained_call_is_told() -> None:
    chat = Chat()
    peer = Peer(routes={"/t.T/Chat": chat}, settings={f.INITIAL_WINDOW_SIZE: 3})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    peer.data(stream, prefixed(b"hello"), end=False)
    assert chat.drains == 0
    peer.send(f.window_update(stream, 7))
    assert chat.drains == 1


def test_an_echo_of_many_sizes_arrives_whole() -> None:
    peer = Peer(settings={f.INITIAL_WINDOW_SIZE: 2**24}, routes={"/t.T/Echo": Echo(), "/t.T/Big": Big()})
    peer.send(f.window_update(0, 2**24))
    for size in (0, 1, 16_378, 16_379, 16_380, 65_530, 65_536, 131_072, 600_000):
        message = bytes(range(256)) * (size // 256 + 1)
        stream = peer.call(message[:size])
        assert peer.answer(stream).messages == [message[:size]]
