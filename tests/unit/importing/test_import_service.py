"""One import per source, never two at once; nothing half-made stays, whatever happens."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tensorquay.config.triton import parse_pbtxt
from tensorquay.core.errors import ModelFailed, Unavailable
from tensorquay.core.ids import VersionId
from tensorquay.importing.cache import MODEL, ImportCache
from tensorquay.importing.command import ImportLimits, ImportTask
from tensorquay.importing.declared import declared_arguments
from tensorquay.importing.digest import digest_of
from tensorquay.importing.service import ImportService
from tensorquay.lifecycle.imports import SayProgress
from tensorquay.lifecycle.recipe import ImportOrder
from tensorquay.repository.scan import scan


class Command:
    """Instead of the real command: writes a model, or does what the test wants."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path, tuple[str, ...]]] = []
        self.running = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Exception | None = None
        self.leave_nothing = False

    async def __call__(self, task: ImportTask, _limits: ImportLimits, say: SayProgress) -> None:
        source, target = task.source, task.target
        self.calls.append((source, tuple(task.options)))
        assert not target.exists()
        target.mkdir()
        self.running += 1
        self.most = max(self.most, self.running)
        (target / "half").write_text("x")
        say("exporting")
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if self.fail is not None:
            raise self.fail
        if not self.leave_nothing:
            (target / MODEL).write_bytes(source.read_bytes() if source.is_file() else b"folder")


def order(root: Path, name: str = "m", config: str | None = None) -> ImportOrder:
    model = scan([root]).models[name]
    (files,) = model.versions.values()
    assert files.source is not None
    declared = None if config is None else parse_pbtxt(config)
    return ImportOrder(VersionId(name, files.version, 1), files.source, files.fingerprint, declared)


def drop(root: Path, name: str, file: str = "model.pt2", content: str = "weights") -> Path:
    path = root / name / "1" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def command() -> Command:
    return Command()


@pytest.fixture
def service(tmp_path: Path, command: Command) -> ImportService:
    return ImportService(ImportCache(tmp_path / "cache", max_bytes=1000), ImportLimits(1.0), run=command)


def left(tmp_path: Path) -> list[str]:
    return sorted(each.name for each in (tmp_path / "cache").iterdir())


async def test_an_import_is_made_once_for_the_same_bytes(root, service, command, tmp_path):
    drop(root, "m")
    said: list[str] = []
    path = await service.bring(order(root), said.append)
    assert path.read_bytes() == b"weights"
    assert said == ["a PyTorch export (model.pt2)", "exporting"]
    drop(root, "other")
    assert await service.bring(order(root, "other"), said.append) == path
    assert command.calls == [(root / "m/1/model.pt2", ("--name=m",))]
    assert left(tmp_path) == [path.parent.name]
    assert service.counters.by_result == {"imported": 1, "reused": 1, "failed": 0, "stopped": 0}


async def test_other_bytes_of_the_same_size_are_another_model(root, service, command):
    drop(root, "m", content="aaaa")
    first = await service.bring(order(root), lambda _: None)
    drop(root, "m", content="bbbb")
    assert await service.bring(order(root), lambda _: None) != first
    assert len(command.calls) == 2


async def test_imports_take_turns_and_equal_ones_wait_for_the_first(root, service, command):
    for name, content in (("a", "1"), ("b", "2"), ("c", "1")):
        drop(root, name, content=content)
    command.gate.clear()
    said: list[str] = []
    tasks = [asyncio.create_task(service.bring(order(root, name), said.append)) for name in "abc"]
    while said.count("waiting for another import to end") < 2:
        await asyncio.sleep(0.001)
    command.gate.set()
    first, second, third = await asyncio.gather(*tasks)
    assert first == third != second
    assert command.most == 1
    assert len(command.calls) == 2
    assert service.counters.by_result["imported"] == 2
    assert service.counters.running == 0


@pytest.mark.parametrize("fault", ["fails", "leaves nothing", "cancelled", "changes"])
async def test_nothing_half_made_stays(root, service, command, tmp_path, fault):
    path = drop(root, "m")
    wanted = order(root)
    command.gate.clear()
    task = asyncio.create_task(service.bring(wanted, lambda _: None))
    while not command.running:
        await asyncio.sleep(0.001)
    if fault == "fails":
        command.fail = ModelFailed("not equal")
    elif fault == "leaves nothing":
        command.leave_nothing = True
    elif fault == "cancelled":
        task.cancel()
    else:
        os.utime(path, ns=(1, 1))
    command.gate.set()
    expected = {"fails": ModelFailed, "leaves nothing": ModelFailed, "cancelled": asyncio.CancelledError}
    with pytest.raises(expected.get(fault, Unavailable)):
        await task
    assert left(tmp_path) == []
    assert command.running == service.counters.running == 0
    ended = "stopped" if fault == "cancelled" else "failed"
    assert service.counters.by_result == dict.fromkeys(service.counters.by_result, 0) | {ended: 1}


async def test_a_file_that_goes_while_it_is_read_is_said(root, service):
    path = drop(root, "m")
    wanted = order(root)
    path.unlink()
    with pytest.raises(Unavailable, match=r"'model\.pt2' cannot be read"):
        await service.bring(wanted, lambda _: None)


def test_the_digest_sees_bytes_names_and_what_the_configuration_says(root):
    drop(root, "m", "model.pt", "x")
    config = (
        "max_batch_size: 8 input { name: 'INPUT__0' data_type: TYPE_FP32 dims: [3, -1] } output { name: 'OUTPUT__0' }"
    )
    plain, declared = order(root), order(root, config=config)
    assert declared_arguments(declared) == [
        "--input=INPUT__0:float32[batch,3,INPUT__0_2]",
        "--output-name=OUTPUT__0",
    ]
    assert digest_of(plain) == digest_of(order(root))
    assert digest_of(plain) != digest_of(declared)
    batchless = order(root, config="max_batch_size: 0 input { name: 'x' data_type: TYPE_INT64 dims: [1, 3] }")
    assert declared_arguments(batchless) == ["--input=x:int64[1,3]"]


def test_a_folder_is_told_by_all_of_its_files(root):
    for path in ("saved_model.pb", "variables/variables.index", "assets/vocab.txt"):
        drop(root, "m", path)
    before = digest_of(order(root))
    drop(root, "m", "assets/vocab.txt", "other")
    assert digest_of(order(root)) != before
    nested = root / "n" / "1" / "model.savedmodel"
    nested.mkdir(parents=True)
    (nested / "saved_model.pb").write_text("x")
    (nested.parent / "readme.md").write_text("not of the model")
    seen = digest_of(order(root, "n"))
    (nested.parent / "readme.md").write_text("changed")
    assert digest_of(order(root, "n")) == seen
    (nested / "saved_model.pb").write_text("y")
    assert digest_of(order(root, "n")) != seen
