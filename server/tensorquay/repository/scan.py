"""Turn model folders into a snapshot. Reads only, opens only configuration files, and believes nothing.

Synchronous: called in a thread. One bad model is a `problem` of that model and never an exception; only a repository
that cannot be listed raises. The layout is Triton's: `<repository>/<model>/<integer>/model.onnx` (docs/repository.md).
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from tensorquay.config.model import ModelConfig
from tensorquay.core.ids import MAX_VERSION, is_model_name
from tensorquay.repository.configs import not_read, read_config
from tensorquay.repository.files import (
    DEFAULT_LIMITS,
    ScanLimits,
    UnusableFile,
    fingerprint,
    is_clean,
    list_names,
    resolve_inside,
    stamp_file,
)
from tensorquay.repository.foreign import find_foreign
from tensorquay.repository.snapshot import (
    DeclaredConfig,
    FileStamp,
    Fingerprint,
    ModelFolder,
    RepositoryUnreadable,
    Snapshot,
    SourceFiles,
    VersionFiles,
)

DEFAULT_MODEL_FILE = "model.onnx"

_MAX_NOTES = 50
_LOST_AND_FOUND = "lost+found"
"""The folder that ext file systems keep at the root of every volume, readable to root only: never a model."""


@dataclass(frozen=True, slots=True)
class RootSnapshot:
    """What one repository holds."""

    repository: int
    models: Mapping[str, ModelFolder] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def scan(roots: Sequence[Path], limits: ScanLimits = DEFAULT_LIMITS, previous: Snapshot | None = None) -> Snapshot:
    """Everything in `roots`.

    Args: previous: an earlier snapshot, whose parsed configurations are reused where the text did not change.
    Raises: RepositoryUnreadable for the first root that cannot be listed.
    """
    known = previous.models if previous is not None else {}
    return combine([scan_root(root, number, limits, known) for number, root in enumerate(roots)])


def scan_root(
    root: Path, repository: int, limits: ScanLimits = DEFAULT_LIMITS, known: Mapping[str, ModelFolder] | None = None
) -> RootSnapshot:
    """The models of one repository, `repository` being its number from 0.

    Raises: RepositoryUnreadable.
    """
    real, names, cut = _open_root(root, repository, limits)
    notes = [f"repository {repository + 1}: more than {limits.max_entries} entries, the rest is ignored"] if cut else []
    models: dict[str, ModelFolder] = {}
    for name in names:
        if name == _LOST_AND_FOUND or not _is_directory(real / name):
            continue
        if not is_clean(name) or not is_model_name(name):
            notes.append(f"repository {repository + 1}: folder {name!a} ignored, it cannot be the name of a model")
            continue
        if len(models) >= limits.max_models:
            notes.append(f"repository {repository + 1}: more than {limits.max_models} models, the rest is ignored")
            break
        found = scan_folder(real / name, real, repository, limits, known=(known or {}).get(name))
        if found is None:
            notes.append(f"repository {repository + 1}: folder '{name}' is empty, ignored")
        else:
            models[name] = found
    return RootSnapshot(repository, models, tuple(notes[:_MAX_NOTES]))


def scan_model(
    roots: Sequence[Path], name: str, limits: ScanLimits = DEFAULT_LIMITS, override: ModelConfig | None = None
) -> ModelFolder | None:
    """Only the model called `name`, as `scan` would show it; None when no repository has it.

    Args: override: takes the place of the configuration file, which is then only remembered, not obeyed.
    Raises: RepositoryUnreadable.
    """
    if not is_clean(name) or not is_model_name(name):
        return None
    found: list[RootSnapshot] = []
    for number, root in enumerate(roots):
        real, names, _ = _open_root(root, number, limits)
        if name in names and _is_directory(real / name):
            model = scan_folder(real / name, real, number, limits, override=override)
            if model is not None:
                found.append(RootSnapshot(number, {name: model}))
    return combine(found).models.get(name)


def combine(roots: Sequence[RootSnapshot]) -> Snapshot:
    """One snapshot of several repositories; a name that two of them have is unavailable in both."""
    models: dict[str, ModelFolder] = {}
    owners: dict[str, list[int]] = {}
    notes: list[str] = []
    for root in roots:
        notes.extend(root.notes)
        for name, model in root.models.items():
            owners.setdefault(name, []).append(root.repository)
            models.setdefault(name, model)
    for name, repositories in owners.items():
        if len(repositories) > 1:
            where = " and ".join(str(number + 1) for number in repositories)
            models[name] = replace(
                models[name],
                problem=f"model '{name}' is in model repositories {where}: keep it in one of them",
            )
    return Snapshot(dict(sorted(models.items())), tuple(notes[:_MAX_NOTES]))


def scan_folder(
    folder: Path,
    root: Path,
    repository: int,
    limits: ScanLimits,
    *,
    override: ModelConfig | None = None,
    known: ModelFolder | None = None,
) -> ModelFolder | None:
    """One model folder inside `root` (resolved); None when it is empty and hence nobody's model yet."""
    name = folder.name
    try:
        real = resolve_inside(folder, root)
        names, cut = list_names(real, limits.max_entries)
    except UnusableFile as exc:
        return ModelFolder(name, repository, folder, problem=str(exc))
    except OSError as exc:
        return ModelFolder(name, repository, folder, problem=f"the folder cannot be listed: {exc.strerror}")
    if not names and override is None:
        return None
    notes = [f"more than {limits.max_entries} entries, the rest is ignored"] if cut else []
    declared = read_config(real, names, root, limits, known.declared if known is not None else None)
    if override is not None:
        declared = DeclaredConfig(override.source, declared.text if declared is not None else "", override)
    config = declared.config if declared is not None else None
    numbers = _version_numbers(real, names, limits, notes)
    versions = {number: _scan_version(real / str(number), number, root, config, limits) for number in numbers}
    if declared is None:
        notes += not_read(names, versions)
    problem = declared.problem if declared is not None else ""
    side: Fingerprint = ()
    if not problem:
        side, problem = _side_files(real, names, config, root, limits)
    return ModelFolder(name, repository, real, declared, versions, side, problem, tuple(notes[:_MAX_NOTES]))


def why_empty(model: ModelFolder) -> str:
    """The reason why a model without version folders cannot serve, with what to do."""
    hint = f"put the file at {model.name}/1/{_model_file_name(model.config)}"
    return f"model '{model.name}' has no available versions: there is no numbered version folder, {hint}"


def _open_root(root: Path, repository: int, limits: ScanLimits) -> tuple[Path, list[str], bool]:
    try:
        real = root.resolve(strict=True)
        names, cut = list_names(real, limits.max_entries)
    except (OSError, RuntimeError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or "the path goes in a circle"
        raise RepositoryUnreadable(repository, reason) from exc
    return real, names, cut


def _is_directory(path: Path) -> bool:
    """Whether `path` is, or links to, a folder; False for what cannot be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _version_numbers(folder: Path, names: list[str], limits: ScanLimits, notes: list[str]) -> list[int]:
    numbers: list[int] = []
    for name in names:
        if not (name.isascii() and name.isdigit()):
            continue
        if name.startswith("0"):
            notes.append(f"version folder '{name[:32]}' ignored: a version is a number above 0 without leading zeros")
        elif len(name) > 19 or int(name) > MAX_VERSION:
            notes.append(f"version folder '{name[:32]}…' ignored: a version has at most 19 digits, below 2^63")
        elif not _is_directory(folder / name):
            notes.append(f"'{name}' ignored: a version is a folder, this is none")
        else:
            numbers.append(int(name))
    numbers.sort()
    if len(numbers) > limits.max_versions:
        notes.append(f"{len(numbers)} versions, only the highest {limits.max_versions} are looked at")
        numbers = numbers[-limits.max_versions :]
    return numbers


def _scan_version(
    folder: Path, number: int, root: Path, config: ModelConfig | None, limits: ScanLimits
) -> VersionFiles:
    stamps: Fingerprint = ()
    try:
        real = resolve_inside(folder, root)
        stamps = fingerprint(real, root, limits)
        found = _find_model(real, root, stamps, _model_file_name(config))
    except UnusableFile as exc:
        return VersionFiles(number, stamps, problem=f"version {number}: {exc}")
    if isinstance(found, SourceFiles):
        return VersionFiles(number, stamps, source=found)
    return VersionFiles(number, stamps, model_path=found)


def _model_file_name(config: ModelConfig | None) -> str:
    return (config.default_model_filename if config is not None else "") or DEFAULT_MODEL_FILE


def _find_model(folder: Path, root: Path, stamps: Fingerprint, wanted: str) -> Path | SourceFiles:
    """The model file in a version folder: the file `wanted`, or the like-named file in a folder of that name; or the
    model of another kind that is there instead.

    Raises: UnusableFile saying what is there instead.
    """
    pure = PurePosixPath(wanted)
    if pure.is_absolute() or ".." in pure.parts or "\\" in wanted or not pure.parts:
        raise UnusableFile(f"default_model_filename '{wanted[:64]}' is not a file name inside the version folder")
    wanted = str(pure)
    files = {stamp.path for stamp in stamps}
    foreign = find_foreign(files, wanted)
    if wanted in files and (foreign is None or foreign.path != wanted):
        return resolve_inside(folder / wanted, root)
    inside = f"{wanted}/{pure.name}"
    if inside not in files and f"{wanted}/{DEFAULT_MODEL_FILE}" in files:
        inside = f"{wanted}/{DEFAULT_MODEL_FILE}"
    if inside in files:
        return resolve_inside(folder / inside, root)
    if foreign is not None and foreign.what.kind:
        path = resolve_inside(folder / foreign.path, root)
        return SourceFiles(path, foreign.name, foreign.what.kind, foreign.what.shown)
    if foreign is not None:
        raise UnusableFile(f"no {wanted}; found {foreign.name}, {foreign.what.shown}: {foreign.what.why_not}")
    others = sorted(path for path in files if path.endswith(".onnx"))[:3]
    if others:
        raise UnusableFile(f"no {wanted}; found {', '.join(others)}: rename it, or set default_model_filename")
    raise UnusableFile(
        f"no {wanted}" + (f"; found {', '.join(sorted(files)[:3])}" if files else "; the folder is empty")
    )


def _side_files(
    folder: Path, names: list[str], config: ModelConfig | None, root: Path, limits: ScanLimits
) -> tuple[Fingerprint, str]:
    """Stamps of the label files the configuration names and of `warmup/`; or the reason one may not be read."""
    stamps: list[FileStamp] = []
    if config is None:
        return (), ""
    try:
        for output in config.outputs:
            if output.labels_file and not any(stamp.path == output.labels_file for stamp in stamps):
                stamps.append(_label_stamp(folder, output.labels_file, output.name))
        if config.warmup and "warmup" in names:
            real = resolve_inside(folder / "warmup", root)
            if stat.S_ISDIR(real.stat().st_mode):
                stamps.extend(replace(s, path=f"warmup/{s.path}") for s in fingerprint(real, root, limits))
    except UnusableFile as exc:
        return (), str(exc)
    except OSError as exc:
        return (), f"'warmup' cannot be read: {exc.strerror}"
    return tuple(stamps), ""


def _label_stamp(folder: Path, name: str, output: str) -> FileStamp:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\x00" in name or not is_clean(name):
        raise UnusableFile(f"output '{output}': label_filename '{name[:64]}' is not a file inside the model's folder")
    try:
        # A label file may not even link out of its own model's folder.
        return stamp_file(resolve_inside(folder / name, folder, name[:64]), name, folder)
    except UnusableFile as exc:
        raise UnusableFile(f"output '{output}': label_filename {exc}") from exc
