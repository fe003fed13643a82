"""The engine from real parts, without sockets, on an event loop of its own thread: the in-process door's inside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tensorquay.backends.registry import BackendRegistry
from tensorquay.batching.batcher import Batcher
from tensorquay.config.effective import Defaults
from tensorquay.config.server import ServerConfig
from tensorquay.core.clock import SystemClock
from tensorquay.core.messages import ServerMetadata
from tensorquay.engine import AdmissionLimits, InferenceEngine
from tensorquay.lifecycle.fleet import Fleet
from tensorquay.lifecycle.loader import Loader
from tensorquay.lifecycle.manager import ModelManager
from tensorquay.lifecycle.settings import LifecycleSettings
from tensorquay.shared_memory import SharedMemoryRegistry
from tensorquay.telemetry.log_settings import LogSettings
from tensorquay.telemetry.logs import Logs
from tensorquay.telemetry.statistics import StatisticsTable
from tensorquay.telemetry.tracing import TraceRecorder

T = TypeVar("T")

_TIMEOUT_S = 60


class EngineHouse:
    """An engine that serves `repository`; coroutines are run on its loop from any other thread. Close it."""

    def __init__(self, repository: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-house", daemon=True)
        self._thread.start()
        self._manager, self.engine = self.call(_compose(ServerConfig(model_repository=(repository,))))
        report = self.call(self._manager.start())
        assert not report.failed, report.failed

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns or raises."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    def close(self) -> None:
        """Unload everything and end the loop."""
        self.call(self._manager.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()


async def _compose(config: ServerConfig) -> tuple[ModelManager, InferenceEngine]:
    """As `app.py` puts the parts together."""
    clock = SystemClock()
    statistics = StatisticsTable(clock)
    registry = BackendRegistry()
    fleet = Fleet(
        Loader(
            lambda declared: registry.get(declared.backend or "onnxruntime"),
            thread_budget=2,
            clock=clock,
            defaults=Defaults(max_batch_size=config.default_max_batch_size),
        ),
        partial(Batcher, max_pending=config.max_queue_requests),
        statistics,
        clock=clock,
        load_threads=2,
    )
    settings = LifecycleSettings(mode=config.model_control_mode)
    manager = ModelManager(config.model_repository, settings, fleet, clock=clock)
    engine = InferenceEngine(
        manager,
        statistics=statistics,
        clock=clock,
        identity=ServerMetadata(config.server_id, "0", ("classification",)),
        limits=AdmissionLimits(config.max_inflight_requests, config.max_inflight_bytes),
        regions=SharedMemoryRegistry(enabled=False),
        traces=TraceRecorder(config),
        log_settings=LogSettings(Logs(config)),
    )
    return manager, engine
