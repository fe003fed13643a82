"""Decide what to load and unload next. Pure and idempotent: same models, same rows, same answer.

Planning again after the answer was carried out gives the rest of the way, and nothing once there is nothing to do.
The rules (docs/repository.md):
- a wanted version loads beside what serves; what it replaces leaves only when it is READY;
- a failed load is not repeated until its files or its configuration change;
- while a wanted version is missing, older ones stay in its place (and with `stand_in` are loaded for it);
- a version that was removed leaves as soon as no wanted one is on its way;
- a model whose configuration is refused or still changing is left exactly as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tensorquay.config.model import LatestVersions, ModelConfig, VersionPolicy
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.state import State
from tensorquay.repository.snapshot import Fingerprint
from tensorquay.repository.version_policy import select


@dataclass(frozen=True, slots=True)
class Stamp:
    """Everything a load reads: equal stamps, equal result. The configuration counts by meaning, not by text."""

    files: Fingerprint
    config: ModelConfig | None = None
    side_files: Fingerprint = ()
    upload: int = 0


@dataclass(frozen=True, slots=True)
class ModelView:
    """What the planner knows of one model that may serve.

    `versions` holds every version that exists: its stamp, or None when it cannot be loaded now (no model file, still
    being copied). `frozen`: touch nothing of this model.
    """

    name: str
    versions: Mapping[int, Stamp | None]
    policy: VersionPolicy = field(default_factory=LatestVersions)
    frozen: bool = False
    stand_in: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One loading in the version table. `failed` tells a failed load from one that was unloaded."""

    id: VersionId
    state: State
    stamp: Stamp
    reason: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Begin to load this."""

    id: VersionId
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Unload:
    """Retire this; drain, then close it."""

    id: VersionId


Action: TypeAlias = Load | Unload


def plan(models: Mapping[str, ModelView], rows: Iterable[Row], max_loading: int) -> tuple[Action, ...]:
    """The next actions, unloads first, then loads by name and version.

    Args:
        models: every model that should serve. A model that is not here should not.
        rows: the whole version table.
        max_loading: at most so many rows may be LOADING; further loads wait for a later plan.
    """
    table: dict[str, list[Row]] = defaultdict(list)
    loading = 0
    for row in rows:
        table[row.id.name].append(row)
        loading += row.state is State.LOADING
    unloads: list[Action] = []
    loads: list[Load] = []
    for name in sorted(models.keys() | table.keys()):
        for action in plan_model(models.get(name), table.get(name, ())):
            if isinstance(action, Load):
                loads.append(action)
            else:
                unloads.append(action)
    return (*unloads, *loads[: max(max_loading - loading, 0)])


def plan_model(view: ModelView | None, rows: Sequence[Row]) -> tuple[Action, ...]:
    """`plan` for one model, without the bound on loads. `view` None: it should not serve."""
    ready = sorted((row for row in rows if row.state is State.READY), key=lambda row: row.id)
    if view is None:
        return tuple(Unload(row.id) for row in ready)
    if view.frozen:
        return ()
    versions = _by_version(rows)
    # Ascending generations: the last one READY is the one that serves.
    serving = {row.id.version: row for row in ready}
    loading = {row.id.version for row in rows if row.state is State.LOADING}
    wanted = select(view.policy, view.versions)
    loads = [load for version in wanted if (load := _load(view, version, versions)) is not None]
    missing = [version for version in wanted if version not in serving]
    coming = loading | {load.id.version for load in loads}
    # Highest first: the best replacement for what is missing is the newest of what the policy would drop.
    spare = sorted((version for version in serving if version not in wanted and version in view.versions), reverse=True)
    kept = spare[: len(missing)]
    if view.stand_in and isinstance(view.policy, LatestVersions):
        lacking = sum(version not in coming for version in missing) - len(kept)
        loads.extend(_stand_ins(view, versions, wanted, lacking))
    # A removed version has nothing to come back to, but it need not leave a gap before its replacement is there.
    bridging = bool(missing) and bool(loads or loading)
    stay = {*wanted, *kept, *(version for version in serving if bridging and version not in view.versions)}
    unloads = [Unload(row.id) for row in ready if row is not serving[row.id.version] or row.id.version not in stay]
    return (*unloads, *loads)


def replaces(view: ModelView, rows: Sequence[Row], version: VersionId) -> bool:
    """Whether a version that serves is unloaded because `version`, one of `rows`, becomes READY."""
    now = {action for action in plan_model(view, rows) if isinstance(action, Unload)}
    ready = [replace(row, state=State.READY) if row.id == version else row for row in rows]
    then = {action for action in plan_model(view, ready) if isinstance(action, Unload)}
    return bool(then - now - {Unload(version)})


def _load(view: ModelView, version: int, versions: Mapping[int, Sequence[Row]]) -> Load | None:
    """The load that `version` needs now, if any."""
    stamp = view.versions[version]
    rows = versions.get(version, ())
    if stamp is None or any(row.state is State.LOADING for row in rows):
        # One loading of a version at a time: what changed meanwhile is looked at when it ends.
        return None
    serving = next((row for row in reversed(rows) if row.state is State.READY), None)
    if serving is not None and serving.stamp == stamp:
        return None
    if any(row.failed and row.stamp == stamp for row in rows):
        return None
    return Load(VersionId(view.name, version, rows[-1].id.generation + 1 if rows else 1), stamp)


def _stand_ins(
    view: ModelView, versions: Mapping[int, Sequence[Row]], wanted: Sequence[int], lacking: int
) -> list[Load]:
    """Loads of the highest versions that can take the place of `lacking` wanted ones that failed."""
    states = {version: {row.state for row in rows} for version, rows in versions.items()}
    rest = [version for version in sorted(view.versions, reverse=True) if version not in wanted]
    lacking -= sum(State.LOADING in states.get(version, ()) for version in rest)
    loads: list[Load] = []
    for version in rest:
        if len(loads) >= lacking:
            break
        if State.READY in states.get(version, ()):
            continue
        load = _load(view, version, versions)
        if load is not None:
            loads.append(load)
    return loads


def _by_version(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Rows by version, oldest generation first."""
    found: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.id):
        found[row.id.version].append(row)
    return found
