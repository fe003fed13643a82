"""Optimise versions in the background, one at a time, when their configuration asks for it. Loop-confined.

Never again what was tried: neither in this process, nor, as far as the memory can be written, after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tensorquay.config.model import BackgroundOptimization, InstanceKind, SpecificVersions
from tensorquay.config.server import ControlMode
from tensorquay.core.errors import ServingError
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.lease import LoadedVersion
from tensorquay.lifecycle.recipe import Recipe
from tensorquay.optimizing.command import OptimizeLimits, OptimizeTask, Outcome, Result, run_optimize
from tensorquay.optimizing.memory import OutcomeMemory
from tensorquay.optimizing.source import CannotOptimize, Source, Stopped, find_source, published_since
from tensorquay.telemetry.jobs import JobCounters

_log = logging.getLogger("tensorquay.optimizing")

RunOptimize = Callable[[OptimizeTask, OptimizeLimits, Callable[[str], None]], Awaitable[Outcome]]

_THEN = {
    ControlMode.POLL: "it is loaded at the next look at the repository",
    ControlMode.NONE: "a restart serves it, or --model-control-mode=poll at once",
    ControlMode.EXPLICIT: "it is served when the model is loaded again",
}


class OptimizeService:
    """See `lifecycle.optimizes.OptimizesVersions`.

    Args:
        roots: the model repositories.
        limits: of each run; the server's thread budget holds for them too.
        run: `command.run_optimize`; tests bring their own.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        memory: OutcomeMemory,
        *,
        mode: ControlMode,
        limits: OptimizeLimits,
        run: RunOptimize = run_optimize,
    ) -> None:
        self._roots = tuple(roots)
        self._memory = memory
        self._mode = mode
        self._limits = limits
        self._run = run
        self._turn = asyncio.Semaphore(1)
        self._tasks: dict[VersionId, asyncio.Task[None]] = {}
        self._tried: set[str] = set()
        self._told: set[str] = set()
        self.counters = JobCounters(("optimized", "kept", "failed", "stopped"))
        """Optimisations that were begun; "kept": nothing better was found."""

    def consider(self, recipe: Recipe, loaded: LoadedVersion) -> None:
        """See `OptimizesVersions.consider`."""
        if not asks(recipe, loaded):
            return
        why_not = unsuitable(recipe, loaded)
        if why_not:
            self._say_once(f"{recipe.id.key}: not optimised in the background: {why_not}")
            return
        task = asyncio.get_running_loop().create_task(self._work(recipe, loaded))
        self._tasks[recipe.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(recipe.id, None))

    def forget(self, version: VersionId) -> None:
        """See `OptimizesVersions.forget`."""
        task = self._tasks.get(version)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """See `OptimizesVersions.close`."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def idle(self) -> None:
        """Wait until nothing is being optimised, nor waits for it."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def _work(self, recipe: Recipe, loaded: LoadedVersion) -> None:
        try:
            async with self._turn:
                await self._optimize(recipe, loaded)
        except Exception:  # noqa: BLE001  whatever this meets, the version serves on as it is
            _log.exception("optimising %s in the background failed", recipe.id.key)

    async def _optimize(self, recipe: Recipe, loaded: LoadedVersion) -> None:
        assert recipe.repository is not None
        root, key = self._roots[recipe.repository], recipe.id.key
        stop = threading.Event()
        try:
            source = await asyncio.to_thread(find_source, recipe, loaded, root, stop)
        except CannotOptimize as exc:
            if not exc.quiet:
                self._say_once(f"{key}: not optimised in the background: {exc}")
            return
        except Stopped:
            return
        finally:
            stop.set()
        known = await asyncio.to_thread(self._memory.recall, source.key)
        if known is not None or source.key in self._tried:
            before = known.sentence if known is not None else "it did not work"
            _log.info("%s: not optimised in the background again; the last time: %s", key, before)
            return
        self._tried.add(source.key)
        goals = loaded.effective.config.optimization
        report = await asyncio.to_thread(self._report_folder, source)
        task = OptimizeTask(recipe.id.name, root.absolute(), source.version, goals, source.data, source.labels, report)
        _log.info(
            "%s: optimising version %d in the background, for %g s or a little longer (%s)",
            *(key, source.version, goals.time_budget_s, loaded.advised.stale or "it was never optimised"),
            extra={"event": "optimization_started", "model": recipe.id.name},
        )
        try:
            with self.counters.one():
                outcome = await self._run(task, self._limits, lambda text: _log.debug("%s: %s", key, text))
        except ServingError as exc:
            self.counters.ended("failed")
            _log.warning("%s: not optimised in the background: %s", key, exc.message)
            return
        except asyncio.CancelledError:
            # Its result may already serve in the place of this version, which is why it was told to end.
            version = published_since(recipe, source)
            if version:
                self._end(recipe, loaded, source, Outcome(Result.OPTIMIZED, "it was optimised", version))
            else:
                self.counters.ended("stopped")
                self._tried.discard(source.key)
                _log.info("%s: the background optimisation was stopped; nothing was published", key)
            raise
        except Exception:
            self.counters.ended("failed")
            raise
        self._end(recipe, loaded, source, outcome)

    def _end(self, recipe: Recipe, loaded: LoadedVersion, source: Source, outcome: Outcome) -> None:
        """Tell and remember `outcome`. Not in a thread: whoever was cancelled may not wait again, and it is little."""
        key = recipe.id.key
        self.counters.ended(outcome.result.value)
        extra = {"event": "optimization_ended", "model": recipe.id.name, "result": outcome.result.value}
        match outcome.result:
            case Result.OPTIMIZED:
                fixed = isinstance(loaded.effective.config.version_policy, SpecificVersions)
                then = "the version policy does not serve it" if fixed else _THEN[self._mode]
                text = "%s: %s; version %d is published: %s"
                _log.info(text, key, outcome.sentence, outcome.version, then, extra=extra)
            case Result.KEPT:
                _log.info("%s: stays as it is: %s", key, outcome.sentence, extra=extra)
            case Result.FAILED:
                _log.warning("%s: the background optimisation failed: %s", key, outcome.sentence, extra=extra)
        if outcome.lasting:
            try:
                self._memory.remember(source.key, outcome)
            except OSError as exc:
                self._say_memory(exc)

    def _report_folder(self, source: Source) -> Path | None:
        try:
            return self._memory.report_folder(source.key)
        except OSError as exc:
            self._say_memory(exc)
            return None

    def _say_memory(self, exc: OSError) -> None:
        self._say_once(
            f"what came of background optimisations cannot be remembered ({exc.strerror}), so a restart tries again; "
            "--import-cache names a folder that can be written"
        )

    def _say_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            _log.warning("%s", text, extra={"event": "optimization_note"})


def asks(recipe: Recipe, loaded: LoadedVersion) -> bool:
    """Whether the configuration of `loaded` wants it optimised as it is now, and there is a folder to publish into."""
    wanted, advised = loaded.effective.config.optimization.background, loaded.advised
    if wanted is BackgroundOptimization.NEVER or recipe.repository is None:
        return False
    if advised.record is None:
        # A file that cannot be read leaves open what the version is; its note says so.
        return wanted is BackgroundOptimization.ALWAYS and not advised.notes
    return bool(advised.stale) and (bool(advised.record.winner) or wanted is BackgroundOptimization.ALWAYS)


def unsuitable(recipe: Recipe, loaded: LoadedVersion) -> str:
    """Why a version that asks for it is not optimised, as a clause; empty when it can be."""
    if recipe.imported is not None:
        return "it is imported when it is loaded; 'tensorquay import --optimize' does both"
    if loaded.kind is InstanceKind.GPU:
        return "it runs on a GPU, where measuring would hold up requests; 'tensorquay optimize --provider' does it"
    return ""
