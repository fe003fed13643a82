"""A repository in a temporary folder, a fake backend, and a manager over both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tensorquay.batching.batcher import Batcher
from tensorquay.config.machine import CpuFacts
from tensorquay.config.server import ControlMode
from tensorquay.core.clock import SystemClock
from tensorquay.lifecycle.fleet import Fleet
from tensorquay.lifecycle.loader import Loader
from tensorquay.lifecycle.manager import ModelManager
from tensorquay.lifecycle.settings import LifecycleSettings
from tensorquay.telemetry.statistics import StatisticsTable
from tensorquay.testing.fake_backend import FakeBackend


class Repo:
    """Writes models whose content a fake backend never reads. Every drop differs from the one before."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._drops = 0

    def drop(self, name: str, version: int, *, content: str = "") -> Path:
        self._drops += 1
        folder = self.root / name / str(version)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "model.onnx"
        path.write_text(content or f"drop {self._drops}")
        os.utime(path, ns=(self._drops, self._drops))
        return path

    def config(self, name: str, text: str, file: str = "config.pbtxt") -> None:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)


class World:
    """A manager and what it works on; closes whatever it opened."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.backend = FakeBackend()
        self.clock = SystemClock()
        self.statistics = StatisticsTable(self.clock)
        self.opened: list[ModelManager] = []
        self.sleeps: asyncio.Queue[float] = asyncio.Queue()
        self.wake: asyncio.Queue[None] = asyncio.Queue()
        self.fleet: Fleet
        self.importer: Any = None
        self.optimizer: Any = None
        self.cpu: CpuFacts | None = None
        self.threads = 1

    async def sleep(self, seconds: float) -> None:
        self.sleeps.put_nowait(seconds)
        await self.wake.get()

    def manager(
        self,
        mode: ControlMode = ControlMode.POLL,
        *,
        roots: list[Path] | None = None,
        make_batcher: Any = None,
        load_threads: int = 4,
        **settings: Any,
    ) -> ModelManager:
        loader = Loader(lambda _: self.backend, thread_budget=self.threads, clock=self.clock, cpu=self.cpu)
        self.fleet = Fleet(
            loader,
            make_batcher or partial(Batcher, max_pending=0),
            self.statistics,
            clock=self.clock,
            load_threads=load_threads,
            importer=self.importer,
            optimizer=self.optimizer,
            tidy=lambda: None,
        )
        settings.setdefault("settle_s", 0.0)
        manager = ModelManager(
            roots or [self.repo.root],
            LifecycleSettings(mode, **settings),
            self.fleet,
            clock=self.clock,
            sleep=self.sleep,
        )
        self.opened.append(manager)
        return manager

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let threads and the loop go on until `holds`; the test's own time-out bounds it."""
        while not holds():
            # Not 0: a loop that never blocks may keep the interpreter from the threads it waits for.
            await asyncio.sleep(0.001)

    async def looked(self, manager: ModelManager) -> None:
        """One look, and everything that followed from it."""
        await manager.look()
        await manager.idle()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    root = tmp_path / "models"
    root.mkdir()
    return Repo(root)


@pytest.fixture
async def world(repo: Repo) -> AsyncIterator[World]:
    world = World(repo)
    yield world
    for manager in world.opened:
        async with asyncio.timeout(20):
            await manager.close()
    assert world.backend.live_sessions == 0, "a session was never closed"
