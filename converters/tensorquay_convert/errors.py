"""Why a command ended without its result: one sentence, a remedy, and an exit code each.

The codes are part of the command line's interface (docs/import.md, docs/optimize.md): scripts and the server tell by
them what happened.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import ClassVar

Fact = str | int | float | bool | None


class ExitCode(enum.IntEnum):
    """How `tensorquay import`, `optimize` and `profile` end."""

    DONE = 0
    FAILED = 1
    """Our bug, or something nobody foresaw; the log has the details."""
    USAGE = 2
    BAD_SOURCE = 3
    """Not found, not recognised, corrupt, incomplete, or not trusted."""
    FRAMEWORK_MISSING = 4
    UNSUPPORTED = 5
    """The exporter knows no ONNX for something in the model."""
    NOT_EQUAL = 6
    """Converted, but the proof failed."""
    LIMIT = 7
    """Took too long or too much memory, or was killed."""
    NOT_PUBLISHED = 8
    """Converted and proven, but the repository did not take it."""


class CommandFailed(Exception):
    """A command that ends here.

    Args:
        sentence: what, where, expected, got; for people, and for the server's index: no traceback, no secrets.
        remedy: what to do about it, as a sentence or a command; empty when there is nothing.
        facts: the same for programs.
    """

    code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, sentence: str, *, remedy: str = "", facts: Mapping[str, Fact] | None = None) -> None:
        self.sentence = sentence
        self.remedy = remedy
        self.facts = dict(facts or {})
        super().__init__(f"{sentence}; {remedy}" if remedy else sentence)


class BadSource(CommandFailed):
    """The source cannot be used as it is; trying again cannot help."""

    code = ExitCode.BAD_SOURCE


class FrameworkMissing(CommandFailed):
    """A package the source needs is not installed in the interpreter that converts."""

    code = ExitCode.FRAMEWORK_MISSING


class Unsupported(CommandFailed):
    """The model holds something that cannot be said in ONNX; the sentence names it, with its node."""

    code = ExitCode.UNSUPPORTED


class NotEqual(CommandFailed):
    """The ONNX model does not do what its source does."""

    code = ExitCode.NOT_EQUAL


class LimitExceeded(CommandFailed):
    """The worker was stopped, or stopped by itself without a result."""

    code = ExitCode.LIMIT


class NotPublished(CommandFailed):
    """The repository could not take the model; nothing of it is left there."""

    code = ExitCode.NOT_PUBLISHED


BY_CODE: Mapping[ExitCode, type[CommandFailed]] = {
    kind.code: kind
    for kind in (CommandFailed, BadSource, FrameworkMissing, Unsupported, NotEqual, LimitExceeded, NotPublished)
}
"""How a failure told by a worker becomes the same exception here."""
