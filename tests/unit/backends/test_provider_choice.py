"""Choosing execution providers is pure: a request and a machine in, a choice or a refusal out."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tensorquay.backends.api import LoadRequest
from tensorquay.backends.onnxruntime import runtime as runtime_module
from tensorquay.backends.onnxruntime.options import plan_threads
from tensorquay.backends.onnxruntime.providers import choose, missing, why_no_gpu
from tensorquay.backends.onnxruntime.runtime import CPU, CUDA, OPENVINO, TENSORRT, Machine, survey, why_not_attached
from tensorquay.config.model import ExecutionConfig, InstanceKind, ProviderConfig
from tensorquay.config.triton import parse_pbtxt
from tensorquay.core.errors import ModelFailed

CPU_ONLY = Machine((CPU,), 0, ("onnxruntime",))
GPU_BOX = Machine((TENSORRT, CUDA, CPU), 2, ("onnxruntime-gpu",))
NO_DRIVER = Machine((TENSORRT, CUDA, CPU), 0, ("onnxruntime-gpu",))


def request(kind, *providers, device=0, fallback=False):
    configured = tuple(ProviderConfig(*p) if isinstance(p, tuple) else ProviderConfig(p) for p in providers)
    return LoadRequest(
        Path("m"), ExecutionConfig(providers=configured, allow_fallback=fallback), InstanceKind[kind], device, 1
    )


def names(choice):
    return [provider.name for provider in choice.providers]


@pytest.mark.parametrize(
    ("asked", "machine", "expected"),
    [
        (request("AUTO"), CPU_ONLY, [CPU]),
        (request("CPU"), GPU_BOX, [CPU]),
        (request("AUTO"), GPU_BOX, [CUDA, CPU]),
        (request("GPU"), GPU_BOX, [CUDA, CPU]),
        (request("GPU", "tensorrt"), GPU_BOX, [TENSORRT, CUDA, CPU]),
        (request("GPU", "tensorrt", "cpu"), GPU_BOX, [TENSORRT, CUDA, CPU]),
        (request("AUTO", "tensorrt"), GPU_BOX, [TENSORRT, CPU]),
        (request("AUTO", "cuda", "cpu"), GPU_BOX, [CUDA, CPU]),
        (request("AUTO", "CUDA"), GPU_BOX, [CUDA, CPU]),
        (request("AUTO", CUDA), GPU_BOX, [CUDA, CPU]),
        (request("AUTO", "openvino"), Machine((OPENVINO, CPU), 0, ()), [OPENVINO, CPU]),
        (request("AUTO", device=5), GPU_BOX, [CPU]),
    ],
)
def test_the_choice(asked, machine, expected):
    assert names(choose(asked, machine)) == expected


def test_the_instances_gpu_becomes_an_option_unless_one_is_given():
    choice = choose(request("GPU", ("tensorrt", {"device_id": "0"}), "cuda", device=1), GPU_BOX)
    assert [provider.options.get("device_id") for provider in choice.providers] == ["0", "1", None]


def test_options_are_passed_as_text():
    choice = choose(request("AUTO", ("cuda", {"gpu_mem_limit": "1024"})), GPU_BOX)
    assert choice.providers[0].options == {"gpu_mem_limit": "1024", "device_id": "0"}


@pytest.mark.parametrize(
    ("asked", "machine", "words"),
    [
        (request("GPU"), CPU_ONLY, r"pip install 'tensorquay\[gpu\]'"),
        (request("GPU"), NO_DRIVER, "sees none"),
        (request("AUTO", "tensorrt"), NO_DRIVER, "sees none"),
        (request("GPU", device=2), GPU_BOX, "given GPU 2, this process sees 2"),
        (request("AUTO", ("cuda", {"device_id": "many"})), GPU_BOX, "given GPU many"),
        (request("AUTO", ("cuda", {"device_id": "9" * 50})), GPU_BOX, "given GPU 999"),
        (request("AUTO", "openvino"), GPU_BOX, "which has tensorrt, cuda, cpu"),
        (request("GPU"), Machine((CPU,), 1, ("onnxruntime", "onnxruntime-gpu")), "keep one"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_remedy_or_falls_back_with_a_note(asked, machine, words):
    with pytest.raises(ModelFailed, match=words) as caught:
        choose(asked, machine)
    assert "allow_fallback" in str(caught.value)
    allowed = request(
        asked.kind.name,
        *((p.name, p.options) for p in asked.execution.providers),
        device=asked.device_id,
        fallback=True,
    )
    choice = choose(allowed, machine)
    assert names(choice) == [CPU]
    assert "falling back" in " ".join(choice.notes)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (request("CPU", "cuda"), "contradict"),
        (request("CPU", "tensorrt", "cpu"), "KIND_CPU and the providers are tensorrt, cpu: these contradict"),
        (request("GPU", "cpu"), "contradict"),
        (request("AUTO", "cuda", CUDA), "'cuda' is listed twice"),
    ],
)
def test_contradictions_are_refused_even_when_falling_back_is_allowed(asked, words):
    for fallback in (False, True):
        again = request(asked.kind.name, *(p.name for p in asked.execution.providers), fallback=fallback)
        with pytest.raises(ModelFailed, match=words):
            choose(again, GPU_BOX)


def test_auto_without_a_gpu_says_why_it_is_on_the_cpu():
    assert "sees no such NVIDIA GPU" in choose(request("AUTO"), NO_DRIVER).notes[0]
    assert choose(request("AUTO"), CPU_ONLY).notes == ()


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (CPU_ONLY, r"'cuda' is not in this build of ONNX Runtime, which has cpu; .* pip install 'tensorquay\[gpu\]'$"),
        (NO_DRIVER, "this process sees no NVIDIA GPU .*CUDA_VISIBLE_DEVICES"),
        (Machine((CPU,), 0, ("onnxruntime", "onnxruntime-gpu")), "keep one$"),
        (GPU_BOX, "^$"),
    ],
)
def test_why_there_is_no_gpu_names_cause_and_remedy(machine, words):
    assert re.search(words, why_no_gpu(machine))


def test_a_refusal_says_what_to_write_in_either_file_to_allow_falling_back():
    with pytest.raises(ModelFailed) as caught:
        choose(request("GPU"), CPU_ONLY)
    assert "[execution] allow_fallback = true" in str(caught.value)
    written = re.search(r'parameters \{ key: "allow_provider_fallback" .*\} \}', str(caught.value))
    assert written is not None
    assert parse_pbtxt(written[0]).execution.allow_fallback


def test_missing_compares_with_what_attached():
    choice = choose(request("GPU", "tensorrt"), GPU_BOX)
    assert missing(choice, [CUDA, CPU]) == (TENSORRT,)
    assert missing(choice, [TENSORRT, CUDA, CPU]) == ()


def test_the_cause_names_the_likeliest_thing_to_repair(tmp_path):
    module = SimpleNamespace(__file__=str(tmp_path / "onnxruntime" / "__init__.py"))
    both = Machine((CUDA, CPU), 1, ("onnxruntime", "onnxruntime-gpu"))
    assert "both installed" in why_not_attached(module, CUDA, both)
    assert "sees no NVIDIA GPU" in why_not_attached(module, CUDA, NO_DRIVER)
    cause = why_not_attached(module, CUDA, GPU_BOX)
    assert "libonnxruntime_providers_cuda.so could not be loaded" in cause
    assert str(tmp_path) not in cause
    assert "no reason" in why_not_attached(module, "OtherProvider", GPU_BOX)


def test_the_driver_is_asked_only_when_the_build_could_use_it(monkeypatch):
    monkeypatch.setattr(runtime_module, "count_gpus", lambda: pytest.fail("asked"))
    assert survey(SimpleNamespace(get_available_providers=lambda: [CPU], cuda_version="")).gpus == 0


def test_a_plugin_build_is_preloaded_before_it_is_asked_again(monkeypatch, capsys):
    monkeypatch.setattr(runtime_module, "count_gpus", lambda: 1)
    offered = [CPU]

    def preload_dlls():
        print("noise for nobody")
        offered.insert(0, CUDA)

    module = SimpleNamespace(
        get_available_providers=lambda: list(offered), cuda_version="13.0", preload_dlls=preload_dlls
    )
    assert survey(module).available == (CUDA, CPU)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("execution", "budget", "expected"),
    [
        (ExecutionConfig(), 4, (4, 1)),
        (ExecutionConfig(), 0, (1, 1)),
        (ExecutionConfig(intra_op_threads=3), 8, (3, 1)),
        (ExecutionConfig(parallel=True), 2, (2, 2)),
        (ExecutionConfig(inter_op_threads=5), 2, (2, 1)),
        (ExecutionConfig(parallel=True, inter_op_threads=5), 2, (2, 5)),
    ],
)
def test_threads_come_from_the_configuration_or_the_budget(execution, budget, expected):
    threads = plan_threads(execution, budget)
    assert (threads.intra_op, threads.inter_op) == expected
