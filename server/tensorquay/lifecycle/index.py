"""What the repository index says. Pure: from the version table and what the repository holds, one line per version.

States and reasons are Triton's; beyond them, a READY version whose newer drop was refused says why in `reason`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tensorquay.core.messages import IndexEntry
from tensorquay.lifecycle.plan import Row
from tensorquay.lifecycle.state import State


@dataclass(frozen=True, slots=True)
class Remarks:
    """What is wrong with a model besides its loads: with all of it, and with single versions that never loaded."""

    model: str = ""
    versions: Mapping[int, str] = field(default_factory=dict)


_ORDER = (State.READY, State.LOADING, State.UNLOADING)


def entries(name: str, rows: Iterable[Row], remarks: Remarks) -> list[IndexEntry]:
    """The lines of one model, by version; a single line without a version when none was ever loaded."""
    by_version: dict[int, list[Row]] = {}
    for row in rows:
        by_version.setdefault(row.id.version, []).append(row)
    lines: list[IndexEntry] = []
    for version in sorted(by_version.keys() | remarks.versions.keys()):
        found = by_version.get(version)
        remark = remarks.versions.get(version, "") or remarks.model
        lines.append(_line(name, version, found, remark) if found else _refused(name, str(version), remark))
    if not lines:
        lines.append(_refused(name, "", remarks.model) if remarks.model else IndexEntry(name))
    return lines


def _line(name: str, version: int, rows: list[Row], remark: str) -> IndexEntry:
    newest = max(rows, key=lambda row: row.id)
    shown = next((row for state in _ORDER for row in rows if row.state is state), newest)
    reason = shown.reason
    if shown.state is State.READY:
        if remark:  # what lies there now; a load that failed is of what lay there before
            reason = f"generation {shown.id.generation} serves; not loaded again: {remark}"
        elif newest.failed:
            reason = f"generation {shown.id.generation} serves; the newer one failed: {newest.reason}"
    elif shown.state is State.UNAVAILABLE and remark:
        reason = remark
    return IndexEntry(name, str(version), shown.state.value, reason)


def _refused(name: str, version: str, remark: str) -> IndexEntry:
    return IndexEntry(name, version, State.UNAVAILABLE.value, remark)
