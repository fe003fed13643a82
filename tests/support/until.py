"""Wait for something that happens elsewhere, bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0
"""Far beyond what anything here takes on a busy machine: it bounds a hang and decides nothing else."""

_PAUSE_S = 0.01


def until(happened: Callable[[], T], what: str, *, told: Callable[[], str] = str) -> T:
    """Ask `happened` until it answers something true, and return that.

    Args: what: for the failure's text. told: asked for more text when it never happens.
    """
    deadline_s = time.monotonic() + PATIENCE_S
    while not (answer := happened()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: never happened within {PATIENCE_S:.0f} s\n{told()}")
        time.sleep(_PAUSE_S)
    return answer
