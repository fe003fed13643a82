"""A model repository on disk that a test changes while a server follows it."""

from __future__ import annotations

import shutil
from pathlib import Path

from onnx import ModelProto


class Repo:
    """A repository at `root`. Whatever appears in it does so by one rename, as a careful operator would do it.

    A second folder next to it is where things are made; both must be on one file system.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._workshop = root.with_name(root.name + ".making")
        self._made = 0
        root.mkdir(parents=True, exist_ok=True)
        self._workshop.mkdir(exist_ok=True)

    def model(self, name: str, versions: dict[int, ModelProto | bytes], config: str = "", **files: str) -> Path:
        """Put a whole model there: its versions, config.toml when `config` is given, and other text files."""
        made = self._new_folder()
        for number, content in versions.items():
            (made / str(number)).mkdir()
            (made / str(number) / "model.onnx").write_bytes(_bytes(content))
        for file, text in ({"config.toml": config} if config else {}).items() | files.items():
            (made / file).write_text(text)
        return self._appear(made, self.root / name)

    def version(self, name: str, number: int | str, content: ModelProto | bytes) -> Path:
        """Add one version to a model that is there."""
        made = self._new_folder()
        (made / "model.onnx").write_bytes(_bytes(content))
        return self._appear(made, self.root / name / str(number))

    def file(self, path: str, content: ModelProto | bytes | str) -> Path:
        """Write or replace one file in one step; `path` is relative to the repository."""
        made = self._workshop / f"file{self._next()}"
        made.write_bytes(content.encode() if isinstance(content, str) else _bytes(content))
        target = self.root / path
        made.replace(target)
        return target

    def remove(self, path: str) -> None:
        """Take a model, a version or a file away in one step."""
        gone = self._workshop / f"gone{self._next()}"
        (self.root / path).rename(gone)
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone)
        else:
            gone.unlink()

    def _new_folder(self) -> Path:
        made = self._workshop / f"new{self._next()}"
        made.mkdir()
        return made

    def _next(self) -> int:
        self._made += 1
        return self._made

    @staticmethod
    def _appear(made: Path, target: Path) -> Path:
        made.rename(target)
        return target


def _bytes(content: ModelProto | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.SerializeToString()
