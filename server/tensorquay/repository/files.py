"""Look at files that strangers put there: what they are, without opening them.

A symbolic link may lead anywhere inside the repository and nowhere else; pipes, sockets and devices are never opened
(opening a pipe hangs a load for ever). Reads are bounded. Error texts name files relative to the folder given.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tensorquay.repository.snapshot import FileStamp, Fingerprint

_TEMPORARY = (".tmp", ".temp", ".partial", ".part", ".swp", ".crdownload", ".filepart", "~")


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """How much one look may find before it stops believing in good faith."""

    max_models: int = 10_000
    max_versions: int = 1_000
    max_files: int = 20_000
    max_depth: int = 8
    max_entries: int = 100_000
    max_config_bytes: int = 1 << 20


DEFAULT_LIMITS = ScanLimits()


class UnusableFile(Exception):
    """A file or folder that will not be read; the text says which and why, without a path of this machine."""


class MissingFile(UnusableFile):
    """Nothing is there, not even a link."""


def is_skipped(name: str) -> bool:
    """Whether `name` is hidden or looks like a file still being written by a copying tool."""
    return name.startswith(".") or name.lower().endswith(_TEMPORARY)


def is_clean(name: str) -> bool:
    """Whether `name` is valid text: a file name on Linux is any bytes, and the wire takes only UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def list_names(folder: Path, limit: int) -> tuple[list[str], bool]:
    """Names in `folder`, sorted, hidden and temporary ones left out; and whether `limit` cut the list.

    Raises: OSError.
    """
    names: list[str] = []
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count >= limit:
                return sorted(names), True
            if not is_skipped(entry.name):
                names.append(entry.name)
    return sorted(names), False


def resolve_inside(path: Path, root: Path, shown: str = "") -> Path:
    """`path`, called `shown` in texts, with its links followed. `root` must be resolved already.

    Raises: UnusableFile when it leads out of `root`, nowhere, or in a circle; MissingFile when nothing is there.
    """
    shown = shown or path.name
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError as exc:
        if path.is_symlink():
            raise UnusableFile(f"'{shown}' cannot be followed: {_why(exc)}") from exc
        raise MissingFile(f"'{shown}' does not exist in the model's folder") from exc
    except (OSError, RuntimeError) as exc:
        raise UnusableFile(f"'{shown}' cannot be followed: {_why(exc)}") from exc
    if real != root and root not in real.parents:
        raise UnusableFile(f"'{shown}' is a symbolic link that leads out of the model repository")
    return real


def fingerprint(folder: Path, root: Path, limits: ScanLimits) -> Fingerprint:
    """The stamps of all files under `folder`, which is inside `root` (resolved).

    Raises: UnusableFile for something that is neither file nor folder, a link leading out, or too many or too deep.
    """
    stamps: list[FileStamp] = []
    _walk(folder, "", root, limits, stamps)
    stamps.sort(key=lambda stamp: stamp.path)
    return tuple(stamps)


def stamp_file(path: Path, shown: str, root: Path) -> FileStamp:
    """The stamp of one regular file called `shown` in texts.

    Raises: UnusableFile.
    """
    if path.is_symlink():
        path = resolve_inside(path, root)
    try:
        found = path.stat()
    except OSError as exc:
        raise UnusableFile(f"'{shown}' cannot be read: {_why(exc)}") from exc
    _refuse_special(shown, found.st_mode)
    if stat.S_ISDIR(found.st_mode):
        raise UnusableFile(f"'{shown}' is a folder where a file is expected")
    return _stamp(shown, found)


def read_inside(path: Path, shown: str, root: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes, inside `root` (resolved) after following links.

    Raises: UnusableFile.
    """
    real = resolve_inside(path, root, shown)
    try:
        # NOTE(a pipe may replace the file after any check): O_NONBLOCK makes opening one return at once.
        descriptor = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError as exc:
        raise UnusableFile(f"'{shown}' cannot be opened: {_why(exc)}") from exc
    # A folder can be opened but not made a file of, so the descriptor is closed here and not by a file object.
    try:
        mode = os.fstat(descriptor).st_mode
        _refuse_special(shown, mode)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    except OSError as exc:
        raise UnusableFile(f"'{shown}' cannot be read: {_why(exc)}") from exc
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise UnusableFile(f"'{shown}' is larger than {limit} bytes")
    return data


def _walk(folder: Path, prefix: str, root: Path, limits: ScanLimits, stamps: list[FileStamp]) -> None:
    if prefix.count("/") >= limits.max_depth:
        raise UnusableFile(f"folders are nested deeper than {limits.max_depth} levels")
    try:
        names, cut = list_names(folder, limits.max_entries)
    except OSError as exc:
        raise UnusableFile(f"'{prefix or folder.name}' cannot be listed: {_why(exc)}") from exc
    if cut:
        raise UnusableFile(f"holds more than {limits.max_entries} files")
    for name in names:
        if not is_clean(name):
            raise UnusableFile("holds a file whose name is not UTF-8")
        shown = f"{prefix}/{name}" if prefix else name
        path = folder / name
        if path.is_symlink():
            path = resolve_inside(path, root)
        try:
            found = path.stat()
        except OSError as exc:
            raise UnusableFile(f"'{shown}' cannot be read: {_why(exc)}") from exc
        if stat.S_ISDIR(found.st_mode):
            _walk(path, shown, root, limits, stamps)
            continue
        _refuse_special(shown, found.st_mode)
        if len(stamps) >= limits.max_files:
            raise UnusableFile(f"holds more than {limits.max_files} files")
        stamps.append(_stamp(shown, found))


def _stamp(shown: str, found: os.stat_result) -> FileStamp:
    return FileStamp(shown, found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)


def _refuse_special(shown: str, mode: int) -> None:
    for test, what in _SPECIAL:
        if test(mode):
            raise UnusableFile(f"'{shown}' is a {what}, expected a regular file")


_SPECIAL = (
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def _why(exc: BaseException) -> str:
    """The operating system's word for it, without the path that `str(exc)` carries."""
    return (exc.strerror if isinstance(exc, OSError) else None) or "the link goes in a circle"
