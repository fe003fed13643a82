"""What of a gRPC call is compressed or decompressed beside the event loop, and what has to wait for it.

A compressed message of a megabyte can stand for a gigabyte: on the loop it would hold up every other client. Messages
keep their order, a call that ends meanwhile is left in peace, and its client sends no more than its window allows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from tensorquay.transport import grpc_wire

if TYPE_CHECKING:
    from tensorquay.transport.grpc_call import Call

Then: TypeAlias = "Callable[[Call, bytes | memoryview], None]"
"""Takes a message that is not compressed any more."""


class Packed:
    """The compressed message of a unary call that its client has not ended yet."""

    __slots__ = ("message",)

    def __init__(self, message: bytes | memoryview) -> None:
        self.message = message


class Beside:
    """See the module. Loop-confined; owner: its call, which makes one when there is such work.

    Attributes:
        held: the handler takes no more messages for now.
        unpacking: a message that came is being decompressed.
        packing: how many messages are being compressed.
        finishing: the call has succeeded, when these are sent.
    """

    __slots__ = ("_call", "finishing", "held", "packing", "unpacking")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.held = False
        self.unpacking = False
        self.packing = 0
        self.finishing = False

    def unpack(self, message: bytes | memoryview, then: Then) -> None:
        """Decompress `message`, then call `then` with it.

        Raises: ServingError when the call has no coding, or too much waits.
        """
        call = self._call
        coding = grpc_wire.coding_of(call.head.coding)
        work = partial(grpc_wire.unpack, message, coding, call.connection.max_message_bytes)
        call.connection.coding.run(work, partial(self._unpacked, then), size=len(message))
        self.unpacking = True

    def pack(self, message: bytes, coding: str) -> None:
        """Compress and send `message`.

        Raises: Overloaded when too much waits.
        """
        work = partial(grpc_wire.message_parts, message, coding)
        self._call.connection.coding.run(work, self._packed, size=len(message))
        self.packing += 1

    def _unpacked(self, then: Then, outcome: bytes | memoryview | Exception) -> None:
        self.unpacking = False
        call = self._call
        if call.closed:
            return
        if isinstance(outcome, Exception):
            call.connection.failed(call, outcome)
            return
        call.connection.guarded(call, then, call, outcome)
        if not (self.held or call.taking or call.closed):
            call.taking = True
            call.connection.feed_backlog(call)

    def _packed(self, outcome: tuple[bytes, bytes] | Exception) -> None:
        self.packing -= 1
        call = self._call
        if call.closed:
            return
        if isinstance(outcome, Exception):
            call.connection.failed(call, outcome)
            return
        call.connection.guarded(call, call.send_parts, *outcome)
        if self.finishing and not self.packing:
            call.finish()
