"""Drives one HTTP/2 connection of ours without a socket, frame by frame; `hpack` and `hyperframe` read what comes back.

Time is a `ManualClock`, the loop a list of callbacks, so that nothing here waits and nothing depends on speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hpack
import hyperframe.frame as hf

from tensorquay.core.errors import Overloaded, ServingError
from tensorquay.grpc_api.native_calls import Streaming, Unary
from tensorquay.testing.manual_clock import ManualClock
from tensorquay.transport import h2_frames as f
from tensorquay.transport.coding import outcome_of
from tensorquay.transport.grpc_call import Call
from tensorquay.transport.grpc_head import CallHead, Refusal
from tensorquay.transport.h2_connection import Connection
from tensorquay.transport.h2_limits import H2Limits
from tensorquay.transport.h2_server import H2Server

REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/t.T/Echo"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


class FakeLoop:
    """What a connection asks of its loop."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def call_soon(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.waiting.append((callback, arguments))

    def turn(self) -> None:
        """Run what is waiting, and what that brings, until nothing is."""
        for _ in range(10_000):
            if not self.waiting:
                return
            waiting, self.waiting = self.waiting, []
            for callback, arguments in waiting:
                callback(*arguments)
        raise AssertionError("the loop never comes to rest")


class FakeTransport:
    """Keeps what is written; `closed` says how it ended."""

    def __init__(self, ssl_object: Any = None) -> None:
        self.written = bytearray()
        self.writes = 0
        self.closed = ""
        self._ssl_object = ssl_object

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.writes += 1
        self.written += data

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return self.closed in {"close", "abort"}

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = "eof"

    def close(self) -> None:
        self.closed = "close"

    def abort(self) -> None:
        self.closed = "abort"

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """The fake takes everything; tests call `pause_writing` themselves."""

    def get_extra_info(self, name: str) -> Any:
        return self._ssl_object if name == "ssl_object" else None


class Echo(Unary):
    """Answers with what it got."""

    def __init__(self) -> None:
        self.gone_calls = 0

    def start(self, call: Call, message: bytes | memoryview) -> None:
        call.answer(bytes(message))

    def gone(self, call: Call) -> None:
        self.gone_calls += 1


class Later(Echo):
    """Keeps its calls until the test answers them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Call, bytes]] = []

    def start(self, call: Call, message: bytes | memoryview) -> None:
        self.calls.append((call, bytes(message)))


class Big(Echo):
    """Answers with as many bytes as the message's text says; none when it is no number, or one beyond 10 MB."""

    def start(self, call: Call, message: bytes | memoryview) -> None:
        said = bytes(message)
        call.answer(b"z" * (int(said) if said.isdigit() and len(said) < 8 else 0))


class Broken(Echo):
    """Has a bug."""

    def start(self, call: Call, message: bytes | memoryview) -> None:
        raise RuntimeError("secret /home/someone")


class Refuses(Echo):
    """Answers with the error it is made with."""

    def __init__(self, error: ServingError) -> None:
        super().__init__()
        self.error = error

    def start(self, call: Call, message: bytes | memoryview) -> None:
        call.answer(self.error)


class Chat(Streaming):
    """Sends every message back, takes `holds_after` messages at first, and ends when the client does."""

    def __init__(self, holds_after: int = 10**9) -> None:
        self.got: list[bytes] = []
        self.drains = self.gone_calls = 0
        self.holds_after = holds_after

    def opened(self, call: Call) -> None:
        call.state = "open"

    def message(self, call: Call, message: bytes | memoryview) -> None:
        self.got.append(bytes(message))
        call.send(bytes(message))
        if len(self.got) == self.holds_after:
            call.hold()

    def half_closed(self, call: Call) -> None:
        call.finish()

    def drained(self, call: Call) -> None:
        self.drains += 1

    def gone(self, call: Call) -> None:
        self.gone_calls += 1


class Coding:
    """Coding work beside the loop: done in the loop's next turn or, while it `waits`, when the test lets it.

    Args: full: whether it takes no more.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any], None]]] = deque()
        self.waits = self.full = False

    def run(self, work: Callable[[], Any], done: Callable[[Any], None], *, size: int) -> None:
        if self.full:
            raise Overloaded(f"{size} bytes are too many")
        self._jobs.append((work, done))
        if not self.waits:
            self._loop.call_soon(self.go)

    @property
    def waiting(self) -> int:
        """Jobs that are not done."""
        return len(self._jobs)

    def go(self) -> None:
        """Do the next one."""
        work, done = self._jobs.popleft()
        done(outcome_of(work))


@dataclass
class Answer:
    """What a stream got."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> str | None:
        """The gRPC status, wherever it is."""
        return self.trailers.get("grpc-status", self.headers.get("grpc-status"))

    @property
    def text(self) -> str:
        """The status's text, still percent-encoded."""
        return self.trailers.get("grpc-message", self.headers.get("grpc-message", ""))

    @property
    def messages(self) -> list[bytes]:
        """Complete messages."""
        found, rest = [], bytes(self.data)
        while len(rest) >= 5:
            size = int.from_bytes(rest[1:5], "big")
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found


class Peer:
    """A client of one connection. Checks on the way what must hold for every server."""

    def __init__(
        self,
        limits: H2Limits | None = None,
        *,
        routes: dict[str, Any] | None = None,
        server: H2Server | None = None,
        max_message_bytes: int = 2**31 - 1,
        max_receiving_bytes: int = 0,
        settings: dict[int, int] | None = None,
        handshake: bool = True,
        ssl_object: Any = None,
    ) -> None:
        self.routes = {"/t.T/Echo": Echo(), "/t.T/Big": Big(), "/t.T/Broken": Broken(), **(routes or {})}
        self.clock = ManualClock() if server is None else server.clock
        self.server = server or H2Server(
            self._resolve,
            None,
            clock=self.clock,
            limits=limits or H2Limits(),
            max_message_bytes=max_message_bytes,
            max_receiving_bytes=max_receiving_bytes,
        )
        self.loop = FakeLoop()
        self.transport = FakeTransport(ssl_object)
        # Timers are the server's own; tests call `server.sweep()` and `server.expire()` themselves.
        self.server._sweep_later = lambda: None
        self.server._wake_at = lambda deadline_ns: setattr(self.server, "_wake_ns", deadline_ns)
        self.connection = Connection(self.server, self.loop)
        self.coding = self.connection.coding = Coding(self.loop)
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._read = 0
        self.answers: dict[int, Answer] = {}
        self.frames: list[hf.Frame] = []
        self.goaways: list[hf.GoAwayFrame] = []
        self.next_stream = 1
        self.connection.connection_made(self.transport)
        if handshake:
            self.send(f.PREFACE + f.settings(settings or {}))

    def _resolve(self, head: CallHead) -> None:
        route = self.routes.get(head.path)
        if route is None:
            head.refusal = Refusal(ServingError(f"no method {head.path}"))
        head.route = route

    # -- sending

    def send(self, data: bytes, *, pieces: int = 0) -> None:
        """Bytes, as the socket would bring them; with `pieces`, that many at a time."""
        step = pieces or len(data)
        for start in range(0, len(data), step or 1):
            rest = memoryview(data)[start : start + step]
            while len(rest):
                target = self.connection.get_buffer(-1)
                count = min(len(target), len(rest))
                assert count
                target[:count] = rest[:count]
                self.connection.buffer_updated(count)
                rest = rest[count:]
        self.turn()

    def turn(self) -> None:
        """Let the loop run, and read what was written."""
        self.loop.turn()
        self._take()

    def block(self, headers: Sequence[tuple[str, str]] = REQUEST) -> bytes:
        """A header block of this client's."""
        return self._encoder.encode(headers)

    def with_(self, *headers: tuple[str, str]) -> list[tuple[str, str]]:
        """The usual headers, some replaced or added; a value of None removes."""
        said = dict(headers)
        kept = [(name, said.get(name, value)) for name, value in REQUEST]
        return [(n, v) for n, v in (*kept, *((n, v) for n, v in headers if n not in dict(REQUEST))) if v is not None]

    def open(self, headers: Sequence[tuple[str, str]] = REQUEST, *, end: bool = False) -> int:
        """HEADERS of a new stream."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        flags = f.END_HEADERS | (f.END_STREAM if end else 0)
        self.send(f.frame(f.HEADERS, flags, stream, self.block(headers)))
        return stream

    def data(self, stream: int, payload: bytes, *, end: bool = True) -> None:
        """A DATA frame."""
        self.send(f.frame(f.DATA, f.END_STREAM if end else 0, stream, payload))

    def call(self, message: bytes, path: str = "/t.T/Echo", *headers: tuple[str, str]) -> int:
        """A unary call in the usual two frames; returns its stream."""
        stream = self.open(self.with_((":path", path), *headers))
        self.data(stream, prefixed(message))
        return stream

    # -- what came

    def answer(self, stream: int) -> Answer:
        """What `stream` got so far."""
        return self.answers.setdefault(stream, Answer())

    @property
    def goaway(self) -> int | None:
        """The code of the last GOAWAY."""
        return self.goaways[-1].error_code if self.goaways else None

    def count(self, kind: type[hf.Frame]) -> int:
        """How many frames of a kind came."""
        return sum(isinstance(frame, kind) for frame in self.frames)

    def _take(self) -> None:
        written = self.transport.written
        while len(written) - self._read >= 9:
            head = bytes(written[self._read : self._read + 9])
            frame, length = hf.Frame.parse_frame_header(memoryview(head))
            end = self._read + 9 + length
            assert end <= len(written), "a frame was written in part"
            frame.parse_body(memoryview(bytes(written[self._read + 9 : end])))
            self._read = end
            self._frame(frame, length)

    def _frame(self, frame: hf.Frame, length: int) -> None:
        self.frames.append(frame)
        answer = self.answers.setdefault(frame.stream_id, Answer()) if frame.stream_id else None
        if isinstance(frame, hf.GoAwayFrame):
            self.goaways.append(frame)
        elif isinstance(frame, hf.RstStreamFrame):
            assert answer is not None
            assert answer.reset is None, "a stream was reset twice"
            answer.reset = frame.error_code
        elif isinstance(frame, hf.HeadersFrame):
            assert answer is not None
            assert not answer.ended, "HEADERS on a stream that is closed"
            assert answer.reset is None, "HEADERS on a stream that was reset"
            assert "END_HEADERS" in frame.flags
            fields = dict(self._decoder.decode(frame.data))
            if answer.headers:
                assert "END_STREAM" in frame.flags, "trailers must end the stream"
                assert not any(name.startswith(":") for name in fields)
                answer.trailers = fields
            else:
                assert ":status" in fields
                answer.headers = fields
            answer.ended = "END_STREAM" in frame.flags
        elif isinstance(frame, hf.DataFrame):
            assert answer is not None
            assert answer.headers, "DATA before HEADERS"
            assert not answer.ended, "DATA on a stream that is closed"
            assert answer.reset is None, "DATA on a stream that was reset"
            answer.data += frame.data


def prefixed(message: bytes, compressed: int = 0) -> bytes:
    """`message` as gRPC sends it."""
    return bytes((compressed,)) + len(message).to_bytes(4, "big") + message
