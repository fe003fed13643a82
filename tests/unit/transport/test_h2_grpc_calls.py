"""gRPC on top of the streams: what a call's headers may say, how messages are framed, and how calls end."""

from __future__ import annotations

import gzip
import zlib
from typing import Any
from urllib.parse import unquote

import pytest

from h2_drive import REQUEST, Chat, Later, Peer, Refuses, prefixed
from tensorquay.core.errors import ErrorKind, InvalidArgument, Overloaded, ServingError
from tensorquay.transport import h2_frames as f
from tensorquay.transport.grpc_head import CallHead, read_head
from tensorquay.transport.grpc_wire import percent_encoded
from tensorquay.transport.h2_frames import ErrorCode as E
from tensorquay.transport.h2_limits import H2Limits


def head_of(*headers: tuple[str, str | None]) -> CallHead:
    said = dict(headers)
    kept = [(name, said.pop(name, value)) for name, value in REQUEST]
    fields = [(n.encode(), v.encode("latin-1")) for n, v in (*kept, *said.items()) if v is not None]
    return read_head(fields)


# -- headers


@pytest.mark.parametrize(
    ("said", "ns"),
    [("1n", 1), ("20u", 20_000), ("3m", 3 * 10**6), ("4S", 4 * 10**9), ("5M", 300 * 10**9), ("1H", 3600 * 10**9)],
)
def test_timeouts(said: str, ns: int) -> None:
    assert head_of(("grpc-timeout", said)).timeout_ns == ns


@pytest.mark.parametrize("said", ["99999999H", "99999999M", "20000000S"])
def test_timeouts_of_many_days_are_none(said: str) -> None:
    assert head_of(("grpc-timeout", said)).timeout_ns is None


@pytest.mark.parametrize("said", ["", "5", "S", "5s", "-5S", "123456789S", "5 S", "5S5S", "\u0665S"[:0] + "x"])
def test_timeouts_that_are_none_are_refused(said: str) -> None:
    refusal = head_of(("grpc-timeout", said)).refusal
    assert refusal is not None
    assert "grpc-timeout" in refusal.error.message


def test_metadata_is_what_is_not_the_protocols_own() -> None:
    head = head_of(
        ("user-agent", "me"),
        ("grpc-timeout", "1S"),
        ("grpc-encoding", "identity"),
        ("grpc-accept-encoding", "gzip"),
        ("x-text", "caf\u00e9"),
        ("x-bin", "AAH/"),
        ("y-bin", "AA,AQ=="),
    )
    assert head.metadata == (
        ("user-agent", "me"),
        ("x-text", "caf\u00e9"),
        ("x-bin", b"\0\x01\xff"),
        ("y-bin", b"\0,\x01"),
    )


def test_binary_metadata_that_is_no_base64_resets_the_stream() -> None:
    peer = Peer()
    assert peer.answer(peer.open(peer.with_(("x-bin", "!!!!")))).reset == E.PROTOCOL_ERROR


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"])
def test_content_types_of_grpc(kind: str) -> None:
    assert head_of(("content-type", kind)).refusal is None


@pytest.mark.parametrize("kind", [None, "application/json", "application/grpc-web", "application/grpcx", "text/html"])
def test_other_content_types_get_http_415(kind: str | None) -> None:
    peer = Peer()
    answer = peer.answer(peer.call(b"hi", "/t.T/Echo", ("content-type", kind)))
    assert answer.headers[":status"] == "415"
    assert "HTTP port" in unquote(answer.text)
    assert answer.ended


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_other_methods_get_http_405(method: str) -> None:
    peer = Peer()
    answer = peer.answer(peer.open(peer.with_((":method", method)), end=True))
    assert answer.headers[":status"] == "405"
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("size", [2, 60_000, 70_000])
def test_requests_that_are_no_grpc_are_answered_when_they_are_complete_or_too_long(size: int) -> None:
    peer = Peer()
    stream = peer.open(peer.with_(("content-type", "text/plain")))
    peer.data(stream, b"x" * size, end=False)
    answer = peer.answer(stream)
    assert answer.ended is (size > 65_536)
    if not answer.ended:
        peer.data(stream, b"")
    assert answer.headers[":status"] == "415"
    assert peer.server.memory.budget.held == 0
    assert peer.answer(peer.call(b"hi")).messages == [b"hi"]


def test_connect_is_refused_as_another_method() -> None:
    peer = Peer()
    answer = peer.answer(peer.open([(":method", "CONNECT"), (":authority", "x:1")], end=True))
    assert answer.headers[":status"] == "405"


def test_unknown_codings_are_unimplemented_and_told_which_there_are() -> None:
    peer = Peer()
    answer = peer.answer(peer.call(b"hi", "/t.T/Echo", ("grpc-encoding", "br")))
    assert answer.status == "12"
    assert answer.headers["grpc-accept-encoding"] == "identity,deflate,gzip"


def test_the_same_headers_are_read_once_and_only_while_the_table_stands_still() -> None:
    peer = Peer()
    heads: list[Any] = []
    read = peer.server.read_head
    peer.server.read_head = lambda fields: heads.append(None) or read(fields)
    assert peer.answer(peer.call(b"1")).status == "0"  # teaches the table
    assert peer.answer(peer.call(b"2")).status == "0"  # the first of its bytes
    for _ in range(10):
        assert peer.answer(peer.call(b"3")).status == "0"
    assert len(heads) == 2
    peer.call(b"4", "/t.T/Echo", ("x-new", "1"))  # teaches it again: indices have moved
    assert peer.answer(peer.call(b"5", "/none")).status == "13"
    assert peer.answer(peer.call(b"6")).messages == [b"6"]


def test_an_index_that_has_moved_is_not_taken_for_what_it_was() -> None:
    peer = Peer()
    kind = b"\x0f\x10\x10application/grpc"
    learn = b"\x40\x05:path"
    by_index = b"\x83\x86\xbe" + kind  # whatever was learnt last
    peer.send(f.frame(f.HEADERS, f.END_HEADERS, 1, b"\x83\x86" + learn + b"\x09/t.T/Echo" + kind))
    for stream in (3, 5):
        peer.send(f.frame(f.HEADERS, f.END_HEADERS, stream, by_index))
        peer.data(stream, prefixed(b"x"))
        assert peer.answer(stream).messages == [b"x"]
    peer.send(f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, 7, b"\x83\x86" + learn + b"\x05/none" + kind))
    peer.send(f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, 9, by_index))
    assert "/none" in peer.answer(9).text


# -- messages


@pytest.mark.parametrize("pieces", [1, 2, 3, 5, 6, 100])
def test_a_message_may_come_in_any_frames(pieces: int) -> None:
    peer = Peer()
    stream = peer.open()
    payload = prefixed(b"a message in pieces")
    for start in range(0, len(payload), pieces):
        peer.data(stream, payload[start : start + pieces], end=False)
    peer.data(stream, b"", end=True)
    assert peer.answer(stream).messages == [b"a message in pieces"]


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_535, 65_536, 300_000, 3_000_000])
@pytest.mark.parametrize("frame", [16_384, 2**20, 2**24 - 1])
def test_a_large_message_arrives_whole_whatever_the_frames(size: int, frame: int) -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    message = (bytes(range(251)) * (size // 251 + 1))[:size]
    stream = peer.open(peer.with_((":path", "/t.T/Later")))
    payload = prefixed(message)
    frames = b"".join(
        f.frame(f.DATA, 1 if start + frame >= len(payload) else 0, stream, payload[start : start + frame])
        for start in range(0, len(payload), frame)
    )
    peer.send(frames, pieces=77_777)
    assert [taken for _, taken in later.calls] == [message]
    assert peer.server.memory.budget.held == 0


def test_large_messages_go_straight_into_their_own_buffer() -> None:
    later = Later()
    kinds: list[type] = []
    later.start = lambda call, message: kinds.append(type(message))  # type: ignore[method-assign]
    peer = Peer(routes={"/t.T/Later": later})
    stream = peer.open(peer.with_((":path", "/t.T/Later")))
    payload = prefixed(bytes(600_000))
    peer.send(f.head(len(payload), f.DATA, 1, stream) + payload[:50_000])
    target = peer.connection.get_buffer(-1)
    assert len(target) > 400_000, "the rest is received in one piece, not staged"
    peer.send(payload[50_000:])
    assert kinds == [memoryview]


def test_several_messages_in_one_frame_are_a_unary_calls_mistake() -> None:
    peer = Peer()
    stream = peer.open()
    peer.data(stream, prefixed(b"a") + prefixed(b"b"))
    assert peer.answer(stream).status == "12"
    assert "sent another" in unquote(peer.answer(stream).text)


@pytest.mark.parametrize("end_in_headers", [True, False])
def test_no_message_is_a_unary_calls_mistake(end_in_headers: bool) -> None:
    peer = Peer()
    stream = peer.open(end=end_in_headers)
    if not end_in_headers:
        peer.data(stream, b"")
    assert peer.answer(stream).status == "12"


@pytest.mark.parametrize("cut", [1, 4, 5, 7])
def test_an_end_in_the_middle_of_a_message_is_a_mistake(cut: int) -> None:
    peer = Peer()
    stream = peer.open()
    peer.data(stream, prefixed(b"whole")[:cut])
    assert peer.answer(stream).status == "13"
    assert "middle" in peer.answer(stream).text


def test_flags_beyond_compressed_are_refused() -> None:
    peer = Peer()
    stream = peer.open()
    peer.data(stream, prefixed(b"x", compressed=2))
    assert peer.answer(stream).status == "13"


# -- compression


SQUEEZE = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", SQUEEZE)
def test_compressed_messages_are_read_and_answered_likewise(coding: str) -> None:
    peer = Peer()
    headers = (("grpc-encoding", coding), ("grpc-accept-encoding", "identity, deflate, gzip"))
    stream = peer.open(peer.with_(*headers))
    peer.data(stream, prefixed(SQUEEZE[coding](b"squeeze " * 1000), compressed=1))
    answer = peer.answer(stream)
    assert answer.headers["grpc-encoding"] == coding
    assert answer.data[0] == 1
    assert zlib.decompress(answer.messages[0], 47) == b"squeeze " * 1000
    assert len(answer.messages[0]) < 200
    assert answer.status == "0"


def test_answers_are_not_compressed_for_clients_that_do_not_say_they_read_it() -> None:
    peer = Peer()
    stream = peer.open(peer.with_(("grpc-encoding", "gzip")))
    peer.data(stream, prefixed(gzip.compress(b"hello"), compressed=1))
    assert peer.answer(stream).messages == [b"hello"]
    assert "grpc-encoding" not in peer.answer(stream).headers


def test_an_answer_that_compression_would_make_larger_goes_as_it_is() -> None:
    peer = Peer()
    stream = peer.open(peer.with_(("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip")))
    peer.data(stream, prefixed(b"x"))
    assert bytes(peer.answer(stream).data) == prefixed(b"x")


@pytest.mark.parametrize(
    ("coding", "payload", "status"),
    [
        (None, prefixed(gzip.compress(b"x", mtime=0), compressed=1), "13"),
        ("identity", prefixed(gzip.compress(b"x", mtime=0), compressed=1), "13"),
        ("gzip", prefixed(b"not gzip at all", compressed=1), "3"),
        ("gzip", prefixed(gzip.compress(b"x" * 100, mtime=0)[:-3], compressed=1), "3"),
        ("gzip", prefixed(gzip.compress(bytes(10**7), mtime=0), compressed=1), "8"),
        ("deflate", prefixed(zlib.compress(bytes(10**7)), compressed=1), "8"),
    ],
)
def test_compressed_messages_that_cannot_be_read(coding: str | None, payload: bytes, status: str) -> None:
    peer = Peer(max_message_bytes=10**6)
    stream = peer.open(peer.with_(("grpc-encoding", coding)))
    peer.data(stream, payload)
    assert peer.answer(stream).status == status


# -- ends


@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_of_error_is_a_status_in_headers_alone(kind: ErrorKind) -> None:
    peer = Peer(routes={"/t.T/No": Refuses(ServingError("100% wrong: \u00e9\n", kind=kind))})
    answer = peer.answer(peer.call(b"x", "/t.T/No"))
    assert int(answer.status or 0) > 0
    assert not answer.trailers
    assert answer.headers[":status"] == "200"
    assert unquote(answer.text) == "100% wrong: \u00e9\n"


def test_retry_pushback_is_told_in_milliseconds() -> None:
    peer = Peer(routes={"/t.T/No": Refuses(Overloaded("busy", retry_after_s=1.5))})
    assert peer.answer(peer.call(b"x", "/t.T/No")).headers["grpc-retry-pushback-ms"] == "1500"


def test_a_bug_in_a_handler_is_an_answer_without_secrets_and_hurts_no_other_call(caplog: Any) -> None:
    peer = Peer()
    answer = peer.answer(peer.call(b"x", "/t.T/Broken"))
    assert answer.status == "13"
    assert "secret" not in answer.text
    assert "secret" in caplog.text
    assert peer.answer(peer.call(b"fine")).messages == [b"fine"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        " both ",
        "100%",
        "tab\tand\nline",
        "\u00e9\u4e2d\U0001f600",
        "x" * 9000,
        "\u4e2d" * 3000,
        "%" * 5000,
    ],
)
def test_status_texts_survive_encoding(text: str) -> None:
    coded = percent_encoded(text)
    assert len(coded) <= 4096 + 4
    assert all(0x20 <= byte <= 0x7E for byte in coded)
    assert coded.strip() == coded
    assert text.startswith(unquote(coded.decode(), errors="strict"))
    if len(text) < 100:
        assert unquote(coded.decode()) == text


def test_a_deadline_ends_the_call_and_cancels_its_work() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    soon = peer.call(b"x", "/t.T/Later", ("grpc-timeout", "100m"))
    late = peer.call(b"x", "/t.T/Later", ("grpc-timeout", "10S"))
    never = peer.call(b"x", "/t.T/Later")
    assert peer.server._wake_ns == peer.clock.now_ns() + 10**8
    peer.clock.advance(ms=101)
    peer.server.expire()
    peer.turn()
    assert peer.answer(soon).status == "4"
    assert later.gone_calls == 1
    assert not peer.answer(late).ended
    assert peer.server._wake_ns == later.calls[1][0].deadline_ns
    later.calls[0][0].answer(b"too late")
    later.calls[1][0].answer(b"in time")
    peer.clock.advance(s=100)
    peer.server.expire()
    peer.turn()
    assert peer.answer(soon).messages == []
    assert peer.answer(late).messages == [b"in time"]
    assert not peer.answer(never).ended
    assert peer.server._wake_ns is None


def test_a_deadline_passes_too_before_the_message_is_there() -> None:
    peer = Peer()
    stream = peer.open(peer.with_(("grpc-timeout", "1m")))
    peer.clock.advance(ms=2)
    peer.server.expire()
    peer.turn()
    assert peer.answer(stream).status == "4"
    assert peer.answer(stream).reset == E.NO_ERROR


def test_only_the_first_answer_counts() -> None:
    later = Later()
    peer = Peer(routes={"/t.T/Later": later})
    stream = peer.call(b"x", "/t.T/Later")
    call = later.calls[0][0]
    call.answer(b"first")
    call.answer(b"second")
    call.answer(InvalidArgument("third"))
    call.fail(InvalidArgument("fourth"))
    peer.turn()
    assert peer.answer(stream).messages == [b"first"]


# -- streams


def test_a_stream_sends_while_it_receives_and_ends_with_the_client() -> None:
    peer = Peer(routes={"/t.T/Chat": Chat()})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    assert not peer.answer(stream).headers
    for number in range(3):
        peer.data(stream, prefixed(b"%d" % number), end=False)
        assert len(peer.answer(stream).messages) == number + 1
    peer.data(stream, b"")
    answer = peer.answer(stream)
    assert (answer.messages, answer.trailers["grpc-status"], answer.reset) == ([b"0", b"1", b"2"], "0", None)


def test_a_stream_without_messages_is_a_success() -> None:
    peer = Peer(routes={"/t.T/Chat": Chat()})
    answer = peer.answer(peer.open(peer.with_((":path", "/t.T/Chat")), end=True))
    assert (answer.headers[":status"], answer.status, answer.messages) == ("200", "0", [])


def test_a_stream_may_fail_after_messages_with_trailers() -> None:
    chat = Chat()
    peer = Peer(routes={"/t.T/Chat": chat})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    peer.data(stream, prefixed(b"hi"), end=False)
    peer.connection.calls[stream].fail(InvalidArgument("no more"))
    peer.turn()
    answer = peer.answer(stream)
    assert (answer.messages, answer.trailers["grpc-status"], answer.text) == ([b"hi"], "3", "no more")


def test_a_stream_that_the_client_leaves_is_told_to_its_handler_once() -> None:
    chat = Chat()
    peer = Peer(routes={"/t.T/Chat": chat})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    peer.data(stream, prefixed(b"hi"), end=False)
    peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    peer.connection.connection_lost(None)
    assert chat.gone_calls == 1


def test_a_stream_whose_client_does_not_read_is_counted_in_waiting_messages() -> None:
    peer = Peer(H2Limits(), routes={"/t.T/Chat": Chat()}, settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = peer.open(peer.with_((":path", "/t.T/Chat")))
    peer.data(stream, b"".join(prefixed(b"m") for _ in range(10)), end=False)
    assert peer.connection.calls[stream].waiting_messages == 10
    peer.send(f.window_update(stream, 60))
    assert peer.connection.calls[stream].waiting_messages == 0
    assert len(peer.answer(stream).messages) == 10
