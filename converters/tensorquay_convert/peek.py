"""Look at files that strangers made, without believing them: what they are, their first bytes, what a zip lists.

Nothing is unpacked or executed; every read is bounded. Pipes, sockets and devices are never opened: that can hang.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tensorquay_convert.errors import BadSource

HEAD_BYTES = 64 << 10
_MAX_DIRECTORY_BYTES = 64 << 20
"""Of a zip's central directory: its entries are listed, whatever they would unpack to."""
_MAX_FIELDS = 2_000_000
_TAIL_BYTES = (1 << 16) + 22
_END_OF_ZIP = b"PK\x05\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"

_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """One top-level field of a protobuf message: its number, and whether its value is length-delimited."""

    number: int
    delimited: bool


def kind_of_path(path: Path, shown: str) -> str:
    """ "file" or "folder", links followed.

    Raises: BadSource for anything else, and when nothing is there or it may not be looked at.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as exc:
        what = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise BadSource(f"'{shown}' {what}") from exc
    except (OSError, ValueError) as exc:
        raise BadSource(f"'{shown}' cannot be looked at: {why(exc)}") from exc
    if stat.S_ISDIR(mode):
        return "folder"
    for test, what in _SPECIAL:
        if test(mode):
            raise BadSource(f"'{shown}' is {what}, expected a file or a folder")
    return "file"


def open_file(path: Path, shown: str) -> BinaryIO:
    """A regular file, opened so that even a pipe that took its place cannot hang us.

    Raises: BadSource.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as exc:
        raise BadSource(f"'{shown}' cannot be opened: {why(exc)}") from exc
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadSource(f"'{shown}' is not a regular file")
    return os.fdopen(descriptor, "rb")


def head(path: Path, shown: str, size: int = HEAD_BYTES) -> bytes:
    """The first bytes. Raises: BadSource."""
    with open_file(path, shown) as file:
        try:
            return file.read(size)
        except OSError as exc:
            raise BadSource(f"'{shown}' cannot be read: {why(exc)}") from exc


def names_in(folder: Path, shown: str, limit: int = 10_000) -> list[str]:
    """Names in `folder`, sorted, hidden ones left out, at most `limit`. Raises: BadSource."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry, _ in zip(entries, range(limit), strict=False)]
    except OSError as exc:
        raise BadSource(f"'{shown}' cannot be listed: {why(exc)}") from exc
    return sorted(name for name in names if not name.startswith("."))


def zip_names(path: Path, shown: str) -> list[str]:
    """What a zip says it holds. Raises: BadSource when it is cut short, broken, or lists too much."""
    with open_file(path, shown) as file:
        try:
            size = _directory_bytes(file)
            if size > _MAX_DIRECTORY_BYTES:
                raise BadSource(f"'{shown}' is a zip whose list of entries has {size} bytes, more than any model needs")
            with zipfile.ZipFile(file) as archive:
                return archive.namelist()
        except (zipfile.BadZipFile, struct.error, UnicodeDecodeError, NotImplementedError, ValueError, OSError) as exc:
            raise BadSource(
                f"'{shown}' begins as a zip archive but cannot be listed: is it cut short, or still being copied?"
            ) from exc


def _directory_bytes(file: BinaryIO) -> int:
    """The size of a zip's central directory as the archive's end tells it."""
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - _TAIL_BYTES)
    file.seek(start)
    tail = file.read(_TAIL_BYTES)
    at = tail.rfind(_END_OF_ZIP)
    if at < 0:
        raise zipfile.BadZipFile("no end")
    (size,) = struct.unpack_from("<I", tail, at + 12)
    locator = tail.rfind(_ZIP64_LOCATOR, 0, at)
    if locator >= 0:
        (record,) = struct.unpack_from("<Q", tail, locator + 8)
        file.seek(min(record, end))
        (size,) = struct.unpack_from("<Q", file.read(56), 40)
    file.seek(0)
    return int(size)


def protobuf_fields(path: Path, shown: str) -> tuple[frozenset[Field], bool]:
    """The top-level fields of a file read as one protobuf message, and whether it is one to its last byte.

    Returns: no field when the bytes are no such message; not whole when it ends in the middle of a field.
    Raises: BadSource when it cannot be read.
    """
    with open_file(path, shown) as file:
        size = os.fstat(file.fileno()).st_size
        found: set[Field] = set()
        try:
            for field, ends_at in _fields(file):
                if ends_at == _BROKEN:
                    return frozenset(), False
                found.add(field)
                if ends_at > size:
                    return frozenset(found), False
        except OSError as exc:
            raise BadSource(f"'{shown}' cannot be read: {why(exc)}") from exc
    return frozenset(found), True


_BROKEN = -1


def _fields(file: BinaryIO) -> Iterator[tuple[Field, int]]:
    """Each top-level field with the offset it ends at; `_BROKEN` for what cannot be a field."""
    for _ in range(_MAX_FIELDS):
        tag = _varint(file)
        if tag is None:
            return
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire not in {0, 1, 2, 5}:
            yield Field(number, False), _BROKEN
            return
        if wire == 0:
            value = _varint(file)
            yield Field(number, False), _BROKEN if value is None else file.tell()
        else:
            length = {1: 8, 5: 4}.get(wire)
            if length is None:
                length = _varint(file)
            if length is None:
                yield Field(number, True), _BROKEN
                return
            ends_at = file.tell() + length
            yield Field(number, wire == 2), ends_at
            file.seek(ends_at)


def _varint(file: BinaryIO) -> int | None:
    """The next varint; None at the end of the file or when it is longer than one can be."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def why(exc: BaseException) -> str:
    """The operating system's word for it, without the path that `str(exc)` carries."""
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
