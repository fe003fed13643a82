"""HTTP/1.1 over TLS keeps every promise that it keeps without: over real sockets, on both event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from pki import Authority
from tensorquay.config.tls import TlsFiles
from tensorquay.core.clock import SystemClock
from tensorquay.transport import tls
from tensorquay.transport.asgi import AsgiServer
from tensorquay.transport.h1_server import H1Limits, H1Server
from tensorquay.transport.http_message import HttpReply
from tensorquay.transport.listen import bind, port_of
from tensorquay.transport.tls import Certificates, PortContext

_TIMEOUT_S = 30
MAX_BODY = 8 * 2**20
HANDSHAKES = 4


class Echo:
    """/hot answers with its body."""

    tensors_at = 0
    draining = False

    def route(self, _method: str, path: str, _headers: Any) -> Any:
        return self if path == "/hot" else None

    def start(self, body: Any, _arrival_ns: int, answer: Any) -> None:
        answer(HttpReply(200, (bytes(body),)))

    def refused(self, _status: int) -> None:
        pass


async def application(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    headers = [(b"x-scheme", scope["scheme"].encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


class House:
    """A server in a loop of its own thread."""

    def __init__(self, authority: Authority, loop: asyncio.AbstractEventLoop, *, uvicorn: bool = False) -> None:
        self.loop = loop
        self._thread = threading.Thread(target=loop.run_forever, name="tls-h1", daemon=True)
        self._thread.start()
        pair, clock = authority.issue(), SystemClock()
        certificates = Certificates(TlsFiles("http", pair.certificate, pair.key), ("http/1.1",), clock=clock)
        context = PortContext(certificates, clock=clock, handshakes=HANDSHAKES)
        bound = bind("127.0.0.1", 0, what="HTTP")
        self.port = port_of(bound)
        self.trusting = ssl.create_default_context(cafile=authority.certificate)
        self.trusting.set_alpn_protocols(["http/1.1"])
        self.server: H1Server | AsgiServer = (
            AsgiServer(application, bound, tls=context)
            if uvicorn
            else H1Server(
                Echo(), application, bound, clock=clock, limits=H1Limits(max_body_bytes=MAX_BODY), tls=context
            )
        )
        self.call(self.server.start())

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_TIMEOUT_S)

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT_S)

    def connect(self) -> ssl.SSLSocket:
        return self.trusting.wrap_socket(self.plain(), server_hostname="localhost")

    def close(self) -> None:
        self.call(self.server.stop(2.0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_TIMEOUT_S)
        self.loop.close()


@pytest.fixture(params=["uvloop", "asyncio"])
def house(request: pytest.FixtureRequest, authority: Authority) -> Iterator[House]:
    house = House(authority, uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop())
    yield house
    house.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handshakes are given up at once; a test waits for that and for nothing else."""
    monkeypatch.setattr(tls, "HANDSHAKE_S", 0.05)


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Reader:
    """Answers with a length, one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""

    def _until(self, enough: Any) -> None:
        while not enough():
            data = self._sock.recv(2**16)
            assert data, "the connection ended within an answer"
            self._rest += data

    def head(self) -> bytes:
        self._until(lambda: b"\r\n\r\n" in self._rest)
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def answer(self) -> tuple[bytes, bytes]:
        head = self.head().lower()
        if b"content-length: " not in head:
            self._until(lambda: self._rest.endswith(b"0\r\n\r\n"))
            body, self._rest = self._rest, b""
            return head, body
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        self._until(lambda: len(self._rest) >= length)
        body, self._rest = self._rest[:length], self._rest[length:]
        return head, body


def test_requests_in_a_row_and_pipelined(house: House) -> None:
    with house.connect() as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
        reader = Reader(sock)
        for number in range(3):
            sock.sendall(post("/hot", b"row %d" % number))
            assert reader.answer()[1] == b"row %d" % number
        sock.sendall(b"".join(post("/hot", b"%d" % number) for number in range(200)))
        assert [reader.answer()[1] for _ in range(200)] == [b"%d" % number for number in range(200)]
        sock.sendall(post("/app", b"x" * 10))
        head, body = reader.answer()
        assert b"x-scheme: https" in head
        assert b"x" * 10 in body


def test_expect_and_chunks_and_records_cut_anywhere(house: House) -> None:
    with house.connect() as sock:
        reader = Reader(sock)
        body = bytes(range(256)) * 4
        sock.sendall(post("/hot", body, "Expect: 100-continue")[: -len(body)])
        assert reader.head() == b"HTTP/1.1 100 Continue"
        sock.sendall(body)
        assert reader.answer()[1] == body
        head = b"POST /hot HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        for byte in head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n":
            sock.sendall(bytes([byte]))
        assert reader.answer()[1] == b"abcde"


def test_large_bodies_and_a_client_that_reads_late(house: House) -> None:
    body = bytes(2 * 2**20)
    with house.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
        reader = Reader(sock)
        sending = threading.Thread(target=lambda: [sock.sendall(post("/hot", body)) for _ in range(8)])
        sending.start()
        for _ in range(8):
            assert reader.answer()[1] == body
        sending.join(_TIMEOUT_S)


def test_the_last_answer_ends_with_a_goodbye(house: House) -> None:
    with house.connect() as sock:
        sock.sendall(post("/hot", b"last", "Connection: close"))
        reader = Reader(sock)
        head, body = reader.answer()
        assert b"connection: close" in head
        assert body == b"last"
        # An end without close_notify would raise here: whoever cuts the line could fake it.
        assert sock.recv(1) == b""
        sock.unwrap()


@pytest.mark.parametrize("path", ["/hot", "/app"])
def test_a_refusal_in_the_middle_of_a_body_is_heard(house: House, path: str) -> None:
    with house.connect() as sock:
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n"
        sock.sendall(head.encode())
        for _ in range(8):
            sock.sendall(bytes(2**16))
        answer, body = Reader(sock).answer()
        assert answer.startswith(b"http/1.1 400")
        assert b"too large" in body or b"at most" in body, body


def test_a_client_that_goes_away_in_any_way_hurts_nobody(house: House) -> None:
    for _ in range(3):
        with house.connect() as sock:  # a reset in the middle of a body
            sock.sendall(post("/hot", bytes(1000))[:-10])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        with house.connect() as sock:  # a goodbye in the middle of a body
            sock.sendall(post("/hot", bytes(1000))[:-10])
            sock.unwrap().close()
        with house.connect() as sock:  # an end of the connection without a goodbye
            sock.sendall(post("/hot", b"left"))
    with house.connect() as sock:
        sock.sendall(post("/hot", b"here"))
        assert Reader(sock).answer()[1] == b"here"


@pytest.mark.parametrize("garbage", [b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n", bytes(300), b"\x16\x03\x01\x40\x00" * 9])
def test_what_is_no_handshake_is_hung_up_on(house: House, garbage: bytes, impatient: None) -> None:
    with house.connect() as well_behaved:
        with house.plain() as sock:
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            assert b"HTTP" not in _all(sock)
        well_behaved.sendall(post("/hot", b"still"))
        assert Reader(well_behaved).answer()[1] == b"still"


def test_clients_that_stall_in_the_handshake(authority: Authority, impatient: None) -> None:
    """More than may be there at once: some are turned away, all are given up, and then there is room again."""
    for loop in (uvloop.new_event_loop(), asyncio.new_event_loop()):
        house = House(authority, loop)
        hello, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = house.trusting.wrap_bio(hello, out, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        stalled = [house.plain() for _ in range(2 * HANDSHAKES)]
        for sock in stalled:
            sock.sendall(out.read(40))
        for sock in stalled:
            _all(sock)
            sock.close()
        with house.connect() as sock:
            sock.sendall(post("/hot", b"room"))
            assert Reader(sock).answer()[1] == b"room"
        house.close()


def test_renegotiation_is_refused_and_tls_1_2_is_modern(house: House) -> None:
    address = ("-connect", f"127.0.0.1:{house.port}")
    said = openssl_says("s_client", *address, "-tls1_2", typed=b"R\n")
    assert "Cipher    : ECDHE-" in said
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said
    said = openssl_says("s_client", *address, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", typed=b"")
    assert "alert protocol version" in said
    said = openssl_says("s_client", *address, "-tls1_2", "-cipher", "AES128-SHA", typed=b"")
    assert "alert handshake failure" in said
    # More than may be under way at once, so that a place that stays taken is found out.
    for _ in range(2 * HANDSHAKES):
        said = openssl_says("s_client", *address, "-tls1_2", "-cipher", "AES128-SHA", typed=b"")
        assert "alert handshake failure" in said
    with house.connect() as sock:
        sock.sendall(post("/hot", b"unhurt"))
        assert Reader(sock).answer()[1] == b"unhurt"


def test_stopping_says_goodbye_to_kept_connections(house: House) -> None:
    with house.connect() as sock:
        sock.sendall(post("/hot", b"x"))
        Reader(sock).answer()
        stopping = asyncio.run_coroutine_threadsafe(house.server.stop(20.0), house.loop)
        assert sock.recv(1) == b""
        sock.unwrap().close()
        stopping.result(_TIMEOUT_S)


def test_uvicorn_serves_the_same_context(authority: Authority) -> None:
    house = House(authority, uvloop.new_event_loop(), uvicorn=True)
    with house.connect() as sock:
        sock.sendall(post("/app", b"body"))
        head, body = Reader(sock).answer()
        assert b"x-scheme: https" in head
        assert b"body" in body
    house.close()


def openssl_says(*words: str, typed: bytes) -> str:
    """What the program prints for `typed`; it fails where the server refuses."""
    done = subprocess.run(["openssl", *words], input=typed, capture_output=True, check=False, timeout=_TIMEOUT_S)
    return (done.stdout + done.stderr).decode("latin-1")


def _all(sock: socket.socket) -> bytes:
    """What comes until the other side ends it, in whatever way."""
    found = b""
    while True:
        try:
            data = sock.recv(2**16)
        except ConnectionResetError:
            return found
        if not data:
            return found
        found += data
