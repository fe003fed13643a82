"""The head of an HTTP/1.1 request: parsed by llhttp, kept by its bytes.

Clients send the same head again and again, so parsing it is a look-up after the first time. Equal bytes parse equally;
nothing else is assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import httptools

from tensorquay.core.trace_context import RawContext, join_repeated, split_head
from tensorquay.transport.http_message import HotHandler, HotRoute

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of a request line and headers together."""

_MAX_HEADERS = 256
_CACHED_HEADS = 2048
_CACHED_HEAD_BYTES = 4096


class BadHead(Exception):
    """The bytes are no head of a request this server takes; `status` says which refusal it gets."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """What one head says. `content_length` is None for a chunked body.

    `lasting`: the answer to it has a body and says nothing about the connection, which stays open.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    http_version: str
    headers: tuple[tuple[bytes, bytes], ...]
    content_length: int | None
    keep_alive: bool
    expects_continue: bool
    route: HotRoute | None
    lasting: bool = False


class HeadReader:
    """Parses heads, or finds them. Loop-confined; owner: one server.

    Args: apart: whether a line that says the caller's span is taken out of a head for a hot route before it is looked
        up: it differs in every request.
    """

    def __init__(self, handler: HotHandler, *, apart: bool = True) -> None:
        self._handler = handler
        self._apart = apart
        self.known: dict[bytes, Head] = {}
        """Heads by their bytes."""

    def find(self, data: bytes) -> tuple[Head | None, RawContext | None]:
        """The head in `data`, when it is known but for the caller's span; and that."""
        parts = split_head(data) if self._apart else None
        return (None, None) if parts is None else (self.known.get(parts[0]), parts[1])

    def read(self, data: bytes) -> tuple[Head, RawContext | None]:
        """The head in `data`: exactly one, up to and including its empty line; and a caller's span taken out of it.

        Raises: BadHead.
        """
        found = self.known.get(data)
        if found is not None:
            return found, None
        parts = split_head(data) if self._apart else None
        if parts is not None:
            rest, context = parts
            found = self.known.get(rest) or self._parsed(rest)
            if found.route is not None:
                return found, context
            # The application sees every line.
        return self._parsed(data), None

    def _parsed(self, data: bytes) -> Head:
        head = self._parse(data)
        if len(data) <= _CACHED_HEAD_BYTES:
            if len(self.known) >= _CACHED_HEADS:
                # All at once: no bookkeeping per request, and a client that never repeats itself gains nothing anyway.
                self.known.clear()
            self.known[data] = head
        return head

    def _parse(self, data: bytes) -> Head:
        if not 0x41 <= data[0] <= 0x5A:
            # llhttp skips a line feed or a carriage return; whether it saw one must not depend on how bytes were cut.
            raise BadHead("malformed HTTP request")
        seen = _Callbacks()
        parser = httptools.HttpRequestParser(seen)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # An offer to speak something else may be left unanswered (RFC 9110 §7.8): read on as HTTP/1.1.
            pass
        except httptools.HttpParserError as error:
            raise BadHead("malformed HTTP request") from error
        if len(seen.headers) > _MAX_HEADERS:
            raise BadHead(f"more than {_MAX_HEADERS} headers", 431)
        if not seen.complete or parser.get_http_version() not in {"1.0", "1.1"}:
            raise BadHead("malformed HTTP request")
        method = parser.get_method().decode("ascii")
        if method == "CONNECT":
            raise BadHead("CONNECT is not supported: this is no proxy", 405)
        version = parser.get_http_version()
        raw_path, query = _target(seen.url)
        headers = tuple(seen.headers)
        names = dict(headers)
        join_repeated(names, headers)
        _check_single(headers)
        path = raw_path.decode("latin-1")
        keep_alive = _keeps_alive(version, names)
        return Head(
            method=method,
            path=unquote(path) if "%" in path else path,
            raw_path=raw_path,
            query=query,
            http_version=version,
            headers=headers,
            content_length=_content_length(names),
            keep_alive=keep_alive,
            expects_continue=names.get(b"expect", b"").lower() == b"100-continue" and version != "1.0",
            route=self._handler.route(method, path, names),
            lasting=keep_alive and version == "1.1" and method != "HEAD",
        )


class _Callbacks:
    """What llhttp tells about one head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.complete = True


def _target(url: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target, in origin form or absolute form."""
    if not url.startswith(b"/"):
        if url == b"*":
            return b"*", b""
        try:
            parsed = httptools.parse_url(url)
        except httptools.HttpParserInvalidURLError as error:
            raise BadHead("malformed request target") from error
        return parsed.path or b"/", parsed.query or b""
    path, _, query = url.partition(b"?")
    return path, query


def _check_single(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1:
        raise BadHead("more than one Host header")


def _content_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Bytes of the body; None when it is chunked. llhttp has refused both together, and repeated lengths."""
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if coding.strip().lower() != b"chunked":
            raise BadHead("only the transfer coding 'chunked' is supported", 501)
        return None
    declared = headers.get(b"content-length", b"0").strip()
    if not declared.isdigit() or len(declared) > 18:
        raise BadHead("Content-Length is no number")
    return int(declared)


def _keeps_alive(version: str, headers: Mapping[bytes, bytes]) -> bool:
    said = {token.strip().lower() for token in headers.get(b"connection", b"").split(b",")}
    if b"close" in said:
        return False
    return version == "1.1" or b"keep-alive" in said
