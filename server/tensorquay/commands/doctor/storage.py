"""Can files be written where the settings want them, and is there room?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorquay.commands.doctor.findings import Finding, gib, note, ok, problem, warning
from tensorquay.config.server import ServerConfig
from tensorquay.config.surroundings import user_cache

_LITTLE = 2**30
_NONE = 100 * 2**20

Disk = Callable[[Path], tuple[int, int]]
"""Bytes that the file system of a folder has, and those that are free. Raises OSError."""

Writable = Callable[[Path], bool]
"""Whether this process may write a file, or into a folder."""


@dataclass(frozen=True, slots=True)
class _Place:
    check: str
    what: str
    path: Path
    needed: bool
    """Whether the server does not start without it."""
    remedy: str


def disk_of(path: Path) -> tuple[int, int]:
    """See `Disk`."""
    usage = shutil.disk_usage(path)
    return usage.total, usage.free


def is_writable(path: Path) -> bool:
    """See `Writable`. Asks the system and writes nothing."""
    return os.access(path, os.W_OK | os.X_OK if path.is_dir() else os.W_OK)


def examine(
    config: ServerConfig, environment: Mapping[str, str], *, disk: Disk = disk_of, writable: Writable = is_writable
) -> Iterator[Finding]:
    """Findings about files the server writes."""
    for place in _places(config, environment):
        yield _of_place(place, disk, writable)


def _places(config: ServerConfig, environment: Mapping[str, str]) -> Iterator[_Place]:
    if config.log_file is not None:
        yield _Place("storage.log", "the log", config.log_file, True, "another --log-file, or none for standard error")
    if config.trace_file is not None:
        yield _Place("storage.trace", "the trace file", config.trace_file, True, "another --trace-file")
    cache = config.import_cache or user_cache() / "tensorquay" / "imports"
    if config.auto_import or config.auto_optimize:
        yield _Place(
            "storage.cache",
            "the cache of imports and optimisations",
            cache,
            False,
            "another --import-cache, or XDG_CACHE_HOME",
        )
    temporary = next((environment[name] for name in ("TMPDIR", "TEMP", "TMP") if environment.get(name)), "/tmp")  # noqa: S108 - looked at only
    yield _Place(
        "storage.temporary", "the folder for temporary files", Path(temporary), False, "set TMPDIR to another folder"
    )


def _of_place(place: _Place, disk: Disk, writable: Writable) -> Finding:
    there = _nearest(place.path)
    shown = f"{place.what}, {place.path},"
    if place.check == "storage.log" and place.path.is_dir():
        return problem(place.check, f"{shown} is a folder", place.remedy)
    if place.needed and there not in {place.path, place.path.parent}:
        return problem(
            place.check,
            f"{shown} cannot be made: the folder {place.path.parent} is not there",
            f"mkdir -p {place.path.parent}",
        )
    if there != place.path and not there.is_dir():
        return problem(place.check, f"{shown} cannot be made: {there} is no folder", place.remedy)
    if not writable(there):
        by = f"by user {os.getuid()}" if hasattr(os, "getuid") else "by this user"
        tell = problem if place.needed else warning
        return tell(place.check, f"{shown} cannot be written {by} ({there})", f"chown or chmod it, or {place.remedy}")
    if place.check == "storage.log" and there == place.path:
        # Where standard output is a pipe, /dev/stdout leads to one without a name, which is open and has its reader.
        named = place.path.resolve()
        if named.is_socket():
            return problem(place.check, f"{shown} is a socket, which is not opened as a file is", place.remedy)
        if named.is_fifo():
            # Not tried: a reader would take the doctor's going for the end, and would not be there for the server.
            return warning(
                place.check,
                f"{shown} is a named pipe: serve refuses it when nobody reads it; whether somebody does is not tried",
                f"start its reader before the server, or {place.remedy}",
            )
    try:
        total, free = disk(there if there.is_dir() else there.parent)
    except OSError as error:
        return note(
            place.check, f"{shown} can be written; how much room there is, is not known: {error.strerror or error}"
        )
    room = f"{gib(free)} of {gib(total)} are free"
    if free < _NONE:
        return warning(place.check, f"{shown} has no room: {room}", "make room on that disk")
    if free < _LITTLE and place.check == "storage.cache":
        return warning(place.check, f"{shown} has little room for models: {room}", f"make room, or {place.remedy}")
    return ok(place.check, f"{shown} can be written; {room}")


def _nearest(path: Path) -> Path:
    """`path`, or the folder nearest above it that is there."""
    for each in (path, *path.absolute().parents):
        if each.exists():
            return each
    return Path(path.anchor or ".")
