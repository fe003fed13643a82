"""What is served, for people: every model and version with state, reason, placement and what is known about it. Pure.

States and reasons are the repository index's; the rest is of READY versions only and null for others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from tensorquay.core.ids import VersionId
from tensorquay.core.messages import IndexEntry
from tensorquay.lifecycle.lease import Catalogue, LoadedVersion, ServedVersion
from tensorquay.lifecycle.optimized import Advised
from tensorquay.lifecycle.views import Known
from tensorquay.live.records import Records
from tensorquay.repository.snapshot import describe_policy

_NOT_SERVED: Mapping[str, Any] = {
    "serving_default": False,
    "provider": None,
    "providers": {},
    "bytes": None,
    "platform": None,
    "batching": None,
    "inline": None,
    "instances": None,
    "loaded_ms": None,
    "load_seconds": None,
    "verified": None,
    "optimized": None,
    "report": None,
}

_MOST_RESTING = 20


def models(
    index: Iterable[IndexEntry],
    catalogue: Catalogue,
    records: Callable[[VersionId], Records],
    known: Callable[[str], Known | None],
) -> list[dict[str, Any]]:
    """One entry per model, in the index's order. A model without any version has an empty list, unless it is refused
    as a whole: then one entry with version "" says why."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in index:
        versions = found.setdefault(line.name, [])
        if not line.version and not line.state:
            continue
        served = _served(catalogue, line)
        facts = _NOT_SERVED if served is None else _facts(served, catalogue, records(served.id))
        versions.append({"version": line.version, "state": line.state, "reason": line.reason, **facts})
    return [{"name": name, "versions": versions, **_wanted(known(name), versions)} for name, versions in found.items()]


def _wanted(known: Known | None, versions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The version policy, who gave it, and the newest versions in the repository that the index leaves out."""
    if known is None:
        return {"policy": None, "override": False, "resting": []}
    told = {version["version"] for version in versions}
    there = sorted((version for version, files in known.folder.versions.items() if not files.problem), reverse=True)
    return {
        "policy": describe_policy(known.folder.policy),
        "override": known.override is not None,
        "resting": [each for each in map(str, there) if each not in told][:_MOST_RESTING],
    }


def _served(catalogue: Catalogue, line: IndexEntry) -> ServedVersion | None:
    model = catalogue.get(line.name)
    return model.versions.get(int(line.version)) if model is not None and line.version else None


def _facts(served: ServedVersion, catalogue: Catalogue, records: Records) -> dict[str, Any]:
    loaded, key = served.loaded, served.id
    providers = loaded.placement.providers
    path = f"/v2/models/{quote(key.name, safe='')}/versions/{key.version}"
    return {
        "serving_default": catalogue[key.name].highest is served,
        "provider": providers[0].removesuffix("ExecutionProvider") if providers else None,
        "providers": {name: round(share, 4) for name, share in loaded.node_shares.items()},
        "bytes": loaded.file_bytes or None,
        "platform": loaded.platform,
        "batching": _batching(loaded),
        "inline": served.batcher.inline,
        "instances": len(loaded.sessions),
        "loaded_ms": served.stats.loaded_ms or None,
        "load_seconds": round(loaded.load_ns / 1e9, 3),
        "verified": records.verified,
        "optimized": _optimized(loaded.advised),
        "report": f"{path}/report" if records.has_report else None,
    }


def _batching(loaded: LoadedVersion) -> str:
    signature = loaded.signature
    if signature.batches:
        return f"up to {signature.max_batch_size} rows"
    return f"none: {signature.unbatched_because or 'as configured'}"


def _optimized(advised: Advised) -> dict[str, Any] | None:
    record = advised.record
    if record is None:
        return None
    return {
        "winner": record.winner or None,
        "times_better": record.score,
        "sentence": record.sentence,
        "applied": advised.execution is not None,
        "stale": advised.stale or None,
    }
