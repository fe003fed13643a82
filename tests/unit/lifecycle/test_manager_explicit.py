"""Load and unload requests: Triton's meaning, without Triton's gaps."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from tensorquay.config.server import ControlMode
from tensorquay.core.errors import InvalidArgument, ModelFailed, NotFound, Unavailable
from tensorquay.lifecycle.gather import UploadLimits
from tensorquay.lifecycle.manager import ModelManager


def lines(manager: ModelManager, name: str) -> dict[str, tuple[str, str]]:
    return {entry.version: (entry.state, entry.reason) for entry in manager.index() if entry.name == name}


async def started(world, *names: str, **settings) -> ModelManager:
    manager = world.manager(ControlMode.EXPLICIT, load_models=names, **settings)
    await manager.start()
    return manager


@pytest.mark.parametrize("mode", [ControlMode.NONE, ControlMode.POLL])
async def test_other_modes_refuse_in_tritons_words(world, mode):
    world.repo.drop("m", 1)
    manager = world.manager(mode)
    await manager.start()
    for request in (manager.load("m"), manager.unload("m")):
        with pytest.raises(Unavailable) as caught:
            await request
        assert caught.value.message == (
            "explicit model load / unload is not allowed if polling is enabled "
            f"(the mode is {mode.value}; start with --model-control-mode=explicit)"
        )


async def test_only_named_models_are_loaded_at_start_and_the_index_names_the_others(world):
    for name in ("a", "b", "c"):
        world.repo.drop(name, 1)
    manager = await started(world, "b")
    assert [(e.name, e.version, e.state, e.reason) for e in manager.index()] == [
        ("a", "", "", ""),
        ("b", "1", "READY", ""),
        ("c", "", "", ""),
    ]
    assert [e.name for e in manager.index(ready_only=True)] == ["b"]
    with pytest.raises(NotFound, match="Request for unknown model: 'a' has no available versions"):
        manager.lookup("a")
    world.repo.drop("d", 1)
    assert "d" in {entry.name for entry in await manager.fresh_index()}


async def test_a_star_loads_everything_and_an_unknown_name_is_a_failure(world):
    world.repo.drop("a", 1)
    world.repo.drop("b", 1)
    manager = await started(world, "*")
    assert manager.ready_versions("a") == manager.ready_versions("b") == (1,)
    other = world.manager(ControlMode.EXPLICIT, load_models=("nobody",))
    report = await other.start()
    nobody = (
        "failed to load 'nobody', failed to poll from model repository: "
        "there is no folder 'nobody' in the model repository"
    )
    assert report.failed[0].problems == (nobody,)
    with pytest.raises(InvalidArgument) as caught:
        await other.load("nobody")
    assert caught.value.message == nobody
    assert not other.ready(strict=True)
    assert other.ready(strict=False)


async def test_load_unload_load(world):
    world.repo.drop("m", 1)
    manager = await started(world)
    await manager.load("m")
    assert manager.lookup("m").id.generation == 1
    await manager.load("m")
    assert manager.lookup("m").id.generation == 1, "nothing changed, nothing to do"
    await manager.unload("m")
    assert not manager.is_ready("m")
    await manager.idle()
    assert lines(manager, "m") == {"1": ("UNAVAILABLE", "unloaded")}
    with pytest.raises(NotFound, match="'m' version 1 is not found"):
        manager.lookup("m", 1)
    await manager.load("m")
    assert manager.lookup("m").id.generation == 2


async def test_a_changed_file_is_seen_and_swapped(world):
    world.repo.drop("m", 1)
    manager = await started(world, "m")
    world.repo.drop("m", 1)
    await manager.load("m")
    await manager.idle()
    assert manager.lookup("m").id.generation == 2
    assert world.backend.live_sessions == 1


async def test_a_second_load_of_a_broken_model_fails_again_and_is_tried_again(world):
    world.repo.drop("m", 1)
    manager = await started(world)
    world.backend.fail_load = lambda _: ModelFailed("corrupt")
    for tries in (1, 2):
        with pytest.raises(InvalidArgument, match="failed to load 'm', corrupt"):
            await manager.load("m")
        assert len(world.backend.loads) == tries
    assert lines(manager, "m") == {"1": ("UNAVAILABLE", "corrupt")}
    with pytest.raises(Unavailable, match="'m' version 1 is not at ready state: corrupt"):
        manager.lookup("m", 1)
    assert manager.ready(strict=True), "a failed request is no reason to take the server out of service"
    world.backend.fail_load = lambda _: None
    await manager.load("m")
    assert manager.lookup("m").id.version == 1


async def test_a_failed_load_leaves_the_old_version_and_loads_no_stand_in(world):
    world.repo.drop("m", 2)
    manager = await started(world, "m")
    world.repo.drop("m", 1)
    world.repo.drop("m", 3)
    world.backend.fail_load = lambda _: ModelFailed("corrupt")
    with pytest.raises(InvalidArgument, match=r"failed to load 'm', corrupt \(version 2 serves on\)"):
        await manager.load("m")
    assert manager.ready_versions("m") == (2,)
    assert lines(manager, "m") == {"2": ("READY", ""), "3": ("UNAVAILABLE", "corrupt")}


@pytest.mark.parametrize("name", ["unknown", "../models", "a/b", "..", "", "x" * 300, "nul\0", "\ud800"])
async def test_unknown_and_impossible_names(world, name):
    manager = await started(world)
    with pytest.raises(InvalidArgument, match="failed to poll from model repository"):
        await manager.load(name)
    await manager.unload(name)
    assert world.backend.loads == []


async def test_a_model_without_versions_says_where_to_put_the_file(world):
    (world.repo.root / "m").mkdir()
    (world.repo.root / "m/model.onnx").write_text("x")
    manager = await started(world)
    with pytest.raises(InvalidArgument, match=r"has no available versions.*put the file at m/1/model.onnx"):
        await manager.load("m")


async def test_a_configuration_in_the_request_overrides_the_file_until_the_file_changes(world):
    world.repo.drop("m", 1)
    world.repo.config("m", "max_batch_size: 2")
    manager = await started(world, "m")
    await manager.load("m", json.dumps({"max_batch_size": 5}))
    assert manager.lookup("m").signature.max_batch_size == 5
    assert manager.lookup("m").effective.origins["max_batch_size"] == "load request"
    await manager.load("m")
    assert manager.lookup("m").signature.max_batch_size == 5
    world.repo.config("m", "max_batch_size: 3")
    await manager.load("m")
    assert manager.lookup("m").signature.max_batch_size == 3


async def test_an_empty_configuration_gives_the_files_back_their_word(world):
    world.repo.drop("m", 1)
    world.repo.drop("m", 2)
    manager = await started(world, "m")
    await manager.load("m", json.dumps({"version_policy": {"specific": {"versions": [1]}}}))
    await manager.idle()
    assert manager.ready_versions("m") == (1,)
    assert manager.known("m").override is not None
    await manager.load("m", "")
    await manager.idle()
    assert manager.ready_versions("m") == (2,)
    assert manager.known("m").override is None
    await manager.load("up", "{}", {"file:3/model.onnx": b"uploaded"})
    with pytest.raises(InvalidArgument, match="there is no folder 'up'"):
        await manager.load("up", "")
    assert manager.ready_versions("up") == (3,), "what came with a request has no file to go back to"


@pytest.mark.parametrize("text", ["{", "[]", '{"max_batch_size": "x"}', '{"colour": 1}', "[" * 100_000])
async def test_a_refused_configuration_changes_nothing(world, text):
    world.repo.drop("m", 1)
    manager = await started(world, "m")
    before = manager.lookup("m")
    with pytest.raises(InvalidArgument, match="failed to load 'm', load request"):
        await manager.load("m", text)
    assert manager.lookup("m") is before


async def test_an_override_that_fails_to_load_is_forgotten(world):
    world.repo.drop("m", 1)
    manager = await started(world, "m")
    before = manager.lookup("m")
    with pytest.raises(InvalidArgument, match="failed to load 'm'"):
        await manager.load("m", json.dumps({"max_batch_size": 4, "input": [{"name": "nope"}]}))
    assert manager.lookup("m") is before
    await manager.load("m")
    assert manager.lookup("m") is before


async def test_uploaded_files_replace_the_folder_and_are_deleted_at_unload(world):
    manager = await started(world)
    files = {"file:3/model.onnx": b"uploaded", "file:3/weights.bin": b"w"}
    await manager.load("up", json.dumps({}), files)
    served = manager.lookup("up")
    assert served.id.version == 3
    path = world.backend.loads[-1].model_path
    assert path.read_bytes() == b"uploaded"
    assert path.with_name("weights.bin").exists()
    base = path.parents[2]
    assert base.stat().st_mode & 0o077 == 0
    await manager.load("up", "{}", {"file:1/model.onnx": b"second"})
    await manager.idle()
    assert not base.exists(), "the first upload is not needed any more"
    assert manager.ready_versions("up") == (1,)
    second = world.backend.loads[-1].model_path.parents[2]
    assert second.exists()
    await manager.unload("up")
    await manager.idle()
    assert not second.exists()


async def test_an_upload_that_fails_leaves_the_old_version_and_no_folder(world):
    world.repo.drop("m", 1)
    manager = await started(world, "m")
    before = manager.lookup("m")
    world.backend.fail_load = lambda _: ModelFailed("corrupt")
    with pytest.raises(InvalidArgument, match="failed to load 'm', corrupt"):
        await manager.load("m", "{}", {"file:1/model.onnx": b"bad"})
    await manager.idle()
    assert not world.backend.loads[-1].model_path.parents[2].exists()
    assert manager.lookup("m") is before


@pytest.mark.parametrize(
    "key",
    [
        "file:../model.onnx",
        "file:1/../../x",
        "file:/etc/passwd",
        "file:1",
        "file:01/model.onnx",
        "file:abc/model.onnx",
        "file:1//model.onnx",
        "file:1/.hidden",
        "file:" + "9" * 25 + "/model.onnx",
        "file:1/a/b/c/d/e",
        "file:1/\udcff",
        "file:1/" + "x" * 300,
    ],
)
async def test_uploads_with_names_that_are_no_version_files_are_refused(world, key):
    manager = await started(world)
    with pytest.raises(InvalidArgument, match="expected 'file:<version>/<file name>'"):
        await manager.load("m", "{}", {key: b"x"})
    assert world.backend.loads == []


async def test_uploads_are_bounded_and_need_a_configuration(world):
    manager = await started(world, upload_limits=UploadLimits(max_files=2, max_bytes=10, max_config_bytes=10))
    with pytest.raises(InvalidArgument, match="files were given without 'config'"):
        await manager.load("m", None, {"file:1/model.onnx": b"x"})
    with pytest.raises(InvalidArgument, match="files of 11 bytes"):
        await manager.load("m", "{}", {"file:1/model.onnx": b"x" * 11})
    with pytest.raises(InvalidArgument, match="3 files in the request"):
        await manager.load("m", "{}", {f"file:1/{n}": b"x" for n in "abc"})
    with pytest.raises(InvalidArgument, match="both a file and a folder"):
        await manager.load("m", "{}", {"file:1/a": b"x", "file:1/a/b": b"x"})
    with pytest.raises(InvalidArgument, match="at most 10 are read"):
        await manager.load("m", "{" + " " * 20 + "}")


async def test_a_caller_that_leaves_does_not_stop_the_load(world):
    world.repo.drop("m", 1)
    manager = await started(world)
    gate = world.backend.load_gate = threading.Event()
    caller = asyncio.create_task(manager.load("m"))
    await world.until(lambda: bool(world.backend.loads))
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    await manager.idle()
    assert manager.lookup("m").id.version == 1


async def test_requests_for_one_model_take_turns(world):
    world.repo.drop("m", 1)
    manager = await started(world)
    gate = world.backend.load_gate = threading.Event()
    first = asyncio.create_task(manager.load("m"))
    await world.until(lambda: bool(world.backend.loads))
    second = asyncio.create_task(manager.load("m"))
    unload = asyncio.create_task(manager.unload("m"))
    third = asyncio.create_task(manager.load("m"))
    gate.set()
    await asyncio.gather(first, second, unload, third)
    await manager.idle()
    assert len(world.backend.loads) == 2
    assert manager.lookup("m").id.generation == 2
    assert manager._turns._locks == {}


async def test_one_slow_load_does_not_hold_up_another_model(world):
    world.repo.drop("slow", 1)
    world.repo.drop("quick", 1)
    manager = await started(world)
    gate = threading.Event()
    world.backend.fail_load = lambda request: (
        world.backend.pass_gate(gate) if "slow" in request.model_path.parts else None
    )
    slow = asyncio.create_task(manager.load("slow"))
    await world.until(lambda: bool(world.backend.loads))
    await manager.load("quick")
    assert not slow.done()
    gate.set()
    await slow


async def test_closing_during_a_load_waits_for_it_and_leaves_nothing(world):
    world.repo.drop("m", 1)
    manager = await started(world)
    gate = world.backend.load_gate = threading.Event()
    caller = asyncio.create_task(manager.load("m"))
    await world.until(lambda: bool(world.backend.loads))
    closing = asyncio.create_task(manager.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="shutting down"):
        await manager.load("m")
    gate.set()
    await closing
    await asyncio.gather(caller, return_exceptions=True)
    assert world.backend.live_sessions == 0


async def test_the_same_model_in_two_repositories_is_unavailable(world, tmp_path: Path):
    world.repo.drop("m", 1)
    other = tmp_path / "more"
    (other / "m/1").mkdir(parents=True)
    (other / "m/1/model.onnx").write_text("x")
    manager = world.manager(ControlMode.EXPLICIT, roots=[world.repo.root, other])
    await manager.start()
    with pytest.raises(InvalidArgument, match="is in model repositories 1 and 2"):
        await manager.load("m")


async def test_what_a_configuration_says_without_effect_is_logged_once_per_load(world, caplog):
    world.repo.drop("m", 1)
    world.repo.config("m", 'parameters { key: "my_owner" value { string_value: "me" } }')
    with caplog.at_level("INFO", "tensorquay.lifecycle"):
        await started(world, "m")
    (record,) = [each for each in caplog.records if "my_owner" in each.getMessage()]
    assert record.levelname == "INFO"
    assert "nothing here reads it" in record.getMessage()
