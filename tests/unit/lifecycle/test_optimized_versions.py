"""A version that was optimised: its advice is followed where it was measured, and noticed where it was not."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from optimized import CPU, RUNTIME, optimization, write_optimization
from tensorquay.backends.api import LoadRequest, RuntimeFacts
from tensorquay.config.machine import CpuFacts
from tensorquay.config.model import InstanceKind, ModelConfig
from tensorquay.config.server import ControlMode
from tensorquay.config.toml_file import parse_toml
from tensorquay.core.errors import ModelFailed
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.lease import LoadedVersion
from tensorquay.lifecycle.optimized import Here, differences
from tensorquay.lifecycle.recipe import Recipe
from tensorquay.repository.optimization import Optimization, read_optimization

GPU = replace(RUNTIME, providers=("cuda", "cpu"), gpu="NVIDIA H100 80GB HBM3")
ON_GPU = {"settings": {"provider": "cuda"}, "machine": {"gpu": GPU.gpu}}


@pytest.fixture
def here(world: Any) -> Any:
    """The world on the very machine on which `optimization()` was made."""
    world.cpu, world.backend.runtime, world.threads = CPU, RUNTIME, 4
    return world


async def load(world: Any, config: str = "", **changes: Any) -> LoadedVersion:
    path = world.repo.drop("m", 1)
    write_optimization(path.parent, **changes)
    if config:
        world.repo.config("m", config, "config.toml")
    manager = world.manager(ControlMode.NONE)
    report = await manager.start()
    assert report.failed == ()
    return manager.lookup("m").loaded  # type: ignore[no-any-return]


async def test_where_it_fits_its_settings_are_applied_and_shown(here: Any) -> None:
    loaded = await load(here, settings={"graph_optimization": "disabled", "intra_op_threads": 3, "spinning": True})
    (request,) = here.backend.loads
    assert (request.execution.graph_optimization, request.execution.intra_op_threads) == ("disabled", 3)
    assert request.execution.providers == (), "nothing but the CPU is here"
    assert loaded.properties["optimized"] == "static int8, minmax; 1.7 × on Test CPU 1"
    assert loaded.notes == ()
    assert loaded.effective.origins["execution.spinning"] == "optimization.json"


async def test_what_the_configuration_says_wins(here: Any) -> None:
    loaded = await load(here, "[execution]\nintra_op_threads = 2\n", settings={"intra_op_threads": 3, "spinning": True})
    execution = here.backend.loads[0].execution
    assert (execution.intra_op_threads, execution.spinning) == (2, True)
    assert loaded.effective.origins["execution.intra_op_threads"] == "config.toml"


async def test_on_another_machine_it_says_so_once_and_applies_nothing(
    here: Any, caplog: pytest.LogCaptureFixture
) -> None:
    here.cpu = CpuFacts("Test CPU 2", ("avx2", "avx512f", "amx_int8"))
    here.backend.runtime = RuntimeFacts("1.30.0")
    with caplog.at_level(logging.WARNING):
        loaded = await load(here, settings={"spinning": True})
    (note,) = loaded.notes
    assert note == (
        "this version was optimised on Test CPU 1 and may not be the fastest here: the processor here, Test CPU 2, has "
        "no avx512_vnni; the processor here, Test CPU 2, has amx_int8, which that one had not; ONNX Runtime is 1.30.0 "
        "here and was 1.31.0 there; its settings are not applied; to optimise it for this machine: "
        "tensorquay optimize m"
    )
    assert loaded.properties["notes"] == note
    assert loaded.properties["optimized"], "what it is, it is here too"
    assert [each.message for each in caplog.records].count(f"m/1: {note}") == 1
    assert not here.backend.loads[0].execution.spinning


async def test_more_threads_than_the_server_has_are_not_taken(here: Any) -> None:
    loaded = await load(here, settings={"intra_op_threads": 64, "parallel": True, "inter_op_threads": 2})
    execution = here.backend.loads[0].execution
    assert (execution.intra_op_threads, execution.inter_op_threads, execution.parallel) == (0, 2, True)
    assert loaded.notes == ("optimization.json advises 64 threads; the server's budget is 4, and these are used",)


async def test_settings_that_keep_it_from_loading_are_given_up(here: Any) -> None:
    def refuse(request: LoadRequest) -> Exception | None:
        return ModelFailed("the runtime refused 'session.x'") if request.execution.session_options else None

    here.backend.fail_load = refuse
    loaded = await load(here, settings={"session_options": {"session.x": "1"}})
    (note,) = loaded.notes
    assert "are not applied, the model does not load with them: the runtime refused 'session.x'" in note
    assert [bool(each.execution.session_options) for each in here.backend.loads] == [True, False]
    assert "optimization.json" not in loaded.effective.origins.values()


async def test_what_fails_without_its_settings_too_fails_with_its_own_reason(here: Any) -> None:
    here.backend.fail_load = lambda _: ModelFailed("the file is cut short")
    write_optimization(here.repo.drop("m", 1).parent)
    manager = here.manager(ControlMode.NONE)
    report = await manager.start()
    assert report.failed[0].problems == ("the file is cut short",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "'optimization.json' is not JSON: what it may say about this version is not known"),
        (b'{"schema": "x"}', "has the schema 'x'"),
    ],
)
async def test_a_broken_file_is_a_note_and_never_a_failed_load(here: Any, content: bytes, said: str) -> None:
    path = here.repo.drop("m", 1)
    (path.parent / "optimization.json").write_bytes(content)
    manager = here.manager(ControlMode.NONE)
    await manager.start()
    assert said in manager.lookup("m").loaded.properties["notes"]


@pytest.mark.parametrize(
    "settings",
    [{"provider": "tpu"}, {"session_options": {"session.optimized_model_filepath": "/tmp/x"}}, {"provider": "cuda; x"}],
)
async def test_settings_that_nobody_may_have_are_a_note(here: Any, settings: dict[str, Any]) -> None:
    loaded = await load(here, settings=settings)
    assert "none of its settings is applied" in loaded.properties["notes"]
    assert here.backend.loads[0].execution.providers == ()


async def test_where_nothing_was_faster_there_is_nothing_to_follow(here: Any) -> None:
    here.cpu = CpuFacts("Test CPU 2", ())
    loaded = await load(here, winner="", settings={"spinning": True})
    assert loaded.notes == ()
    assert loaded.properties["optimized"] == "nothing faster was found on Test CPU 1"
    assert not here.backend.loads[0].execution.spinning


async def test_a_gpu_that_is_not_there_is_a_note_and_the_cpu_serves(here: Any) -> None:
    loaded = await load(here, **ON_GPU)
    assert "optimised for cuda, and there is no GPU that could be used here" in loaded.properties["notes"]
    assert loaded.kind is InstanceKind.CPU


async def test_on_the_gpu_it_was_optimised_for_the_provider_is_taken_over(here: Any) -> None:
    here.backend.runtime, here.backend.devices, here.cpu = GPU, (0,), None
    loaded = await load(
        here, settings={"provider": "cuda", "provider_options": {"use_tf32": "0"}}, machine={"gpu": GPU.gpu}
    )
    (request,) = here.backend.loads
    assert request.kind is InstanceKind.GPU
    assert [each.name for each in request.execution.providers] == ["cuda"]
    assert loaded.notes == ()
    assert loaded.properties["optimized"].endswith(f"on {GPU.gpu}")


async def test_a_model_optimised_for_the_cpu_stays_there_beside_a_gpu_and_says_so(here: Any) -> None:
    here.backend.runtime, here.backend.devices = GPU, (0,)
    loaded = await load(here)
    assert here.backend.loads[0].kind is InstanceKind.CPU
    (note,) = loaded.notes
    assert "although a GPU is here" in note


async def test_an_upload_with_an_optimization_can_name_no_files(here: Any) -> None:
    manager = here.manager(ControlMode.EXPLICIT)
    await manager.start()
    import json

    hostile = optimization(settings={"session_options": {"session.optimized_model_filepath": "/tmp/x"}})
    files = {"file:1/model.onnx": b"x", "file:1/optimization.json": json.dumps(hostile).encode()}
    await manager.load("m", "{}", files)
    assert "none of its settings is applied" in manager.lookup("m").loaded.properties["notes"]


def record(tmp_path: Any, **changes: Any) -> Optimization:
    found = read_optimization(write_optimization(tmp_path, **changes).parent)
    assert found is not None
    return found


HERE = Here(CPU, RUNTIME, 4)
HERE_GPU = Here(CPU, GPU, 4, (0,))


@pytest.mark.parametrize(
    ("changes", "config", "here", "said"),
    [
        ({}, "", HERE, None),
        ({}, "", Here(), None),
        ({}, "", Here(CpuFacts("other name", CPU.features), RUNTIME), None),
        ({}, "", replace(HERE, cpu=CpuFacts("c", ())), "c, has no avx2, avx512f, avx512_vnni"),
        ({"machine": {"features": ["avx2", "made_up"]}}, "", HERE, "has avx512f, avx512_vnni, which that one had not"),
        ({"machine": {"features": [], "cpu": ""}}, "", HERE, None),
        ({"machine": 3}, "", HERE, None),
        ({"machine": {"onnxruntime": "1.31.1"}}, "", HERE, "ONNX Runtime is 1.31.0 here and was 1.31.1 there"),
        ({"settings": {"provider": "openvino"}}, "", HERE, "openvino, which the runtime here has not (it has cpu)"),
        (ON_GPU, "", HERE_GPU, None),
        (ON_GPU, "", replace(HERE_GPU, cpu=CpuFacts("c", ())), None),
        ({**ON_GPU, "machine": {"gpu": "nvidia h100 80gb hbm3"}}, "", HERE_GPU, None),
        ({**ON_GPU, "machine": {"gpu": "NVIDIA A100"}}, "", HERE_GPU, "the GPU here is NVIDIA H100 80GB HBM3"),
        (ON_GPU, '[instances]\nkind = "cpu"\n', HERE_GPU, "its configuration runs it on the CPU"),
        ({}, '[instances]\nkind = "gpu"\n', HERE_GPU, "its configuration runs it on a GPU"),
        ({}, '[execution]\nproviders = ["cpu"]\n', HERE_GPU, None),
        (ON_GPU, '[execution]\nproviders = ["cuda"]\n', HERE_GPU, None),
    ],
)
def test_what_counts_as_another_machine(
    tmp_path: Any, changes: dict[str, Any], config: str, here: Here, said: str | None
) -> None:
    found = "; ".join(differences(record(tmp_path, **changes), parse_toml(config) if config else ModelConfig(), here))
    assert found == "" if said is None else said in found


class Listening:
    """Hears what the fleet tells an optimizer."""

    def __init__(self) -> None:
        self.considered: list[VersionId] = []
        self.forgotten: list[VersionId] = []
        self.recipes: list[Recipe] = []
        self.closed = False

    def consider(self, recipe: Recipe, loaded: LoadedVersion) -> None:
        assert recipe.id == loaded.id
        self.considered.append(recipe.id)
        self.recipes.append(recipe)

    def forget(self, version: VersionId) -> None:
        self.forgotten.append(version)

    async def close(self) -> None:
        self.closed = True


async def test_the_optimizer_hears_of_versions_that_come_and_go(here: Any) -> None:
    listening = here.optimizer = Listening()
    here.repo.drop("m", 1)
    manager = here.manager()
    await manager.start()
    assert listening.considered == [VersionId("m", 1, 1)]
    assert listening.recipes[0].repository == 0
    assert listening.forgotten == []
    here.repo.drop("m", 2)
    await here.looked(manager)
    assert [each.version for each in listening.considered] == [1, 2]
    assert [each.version for each in listening.forgotten] == [1]
    await manager.close()
    assert [each.version for each in listening.forgotten] == [1, 2]
    assert listening.closed


async def test_an_upload_is_in_no_repository(here: Any) -> None:
    listening = here.optimizer = Listening()
    manager = here.manager(ControlMode.EXPLICIT)
    await manager.start()
    await manager.load("m", "{}", {"file:1/model.onnx": b"x"})
    assert listening.recipes[0].repository is None


async def test_switched_off_it_is_said_to_who_asks(here: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await load(here, '[optimization]\nbackground = "always"\n')
    assert "asks to be optimised in the background, which is switched off here" in caplog.text
