"""Why a version cannot be leased, in Triton's words (docs/protocol.md, "Errors"). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tensorquay.core.errors import NotFound, ServingError, Unavailable
from tensorquay.lifecycle.plan import Row
from tensorquay.lifecycle.state import State

_SHOWN_CHARACTERS = 1_000
"""Longest cause within an error's text: gRPC carries that text in a header, and clients bound those."""


def not_served(name: str, version: int | None, rows: Sequence[Row], *, known: bool) -> ServingError:
    """The answer to a request for `version` of `name` (None: the highest READY one), which is not in the catalogue.

    Args: rows: those of the model. known: whether any repository has a model of that name.
    Returns: NotFound for what does not exist or was unloaded; Unavailable for what loads, unloads or failed to load.
    """
    if not known:
        return NotFound(f"Request for unknown model: '{name}' is not found")
    if version is None:
        # What is being loaded will serve soon: a client may try again.
        version = max((row.id.version for row in rows if row.state is State.LOADING), default=None)
    if version is None:
        reasons = [row.reason for row in rows if row.failed]
        return NotFound(
            f"Request for unknown model: '{name}' has no available versions{_because(reasons[-1] if reasons else '')}",
            facts={"reason": reasons[-1]} if reasons else None,
        )
    row = next((row for row in reversed(rows) if row.id.version == version), None)
    if row is None or (row.state is State.UNAVAILABLE and not row.failed):
        return NotFound(f"Request for unknown model: '{name}' version {version} is not found")
    return Unavailable(
        f"Request for unknown model: '{name}' version {version} is not at ready state"
        f"{_because(row.reason if row.failed else '')}",
        facts={"state": row.state.value, "reason": row.reason},
    )


def _because(reason: str) -> str:
    """`reason` as the end of a sentence that begins with Triton's; the facts have it whole."""
    if not reason:
        return ""
    return f": {reason}" if len(reason) <= _SHOWN_CHARACTERS else f": {reason[:_SHOWN_CHARACTERS]}…"
