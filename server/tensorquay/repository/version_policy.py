"""Which of the versions present should serve. Pure; Triton's three policies."""

from __future__ import annotations

from collections.abc import Iterable

from tensorquay.config.model import AllVersions, LatestVersions, SpecificVersions, VersionPolicy


def select(policy: VersionPolicy, present: Iterable[int]) -> tuple[int, ...]:
    """The versions of `present` that `policy` wants, ascending, without repeats.

    A version that `specific` names and that is not there is simply not selected: it may come later.
    """
    versions = sorted(set(present))
    match policy:
        case LatestVersions(count):
            return tuple(versions[-count:]) if count > 0 else ()
        case AllVersions():
            return tuple(versions)
        case SpecificVersions(wanted):
            return tuple(version for version in versions if version in frozenset(wanted))
