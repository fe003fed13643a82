"""The routes of the native server over a handler of the test's own: cancels, bounds, back-pressure, access."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from h2_drive import Peer, prefixed
from tensorquay.core.errors import InvalidArgument, ServingError
from tensorquay.grpc_api import native_calls
from tensorquay.grpc_api.native_calls import Control, ModelInfer, ModelStreamInfer, Reflection, TaskRoom
from tensorquay.grpc_api.native_server import NativeGrpcServer
from tensorquay.testing.manual_clock import ManualClock
from tensorquay.transport import h2_frames as f
from tensorquay.transport.listen import bind


class Handler:
    """Stands in for `InferHandler`: keeps requests until the test answers them."""

    sampler = None

    def __init__(self) -> None:
        self.asked: list[SimpleNamespace] = []

    def start(self, message: Any, answer: Any, **said: Any) -> Any:
        if bytes(message) == b"wrong":
            answer(InvalidArgument("wrong"))
            return None
        asked = SimpleNamespace(message=bytes(message), answer=answer, cancelled=0, **said)

        def cancel() -> None:
            asked.cancelled += 1
            answer(ServingError("cancelled"))

        asked.cancel = cancel
        self.asked.append(asked)
        return asked


@pytest.fixture
def handler() -> Handler:
    """A handler that answers when told."""
    return Handler()


@pytest.fixture
def peer(handler: Handler) -> Peer:
    """A client of both infer methods and reflection."""
    routes = {"/i": ModelInfer(handler), "/s": ModelStreamInfer(handler), "/r": Reflection()}  # type: ignore[arg-type]
    return Peer(routes=routes)


def test_a_prediction_gets_its_metadata_and_deadline_and_is_answered_later(peer: Peer, handler: Handler) -> None:
    stream = peer.call(b"ask", "/i", ("x-a", "1"), ("grpc-timeout", "2S"))
    (asked,) = handler.asked
    assert asked.message == b"ask"
    assert asked.metadata == (("x-a", "1"),)
    assert asked.deadline_ns == peer.clock.now_ns() + 2 * 10**9
    assert not peer.answer(stream).headers
    asked.answer(b"told")
    peer.turn()
    assert peer.answer(stream).messages == [b"told"]


@pytest.mark.parametrize("how", ["reset", "lost", "deadline"])
def test_a_prediction_that_is_given_up_is_cancelled_once(peer: Peer, handler: Handler, how: str) -> None:
    stream = peer.call(b"ask", "/i", ("grpc-timeout", "1S"))
    if how == "reset":
        peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    elif how == "deadline":
        peer.clock.advance(s=2)
        peer.server.expire()
        peer.turn()
        assert peer.answer(stream).status == "4"
    peer.connection.connection_lost(None)
    assert handler.asked[0].cancelled == 1


def test_a_prediction_refused_at_once_is_answered_and_never_cancelled(peer: Peer, handler: Handler) -> None:
    stream = peer.call(b"wrong", "/i")
    assert peer.answer(stream).status == "3"
    peer.connection.connection_lost(None)
    assert not handler.asked


def test_answers_of_a_stream_go_out_as_they_come_and_its_end_waits_for_them(peer: Peer, handler: Handler) -> None:
    stream = peer.open(peer.with_((":path", "/s")))
    peer.data(stream, prefixed(b"1") + prefixed(b"2") + prefixed(b"3"))
    assert len(handler.asked) == 3
    for number in (1, 0, 2):
        assert not peer.answer(stream).ended
        handler.asked[number].answer(b"told %d" % number)
        peer.turn()
    answer = peer.answer(stream)
    assert answer.messages == [b"told 1", b"told 0", b"told 2"]
    assert answer.trailers["grpc-status"] == "0"


def test_a_failing_request_is_a_message_unless_the_stream_asked_for_real_errors(peer: Peer, handler: Handler) -> None:
    gentle = peer.open(peer.with_((":path", "/s")))
    peer.data(gentle, prefixed(b"wrong"), end=False)
    assert len(peer.answer(gentle).messages) == 1
    strict = peer.open(peer.with_((":path", "/s"), ("triton_grpc_error", "true")))
    peer.data(strict, prefixed(b"fine") + prefixed(b"wrong") + prefixed(b"never read"), end=False)
    assert peer.answer(strict).status == "3"
    assert [asked.message for asked in handler.asked] == [b"fine"]
    assert handler.asked[0].cancelled == 1


def test_a_stream_that_is_reset_cancels_what_it_asked(peer: Peer, handler: Handler) -> None:
    stream = peer.open(peer.with_((":path", "/s")))
    peer.data(stream, prefixed(b"1") + prefixed(b"2"), end=False)
    peer.send(f.frame(f.RST_STREAM, 0, stream, bytes(4)))
    assert [asked.cancelled for asked in handler.asked] == [1, 1]


def test_a_stream_takes_no_more_than_the_bound_until_answers_leave(
    peer: Peer, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_calls, "MAX_STREAM_INFLIGHT", 4)
    stream = peer.open(peer.with_((":path", "/s")))
    peer.data(stream, b"".join(prefixed(b"%d" % number) for number in range(10)))
    assert len(handler.asked) == 4
    handler.asked[0].answer(b"told")
    peer.turn()
    assert len(handler.asked) == 5
    for number in range(1, 10):
        handler.asked[number].answer(b"told")
        peer.turn()
    assert len(handler.asked) == 10
    assert len(peer.answer(stream).messages) == 10
    assert peer.answer(stream).ended


def test_answers_that_the_client_does_not_take_count_too(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_calls, "MAX_STREAM_INFLIGHT", 4)
    route: Any = ModelStreamInfer(handler)  # type: ignore[arg-type]
    peer = Peer(routes={"/s": route}, settings={f.INITIAL_WINDOW_SIZE: 0})
    stream = peer.open(peer.with_((":path", "/s")))
    peer.data(stream, b"".join(prefixed(b"%d" % number) for number in range(10)))
    for asked in handler.asked:
        asked.answer(b"told")
        peer.turn()
    assert len(handler.asked) == 4, "four answers wait, so nothing more is begun"
    peer.send(f.window_update(stream, 4 * 9))
    assert len(handler.asked) == 8
    peer.send(f.window_update(stream, 1000))
    for asked in handler.asked[4:]:
        asked.answer(b"told")
        peer.turn()
    assert len(peer.answer(stream).messages) >= 8


def test_reflection_answers_each_request_and_refuses_damaged_ones(peer: Peer) -> None:
    stream = peer.open(peer.with_((":path", "/r")))
    peer.data(stream, prefixed(b"\x3a\x00"), end=False)
    assert b"inference.GRPCInferenceService" in peer.answer(stream).messages[0]
    peer.data(stream, prefixed(b"\xff"), end=False)
    assert peer.answer(stream).status == "3"


async def test_control_calls_answer_and_their_bugs_are_hidden(caplog: Any) -> None:
    async def fine(message: bytes) -> bytes:
        await asyncio.sleep(0)
        return message.upper()

    async def refuses(message: bytes) -> bytes:
        raise InvalidArgument("no such thing")

    async def broken(message: bytes) -> bytes:
        raise RuntimeError("secret")

    room = TaskRoom(10)
    methods = {"/c/fine": fine, "/c/refuses": refuses, "/c/broken": broken}
    peer = Peer(routes={path: Control(path, method, room) for path, method in methods.items()})
    streams = [peer.call(b"hello", path) for path in methods]
    while room._tasks:
        await asyncio.sleep(0)
    peer.turn()
    answers = [peer.answer(stream) for stream in streams]
    assert answers[0].messages == [b"HELLO"]
    assert [answer.status for answer in answers] == ["0", "3", "13"]
    assert "secret" not in answers[2].text
    assert "secret" in caplog.text


async def test_control_calls_are_bounded() -> None:
    release = asyncio.Event()

    async def waits(message: bytes) -> bytes:
        await release.wait()
        return b"done"

    room = TaskRoom(2)
    peer = Peer(routes={"/c/waits": Control("/c/waits", waits, room)})
    streams = [peer.call(b"", "/c/waits") for _ in range(3)]
    assert [peer.answer(stream).status for stream in streams] == [None, None, "8"]
    release.set()
    while room._tasks:
        await asyncio.sleep(0)
    peer.turn()
    assert [peer.answer(stream).status for stream in streams] == ["0", "0", "8"]


async def test_control_calls_are_cancelled_with_their_client_and_with_the_server() -> None:
    ended: list[str] = []

    async def waits(message: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(message.decode())
            raise
        return b""

    room = TaskRoom(10)
    peer = Peer(routes={"/c/waits": Control("/c/waits", waits, room)})
    left = peer.call(b"left", "/c/waits")
    peer.call(b"kept", "/c/waits")
    await asyncio.sleep(0)
    peer.send(f.frame(f.RST_STREAM, 0, left, bytes(4)))
    while len(room._tasks) > 1:
        await asyncio.sleep(0)
    assert ended == ["left"]
    await room.close()
    assert ended == ["left", "kept"]


@pytest.fixture
def native(handler: Handler) -> Any:
    """A server that is never started; only its look-up is asked."""

    async def live(message: bytes) -> bytes:
        return b""

    bound = bind("127.0.0.1", 0, what="gRPC")
    engine: Any = SimpleNamespace(clock=ManualClock())
    server = NativeGrpcServer(
        engine,
        handler,  # type: ignore[arg-type]
        {"/inference.GRPCInferenceService/ServerLive": live},
        bound=bound,
        restricted={"health": ("Admin-Key", "s\u00e9cret"), "inference": ("k", "v")},
        max_message_bytes=1000,
    )
    yield server
    bound.close()


@pytest.mark.parametrize(
    ("path", "headers", "refused"),
    [
        ("ServerLive", [], True),
        ("ServerLive", [("triton-grpc-protocol-admin-key", "wrong")], True),
        ("ServerLive", [("triton-grpc-protocol-admin-key", "s\u00e9cret")], False),
        ("ModelInfer", [("triton-grpc-protocol-admin-key", "s\u00e9cret")], True),
        ("ModelInfer", [("triton-grpc-protocol-k", "v")], False),
        ("ModelInfer", [("triton-grpc-protocol-k", "v"), ("triton-grpc-protocol-k", "w")], True),
        ("ModelStreamInfer", [], True),
    ],
)
def test_restricted_methods_need_their_header(
    native: Any, path: str, headers: list[tuple[str, str]], refused: bool
) -> None:
    head = native._server.read_head(
        [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", f"/inference.GRPCInferenceService/{path}".encode()),
            (b"content-type", b"application/grpc"),
            *((name.encode(), value.encode("latin-1")) for name, value in headers),
        ]
    )
    assert (head.refusal is not None) is refused
    if head.refusal is not None:
        assert head.refusal.error.kind.name == "UNAVAILABLE"


def test_unknown_methods_are_unimplemented(native: Any) -> None:
    head = native._server.read_head(
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x"), (b"content-type", b"application/grpc")]
    )
    assert head.refusal.error.kind.name == "UNIMPLEMENTED"
