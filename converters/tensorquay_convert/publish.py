"""Put a finished folder into a model repository: staged beside its place, made durable, renamed into it.

The rename is the only commit. Before it there is nothing a server looks at (hidden names are skipped), and nothing is
left when anything fails; an existing version is never touched. A stage whose process died is removed by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tensorquay_convert.errors import NotPublished

STAGE_PREFIX = ".import-"
MAX_VERSION = 2**63 - 1
CONFIG_FILES = ("config.toml", "config.pbtxt")

_MODEL_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")
_TEMPORARY = (".tmp", ".temp", ".partial", ".part", ".swp", ".crdownload", ".filepart", "~")
_LOCK = "lock"
_VERSION = "version"
_MODEL = "model"
_YOUNG_S = 60
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Extras:
    """What a configuration has to say because a server cannot derive it.

    `outputs`: all of the model's, in order. `labels`: class names by output. `batched` False: requests must not be
    stacked on the first axis, although it is dynamic.
    """

    outputs: tuple[str, ...] = ()
    labels: Mapping[str, Sequence[str]] | None = None
    batched: bool | None = None

    @property
    def needed(self) -> bool:
        """Whether there is anything to say."""
        return bool(self.labels) or self.batched is False


def is_model_name(name: str) -> bool:
    """Whether `name` may name a model. The server's rule, written down once more: neither imports the other."""
    return name not in {".", ".."} and _MODEL_NAME.fullmatch(name) is not None


def refuse_name(name: str) -> None:
    """Raises: NotPublished for a name under which a server would not see the model."""
    with contextlib.suppress(UnicodeEncodeError):
        name.encode()
        if is_model_name(name) and not name.startswith(".") and not name.lower().endswith(_TEMPORARY):
            return
    raise NotPublished(
        f"{name[:64]!a} cannot be the name of a model",
        remedy="a name has no '/', '\\' or control characters, at most 255 of any other, does not begin with '.' and "
        "does not end like a file still being copied (.tmp, .part, ~)",
    )


class Stage:
    """A place for one import, on the file system where the result will lie. Use with `with`: it leaves nothing.

    Owner: the importing process, which holds a lock on it while it lives.
    """

    def __init__(self, beside: Path, also: Path | None = None) -> None:
        """`also`: another folder where dead stages are looked for."""
        self._beside = beside
        self._also = also
        self.path = beside
        self._lock = -1

    @property
    def version(self) -> Path:
        """The folder the worker fills."""
        return self.path / _VERSION

    @property
    def model(self) -> Path:
        """Where a whole new model is put together."""
        return self.path / _MODEL

    def __enter__(self) -> Stage:
        """Raises: NotPublished when the place cannot be written to."""
        try:
            self._make()
        except OSError as exc:
            raise NotPublished(f"'{self._beside}' cannot be written to: {exc.strerror}") from exc
        for folder in {self._beside, self._also or self._beside}:
            remove_stale(folder, than=self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def _make(self) -> None:
        for _ in range(_TRIES):
            self.path = self._beside / f"{STAGE_PREFIX}{secrets.token_hex(6)}"
            self.path.mkdir()
            try:
                self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self.version.mkdir()
                    return
                except (BlockingIOError, FileNotFoundError):
                    os.close(self._lock)  # someone takes, or took, it for a dead one: another name
            except OSError:
                shutil.rmtree(self.path, ignore_errors=True)
                raise
        raise NotPublished(f"no place for the import could be made in '{self._beside}'")


def remove_stale(folder: Path, than: Path) -> None:
    """Remove stages in `folder` whose process is gone: nobody holds their lock. What cannot be removed stays.

    Args: than: our own stage, whose time is the file system's idea of now.
    """
    now = than.stat().st_mtime
    for path in _stages(folder):
        if path == than:
            continue
        try:
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > _YOUNG_S:  # else it is just being made
                    shutil.rmtree(path, ignore_errors=True)
            continue
        except OSError:
            continue  # another user's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def _stages(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [each for each in folder.iterdir() if each.name.startswith(STAGE_PREFIX) and each.is_dir()]
    return []


class Repository:
    """A model repository that a version is to be published into.

    Args: root: must be an existing folder. name: of the model. version: None: the highest + 1.
    """

    def __init__(self, root: Path, name: str, version: int | None = None) -> None:
        self._root = root
        self._name = name
        self._version = version
        self._folder = root / name

    def check(self) -> None:
        """Look before the work is done whether its result could be published.

        Raises: NotPublished.
        """
        refuse_name(self._name)
        if self._version is not None and not 1 <= self._version <= MAX_VERSION:
            raise NotPublished(f"{self._version} cannot be a version: it is a number from 1 to {MAX_VERSION}")
        if not self._root.is_dir():
            what = "is no folder" if os.path.lexists(self._root) else "does not exist"
            raise NotPublished(f"the model repository '{self._root}' {what}", remedy=f"mkdir -p '{self._root}'")
        if os.path.lexists(self._folder) and not self._folder.is_dir():
            raise NotPublished(f"'{self._folder}' is no folder, so no version can be put there")
        if self._version is not None and os.path.lexists(self._folder / str(self._version)):
            raise self._exists(self._version)

    def stage(self) -> Stage:
        """A place on the file system where the version will lie."""
        return Stage(self._folder if self._folder.is_dir() else self._root, also=self._root)

    def commit(self, stage: Stage, extras: Extras) -> Path:
        """Make `stage.version` a version of the model, and return where it lies.

        A version number that was not asked for is found again when another import took it meanwhile.
        Raises: NotPublished; then nothing of it is there.
        """
        try:
            _make_durable(stage.version)
            for _ in range(1 if self._version is not None else 1000):
                number = self._version if self._version is not None else self._next()
                if number > MAX_VERSION:
                    raise NotPublished(f"'{self._folder}' has a version {MAX_VERSION}, there is none after it")
                with contextlib.suppress(FileExistsError):
                    return self._put(stage, number, extras)
            raise self._exists(number)
        except OSError as exc:
            raise NotPublished(
                f"the model could not be published as '{self._folder}': {exc.strerror}",
                remedy=_REMEDIES.get(exc.errno or 0, ""),
            ) from exc

    def _exists(self, version: int) -> NotPublished:
        return NotPublished(
            f"'{self._folder / str(version)}' exists, and a version is never overwritten",
            remedy=f"leave --version out for the next one, {self._next()}",
        )

    def _next(self) -> int:
        return max(_numbers(self._folder), default=0) + 1

    def _put(self, stage: Stage, number: int, extras: Extras) -> Path:
        """One try. Raises: FileExistsError when that version is there; OSError."""
        target = self._folder / str(number)
        if not self._folder.exists():
            with contextlib.suppress(FileExistsError):
                return self._put_new(stage, number, extras)
        with contextlib.ExitStack() as undo:
            if extras.needed and not _numbers(self._folder) and not self._has_config():
                for name, text in configuration(extras).items():
                    self._add(stage, name, text, undo)
            _rename(stage.version, target)
            undo.pop_all()
        _sync_if_possible(self._folder)
        return target

    def _put_new(self, stage: Stage, number: int, extras: Extras) -> Path:
        """A model that is not there yet appears whole, with its configuration."""
        stage.model.mkdir()
        try:
            for name, text in (configuration(extras) if extras.needed else {}).items():
                (stage.model / name).write_text(text, encoding="utf-8")
            stage.version.rename(stage.model / str(number))
            _make_durable(stage.model)
            _rename(stage.model, self._folder)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                (stage.model / str(number)).rename(stage.version)
            shutil.rmtree(stage.model, ignore_errors=True)
            raise
        _sync_if_possible(self._root)
        return self._folder / str(number)

    def _add(self, stage: Stage, name: str, text: str, undo: contextlib.ExitStack) -> None:
        """Put a file beside the versions unless one of that name is there; `undo` takes it away again."""
        fresh, target = stage.path / f"new-{name}", self._folder / name
        fresh.write_text(text, encoding="utf-8")
        os.link(fresh, target)
        undo.callback(target.unlink, missing_ok=True)

    def _has_config(self) -> bool:
        return any(os.path.lexists(self._folder / name) for name in CONFIG_FILES)


_REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: "make room on the disk and import again",
    errno.EDQUOT: "make room within the quota and import again",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "make the repository writable for this user",
}


def publish_folder(stage: Stage, target: Path) -> Path:
    """Without a repository (`--output`): the finished folder appears as `target`, which must not exist.

    Raises: NotPublished.
    """
    try:
        _make_durable(stage.version)
        _rename(stage.version, target)
        _sync_if_possible(target.parent)
    except FileExistsError as exc:
        raise NotPublished(f"'{target}' exists, and is not overwritten") from exc
    except OSError as exc:
        raise NotPublished(f"'{target}' could not be written: {exc.strerror}") from exc
    return target


def configuration(extras: Extras) -> dict[str, str]:
    """The files beside the versions by name: `config.toml`, and one label file for each output with class names."""
    lines, files = [], {}
    if extras.batched is False:
        lines.append("# The first axis is not a batch: requests are never merged.\nmax_batch_size = 0\n")
    if extras.labels:
        for number, output in enumerate(extras.outputs):
            lines.append(f"[[output]]\nname = {_toml(output)}")
            if output in extras.labels:
                name = f"labels{number or ''}.txt"
                files[name] = "".join(f"{label}\n" for label in extras.labels[output])
                lines[-1] += f"\nlabels = {_toml(name)}"
            lines[-1] += "\n"
    return {"config.toml": "\n".join(lines), **files}


def _toml(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _numbers(folder: Path) -> list[int]:
    """Version numbers in a model's folder; an entry that is no folder takes its number too."""
    try:
        names = [each.name for each in folder.iterdir()]
    except FileNotFoundError:
        return []
    return [int(name) for name in names if name.isascii() and name.isdigit() and name[0] != "0" and len(name) <= 19]


def _rename(made: Path, target: Path) -> None:
    """Raises: FileExistsError when anything is there: a rename alone would replace an empty folder."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    try:
        made.rename(target)
    except OSError as exc:
        if exc.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from exc
        raise


def _make_durable(folder: Path) -> None:
    """Ask for every file and folder below to be on the disk, so that a rename never shows what is not there."""
    for path in (*_below(folder), folder):
        _sync(path)


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            yield path


def _sync_if_possible(folder: Path) -> None:
    """After the rename: the version is there, and a disk that fails now cannot make it not so."""
    with contextlib.suppress(OSError):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        # Some network file systems cannot do that for a folder; they have no other way to be asked either.
        if exc.errno not in {errno.EINVAL, errno.ENOTSUP} or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
