"""One HTTP/1.1 connection over a transport the test holds: order, limits, cuts at any byte, ends."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorquay.core.clock import SystemClock
from tensorquay.transport.h1 import H1Connection
from tensorquay.transport.h1_server import H1Limits, H1Server
from tensorquay.transport.h1_slot import MAX_PIPELINED
from tensorquay.transport.http_message import HttpReply


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.sent = b""
        self.eof = self.closed = self.aborted = False
        self.reading = True

    def get_extra_info(self, _name: str) -> Any:
        return ("127.0.0.1", 1)

    def write(self, data: bytes) -> None:
        assert not self.eof, "written after the end was announced"
        self.sent += bytes(data)

    def writelines(self, parts: list[bytes]) -> None:
        for part in parts:
            self.write(part)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Ticket:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Echo:
    """Hot routes: /hot/echo answers with its body, /hot/hold when the test says so."""

    tensors_at = 3

    def __init__(self) -> None:
        self.draining = False
        self.held: list[tuple[bytes, Any, Ticket]] = []
        self.refusals: list[int] = []

    def route(self, _method: str, path: str, _headers: Any) -> Any:
        return {"/hot/echo": self, "/hot/hold": Hold(self)}.get(path)

    def start(self, body: Any, _arrival_ns: int, answer: Any) -> None:
        answer(HttpReply(200, (bytes(body),)))

    def refused(self, status: int) -> None:
        self.refusals.append(status)


class Hold:
    tensors_at = 0

    def __init__(self, echo: Echo) -> None:
        self.echo = echo

    def start(self, body: Any, _arrival_ns: int, answer: Any) -> Ticket:
        ticket = Ticket()
        self.echo.held.append((bytes(body), answer, ticket))
        return ticket

    def refused(self, status: int) -> None:
        self.echo.refusals.append(status)


async def application(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    status = 404 if scope["path"] == "/missing" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"app:", "more_body": True})
    await send({"type": "http.response.body", "body": body})


class Rig:
    def __init__(self, **limits: Any) -> None:
        self.handler = Echo()
        self.socket = socket.socket()
        self.server = H1Server(self.handler, application, self.socket, clock=SystemClock(), limits=H1Limits(**limits))
        self.server._loop = asyncio.get_running_loop()
        self.wire = Wire()
        self.connection = H1Connection(self.server)
        self.connection.connection_made(self.wire)

    def feed(self, data: bytes) -> None:
        while data and self.wire.reading:
            buffer = self.connection.get_buffer(-1)
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            data = data[count:]
            self.connection.buffer_updated(count)

    async def settle(self) -> bytes:
        for _ in range(12):
            await asyncio.sleep(0)
        return self.wire.sent


@pytest.fixture
async def make():
    rigs: list[Rig] = []

    def build(**limits: Any) -> Rig:
        rigs.append(Rig(**limits))
        return rigs[-1]

    yield build
    for rig in rigs:
        rig.connection.connection_lost(None)
        rig.socket.close()
        await asyncio.sleep(0)
        assert rig.server._receiving == 0


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(path: str, *chunks: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def bodies(sent: bytes) -> list[bytes]:
    """Bodies of the answers in `sent`, which all have a length or are chunked."""
    found = []
    while sent:
        head, _, sent = sent.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head:
            body = b""
            while True:
                size, _, sent = sent.partition(b"\r\n")
                length = int(size, 16)
                body, sent = body + sent[:length], sent[length + 2 :]
                if not length:
                    break
        else:
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body, sent = sent[:length], sent[length:]
        found.append(body)
    return found


async def test_answers_come_in_the_order_of_requests_however_they_finish(make):
    rig = make()
    rig.feed(post("/hot/hold", b"1") + post("/hot/echo", b"2") + post("/hot/hold", b"3"))
    assert await rig.settle() == b""
    for body, answer, _ in reversed(rig.handler.held):
        answer(HttpReply(200, (b"held " + body,)))
    assert bodies(await rig.settle()) == [b"held 1", b"2", b"held 3"]


async def test_what_is_read_in_one_turn_is_written_with_one_call(make):
    rig = make()
    writes: list[bytes] = []
    rig.wire.write = writes.append
    rig.feed(post("/hot/echo", b"1") * 5)
    await rig.settle()
    assert len(writes) == 1
    assert len(bodies(writes[0])) == 5


STREAM = [
    (post("/hot/echo", b"small"), b"small"),
    (chunked("/hot/echo", b"a", b"bc"), b"abc"),
    (post("/app", b"to the application"), b"app:to the application"),
    (chunked("/app", b"in ", b"pieces"), b"app:in pieces"),
    (post("/hot/echo", b""), b""),
    (b"\r\n\r\nGET /hot/echo HTTP/1.1\r\nHost: h\r\n\r\n", b""),
    (post("/hot/echo", b"large" * 20_000), b"large" * 20_000),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(order=st.lists(st.sampled_from(STREAM), min_size=1, max_size=5), cuts=st.lists(st.integers(1, 4000), min_size=1))
def test_the_cuts_of_the_network_change_nothing(order, cuts):
    async def run() -> None:
        rig = Rig()
        data = b"".join(request for request, _ in order)
        position = turn = 0
        while position < len(data):
            step = cuts[turn % len(cuts)]
            rig.feed(data[position : position + step])
            position, turn = position + step, turn + 1
            while not rig.wire.reading:
                await asyncio.sleep(0)
        for _ in range(40):
            await rig.settle()
        assert bodies(rig.wire.sent) == [answer for _, answer in order]
        rig.connection.connection_lost(None)
        rig.socket.close()

    asyncio.run(run())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(data=st.binary(max_size=300), cut=st.integers(1, 50), valid=st.booleans())
def test_no_bytes_break_a_connection(data, cut, valid):
    async def run() -> None:
        rig = Rig()
        mutated = post("/hot/echo", b"x" * 30)[:cut] + data if valid else data
        rig.feed(mutated)
        await rig.settle()
        rig.connection.connection_lost(None)
        await rig.settle()
        rig.socket.close()

    asyncio.run(run())


async def test_a_client_that_leaves_cancels_what_it_asked(make):
    rig = make()
    rig.feed(post("/hot/hold", b"1") + post("/hot/hold", b"2"))
    for _, answer, ticket in rig.handler.held:
        # As an engine does: cancelling answers, in the same step.
        ticket.cancel = lambda answer=answer, ticket=ticket: (
            setattr(ticket, "cancelled", True),
            answer(HttpReply(400)),
        )
    rig.connection.connection_lost(None)
    assert all(ticket.cancelled for _, _, ticket in rig.handler.held)


async def test_only_so_many_are_served_at_once_and_the_rest_waits_unread(make):
    rig = make()
    rig.feed(post("/hot/hold", b"x") * (MAX_PIPELINED + 50))
    await rig.settle()
    assert len(rig.handler.held) == MAX_PIPELINED
    assert not rig.wire.reading
    for _, answer, _ in list(rig.handler.held):
        answer(HttpReply(200))
    await rig.settle()
    assert len(rig.handler.held) == MAX_PIPELINED + 50
    assert rig.wire.reading


async def test_as_many_as_may_be_pipelined_and_then_more_are_served(make):
    """Nothing waits behind the last one that may, so nothing but the answers makes the connection read again."""
    rig = make()
    rig.feed(post("/hot/hold", b"x") * MAX_PIPELINED)
    assert not rig.wire.reading
    for _, answer, _ in list(rig.handler.held):
        answer(HttpReply(200))
    await rig.settle()
    assert rig.wire.reading
    rig.feed(post("/hot/echo", b"next"))
    assert bodies(await rig.settle())[-1] == b"next"


async def test_an_answer_written_whole_goes_out_as_it_is_unless_the_connection_ends(make):
    rig = make()
    whole = HttpReply(200, (b"body",), written=b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole")
    rig.feed(post("/hot/hold", b"") + post("/hot/hold", b"", "Connection: close"))
    for _, answer, _ in rig.handler.held:
        answer(whole)
    assert bodies(await rig.settle()) == [b"whole", b"body"]
    assert b"connection: close" in rig.wire.sent


async def test_a_client_that_does_not_read_is_not_read(make):
    rig = make()
    rig.connection.pause_writing()
    assert not rig.wire.reading
    rig.connection.resume_writing()
    assert rig.wire.reading


@pytest.mark.parametrize(
    ("request_bytes", "status", "text"),
    [
        (b"nonsense\r\n\r\n", 400, b"malformed HTTP request"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431, b"too long"),
        (b"POST /hot/echo HTTP/1.1\r\nContent-Length: 2001\r\n\r\n", 400, b"--http-max-input-size"),
        (chunked("/hot/echo", b"x" * 1500, b"x" * 1500), 400, b"--http-max-input-size"),
        (b"POST /hot/echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, b"malformed chunked body"),
    ],
)
async def test_refusals_are_said_and_end_the_connection(make, request_bytes, status, text):
    rig = make(max_body_bytes=2000)
    rig.feed(request_bytes + post("/hot/echo", b"not served"))
    sent = await rig.settle()
    assert sent.startswith(b"HTTP/1.1 %d " % status)
    assert text in sent
    assert b"connection: close" in sent
    assert b"not served" not in sent
    assert rig.wire.eof
    rig.feed(b"whatever still comes is read and dropped" * 1000)
    assert rig.wire.sent == sent


async def test_100_continue_is_said_only_to_a_body_that_will_be_read(make):
    rig = make(max_body_bytes=2000)
    rig.feed(b"POST /hot/echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    assert await rig.settle() == b"HTTP/1.1 100 Continue\r\n\r\n"
    rig.feed(b"body")
    assert (await rig.settle()).endswith(b"\r\n\r\nbody")
    refused = make(max_body_bytes=2000)
    refused.feed(b"POST /hot/echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4000\r\n\r\n")
    assert (await refused.settle()).startswith(b"HTTP/1.1 400 ")


async def test_bodies_being_received_share_a_budget(make):
    rig = make(max_receiving_bytes=1000)
    rig.feed(b"POST /hot/echo HTTP/1.1\r\nContent-Length: 900\r\n\r\nx")
    other_wire = Wire()
    other = H1Connection(rig.server)
    other.connection_made(other_wire)
    rig.wire, first_wire = other_wire, rig.wire
    rig.connection, first = other, rig.connection
    rig.feed(b"POST /hot/echo HTTP/1.1\r\nContent-Length: 900\r\n\r\nx")
    assert (await rig.settle()).startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1\r\n" in rig.wire.sent
    assert rig.handler.refusals == [429]
    rig.connection, rig.wire = first, first_wire
    rig.feed(b"y" * 899)
    assert (await rig.settle()).endswith(b"x" + b"y" * 899)
    other.connection_lost(None)


async def test_the_end_of_keep_alive(make):
    rig = make()
    rig.feed(post("/hot/echo", b"last", "Connection: close") + post("/hot/echo", b"too late"))
    sent = await rig.settle()
    assert bodies(sent) == [b"last"]
    assert rig.wire.eof
    assert not rig.connection.eof_received()


async def test_the_end_of_sending_is_the_end_of_the_client(make):
    rig = make()
    rig.feed(post("/hot/hold", b"x"))
    # False: the transport closes, and `connection_lost` cancels what was asked.
    assert not rig.connection.eof_received()


async def test_while_draining_every_answer_is_the_last_of_its_connection(make):
    rig = make()
    rig.handler.draining = True
    rig.feed(post("/hot/echo", b"x"))
    sent = await rig.settle()
    assert b"connection: close" in sent
    assert rig.wire.eof


async def test_shutdown_answers_what_is_served_and_refuses_half_a_request_in_words(make):
    serving = make()
    serving.feed(post("/hot/hold", b"x"))
    serving.connection.shutdown()
    assert not serving.wire.eof
    serving.handler.held[0][1](HttpReply(200, (b"done",)))
    assert bodies(await serving.settle()) == [b"done"]
    assert serving.wire.eof
    half = make()
    half.feed(b"POST /hot/echo HTTP/1.1\r\nContent-Le")
    half.connection.shutdown()
    assert (await half.settle()).startswith(b"HTTP/1.1 503 ")
    idle = make()
    idle.connection.shutdown()
    assert await idle.settle() == b""
    assert idle.wire.eof


async def test_slow_clients_are_ended_by_the_sweep_and_others_are_not(make):
    def sweep(rig: Rig, times: int) -> None:
        for _ in range(times):
            rig.server._sweep()
            rig.server._sweeping.cancel()

    rig = make(slow_s=5, idle_s=20)
    sweep(rig, 19)
    assert not rig.wire.eof
    rig.feed(b"POST /hot/ec")
    for _ in range(6):
        sweep(rig, 1)
        rig.feed(b"x")  # a trickle is not progress enough
    assert (await rig.settle()).startswith(b"HTTP/1.1 408 ")
    sweep(rig, 4)
    assert rig.wire.aborted
    idle = make(slow_s=5, idle_s=20)
    sweep(idle, 21)
    assert idle.wire.eof
    busy = make(slow_s=5, idle_s=20)
    busy.feed(post("/hot/hold", b"x"))
    sweep(busy, 50)
    assert not busy.wire.eof
    assert not busy.wire.aborted


async def test_too_many_connections_are_told(make):
    rig = make(max_connections=1)
    wire = Wire()
    second = H1Connection(rig.server)
    second.connection_made(wire)
    await rig.settle()
    assert wire.sent.startswith(b"HTTP/1.1 429 ")
    assert wire.eof
    second.connection_lost(None)


async def test_http_1_0_gets_an_answer_it_understands(make):
    rig = make()
    rig.feed(b"POST /app HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
    sent = await rig.settle()
    assert b"chunked" not in sent
    assert sent.endswith(b"app:x")
    assert rig.wire.eof


async def test_head_gets_no_body(make):
    rig = make()
    rig.feed(b"HEAD /app HTTP/1.1\r\nHost: h\r\n\r\n")
    sent = await rig.settle()
    assert b"HTTP/1.1 200 OK" in sent
    assert sent.endswith(b"\r\n\r\n")
    assert sent.count(b"\r\n\r\n") == 1


async def test_tensor_bytes_of_a_large_body_are_received_aligned(make):
    rig = make()
    seen: list[int] = []

    def start(body, _arrival_ns, answer):
        seen.append(np.frombuffer(body, np.uint8).ctypes.data % 16)
        answer(HttpReply(200))

    rig.handler.start = start
    rig.feed(post("/hot/echo", b"x" * 300_001))
    await rig.settle()
    assert [(address + rig.handler.tensors_at) % 16 for address in seen] == [0]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /hot/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3000\r\n\r\n", 400),
        (chunked("/hot/echo", b"x" * 1500, b"x" * 1500), 400),
        (b"POST /hot/hold HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
async def test_a_route_hears_of_requests_that_were_refused_in_its_stead(make, request_bytes, status):
    rig = make(max_body_bytes=2000)
    rig.feed(request_bytes)
    assert (await rig.settle()).startswith(b"HTTP/1.1 %d " % status)
    assert rig.handler.refusals == [status]
    assert rig.handler.held == []


async def test_what_is_no_request_is_refused_without_a_route(make):
    rig = make()
    rig.feed(b"no HTTP at all\r\n\r\n")
    assert (await rig.settle()).startswith(b"HTTP/1.1 400 ")
    assert rig.handler.refusals == []


async def test_a_body_that_comes_too_slowly_is_refused_once(make):
    rig = make(slow_s=1)
    rig.feed(b"POST /hot/echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nx")
    for _ in range(4):
        rig.server._sweep()
        rig.server._sweeping.cancel()
    assert (await rig.settle()).startswith(b"HTTP/1.1 408 ")
    assert rig.handler.refusals == [408]
