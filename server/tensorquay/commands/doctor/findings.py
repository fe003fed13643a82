"""What a probe has to say: one sentence, how bad it is, and what to do."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """How bad. Only a problem makes the doctor fail."""

    OK = "ok"
    NOTE = "note"
    """Good to know, and fine."""
    WARNING = "warning"
    """Works, but worse than it could, or not for long."""
    PROBLEM = "problem"
    """Does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at, "section.thing": a name for programs, which stays.
        text: one sentence without its full stop.
        remedy: what to do, a command where there is one; "" when there is nothing to do.
    """

    level: Level
    check: str
    text: str
    remedy: str = ""

    @property
    def section(self) -> str:
        """What it belongs to."""
        return self.check.partition(".")[0]


def ok(check: str, text: str) -> Finding:
    """As it should be."""
    return Finding(Level.OK, check, text)


def note(check: str, text: str, remedy: str = "") -> Finding:
    """See `Level.NOTE`."""
    return Finding(Level.NOTE, check, text, remedy)


def warning(check: str, text: str, remedy: str = "") -> Finding:
    """See `Level.WARNING`."""
    return Finding(Level.WARNING, check, text, remedy)


def problem(check: str, text: str, remedy: str = "") -> Finding:
    """See `Level.PROBLEM`."""
    return Finding(Level.PROBLEM, check, text, remedy)


def gib(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def listed(names: list[str], most: int = 12) -> str:
    """`names` for a sentence, not too many of them."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
