"""The version table: one row per loading, changed only through the transition table.

Loop-confined; owner: the manager. Others get the rows as values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tensorquay.core.errors import InvariantViolation
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.plan import Load, Row
from tensorquay.lifecycle.state import Event, State, next_state

UNLOADED = "unloaded"
"""The reason of a version that left in peace (Triton's word)."""


class VersionTable:
    """Rows by identity. Finished rows stay for the index until a newer generation of their version comes."""

    def __init__(self) -> None:
        self._rows: dict[VersionId, Row] = {}
        self._by_name: dict[str, tuple[Row, ...]] = {}
        self.revision = 0
        """Grows with every change."""

    def rows(self) -> tuple[Row, ...]:
        """All rows."""
        return tuple(self._rows.values())

    def of(self, name: str) -> tuple[Row, ...]:
        """The rows of one model, by version and generation."""
        return self._by_name.get(name, ())

    def names(self) -> tuple[str, ...]:
        """Models that have rows."""
        return tuple(self._by_name)

    def begin(self, load: Load) -> None:
        """A new generation, LOADING."""
        if load.id in self._rows:
            raise InvariantViolation(f"{load.id} exists already")
        self._put(Row(load.id, next_state(State.UNKNOWN, Event.LOAD), load.stamp))

    def apply(self, version: VersionId, event: Event, reason: str = "") -> Row:
        """`event` happened to `version`; the new row.

        Raises: InvariantViolation when it cannot, or for an unknown version.
        """
        row = self._rows.get(version)
        if row is None:
            raise InvariantViolation(f"{event.name} for unknown {version}")
        changed = replace(row, state=next_state(row.state, event), reason=reason, failed=event is Event.FAILED)
        self._put(changed)
        return changed

    def remark(self, version: VersionId, text: str) -> None:
        """What is being done with `version`, for the index; nothing unless it is LOADING."""
        row = self._rows.get(version)
        if row is not None and row.state is State.LOADING:
            self._put(replace(row, reason=text))

    def forget(self, name: str, unwanted: Callable[[Row], bool]) -> None:
        """Drop the UNAVAILABLE rows of `name` for which `unwanted` holds."""
        gone = [row for row in self.of(name) if row.state is State.UNAVAILABLE and unwanted(row)]
        for row in gone:
            del self._rows[row.id]
        if gone:
            self._index(name, [row for row in self.of(name) if row.id in self._rows])

    def _put(self, row: Row) -> None:
        self._rows[row.id] = row
        mine = [*(other for other in self.of(row.id.name) if other.id != row.id), row]
        newest: dict[int, int] = {}
        for other in mine:
            newest[other.id.version] = max(newest.get(other.id.version, 0), other.id.generation)
        kept: list[Row] = []
        for other in mine:
            # A finished loading that a newer one of the same version followed has nothing left to tell.
            if other.state is State.UNAVAILABLE and other.id.generation < newest[other.id.version]:
                del self._rows[other.id]
            else:
                kept.append(other)
        self._index(row.id.name, kept)

    def _index(self, name: str, rows: list[Row]) -> None:
        self.revision += 1
        if rows:
            self._by_name[name] = tuple(sorted(rows, key=lambda row: row.id))
        else:
            self._by_name.pop(name, None)
