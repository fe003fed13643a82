"""Models that came with a load request instead of from the repository: a private folder that lives as long as they do.

Names are checked before anything is written, sizes are bounded, and the folder is readable by this user only.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tensorquay.core.errors import InvalidArgument, ModelFailed
from tensorquay.core.ids import MAX_VERSION, is_model_name
from tensorquay.repository.files import is_clean, is_skipped

_MAX_PARTS = 4
_PREFIX = "file:"


def check_files(
    name: str, files: Mapping[str, bytes], *, max_files: int, max_bytes: int
) -> dict[tuple[str, ...], bytes]:
    """`files` of a load request for model `name`, by path parts.

    Args: files: "file:<version>/<name>" (the prefix may be missing) to content.
    Raises: InvalidArgument naming the parameter for a name that is no plain relative path below a version, too many
    files, too many bytes.
    """
    if len(files) > max_files:
        raise InvalidArgument(
            f"failed to load '{name}', {len(files)} files in the request, at most {max_files} allowed"
        )
    total = sum(len(content) for content in files.values())
    if total > max_bytes:
        raise InvalidArgument(f"failed to load '{name}', files of {total} bytes in the request, at most {max_bytes}")
    checked: dict[tuple[str, ...], bytes] = {}
    for key, content in files.items():
        path = key.removeprefix(_PREFIX)
        parts = tuple(path.split("/"))
        good = all(is_clean(part) and is_model_name(part) and not is_skipped(part) for part in parts)
        if not good or not 2 <= len(parts) <= _MAX_PARTS or not _is_version(parts[0]):
            raise InvalidArgument(
                f"failed to load '{name}', parameter '{key[:80]!a}': expected 'file:<version>/<file name>', "
                "version a number above 0"
            )
        checked[parts] = content
    folders = {parts[:depth] for parts in checked for depth in range(1, len(parts))}
    for parts in checked:
        if parts in folders:
            raise InvalidArgument(f"failed to load '{name}', '{'/'.join(parts)}' is both a file and a folder")
    return checked


def _is_version(text: str) -> bool:
    digits = text.isascii() and text.isdigit() and len(text) <= 19 and not text.startswith("0")
    return digits and int(text) <= MAX_VERSION


class Upload:
    """One uploaded model folder. Loop-confined holders count; whoever drops the last hold deletes it in a thread."""

    _numbers = itertools.count(1)

    def __init__(self, base: Path, model: Path) -> None:
        self.number = next(self._numbers)
        self.base = base
        self.model = model
        self._holds = 0

    @classmethod
    def write(cls, name: str, files: Mapping[tuple[str, ...], bytes]) -> Upload:
        """Write checked `files` into a new private folder. Blocking.

        Raises: ModelFailed when the disk refuses; nothing stays.
        """
        try:
            base = Path(tempfile.mkdtemp(prefix="tensorquay-upload-")).resolve()
        except OSError as exc:
            raise ModelFailed(f"the uploaded files cannot be stored: {exc.strerror}") from exc
        try:
            model = base / name
            for parts, content in files.items():
                path = model.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError as exc:
            shutil.rmtree(base, ignore_errors=True)
            raise ModelFailed(f"the uploaded files cannot be stored: {exc.strerror}") from exc
        return cls(base, model)

    def hold(self) -> None:
        """One more reason to keep the folder."""
        self._holds += 1

    def drop(self) -> bool:
        """One reason less; True when it was the last and `delete` is due."""
        self._holds -= 1
        return self._holds == 0

    def delete(self) -> None:
        """Remove the folder. Blocking. A folder that is gone already is fine."""
        shutil.rmtree(self.base, ignore_errors=True)
