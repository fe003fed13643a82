"""Names of things: models, versions, and one loading of a version.

A version that is reloaded while it serves lives twice for a moment, so identity is (name, version, generation);
(name, version) alone is what clients say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tensorquay.core.errors import InvalidArgument

MAX_VERSION = 2**63 - 1
"""Triton's own limit: versions are int64; longer directory names are not versions."""

_MODEL_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True, slots=True, order=True)
class VersionKey:
    """What a client can name: a model and one of its versions."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True, order=True)
class VersionId:
    """One loading of one version."""

    name: str
    version: int
    generation: int

    @property
    def key(self) -> VersionKey:
        """The part a client can name."""
        return VersionKey(self.name, self.version)

    def __str__(self) -> str:
        return f"{self.name}/{self.version}#{self.generation}"


def is_model_name(name: str) -> bool:
    """Whether `name` may name a model: one path component, no separators, no control characters, not `.` or `..`."""
    return name not in {".", ".."} and _MODEL_NAME.fullmatch(name) is not None


def parse_version(text: str) -> int | None:
    """The version a client asked for: None when absent or "-1" (policy default).

    Raises: InvalidArgument unless `text` is decimal digits within int64.
    """
    if text in {"", "-1"}:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > MAX_VERSION:
        raise InvalidArgument(
            f"failed to get model version from specified version string '{text[:32]}' "
            "(expected a decimal number of at most 19 digits)"
        )
    return int(text)
