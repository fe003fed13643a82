"""The V2 trace extension's settings: one set for the server, one per model that differs, and how they change.

Pure: no files, no sampling. Every value travels as text (the levels as a list of texts); null or an empty list clears
a setting, so that a model follows the server again and the server its command line. Source: Triton's trace extension.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tensorquay.core.errors import InvalidArgument, Unimplemented

Shown: TypeAlias = dict[str, str | list[str]]

OFF = ("OFF",)
_LEVELS = ("TIMESTAMPS", "TENSORS")
_MAX_UINT32 = 2**32 - 1
_MAX_INT32 = 2**31 - 1
_KNOWN = ("trace_level", "trace_rate", "trace_count", "log_frequency")
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")


@dataclass(frozen=True, slots=True)
class TraceValues:
    """One complete set: one request in `rate`, at most `count` (-1: no limit), `log_frequency` traces per file."""

    level: tuple[str, ...] = OFF
    rate: int = 1000
    count: int = -1
    log_frequency: int = 0
    file: str = ""
    mode: str = "triton"

    def shown(self, remaining: int | None = None) -> Shown:
        """The extension's view; `remaining` replaces the count, which counts down as traces are taken."""
        return {
            "trace_level": list(self.level),
            "trace_rate": str(self.rate),
            "trace_count": str(self.count if remaining is None else remaining),
            "log_frequency": str(self.log_frequency),
            "trace_file": self.file,
            "trace_mode": self.mode,
        }

    def checked(self) -> TraceValues:
        """Itself, when it can be obeyed.

        Raises: InvalidArgument in Triton's words.
        """
        if self.level != OFF and self.mode == "triton":
            if self.rate == 0:
                raise InvalidArgument("Attempting to set invalid trace setting :sample rate must be non-zero")
            if not self.file:
                raise InvalidArgument(
                    "Attempting to set invalid trace setting :trace file name is not given (start the server with "
                    "--trace-file=FILE)"
                )
        return self


@dataclass(frozen=True, slots=True)
class TraceChanges:
    """A parsed update: what is said anew, and what is cleared. Names are fields of `TraceValues`."""

    said: Mapping[str, tuple[str, ...] | int] = field(default_factory=dict)
    cleared: frozenset[str] = frozenset()

    def over(
        self, base: TraceValues, before: Mapping[str, tuple[str, ...] | int]
    ) -> tuple[TraceValues, dict[str, tuple[str, ...] | int]]:
        """The set made of `base`, what was said `before`, and this; and what is said from now on."""
        said = {name: value for name, value in before.items() if name not in self.cleared} | dict(self.said)
        return replace(base, **said), said  # type: ignore[arg-type]


def parse(changes: Mapping[str, object]) -> TraceChanges:
    """An update as decoded from JSON or protobuf: setting → text, list of texts, or None.

    Raises: Unimplemented for trace_file; InvalidArgument for everything else that is wrong.
    """
    said: dict[str, tuple[str, ...] | int] = {}
    cleared: set[str] = set()
    if "trace_file" in changes:
        raise Unimplemented("trace file location can not be updated through network protocol")
    for name, value in changes.items():
        if name not in _KNOWN:
            raise InvalidArgument(f"unknown trace setting '{name[:60]}', expected one of {', '.join(_KNOWN)}")
        texts = _texts(name, value)
        own = name.removeprefix("trace_")
        if not texts:
            cleared.add(own)
        elif name == "trace_level":
            said[own] = _levels(texts)
        elif len(texts) != 1:
            raise InvalidArgument(f"expect only 1 value for '{name}', got {len(texts)}")
        elif name == "trace_count":
            said[own] = _count(texts[0])
        else:
            said[own] = _unsigned(name, texts[0])
    return TraceChanges(said, frozenset(cleared))


def _texts(name: str, value: object) -> list[str]:
    if value is None:
        return []
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or len(given) > 16 or not all(isinstance(text, str) for text in given):
        raise InvalidArgument(f"Unable to parse '{name}', expected a string, a list of strings or null")
    return list(given)


def _levels(texts: list[str]) -> tuple[str, ...]:
    if "OFF" in texts:
        if len(texts) > 1:
            raise InvalidArgument("Expect only one trace level 'OFF' is specified")
        return OFF
    for text in texts:
        if text not in _LEVELS:
            raise InvalidArgument(
                f"Unable to parse 'trace_level', got: {text[:60]}, expected OFF, TIMESTAMPS or TENSORS"
            )
    return tuple(level for level in _LEVELS if level in texts)


def _unsigned(name: str, text: str) -> int:
    number = _integer(name, text)
    if not 0 <= number <= _MAX_UINT32:
        raise InvalidArgument(f"Unable to parse '{name}', value is out of range [ 0, {_MAX_UINT32} ], got: {text[:60]}")
    return number


def _count(text: str) -> int:
    number = _integer("trace_count", text)
    if number < -1:
        raise InvalidArgument(f"Unable to parse 'trace_count'. Expecting value >= -1, got: {text[:60]}")
    if number > _MAX_INT32:
        raise InvalidArgument(
            f"Unable to parse 'trace_count', value is out of range [ -1, {_MAX_INT32} ], got: {text[:60]}"
        )
    return number


def _integer(name: str, text: str) -> int:
    # At most 40 digits: Python itself refuses to convert absurdly long ones.
    if _INTEGER.fullmatch(text) is None:
        raise InvalidArgument(f"Unable to parse '{name}', got: {text[:60]}")
    return int(text)
