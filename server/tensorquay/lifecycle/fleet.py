"""Carry out the plan: import, load in threads, swap in one loop step, drain, close. Decides nothing itself.

Owns the version table, the served versions and the catalogue. Loop-confined: threads get a recipe and return a loaded
version. One plan runs whenever something of a model changed; loads beyond `load_threads` wait their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Protocol

from tensorquay.backends.api import Session
from tensorquay.batching.batcher import Batcher
from tensorquay.config.model import BatchingConfig, InlineRun
from tensorquay.core.clock import Clock
from tensorquay.core.errors import ServingError, Unavailable
from tensorquay.core.ids import VersionId
from tensorquay.core.signature import Signature
from tensorquay.lifecycle.imports import ImportsModels, NoImports
from tensorquay.lifecycle.lease import Catalogue, LoadedVersion, ServedModel, ServedVersion, catalogue
from tensorquay.lifecycle.loader import close_sessions, collect_and_freeze
from tensorquay.lifecycle.optimizes import NoOptimizing, OptimizesVersions
from tensorquay.lifecycle.plan import Load, ModelView, Row, Unload, plan, plan_model, replaces
from tensorquay.lifecycle.recipe import ImportOrder, Recipe
from tensorquay.lifecycle.state import Event, State
from tensorquay.lifecycle.table import UNLOADED, VersionTable
from tensorquay.lifecycle.upload import Upload
from tensorquay.lifecycle.views import Known, import_of, recipe_of, taken_back, view_of
from tensorquay.telemetry.statistics import StatisticsTable, VersionStatistics

_log = logging.getLogger("tensorquay.lifecycle")


class LoadsVersions(Protocol):
    """What the fleet asks of a loader; `Loader` is the real one."""

    def load(self, recipe: Recipe) -> LoadedVersion:
        """See `Loader.load`."""
        ...


class MakesBatcher(Protocol):
    """How a batcher is made; `Batcher` itself, or a partial of it."""

    def __call__(
        self,
        sessions: Sequence[Session],
        signature: Signature,
        batching: BatchingConfig,
        *,
        stats: VersionStatistics,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        inline: bool,
        stays_inline: bool,
    ) -> Batcher:
        """See `Batcher`."""
        ...


class Fleet:
    """All loaded versions.

    `remembers_unloaded`: what was unloaded stays in the table although nobody aims at it any more (explicit mode, where
    the index tells so); set by the manager.

    Args:
        importer: makes ONNX of models of other kinds before they are loaded; None: nobody does.
        optimizer: hears of versions that became READY, and of those that go; None: nobody optimises.
        tidy: called in the load thread after a load, before the version is READY (garbage collection).
    """

    def __init__(
        self,
        loader: LoadsVersions,
        make_batcher: MakesBatcher,
        statistics: StatisticsTable,
        *,
        clock: Clock,
        load_threads: int,
        importer: ImportsModels | None = None,
        optimizer: OptimizesVersions | None = None,
        tidy: Callable[[], None] = collect_and_freeze,
    ) -> None:
        self.table = VersionTable()
        self.catalogue: Catalogue = {}
        self.remembers_unloaded = False
        self._loader = loader
        self._make_batcher = make_batcher
        self._statistics = statistics
        self._clock = clock
        self._load_threads = load_threads
        self._importer = importer or NoImports()
        self._optimizer = optimizer or NoOptimizing()
        self._imports: dict[VersionId, asyncio.Task[Path]] = {}
        self._tidy = tidy
        self._loading = 0
        self._closing = False
        self._targets: dict[str, Known] = {}
        self._aimed = 0
        self._served: dict[VersionId, ServedVersion] = {}
        # Names with planned loads for which no thread was free, in order of arrival.
        self._waiting: dict[str, None] = {}
        self._quiet: dict[str, list[asyncio.Future[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._load_pool = ThreadPoolExecutor(load_threads, thread_name_prefix="tq-load")
        self._close_pool = ThreadPoolExecutor(2, thread_name_prefix="tq-close")

    # -- targets

    @property
    def targets(self) -> Mapping[str, Known]:
        """The models that should serve, by name."""
        return self._targets

    @property
    def revision(self) -> int:
        """Grows whenever a target, a row or the catalogue changes."""
        return self.table.revision + self._aimed

    def aim(self, name: str, known: Known | None) -> None:
        """From now on `name` should serve as `known` says; None: not at all. Begins what that takes at once.

        While closing nothing new is begun.
        """
        before = self._targets.pop(name, None)
        self._aimed += 1
        with self.holding(known):
            if known is not None and not self._closing:
                self._targets[name] = known
                if known.upload is not None:
                    known.upload.hold()
            if before is not None and before.upload is not None:
                self._drop(before.upload)
            self._reconcile(name)

    @contextlib.contextmanager
    def holding(self, known: Known | None) -> Iterator[None]:
        """Keep the uploaded files of `known` while this lasts; afterwards they go unless something else holds them."""
        upload = known.upload if known is not None else None
        if upload is not None:
            upload.hold()
        try:
            yield
        finally:
            if upload is not None:
                self._drop(upload)

    def aim_all(self, models: Mapping[str, Known]) -> None:
        """`aim` for every name, those that are gone included; unchanged models cost one comparison."""
        for name in [name for name in self._targets if name not in models]:
            self.aim(name, None)
        for name, known in models.items():
            if self._targets.get(name) != known:
                self.aim(name, known)

    def retry(self, name: str) -> None:
        """Forget the failures of `name`, so that the next `aim` tries again."""
        self.table.forget(name, lambda row: row.failed)

    async def quiet(self, names: Iterable[str]) -> None:
        """Wait until nothing of `names` is being loaded or waits for it."""
        for name in names:
            if self._is_busy(name):
                future = asyncio.get_running_loop().create_future()
                self._quiet.setdefault(name, []).append(future)
                await future

    async def idle(self) -> None:
        """Wait until nothing at all is being loaded, drained or closed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def retire_all(self) -> None:
        """Unload everything, and begin nothing any more."""
        self._closing = True
        self.aim_all({})

    async def close(self) -> None:
        """`retire_all`, then end the threads. Waits for loads (they cannot be stopped), leases and batches.

        Imports and optimisations are stopped: a restart begins them anew.
        """
        self.retire_all()
        await self._optimizer.close()
        await self.idle()
        self._load_pool.shutdown(wait=False)
        self._close_pool.shutdown(wait=False)

    # -- obeying the plan

    def _reconcile(self, name: str) -> None:
        """Do what the plan says for `name` now; what finds no free thread waits."""
        self._waiting.pop(name, None)
        known = self._targets.get(name)
        if not self.remembers_unloaded:
            there = known.folder.versions if known is not None else {}
            self.table.forget(name, lambda row: row.id.version not in there)
        if known is not None and (past := taken_back(known, self.table.of(name))):
            self.table.forget(name, lambda row: row.id in past)
        rows = self.table.of(name)
        views = {name: view_of(known, rows)} if known is not None else {}
        self._stop_imports(rows, views.get(name))
        busy_here = sum(row.state is State.LOADING for row in rows)
        retired: list[ServedVersion] = []
        for action in plan(views, rows, busy_here + self._load_threads - self._loading):
            match action:
                case Load():
                    assert known is not None
                    self._begin(known, action)
                case Unload(version):
                    self.table.apply(version, Event.RETIRE)
                    self._optimizer.forget(version)
                    retired.append(self._served.pop(version))
        # One step: the old generation leaves the catalogue and the new one enters it between two requests.
        self._publish(name)
        for served in retired:
            self._spawn(self._drain(served))
        if known is not None:
            rest = plan_model(view_of(known, self.table.of(name)), self.table.of(name))
            if any(isinstance(action, Load) for action in rest):
                self._waiting[name] = None
        if not self._is_busy(name):
            for future in self._quiet.pop(name, []):
                if not future.done():
                    future.set_result(None)

    def _is_busy(self, name: str) -> bool:
        return name in self._waiting or any(row.state is State.LOADING for row in self.table.of(name))

    def _publish(self, name: str) -> None:
        mine = [self._served[row.id] for row in self.table.of(name) if row.state is State.READY]
        changed: dict[str, ServedModel] = dict(self.catalogue)
        changed.pop(name, None)
        changed.update(catalogue(mine))
        self.catalogue = changed

    def _begin(self, known: Known, load: Load) -> None:
        self.table.begin(load)
        if known.upload is not None:
            known.upload.hold()
        _log.info("loading %s", load.id.key, extra=_facts(load.id, "load_started"))
        order = import_of(known, load)
        if order is None:
            # Counted at once, so that the next plan knows that a thread is taken.
            self._loading += 1
            self._spawn(self._load(recipe_of(known, load), known.upload))
        else:
            task = asyncio.get_running_loop().create_task(
                self._importer.bring(order, partial(self._say_import, order.id))
            )
            self._imports[order.id] = task
            self._spawn(self._import_and_load(known, load, order, task))

    async def _import_and_load(self, known: Known, load: Load, order: ImportOrder, task: asyncio.Task[Path]) -> None:
        """An import takes no load thread while it lasts, so that it keeps no other model waiting."""
        reason = ""
        try:
            await asyncio.wait((task,))
            if task.cancelled():
                raise Unavailable(f"the import of {order.source.shown} was stopped before its end")
            path = task.result()
        except ServingError as exc:
            reason = exc.message
        except Exception as exc:  # noqa: BLE001  whatever an import meets must cost this version and nothing else
            reason = self._unforeseen(exc, order.id, "importing")
        finally:
            self._imports.pop(order.id, None)
        if reason:
            self._refuse(order.id, reason, known.upload)
            self._reconcile(order.id.name)
        else:
            self.table.remark(order.id, "imported; loading")
            self._loading += 1
            await self._load(recipe_of(known, load, path), known.upload)

    def _stop_imports(self, rows: Sequence[Row], view: ModelView | None) -> None:
        """End imports of what is not there any more, or not as it was: they take long, and nobody wants the result."""
        if view is not None and view.frozen:
            return
        for row in rows:
            task = self._imports.get(row.id)
            if task is not None and (view is None or view.versions.get(row.id.version) != row.stamp):
                task.cancel()

    def _say_import(self, version: VersionId, text: str) -> None:
        self.table.remark(version, f"importing: {text}")
        _log.info("importing %s: %s", version.key, text, extra=_facts(version, "import_progress"))

    async def _load(self, recipe: Recipe, upload: Upload | None) -> None:
        loop = asyncio.get_running_loop()
        loaded: LoadedVersion | None = None
        reason = ""
        try:
            loaded = await loop.run_in_executor(self._load_pool, self._load_in_thread, recipe)
            self._admit(loaded, upload)
        except ServingError as exc:
            reason = exc.message
        except Exception as exc:  # noqa: BLE001  a backend may raise anything; it must cost this version and nothing else
            reason = self._unforeseen(exc, recipe.id, "loading")
        if reason and loaded is not None:
            await loop.run_in_executor(self._close_pool, close_sessions, loaded.distinct_sessions())
        self._loading -= 1
        if reason:
            self._refuse(recipe.id, reason, upload)
        self._reconcile(recipe.id.name)
        while self._waiting and self._loading < self._load_threads:
            self._reconcile(next(iter(self._waiting)))
        if loaded is not None and recipe.id in self._served:
            self._optimizer.consider(recipe, loaded)

    @staticmethod
    def _unforeseen(error: Exception, version: VersionId, doing: str) -> str:
        """Log what nobody expected; the reason to show for it."""
        error_id = secrets.token_hex(4)
        _log.error("%s %s failed, error id %s", doing, version.key, error_id, exc_info=error)
        what = "out of memory" if isinstance(error, MemoryError) else "internal error"
        return f"{what} while {doing} the model (error id {error_id}, see the server's log)"

    def _load_in_thread(self, recipe: Recipe) -> LoadedVersion:
        loaded = self._loader.load(recipe)
        try:
            self._tidy()
        except BaseException:
            close_sessions(loaded.distinct_sessions())
            raise
        return loaded

    def _admit(self, loaded: LoadedVersion, upload: Upload | None) -> None:
        """`loaded` becomes READY; the caller reconciles in the same step."""
        stats = self._statistics.of(loaded.id.key)
        batcher = self._make_batcher(
            loaded.sessions,
            loaded.signature,
            loaded.effective.config.batching or BatchingConfig(),
            stats=stats,
            clock=self._clock,
            loop=asyncio.get_running_loop(),
            inline=loaded.inline,
            stays_inline=loaded.effective.config.execution.inline is InlineRun.ALWAYS,
        )
        if self._replaces(loaded.id):
            self._statistics.swaps[loaded.id.name].swapped += 1
        self._served[loaded.id] = ServedVersion(loaded, batcher, stats, upload)
        self.table.apply(loaded.id, Event.LOADED)
        stats.loads += 1
        stats.load_seconds = loaded.load_ns / 1e9
        stats.loaded_ms = self._clock.wall_ms()
        facts = _facts(loaded.id, "model_ready") | {"load_ms": loaded.load_ns // 1_000_000, **loaded.properties}
        _log.info("%s is READY (%s)", loaded.id.key, _summary(loaded), extra=facts)
        for note in loaded.effective.config.notes:
            _log.info("%s: %s", loaded.id.key, note, extra=_facts(loaded.id, "model_note"))
        for note in loaded.notes:
            _log.warning("%s: %s", loaded.id.key, note, extra=_facts(loaded.id, "model_note"))

    def _refuse(self, version: VersionId, reason: str, upload: Upload | None) -> None:
        self._statistics.of(version.key).load_failures += 1
        if self._replaces(version):
            self._statistics.swaps[version.name].failed += 1
        self.table.apply(version, Event.FAILED, reason)
        if upload is not None:
            self._drop(upload)
        _log.error("failed to load %s: %s", version.key, reason, extra=_facts(version, "load_failed"))

    def _replaces(self, version: VersionId) -> bool:
        """Whether something that serves leaves when `version`, which is LOADING, becomes READY."""
        known, rows = self._targets.get(version.name), self.table.of(version.name)
        return known is not None and replaces(view_of(known, rows), rows, version)

    async def _drain(self, served: ServedVersion) -> None:
        version = served.id
        _log.info("unloading %s", version.key, extra=_facts(version, "unload_started"))
        await served.drained()
        try:
            await served.batcher.close()
        except Exception:  # noqa: BLE001  its sessions must be closed all the same
            _log.exception("the batcher of %s did not close cleanly", version.key)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._close_pool, close_sessions, served.loaded.distinct_sessions())
        if served.upload is not None:
            self._drop(served.upload)
        self.table.apply(version, Event.DRAINED, UNLOADED)
        _log.info("unloaded %s", version.key, extra=_facts(version, "unloaded"))
        self._reconcile(version.name)

    # -- helpers

    def _drop(self, upload: Upload) -> None:
        if upload.drop():
            self._spawn(self._delete(upload))

    async def _delete(self, upload: Upload) -> None:
        await asyncio.get_running_loop().run_in_executor(self._close_pool, upload.delete)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        with contextlib.suppress(asyncio.CancelledError):
            failure = task.exception()
            if failure is not None:
                _log.critical("a lifecycle task died", exc_info=failure)


def _facts(version: VersionId, event: str) -> dict[str, object]:
    return {
        "event": event,
        "model": version.name,
        "model_version": version.version,
        "generation": version.generation,
    }


def _summary(loaded: LoadedVersion) -> str:
    batches = (
        f"batches up to {loaded.signature.max_batch_size}"
        if loaded.signature.batches
        else f"no batching: {loaded.signature.unbatched_because or 'as configured'}"
    )
    where = ",".join(loaded.placement.providers)
    return f"{where}, {loaded.properties.get('instances', '?')} instance(s), {batches}"
