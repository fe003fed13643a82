"""What goes to a collector over a real connection, and everything it may do instead of taking it."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from tests.support import pki
from tests.support.collector import Collector

from tensorquay import __version__
from tensorquay.config.otel import Collector as Target
from tensorquay.config.server import ServerConfig
from tensorquay.core.clock import SystemClock
from tensorquay.telemetry.otel import TracingUnusable, span_recorder
from tensorquay.telemetry.otlp_http import NotSent, OtlpSender


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def sender(collector: Collector, **more: object) -> OtlpSender:
    return OtlpSender(Target(collector.url, **more), agent="test/1")  # type: ignore[arg-type]


def test_requests_share_a_connection(collector: Collector) -> None:
    ports: set[int] = set()
    take = collector.take

    def noted(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        ports.add(handler.client_address[1])
        take(handler, body)

    collector.take = noted  # type: ignore[method-assign]
    sends = sender(collector, headers={"api-key": "s3"})
    for _ in range(3):
        sends.send(b"")
    assert len(ports) == 1
    assert len(collector.requests) == 3
    assert collector.requests[0]["api-key"] == "s3"
    assert collector.requests[0]["user-agent"] == "test/1"
    sends.close()


def test_bodies_may_be_compressed(collector: Collector) -> None:
    bodies: list[bytes] = []
    take = collector.take

    def kept(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        bodies.append(body)
        take(handler, body)

    collector.take = kept  # type: ignore[method-assign]
    sends = sender(collector, gzip=True)
    sends.send(b"")
    assert gzip.decompress(bodies[0]) == b""
    sends.close()


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(NotSent, match="refused") as caught:
        OtlpSender(Target(f"http://127.0.0.1:{port}/v1/traces"), agent="test").send(b"")
    assert not caught.value.lasting


def test_nobody_of_that_name() -> None:
    with pytest.raises(NotSent):
        OtlpSender(Target("http://nobody.invalid/v1/traces"), agent="test").send(b"")


def test_who_hangs_is_given_up(collector: Collector) -> None:
    release = threading.Event()
    collector.behave = lambda _handler: (release.wait(60), None)[1]
    sends = sender(collector, timeout_s=0.05)
    try:
        with pytest.raises(NotSent, match="in time"):
            sends.send(b"")
        collector.behave = None
        release.set()
        with pytest.raises(NotSent, match="in time"):
            sends.send(b"", timeout_s=-1.0)
    finally:
        release.set()


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_who_drips_is_given_up_like_who_hangs(collector: Collector, begun: bytes) -> None:
    """Each byte in time, the whole never."""
    release = threading.Event()

    def drips(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(begun)
            while not release.wait(0.01):
                handler.wfile.write(b"x")

    collector.behave = drips
    try:
        with pytest.raises(NotSent, match="in time"):
            sender(collector, timeout_s=0.3).send(b"")
    finally:
        release.set()


def test_a_name_that_can_be_none_is_refused_for_good() -> None:
    with pytest.raises(NotSent, match="cannot be looked up") as caught:
        OtlpSender(Target("http://collector..svc:4318/v1/traces"), agent="test").send(b"")
    assert caught.value.lasting


def answer(status: int, *lines: str, body: bytes = b"") -> Callable[[BaseHTTPRequestHandler], None]:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        head = "\r\n".join([f"HTTP/1.1 {status} So", *lines, f"Content-Length: {len(body)}", "", ""])
        handler.wfile.write(head.encode() + body)

    return behave


@pytest.mark.parametrize(
    ("status", "lines", "lasting", "pause_s"),
    [
        (503, (), False, 0.0),
        (429, ("Retry-After: 7",), False, 7.0),
        (429, ("Retry-After: 99999999999",), False, 0.0),
        (502, ("Retry-After: 86400",), False, 300.0),
        (504, ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT",), False, 0.0),
        (400, (), True, 0.0),
        (404, (), True, 0.0),
        (302, ("Location: http://127.0.0.1:1/",), True, 0.0),
        (500, (), True, 0.0),
    ],
)
def test_what_an_answer_means(
    collector: Collector, status: int, lines: tuple[str, ...], lasting: bool, pause_s: float
) -> None:
    collector.behave = answer(status, *lines, body=b"text")
    sends = sender(collector)
    with pytest.raises(NotSent, match=str(status)) as caught:
        sends.send(b"")
    assert (caught.value.lasting, caught.value.pause_s) == (lasting, pause_s)
    collector.behave = None
    sends.send(b"")
    sends.close()


def garbage(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x16\x03\x01 nonsense\r\n\r\n")
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def half(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
    handler.close_connection = True


def endless_head(handler: BaseHTTPRequestHandler) -> None:
    try:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"X: " + b"x" * 1000 + b"\r\n")
    except OSError:
        handler.close_connection = True


@pytest.mark.parametrize("behave", [garbage, hang_up, endless_head])
def test_nonsense_is_no_answer(collector: Collector, behave: Callable[[BaseHTTPRequestHandler], None]) -> None:
    collector.behave = behave
    sends = sender(collector)
    with pytest.raises(NotSent) as caught:
        sends.send(b"")
    assert not caught.value.lasting
    collector.behave = None
    sends.send(b"")
    sends.close()


def test_half_an_answer_is_taken_for_what_its_status_says(collector: Collector) -> None:
    collector.behave = half
    sends = sender(collector)
    sends.send(b"")
    collector.behave = None
    sends.send(b"")
    sends.close()


def test_an_answer_without_end_is_cut(collector: Collector) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                handler.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            handler.close_connection = True

    collector.behave = endless
    sends = sender(collector)
    sends.send(b"")
    collector.behave = None
    sends.send(b"")
    sends.close()


def test_a_connection_that_was_closed_meanwhile_is_no_failure(collector: Collector) -> None:
    sends = sender(collector)
    closing = threading.Event()

    def last(handler: BaseHTTPRequestHandler) -> None:
        answer(200)(handler)
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True
        closing.set()

    collector.behave = last
    sends.send(b"")
    assert closing.wait(20)
    collector.behave = None
    sends.send(b"")
    assert len(collector.requests) == 2
    sends.close()


def test_the_log_is_not_told_what_may_be_secret() -> None:
    sends = OtlpSender(Target("http://collector:4318/v1/traces?key=s3"), agent="test")
    assert sends.shown == "http://collector:4318/v1/traces"


def test_certificates_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    config = ServerConfig.model_validate(
        {"trace_mode": "opentelemetry", "otlp_endpoint": "https://collector/v1/traces"}
    )
    missing = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "nothing.pem")}
    with pytest.raises(TracingUnusable, match="OTEL_EXPORTER_OTLP_CERTIFICATE"):
        span_recorder(config, missing, version=__version__, clock=SystemClock())


def test_where_no_thread_can_be_had_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    config = ServerConfig.model_validate({"trace_mode": "opentelemetry"})
    with pytest.raises(TracingUnusable, match=r"can't start new thread.*pids\.max"):
        span_recorder(config, {}, version=__version__, clock=SystemClock())


def test_over_tls_both_sides_show_who_they_are(tmp_path: Path) -> None:
    authority = pki.Authority(tmp_path)
    theirs, ours = authority.issue(), authority.issue("client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.certificate))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(theirs.certificate, theirs.key)
    collector = Collector(tls=context)
    try:
        known = {"certificate": authority.certificate, "timeout_s": 20.0}
        trusted = sender(collector, **known, client_certificate=ours.certificate, client_key=ours.key)
        trusted.send(b"")
        trusted.close()
        assert len(collector.requests) == 1
        with pytest.raises(NotSent):
            sender(collector, timeout_s=20.0).send(b"")
        with pytest.raises(NotSent):
            sender(collector, **known).send(b"")
        assert len(collector.requests) == 1
    finally:
        collector.close()
