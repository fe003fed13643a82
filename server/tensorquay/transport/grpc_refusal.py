"""Requests that are no gRPC calls: answered when they have come in whole, unlike refused calls.

gRPC clients take an answer at any time. Programs that came to the wrong port (curl, probes, browsers) often do not:
some of them lose an answer that overtakes their request. What they send is thrown away, and not much of it is waited
for.
"""

from __future__ import annotations

from tensorquay.core.errors import ServingError
from tensorquay.transport.grpc_call import Call

_PATIENCE_BYTES = 64 * 1024


class Sink:
    """Takes the place of the inbox of such a request."""

    __slots__ = ("_call", "_taken")

    unfinished = False

    def __init__(self, call: Call) -> None:
        self._call = call
        self._taken = 0

    def feed(self, data: bytes | memoryview, start: int, stop: int) -> int:  # noqa: ARG002  as an inbox
        """Throw away, and give up waiting when it is too much."""
        self._taken += stop - start
        if self._taken > _PATIENCE_BYTES:
            self._call.refuse()
        return stop

    def direct(self) -> memoryview | None:
        """There is no place for it."""
        return None

    def filled(self, count: int) -> None:
        """Never: see `direct`."""

    def waits(self, now_ns: int) -> int:  # noqa: ARG002  as an inbox
        """It may take its time."""
        return 0

    def close(self) -> None:
        """Nothing was kept."""


class HttpRefused:
    """The route of such requests."""

    streaming = True

    def start(self, call: Call, message: bytes | memoryview) -> None:
        """Never: it is no unary call."""

    def opened(self, call: Call) -> None:
        """Nothing to prepare."""

    def message(self, call: Call, message: bytes | memoryview) -> None:
        """Never: its data goes down the sink."""

    def half_closed(self, call: Call) -> None:
        """The request is complete: answer it."""
        call.refuse()

    def drained(self, call: Call) -> None:
        """Nobody waits for it."""

    def gone(self, call: Call) -> None:
        """Nothing goes on."""

    def refused(self, call: Call, error: ServingError) -> None:
        """It is no call: nobody counts it."""
