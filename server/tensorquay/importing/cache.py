"""Where imported models are kept: one folder per source, so that a restart serves without importing again.

Never in the user's repository, which may be read-only and is not ours. A folder appears by a rename and is then never
written to. Bounded: what was not used for longest goes first. Blocking: called in a thread. Several servers may share
one cache.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from tensorquay.core.errors import Unavailable

MODEL = "model.onnx"
_STAGE = ".stage-"
_REFUSED = "refused"
_KEPT_REPORTS = 50


class ImportCache:
    """A folder of imported models.

    Args:
        root: made when first needed, readable by this user only.
        max_bytes: of everything kept; the newest is kept even if it alone is larger.
    """

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._used: set[str] = set()

    def find(self, digest: str) -> Path | None:
        """The model kept under `digest`, if it is there."""
        entry = self._root / digest
        path = entry / MODEL
        if not path.is_file():
            return None
        self._used.add(digest)
        with contextlib.suppress(OSError):
            os.utime(entry)  # used now; a read-only cache still serves
        return path

    def stage(self) -> Path:
        """An empty folder for an import to write into; whoever asks for it removes it.

        Raises: Unavailable when the cache cannot be written.
        """
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._drop_dead_stages()
            return Path(tempfile.mkdtemp(prefix=f"{_STAGE}{os.getpid()}-", dir=self._root))
        except OSError as exc:
            raise Unavailable(
                f"the import cache cannot be written: {exc.strerror}; --import-cache names a folder that can"
            ) from exc

    def keep(self, digest: str, made: Path) -> Path:
        """Move the folder of a finished import, inside a stage, to its place; the model in it.

        Raises: Unavailable.
        """
        entry = self._root / digest
        try:
            made.rename(entry)
        except OSError as exc:
            # Another server that shares the cache was faster; its result is as good.
            if not (entry / MODEL).is_file():
                raise Unavailable(f"the import cache did not take the model: {exc.strerror}") from exc
        self._used.add(digest)
        self._evict()
        return entry / MODEL

    def report_folder(self, digest: str) -> Path:
        """Where the report of an import goes that may be refused; it may not exist yet. The oldest of many go."""
        folder = self._root / _REFUSED
        with contextlib.suppress(OSError):
            there = sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime_ns)
            for old in there[: -(_KEPT_REPORTS - 1)]:
                shutil.rmtree(old, ignore_errors=True)
        return folder / digest

    def _drop_dead_stages(self) -> None:
        for left in self._root.glob(f"{_STAGE}*"):
            owner = left.name.removeprefix(_STAGE).partition("-")[0]
            if owner.isdecimal() and not _lives(int(owner)):
                shutil.rmtree(left, ignore_errors=True)

    def _evict(self) -> None:
        entries = [(each.stat().st_mtime_ns, _size(each), each) for each in self._root.iterdir() if _is_entry(each)]
        total = sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries, key=lambda each: each[0]):
            if total <= self._max_bytes:
                return
            if entry.name not in self._used:
                shutil.rmtree(entry, ignore_errors=True)
                total -= size


def _is_entry(path: Path) -> bool:
    return not path.name.startswith(".") and (path / MODEL).is_file()


def _size(entry: Path) -> int:
    with contextlib.suppress(OSError):
        return sum(each.stat().st_size for each in entry.rglob("*") if each.is_file())
    return 0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True
