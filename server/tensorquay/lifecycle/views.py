"""What the manager knows of one model, and what the planner, the loader and the index make of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tensorquay.config.model import ModelConfig
from tensorquay.core.errors import InvariantViolation
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.index import Remarks
from tensorquay.lifecycle.plan import Load, ModelView, Row, Stamp
from tensorquay.lifecycle.recipe import ImportOrder, Recipe
from tensorquay.lifecycle.state import State
from tensorquay.lifecycle.upload import Upload
from tensorquay.repository.scan import why_empty
from tensorquay.repository.snapshot import ModelFolder
from tensorquay.repository.version_policy import select


@dataclass(frozen=True, slots=True)
class Override:
    """A configuration (and maybe files) that came with a load request and takes the place of the file on disk.

    `beside` is the text of the file on disk at that time: when that changes, the file wins again (Triton's rule).
    """

    config: ModelConfig
    beside: str
    upload: Upload | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """One model as last seen, and how to take it.

    `restless`: its configuration is still changing. `restless_versions`: their files are. `stand_in`: older versions
    may be loaded for wanted ones that fail (at start and when polling, not for a load request).
    """

    folder: ModelFolder
    restless: bool = False
    restless_versions: frozenset[int] = frozenset()
    stand_in: bool = True
    override: Override | None = field(default=None)

    @property
    def upload(self) -> Upload | None:
        """The private folder the files are in, if they are."""
        return self.override.upload if self.override is not None else None


def view_of(known: Known, rows: Sequence[Row]) -> ModelView:
    """`known` as the planner sees it. A version still being copied does not exist yet, unless it is loaded already."""
    folder = known.folder
    present = {row.id.version for row in rows if row.state in {State.READY, State.LOADING}}
    upload = known.upload.number if known.upload is not None else 0
    versions: dict[int, Stamp | None] = {}
    for version, files in folder.versions.items():
        if version in known.restless_versions:
            if version in present:
                versions[version] = None
        elif files.problem:
            versions[version] = None
        else:
            versions[version] = Stamp(files.fingerprint, folder.config, folder.side_files, upload)
    return ModelView(
        folder.name,
        versions,
        folder.policy,
        frozen=known.restless or bool(folder.problem),
        stand_in=known.stand_in,
    )


def import_of(known: Known, load: Load) -> ImportOrder | None:
    """What has to be imported before `load`, which was planned from `known`; None when it is ONNX already."""
    files = known.folder.versions[load.id.version]
    if files.source is None:
        return None
    return ImportOrder(load.id, files.source, files.fingerprint, known.folder.config)


def recipe_of(known: Known, load: Load, imported: Path | None = None) -> Recipe:
    """What the loader needs for `load`, which was planned from `known`. `imported`: the model `import_of` led to."""
    files = known.folder.versions[load.id.version]
    path = imported or files.model_path
    if path is None:
        raise InvariantViolation(f"{load.id} was planned without a model file")
    repository = None if known.upload is not None else known.folder.repository
    return Recipe(load.id, known.folder.path, path, known.folder.config, files.source, repository)


def remarks_of(known: Known) -> Remarks:
    """What is wrong with `known` before any load: of all of it, and of wanted versions without a usable file."""
    folder = known.folder
    if folder.problem:
        return Remarks(folder.problem)
    if not folder.versions:
        return Remarks(why_empty(folder))
    wanted = select(folder.policy, (v for v in folder.versions if v not in known.restless_versions))
    return Remarks("", {v: folder.versions[v].problem for v in wanted if folder.versions[v].problem})


def wanted_of(known: Known, rows: Sequence[Row]) -> tuple[int, ...]:
    """The versions that the policy wants of what exists."""
    return select(known.folder.policy, view_of(known, rows).versions)


def problems_of(known: Known, rows: Sequence[Row]) -> dict[int, str]:
    """Why wanted versions do not serve what is wanted of them, by version; 0 stands for the whole model."""
    remarks = remarks_of(known)
    if remarks.model:
        return {0: remarks.model}
    stamps = view_of(known, rows).versions
    wanted = select(known.folder.policy, stamps)
    if not wanted:
        return {0: f"at least one version must be available under the version policy of model '{known.folder.name}'"}
    found = dict(remarks.versions)
    for row in rows:
        if row.failed and row.id.version in wanted and row.stamp == stamps[row.id.version]:
            found[row.id.version] = row.reason
    return found


def taken_back(known: Known, rows: Sequence[Row]) -> frozenset[VersionId]:
    """Failed loadings that have nothing left to tell: what serves their version is what is asked for again."""
    view = view_of(known, rows)
    if view.frozen:
        return frozenset()
    right = {
        row.id.version for row in rows if row.state is State.READY and row.stamp == view.versions.get(row.id.version)
    }
    return frozenset(row.id for row in rows if row.failed and row.id.version in right)


def serves_some(known: Known, rows: Sequence[Row]) -> bool:
    """Whether a READY row is what `known` says, and not left from before."""
    stamps = view_of(known, rows).versions
    return any(row.state is State.READY and row.stamp == stamps.get(row.id.version) for row in rows)


def serving_versions(rows: Collection[Row]) -> tuple[int, ...]:
    """The READY versions among `rows`, ascending."""
    return tuple(sorted({row.id.version for row in rows if row.state is State.READY}))
