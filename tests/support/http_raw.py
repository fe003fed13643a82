"""HTTP as bytes on a socket, for what no well-behaved client would send."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from types import TracebackType

TIMEOUT_S = 30.0
"""Bounds a hang; decides nothing else."""


class Dropped(Exception):
    """The connection ended before an answer was complete: `reset` or by an orderly end, after `received` bytes."""

    def __init__(self, received: int, *, reset: bool) -> None:
        super().__init__(f"connection {'reset' if reset else 'closed'} after {received} bytes of an answer")
        self.received = received
        self.reset = reset


@dataclass(frozen=True)
class RawAnswer:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawConnection:
    """One TCP connection to "host:port"."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Write all of `data`; a server that already hung up is found out when its answer is read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def reset(self) -> None:
        """Go away without a word: the server sees a reset instead of an orderly end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()

    def answer(self) -> RawAnswer:
        """Read one answer.

        Raises: Dropped when the connection ends before it is complete.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split(" ")[1])
        if status == 100:
            return self.answer()
        if headers.get("transfer-encoding") == "chunked":
            return RawAnswer(status, headers, self._chunked())
        return RawAnswer(status, headers, self._exactly(int(headers.get("content-length", "0"))))

    def ends(self) -> bool:
        """Whether the server ends the connection with nothing more to say; waits for it."""
        try:
            self._more()
        except Dropped:
            return True
        return False

    def _chunked(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._buffer:
                self._more()
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            chunk = self._exactly(int(line, 16) + 2)
            if line.strip(b"0") == b"":
                return body
            body += chunk[:-2]

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _more(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            raise Dropped(len(self._buffer), reset=True) from None
        if not data:
            raise Dropped(len(self._buffer), reset=False)
        self._buffer += data


def request(
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> bytes:
    """A request's bytes; `length` is what Content-Length claims instead of the truth."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test"]
    if body or length is not None or method == "POST":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    lines.extend(f"{name}: {value}" for name, value in (headers or {}).items())
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def exchange(address: str, data: bytes) -> RawAnswer:
    """Send `data` on a connection of its own and read one answer.

    Raises: Dropped.
    """
    with RawConnection(address) as connection:
        connection.send(data)
        return connection.answer()
