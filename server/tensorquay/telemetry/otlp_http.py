"""Sends encoded spans to a collector: OTLP over HTTP, one request at a time, on one kept connection.

Blocking; called in the exporter's thread. Whatever the collector does is bounded: each request has an end in time, and
of an answer only so much is read as an answer has. Source: OTLP 1.x, "OTLP/HTTP".
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from tensorquay.config.otel import Collector

_MAX_ANSWER_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 4096
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_LONGEST_PAUSE_S: Final = 300.0
_GZIP_WINDOW: Final = 31


class NotSent(Exception):
    """A request was not taken.

    Args:
        text: why, for the log. lasting: whether sending the same again cannot help.
        pause_s: how long the collector wants to be left alone, 0 when it does not say.
    """

    def __init__(self, text: str, *, lasting: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(text)
        self.lasting = lasting
        self.pause_s = pause_s


class OtlpSender:
    """See the module. Owner: the exporter's thread.

    Args: agent: the User-Agent.
    Raises: OSError, ssl.SSLError for certificates that cannot be read.
    """

    def __init__(self, collector: Collector, *, agent: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(collector.url)
        assert parts.hostname is not None
        self._collector = collector
        self._host, self._port = parts.hostname, parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._tls = _context(collector) if parts.scheme == "https" else None
        self._clock_s = clock_s
        self._headers = {"Content-Type": "application/x-protobuf", "User-Agent": agent, **collector.headers}
        if collector.gzip:
            self._headers["Content-Encoding"] = "gzip"
        self._connection: http.client.HTTPConnection | None = None
        self.shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
        """The collector, for the log: without a query, which may hold a key."""

    def send(self, data: bytes, *, timeout_s: float = math.inf) -> None:
        """One request, within `timeout_s` and the collector's own bound.

        Raises: NotSent.
        """
        end_s = self._clock_s() + min(timeout_s, self._collector.timeout_s)
        if self._collector.gzip:
            packer = zlib.compressobj(wbits=_GZIP_WINDOW)
            data = packer.compress(data) + packer.flush()
        kept = self._connection is not None
        try:
            status, pause = self._exchange(data, end_s)
        except UnicodeError as error:
            self.close()
            raise NotSent("it has a name that cannot be looked up", lasting=True) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept or not isinstance(error, ConnectionError):
                raise NotSent(_in_words(error)) from error
            # A connection that was kept may have been closed meanwhile: that says nothing about the collector.
            try:
                status, pause = self._exchange(data, end_s)
            except (OSError, http.client.HTTPException) as second:
                self.close()
                raise NotSent(_in_words(second)) from second
        if not 200 <= status < 300:
            raise NotSent(f"it answers {status}", lasting=status not in _RETRYABLE, pause_s=pause)

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(self, data: bytes, end_s: float) -> tuple[int, float]:
        """Status of the answer, and the pause it asks for. Raises: OSError, HTTPException."""
        connection = self._connection
        if connection is None:
            if self._tls is None:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=self._left_s(end_s))
            else:
                connection = http.client.HTTPSConnection(
                    self._host, self._port, timeout=self._left_s(end_s), context=self._tls
                )
            connection.connect()
            self._connection = connection
        assert connection.sock is not None
        connection.sock.settimeout(self._left_s(end_s))
        # What stands in for the class is called like it.
        connection.response_class = partial(_Answer, partial(self._left_s, end_s))  # type: ignore[assignment]
        connection.request("POST", self._target, data, self._headers)
        answer = connection.getresponse()
        self._read(answer)
        return answer.status, _pause(answer.headers.get("Retry-After", ""))

    def _read(self, answer: http.client.HTTPResponse) -> None:
        """Take the answer's body, so that the connection can be used again; one too long ends it."""
        taken = 0
        while piece := answer.read1(_PIECE_BYTES):
            taken += len(piece)
            if taken > _MAX_ANSWER_BYTES:
                self.close()
                return
        # Also an answer without a body has to be closed before the connection takes another request.
        answer.close()
        if answer.will_close:
            self.close()

    def _left_s(self, end_s: float) -> float:
        left = end_s - self._clock_s()
        if left <= 0:
            raise TimeoutError
        return left


class _Answer(http.client.HTTPResponse):
    """An answer whose every read knows how much time is left: a socket's own time-out begins anew with each byte.

    Args: left_s: what is left; raises TimeoutError when nothing is.
    """

    def __init__(self, left_s: Callable[[], float], sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_TimedReader(self.fp.detach(), sock, left_s))


class _TimedReader(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, left_s: Callable[[], float]) -> None:
        self._raw = raw
        self._sock = sock
        self._left_s = left_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._left_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _context(collector: Collector) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if collector.certificate is None else str(collector.certificate))
    if collector.client_certificate is not None:
        context.load_cert_chain(collector.client_certificate, collector.client_key)
    return context


def _pause(text: str) -> float:
    """Seconds of a Retry-After header; dates, which no collector sends, are left out."""
    return min(float(text), _LONGEST_PAUSE_S) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0


def _in_words(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, http.client.HTTPException):
        return "what it answers is no HTTP"
    return error.strerror or str(error) or type(error).__name__
