"""What asks for a GPU on a machine without one: refused with cause and remedy, or on the CPU with a warning.

The files are what a person writes; the runtime is ONNX Runtime, told that it has no GPU.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

import graphs
from tensorquay.backends.api import Placement
from tensorquay.backends.onnxruntime.backend import OnnxRuntimeBackend
from tensorquay.backends.onnxruntime.runtime import CPU, CUDA, Machine
from tensorquay.config.model import InstanceKind, ModelConfig
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.triton import parse_json_config, parse_pbtxt
from tensorquay.config.triton_write import to_triton_json
from tensorquay.core.clock import SystemClock
from tensorquay.core.errors import InvalidArgument, ModelFailed
from tensorquay.core.ids import VersionId
from tensorquay.lifecycle.lease import LoadedVersion
from tensorquay.lifecycle.loader import Loader, close_sessions
from tensorquay.lifecycle.recipe import Recipe

KIND_GPU = '[instances]\nkind = "gpu"\n'
TENSORRT = 'optimization { execution_accelerators { gpu_execution_accelerator: [{ name: "tensorrt" }] } }'
ALLOWED = 'parameters { key: "allow_provider_fallback" value { string_value: "true" } }'

CASES = {
    "kind gpu": KIND_GPU,
    "cuda then cpu": '[execution]\nproviders = ["cuda", "cpu"]\n',
    "cuda": '[execution]\nproviders = ["cuda"]\n',
    "cuda and kind gpu": '[execution]\nproviders = ["cuda"]\n' + KIND_GPU,
    "gpu by number": "[instances]\ngpus = [0]\n",
    "tensorrt for triton": TENSORRT,
    "tensorrt and kind gpu for triton": TENSORRT + " instance_group { kind: KIND_GPU }",
}


def read(text: str) -> ModelConfig:
    return parse_pbtxt(text) if text.startswith("optimization") else parse_toml(text)


def allowing(text: str) -> str:
    if text.startswith("optimization"):
        return f"{text} {ALLOWED}"
    if "[execution]" in text:
        return text.replace("[execution]", "[execution]\nallow_fallback = true")
    return "[execution]\nallow_fallback = true\n" + text


class Place:
    """Loads one model with a given file on a given machine."""

    def __init__(self, root: Path) -> None:
        graphs.write(graphs.scale(), root / "m" / "1" / "model.onnx")
        self._folder = root / "m"

    def load(self, config: ModelConfig, machine: Machine) -> LoadedVersion:
        backend = OnnxRuntimeBackend(onnxruntime, machine)
        loader = Loader(lambda _: backend, thread_budget=1, clock=SystemClock())
        path = self._folder / "1" / "model.onnx"
        loaded = loader.load(Recipe(VersionId("m", 1, 1), self._folder, path, config))
        close_sessions(loaded.distinct_sessions())
        return loaded


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


CPU_BUILD = Machine((CPU,), 0, ("onnxruntime",))
NO_GPU = Machine((CUDA, CPU), 0, ("onnxruntime-gpu",))


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("machine", "cause"),
    [(CPU_BUILD, "pip install 'tensorquay[gpu]'"), (NO_GPU, "this process sees no NVIDIA GPU")],
    ids=["cpu build", "no gpu"],
)
def test_a_gpu_that_is_asked_for_and_not_there_fails_the_load_with_cause_and_remedy(place, text, machine, cause):
    with pytest.raises(ModelFailed) as caught:
        place.load(read(text), machine)
    message = caught.value.message
    assert cause in message
    assert "KIND_CPU" not in message, "nobody wrote KIND_CPU"
    assert "[execution] allow_fallback = true" in message
    assert ALLOWED in message


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
@pytest.mark.parametrize("machine", [CPU_BUILD, NO_GPU], ids=["cpu build", "no gpu"])
def test_with_leave_to_fall_back_it_runs_on_the_cpu_and_says_so_everywhere(place, text, machine):
    loaded = place.load(read(allowing(text)), machine)
    assert loaded.kind is InstanceKind.CPU
    assert loaded.properties["providers"] == CPU
    (note,) = loaded.notes
    assert "for a GPU" in note or "for GPU 0" in note
    assert "runs on the CPU (allow_fallback)" in note
    assert note in loaded.properties["notes"]
    shown = to_triton_json(loaded.effective, placed=loaded.kind)
    assert [(group["kind"], group["gpus"]) for group in shown["instance_group"]] == [("KIND_CPU", [])]
    accelerators = shown.get("optimization", {}).get("execution_accelerators", {})
    assert not accelerators.get("gpu_execution_accelerator")


def test_what_the_config_endpoint_shows_after_falling_back_can_be_loaded_again(place):
    loaded = place.load(read(allowing(CASES["cuda and kind gpu"])), CPU_BUILD)
    message = to_triton_json(loaded.effective, placed=loaded.kind)
    again = place.load(parse_json_config(json.dumps(message)), CPU_BUILD)
    assert again.kind is InstanceKind.CPU
    assert again.notes == ()


@pytest.mark.parametrize(
    "text",
    ["", "[execution]\nallow_fallback = true\n", '[execution]\nproviders = ["cpu"]\n', '[instances]\nkind = "cpu"\n'],
)
def test_who_asks_for_no_gpu_hears_nothing_about_one(place, text):
    loaded = place.load(parse_toml(text), CPU_BUILD)
    assert (loaded.kind, loaded.notes) == (InstanceKind.CPU, ())


def test_the_cpu_alone_is_no_contradiction_on_a_machine_with_gpus(place):
    loaded = place.load(parse_toml('[execution]\nproviders = ["cpu"]\n'), Machine((CUDA, CPU), 2, ("onnxruntime-gpu",)))
    assert (loaded.kind, loaded.notes) == (InstanceKind.CPU, ())


def test_a_gpu_that_drops_out_while_loading_is_not_called_a_gpu(place):
    """The runtime here has no CUDA and only warns, as a build does whose CUDA library does not load."""
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this build knows CUDA")
    with pytest.warns(UserWarning, match="not in available"):
        loaded = place.load(read(allowing(KIND_GPU)), Machine((CUDA, CPU), 1, ("onnxruntime-gpu",)))
    assert loaded.kind is InstanceKind.CPU
    assert "did not attach" in loaded.notes[0]


def test_the_cpu_written_beside_a_gpu_provider_is_refused():
    with pytest.raises(InvalidArgument, match="an instance group asks for the CPU, these for a GPU"):
        parse_toml('[execution]\nproviders = ["cuda", "cpu"]\n[instances]\nkind = "cpu"\n')


def test_shares_of_nodes_are_of_all_sessions_and_only_where_they_are_known(place: Place) -> None:
    loaded = place.load(ModelConfig(), Machine((CPU,), 0, ("onnxruntime",)))
    assert loaded.node_shares == {CPU: 1.0}
    assert loaded.file_bytes == (place._folder / "1" / "model.onnx").stat().st_size

    def shares(*placements: Placement) -> dict[str, float]:
        return dict(replace(loaded, placements=placements).node_shares)

    gpu = Placement((CUDA, CPU), 1, 1, {CUDA: 3, CPU: 1})
    assert shares(gpu) == {CUDA: 0.75, CPU: 0.25}
    assert shares(gpu, gpu) == {CUDA: 0.75, CPU: 0.25}
    assert shares(Placement((CUDA, CPU), 1, 1, {CPU: 4})) == {CUDA: 0.0, CPU: 1.0}
    assert shares(Placement((CPU,), 1, 1)) == {CPU: 1.0}, "with one provider there is nothing to count"
    assert shares(Placement((CUDA, CPU), 1, 1)) == {}
    assert shares(Placement((CPU,), 1, 1, {CPU: 7}), gpu) == {CPU: 8 / 11, CUDA: 3 / 11}
