"""Large bodies are compressed and decompressed beside the event loop: a small body can stand for tens of megabytes.

One thread, so no client gets more of the machine by sending more; it ends when nothing is left to do. Whoever waits is
told on the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from tensorquay.batching.workers import Worker
from tensorquay.core.errors import Overloaded

COMPRESS_BESIDE_BYTES = 64 * 1024
DECOMPRESS_BESIDE_BYTES = 4096
"""From here on the event loop does not wait for it. What is received can be a thousandth of what comes out."""

MAX_WAITING_BYTES = 256 * 2**20
"""Most bytes of bodies waiting at once; a single one may be larger."""

T = TypeVar("T")


class CodingThread:
    """Loop-confined; owner: one server, or one handler."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._waiting = 0
        self._waiting_bytes = 0

    def run(self, work: Callable[[], T], done: Callable[[T | Exception], None], *, size: int) -> None:
        """Do `work` on a body of `size` bytes beside the loop, then call `done` on it with what it returned or raised.

        Raises: Overloaded.
        """
        if self._waiting and self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise Overloaded(
                f"server overloaded: {self._waiting_bytes} bytes wait to be compressed or decompressed, at most "
                f"{MAX_WAITING_BYTES} may; retry after a pause",
                facts={"limit": MAX_WAITING_BYTES},
                retry_after_s=1.0,
            )
        self._waiting += 1
        self._waiting_bytes += size
        if self._worker is None:
            self._worker = Worker("tq-coding", asyncio.get_running_loop())
        self._worker.submit(partial(outcome_of, work), partial(self._done, done, size))

    def _done(self, done: Callable[[T | Exception], None], size: int, outcome: T | Exception) -> None:
        self._waiting -= 1
        self._waiting_bytes -= size
        if not self._waiting and self._worker is not None:
            self._worker.stop()
            self._worker = None
        done(outcome)


def outcome_of(work: Callable[[], T]) -> T | Exception:
    """What `work` returns or raises."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001  handed on, whatever it is
        return error
