"""What front ends need to get a prediction: the engine itself, or what stands for it in another process.

Only the calls that a hot route makes are here. Everything else is asked of the engine, wherever that is.
"""

from __future__ import annotations

from typing import Protocol

from tensorquay.core.clock import Clock
from tensorquay.core.errors import ErrorKind
from tensorquay.core.messages import InferRequest, Reply
from tensorquay.core.request_trace import RequestTrace
from tensorquay.core.signature import Signature


class Ticket(Protocol):
    """An accepted request, for whoever may have to cancel it."""

    def cancel(self) -> None:
        """The client left. The reply is called with a Cancelled error unless it was called already."""
        ...


class Regions(Protocol):
    """Shared memory that clients have registered. Offsets and sizes are in bytes and never negative."""

    @property
    def enabled(self) -> bool:
        """False: every use of shared memory is refused, nothing else may be called."""
        ...

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """The bytes at `offset` of region `name`.

        Raises: ServingError for an unknown region or a range outside it.
        """
        ...

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        """Put `data` at `offset` of region `name`.

        Raises: ServingError for an unknown region or a range outside it.
        """
        ...


class Predictor(Protocol):
    """Serves predictions, by callback, on one event loop."""

    @property
    def clock(self) -> Clock:
        """The clock that deadlines are absolute on."""
        ...

    @property
    def regions(self) -> Regions:
        """Registered shared memory."""
        ...

    def infer(self, request: InferRequest, reply: Reply, trace: RequestTrace | None = None) -> Ticket:
        """Accept `request`; `reply` is called exactly once, later, on the loop.

        Args: trace: of a sampled request; it is told what happens to it, and ended by whoever began it.
        Raises: ServingError when it is refused; `reply` is then never called.
        """
        ...

    def refused(self, kind: ErrorKind) -> None:
        """Count an inference request that was answered with an error of `kind` before it was asked of `infer`."""
        ...

    def signature(self, name: str, version: str) -> Signature:
        """What a version takes and gives: raw binary requests cannot be read without it.

        Raises: ServingError.
        """
        ...
