"""The closed loop that both kinds of connection obey: each slot sends its next request when it has its answer.

Warm up, measure a whole number of batches, let what is under way finish. Loop-confined.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench.arithmetic import whole_batches


@dataclass(frozen=True)
class Window:
    """How long to warm up and to measure; a window holds a multiple of `multiple` requests."""

    warm_s: float
    seconds: float
    multiple: int


@dataclass
class Answer:
    """The first and the last answer a slot got, to be decoded when the clock has stopped."""

    first: tuple[bytes, bytes] | None = None
    last: tuple[bytes, bytes] = (b"", b"")


@dataclass
class Loop:
    """Counts answers and tells when it is over.

    Args: exact: an answer must be the same bytes as the slot's first; otherwise of the same length, when `fixed`.
    """

    window: Window
    slots: int
    cpu_s: Callable[[], float]
    exact: bool
    fixed: bool
    finished: asyncio.Future[None]
    latencies_ns: array[int] = field(default_factory=lambda: array("q"))
    answers: list[Answer] = field(default_factory=list)
    requests: int = 0
    answers_in_all: int = 0
    wall_ns: int = 0
    server_cpu_s: float = 0.0
    own_cpu_s: float = 0.0

    def __post_init__(self) -> None:
        self.answers = [Answer() for _ in range(self.slots)]
        self._begun_ns = time.perf_counter_ns()
        self._warm = 0
        self._measuring = False
        self._over = False
        self._open = self.slots
        self._from_ns = 0

    def answered(self, slot: int, sent_ns: int, head: bytes, body: bytes) -> bool:
        """Slot `slot` has its answer. Returns: whether it shall send again."""
        now_ns = time.perf_counter_ns()
        self.answers_in_all += 1
        answer = self.answers[slot]
        if answer.first is None:
            answer.first = (head, body)
        elif self.fixed and len(body) != len(answer.first[1]):
            self.fail(ValueError(f"an answer of {len(body)} bytes, the first one had {len(answer.first[1])}"))
        elif self.exact and body != answer.first[1]:
            self.fail(ValueError(f"the same request got another answer than at first: {body[:200]!r}"))
        if self._measuring:
            self.latencies_ns.append(now_ns - sent_ns)
            if len(self.latencies_ns) == self.requests:
                self._stop(now_ns)
        elif not self._over:
            self._warm += 1
            elapsed_s = (now_ns - self._begun_ns) / 1e9
            # The first round alone says nothing about the rate: connections are being opened.
            if elapsed_s >= self.window.warm_s and self._warm >= 2 * self.slots:
                self._start(now_ns, self._warm / elapsed_s)
        if not self._over:
            return True
        answer.last = (head, body)
        self._open -= 1
        if not self._open and not self.finished.done():
            self.finished.set_result(None)
        return False

    def fail(self, error: Exception) -> None:
        """End with `error`; the first one counts."""
        if not self.finished.done():
            self.finished.set_exception(error)

    def _start(self, now_ns: int, rate_per_s: float) -> None:
        self.requests = whole_batches(rate_per_s, self.window.seconds, self.window.multiple)
        self._measuring = True
        self.server_cpu_s = -self.cpu_s()
        self.own_cpu_s = -time.process_time()
        self._from_ns = now_ns

    def _stop(self, now_ns: int) -> None:
        self.wall_ns = now_ns - self._from_ns
        self.own_cpu_s += time.process_time()
        self.server_cpu_s += self.cpu_s()
        self._measuring, self._over = False, True
