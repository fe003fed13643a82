"""HTTP requests that are not hot, from a front end to the owner's ASGI application and back, streaming both ways.

One connected pair of Unix sockets per request, whose other end is handed to the owner over the front end's channel: no
path in a file system, nothing to clean up. It carries the events of the ASGI interface, not HTTP, so nothing is parsed
twice, the application sees the client's own address, and a client that leaves is the end of the connection.

    frame  kind:u8 size:u32 and so many bytes: a JSON document, or a piece of a body
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
from typing import Any, Final

from tensorquay.core.errors import Overloaded, ServingError, Unavailable
from tensorquay.transport.asgi_exchange import AsgiApp
from tensorquay.transport.http_message import error_reply

_log = logging.getLogger("tensorquay.http")

_HEAD = struct.Struct("<BI")
_REQUEST: Final = 1
_BODY: Final = 2
_LAST: Final = 3
"""The last piece of a body, perhaps empty."""
_START: Final = 4

_TEXTS = ("type", "http_version", "method", "scheme", "path", "root_path")
_LATIN = ("raw_path", "query_string")


class ControlProxy:
    """The ASGI application of a front end. Loop-confined.

    Args: channel: of `make_channel`, not blocking; kept open.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self._channel, [b"\0"], [theirs.fileno()])
        except BlockingIOError:
            ours.close()
            await _refuse(send, Overloaded("server overloaded: too many control requests wait; retry after a pause"))
            return
        except OSError:
            ours.close()
            await _refuse(send, _stopped())
            return
        finally:
            theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            _write(writer, _REQUEST, _scope_document(scope))
            uploading = asyncio.ensure_future(_upload(receive, writer))
            try:
                await _download(reader, send)
            finally:
                uploading.cancel()
                await asyncio.gather(uploading, return_exceptions=True)
        finally:
            writer.close()


async def _upload(receive: Any, writer: asyncio.StreamWriter) -> None:
    """Send the body on, then wait for the client to leave."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            writer.close()
            return
        _write(writer, _BODY if message.get("more_body", False) else _LAST, message.get("body", b""))
        with contextlib.suppress(ConnectionError):
            # Who has answered early does not read to the end; the answer is what counts.
            await writer.drain()


async def _download(reader: asyncio.StreamReader, send: Any) -> None:
    """Pass the answer on. An owner that ends in the middle ends the client's connection too."""
    started = False
    while True:
        frame = await _read(reader)
        if frame is None:
            if not started:
                await _refuse(send, _stopped())
            return
        kind, data = frame
        if kind == _START:
            said = json.loads(data)
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said["headers"]]
            await send({"type": "http.response.start", "status": said["status"], "headers": headers})
            started = True
        else:
            await send({"type": "http.response.body", "body": data, "more_body": kind == _BODY})
            if kind == _LAST:
                return


async def _refuse(send: Any, error: ServingError) -> None:
    reply = error_reply(error)
    headers = [(b"content-type", reply.content_type), (b"content-length", b"%d" % reply.length), *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(reply.parts)})


def _stopped() -> ServingError:
    return Unavailable("the server stopped before this request was served")


def make_channel() -> tuple[socket.socket, socket.socket]:
    """The owner's and the front end's end of a channel, not blocking.

    Raises: OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setblocking(False)
    return ours, theirs


class ControlListener:
    """The owner's side of one front end: runs `app` for every request. Loop-confined; owner: the supervisor.

    Args: channel: closed by `stop`.
    """

    def __init__(self, app: AsgiApp, channel: socket.socket) -> None:
        self._app = app
        self._channel = channel
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel, self._arrived)

    async def stop(self) -> None:
        """The front end is gone: take no more requests, end those under way."""
        self._loop.remove_reader(self._channel)
        self._channel.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _arrived(self) -> None:
        try:
            _, descriptors, _, _ = socket.recv_fds(self._channel, 1, 1)
        except BlockingIOError:
            return
        except OSError as error:
            # Most of all: no descriptor is free. The request's end was closed with the message; its client hears that.
            _log.error("a control request cannot be taken: %s", error.strerror or error)
            return
        if not descriptors:
            self._loop.remove_reader(self._channel)  # the front end has ended
            return
        for descriptor in descriptors:
            task = self._loop.create_task(self._connected(descriptor), name="control-request")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connected(self, descriptor: int) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=descriptor))
        await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            frame = await _read(reader)
            if frame is None:
                return  # its client left at once
            exchange = _Exchange(reader, writer)
            await self._app(_scope_of(frame[1]), exchange.receive, exchange.send)
        except ConnectionError:
            return  # the client has left, or its front end
        except Exception:  # noqa: BLE001  whatever a route raises after its answer began costs this request only
            _log.exception("the application failed")
        finally:
            writer.close()


class _Exchange:
    """`receive` and `send` of one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> dict[str, Any]:
        frame = await _read(self._reader)
        if frame is None:
            return {"type": "http.disconnect"}
        kind, data = frame
        return {"type": "http.request", "body": data, "more_body": kind == _BODY}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            said = {"status": message["status"], "headers": headers}
            _write(self._writer, _START, json.dumps(said).encode("ascii"))
            return
        more = message.get("more_body", False)
        _write(self._writer, _BODY if more else _LAST, message.get("body", b""))
        await self._writer.drain()


def _write(writer: asyncio.StreamWriter, kind: int, data: bytes) -> None:
    writer.write(_HEAD.pack(kind, len(data)) + data)


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes] | None:
    """The next frame, None at the end."""
    try:
        kind, size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        return kind, await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _scope_document(scope: Any) -> bytes:
    said: dict[str, Any] = {name: scope[name] for name in _TEXTS}
    said |= {name: scope[name].decode("latin-1") for name in _LATIN}
    said["headers"] = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    said["client"], said["server"] = scope["client"], scope["server"]
    return json.dumps(said).encode("ascii")


def _scope_of(data: bytes) -> dict[str, Any]:
    said = json.loads(data)
    scope: dict[str, Any] = {name: said[name] for name in _TEXTS}
    scope |= {name: said[name].encode("latin-1") for name in _LATIN}
    scope["headers"] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said["headers"]]
    scope["asgi"] = {"version": "3.0", "spec_version": "2.3"}
    for name in ("client", "server"):
        scope[name] = None if said[name] is None else tuple(said[name])
    return scope
