"""Look at the repositories again and again and say which of what is there may be believed.

Owns the memory between two looks: the last good snapshot of each repository and since when each set of files has been
as it is. Synchronous and called in a thread, one look at a time; it decides nothing about loading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorquay.repository.files import DEFAULT_LIMITS, ScanLimits
from tensorquay.repository.scan import RootSnapshot, combine, scan_root
from tensorquay.repository.settle import Now, Sighting, settle_all
from tensorquay.repository.snapshot import FileStamp, Fingerprint, ModelFolder, RepositoryUnreadable, Snapshot


@dataclass(frozen=True, slots=True)
class Look:
    """A snapshot and what in it still changes.

    `unsettled_models`: their configuration or side files still change. `unsettled_versions`: (model, version) whose
    files do. `unreadable`: why a repository was not seen; its last good snapshot stands in.
    """

    snapshot: Snapshot
    unsettled_models: frozenset[str] = frozenset()
    unsettled_versions: frozenset[tuple[str, int]] = frozenset()
    unreadable: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything there is may be believed."""
        return not self.unsettled_models and not self.unsettled_versions


class RepositoryWatch:
    """Repeated looks at the same repositories. Not shared between threads at the same time; owner: the manager."""

    def __init__(self, roots: Sequence[Path], *, settle_s: float, limits: ScanLimits = DEFAULT_LIMITS) -> None:
        self._roots = tuple(roots)
        self._settle_ns = int(settle_s * 1e9)
        self._limits = limits
        self._good: dict[int, RootSnapshot] = {}
        self._sightings: dict[str, Sighting] = {}

    def look(self, now: Now) -> Look:
        """What is there now.

        Raises: RepositoryUnreadable when a repository cannot be read that never could.
        """
        unreadable: list[str] = []
        roots: list[RootSnapshot] = []
        for number, root in enumerate(self._roots):
            known = self._good.get(number)
            try:
                found = scan_root(root, number, self._limits, known.models if known is not None else None)
            except RepositoryUnreadable as exc:
                if known is None:
                    raise
                unreadable.append(str(exc))
                found = known
            self._good[number] = found
            roots.append(found)
        snapshot = combine(roots)
        places = {place: files for model in snapshot.models.values() for place, files in _places(model)}
        self._sightings = settle_all(self._sightings, places, now, self._settle_ns)
        restless = {place for place, sighting in self._sightings.items() if not sighting.settled}
        return Look(
            snapshot,
            frozenset(name for name in snapshot.models if name in restless),
            frozenset(
                (model.name, version)
                for model in snapshot.models.values()
                for version in model.versions
                if _version_place(model.name, version) in restless
            ),
            tuple(unreadable),
        )


def _places(model: ModelFolder) -> list[tuple[str, Fingerprint]]:
    places = [(_version_place(model.name, files.version), files.fingerprint) for files in model.versions.values()]
    beside = model.side_files
    if model.declared is not None:
        beside = (*beside, _text_stamp(model.declared.source, model.declared.text, model.declared.stamp))
    if beside:
        places.append((model.name, beside))
    return places


def _text_stamp(source: str, text: str, stamp: FileStamp | None) -> FileStamp:
    """A configuration file for settling. Its text was read anyway, so it counts too."""
    if stamp is None:
        return FileStamp(source, len(text), 0, hash(text))
    return FileStamp(f"{source}:{hash(text)}", stamp.size, stamp.mtime_ns, stamp.inode, stamp.ctime_ns)


def _version_place(name: str, version: int) -> str:
    # A model's name holds no slash, so the two kinds of place cannot be confused.
    return f"{name}/{version}"
