"""A loaded version and the leases on it; and the immutable catalogue requests look them up in.

A lease keeps the version alive: it is retired by leaving the catalogue, and closed when the last lease ended.
Everything here runs on the loop, so a lease is one addition. No locks, no awaits, nothing allocated per request.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tensorquay.backends.api import Placement, Session
from tensorquay.batching.batcher import Batcher
from tensorquay.config.model import EffectiveConfig, InstanceKind
from tensorquay.core.errors import InvariantViolation
from tensorquay.core.ids import VersionId
from tensorquay.core.messages import ModelMetadata
from tensorquay.core.signature import Signature
from tensorquay.lifecycle.optimized import Advised, Here
from tensorquay.lifecycle.upload import Upload
from tensorquay.telemetry.statistics import VersionStatistics


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """What a load produced: everything about a version that never changes while it lives.

    `sessions` has one entry per slot (an entry may repeat); `platform` is what clients call the format.
    `kind` is where it runs: never AUTO.
    `properties` are the facts shown in metadata: provider, threads, instances, why it does not batch, notes.
    `files` is the folder of the model's file, with what an import left beside it.
    `advised` is what its optimisation says, and `here` what it was compared with.
    """

    id: VersionId
    signature: Signature
    effective: EffectiveConfig
    sessions: tuple[Session, ...]
    placements: tuple[Placement, ...]
    inline: bool
    kind: InstanceKind
    run_ns: int
    load_ns: int
    platform: str
    backend: str
    notes: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    files: Path = Path()
    advised: Advised = field(default_factory=Advised)
    here: Here = field(default_factory=Here)

    @property
    def placement(self) -> Placement:
        """Of the first session; all sessions of a version have the same configuration."""
        return self.placements[0]

    @property
    def gpus(self) -> frozenset[int]:
        """Numbers of the GPUs its sessions run on; empty for a version that has none."""
        return frozenset(each.gpu for each in self.placements if each.gpu is not None)

    @property
    def file_bytes(self) -> int:
        """Size of the files it was loaded from; 0 when the backend does not tell."""
        return self.placement.file_bytes

    @property
    def node_shares(self) -> Mapping[str, float]:
        """Share of the graph's nodes by execution provider, over all sessions; empty when that is not known.

        A session with one provider runs everything there, whether or not the runtime counts nodes.
        """
        counts: Counter[str] = Counter()
        for placement in self.placements:
            nodes = placement.nodes
            if len(placement.providers) == 1:
                nodes = {placement.providers[0]: sum(nodes.values()) or 1}
            if not sum(nodes.values()):
                return {}
            counts.update(dict.fromkeys(placement.providers, 0))
            counts.update(nodes)
        total = sum(counts.values())
        return {provider: count / total for provider, count in counts.items()}

    def distinct_sessions(self) -> list[Session]:
        """Each session once, for closing."""
        return list({id(session): session for session in self.sessions}.values())


class ServedVersion:
    """A version that answers. Loop-confined; owner: the manager."""

    __slots__ = ("_drained", "batcher", "id", "leases", "loaded", "signature", "stats", "upload", "version_text")

    def __init__(
        self, loaded: LoadedVersion, batcher: Batcher, stats: VersionStatistics, upload: Upload | None = None
    ) -> None:
        self.id = loaded.id
        self.version_text = str(loaded.id.version)
        self.loaded = loaded
        self.signature = loaded.signature
        self.batcher = batcher
        self.stats = stats
        self.upload = upload
        self.leases = 0
        self._drained: asyncio.Future[None] | None = None

    @property
    def effective(self) -> EffectiveConfig:
        """The configuration it really runs with."""
        return self.loaded.effective

    @property
    def placement(self) -> Placement:
        """What runs where."""
        return self.loaded.placement

    @property
    def properties(self) -> Mapping[str, str]:
        """The facts shown in metadata, as they are now."""
        runs_on = "event loop" if self.batcher.inline else "worker thread"
        return {**self.loaded.properties, "runs_on": runs_on}

    def acquire(self) -> None:
        """Begin a lease; end it with `release`, exactly once."""
        self.leases += 1

    def release(self) -> None:
        """End a lease.

        Raises: InvariantViolation when there is none.
        """
        if self.leases <= 0:
            raise InvariantViolation(f"{self.id}: released more often than leased")
        self.leases -= 1
        if self.leases == 0 and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def drained(self) -> None:
        """Wait until no lease is left. For a version that already left the catalogue, so that none can begin."""
        if self.leases == 0:
            return
        self.batcher.hurry()
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._drained)

    def metadata(self, versions: Sequence[int]) -> ModelMetadata:
        """What `GET /v2/models/{m}` says, `versions` being those of the model that are READY."""
        return ModelMetadata(
            name=self.id.name,
            versions=tuple(str(version) for version in versions),
            platform=self.loaded.platform,
            inputs=self.signature.inputs,
            outputs=self.signature.outputs,
            properties=self.properties,
        )


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The READY versions of one model, ascending; `highest` answers when a client names none."""

    versions: Mapping[int, ServedVersion]
    highest: ServedVersion


Catalogue = Mapping[str, ServedModel]
"""What requests see; replaced as a whole when anything changes, never edited."""


def catalogue(versions: Iterable[ServedVersion]) -> dict[str, ServedModel]:
    """A catalogue of `versions`; of two generations of a version the newer one is listed."""
    found: dict[str, dict[int, ServedVersion]] = {}
    for served in sorted(versions, key=lambda served: served.id):
        found.setdefault(served.id.name, {})[served.id.version] = served
    return {name: ServedModel(listed, listed[max(listed)]) for name, listed in found.items()}
