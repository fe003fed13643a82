"""One request handed to the ASGI application: its body in as it arrives, its answer out as it is made.

Both ways have back-pressure: the connection stops reading while the application has not taken the body, and the
application waits while the client has not taken the answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from tensorquay.transport.h1_head import Head
from tensorquay.transport.http_message import STATUS_LINES

_log = logging.getLogger("tensorquay.http")

HIGH_WATER_BYTES = 256 * 1024
"""Body bytes kept for an application that does not take them; then the connection is not read."""

SLOWEST_S = 60.0
"""How long a client may take for one piece of a streamed answer."""


class ClientTooSlow(ConnectionError):
    """The client does not take the answer."""


AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]


class Carrier(Protocol):
    """What an exchange asks of its connection."""

    def write_raw(self, data: bytes) -> None:
        """Send `data` as it is."""
        ...

    async def writable(self) -> None:
        """Wait until the client takes more."""
        ...

    def body_taken(self) -> None:
        """The application has taken what was kept: reading may go on."""
        ...

    def exchange_done(self, *, keep_alive: bool) -> None:
        """The answer is complete, or will never be."""
        ...


class AsgiExchange:
    """Loop-confined; owner: its connection.

    Attributes:
        status: of the answer, 0 while there is none.
        request_bytes, answer_bytes: of the bodies, so far.
    """

    def __init__(
        self, app: AsgiApp, head: Head, carrier: Carrier, *, begun_ns: int, client: Any, server: Any, scheme: str
    ) -> None:
        self._app = app
        self.head = head
        self.begun_ns = begun_ns
        self.status = self.request_bytes = self.answer_bytes = 0
        self._carrier = carrier
        self._body: deque[bytes] = deque()
        self._kept = 0
        self._complete = False
        self._told = False
        self._gone = False
        self._news = asyncio.Event()
        self._started = False
        self._finished = False
        self._chunked = False
        self._keep_alive = head.keep_alive
        self._bodyless = head.method == "HEAD"
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.http_version,
            "method": head.method,
            "scheme": scheme,
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "root_path": "",
            "headers": list(head.headers),
            "client": client,
            "server": server,
        }
        self._task = asyncio.get_running_loop().create_task(self._run(), name="asgi-exchange")

    # -- the connection's side

    @property
    def full(self) -> bool:
        """Whether the application has more body than it takes."""
        return self._kept > HIGH_WATER_BYTES

    @property
    def body_complete(self) -> bool:
        """Whether the whole body has been fed."""
        return self._complete

    @property
    def unanswered(self) -> bool:
        """Whether no part of the answer has been given."""
        return not self._started

    def feed(self, data: bytes) -> None:
        """A piece of the body."""
        if not self._finished:
            self._body.append(data)
            self._kept += len(data)
            self.request_bytes += len(data)
            self._news.set()

    def end_body(self) -> None:
        """The body is complete."""
        self._complete = True
        self._news.set()

    def disconnect(self) -> None:
        """The client has left."""
        self._gone = True
        self._news.set()

    def cancel(self) -> None:
        """The server ends before the answer is made."""
        self._task.cancel()

    # -- the application's side

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
            if not self._finished and not self._gone:
                _log.error("the application ended without a complete answer to %s", self.head.method)
        except asyncio.CancelledError:
            pass  # only `cancel` does that, and the connection is closed below
        except ClientTooSlow as late:
            _log.info("%s, and was hung up on", late)
        except Exception:  # noqa: BLE001  whatever a route raises after its answer began costs this connection only
            _log.exception("the application failed")
        finally:
            if not self._finished:
                self._finish(keep_alive=False)

    async def _receive(self) -> dict[str, Any]:
        while True:
            if self._body:
                data = b"".join(self._body)
                self._body.clear()
                was_full, self._kept = self.full, 0
                if was_full:
                    self._carrier.body_taken()
                self._told = self._complete
                return {"type": "http.request", "body": data, "more_body": not self._complete}
            if self._gone or self._finished:
                return {"type": "http.disconnect"}
            if self._complete and not self._told:
                self._told = True
                return {"type": "http.request", "body": b"", "more_body": False}
            self._news.clear()
            await self._news.wait()

    async def _send(self, message: Any) -> None:
        if self._gone or self._finished:
            return
        if message["type"] == "http.response.start":
            self._start(message)
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if body and not self._bodyless:
            self.answer_bytes += len(body)
            self._carrier.write_raw(b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body)
        if not more:
            if self._chunked and not self._bodyless:
                self._carrier.write_raw(b"0\r\n\r\n")
            self._finish(keep_alive=self._keep_alive)
        elif body:
            try:
                async with asyncio.timeout(SLOWEST_S):
                    await self._carrier.writable()
            except TimeoutError:
                raise ClientTooSlow(f"the client did not take the answer within {SLOWEST_S:.0f} s") from None

    def _start(self, message: Any) -> None:
        if self._started:
            raise RuntimeError("the answer was started twice")
        self._started = True
        status = self.status = int(message["status"])
        lines = [STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
        framed = status in {204, 304}
        for name, value in message.get("headers", ()):
            lowered = name.lower()
            if b"\r" in value or b"\n" in value:
                raise RuntimeError("a header's value holds a line break")
            if lowered == b"connection":
                self._keep_alive = self._keep_alive and value.lower() != b"close"
                continue
            if lowered == b"transfer-encoding":
                continue
            framed = framed or lowered == b"content-length"
            lines.append(b"%b: %b\r\n" % (lowered, value))
        if not framed:
            if self.head.http_version == "1.0":
                self._keep_alive = False  # only the end of the connection can end this answer
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        if not self._keep_alive:
            lines.append(b"connection: close\r\n")
        elif self.head.http_version == "1.0":
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        self._carrier.write_raw(b"".join(lines))

    def _finish(self, *, keep_alive: bool) -> None:
        self._finished = True
        self._body.clear()
        self._news.set()
        # A body that was not read to its end leaves the connection in the middle of it.
        self._carrier.exchange_done(keep_alive=keep_alive and self._started)
