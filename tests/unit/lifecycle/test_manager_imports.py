"""Dropped models of other kinds: imported beside what serves, told in the index, and never in anybody's way."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tensorquay.config.server import ControlMode
from tensorquay.core.errors import InvalidArgument, ModelFailed
from tensorquay.lifecycle.imports import SayProgress
from tensorquay.lifecycle.manager import ModelManager
from tensorquay.lifecycle.recipe import ImportOrder


class Importer:
    """Answers an order with a file of its own once `gate` is open; `fail` answers instead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.orders: list[ImportOrder] = []
        self.stopped = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Exception | None = None

    async def bring(self, order: ImportOrder, say: SayProgress) -> Path:
        self.orders.append(order)
        say("exporting")
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self.fail is not None:
            raise self.fail
        path = self.folder / f"{order.id.name}-{order.id.version}-{len(self.orders)}.onnx"
        path.write_text("imported")
        return path


@pytest.fixture
def importer(world, tmp_path: Path) -> Importer:
    (tmp_path / "imported").mkdir()
    world.importer = Importer(tmp_path / "imported")
    return world.importer


def source(world, name: str, version: int, content: str = "weights") -> Path:
    path = world.repo.root / name / str(version) / "model.pt2"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def line(manager: ModelManager, name: str, version: int) -> tuple[str, str]:
    return next((e.state, e.reason) for e in manager.index() if e.name == name and e.version == str(version))


async def test_a_dropped_source_is_imported_and_served(world, importer):
    source(world, "m", 1)
    manager = world.manager()
    report = await manager.start()
    assert report.failed == ()
    served = manager.lookup("m")
    assert served.loaded.properties["imported_from"] == "a PyTorch export"
    (order,) = importer.orders
    assert (str(order.id.key), order.source.kind) == ("m/1", "pt2")
    assert order.source.path == world.repo.root / "m/1/model.pt2"
    assert world.backend.loads[0].model_path.parent == importer.folder


async def test_the_old_version_serves_while_the_new_one_is_imported_and_the_index_tells_how_far(world, importer):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    importer.gate.clear()
    source(world, "m", 2)
    await manager.look()
    await world.until(lambda: importer.orders)
    assert manager.lookup("m").id.version == 1
    assert line(manager, "m", 2) == ("LOADING", "importing: exporting")
    assert manager.ready(strict=True)
    importer.gate.set()
    await manager.idle()
    assert manager.lookup("m").id.version == 2
    assert line(manager, "m", 2) == ("READY", "")


async def test_a_refused_import_leaves_the_old_version_and_its_reason_in_the_index(world, importer):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    importer.fail = ModelFailed("node 'conv' parts from the source")
    source(world, "m", 2)
    await world.looked(manager)
    assert manager.lookup("m").id.version == 1
    assert line(manager, "m", 2) == ("UNAVAILABLE", "node 'conv' parts from the source")
    await world.looked(manager)
    assert len(importer.orders) == 1, "a refused import is not repeated while nothing changes"
    importer.fail = None
    source(world, "m", 2, "repaired weights")
    await world.looked(manager)
    assert manager.lookup("m").id.version == 2


async def test_a_bug_of_the_importer_costs_that_version_only(world, importer):
    importer.fail = ZeroDivisionError("secret")
    source(world, "m", 1)
    world.repo.drop("good", 1)
    manager = world.manager()
    await manager.start()
    state, reason = line(manager, "m", 1)
    assert state == "UNAVAILABLE"
    assert "internal error while importing" in reason
    assert "secret" not in reason
    assert manager.is_ready("good")


async def test_an_import_keeps_no_load_thread_busy(world, importer):
    importer.gate.clear()
    for number in range(3):
        source(world, f"slow{number}", 1)
    manager = world.manager(load_threads=1)
    starting = asyncio.create_task(manager.start())
    await world.until(lambda: len(importer.orders) == 3)
    world.repo.drop("good", 1)
    await manager.look()
    await world.until(lambda: manager.is_ready("good"))
    importer.gate.set()
    await starting
    assert all(manager.is_ready(f"slow{number}") for number in range(3))


@pytest.mark.parametrize("change", ["removed", "replaced", "changed"])
async def test_an_import_of_what_is_not_there_any_more_is_stopped(world, importer, change):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    importer.gate.clear()
    source(world, "m", 2)
    await manager.look()
    await world.until(lambda: importer.orders)
    if change == "removed":
        shutil.rmtree(world.repo.root / "m/2")
    elif change == "replaced":
        world.repo.drop("m", 2)
        (world.repo.root / "m/2/model.pt2").unlink()
    else:
        source(world, "m", 2, "other weights")
    await manager.look()
    await world.until(lambda: importer.stopped == 1)
    importer.gate.set()
    await world.looked(manager)
    assert manager.lookup("m").id.version == (1 if change == "removed" else 2)
    assert len(importer.orders) == (2 if change == "changed" else 1)


async def test_closing_stops_imports(world, importer):
    importer.gate.clear()
    source(world, "m", 1)
    manager = world.manager()
    starting = asyncio.create_task(manager.start())
    await world.until(lambda: importer.orders)
    async with asyncio.timeout(20):
        await manager.close()
        await starting
    assert importer.stopped == 1


async def test_a_load_request_waits_for_the_import_and_tells_why_it_failed(world, importer):
    source(world, "m", 1)
    manager = world.manager(ControlMode.EXPLICIT)
    await manager.start()
    importer.fail = ModelFailed("importing it needs PyTorch; pip install 'tensorquay[torch]'")
    with pytest.raises(InvalidArgument, match="failed to load 'm', importing it needs PyTorch"):
        await manager.load("m")
    importer.fail = None
    await manager.load("m")
    assert manager.is_ready("m")


async def test_without_an_importer_the_reason_says_what_would_help(world):
    source(world, "m", 1)
    manager = world.manager()
    await manager.start()
    state, reason = line(manager, "m", 1)
    assert state == "UNAVAILABLE"
    assert reason == (
        "no model.onnx; found model.pt2, a PyTorch export, and importing is switched off here: "
        "start with --auto-import=true, or convert it with 'tensorquay import'"
    )


@pytest.mark.parametrize(
    "config",
    ["platform: 'pytorch_libtorch'", "backend: 'pytorch' default_model_filename: 'model.pt2'", "backend: 'tensorflow'"],
)
async def test_a_configuration_made_for_the_other_runtime_serves_the_import(world, importer, config):
    source(world, "m", 1)
    world.repo.config("m", config)
    manager = world.manager()
    await manager.start()
    assert manager.lookup("m").effective.config.platform == "onnxruntime_onnx"
