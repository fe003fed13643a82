"""What an import's result depends on, as one number: the source's bytes and what the configuration says of it.

Blocking: called in a thread; reads every byte of the source.
"""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

from tensorquay import __version__
from tensorquay.core.errors import Unavailable
from tensorquay.importing.declared import declared_arguments
from tensorquay.lifecycle.recipe import ImportOrder
from tensorquay.repository.snapshot import FileStamp

_CHUNK = 1 << 20


def digest_of(order: ImportOrder) -> str:
    """64 hexadecimal digits, equal for equal results of the import.

    Raises: Unavailable when the files are not those of the order any more.
    """
    whole = hashlib.sha256()
    whole.update(json.dumps([__version__, order.source.kind, declared_arguments(order)]).encode())
    for path, stamp in _files(order):
        whole.update(f"\n{stamp.path}\0{stamp.size}\0".encode())
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    whole.update(chunk)
        except OSError as exc:
            raise Unavailable(f"'{stamp.path}' cannot be read: {exc.strerror}") from exc
    refuse_if_changed(order)
    return whole.hexdigest()


def refuse_if_changed(order: ImportOrder) -> None:
    """Raises: Unavailable when a file of the source is not as it was when the order was given."""
    for path, stamp in _files(order):
        try:
            found = path.stat()
        except OSError:
            found = None
        if (
            found is None
            or not stat.S_ISREG(found.st_mode)
            or (found.st_size, found.st_mtime_ns, found.st_ino) != (stamp.size, stamp.mtime_ns, stamp.inode)
        ):
            raise Unavailable(f"'{stamp.path}' changed while it was imported")


def _files(order: ImportOrder) -> list[tuple[Path, FileStamp]]:
    """The files of the source and their stamps, by path."""
    source = order.source.path
    if source.is_dir():
        inside = order.source.name if source.name == order.source.name else ""
        return [
            (source / stamp.path.removeprefix(f"{inside}/"), stamp)
            for stamp in order.fingerprint
            if not inside or stamp.path.startswith(f"{inside}/")
        ]
    return [(source, stamp) for stamp in order.fingerprint if stamp.path == order.source.name]
