"""What a look at the repositories found: immutable, and free of any wish to do something about it.

Owns the value types only. Paths stay in here and in the loader; texts (`problem`, `notes`) never hold a path of this
machine, because the index shows them to clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from tensorquay.config.model import AllVersions, LatestVersions, ModelConfig, SpecificVersions, VersionPolicy


@dataclass(frozen=True, slots=True)
class FileStamp:
    """One regular file as its directory entry tells it, content unread.

    Equality is what "the file did not change" means. `ctime_ns` stays out of it, because a chmod is no new model; it
    tells when the file was last touched by whoever copies it, which tools that preserve mtime cannot hide.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int = field(default=0, compare=False)


Fingerprint: TypeAlias = tuple[FileStamp, ...]
"""Every file of a version (or beside the configuration), sorted by path."""


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """A model of another kind, to be imported: its file or folder, the file it was known by, what the import calls its
    kind, and what people do."""

    path: Path
    name: str
    kind: str
    shown: str


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """One version folder. It has one of the three: a model to load, a source to import, or a problem."""

    version: int
    fingerprint: Fingerprint
    model_path: Path | None = None
    problem: str = ""
    source: SourceFiles | None = None


@dataclass(frozen=True, slots=True)
class DeclaredConfig:
    """The configuration file of a model. `text` is kept so that an unchanged file is not parsed again.

    `stamp` is None when the configuration did not come from a file, or the file cannot be looked at.
    """

    source: str
    text: str
    config: ModelConfig | None
    problem: str = ""
    stamp: FileStamp | None = None


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One model of one repository.

    `problem` blocks the whole model: nothing new of it may be loaded, and what is loaded stays. `side_files` are the
    files outside the version folders that a load reads: configuration, labels, warm-up data.
    """

    name: str
    repository: int
    path: Path
    declared: DeclaredConfig | None = None
    versions: Mapping[int, VersionFiles] = field(default_factory=dict)
    side_files: Fingerprint = ()
    problem: str = ""
    notes: tuple[str, ...] = ()

    @property
    def config(self) -> ModelConfig | None:
        """What the file says; None without a file, or when it was refused."""
        return self.declared.config if self.declared is not None else None

    @property
    def policy(self) -> VersionPolicy:
        """The version policy in force (Triton's default: the highest version)."""
        declared = self.config
        if declared is None or declared.version_policy is None:
            return LatestVersions(1)
        return declared.version_policy


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All models by name, and remarks about what was skipped."""

    models: Mapping[str, ModelFolder] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class RepositoryUnreadable(Exception):
    """A repository could not be listed. It is not an empty one: whoever catches this changes nothing.

    `repository` is its position on the command line, from 0; the text holds no path.
    """

    def __init__(self, repository: int, reason: str) -> None:
        self.repository = repository
        self.reason = reason
        super().__init__(f"model repository {repository + 1} cannot be read: {reason}")


def describe_policy(policy: VersionPolicy) -> str:
    """The policy in the words of config.pbtxt, for logs and error texts."""
    match policy:
        case LatestVersions(count):
            return f"latest {{ num_versions: {count} }}"
        case AllVersions():
            return "all"
        case SpecificVersions(versions):
            return f"specific {{ versions: {list(versions)} }}"
