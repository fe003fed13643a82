"""The modes none and poll from start on, and half-copied versions."""

from __future__ import annotations

import asyncio

import pytest

from tensorquay.config.server import ControlMode
from tensorquay.core.errors import ModelFailed, NotFound
from tensorquay.repository.snapshot import RepositoryUnreadable


async def test_none_loads_everything_once_and_sees_nothing_later(world):
    world.repo.drop("a", 1)
    world.repo.drop("b", 1)
    manager = world.manager(ControlMode.NONE)
    report = await manager.start()
    assert [result.name for result in report.models] == ["a", "b"]
    world.repo.drop("c", 1)
    await manager.idle()
    assert world.sleeps.empty(), "nothing polls"
    with pytest.raises(NotFound):
        manager.lookup("c")


async def test_an_empty_repository_is_ready(world):
    manager = world.manager(ControlMode.NONE)
    assert (await manager.start()).models == ()
    assert manager.ready(strict=True)
    assert manager.index() == ()


async def test_a_repository_that_cannot_be_read_stops_the_start(world):
    world.repo.root.rmdir()
    manager = world.manager(ControlMode.NONE)
    with pytest.raises(RepositoryUnreadable):
        await manager.start()
    assert not manager.ready(strict=False)


async def test_what_is_wrong_without_a_load_is_in_the_report_and_in_the_index(world):
    world.repo.config("no_versions", "max_batch_size: 1")
    world.repo.drop("two_configs", 1)
    world.repo.config("two_configs", "")
    world.repo.config("two_configs", "", "config.toml")
    world.repo.drop("fine", 1)
    manager = world.manager(ControlMode.NONE)
    report = await manager.start()
    assert [result.name for result in report.failed] == ["no_versions", "two_configs"]
    assert not manager.ready(strict=True)
    index = {entry.name: entry for entry in manager.index()}
    assert (index["no_versions"].version, index["no_versions"].state) == ("", "UNAVAILABLE")
    assert "has no available versions" in index["no_versions"].reason
    assert "config.toml" in index["two_configs"].reason
    assert index["fine"].state == "READY"


async def test_start_waits_for_files_that_are_just_being_copied(world):
    world.repo.drop("m", 1)
    manager = world.manager(ControlMode.POLL, settle_s=1000.0)
    starting = asyncio.create_task(manager.start())
    assert await world.sleeps.get() == 1000.0
    assert world.backend.loads == []
    # The next look is believed to be the second that far apart.
    manager._watch._settle_ns = 0
    world.wake.put_nowait(None)
    report = await starting
    assert report.models[0].versions == (1,)


async def test_start_does_not_wait_for_ever_for_files_that_never_settle(world):
    world.repo.drop("m", 1)
    manager = world.manager(ControlMode.POLL, settle_s=1000.0, poll_s=5000.0)
    starting = asyncio.create_task(manager.start())
    for _ in range(5):
        await world.sleeps.get()
        world.repo.drop("m", 1)
        world.wake.put_nowait(None)
    report = await starting
    assert report.models[0].versions == ()
    # Asked again after the settle time, not after the whole poll interval.
    assert await world.sleeps.get() == 1000.0


async def test_a_half_copied_version_is_not_loaded_and_the_old_serves(world):
    world.repo.drop("m", 1)
    manager = world.manager(ControlMode.POLL)
    await manager.start()
    manager._watch._settle_ns = 10**15
    world.repo.drop("m", 2, content="half")
    await world.looked(manager)
    assert manager.ready_versions("m") == (1,)
    assert {entry.version for entry in manager.index()} == {"1"}, "what is not believed is not mentioned"
    manager._watch._settle_ns = 0
    await world.looked(manager)
    assert manager.ready_versions("m") == (2,)


async def test_a_version_overwritten_while_it_serves_is_not_touched_before_it_is_complete(world):
    world.repo.drop("m", 1)
    manager = world.manager(ControlMode.POLL)
    await manager.start()
    before = manager.lookup("m")
    manager._watch._settle_ns = 10**15
    world.repo.drop("m", 1, content="half of the new file")
    await world.looked(manager)
    assert manager.lookup("m") is before
    manager._watch._settle_ns = 0
    await world.looked(manager)
    assert manager.lookup("m").id.generation == 2


async def test_statistics_count_loads_and_failures_across_generations(world):
    world.repo.drop("m", 1)
    manager = world.manager(ControlMode.POLL)
    await manager.start()
    stats = manager.lookup("m").stats
    world.backend.fail_load = lambda _: ModelFailed("corrupt")
    world.repo.drop("m", 1)
    await world.looked(manager)
    world.backend.fail_load = lambda _: None
    world.repo.drop("m", 1)
    await world.looked(manager)
    assert manager.lookup("m").stats is stats
    assert (stats.loads, stats.load_failures) == (2, 1)


async def test_metadata_tells_versions_platform_and_where_it_runs(world):
    world.repo.drop("m", 1)
    world.repo.drop("m", 2)
    world.repo.config("m", "version_policy { all {} }")
    manager = world.manager(ControlMode.NONE)
    await manager.start()
    metadata = manager.lookup("m").metadata(manager.ready_versions("m"))
    assert metadata.versions == ("1", "2")
    assert metadata.platform == "onnxruntime_onnx"
    assert metadata.properties["providers"] == "FakeExecutionProvider"
    assert [served.id.version for served in manager.all_ready()] == [1, 2]
