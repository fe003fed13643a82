"""Drops while serving: good ones are swapped in, bad ones change nothing."""

from __future__ import annotations

import asyncio
import shutil
import threading
from typing import Any

import numpy as np
import pytest

from tensorquay.backends.api import LoadRequest
from tensorquay.batching.rider import Ride, Rider
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ModelFailed, NotFound, Unavailable
from tensorquay.core.tensors import Tensor
from tensorquay.lifecycle.manager import ModelManager


def lines(manager: ModelManager, name: str) -> dict[str, tuple[str, str]]:
    return {entry.version: (entry.state, entry.reason) for entry in manager.index() if entry.name == name}


class Passenger(Rider):
    """Leaves its outcome in a future."""

    def __init__(self, done: asyncio.Future[Any], *fields: Any) -> None:
        super().__init__(*fields)
        self.done_with = done

    def settle(self, outcome: Any) -> None:
        self.done_with.set_result(outcome)


async def predict(manager: ModelManager, name: str, version: int | None = None) -> Any:
    """One prediction under a lease; its array, or the error it was answered with."""
    served = manager.acquire(name, version)
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    arrays, rows, key, _ = served.signature.check([Tensor("x", DataType.FP32, np.ones((1, 2), np.float32))])
    served.batcher.submit(Passenger(done, arrays, rows, key))
    try:
        outcome = await done
    finally:
        manager.release(served)
    if not isinstance(outcome, Ride):
        raise outcome
    return outcome.arrays[0]


async def test_a_new_version_is_loaded_beside_the_old_and_takes_its_place(world):
    world.repo.drop("m", 1)
    manager = world.manager()
    report = await manager.start()
    assert [(result.name, result.versions, result.problems) for result in report.models] == [("m", (1,), ())]
    world.repo.drop("m", 2)
    await world.looked(manager)
    assert manager.lookup("m").id.version == 2
    assert lines(manager, "m") == {"1": ("UNAVAILABLE", "unloaded"), "2": ("READY", "")}
    with pytest.raises(NotFound, match="Request for unknown model: 'm' version 1 is not found"):
        manager.lookup("m", 1)
    assert world.backend.most_live == 2
    assert world.backend.live_sessions == 1


async def test_the_old_version_serves_until_the_new_one_is_ready(world):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    gate = world.backend.load_gate = threading.Event()
    world.repo.drop("m", 2)
    await manager.look()
    assert manager.lookup("m").id.version == 1
    assert lines(manager, "m")["2"][0] == "LOADING"
    assert manager.ready(strict=True), "a side load must not take the server out of service"
    with pytest.raises(Unavailable, match="version 2 is not at ready state"):
        manager.lookup("m", 2)
    gate.set()
    await manager.idle()
    assert manager.lookup("m").id.version == 2


@pytest.mark.parametrize("kind", ["refused by the runtime", "no model file", "foreign format", "in place", "crash"])
async def test_each_bad_drop_leaves_the_old_version_serving_and_says_why(world, kind):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    before = manager.lookup("m")

    def fail(request: LoadRequest) -> Exception | None:
        return ZeroDivisionError("secret") if kind == "crash" else ModelFailed("the file is corrupt")

    world.backend.fail_load = fail
    if kind == "no model file":
        (world.repo.root / "m/2").mkdir()
        (world.repo.root / "m/2/weights.bin").write_text("x")
    elif kind == "foreign format":
        (world.repo.root / "m/2").mkdir()
        (world.repo.root / "m/2/saved_model.pb").write_text("x")
    elif kind == "in place":
        world.repo.drop("m", 1)
    else:
        world.repo.drop("m", 2)
    await world.looked(manager)
    assert manager.lookup("m") is before
    assert (await predict(manager, "m")).tolist() == [[2.0, 2.0]]
    assert manager.ready(strict=True)
    said = lines(manager, "m")
    if kind == "in place":
        assert said == {"1": ("READY", "generation 1 serves; the newer one failed: the file is corrupt")}
    else:
        state, reason = said["2"]
        assert state == "UNAVAILABLE"
        assert said["1"] == ("READY", "")
        assert {
            "refused by the runtime": "the file is corrupt",
            "no model file": "no model.onnx; found weights.bin",
            "foreign format": "found saved_model.pb",
            "crash": "internal error",
        }[kind] in reason
        assert "secret" not in reason
        assert str(world.repo.root) not in reason
    loads = len(world.backend.loads)
    await world.looked(manager)
    assert len(world.backend.loads) == loads, "a failed load is not repeated while nothing changes"


async def test_a_repaired_drop_is_loaded_and_an_older_one_left(world):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    world.backend.fail_load = lambda _: ModelFailed("corrupt")
    world.repo.drop("m", 2)
    await world.looked(manager)
    world.backend.fail_load = lambda _: None
    world.repo.drop("m", 2)
    await world.looked(manager)
    assert manager.lookup("m").id == type(manager.lookup("m").id)("m", 2, 2)
    assert manager.ready_versions("m") == (2,)
    assert world.statistics.of(manager.lookup("m").id.key).load_failures == 1


@pytest.mark.parametrize("text", ["nonsense {", 'name: "other"', "max_batch_size: -1", "colour: 3"])
async def test_a_broken_configuration_leaves_what_is_loaded(world, text):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    before = manager.lookup("m")
    world.repo.config("m", text)
    await world.looked(manager)
    assert manager.lookup("m") is before
    state, reason = lines(manager, "m")["1"]
    assert state == "READY"
    assert "config.pbtxt" in reason


async def test_a_changed_configuration_is_a_new_generation_and_a_comment_is_not(world):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    world.repo.config("m", "max_batch_size: 8")
    await world.looked(manager)
    assert manager.lookup("m").id.generation == 2
    assert manager.lookup("m").signature.max_batch_size == 8
    world.repo.config("m", "# a comment\nmax_batch_size: 8")
    await world.looked(manager)
    assert manager.lookup("m").id.generation == 2


async def test_what_is_removed_leaves(world):
    world.repo.drop("m", 1)
    world.repo.drop("m", 2)
    world.repo.drop("n", 1)
    world.repo.config("m", "version_policy { all {} }")
    manager = world.manager()
    await manager.start()
    assert manager.ready_versions("m") == (1, 2)
    shutil.rmtree(world.repo.root / "m/1")
    shutil.rmtree(world.repo.root / "n")
    await world.looked(manager)
    assert manager.ready_versions("m") == (2,)
    with pytest.raises(NotFound, match="Request for unknown model: 'n' is not found"):
        manager.lookup("n")
    await world.looked(manager)
    assert {entry.name for entry in manager.index()} == {"m"}


async def test_an_unreadable_repository_changes_nothing(world):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    world.repo.root.rename(world.repo.root.with_name("away"))
    await world.looked(manager)
    assert manager.lookup("m").id.version == 1
    assert lines(manager, "m") == {"1": ("READY", "")}
    world.repo.root.with_name("away").rename(world.repo.root)


async def test_a_lease_outlives_its_version(world):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    served = manager.acquire("m")
    world.repo.drop("m", 2)
    await manager.look()
    await world.until(lambda: manager.lookup("m").id.version == 2)
    assert lines(manager, "m")["1"][0] == "UNLOADING"
    assert world.backend.live_sessions == 2
    assert not served.loaded.sessions[0].closed
    manager.release(served)
    await manager.idle()
    assert served.loaded.sessions[0].closed
    assert lines(manager, "m")["1"] == ("UNAVAILABLE", "unloaded")


async def test_a_hundred_swaps_under_load_fail_no_request(world):
    world.repo.drop("m", 1)
    manager = world.manager()
    await manager.start()
    stop = asyncio.Event()
    answered = 0

    async def clients() -> None:
        nonlocal answered
        while not stop.is_set():
            arrays = await asyncio.gather(*(predict(manager, "m") for _ in range(8)))
            assert [array.tolist() for array in arrays] == [[[2.0, 2.0]]] * 8
            answered += 8
            # All pause together: a loop that never blocks may keep the interpreter from the load threads for ever.
            await asyncio.sleep(0.001)

    load = asyncio.create_task(clients())
    for swap in range(100):
        before = manager.lookup("m").id
        world.repo.drop("m", 1 if swap % 2 else swap + 2)
        await manager.look()
        await world.fleet.quiet(["m"])
        if swap % 2:
            shutil.rmtree(world.repo.root / f"m/{before.version}")
            await manager.look()
    stop.set()
    await load
    await manager.idle()
    assert answered > 100
    assert world.backend.live_sessions == 1


async def test_ready_needs_the_initial_loads_and_later_drops_do_not_count(world):
    world.repo.drop("good", 1)
    world.repo.drop("bad", 1)
    world.backend.fail_load = lambda request: ModelFailed("corrupt") if "bad" in request.model_path.parts else None
    manager = world.manager()
    assert not manager.ready(strict=False)
    report = await manager.start()
    assert [result.name for result in report.failed] == ["bad"]
    assert manager.ready(strict=False)
    assert not manager.ready(strict=True)
    world.backend.fail_load = lambda _: None
    world.repo.drop("bad", 1)
    await world.looked(manager)
    assert manager.ready(strict=True)
    world.backend.fail_load = lambda _: ModelFailed("corrupt")
    world.repo.drop("later", 1)
    world.repo.drop("good", 1)
    await world.looked(manager)
    assert manager.ready(strict=True)
    await manager.close()
    assert not manager.ready(strict=False)


async def test_at_start_an_older_version_stands_in_for_a_broken_one(world):
    world.repo.drop("m", 1)
    world.repo.drop("m", 2)
    world.backend.fail_load = lambda request: ModelFailed("corrupt") if "2" in request.model_path.parts else None
    manager = world.manager()
    report = await manager.start()
    assert report.failed[0].problems == ("corrupt",)
    assert manager.lookup("m").id.version == 1
    assert manager.ready(strict=True)
    with pytest.raises(Unavailable, match="'m' version 2 is not at ready state"):
        manager.lookup("m", 2)


async def test_no_more_than_load_threads_loads_run_at_once_and_all_end(world):
    for number in range(7):
        world.repo.drop(f"m{number}", 1)
    gate = world.backend.load_gate = threading.Event()
    manager = world.manager(load_threads=2)
    starting = asyncio.create_task(manager.start())
    await world.until(lambda: len(world.backend.loads) == 2)
    assert [row.state.value for row in manager.rows()].count("LOADING") == 2
    gate.set()
    report = await starting
    assert len(report.models) == 7
    assert not report.failed


async def test_a_poll_that_raises_does_not_end_the_polling(world, monkeypatch):
    world.repo.drop("m", 1)
    manager = world.manager(poll_s=15.0)
    await manager.start()
    real = world.opened[0]._watch.look
    calls = 0

    def sometimes(now: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("the disk is gone")
        return real(now)

    monkeypatch.setattr(manager._watch, "look", sometimes)
    assert await world.sleeps.get() == 15.0
    world.wake.put_nowait(None)
    assert await world.sleeps.get() == 15.0
    world.repo.drop("m", 2)
    world.wake.put_nowait(None)
    await world.sleeps.get()
    await manager.idle()
    assert calls == 2
    assert manager.lookup("m").id.version == 2
