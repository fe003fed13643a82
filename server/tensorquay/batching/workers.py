"""Threads that run batches: one per slot, fed by a queue, waking the loop once per batch.

A plain thread and a SimpleQueue cost half of an executor's future per batch (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeAlias

Job: TypeAlias = tuple[Callable[[], Any], Callable[[Any], None]]


class Worker:
    """A daemon thread that runs jobs in order. Started on the first job; `stop` lets it finish what it has."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._name = name
        self._loop = loop
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run `work` in the thread, then `done(result)` on the loop. `work` must not raise."""
        if self._thread is None:
            # Daemon: a native call that never returns must not keep a process alive that was told to end.
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put((work, done))

    def stop(self) -> threading.Thread | None:
        """Let the thread end after its last job; returns it for whoever wants to wait."""
        self._jobs.put(None)
        return self._thread

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            result = work()
            try:
                self._loop.call_soon_threadsafe(done, result)
            except RuntimeError:
                # The loop is closed: the process is ending and nobody waits for this batch any more.
                return
            del job, work, done, result  # an idle worker must not hold the last batch's tensors
