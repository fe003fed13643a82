"""The lifecycle of all models: what should serve, by control mode, and the answers to who asks what does.

Owns the desired set and the look at the repositories; the fleet carries it out. Loop-confined. Modes have Triton's
meaning: none loads everything at start; poll follows the repositories; explicit obeys load and unload requests, which
only change the desired set. Requests find their version in an immutable catalogue; nothing here is on their way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tensorquay.config.server import ControlMode
from tensorquay.core.clock import Clock
from tensorquay.core.errors import InvalidArgument, ServingError, Unavailable
from tensorquay.core.messages import IndexEntry
from tensorquay.lifecycle.fleet import Fleet
from tensorquay.lifecycle.gather import LoadOrder, gather, unknown
from tensorquay.lifecycle.index import Remarks, entries
from tensorquay.lifecycle.lease import Catalogue, ServedVersion
from tensorquay.lifecycle.lookup import not_served
from tensorquay.lifecycle.plan import Row
from tensorquay.lifecycle.settings import LifecycleSettings, ModelResult, StartReport
from tensorquay.lifecycle.state import State
from tensorquay.lifecycle.turns import Turns
from tensorquay.lifecycle.views import Known, problems_of, remarks_of, serves_some, serving_versions, wanted_of
from tensorquay.repository.settle import Now
from tensorquay.repository.snapshot import ModelFolder, RepositoryUnreadable
from tensorquay.repository.watch import Look, RepositoryWatch

_log = logging.getLogger("tensorquay.lifecycle")

_T = TypeVar("_T")

NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"
"""Triton's answer to load and unload in the modes none and poll alike; which one it is follows in brackets."""

_START_LOOKS = 5
"""Looks at start for files that are still being copied; what still changes then is left to the polling."""


class ModelManager:
    """See the module. `start` once, `close` once; in between everything may be called at any time, on the loop.

    Args:
        roots: the model repositories, in the order given by the user.
        sleep: waits between two looks (tests bring their own).
    """

    def __init__(
        self,
        roots: Sequence[Path],
        settings: LifecycleSettings,
        fleet: Fleet,
        *,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._roots = tuple(roots)
        self._settings = settings
        self._fleet = fleet
        fleet.remembers_unloaded = settings.mode is ControlMode.EXPLICIT
        self._clock = clock
        self._sleep = sleep
        polls = settings.mode is ControlMode.POLL
        self._watch = RepositoryWatch(roots, settle_s=settings.settle_s if polls else 0.0, limits=settings.scan_limits)
        self._folders: Mapping[str, ModelFolder] = {}
        self._listed = 0
        self._told: frozenset[str] = frozenset()
        # Models whose initial load failed: the server is not ready, strictly, until they serve or are gone.
        self._owed: set[str] = set()
        self._turns = Turns()
        self._work: set[asyncio.Task[Any]] = set()
        self._looking = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None
        self._started = False
        self._closing = False
        self._files_pool = ThreadPoolExecutor(2, thread_name_prefix="tq-files")

    # -- start, follow, stop

    async def start(self) -> StartReport:
        """Load what should serve from the start; returns when each of these loads has ended, well or not.

        Raises: RepositoryUnreadable when a repository cannot be listed.
        """
        mode = self._settings.mode
        looked = await self.look()
        if mode is ControlMode.POLL:
            for _ in range(_START_LOOKS):
                if looked.complete:
                    break
                await self._sleep(max(self._settings.settle_s, 0.01))
                looked = await self.look()
        names = list(self._folders)
        if mode is ControlMode.EXPLICIT:
            names = self._initial_names()
            for name in names:
                if name in self._folders:
                    self._fleet.aim(name, Known(self._folders[name]))
        await self._fleet.quiet(names)
        report = StartReport(tuple(self._result(name) for name in names))
        self._owed = {result.name for result in report.failed if not self._is_satisfied(result.name)}
        self._started = True
        if mode is ControlMode.POLL and not self._closing:
            self._polling = asyncio.get_running_loop().create_task(self._poll(looked))
        return report

    async def look(self) -> Look:
        """Look at the repositories once; outside explicit mode, begin what follows from it.

        Raises: RepositoryUnreadable when a repository cannot be listed that never could.
        """
        async with self._looking:
            now = Now(self._clock.now_ns(), self._clock.wall_ms() * 1_000_000)
            looked = await self._in_thread(partial(self._watch.look, now))
            if looked.snapshot.models.keys() != self._folders.keys():
                self._listed += 1
            self._folders = looked.snapshot.models
            self._tell(looked)
            if self._settings.mode is not ControlMode.EXPLICIT and not self._closing:
                self._follow(looked)
            return looked

    async def idle(self) -> None:
        """Wait until nothing is being loaded, drained or closed."""
        await self._fleet.idle()

    async def close(self) -> None:
        """Stop following and obeying, then unload everything: drains leases and batches, closes sessions."""
        self._closing = True
        if self._polling is not None:
            self._polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._polling
        self._fleet.retire_all()
        if self._work:
            await asyncio.wait(self._work)
        await self._fleet.close()
        self._files_pool.shutdown(wait=False)

    # -- load and unload requests (explicit mode)

    async def load(self, name: str, config_json: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Load `name`, or load it again if its files or configuration changed; returns when it serves.

        A caller that leaves does not stop the load. What served before serves on until the new one is
        READY, and if that fails.

        Args:
            config_json: a model configuration as JSON instead of the file's; stays in force until the file changes, or
            a load with an empty one.
            files: "file:<version>/<name>" to content; then nothing of the repository's folder is used.
        Raises: Unavailable outside explicit mode; InvalidArgument "failed to load 'x', …" for an unknown model, a
        refused request or a model at fault.
        """
        self._require_explicit()
        await self._run(self._load(LoadOrder(name, config_json, files or {})))

    async def unload(self, name: str, *, unload_dependents: bool = False) -> None:
        """Stop serving `name`; returns at once, the index tells when the last request has left.

        A model that is not loaded, or that nobody knows, is none afterwards either: no error (Triton's behaviour).

        Args: unload_dependents: accepted; no kind of model here depends on another.
        Raises: Unavailable outside explicit mode.
        """
        self._require_explicit()
        if unload_dependents:
            _log.debug("unload of '%s': it has no dependents", name[:255])
        await self._run(self._unload(name))

    # -- questions

    @property
    def catalogue(self) -> Catalogue:
        """All READY versions, by model; immutable, replaced on change."""
        return self._fleet.catalogue

    @property
    def revision(self) -> int:
        """Grows whenever `index` or `catalogue` may say something else."""
        return self._fleet.revision + self._listed

    def lookup(self, name: str, version: int | None = None) -> ServedVersion:
        """The READY version asked for; None: the highest. Not leased.

        Raises: NotFound for an unknown model or version; Unavailable for a version that is not READY.
        """
        model = self._fleet.catalogue.get(name)
        if model is not None:
            if version is None:
                return model.highest
            found = model.versions.get(version)
            if found is not None:
                return found
        raise not_served(name, version, self._fleet.table.of(name), known=self.knows(name))

    def acquire(self, name: str, version: int | None = None) -> ServedVersion:
        """As `lookup`, and the version stays until `release`, to be called exactly once."""
        served = self.lookup(name, version)
        served.acquire()
        return served

    def release(self, served: ServedVersion) -> None:
        """End the lease on `served`."""
        served.release()

    def ready_versions(self, name: str) -> tuple[int, ...]:
        """The READY versions of `name`, ascending; empty when there is none."""
        model = self._fleet.catalogue.get(name)
        return tuple(model.versions) if model is not None else ()

    def all_ready(self) -> tuple[ServedVersion, ...]:
        """Every READY version, by name and version. Not leased."""
        found = self._fleet.catalogue
        return tuple(served for name in sorted(found) for served in found[name].versions.values())

    def is_ready(self, name: str, version: int | None = None) -> bool:
        """Whether that version answers; None: any."""
        model = self._fleet.catalogue.get(name)
        return model is not None and (version is None or version in model.versions)

    def knows(self, name: str) -> bool:
        """Whether a repository has, or had while it was loaded, a model of that name."""
        return name in self._folders or name in self._fleet.targets or bool(self._fleet.table.of(name))

    def known(self, name: str) -> Known | None:
        """How `name` is to be served; one that is not, as it was last seen; None: nobody knows it."""
        if (wanted := self._fleet.targets.get(name)) is not None:
            return wanted
        folder = self._folders.get(name)
        return Known(folder) if folder is not None else None

    def wants(self, name: str) -> bool:
        """Whether `name` is to serve: in a repository that is followed, or asked for and not unloaded since."""
        return name in self._fleet.targets

    def rows(self) -> tuple[Row, ...]:
        """The version table: every loading with its state."""
        return self._fleet.table.rows()

    def ready(self, *, strict: bool) -> bool:
        """Whether the server should get traffic.

        Not before the initial loads have ended, not while closing. `strict`: nor while a model whose initial load
        failed is still wanted and does not serve. What is dropped later never makes it false: the old serves on.
        """
        if not self._started or self._closing:
            return False
        if self._owed:
            self._owed = {name for name in self._owed if not self._is_satisfied(name)}
        return not (strict and self._owed)

    def index(self, *, ready_only: bool = False) -> tuple[IndexEntry, ...]:
        """The repository index, by name and version."""
        lines: list[IndexEntry] = []
        for name in sorted(self._folders.keys() | self._fleet.targets.keys() | set(self._fleet.table.names())):
            known = self._fleet.targets.get(name)
            remarks = remarks_of(known) if known is not None else Remarks()
            lines.extend(entries(name, self._fleet.table.of(name), remarks))
        return tuple(line for line in lines if line.state == State.READY.value or not ready_only)

    async def fresh_index(self, *, ready_only: bool = False) -> tuple[IndexEntry, ...]:
        """As `index`; in explicit mode after another look, so that models put there since are listed."""
        if self._settings.mode is ControlMode.EXPLICIT and not self._closing:
            try:
                await self.look()
            except RepositoryUnreadable as exc:
                _log.warning("%s", exc)
        return self.index(ready_only=ready_only)

    # -- following the repositories

    async def _poll(self, looked: Look) -> None:
        settings = self._settings
        while True:
            # A version that is still being copied is looked at again as soon as it can have settled.
            soon = max(settings.settle_s, 0.05)
            await self._sleep(settings.poll_s if looked.complete else min(settings.poll_s, soon))
            try:
                looked = await self.look()
            except Exception:  # noqa: BLE001  whatever one look met, the next one may find it gone
                _log.exception("looking at the model repositories failed; what is loaded serves on")

    def _follow(self, looked: Look) -> None:
        known = {name: self._known(folder, looked) for name, folder in looked.snapshot.models.items()}
        self._fleet.aim_all(known)

    def _known(self, folder: ModelFolder, looked: Look) -> Known:
        restless = frozenset(v for v in folder.versions if (folder.name, v) in looked.unsettled_versions)
        return Known(folder, folder.name in looked.unsettled_models, restless)

    def _tell(self, looked: Look) -> None:
        """Log what is odd, once for as long as it stays so."""
        odd = {*looked.unreadable, *looked.snapshot.notes}
        for folder in looked.snapshot.models.values():
            odd.update(f"model '{folder.name}': {note}" for note in folder.notes)
            if self._settings.mode is not ControlMode.EXPLICIT:
                remarks = remarks_of(self._known(folder, looked))
                odd.update(
                    f"model '{folder.name}': {text}" for text in (remarks.model, *remarks.versions.values()) if text
                )
        for text in sorted(odd - self._told):
            _log.warning("%s", text, extra={"event": "repository_note"})
        self._told = frozenset(odd)

    # -- obeying requests

    def _initial_names(self) -> list[str]:
        wanted = self._settings.load_models
        return sorted(self._folders) if "*" in wanted else list(dict.fromkeys(wanted))

    async def _load(self, order: LoadOrder) -> None:
        name = order.name
        async with self._turns.of(name):
            self._require_explicit()
            before = self._fleet.targets.get(name)
            settings = self._settings
            known = await self._in_thread(
                partial(gather, self._roots, order, before, settings.scan_limits, settings.upload_limits)
            )
            with self._fleet.holding(before), self._fleet.holding(known):
                self._fleet.retry(name)
                self._fleet.aim(name, known)
                await self._fleet.quiet([name])
                problems = problems_of(known, self._fleet.table.of(name))
                if problems:
                    self._settle_for(name, known, before)
        if problems:
            text = "; ".join(problems[version] for version in sorted(problems))
            serving = self.ready_versions(name)
            kept = f" (version {', '.join(map(str, serving))} serves on)" if serving else ""
            raise InvalidArgument(f"failed to load '{name}', {text}{kept}")

    def _settle_for(self, name: str, known: Known, before: Known | None) -> None:
        """Not all of `known` could be loaded: decide what `name` is from now on, without loading anything."""
        rows = self._fleet.table.of(name)
        if serves_some(known, rows):
            return
        if serving_versions(rows):
            # Only what served before still does: that is then what was asked for, its override included.
            self._fleet.aim(name, before)
        elif known.override is not None:
            self._fleet.aim(name, None)

    async def _unload(self, name: str) -> None:
        async with self._turns.of(name):
            self._owed.discard(name)
            self._fleet.aim(name, None)

    def _require_explicit(self) -> None:
        if self._closing:
            raise Unavailable("the server is shutting down")
        if self._settings.mode is not ControlMode.EXPLICIT:
            mode = self._settings.mode.value
            raise Unavailable(f"{NOT_EXPLICIT} (the mode is {mode}; start with --model-control-mode=explicit)")

    async def _run(self, operation: Coroutine[Any, Any, None]) -> None:
        """Run `operation` to its end, whether or not the caller stays to hear of it."""
        task = asyncio.get_running_loop().create_task(operation)
        self._work.add(task)
        task.add_done_callback(self._worked)
        await asyncio.shield(task)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            if isinstance(failure, ServingError):
                _log.info("request refused: %s", failure.message)
            else:
                _log.error("a load or unload request failed", exc_info=failure)

    # -- helpers

    def _result(self, name: str) -> ModelResult:
        known = self._fleet.targets.get(name)
        rows = self._fleet.table.of(name)
        if known is None:
            return ModelResult(name, (), (unknown(name).message,))
        problems = problems_of(known, rows)
        return ModelResult(name, serving_versions(rows), tuple(problems[version] for version in sorted(problems)))

    def _is_satisfied(self, name: str) -> bool:
        """Whether `name` serves as many versions as it should, or should not serve any more."""
        known = self._fleet.targets.get(name)
        if known is None:
            # Gone from the repository; a load request that failed is no reason to forget what start owes.
            return self._settings.mode is not ControlMode.EXPLICIT
        rows = self._fleet.table.of(name)
        return len(serving_versions(rows)) >= max(len(wanted_of(known, rows)), 1)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._files_pool, work)
