"""Heads of HTTP/1.1 requests."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.transport.h1_head import BadHead, HeadReader


class Handler:
    """Remembers what it was asked for; everything under /hot is a route."""

    draining = False
    tensors_at = 0

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def route(self, method, path, headers):
        self.asked.append((method, path))
        return self if path.startswith("/hot") else None

    def start(self, body, arrival_ns, answer):
        raise AssertionError


def read(*lines: str, reader: HeadReader | None = None):
    return (reader or HeadReader(Handler())).read("".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1"))[0]


def test_everything_a_request_needs_is_found():
    head = read("POST /hot/a%20b?x=1 HTTP/1.1", "Host: h", "Content-Length: 12", "Expect: 100-continue")
    assert (head.method, head.path, head.raw_path, head.query) == ("POST", "/hot/a b", b"/hot/a%20b", b"x=1")
    assert head.content_length == 12
    assert head.keep_alive
    assert head.expects_continue
    assert head.route is not None
    assert (b"content-length", b"12") in head.headers


def test_equal_bytes_are_parsed_once():
    handler = Handler()
    reader = HeadReader(handler)
    first = read("GET /hot HTTP/1.1", "Host: h", reader=reader)
    assert read("GET /hot HTTP/1.1", "Host: h", reader=reader) is first
    read("GET /hot HTTP/1.1", "Host: i", reader=reader)
    assert handler.asked == [("GET", "/hot")] * 2


def test_memory_for_heads_is_bounded():
    handler = Handler()
    reader = HeadReader(handler)
    for number in range(5000):
        read("GET /hot HTTP/1.1", f"X-Id: {number}", reader=reader)
    assert len(reader.known) <= 2048
    read("GET /hot HTTP/1.1", "X-Large: " + "x" * 5000, reader=reader)
    assert all(len(data) <= 4096 for data in reader.known)


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (("GET / HTTP/1.1", "Connection: close"), False),
        (("GET / HTTP/1.1", "Connection: foo, Close"), False),
        (("GET / HTTP/1.0",), False),
        (("GET / HTTP/1.0", "Connection: keep-alive"), True),
        (("GET / HTTP/1.1",), True),
    ],
)
def test_who_keeps_the_connection(lines, keep_alive):
    assert read(*lines).keep_alive is keep_alive


def test_absolute_form_and_upgrades_are_plain_requests():
    assert read("GET http://h:1/hot/x?y HTTP/1.1").path == "/hot/x"
    head = read("POST /hot HTTP/1.1", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Content-Length: 3")
    assert head.content_length == 3


def test_a_chunked_body_has_no_length():
    assert read("POST / HTTP/1.1", "Transfer-Encoding: chunked").content_length is None


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("GET /",), 400),
        (("GET / HTTP/3.7",), 400),
        (("G@T / HTTP/1.1",), 400),
        (("GET / HTTP/1.1", "no colon"), 400),
        (("GET / HTTP/1.1", "Host: a", "Host: b"), 400),
        (("GET / HTTP/1.1", "Bad Name: x"), 400),
        (("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 2"), 400),
        (("POST / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 1"), 400),
        (("POST / HTTP/1.1", "Content-Length: -1"), 400),
        (("POST / HTTP/1.1", "Content-Length: 1e3"), 400),
        (("POST / HTTP/1.1", "Content-Length: " + "9" * 30), 400),
        (("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"), 501),
        (("POST / HTTP/1.1", "Transfer-Encoding: chunked, gzip"), 400),
        (("CONNECT h:1 HTTP/1.1",), 405),
        (("GET / HTTP/1.1", *(f"X-{n}: 1" for n in range(300))), 431),
    ],
)
def test_what_is_refused(lines, status):
    with pytest.raises(BadHead) as refused:
        read(*lines)
    assert refused.value.status == status


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_parse_or_be_refused(data):
    with contextlib.suppress(BadHead):
        HeadReader(Handler()).read(data + b"\r\n\r\n")
