"""Counts work that the server has done beside serving: imports and background optimisations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator


class JobCounters:
    """How many are under way, and how those ended that are not. Loop-confined; owner: the service that does them.

    Args: results: every way to end; all are told from the start, at zero.
    """

    def __init__(self, results: Iterable[str]) -> None:
        self.by_result = dict.fromkeys(results, 0)
        self.running = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Something is under way while this lasts."""
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1

    def ended(self, result: str) -> None:
        """One has ended so; it must be one of the results there are."""
        self.by_result[result] += 1
