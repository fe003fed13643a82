"""Which libraries a shared library needs, read from its file: asking the dynamic linker would load and run them.

Source: System V ABI, "ELF-64 Object File Format": program headers, dynamic section.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

_HEAD = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")
_LOAD, _DYNAMIC_SEGMENT = 1, 2
_NEEDED, _STRINGS, _STRINGS_SIZE = 1, 5, 10
_MAX_SEGMENTS = 256
_MAX_BYTES = 2**24


def needed(path: Path) -> tuple[str, ...]:
    """Names of libraries that `path` is linked to ("libcudnn.so.9"), in order; none for what is no 64-bit ELF."""
    try:
        with path.open("rb") as file:
            return _needed(file)
    except (OSError, struct.error, ValueError):
        return ()


def _needed(file: BinaryIO) -> tuple[str, ...]:
    head = _HEAD.unpack(file.read(_HEAD.size))
    if head[0][:6] != b"\x7fELF\x02\x01":
        return ()
    at, count = head[5], min(head[10], _MAX_SEGMENTS)
    file.seek(at)
    segments = [_PROGRAM.unpack(file.read(_PROGRAM.size)) for _ in range(count)]
    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, size, _, _ in segments:
        if kind == _DYNAMIC_SEGMENT:
            file.seek(offset)
            data = file.read(min(size, _MAX_BYTES))
            entries = list(_DYNAMIC.iter_unpack(data[: len(data) - len(data) % _DYNAMIC.size]))
    tags = dict(reversed(entries))
    if _STRINGS not in tags:
        return ()
    address = tags[_STRINGS]
    for kind, _, offset, start, _, size, _, _ in segments:
        if kind == _LOAD and start <= address < start + size:
            file.seek(offset + address - start)
            strings = file.read(min(tags.get(_STRINGS_SIZE, 0), _MAX_BYTES))
            names = [strings[value : strings.index(b"\0", value)] for tag, value in entries if tag == _NEEDED]
            return tuple(name.decode("utf-8", "replace") for name in names)
    return ()
