"""Readers of the live feed on real sockets, in this process: those that leave, that do not read, that come too many."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

import pytest

from tensorquay.core.clock import SystemClock
from tensorquay.core.errors import Unavailable
from tensorquay.http_api.control import control_app
from tensorquay.http_api.door import HttpDoor
from tensorquay.http_api.live import live_routes
from tensorquay.transport.asgi import AsgiServer
from tensorquay.transport.h1_server import H1Limits, H1Server

PIECE = b"event: figures\ndata: %b\n\n" % (b"1" * 200_000)
MOST = 3

Opens: TypeAlias = Callable[..., Awaitable[tuple["Feed", tuple[str, int]]]]


class Feed:
    """As much as a reader takes, at once. Counts who reads, and what was handed out to whom."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.readers: list[FeedReader] = []
        self.server: Any = None

    def now(self) -> bytes:
        return b"{}"

    def read(self) -> FeedReader:
        if len(self.readers) >= MOST:
            raise Unavailable("too many watch already")
        reader = FeedReader(self)
        self.readers.append(reader)
        return reader


class FeedReader:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.pieces = 0

    async def next(self) -> bytes | None:
        await asyncio.sleep(0)
        if self._feed.over.is_set():
            return None
        self.pieces += 1
        return PIECE

    def leave(self) -> None:
        if self in self._feed.readers:
            self._feed.readers.remove(self)


class Hot:
    """No hot routes at all."""

    draining = False

    def route(self, _method: str, _path: str, _headers: Any) -> None:
        return None


@pytest.fixture(params=["native", "asgi"])
async def open_house(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opens]:
    """Opens the door with a patience; returns the feed and where the door is."""
    ends: list[Feed] = []

    async def opened(patience_s: float = 60.0) -> tuple[Feed, tuple[str, int]]:
        feed, clock = Feed(), SystemClock()
        routes = partial(live_routes, patience_s=patience_s)
        monkeypatch.setattr("tensorquay.http_api.control.live_routes", routes)
        app = control_app(object(), feed, max_body_bytes=1000, pages={})  # type: ignore[arg-type]
        door = HttpDoor(Hot(), app, clock=clock, max_body_bytes=1000, max_receiving_bytes=10_000)
        bound = socket.create_server(("127.0.0.1", 0))
        bound.setblocking(False)
        server: Any = AsgiServer(door, bound)
        if request.param == "native":
            server = H1Server(Hot(), door, bound, clock=clock, limits=H1Limits(linger_s=0))
        await server.start()
        feed.server = server
        ends.append(feed)
        return feed, bound.getsockname()

    yield opened
    for feed in ends:
        feed.over.set()
        await feed.server.stop(1.0)


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0)  # the servers are on this loop: every turn of it is progress


def ask(at: tuple[str, int]) -> socket.socket:
    made = socket.create_connection(at)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.sendall(b"GET /v2/live HTTP/1.1\r\nhost: x\r\n\r\n")
    return made


async def test_a_reader_that_does_not_read_is_let_go_and_little_is_kept_for_it(open_house):
    feed, at = await open_house(patience_s=0.2)
    with ask(at):
        await until(lambda: feed.readers)
        reader = feed.readers[0]
        await until(lambda: not feed.readers)
        # What the kernel took and one write buffer, not what would have been told meanwhile.
        assert reader.pieces < 100
    with ask(at) as other:
        other.setblocking(False)
        got = await asyncio.get_running_loop().sock_recv(other, 1000)
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("open_house", ["native"], indirect=True)
async def test_no_streamed_answer_waits_for_ever_for_its_client(open_house, monkeypatch):
    """The transport's own bound, which holds for a front end too, whoever makes the answer."""
    monkeypatch.setattr("tensorquay.transport.asgi_exchange.SLOWEST_S", 0.2)
    feed, at = await open_house()
    with ask(at):
        await until(lambda: feed.readers)
        await until(lambda: not feed.readers)
        await until(lambda: not feed.server._connections)


async def test_one_that_leaves_is_noticed_at_once(open_house):
    feed, at = await open_house()
    one, other = ask(at), ask(at)
    await until(lambda: len(feed.readers) == 2)
    one.close()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    other.close()
    await until(lambda: not feed.readers)


async def test_one_too_many_is_refused_in_words(open_house):
    feed, at = await open_house()
    held = [ask(at) for _ in range(MOST)]
    await until(lambda: len(feed.readers) == MOST)
    reader, writer = await asyncio.open_connection(*at)
    writer.write(b"GET /v2/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'{"error":"too many watch already","code":"UNAVAILABLE"}' in answer
    writer.close()
    for each in held:
        each.close()


async def test_the_end_is_heard_by_who_reads_and_waits_for_nobody(open_house):
    feed, at = await open_house()
    silent = ask(at)
    reader, writer = await asyncio.open_connection(*at)
    writer.write(b"GET /v2/live HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"event: figures")
    await until(lambda: len(feed.readers) == 2)
    feed.over.set()
    async with asyncio.timeout(20):
        while await reader.read(1 << 20):
            pass
    await until(lambda: not feed.readers)
    writer.close()
    silent.close()
