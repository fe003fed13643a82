"""A sampled request's trace, of which each process knows a half: the door here, what became of it in the owner.

The front end decides, tells the client, and notes how it ended; the owner notes what it rode in, and sends the spans.
A request that is handed over brings the ids of its trace; when it is answered, its front end sends the rest in a SPAN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tensorquay.core.request_trace import Entrance, RequestTrace
from tensorquay.frontends.records import BrokenLink

IDS_BYTES: Final = 32

NEVER_SENT: Final = -1
"""In the place of a call: the request was refused before the owner heard of it."""

MAX_OPEN: Final = 65_536
"""Traces of one front end that the owner keeps for their second half."""

_TEXTS: Final = ("state", "model", "version", "version_asked", "request_id", "error")
_NUMBERS: Final = ("arrival_ns", "ended_ns", "status")


def ids_of(trace: RequestTrace) -> bytes:
    """What travels with a request, `IDS_BYTES` long: its ids, and how it came."""
    return trace.trace_id + trace.span_id + bytes((trace.entrance, 0, 0, 0, 0, 0, 0, 0))


def opened(ids: bytes, arrival_ns: int, ended: Callable[[RequestTrace], None]) -> RequestTrace:
    """The owner's half of the trace whose ids these are. Raises: ValueError, IndexError when they are none."""
    return RequestTrace(ended, Entrance(ids[24]), arrival_ns, ids[:16], ids[16:24])


def document_of(trace: RequestTrace) -> object:
    """The front end's half, when it has ended."""
    own = [getattr(trace, name) for name in (*_TEXTS, *_NUMBERS)]
    return [trace.call, ids_of(trace).hex(), trace.parent_id.hex(), own]


class OpenTraces:
    """The owner's halves that wait for the front end's. Loop-confined; owner: the owner's end of a link.

    Args: ended: takes whole traces.
    """

    def __init__(self, ended: Callable[[RequestTrace], None]) -> None:
        self._ended = ended
        self._open: dict[int, RequestTrace] = {}

    def open(self, call: int, ids: bytes, arrival_ns: int) -> RequestTrace:
        """The half of the request with number `call`."""
        if len(self._open) >= MAX_OPEN:
            self._open.clear()  # no request can have waited for so many others
        trace = self._open[call] = opened(ids, arrival_ns, self._ended)
        return trace

    def lose(self, now_ns: int) -> None:
        """The front end is gone: what is known of its requests is told, and of the runs they tell about."""
        traces, self._open = self._open, {}
        for trace in traces.values():
            trace.end(now_ns, error="cancelled")

    def close(self, document: Any) -> None:
        """The other half came.

        Raises: BrokenLink.
        """
        try:
            call, ids, parent, own = document
            trace = self._open.pop(call, None) or opened(bytes.fromhex(ids), 0, self._ended)
            if ids_of(trace).hex() != ids:
                raise BrokenLink("the halves of a trace are of different ones")
            trace.parent_id = bytes.fromhex(parent)
            said = dict(zip((*_TEXTS, *_NUMBERS), own, strict=True))
            # The owner knows which version served it.
            served = trace.version
            for name, value in said.items():
                setattr(trace, name, value)
            trace.version = served or trace.version
            trace.end(int(said["ended_ns"]), error=trace.error, status=trace.status)
        except (TypeError, ValueError, IndexError) as error:
            raise BrokenLink(f"a span makes no sense: {error}") from error
