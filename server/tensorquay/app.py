"""Composition root: with `doors.py` the only file that names concrete classes; the order in which they start and stop.

Start: logs, ports (a taken one is said at once), doors (so that probes are answered while models load), models. Stop,
in reverse: not ready and nothing new, answer what was accepted, doors, models, traces, logs. The first signal begins
that; a second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import sys
from collections.abc import Awaitable, Iterator
from functools import partial
from pathlib import Path

from tensorquay import __version__
from tensorquay.backends.api import Backend
from tensorquay.backends.registry import DEFAULT, BackendRegistry
from tensorquay.banner import banner
from tensorquay.batching.batcher import Batcher
from tensorquay.config.effective import Defaults
from tensorquay.config.machine import cpu_facts
from tensorquay.config.model import ModelConfig
from tensorquay.config.resources import cpu_budget
from tensorquay.config.server import ControlMode, ServerConfig
from tensorquay.config.surroundings import otel_variables, user_cache
from tensorquay.core.clock import SystemClock
from tensorquay.core.collector import relax
from tensorquay.core.errors import ServingError
from tensorquay.core.messages import ServerMetadata
from tensorquay.doors import OpenDoors
from tensorquay.engine import AdmissionLimits, InferenceEngine
from tensorquay.figures import Figures, FrontEndFigures
from tensorquay.importing.cache import ImportCache
from tensorquay.importing.command import ImportLimits
from tensorquay.importing.service import ImportService
from tensorquay.lifecycle.fleet import Fleet
from tensorquay.lifecycle.imports import ImportsModels, NoImports
from tensorquay.lifecycle.loader import Loader
from tensorquay.lifecycle.manager import ModelManager
from tensorquay.lifecycle.optimizes import NoOptimizing, OptimizesVersions
from tensorquay.lifecycle.settings import LifecycleSettings, StartReport
from tensorquay.live.feed import LiveFeed, Subject
from tensorquay.live.process import Inside, Process
from tensorquay.optimizing.command import OptimizeLimits
from tensorquay.optimizing.memory import OutcomeMemory
from tensorquay.optimizing.service import OptimizeService
from tensorquay.repository.snapshot import RepositoryUnreadable
from tensorquay.shared_memory import SharedMemoryRegistry
from tensorquay.telemetry.devices import Devices
from tensorquay.telemetry.log_settings import LogSettings
from tensorquay.telemetry.logs import Logs
from tensorquay.telemetry.otel import TracingUnusable, span_recorder
from tensorquay.telemetry.statistics import StatisticsTable
from tensorquay.telemetry.tracing import TraceRecorder
from tensorquay.transport.event_loop import loop_factory

_log = logging.getLogger("tensorquay")

EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
    f"tensorquay({__version__})",
)
"""What `/v2` lists. The last one states the product: clients expect the name to be "triton"."""

_LINGER_S = 0.25
"""How long the doors stay open after the last accepted request: clients on kept connections hear "close" instead of a
reset."""

_TELL_TIMEOUT_S = 1.0
"""How long the server waits for whoever reads what it prints."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: ServerConfig) -> int:
    """Serve until told to stop. Returns the process's exit status: 0 when everything accepted was answered."""
    logs = Logs(config)
    try:
        logs.start()
    except OSError as error:
        _complain(f"cannot write the log file '{config.log_file}': {error.strerror or error}")
        return 1
    relax()
    try:
        server = _Server(config, logs)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            code = runner.run(server.serve())
    except TracingUnusable as error:
        _complain(error.message)
        return 1
    finally:
        logs.close()
    if logs.stuck:
        # The interpreter would wait for that thread's lock on standard error.
        os._exit(code)
    _give_up_broken_streams()
    return code


def _give_up_broken_streams() -> None:
    """What a closed pipe never took must not decide the exit status: Python flushes again at its end and says 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _complain(sentence: str) -> None:
    _tell(2, f"tensorquay: {sentence}\n")


def _tell(descriptor: int, text: str) -> None:
    """Write to standard output (1) or error (2), if somebody takes it.

    Not through `sys.stderr`: a thread that writes the log may hang in it, because nobody empties the pipe behind it or
    the terminal is held. What cannot be told must not stop the server, least of all from stopping.
    """
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data and select.select((), (descriptor,), (), _TELL_TIMEOUT_S)[1]:
            data = data[os.write(descriptor, data[: select.PIPE_BUF]) :]
    except OSError:
        return  # closed, or full: nobody is there to be told


class _Server:
    """One run of the server: everything that lives from start to stop."""

    def __init__(self, config: ServerConfig, logs: Logs) -> None:
        self._config = config
        self._logs = logs
        self._clock = SystemClock()
        budget = cpu_budget()
        self._threads = config.threads or budget.threads
        self._threads_because = (
            f"{config.threads}, as configured ({config.origin('threads')})" if config.threads else budget.reason
        )
        self._registry = BackendRegistry()
        self._statistics = StatisticsTable(self._clock)
        self._devices = Devices(self._clock)
        self._traces = TraceRecorder(config)
        self._spans = span_recorder(config, otel_variables(), version=__version__, clock=self._clock)
        self._importer = _importer(config)
        self._optimizer = _optimizer(config, self._threads)
        self._manager = self._make_manager()
        self._engine = InferenceEngine(
            self._manager,
            statistics=self._statistics,
            clock=self._clock,
            identity=ServerMetadata(config.server_id, __version__, EXTENSIONS),
            limits=AdmissionLimits(config.max_inflight_requests, config.max_inflight_bytes),
            regions=SharedMemoryRegistry(enabled=config.allow_client_shm),
            traces=self._traces,
            log_settings=LogSettings(logs),
            strict_readiness=config.strict_readiness,
        )
        self._started_ms = self._clock.wall_ms()
        self._feed = self._make_feed()
        self._doors = OpenDoors(config, self._engine, self._feed, clock=self._clock, spans=self._spans)
        self._figures = self._make_figures()

    async def serve(self) -> int:
        """The whole life, in order."""
        stopping = asyncio.Event()
        with self._signals(stopping):
            try:
                await self._doors.open(self._figures.render)
            except ServingError as error:
                _complain(error.message)
                await self._doors.shut(0)
                return 1
            self._feed.start()
            self._figures.start()
            starting = asyncio.ensure_future(self._manager.start())
            stop_asked = asyncio.ensure_future(stopping.wait())
            await asyncio.wait((starting, stop_asked), return_when=asyncio.FIRST_COMPLETED)
            failed = False
            if starting.done() and not stopping.is_set():
                failed = not self._started(starting)
            if not failed:
                await stop_asked
            starting.cancel()
            stop_asked.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            clean = await self._stop()
        return 1 if failed or not clean else 0

    # -- start

    def _make_manager(self) -> ModelManager:
        config = self._config
        fleet = Fleet(
            Loader(
                self._backend_for,
                thread_budget=self._threads,
                clock=self._clock,
                defaults=Defaults(max_batch_size=config.default_max_batch_size),
                cpu=cpu_facts(),
            ),
            partial(Batcher, max_pending=config.max_queue_requests, spans=self._spans, devices=self._devices),
            self._statistics,
            clock=self._clock,
            load_threads=config.model_load_thread_count,
            importer=self._importer,
            optimizer=self._optimizer,
        )
        settings = LifecycleSettings(
            mode=config.model_control_mode,
            load_models=config.load_model,
            poll_s=config.repository_poll_secs,
            settle_s=config.settle_secs,
        )
        return ModelManager(config.model_repository, settings, fleet, clock=self._clock)

    def _backend_for(self, declared: ModelConfig) -> Backend:
        name = declared.backend or declared.platform.removesuffix("_onnx") or DEFAULT
        return self._registry.get(name)

    def _make_figures(self) -> Figures:
        doors, importer, optimizer = self._doors, self._importer, self._optimizer
        return Figures(
            self._statistics,
            self._manager,
            self._engine.admission,
            frontends=FrontEndFigures(doors.frontend_counts, doors.frontend_pids) if self._config.frontends else None,
            imports=importer.counters if isinstance(importer, ImportService) else None,
            optimizations=optimizer.counters if isinstance(optimizer, OptimizeService) else None,
            devices=self._devices,
            spans=None if self._spans is None else self._spans.counts,
        )

    def _make_feed(self) -> LiveFeed:
        process = Process(self._inside, lambda: self._doors.frontend_pids())  # noqa: PLW0108  the doors are made after the feed
        subject = Subject(
            self._statistics,
            self._manager,
            process.read,
            self._hello,
            may_load=self._config.model_control_mode is ControlMode.EXPLICIT,
        )
        return LiveFeed(subject, clock=self._clock)

    def _inside(self) -> Inside:
        admission = self._engine.admission
        refused = admission.refused_requests + admission.refused_bytes + sum(self._statistics.refusals.values())
        return Inside(admission.requests, admission.bytes, refused)

    def _hello(self) -> dict[str, object]:
        config, ports = self._config, self._doors.ports()
        return {
            "name": config.server_id,
            "version": __version__,
            "started_ms": self._started_ms,
            "control_mode": config.model_control_mode.value,
            "threads": self._threads,
            "threads_because": self._threads_because,
            "frontends": config.frontends,
            "console": self._doors.has_console,
            "extensions": EXTENSIONS,
            **{f"{name}_port": port for name, port in ports.items()},
        }

    def _started(self, starting: asyncio.Future[StartReport]) -> bool:
        """Tell how the start went; False when the process must end."""
        try:
            report = starting.result()
        except RepositoryUnreadable as error:
            _complain(str(error))
            return False
        except ServingError as error:
            _complain(error.message)
            return False
        problems = [problem for model in report.failed for problem in _named(model.name, model.problems)]
        if problems and self._config.exit_on_error:
            for problem in problems:
                _complain(problem)
            _complain("not all models could be loaded; --exit-on-error=false serves the others")
            return False
        reason = self._threads_because
        _tell(
            1, banner(self._manager.catalogue, self._doors.addresses(), threads_because=reason, failed=problems) + "\n"
        )
        _log.info("ready" if self._engine.ready() else "started, not ready", extra={"event": "started"})
        return True

    # -- stop

    @contextlib.contextmanager
    def _signals(self, stopping: asyncio.Event) -> Iterator[None]:
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            if stopping.is_set():
                # The operator has no patience left: no drain, no cleaning.
                os._exit(128 + number)
            _log.info("stopping on %s", signal.Signals(number).name, extra={"event": "stopping"})
            self._begin_drain()
            stopping.set()

        for number in _SIGNALS:
            loop.add_signal_handler(number, stop, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _begin_drain(self) -> None:
        self._engine.begin_drain()
        self._feed.end()
        self._doors.drain()

    async def _stop(self) -> bool:
        """Answer what was accepted, then close everything. False when the time ran out before that."""
        deadline_s = asyncio.get_running_loop().time() + self._config.exit_timeout_secs
        self._begin_drain()
        clean = await self._within(deadline_s, self._engine.drained(), "requests were still being served")
        await asyncio.sleep(min(_LINGER_S, self._left_s(deadline_s)))
        await self._doors.shut(self._left_s(deadline_s))
        await self._feed.close()
        clean &= await self._within(deadline_s, self._manager.close(), "models were still being unloaded")
        self._figures.stop()
        self._traces.close()
        if self._spans is not None:
            self._spans.close()
        if not clean:
            # A native call that does not return would keep the interpreter from ending.
            self._logs.close()
            _complain("stopped before everything was finished (--exit-timeout-secs)")
            os._exit(1)
        return clean

    async def _within(self, deadline_s: float, work: Awaitable[None], otherwise: str) -> bool:
        try:
            async with asyncio.timeout(self._left_s(deadline_s)):
                await work
        except TimeoutError:
            _log.error("exit timeout: %s", otherwise, extra={"event": "exit_timeout"})
            return False
        return True

    @staticmethod
    def _left_s(deadline_s: float) -> float:
        return max(deadline_s - asyncio.get_running_loop().time(), 0.0)


def _import_cache(config: ServerConfig) -> Path:
    return config.import_cache or user_cache() / "tensorquay" / "imports"


def _optimizer(config: ServerConfig, threads: int) -> OptimizesVersions:
    if not config.auto_optimize:
        return NoOptimizing()
    memory = OutcomeMemory(_import_cache(config) / "optimizations")
    limits = OptimizeLimits(threads, config.optimize_memory_bytes)
    return OptimizeService(config.model_repository, memory, mode=config.model_control_mode, limits=limits)


def _importer(config: ServerConfig) -> ImportsModels:
    if not config.auto_import:
        return NoImports()
    root = _import_cache(config)
    limits = ImportLimits(config.import_timeout_secs, config.import_memory_bytes, config.import_python)
    return ImportService(ImportCache(root, max_bytes=config.import_cache_bytes), limits)


def _named(model: str, problems: tuple[str, ...]) -> list[str]:
    """Every problem with its model named once. A quoted name alone does not count: it may stand there by chance."""
    phrases = (f"model '{model}'", f"failed to load '{model}'")
    return [
        problem if any(phrase in problem for phrase in phrases) else f"model '{model}': {problem}"
        for problem in problems
    ]
