"""How a log record stands for many lines: one record for each would cost more than the request it tells of."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

LINES: Final = "_tensorquay_lines"
"""The attribute of such a record: a list of `Line`. Named so that no library's `extra=` is taken for it."""

Line: TypeAlias = tuple[int, str, dict[str, Any]]
"""One of many in a record: milliseconds of the wall clock, message, fields."""
