"""Large compressed messages of gRPC calls: worked on beside the loop, in order, and for nobody who has left."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from h2_drive import Chat, Later, Peer, prefixed
from tensorquay.transport import h2_frames as f
from tensorquay.transport.coding import COMPRESS_BESIDE_BYTES, DECOMPRESS_BESIDE_BYTES
from tensorquay.transport.h2_limits import H2Limits

CODED = (("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip"))
NOISE = random.Random(1).randbytes(3 * DECOMPRESS_BESIDE_BYTES)
LARGE = prefixed(gzip.compress(NOISE), compressed=1)
SMALL = prefixed(gzip.compress(b"small"), compressed=1)


def peer_with(path: str, route: object, **options: object) -> Peer:
    return Peer(routes={path: route}, **options)  # type: ignore[arg-type]


def opened(peer: Peer, path: str, *headers: tuple[str, str]) -> int:
    return peer.open(peer.with_((":path", path), *(headers or CODED)))


def plain(peer: Peer, stream: int) -> list[bytes]:
    """The messages of an answer, without compression."""
    found, data = [], bytes(peer.answer(stream).data)
    while data:
        end = 5 + int.from_bytes(data[1:5], "big")
        found.append(zlib.decompress(data[5:end], 47) if data[0] else data[5:end])
        data = data[end:]
    return found


def test_others_are_served_while_a_large_message_is_unpacked() -> None:
    peer = Peer()
    peer.coding.waits = True
    stream = opened(peer, "/t.T/Echo")
    peer.data(stream, LARGE)
    assert peer.coding.waiting == 1
    assert peer.answer(stream).status is None
    assert peer.answer(peer.call(b"other")).messages == [b"other"]
    peer.coding.go()
    peer.turn()
    assert plain(peer, stream) == [NOISE]
    assert peer.answer(stream).status == "0"


@pytest.mark.parametrize("path", ["/t.T/Echo", "/t.T/Chat"])
def test_a_large_message_may_have_a_large_answer(path: str) -> None:
    peer = peer_with("/t.T/Chat", Chat())
    peer.coding.waits = True
    noise = random.Random(3).randbytes(2 * COMPRESS_BESIDE_BYTES)
    payload = prefixed(gzip.compress(noise), compressed=1)
    stream = opened(peer, path)
    for start in range(0, len(payload), 16_000):
        peer.data(stream, payload[start : start + 16_000], end=start + 16_000 >= len(payload))
    for number in range(2):
        assert peer.answer(stream).status is None
        assert peer.coding.waiting == 1, number
        peer.coding.go()
        peer.turn()
    peer.send(f.window_update(0, 2**20) + f.window_update(stream, 2**20))
    assert plain(peer, stream) == [noise]
    assert peer.answer(stream).status == "0"


def test_what_a_client_does_not_end_is_not_made_larger() -> None:
    later = Later()
    peer = peer_with("/t.T/Later", later)
    peer.coding.waits = True
    stream = opened(peer, "/t.T/Later")
    peer.data(stream, LARGE, end=False)
    assert (peer.coding.waiting, later.calls) == (0, [])
    peer.data(stream, b"")
    assert peer.coding.waiting == 1


def test_a_large_message_stays_booked_until_its_client_ends() -> None:
    size = 2**20
    later = Later()
    peer = peer_with("/t.T/Later", later, max_receiving_bytes=size + 1000)
    first = opened(peer, "/t.T/Later")
    for start in range(0, size, 16_000):
        piece = bytes(min(16_000, size - start))
        peer.data(first, (prefixed(bytes(size))[:5] if not start else b"") + piece, end=False)
    budget = peer.server.memory.budget
    assert budget.held == size
    second = peer.open()
    peer.data(second, prefixed(bytes(5000))[:4000], end=False)
    assert peer.answer(second).status == "8"
    peer.data(first, b"")
    assert (budget.held, len(later.calls)) == (0, 1)


@pytest.mark.parametrize("leaves", ["reset", "connection", "deadline"])
def test_who_leaves_meanwhile_is_not_served(leaves: str) -> None:
    later = Later()
    peer = peer_with("/t.T/Later", later)
    peer.coding.waits = True
    stream = opened(peer, "/t.T/Later", *CODED, ("grpc-timeout", "1S"))
    peer.data(stream, LARGE)
    if leaves == "reset":
        peer.send(f.rst_stream(stream, 8))
    elif leaves == "connection":
        peer.connection.connection_lost(None)
    else:
        peer.clock.advance(2 * 10**9)  # type: ignore[attr-defined]
        peer.server.expire()
        peer.turn()
        assert peer.answer(stream).status == "4"
    peer.coding.go()
    peer.turn()
    assert later.calls == []
    assert later.gone_calls == 1


def test_a_stream_keeps_its_order() -> None:
    chat = Chat()
    peer = peer_with("/t.T/Chat", chat)
    peer.coding.waits = True
    stream = opened(peer, "/t.T/Chat")
    peer.data(stream, SMALL + LARGE + SMALL + prefixed(b"plain"), end=False)
    assert chat.got == [b"small"]
    peer.data(stream, LARGE + prefixed(b"last"))
    assert chat.got == [b"small"]
    peer.coding.go()
    peer.turn()
    assert chat.got == [b"small", NOISE, b"small", b"plain"]
    assert peer.answer(stream).status is None
    peer.coding.go()
    peer.turn()
    assert chat.got[4:] == [NOISE, b"last"]
    assert plain(peer, stream) == chat.got
    assert peer.answer(stream).status == "0"


@pytest.mark.parametrize("first", ["unpacked", "going on"])
def test_a_handler_that_takes_no_more_is_given_no_more(first: str) -> None:
    """Neither the one alone nor the other opens the stream again: both have to."""

    class Holds(Chat):
        def message(self, call: object, message: bytes | memoryview) -> None:
            super().message(call, message)  # type: ignore[arg-type]
            self.call = call

    chat = Holds()
    peer = peer_with("/t.T/Chat", chat)
    peer.coding.waits = True
    stream = opened(peer, "/t.T/Chat")
    peer.data(stream, SMALL + LARGE + SMALL, end=False)
    call = chat.call
    call.hold()  # type: ignore[attr-defined]
    if first == "unpacked":
        peer.coding.go()
        peer.turn()
        assert chat.got == [b"small", NOISE]
        call.go_on()  # type: ignore[attr-defined]
    else:
        call.go_on()  # type: ignore[attr-defined]
        peer.turn()
        assert chat.got == [b"small"]
        peer.coding.go()
    peer.turn()
    assert chat.got == [b"small", NOISE, b"small"]


def test_a_stream_goes_on_after_a_message_as_large_as_its_window() -> None:
    chat = Chat()
    limits = H2Limits(stream_window=2**16, connection_window=2**17)
    peer = peer_with("/t.T/Chat", chat, limits=limits)
    peer.coding.waits = True
    stream = opened(peer, "/t.T/Chat")
    payload = prefixed(gzip.compress(random.Random(2).randbytes(60_000)), compressed=1)
    for number in range(4):
        for start in range(0, len(payload), 16_000):
            peer.data(stream, payload[start : start + 16_000], end=False)
        assert peer.coding.waiting == 1, number
        peer.coding.go()
        peer.turn()
    assert len(chat.got) == 4


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (prefixed(b"no gzip" * DECOMPRESS_BESIDE_BYTES, compressed=1), "3"),
        (prefixed(gzip.compress(NOISE)[:-3], compressed=1), "3"),
        (prefixed(gzip.compress(NOISE + bytes(10**7)), compressed=1), "8"),
    ],
)
@pytest.mark.parametrize("path", ["/t.T/Echo", "/t.T/Chat"])
def test_damage_is_told(path: str, payload: bytes, status: str) -> None:
    chat = Chat()
    peer = peer_with("/t.T/Chat", chat, max_message_bytes=10**6)
    stream = opened(peer, path)
    peer.data(stream, payload, end=path == "/t.T/Echo")
    assert peer.answer(stream).status == status
    assert chat.got == []


@pytest.mark.parametrize("path", ["/t.T/Echo", "/t.T/Chat"])
def test_when_too_much_waits_the_call_is_told(path: str) -> None:
    peer = peer_with("/t.T/Chat", Chat())
    peer.coding.full = True
    stream = opened(peer, path)
    peer.data(stream, LARGE)
    assert peer.answer(stream).status == "8"
    stream = opened(peer, path)
    peer.data(stream, prefixed(bytes(2 * COMPRESS_BESIDE_BYTES)))
    assert peer.answer(stream).status == "8"


def test_answers_are_packed_in_order_and_their_end_waits_for_them() -> None:
    chat = Chat()
    peer = peer_with("/t.T/Chat", chat)
    peer.coding.waits = True
    stream = opened(peer, "/t.T/Chat")
    large = b"y" * (2 * COMPRESS_BESIDE_BYTES)
    for message in (b"one", large, b"two"):
        for start in range(0, len(prefixed(message)), 16_000):
            peer.data(stream, prefixed(message)[start : start + 16_000], end=False)
    peer.data(stream, b"")
    assert plain(peer, stream) == [b"one"]
    peer.coding.go()
    peer.turn()
    assert plain(peer, stream) == [b"one", large]
    assert peer.answer(stream).status is None
    peer.coding.go()
    peer.turn()
    assert plain(peer, stream) == [b"one", large, b"two"]
    assert peer.answer(stream).status == "0"


def test_a_call_that_ends_while_its_answer_is_packed_is_not_answered_twice() -> None:
    later = Later()
    peer = peer_with("/t.T/Later", later)
    peer.coding.waits = True
    stream = opened(peer, "/t.T/Later", *CODED, ("grpc-timeout", "1S"))
    peer.data(stream, prefixed(b"x"))
    ((call, _),) = later.calls
    call.answer(b"y" * COMPRESS_BESIDE_BYTES)
    peer.clock.advance(2 * 10**9)  # type: ignore[attr-defined]
    peer.server.expire()
    peer.turn()
    assert peer.answer(stream).status == "4"
    peer.coding.go()
    peer.turn()
    assert peer.answer(stream).messages == []
