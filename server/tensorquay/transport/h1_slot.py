"""What an HTTP/1.1 connection is doing, and the places of its requests' answers."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from tensorquay.transport.h1_head import Head
from tensorquay.transport.http_message import Cancellable, HttpReply

if TYPE_CHECKING:
    from tensorquay.transport.h1 import H1Connection


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
    """The place of one request's answer among its connection's."""

    __slots__ = ("arrival_ns", "connection", "head", "reply", "ticket")

    def __init__(self, connection: H1Connection, head: Head, arrival_ns: int) -> None:
        self.connection = connection
        self.head = head
        self.arrival_ns = arrival_ns
        self.reply: HttpReply | None = None
        self.ticket: Cancellable | None = None

    def answer(self, reply: HttpReply) -> None:
        """Called once."""
        self.reply = reply
        self.connection.answered()
