"""The load generator's own HTTP, HTTP/2 and checks: a generator that does not notice a wrong answer proves nothing."""

from __future__ import annotations

import asyncio
import json
import struct

import numpy as np
import pytest
from tests.bench import wire
from tests.bench.hpack import RequestBlocks, huffman, outcome
from tests.bench.http1 import HttpConnection
from tests.bench.http2 import GrpcConnection, share
from tests.bench.pace import Loop, Window
from tritonclient.grpc import service_pb2

ROW = {"INPUT0": np.arange(16, dtype=np.int32)[None], "INPUT1": np.ones((1, 16), np.int32)}


class Pipe:
    """A transport that keeps what is written."""

    def __init__(self):
        self.written = b""
        self.closed = False

    def write(self, data):
        self.written += bytes(data)

    def close(self):
        self.closed = True


def closed_loop(*, slots: int = 1, requests: int = 3, exact: bool = True) -> Loop:
    # No warm-up beyond two rounds, and a window that holds exactly `requests`.
    window = Window(warm_s=0.0, seconds=0.0, multiple=requests)
    finished = asyncio.get_running_loop().create_future()
    return Loop(window, slots, lambda: 1.0, exact=exact, fixed=True, finished=finished)


def answer(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def connected(loop: Loop) -> tuple[HttpConnection, Pipe]:
    connection, pipe = HttpConnection(loop, 0, b"GET", {}), Pipe()
    connection.connection_made(pipe)
    connection.start()
    return connection, pipe


async def test_the_loop_warms_up_measures_a_whole_window_and_stops():
    loop = closed_loop(requests=3)
    connection, pipe = await connected(loop)
    for _ in range(2 + 3):
        assert not loop.finished.done()
        connection.data_received(answer(b"same"))
    await loop.finished
    assert pipe.written == b"GET" * 5
    assert (loop.requests, len(loop.latencies_ns)) == (3, 3)
    assert loop.answers[0].first[1] == loop.answers[0].last[1] == b"same"


async def test_an_answer_may_come_in_any_pieces():
    loop = closed_loop(requests=1)
    connection, _ = await connected(loop)
    whole = answer(b"0123456789")
    for _ in range(3):
        for byte in whole:
            connection.data_received(bytes((byte,)))
    await loop.finished


@pytest.mark.parametrize(
    "bytes_of_it",
    [
        answer(b"same", "503 Service Unavailable"),
        answer(b"else"),
        answer(b"longer"),
        answer(b"same") + b"surplus",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_a_wrong_answer_ends_the_measurement(bytes_of_it):
    loop = closed_loop()
    connection, _ = await connected(loop)
    connection.data_received(answer(b"same"))
    connection.data_received(bytes_of_it)
    with pytest.raises(ValueError, match=r"status 503|another answer|an answer of|longer than|cannot read"):
        await loop.finished


async def test_a_connection_that_ends_ends_the_measurement():
    loop = closed_loop()
    connection, _ = await connected(loop)
    connection.connection_lost(None)
    with pytest.raises(ConnectionError):
        await loop.finished


def test_huffman_agrees_with_the_specification():
    # RFC 7541 has no example with "grpc-status"; its codes for these letters, put together by hand.
    assert huffman("0") == b"\x07"
    assert huffman("grpc-status").hex() == "9acac8b21234da8f"


def literal(name: bytes, value: bytes, prefix: int = 0x00) -> bytes:
    return bytes((prefix, len(name))) + name + bytes((len(value),)) + value


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (b"\x88", (b"200", None)),
        (b"\x8d", (b"404", None)),
        (b"\x20\x88" + literal(b"x", b"y"), (b"200", None)),
        (b"\x48\x03503", (b"503", None)),
        (literal(b"grpc-status", b"0"), (None, True)),
        (literal(b"grpc-status", b"0", 0x40), (None, True)),
        (literal(b"grpc-status", b"0", 0x10), (None, True)),
        (literal(b"grpc-status", b"13"), (None, False)),
        (b"\x00\x88" + huffman("grpc-status") + b"\x81\x07", (None, True)),
        (literal(b"grpc-message", b"0"), (None, None)),
        (b"\x0f\x10\x01a" + literal(b"grpc-status", b"0"), (None, True)),
    ],
)
def test_the_status_is_read_however_it_is_written(block, said):
    assert outcome(block) == said


@pytest.mark.parametrize("block", [b"\xbe", b"\x80", b"\x00\x05ab", b"\xff", b"\x40", b"\xff\xff\xff\xff\xff\xff\xff"])
def test_a_block_that_does_not_stand_for_itself_is_refused(block):
    with pytest.raises(ValueError, match=r"block|index"):
        outcome(block)


def test_later_blocks_point_at_what_the_first_one_taught():
    blocks = RequestBlocks("/service/Method", "host:1", 4096)
    first, second = blocks.next(), blocks.next()
    assert b"/service/Method" in first
    assert len(second) == 2 + 5
    assert blocks.next() == second
    spelled = RequestBlocks("/service/Method", "host:1", 0)
    assert spelled.next() == spelled.next()


def test_slots_are_dealt_out_once_each():
    assert sorted(slot for slots in share(11, 4) for slot in slots) == list(range(11))
    assert [len(slots) for slots in share(2, 8)] == [1, 1]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


GOOD_TRAILERS = literal(b"grpc-status", b"0")


def grpc_answer(stream: int, message: bytes, trailers: bytes = GOOD_TRAILERS) -> bytes:
    return frame(1, 4, stream, b"\x88") + frame(0, 0, stream, message) + frame(1, 5, stream, trailers)


async def calling(loop: Loop, message: bytes, settings: dict[int, int]) -> tuple[GrpcConnection, Pipe]:
    connection = GrpcConnection(loop, {0: message}, {}, path="/p", authority="a")
    pipe = Pipe()
    connection.connection_made(pipe)
    connection.data_received(frame(4, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings.items())))
    await connection.settled()
    pipe.written = b""
    connection.start()
    return connection, pipe


def data_sent(written: bytes) -> list[tuple[int, int, int]]:
    """(stream, flags, size) of every DATA frame."""
    found, position = [], 0
    while position < len(written):
        length = int.from_bytes(written[position : position + 3], "big")
        if written[position + 3] == 0:
            stream = int.from_bytes(written[position + 5 : position + 9], "big")
            found.append((stream, written[position + 4], length))
        position += 9 + length
    return found


async def test_calls_follow_each_other_on_streams_of_their_own():
    loop = closed_loop(requests=1)
    connection, pipe = await calling(loop, b"\0\0\0\0\1x", {})
    for stream in (1, 3, 5):
        connection.data_received(grpc_answer(stream, b"\0\0\0\0\1y"))
    await loop.finished
    assert data_sent(pipe.written) == [(1, 1, 6), (3, 1, 6), (5, 1, 6)]


async def test_windows_and_frame_sizes_of_the_server_are_respected():
    loop = closed_loop()
    connection, pipe = await calling(loop, bytes(100_000), {4: 50_000, 5: 16_384})
    assert sum(size for _, _, size in data_sent(pipe.written)) == 50_000
    assert max(size for _, _, size in data_sent(pipe.written)) == 16_384
    connection.data_received(frame(8, 0, 1, (40_000).to_bytes(4, "big")))
    assert sum(size for _, _, size in data_sent(pipe.written)) == 65_535  # the connection's own window is still closed
    connection.data_received(frame(8, 0, 0, (100_000).to_bytes(4, "big")))
    connection.data_received(frame(8, 0, 1, (100_000).to_bytes(4, "big")))
    sent = data_sent(pipe.written)
    assert sum(size for _, _, size in sent) == 100_000
    assert [flags for _, flags, _ in sent] == [0] * (len(sent) - 1) + [1]


async def test_a_ping_is_answered():
    connection, pipe = await calling(closed_loop(), b"", {})
    pipe.written = b""
    connection.data_received(frame(6, 0, 0, b"01234567"))
    assert pipe.written == frame(6, 1, 0, b"01234567")


@pytest.mark.parametrize(
    "bytes_of_it",
    [
        grpc_answer(1, b"\0\0\0\0\1y", literal(b"grpc-status", b"14")),
        grpc_answer(1, b"\0\0\0\0\1y", literal(b"x", b"y")),
        frame(1, 5, 1, b"\x88" + literal(b"grpc-status", b"5")),
        frame(3, 0, 1, (8).to_bytes(4, "big")),
        frame(7, 0, 0, bytes(8) + b"enough"),
    ],
)
async def test_a_failed_call_ends_the_measurement(bytes_of_it):
    loop = closed_loop()
    connection, _ = await calling(loop, b"\0\0\0\0\1x", {})
    connection.data_received(bytes_of_it)
    with pytest.raises(ValueError, match=r"failed|reset|ends the connection"):
        await loop.finished


@pytest.mark.parametrize("binary", [True, False])
def test_requests_say_the_row(binary):
    head, _, body = wire.http_infer("h", "simple", ROW, binary=binary).partition(b"\r\n\r\n")
    given = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
    assert int(given["Content-Length"]) == len(body)
    length = int(given.get("Inference-Header-Content-Length", len(body)))
    document = json.loads(body[:length])
    assert [tensor["name"] for tensor in document["inputs"]] == ["INPUT0", "INPUT1"]
    if binary:
        assert body[length:] == ROW["INPUT0"].tobytes() + ROW["INPUT1"].tobytes()
    else:
        assert document["inputs"][0]["data"] == list(range(16))


def test_answers_are_read_back():
    message = service_pb2.ModelInferResponse()
    message.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    message.raw_output_contents.append(np.array([1, 2], np.float32).tobytes())
    got = wire.grpc_outputs(wire.grpc_message(message.SerializeToString()))
    wire.compare(got, {"y": np.array([[1, 2]], np.float32)}, exact=True)
    described = {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"outputs": [described]}).encode()
    body = head + np.array([1, 2], np.float32).tobytes()
    lines = f"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: {len(head)}".encode()
    wire.compare(wire.http_outputs(lines, body), {"y": np.array([[1, 2]], np.float32)}, exact=True)
    with pytest.raises(wire.WrongAnswer, match="belong to no output"):
        wire.http_outputs(lines, body + b"x")


@pytest.mark.parametrize("body", [b"", b"\1\0\0\0\0", b"\0\0\0\0\5abc"])
def test_half_a_message_is_no_answer(body):
    with pytest.raises(wire.WrongAnswer):
        wire.grpc_outputs(body)


Y = np.array([[1.0, -2.0]], np.float32)


@pytest.mark.parametrize(
    "got",
    [
        {},
        {"z": Y},
        {"y": Y[0]},
        {"y": Y.astype(np.int32)},
        {"y": Y + np.float32(0.1)},
        {"y": Y * np.float32(np.nan)},
    ],
)
def test_another_answer_is_noticed(got):
    with pytest.raises(wire.WrongAnswer):
        wire.compare(got, {"y": Y}, exact=False)


def test_rounding_is_no_other_answer_unless_exact():
    near = {"y": Y * np.float32(1.0001)}
    wire.compare(near, {"y": Y}, exact=False)
    with pytest.raises(wire.WrongAnswer, match="off by"):
        wire.compare(near, {"y": Y}, exact=True)
