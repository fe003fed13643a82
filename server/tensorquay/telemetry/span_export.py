"""What was recorded, on its way to a collector: a bounded queue, and the thread that empties it.

The event loop only appends to the queue. What does not fit is dropped and counted; a collector that is
absent, slow or talks nonsense is told once, and once when it is well again, and costs nobody but its traces.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from tensorquay.core.request_trace import RequestTrace
from tensorquay.telemetry.otlp_encode import SpanEncoder, span_count
from tensorquay.telemetry.otlp_http import NotSent

_log = logging.getLogger("tensorquay.tracing")

CLOSE_TIMEOUT_S: Final = 1.0
"""How long the server's end waits for the last spans."""

_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_STEP: Final = 64
_NEVER: Final = float("inf")


class Sends(Protocol):
    """Takes encoded spans to the collector; `OtlpSender`."""

    shown: str

    def send(self, data: bytes, *, timeout_s: float = ...) -> None:
        """One request. Raises: NotSent."""

    def close(self) -> None:
        """Let go of the connection."""


class SpanExporter:
    """See the module. `put` and `close` are called on the event loop, all else is the thread's.

    `put` finds nothing of its code in the processor's caches, so there is little of it, and rarely a lock: the loop
    counts what comes, the thread what goes. The thread says at how many waiting spans it is to be woken before it looks
    how many there are, `put` counts before it looks what the thread has said: one of the two sees the other.

    Args:
        queue_spans: most spans that wait, those being sent included; a request's own spans stay together, and always
            fit when nothing waits.
        batch_spans: most in one request to the collector; so that they stay together, a few more.
        delay_s: longest wait before they are sent.
    Attributes:
        dropped, sent: spans, so far.
    Raises: RuntimeError when there can be no thread.
    """

    def __init__(
        self,
        sender: Sends,
        encoder: SpanEncoder,
        *,
        queue_spans: int,
        batch_spans: int,
        delay_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender = sender
        self._encoder = encoder
        self._queue_spans = queue_spans
        self._batch_spans = batch_spans
        self._delay_s = delay_s
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._queue: deque[tuple[int, RequestTrace]] = deque()
        self._came = self._went = 0
        self._wakes_at: float = 1
        self._closing_s: float | None = None
        self._failing = False
        self._lost = 0
        self.dropped = 0
        self.sent = 0
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def put(self, trace: RequestTrace) -> None:
        """Let its spans be sent, if there is room."""
        count = span_count(trace)
        before = self._came - self._went
        if (before and before + count > self._queue_spans) or self._closing_s is not None:
            with self._changed:
                self._drop(count, "they come faster than they can be sent")
            return
        self._queue.append((count, trace))
        self._came += count
        if self._came - self._went >= self._wakes_at:
            with self._changed:
                self._wakes_at = _NEVER
                self._changed.notify()

    def close(self) -> None:
        """Send what waits, within about a second; what is not sent then is lost."""
        with self._changed:
            self._closing_s = self._clock_s() + CLOSE_TIMEOUT_S
            self._changed.notify()
        self._thread.join(CLOSE_TIMEOUT_S)
        with self._changed:
            if left := self._came - self._went:
                _log.warning("%d spans were not sent before the end", left, extra={"event": "spans_lost"})

    # -- the thread

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            count = sum(count for count, _ in batch)
            try:
                taken = self._deliver(self._encoded(batch))
            except Exception:  # noqa: BLE001  told, whatever it is
                # A bug of ours may cost these spans, and not all that are still to come.
                _log.exception("%d spans could not be sent", count, extra={"event": "spans_failed"})
                taken = False
            with self._changed:
                if taken is None:
                    return
                self._went += count
                if taken:
                    self.sent += count
                else:
                    self._drop(count, "the collector does not take them")
        self._sender.close()

    def _encoded(self, batch: list[tuple[int, RequestTrace]]) -> bytes:
        """A request of their spans.

        Not made on the loop: one span in a while finds nothing of its code in the processor's caches, many do. Requests
        get a turn in between, but not after each: to hand over the interpreter's lock costs as much as a few spans.
        """
        made: list[bytes] = []
        for number, (_, trace) in enumerate(batch, 1):
            made.append(self._encoder.spans(trace))
            if number % _STEP == 0:
                select.select((), (), (), 0)
        return self._encoder.request(made)

    def _next(self) -> list[tuple[int, RequestTrace]] | None:
        """What is sent next, when it is time; None when nothing is and the server ends."""
        with self._changed:
            self._sleep(1, _NEVER)
            if not self._queue:
                return None
            self._sleep(self._batch_spans, self._clock_s() + self._delay_s)
            self._wakes_at = _NEVER
        batch: list[tuple[int, RequestTrace]] = []
        spans = 0
        while self._queue and spans < self._batch_spans:
            batch.append(self._queue.popleft())
            spans += batch[-1][0]
        return batch

    def _sleep(self, spans: int, end_s: float) -> None:
        """With the lock held: until so many wait, it is `end_s`, or the server ends."""
        while self._closing_s is None:
            self._wakes_at = spans
            if self._came - self._went >= spans:
                return
            left_s = end_s - self._clock_s()
            if left_s <= 0:
                return
            self._changed.wait(None if left_s == _NEVER else left_s)

    def _deliver(self, data: bytes) -> bool | None:
        """Send `data`, again and again while that may help. False: it is refused for good. None: the server ends."""
        pause_s = _FIRST_PAUSE_S
        while True:
            left_s = self._left_s()
            if left_s <= 0:
                return None
            try:
                self._sender.send(data, timeout_s=left_s)
            except NotSent as error:
                self._fails(error)
                if error.lasting:
                    return False
                if not self._rest(max(pause_s, error.pause_s)):
                    return None
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self._works()
                return True

    def _left_s(self) -> float:
        return float("inf") if self._closing_s is None else self._closing_s - self._clock_s()

    def _rest(self, pause_s: float) -> bool:
        """Wait before the next try. False when the server ends: it had its last try."""
        end_s = self._clock_s() + pause_s
        with self._changed:
            while self._closing_s is None:
                left_s = end_s - self._clock_s()
                if left_s <= 0:
                    return True
                self._changed.wait(left_s)
        return False

    def _fails(self, error: NotSent) -> None:
        if not self._failing:
            self._failing = True
            with self._changed:
                self._lost = self.dropped
            _log.warning(
                "spans cannot be sent to %s: %s; %s (told once)",
                self._sender.shown,
                error,
                "they are dropped" if error.lasting else f"{self._queue_spans} are kept, more are dropped",
                extra={"event": "collector_lost"},
            )

    def _works(self) -> None:
        if self._failing:
            self._failing = False
            with self._changed:
                lost = self.dropped - self._lost
            _log.info(
                "spans are sent to %s again; %d were dropped",
                self._sender.shown,
                lost,
                extra={"event": "collector_back"},
            )

    def _drop(self, count: int, why: str) -> None:
        """With the lock held."""
        if self.dropped == 0 and not self._failing:
            _log.warning("spans are dropped: %s (told once; they are counted)", why, extra={"event": "spans_dropped"})
        self.dropped += count
