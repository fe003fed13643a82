"""Requests for the ASGI application, from one process to another: here over a real channel within one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from tests.support.waiting import DEADLINE_S

from tensorquay.frontends.control_stream import ControlListener, ControlProxy, make_channel

SCOPE = {
    "type": "http", "http_version": "1.1", "method": "POST", "scheme": "https", "path": "/ü", "root_path": "",
    "raw_path": b"/%C3%BC", "query_string": b"a=\xff", "headers": [(b"x", b"\xe9"), (b"x", b"2")],
    "client": ("::1", 5), "server": ("h", 1), "asgi": {"version": "3.0", "spec_version": "2.3"},
}  # fmt: skip


class App:
    """Does what the test says, and remembers what it was told."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.told: list[Any] = []
        self.does = "answers"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        if self.does == "fails":
            raise RuntimeError("a bug")
        while True:
            message = await receive()
            self.told.append(message)
            if message["type"] == "http.disconnect":
                return
            if not message["more_body"] and self.does == "answers":
                break
        await send({"type": "http.response.start", "status": 207, "headers": [(b"y", b"\xe8")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"x" * 1_000_000})


@pytest_asyncio.fixture
async def app() -> AsyncIterator[App]:
    made = App()
    ours, theirs = make_channel()
    listener = ControlListener(made, ours)
    made.proxy = ControlProxy(theirs)  # type: ignore[attr-defined]
    made.channel = theirs  # type: ignore[attr-defined]
    yield made
    theirs.close()
    await listener.stop()


async def exchange(app: Any, *messages: Any) -> list[Any]:
    """What the client of a front end hears."""
    heard: list[Any] = []
    waiting = list(messages)

    async def receive() -> Any:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(message: Any) -> None:
        heard.append(message)

    async with asyncio.timeout(DEADLINE_S):
        await app.proxy(SCOPE, receive, send)
    return heard


def piece(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_scope_body_and_answer_arrive_as_they_were(app: App) -> None:
    heard = await exchange(app, piece(b"a" * 300_000, True), piece(b"", True), piece(b"end", False))

    assert app.scope == SCOPE
    assert b"".join(message["body"] for message in app.told) == b"a" * 300_000 + b"end"
    assert heard[0] == {"type": "http.response.start", "status": 207, "headers": [(b"y", b"\xe8")]}
    assert [(len(message["body"]), message["more_body"]) for message in heard[1:]] == [(3, True), (1_000_000, False)]


async def test_a_client_that_leaves_is_heard_of(app: App) -> None:
    app.does = "waits"
    heard = await exchange(app, piece(b"a", False), {"type": "http.disconnect"})

    async with asyncio.timeout(DEADLINE_S):
        while app.told[-1:] != [{"type": "http.disconnect"}]:
            await asyncio.sleep(0)
    assert heard[0]["status"] == 503  # to nobody: its connection is gone


async def test_an_application_that_fails_is_an_answer(app: App) -> None:
    app.does = "fails"
    heard = await exchange(app, piece(b"", False))
    assert heard[0]["status"] == 503


async def test_without_an_owner_requests_are_refused_in_words(app: Any) -> None:
    ours, theirs = make_channel()
    ours.close()
    with theirs:
        app.proxy._channel = theirs
        heard = await exchange(app, piece(b"", False))
    assert heard[0]["status"] == 503
    assert b"stopped" in heard[1]["body"]


async def test_what_the_owner_does_not_take_is_bounded(app: Any) -> None:
    ours, theirs = make_channel()
    app.proxy._channel = theirs
    waiting: list[asyncio.Task[list[Any]]] = []
    async with asyncio.timeout(DEADLINE_S):
        while True:
            waiting.append(asyncio.ensure_future(exchange(app, piece(b"", False))))
            await asyncio.sleep(0)
            done = [task for task in waiting if task.done()]
            if done:
                break
        assert done[0].result()[0]["status"] == 429
        theirs.close()
        ours.close()
        assert {task[0]["status"] for task in await asyncio.gather(*waiting)} <= {429, 503}
