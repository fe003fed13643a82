"""The access log of our own HTTP/1.1: which moment of a connection ends which request."""

from __future__ import annotations

from collections.abc import Iterable

from tensorquay.transport.access_log import LEFT, AccessLog
from tensorquay.transport.asgi_exchange import AsgiExchange
from tensorquay.transport.h1_head import Head
from tensorquay.transport.h1_slot import Slot


class H1Access(AccessLog):
    """See the module. Loop-confined; owner: the server."""

    def answered(self, slot: Slot, peer: object) -> None:
        """A hot request, or a refusal, has been given its place in the connection's output."""
        reply, head = slot.reply, slot.head
        assert reply is not None
        answer_bytes = 0 if head.method == "HEAD" else reply.length
        self._of_slot(slot, reply.status, peer, answer_bytes)

    def exchanged(self, exchange: AsgiExchange, peer: object) -> None:
        """The application is done with a request, whether its client took the answer or left."""
        head = exchange.head
        self.http(
            head.method,
            head.raw_path.decode("latin-1"),
            exchange.status or LEFT,
            begun_ns=exchange.begun_ns,
            peer=peer,
            sizes=(exchange.request_bytes, exchange.answer_bytes),
        )

    def left(self, slots: Iterable[Slot], receiving: Head | None, received: int, begun_ns: int, peer: object) -> None:
        """The client has left.

        Args:
            slots: requests whose answers it did not get.
            receiving: the request, begun at `begun_ns`, of whose body it had sent `received` bytes and not all.
        """
        for slot in slots:
            self._of_slot(slot, LEFT, peer, 0)
        if receiving is not None:
            path = receiving.raw_path.decode("latin-1")
            self.http(receiving.method, path, LEFT, begun_ns=begun_ns, peer=peer, sizes=(received, 0))

    def _of_slot(self, slot: Slot, status: int, peer: object, answer_bytes: int) -> None:
        head = slot.head
        self.http(
            head.method,
            head.raw_path.decode("latin-1"),
            status,
            begun_ns=slot.arrival_ns,
            peer=peer,
            sizes=(slot.request_bytes, answer_bytes),
            facts=None if slot.reply is None else slot.reply.facts,
        )
