"""A front end's engine and the owner's end, over a real pair of sockets in one process."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from tests.support.waiting import DEADLINE_S

from tensorquay.core.clock import SystemClock
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import Cancelled, ErrorKind, InvalidArgument, Overloaded, ServingError
from tensorquay.core.messages import InferRequest, InferResponse, RequestedOutput, Timings
from tensorquay.core.packed import BatchRun, Ride
from tensorquay.core.signature import TensorSpec
from tensorquay.core.tensors import Tensor
from tensorquay.frontends.arena import Arena, make_memory
from tensorquay.frontends.link import Link
from tensorquay.frontends.owner import Owned, OwnerEnd
from tensorquay.frontends.records import HEAD, Kind, record
from tensorquay.frontends.remote import RemoteEngine

ARENA = 4 * 2**20


class Ticket:
    def __init__(self, cancel: Callable[[], None]) -> None:
        self.cancel = cancel


class Engine:
    """Keeps what it is asked; the test answers."""

    def __init__(self) -> None:
        self.admission = SimpleNamespace(refused_bytes=0)
        self.asked: list[tuple[InferRequest, Callable[[Any], None]]] = []
        self.cancelled: list[str] = []
        self.refuse: ServingError | None = None
        self.refusals: list[ErrorKind] = []

    def refused(self, kind: ErrorKind) -> None:
        self.refusals.append(kind)

    def infer(self, request: InferRequest, reply: Callable[[Any], None], trace: Any = None) -> Ticket:
        if self.refuse is not None:
            raise self.refuse
        self.asked.append((request, reply))

        def cancel() -> None:
            self.cancelled.append(request.id)
            reply(Cancelled("left"))

        return Ticket(cancel)


@dataclass
class Pair:
    engine: Engine
    remote: RemoteEngine
    owner: OwnerEnd
    front: Link
    back: Link
    lost: list[str] = field(default_factory=list)


async def until(ask: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not ask():
            await asyncio.sleep(0)


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    engine = Engine()
    remote = RemoteEngine(clock=SystemClock(), max_unsent_bytes=2**20)
    control = {"/echo": _echo, "/fails": _fails, "/breaks": _breaks, "/waits": _waits}
    owned = Owned(engine, hot=None, grpc=None, control=control)  # type: ignore[arg-type]
    owner = OwnerEnd(owned, ready=lambda: made.lost.append("ready"))
    a, b = socket.socketpair()
    requests, answers = make_memory("requests", ARENA), make_memory("answers", ARENA)
    front = await Link.over(
        a,
        partial(Link, remote.handlers(), lambda: made.lost.append("front"), arena=Arena(requests, ARENA),
                descriptor=answers, arena_bytes=ARENA),
    )  # fmt: skip
    back = await Link.over(
        b, partial(Link, owner.handlers(), owner.lost, arena=Arena(answers, ARENA), descriptor=requests,
                   arena_bytes=ARENA),
    )  # fmt: skip
    os.close(requests)
    os.close(answers)
    remote.attach(front)
    owner.attach(back)
    made = Pair(engine, remote, owner, front, back)
    yield made
    front.close()
    await until(lambda: "front" in made.lost)


async def _echo(message: bytes) -> bytes:
    return message[::-1]


async def _fails(_message: bytes) -> bytes:
    raise InvalidArgument("no good", facts={"expected": [1, 2]})


async def _breaks(_message: bytes) -> bytes:
    raise RuntimeError("a bug")


async def _waits(_message: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


def ask_for(array: np.ndarray, **more: Any) -> InferRequest:
    wire = {"f": "FP32", "i": "INT32", "O": "BYTES"}[array.dtype.kind]
    return InferRequest("m", "", more.pop("id", ""), [Tensor("x", DataType.from_wire(wire), array)], **more)


async def asked(pair: Pair, count: int = 1) -> list[tuple[InferRequest, Callable[[Any], None]]]:
    await until(lambda: len(pair.engine.asked) >= count)
    return pair.engine.asked


def response(*outputs: Tensor) -> InferResponse:
    return InferResponse("m", "7", "", list(outputs), Timings(0, 0, 0, 0, 0))


async def test_a_request_arrives_whole_and_its_answer_comes_back(pair: Pair) -> None:
    got: list[Any] = []
    sent = ask_for(
        np.array([[1, 2]], np.int32), id="größe", outputs=[RequestedOutput("y", 3)], parameters={"a": True, "b": 1},
        priority=4, timeout_us=5, arrival_ns=6, deadline_ns=2**62,
    )  # fmt: skip
    pair.remote.infer(sent, got.append)
    ((request, reply),) = await asked(pair)
    for name in ("model_name", "model_version", "id", "outputs", "parameters", "priority", "timeout_us", "arrival_ns"):
        assert getattr(request, name) == getattr(sent, name)
    assert request.deadline_ns == 2**62
    assert request.parameters["a"] is True
    assert request.inputs[0].array.tolist() == [[1, 2]]

    reply(response(Tensor("y", DataType.BYTES, np.array([b"", b"text"], np.object_))))

    await until(lambda: got)
    assert (got[0].model_version, got[0].id) == ("7", "größe")
    assert got[0].outputs[0].array.tolist() == [b"", b"text"]
    assert pair.remote.waiting == pair.owner.serving == 0


async def test_the_owner_has_one_layout_for_requests_alike(pair: Pair) -> None:
    for number in range(3):
        pair.remote.infer(ask_for(np.full((1, 2), number, np.int32)), lambda _: None)
    requests = [request for request, _ in await asked(pair, 3)]
    assert requests[0].layout is requests[1].layout is requests[2].layout
    assert [request.inputs[0].array.tolist() for request in requests] == [[[n, n]] for n in range(3)]


async def test_riders_of_one_run_get_their_own_rows(pair: Pair) -> None:
    got: dict[int, Any] = {}
    for number in range(3):
        pair.remote.infer(ask_for(np.zeros((1, 2), np.float32)), partial(got.__setitem__, number))
    await asked(pair, 3)
    _answer_run(pair, np.arange(12, dtype=np.float32).reshape(4, 3), [(0, 1), (1, 3), (3, 4)])
    await until(lambda: len(got) == 3)
    assert [got[number].outputs[0].array.tolist() for number in range(3)] == [
        [[0, 1, 2]], [[3, 4, 5], [6, 7, 8]], [[9, 10, 11]],
    ]  # fmt: skip
    # They are one run here too, so that what an encoder finds out for one holds for the others.
    assert got[0].outputs.run is got[1].outputs.run


@pytest.mark.parametrize("riders", [[(0, 1), (1, 2)], [(1, 2)]], ids=["all of a run", "a part of a run"])
async def test_large_tensors_go_through_shared_memory_and_give_it_back(
    pair: Pair, riders: list[tuple[int, int]]
) -> None:
    got: list[Any] = []
    array = np.arange(100_000, dtype=np.float32).reshape(1, -1)
    for _ in riders:
        pair.remote.infer(ask_for(array), got.append)
    await asked(pair, len(riders))
    assert pair.front.lent_ranges == len(riders)
    np.testing.assert_array_equal(pair.engine.asked[0][0].inputs[0].array, array)

    _answer_run(pair, np.stack([array[0], array[0] * 2]), riders)

    await until(lambda: len(got) == len(riders))
    np.testing.assert_array_equal(got[-1].outputs[0].array, array * 2)
    assert pair.back.lent_ranges == 1
    pair.engine.asked.clear()
    await until(lambda: pair.front.lent_ranges == 0)
    got.clear()
    await until(lambda: pair.back.lent_ranges == 0)


async def test_what_finds_no_room_in_shared_memory_goes_through_the_socket(pair: Pair) -> None:
    array = np.arange(300_000, dtype=np.float32).reshape(1, -1)
    for number in range(8):
        pair.remote.infer(ask_for(array + np.float32(number)), lambda _: None)
    await asked(pair, 8)
    assert pair.front.lent_ranges == 3
    for number, (request, _) in enumerate(pair.engine.asked):
        np.testing.assert_array_equal(request.inputs[0].array, array + np.float32(number))


async def test_an_error_travels_whole(pair: Pair) -> None:
    got: list[Any] = []
    pair.engine.refuse = Overloaded("too much", facts={"limit": 3}, retry_after_s=2.5)
    pair.remote.infer(ask_for(np.zeros((1, 2), np.float32)), got.append)
    await until(lambda: got)
    assert (got[0].kind, got[0].message, got[0].facts, got[0].retry_after_s) == (
        ErrorKind.RESOURCE_EXHAUSTED, "too much", {"limit": 3}, 2.5,
    )  # fmt: skip


async def test_who_cancels_is_answered_at_once_and_the_owner_hears_of_it(pair: Pair) -> None:
    got: list[Any] = []
    ticket = pair.remote.infer(ask_for(np.zeros((1, 2), np.float32), id="mine"), got.append)
    await asked(pair)
    ticket.cancel()
    ticket.cancel()
    assert [error.kind for error in got] == [ErrorKind.CANCELLED]
    assert "mine" in got[0].message
    await until(lambda: pair.engine.cancelled == ["mine"])
    assert pair.owner.serving == 0


async def test_a_front_end_that_goes_takes_its_requests_along(pair: Pair) -> None:
    for number in range(3):
        pair.remote.infer(ask_for(np.zeros((1, 2), np.float32), id=str(number)), lambda _: None)
    waiting = asyncio.ensure_future(pair.remote.ask({"grpc": "/waits"}, b""))
    await until(lambda: pair.owner.serving == 4)
    pair.front.abort()
    await until(lambda: len(pair.engine.cancelled) == 3)
    assert pair.owner.serving == 0
    waiting.cancel()
    _answer_run(pair, np.zeros((1, 3), np.float32), [(0, 1)])  # too late, and nobody minds


async def test_calls_are_answered_by_their_handlers(pair: Pair) -> None:
    assert await pair.remote.ask({"grpc": "/echo"}, b"abc") == (None, b"cba")
    large = os.urandom(3_000_000)
    assert (await pair.remote.ask({"grpc": "/echo"}, large))[1] == large[::-1]
    with pytest.raises(ServingError, match="no good") as told:
        await pair.remote.ask({"grpc": "/fails"}, b"")
    assert told.value.facts == {"expected": [1, 2]}
    with pytest.raises(ServingError, match="error id"):
        await pair.remote.ask({"grpc": "/breaks"}, b"")
    waiting = asyncio.ensure_future(pair.remote.ask({"grpc": "/waits"}, b""))
    await until(lambda: pair.owner.serving == 1)
    waiting.cancel()
    await until(lambda: pair.owner.serving == 0)


@pytest.mark.parametrize(
    "nonsense",
    [
        record(Kind.REQUEST, b"short"),
        record(Kind.REQUEST, bytes(16), template=99),
        record(Kind.REQUEST_SHAPE, b"not json"),
        record(Kind.REQUEST_SHAPE, b'["m"]'),
        record(Kind.REQUEST_SHAPE, b'["m","",null,{},0,0,[["x","FP33",[1]]]]'),
        record(Kind.RELEASE, bytes(8), extra=1),
        record(Kind.REFUSED, template=len(ErrorKind) + 1),
        [b"\x01\x00\x00\x00" + bytes(12)],
        [HEAD.pack(16, 99, 0, 0, 0, 0)],
    ],
    ids=lambda parts: repr(b"".join(parts))[:40],
)
async def test_what_makes_no_sense_ends_the_link(pair: Pair, nonsense: list[bytes]) -> None:
    pair.front.send(nonsense)
    await until(lambda: not pair.back.is_open)
    await until(lambda: "front" in pair.lost)


async def test_who_is_not_read_refuses_and_says_so_later(pair: Pair) -> None:
    """The owner is stuck: what waits is bounded, and what was refused meanwhile is still counted."""
    pair.back._transport.pause_reading()  # type: ignore[union-attr]
    sent = 0
    array = np.zeros((1, 15_000), np.float32)  # goes through the socket
    refused: ServingError | None = None
    while refused is None and sent < 1000:
        try:
            pair.remote.infer(ask_for(array), lambda _: None)
        except ServingError as error:
            refused = error
        else:
            sent += 1
        await asyncio.sleep(0)
    assert refused is not None
    assert refused.kind is ErrorKind.RESOURCE_EXHAUSTED
    assert "at most 1048576 may" in refused.message
    pair.back._transport.resume_reading()  # type: ignore[union-attr]
    await asked(pair, sent)
    await until(lambda: pair.engine.admission.refused_bytes == 1)
    await until(lambda: pair.engine.refusals == [ErrorKind.RESOURCE_EXHAUSTED])


async def test_what_a_front_end_refused_is_counted_by_the_owner(pair: Pair) -> None:
    for kind in ErrorKind:
        pair.remote.refused(kind)
    await until(lambda: pair.engine.refusals == list(ErrorKind))
    assert pair.engine.admission.refused_bytes == 0


def _answer_run(pair: Pair, outputs: np.ndarray, rows: list[tuple[int, int]]) -> None:
    specs = (TensorSpec("y", DataType.FP32, (-1, outputs.shape[1])),)
    run = BatchRun(specs, [outputs], len(outputs), input_ns=0, infer_ns=0, output_ns=0)
    for (_, reply), (start, stop) in zip(pair.engine.asked, rows, strict=False):
        ride = Ride(run, start, stop, 0)
        reply(InferResponse("m", "1", "", ride, ride))
    gc.collect()
