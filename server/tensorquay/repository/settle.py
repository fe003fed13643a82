"""When is a file believed to be complete? Pure.

A copy in progress touches its files, so a set of files is settled when nobody touched it for a while: either two looks
that far apart found it the same, or at first sight its youngest file is already that old. The second rule goes by
ctime as well as mtime: tools that preserve mtime cannot preserve ctime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorquay.repository.snapshot import Fingerprint


@dataclass(frozen=True, slots=True)
class Sighting:
    """A set of files as last seen, since when it has looked so (monotonic ns), and whether it is believed."""

    files: Fingerprint
    since_ns: int
    settled: bool


@dataclass(frozen=True, slots=True)
class Now:
    """The moment of a look: monotonic for intervals, wall time to compare with what file systems write."""

    monotonic_ns: int
    wall_ns: int


def settled(previous: Sighting | None, files: Fingerprint, now: Now, settle_ns: int) -> Sighting:
    """What to think of `files`, seen now, `previous` being what was seen in the same place before.

    `settle_ns` 0 believes everything at once. An empty set has no age, so it is believed by the first rule only.
    """
    same = previous is not None and previous.files == files
    since_ns = previous.since_ns if previous is not None and same else now.monotonic_ns
    if settle_ns <= 0 or (same and previous is not None and previous.settled):
        return Sighting(files, since_ns, settled=True)
    quiet = now.monotonic_ns - since_ns >= settle_ns
    return Sighting(files, since_ns, settled=quiet or _is_old(files, now, settle_ns))


def settle_all(
    previous: Mapping[str, Sighting], current: Mapping[str, Fingerprint], now: Now, settle_ns: int
) -> dict[str, Sighting]:
    """`settled` for every place in `current`; places that are gone are forgotten."""
    return {place: settled(previous.get(place), files, now, settle_ns) for place, files in current.items()}


def _is_old(files: Fingerprint, now: Now, settle_ns: int) -> bool:
    # A stamp in the future (clocks of a network file system) has a negative age and is never old.
    return bool(files) and all(now.wall_ns - max(stamp.mtime_ns, stamp.ctime_ns) >= settle_ns for stamp in files)
