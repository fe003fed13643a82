"""Whether a file is whole JSON or whole UBJSON, before XGBoost's own reader sees it: that one reads past a missing end.

Only the structure is walked; nothing is kept. Rules: the UBJSON specification, draft 12, as far as XGBoost writes it.
"""

from __future__ import annotations

import json

from tensorquay_convert.errors import BadSource

_SIZES = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8, b"d": 4, b"D": 8, b"C": 1, b"Z": 0, b"T": 0, b"F": 0}
_COUNTS = {b"i": 1, b"U": 1, b"I": 2, b"l": 4, b"L": 8}
_MAX_DEPTH = 64


def need_whole(content: bytes, shown: str) -> None:
    """Raises: BadSource when `content` ends early, goes on after its end, or is neither JSON nor UBJSON."""
    try:
        if content[1:2] in _COUNTS:
            end = _Walk(content).value(0, 0)
            if end != len(content):
                raise ValueError(f"it goes on after its end, at byte {end}")
        else:
            json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise BadSource(
            f"'{shown}' is no whole XGBoost model: {str(exc)[:200]}",
            remedy="copy it again, or save it again with save_model('model.ubj')",
        ) from exc


class _Walk:
    """Positions in one buffer. Every method gives the place after what it read, or raises ValueError."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def value(self, at: int, depth: int) -> int:
        kind = self._bytes(at, 1)
        return self._rest(kind, at + 1, depth)

    def _rest(self, kind: bytes, at: int, depth: int) -> int:
        """What follows the marker `kind`."""
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deep")
        if kind in _SIZES:
            return self._skip(at, _SIZES[kind])
        if kind in {b"S", b"H"}:
            return self._text(at)
        if kind == b"[":
            return self._array(at, depth)
        if kind == b"{":
            return self._object(at, depth)
        raise ValueError(f"byte {at - 1} is {kind!r}, which marks nothing")

    def _array(self, at: int, depth: int) -> int:
        kind, count, at = self._header(at)
        if count is None:
            while self._bytes(at, 1) != b"]":
                at = self.value(at, depth + 1)
            return at + 1
        if kind in _SIZES:
            return self._skip(at, count * _SIZES[kind])
        for _ in range(count):
            at = self.value(at, depth + 1) if not kind else self._rest(kind, at, depth + 1)
        return at

    def _object(self, at: int, depth: int) -> int:
        kind, count, at = self._header(at)
        if count is None:
            while self._bytes(at, 1) != b"}":
                at = self.value(self._text(at), depth + 1)
            return at + 1
        for _ in range(count):
            at = self._text(at)
            at = self.value(at, depth + 1) if not kind else self._rest(kind, at, depth + 1)
        return at

    def _header(self, at: int) -> tuple[bytes, int | None, int]:
        """The type that all entries share and how many there are, where a container says so."""
        kind = b""
        if self._bytes(at, 1) == b"$":
            kind, at = self._bytes(at + 1, 1), at + 2
        if self._bytes(at, 1) != b"#":
            if kind:
                raise ValueError(f"byte {at} should be '#'")
            return b"", None, at
        count, at = self._count(at + 1)
        if kind and not _SIZES.get(kind, 1) and count > len(self._content):
            raise ValueError("it counts more entries than it has bytes")
        return kind, count, at

    def _text(self, at: int) -> int:
        length, at = self._count(at)
        return self._skip(at, length)

    def _count(self, at: int) -> tuple[int, int]:
        kind = self._bytes(at, 1)
        if kind not in _COUNTS:
            raise ValueError(f"byte {at} should mark a length")
        size = _COUNTS[kind]
        count = int.from_bytes(self._bytes(at + 1, size), "big", signed=kind != b"U")
        if count < 0:
            raise ValueError(f"the length at byte {at} is negative")
        return count, at + 1 + size

    def _bytes(self, at: int, count: int) -> bytes:
        end = self._skip(at, count)
        return self._content[at:end]

    def _skip(self, at: int, count: int) -> int:
        if at + count > len(self._content):
            raise ValueError(f"it ends at byte {len(self._content)}, in the middle of something")
        return at + count
