"""What an HTTP/1.1 connection is doing, and the places of its requests' answers."""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import TYPE_CHECKING

from tensorquay.transport.h1_head import Head
from tensorquay.transport.http_message import Cancellable, HttpReply

if TYPE_CHECKING:
    from tensorquay.transport.h1 import H1Connection


MAX_PIPELINED = 128
"""Requests of one connection being served at once; what is sent beyond them is not read."""

JOIN_BELOW_BYTES = 128 * 1024
"""Answers shorter than this are joined for one write; longer ones are handed over in parts, without a copy."""


class Mode(enum.Enum):
    """How a connection takes what it receives."""

    HEAD = enum.auto()
    """Between requests, or within a head."""
    BODY = enum.auto()
    """Receiving a body of known length straight into its buffer."""
    CHUNKED = enum.auto()
    """Receiving a chunked body."""
    EXCHANGE = enum.auto()
    """The ASGI application has the connection; what follows the body waits."""
    DISCARD = enum.auto()
    """The last answer is given; what still comes is read and dropped, so that the client can read that answer."""


class Slot:
    """The place of one request's answer among its connection's. `request_bytes`: of its body, for the access log."""

    __slots__ = ("arrival_ns", "connection", "head", "reply", "request_bytes", "ticket")

    def __init__(self, connection: H1Connection, head: Head, arrival_ns: int, request_bytes: int = 0) -> None:
        self.connection = connection
        self.head = head
        self.arrival_ns = arrival_ns
        self.request_bytes = request_bytes
        self.reply: HttpReply | None = None
        self.ticket: Cancellable | None = None

    def answer(self, reply: HttpReply) -> None:
        """Called once."""
        self.reply = reply
        self.connection.answered()


_UNREAD = Head("", "", b"", b"", "1.1", (), 0, keep_alive=False, expects_continue=False, route=None)


def refused(asked: Head | None, status: int) -> Head:
    """What stands for the head of a request that is answered with `status` and not served; its connection ends then.

    The route it would have taken hears of it.
    With the method, because also a refusal of HEAD has no content (RFC 9110 §9.3.2), and what the access log tells.
    """
    if asked is not None and asked.route is not None:
        asked.route.refused(status)
    return _UNREAD if asked is None else replace(_UNREAD, method=asked.method, raw_path=asked.raw_path)
