"""Which versions are optimised in the background, from what, how often; and that nothing is ever done twice."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimized import CPU, RUNTIME, write_optimization
from tensorquay.backends.api import RuntimeFacts
from tensorquay.config.machine import CpuFacts
from tensorquay.config.model import InstanceKind
from tensorquay.config.server import ControlMode
from tensorquay.config.toml_file import parse_toml
from tensorquay.core.clock import SystemClock
from tensorquay.core.errors import Unavailable
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.lease import LoadedVersion
from tensorquay.lifecycle.loader import Loader, close_sessions
from tensorquay.lifecycle.recipe import Recipe
from tensorquay.optimizing.command import OptimizeLimits, OptimizeTask, Outcome, Result
from tensorquay.optimizing.memory import OutcomeMemory
from tensorquay.optimizing.service import OptimizeService
from tensorquay.repository.snapshot import SourceFiles
from tensorquay.testing.fake_backend import FakeBackend

KEPT = Outcome(Result.KEPT, "nothing is faster")
ALWAYS = '[optimization]\nbackground = "always"\n'
STALE = '[optimization]\nbackground = "stale"\n'
OTHER = CpuFacts("Test CPU 2", ("avx2",))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Command:
    """Instead of the real command: answers what the test wants, or publishes a version."""

    def __init__(self) -> None:
        self.tasks: list[OptimizeTask] = []
        self.running = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer: Outcome | Exception = KEPT
        self.publish: Callable[[OptimizeTask], None] | None = None

    async def __call__(self, task: OptimizeTask, _limits: OptimizeLimits, say: Callable[[str], None]) -> Outcome:
        self.tasks.append(task)
        self.running += 1
        self.most = max(self.most, self.running)
        say("trying")
        try:
            if self.publish is not None:
                self.publish(task)
            await self.gate.wait()
        finally:
            self.running -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class World:
    """A repository, a loader on a machine of the test's, and services that come and go as servers do."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root, self.cache = root, cache
        self.command = Command()
        self.backend = FakeBackend()
        self.backend.runtime = RUNTIME
        self.cpu = CPU
        self.services: list[OptimizeService] = []
        self.service = self.restart()

    def restart(self, mode: ControlMode = ControlMode.POLL) -> OptimizeService:
        memory = OutcomeMemory(self.cache)
        self.service = OptimizeService([self.root], memory, mode=mode, limits=OptimizeLimits(2), run=self.command)
        self.services.append(self.service)
        return self.service

    def drop(self, version: int = 1, content: str = "weights", name: str = "m") -> Path:
        path = self.root / name / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def optimized(self, version: int = 2, source: int = 1, **changes: Any) -> Path:
        """A version that was made from `source`."""
        made = self.drop(version, f"faster {version}")
        baseline = {"version": source, "sha256": sha256(self.root / f"m/{source}/model.onnx")}
        write_optimization(made.parent, baseline=baseline, **changes)
        return made

    def load(self, config: str, version: int = 1, name: str = "m") -> tuple[Recipe, LoadedVersion]:
        folder = self.root / name
        path = folder / str(version) / "model.onnx"
        recipe = Recipe(VersionId(name, version, 1), folder, path, parse_toml(config), repository=0)
        loader = Loader(lambda _: self.backend, thread_budget=2, clock=SystemClock(), cpu=self.cpu)
        loaded = loader.load(recipe)
        close_sessions(loaded.distinct_sessions())
        return recipe, loaded

    async def ready(self, config: str, version: int = 1, name: str = "m") -> None:
        """That version has become READY, and whatever follows from it is done."""
        self.service.consider(*self.load(config, version, name))
        await self.service.idle()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "models").mkdir()
    world = World(tmp_path / "models", tmp_path / "cache")
    yield world
    for service in world.services:
        await service.close()
    assert world.command.running == 0


@pytest.mark.parametrize(
    ("config", "machine", "runs"),
    [("", CPU, 0), (STALE, CPU, 0), (ALWAYS, CPU, 1), ("", OTHER, 0), (STALE, OTHER, 0), (ALWAYS, OTHER, 1)],
)
async def test_a_version_that_was_never_optimised(world: World, config: str, machine: CpuFacts, runs: int) -> None:
    world.drop()
    world.cpu = machine
    await world.ready(config)
    assert len(world.command.tasks) == runs


@pytest.mark.parametrize(
    ("config", "machine", "winner", "runs"),
    [
        ("", OTHER, "int8", 0),
        (STALE, CPU, "int8", 0),
        (STALE, OTHER, "int8", 1),
        (ALWAYS, CPU, "int8", 0),
        (ALWAYS, OTHER, "int8", 1),
        (STALE, OTHER, "", 0),
        (ALWAYS, OTHER, "", 1),
        (ALWAYS, CPU, "", 0),
    ],
)
async def test_a_version_that_was_optimised(
    world: World, config: str, machine: CpuFacts, winner: str, runs: int
) -> None:
    world.drop()
    world.optimized(winner=winner)
    world.cpu = machine
    await world.ready(config, 2)
    assert len(world.command.tasks) == runs
    assert all(task.version == 1 for task in world.command.tasks), "from what it was made of, never from what was made"


async def test_goals_data_and_places_are_handed_on(world: World) -> None:
    world.drop()
    for name in ("d.npz", "l.npy"):
        (world.root / "m" / name).write_text("x")
    await world.ready(ALWAYS + 'data = "d.npz"\nlabels = "l.npy"\nmetric = "top1"\nobjective = "latency"\n')
    (task,) = world.command.tasks
    assert (task.name, task.repository, task.version, task.goals.objective) == ("m", world.root, 1, "latency")
    assert (task.data, task.labels) == (world.root / "m/d.npz", world.root / "m/l.npy")
    assert task.report is not None
    assert world.cache in task.report.parents


async def test_nothing_faster_is_remembered_over_a_restart(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.drop()
    with caplog.at_level(logging.INFO):
        await world.ready(ALWAYS)
        await world.ready(ALWAYS)
        world.restart()
        await world.ready(ALWAYS)
    assert len(world.command.tasks) == 1
    assert [each.counters.by_result["kept"] for each in world.services] == [1, 0]
    assert all(each.counters.running == 0 for each in world.services)
    assert "m/1: stays as it is: nothing is faster" in caplog.text
    assert caplog.text.count("not optimised in the background again; the last time: nothing is faster") == 2


@pytest.mark.parametrize("change", ["model", "weights beside it", "goals", "data", "processor", "runtime", "name"])
async def test_what_the_result_depends_on_makes_it_worth_another_try(world: World, change: str) -> None:
    data = ALWAYS + 'data = "d.npz"\n'
    path = world.drop()
    (world.root / "m/d.npz").write_text("x")
    await world.ready(data)
    config, name = data, "m"
    if change == "model":
        world.drop(content="other")
    elif change == "weights beside it":
        (path.parent / "model.onnx.data").write_text("x")
    elif change == "goals":
        config = data + "max_drop = 0.1\n"
    elif change == "data":
        (world.root / "m/d.npz").write_text("y")
    elif change == "processor":
        world.cpu = OTHER
    elif change == "runtime":
        world.backend.runtime = RuntimeFacts("1.32.0")
    else:
        shutil.copytree(world.root / "m", world.root / "n")
        name = "n"
    world.restart()
    await world.ready(config, 1, name)
    assert len(world.command.tasks) == 2


async def test_when_it_is_asked_for_changes_nothing_of_what_comes_of_it(world: World) -> None:
    world.drop()
    world.optimized()
    world.cpu = OTHER
    await world.ready(STALE, 2)
    world.restart()
    await world.ready(ALWAYS, 2)
    assert len(world.command.tasks) == 1


@pytest.mark.parametrize(("lasting", "runs"), [(True, 1), (False, 2)])
async def test_a_failure_is_tried_again_by_another_process_only_where_it_may_pass(
    world: World, lasting: bool, runs: int
) -> None:
    world.command.answer = Outcome(Result.FAILED, "no", lasting=lasting)
    world.drop()
    await world.ready(ALWAYS)
    await world.ready(ALWAYS)
    assert len(world.command.tasks) == 1
    world.restart()
    await world.ready(ALWAYS)
    assert len(world.command.tasks) == runs


@pytest.mark.parametrize("error", [Unavailable("the optimize could not be started"), ZeroDivisionError("a bug")])
async def test_whatever_it_meets_costs_a_line_in_the_log(
    world: World, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    world.command.answer = error
    world.drop()
    await world.ready(ALWAYS)
    assert "m/1" in caplog.text
    world.drop(name="n")
    world.command.answer = KEPT
    await world.ready(ALWAYS, 1, "n")
    assert len(world.command.tasks) == 2, "and the next one is optimised"


async def test_one_at_a_time_for_the_whole_server(world: World) -> None:
    world.command.gate.clear()
    for name in "abc":
        world.drop(name=name)
        world.service.consider(*world.load(ALWAYS, 1, name))
    while not world.command.running:
        await asyncio.sleep(0.001)
    world.command.gate.set()
    await world.service.idle()
    assert (len(world.command.tasks), world.command.most) == (3, 1)


async def begun(world: World, config: str = ALWAYS, version: int = 1) -> Recipe:
    """An optimisation that is running now."""
    world.command.gate.clear()
    recipe, loaded = world.load(config, version)
    world.service.consider(recipe, loaded)
    while not world.command.running:
        await asyncio.sleep(0.001)
    return recipe


@pytest.mark.parametrize("how", ["forget", "close"])
async def test_what_is_stopped_is_tried_again_by_the_next_server(world: World, how: str) -> None:
    world.drop()
    recipe = await begun(world)
    if how == "forget":
        world.service.forget(VersionId("other", 1, 1))
        assert world.command.running == 1
        world.service.forget(recipe.id)
    else:
        await world.service.close()
    await world.service.idle()
    assert world.command.running == 0
    assert world.service.counters.by_result["stopped"] == 1
    world.command.gate.set()
    world.restart()
    await world.ready(ALWAYS)
    assert len(world.command.tasks) == 2


async def test_a_result_that_serves_before_the_command_has_ended_is_remembered(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Published, found by polling, loaded: and the version that was being optimised goes, with its command."""
    world.drop()
    world.command.publish = lambda _: world.optimized(2) and None
    with caplog.at_level(logging.INFO):
        recipe = await begun(world)
        world.service.forget(recipe.id)
        await world.service.idle()
    assert "version 2 is published: it is loaded at the next look at the repository" in caplog.text
    world.command.gate.set()
    world.command.publish = None
    shutil.rmtree(world.root / "m/2")
    world.restart()
    await world.ready(ALWAYS)
    assert len(world.command.tasks) == 1, "who removes a result does not want it back"


@pytest.mark.parametrize(
    ("mode", "config", "said"),
    [
        (ControlMode.POLL, ALWAYS, "it is loaded at the next look"),
        (ControlMode.NONE, ALWAYS, "a restart serves it"),
        (ControlMode.EXPLICIT, ALWAYS, "when the model is loaded again"),
        (ControlMode.POLL, ALWAYS + '[versions]\npolicy = "specific"\nversions = [1]\n', "policy does not serve it"),
    ],
)
async def test_it_is_said_what_becomes_of_the_new_version(
    world: World, mode: ControlMode, config: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.command.answer = Outcome(Result.OPTIMIZED, "int8 is 2 × as fast", 2)
    world.drop()
    world.restart(mode)
    with caplog.at_level(logging.INFO):
        await world.ready(config)
    assert "m/1: int8 is 2 × as fast; version 2 is published: " in caplog.text
    assert said in caplog.text


async def test_machines_that_share_a_repository_do_not_optimise_for_ever(world: World) -> None:
    """Each finds the other's result stale; each makes one of its own, from the model as it came, and is done."""
    machines = [CPU, OTHER, CpuFacts("Test CPU 3", ("avx2", "avx_vnni"))]
    latest = 1
    world.drop()

    def publish(task: OptimizeTask) -> None:
        nonlocal latest
        latest += 1
        machine = {"cpu": world.cpu.name, "features": list(world.cpu.features)}
        world.optimized(latest, task.version, machine=machine)

    world.command.publish = publish
    for _ in range(4):
        for machine in machines:
            world.cpu = machine
            world.cache = world.root.parent / f"cache of {machine.name}"
            world.restart()
            await world.ready(ALWAYS, latest)
    assert latest == 1 + len(machines)
    assert {task.version for task in world.command.tasks} == {1}


async def test_a_machine_that_never_fits_its_own_result_makes_one(world: World) -> None:
    """The command may run on another runtime than the server; that must not lead to version after version."""
    latest = 1
    world.drop()

    def publish(task: OptimizeTask) -> None:
        nonlocal latest
        latest += 1
        world.optimized(latest, task.version, machine={"onnxruntime": "0.0"})

    world.command.publish = publish
    for _ in range(3):
        world.restart()
        await world.ready(ALWAYS, latest)
    assert latest == 2


@pytest.mark.parametrize("baseline", ["gone", "changed", "unknown"])
async def test_without_what_it_was_made_from_nothing_is_made(
    world: World, baseline: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.drop()
    made = world.optimized()
    world.cpu = OTHER
    if baseline == "gone":
        shutil.rmtree(world.root / "m/1")
    elif baseline == "changed":
        world.drop(content="retrained")
    else:
        write_optimization(made.parent, baseline={"version": "x", "sha256": ""})
    await world.ready(STALE, 2)
    assert world.command.tasks == []
    assert "the version that it was made from is not there any more" in caplog.text


async def test_only_the_newest_version_is_optimised(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.drop(1)
    world.drop(2)
    await world.ready(ALWAYS, 1)
    assert world.command.tasks == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"repository": None}, ""),
        (
            {"imported": SourceFiles(Path("/m/1/model.pt2"), "model.pt2", "pt2", "a PyTorch export")},
            "imported when it is loaded",
        ),
    ],
)
async def test_what_lies_in_no_repository_as_onnx_is_not_optimised(
    world: World, change: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.drop()
    recipe, loaded = world.load(ALWAYS)
    for _ in range(2):
        world.service.consider(replace(recipe, **change), loaded)
        await world.service.idle()
    assert world.command.tasks == []
    assert (caplog.text.count(said) == 1) if said else (caplog.text == "")


async def test_what_runs_on_a_gpu_is_left_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.drop()
    recipe, loaded = world.load(ALWAYS)
    world.service.consider(recipe, replace(loaded, kind=InstanceKind.GPU))
    await world.service.idle()
    assert world.command.tasks == []
    assert "it runs on a GPU" in caplog.text


async def test_a_version_whose_record_cannot_be_read_is_left_alone(world: World) -> None:
    path = world.drop()
    (path.parent / "optimization.json").write_text("{")
    await world.ready(ALWAYS)
    assert world.command.tasks == []


@pytest.mark.parametrize("key", ["data", "labels"])
@pytest.mark.parametrize("what", ["missing", "outside", "pipe"])
async def test_data_that_is_not_in_the_models_folder_stops_it(
    world: World, key: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.drop()
    folder = world.root / "m"
    for name in ("data", "labels"):
        (folder / name).write_text("x")
    (folder / key).unlink()
    if what == "outside":
        (world.root / "secret").write_text("secret")
        (folder / key).symlink_to(world.root / "secret")
    elif what == "pipe":
        os.mkfifo(folder / key)
    await world.ready(ALWAYS + 'data = "data"\nlabels = "labels"\n')
    assert world.command.tasks == []
    assert f"'{key}'" in caplog.text
    assert "secret" not in caplog.text


async def test_a_repository_that_cannot_be_written_is_said_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Tests may run as root, who may write everywhere but on a read-only mount.
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    world.drop()
    for _ in range(3):
        await world.ready(ALWAYS)
    assert world.command.tasks == []
    assert caplog.text.count("the model's folder cannot be written") == 1


async def test_without_a_cache_it_is_optimised_once_a_process_and_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.cache.write_text("a file where the folder should be")
    world.drop()
    for _ in range(2):
        await world.ready(ALWAYS)
    assert [task.report for task in world.command.tasks] == [None]
    assert caplog.text.count("--import-cache names a folder that can be written") == 1


async def test_a_stop_while_the_model_is_still_read_ends_at_once(world: World) -> None:
    world.drop()
    os.truncate(world.root / "m/1/model.onnx", 1 << 36)  # sparse: 64 GiB would take a while
    recipe, loaded = world.load(ALWAYS)
    world.service.consider(recipe, loaded)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.05):
            await world.service.idle()
    async with asyncio.timeout(10):
        await world.service.close()
    assert world.command.tasks == []
