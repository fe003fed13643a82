"""Bring the ONNX model for a dropped source: from the cache, or by an import, one at a time. Loop-confined."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from tensorquay.core.errors import ModelFailed
from tensorquay.importing.cache import MODEL, ImportCache
from tensorquay.importing.command import ImportLimits, ImportTask, run_import
from tensorquay.importing.declared import declared_arguments
from tensorquay.importing.digest import digest_of, refuse_if_changed
from tensorquay.lifecycle.imports import SayProgress
from tensorquay.lifecycle.recipe import ImportOrder
from tensorquay.telemetry.jobs import JobCounters

_log = logging.getLogger("tensorquay.importing")

RunImport = Callable[[ImportTask, ImportLimits, SayProgress], Awaitable[None]]


class ImportService:
    """See `lifecycle.imports.ImportsModels`.

    One import at a time: each takes as much memory and as many cores as it can get, and the server still serves.

    Args: run: `command.run_import`; tests bring their own.
    """

    def __init__(self, cache: ImportCache, limits: ImportLimits, *, run: RunImport = run_import) -> None:
        self._cache = cache
        self._limits = limits
        self._run = run
        self._turn = asyncio.Semaphore(1)
        self.counters = JobCounters(("imported", "reused", "failed", "stopped"))
        """Imports; "reused": the cache had the same files' result."""

    async def bring(self, order: ImportOrder, say: SayProgress) -> Path:
        """See `ImportsModels.bring`."""
        try:
            path, made = await self._bring(order, say)
        except asyncio.CancelledError:
            self.counters.ended("stopped")
            raise
        except Exception:
            self.counters.ended("failed")
            raise
        self.counters.ended("imported" if made else "reused")
        return path

    async def _bring(self, order: ImportOrder, say: SayProgress) -> tuple[Path, bool]:
        """The model, and whether it was imported just now."""
        digest = await asyncio.to_thread(digest_of, order)
        found = await asyncio.to_thread(self._cache.find, digest)
        if found is not None:
            return found, False
        if self._turn.locked():
            say("waiting for another import to end")
        async with self._turn:
            # Whoever had the turn may have imported the same files.
            found = await asyncio.to_thread(self._cache.find, digest)
            if found is not None:
                return found, False
            say(f"{order.source.shown} ({order.source.name})")
            with self.counters.one():
                return await self._import(order, digest, say), True

    async def _import(self, order: ImportOrder, digest: str, say: SayProgress) -> Path:
        stage = await asyncio.to_thread(self._cache.stage)
        try:
            made = stage / "made"
            # Not the kind its name promises: the import looks at what the file really is.
            options = (f"--name={order.id.name}", *declared_arguments(order))
            report = await asyncio.to_thread(self._cache.report_folder, digest)
            await self._run(ImportTask(order.source.path, options, made, report), self._limits, say)
            if not (made / MODEL).is_file():
                raise ModelFailed("the import ended well and left no model")
            await asyncio.to_thread(refuse_if_changed, order)
            path = await asyncio.to_thread(self._cache.keep, digest, made)
        finally:
            # Not in a thread: whoever was cancelled may not wait again, and little is there.
            shutil.rmtree(stage, ignore_errors=True)
        _log.info(
            "imported %s from %s", order.id.key, order.source.shown, extra={"event": "imported", "model": order.id.name}
        )
        return path
