"""Large coded bodies beside the loop: the loop goes on, everybody is told once, memory is bounded."""

from __future__ import annotations

import asyncio
import threading
import zlib
from typing import Any

import pytest

from tensorquay.core.errors import Overloaded
from tensorquay.http_api.infer import InferHandler
from tensorquay.http_api.routes import ModelRoute
from tensorquay.transport import coding
from tensorquay.transport.coding import CodingThread


async def test_the_loop_goes_on_while_a_body_is_worked_on():
    thread, gate = CodingThread(), threading.Event()
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    thread.run(lambda: gate.wait(20), told.set_result, size=1)
    await asyncio.sleep(0)
    assert not told.done()
    gate.set()
    assert await told is True


async def test_what_is_raised_is_told():
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    CodingThread().run(lambda: zlib.decompress(b"no"), told.set_result, size=1)
    assert isinstance(await told, zlib.error)


async def test_order_is_kept_and_the_thread_ends_when_nothing_is_left():
    thread, done = CodingThread(), asyncio.Event()
    told: list[int] = []
    before = threading.active_count()
    for number in range(5):
        thread.run(lambda number=number: number, lambda value: (told.append(value), value == 4 and done.set()), size=1)
    await done.wait()
    assert told == [0, 1, 2, 3, 4]
    for other in threading.enumerate():
        if other.name == "tq-coding":
            await asyncio.to_thread(other.join, 20)
    assert threading.active_count() <= before + 1  # asyncio's own helper for the line above


async def test_more_than_may_wait_is_refused(monkeypatch):
    monkeypatch.setattr(coding, "MAX_WAITING_BYTES", 100)
    thread, gate, done = CodingThread(), threading.Event(), asyncio.Event()
    thread.run(lambda: gate.wait(20), lambda _: done.set(), size=1000)  # alone, any size may
    with pytest.raises(Overloaded, match="1000 bytes wait to be compressed or decompressed, at most 100"):
        thread.run(lambda: None, lambda _: None, size=1)
    gate.set()
    await done.wait()
    thread.run(lambda: None, lambda _: None, size=1)  # there is room again


class Engine:
    """Refuses everything, and counts it."""

    class regions:  # noqa: N801
        enabled = False

    def __init__(self) -> None:
        self.asked = 0
        self.refusals: list[Any] = []

    def refused(self, kind: Any) -> None:
        self.refusals.append(kind)

    def infer(self, _request: Any, _reply: Any, _trace: Any = None) -> Any:
        self.asked += 1
        raise Overloaded("no")


def route(engine: Engine):
    handler = InferHandler(engine, max_body_bytes=2**20)
    return handler.route(ModelRoute("m", "", "infer"), {b"content-encoding": b"gzip"})


def squeezed(size: int) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(bytes(size)) + packer.flush()


async def test_a_bomb_is_refused_without_holding_the_loop():
    bomb = squeezed(2**23)
    assert len(bomb) >= 4096
    engine = Engine()
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    assert route(engine).start(bomb, 0, told.set_result) is not None
    assert not told.done(), "it was worked on in the loop"
    reply = await told
    assert reply.status == 400
    assert b"larger than 1048576 bytes after decompression" in b"".join(reply.parts)
    assert engine.asked == 0


async def test_a_client_that_leaves_meanwhile_is_told_and_nothing_is_run():
    engine = Engine()
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    unpacking = route(engine).start(squeezed(2**23), 0, told.set_result)
    unpacking.cancel()
    reply = await told
    assert engine.asked == 0
    assert b"the client cancelled the request" in b"".join(reply.parts)
