"""Wait for a condition of another process, with a deadline instead of a sleep's guess."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 30.0


def until(ask: Callable[[], T | None], what: str, deadline_s: float = DEADLINE_S) -> T:
    """The first true value that `ask` gives. Fails, naming `what`, when none came in time."""
    pause = threading.Event()
    end = time.monotonic() + deadline_s
    while True:
        got = ask()
        if got:
            return got
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        pause.wait(0.01)
