"""Which version to optimise for one that asks, and everything that the result depends on.

Blocking: called in a thread; reads every byte of the model.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from tensorquay import __version__
from tensorquay.config.model import OptimizationConfig
from tensorquay.lifecycle.lease import LoadedVersion
from tensorquay.lifecycle.recipe import Recipe
from tensorquay.repository.files import DEFAULT_LIMITS, UnusableFile, fingerprint, list_names, resolve_inside
from tensorquay.repository.optimization import Optimization, read_optimization

_CHUNK = 1 << 20
_SAID_BESIDE = frozenset({"provenance.json", "verification.json", "optimization.json", "report.html"})
"""What lies beside a model and is no part of it."""


class CannotOptimize(Exception):
    """This version is not optimised here; the text is a clause that says why. `quiet`: that is as it should be."""

    def __init__(self, why: str, *, quiet: bool = False) -> None:
        super().__init__(why)
        self.quiet = quiet


class Stopped(Exception):
    """Nobody wants the answer any more."""


@dataclass(frozen=True, slots=True)
class Source:
    """What to optimise.

    Args:
        version: of the model it starts from: the one that asks, or the one that was made from.
        sha256: of that model's file.
        key: a digest of all that the result depends on: model, machine, goals, data.
        versions: those that were there.
    """

    version: int
    sha256: str
    key: str
    versions: frozenset[int]
    data: Path | None = None
    labels: Path | None = None


def find_source(recipe: Recipe, loaded: LoadedVersion, root: Path, stop: threading.Event) -> Source:
    """What to optimise so that the model of `recipe`, which serves as `loaded`, gets faster here.

    Always a version as it was before any optimisation, so that nothing is made of what was made here.

    Args: root: the repository. stop: set when nobody waits any more.
    Raises: CannotOptimize; Stopped.
    """
    versions = versions_in(recipe.folder)
    if any(version > recipe.id.version for version in versions):
        raise CannotOptimize("a newer version is there", quiet=True)
    if not os.access(recipe.folder, os.W_OK | os.X_OK):
        raise CannotOptimize("the model's folder cannot be written, so nothing could be published there")
    goals = loaded.effective.config.optimization
    try:
        real = root.resolve(strict=True)
        data = resolve_inside(recipe.folder / goals.data, recipe.folder, goals.data) if goals.data else None
        labels = resolve_inside(recipe.folder / goals.labels, recipe.folder, goals.labels) if goals.labels else None
        version, path = recipe.id.version, recipe.model_path
        record = loaded.advised.record
        if record is not None:
            version, path = _made_from(recipe, record, versions, real, stop)
        parts = _model_files(path, real, stop)
        sha256 = parts[path.name]
        parts |= {f"of the {key}": _digest(each, stop) for key, each in (("data", data), ("labels", labels)) if each}
    except UnusableFile as exc:
        raise CannotOptimize(str(exc)) from exc
    except OSError as exc:
        raise CannotOptimize(f"its files cannot be read: {exc.strerror}") from exc
    return Source(version, sha256, _key(recipe, loaded, goals, parts), versions, data, labels)


def published_since(recipe: Recipe, source: Source) -> int:
    """The version that an optimisation of `source` has published by now; 0: none."""
    for version in sorted(versions_in(recipe.folder) - source.versions, reverse=True):
        try:
            record = read_optimization(recipe.folder / str(version))
        except UnusableFile:
            continue
        if record is not None and (record.source_sha256 == source.sha256 or record.source_version == source.version):
            return version
    return 0


def versions_in(folder: Path) -> frozenset[int]:
    """The numbers of the version folders in a model's folder."""
    try:
        names, _ = list_names(folder, DEFAULT_LIMITS.max_entries)
    except OSError:
        return frozenset()
    return frozenset(int(name) for name in names if name.isascii() and name.isdigit() and len(name) <= 19)


def _made_from(
    recipe: Recipe, record: Optimization, versions: frozenset[int], root: Path, stop: threading.Event
) -> tuple[int, Path]:
    """The version that the optimised one was made from, if it is still there."""
    try:
        inside = recipe.model_path.relative_to(recipe.folder / str(recipe.id.version))
    except ValueError:
        inside = Path(recipe.model_path.name)
    # Its own too: where nothing was faster, the version is what it was.
    possible = sorted((version for version in versions if version <= recipe.id.version), reverse=True)
    for version in sorted(possible, key=lambda each: each != record.source_version):
        try:
            path = resolve_inside(recipe.folder / str(version) / inside, root)
        except UnusableFile:
            continue
        if not record.source_sha256 and version == record.source_version:
            return version, path
        if record.source_sha256 and _digest(path, stop) == record.source_sha256:
            return version, path
    raise CannotOptimize("the version that it was made from is not there any more")


def _key(recipe: Recipe, loaded: LoadedVersion, goals: OptimizationConfig, parts: dict[str, str]) -> str:
    here = loaded.here
    wanted = asdict(goals)
    wanted["background"] = ""  # when it is done changes nothing of what comes of it
    facts = [
        *(__version__, recipe.id.name, wanted, here.threads),
        *(None if here.cpu is None else asdict(here.cpu), None if here.runtime is None else asdict(here.runtime)),
    ]
    return hashlib.sha256(json.dumps([facts, parts], sort_keys=True).encode()).hexdigest()


def _model_files(path: Path, root: Path, stop: threading.Event) -> dict[str, str]:
    """Digests of the model and of what lies beside it and belongs to it (weights in files of their own), by name."""
    names = [each.path for each in fingerprint(path.parent, root, DEFAULT_LIMITS)]
    return {name: _digest(path.parent / name, stop) for name in {path.name, *names} - _SAID_BESIDE}


def _digest(path: Path, stop: threading.Event) -> str:
    """SHA-256 of the file's bytes, as `sha256sum` says it."""
    whole = hashlib.sha256()
    # A pipe that nobody writes to keeps who opens it in the usual way for ever.
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnusableFile(f"'{path.name}' is no regular file")
        while chunk := file.read(_CHUNK):
            if stop.is_set():
                raise Stopped
            whole.update(chunk)
    return whole.hexdigest()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
