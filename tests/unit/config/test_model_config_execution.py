"""Providers, threads and `parameters` of a Triton configuration."""

from __future__ import annotations

import pytest

from tensorquay.config.model import ExecutionConfig, InlineRun, ModelConfig, ProviderConfig
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.triton import parse_pbtxt


def parameters(**given: str) -> str:
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in given.items()
    )


def accelerator(side: str, name: str, **given: str) -> str:
    options = "".join(f' parameters {{ key: "{key}" value: "{value}" }}' for key, value in given.items())
    listed = f'{side}_execution_accelerator [ {{ name: "{name}"{options} }} ]'
    return f"optimization {{ execution_accelerators {{ {listed} }} }}\n"


def names(config: ModelConfig) -> list[str]:
    return [provider.name for provider in config.execution.providers]


def test_every_known_parameter_has_a_meaning() -> None:
    config = parse_pbtxt(
        parameters(
            **{
                "intra_op_thread_count": "4",
                "inter_op_thread_count": "2",
                "execution_mode": "1",
                "enable_mem_arena": "0",
                "enable_mem_pattern": "0",
                "memory.enable_memory_arena_shrinkage": "cpu:0;gpu:1",
                "session.intra_op.allow_spinning": "1",
                "session.use_device_allocator_for_initializers": "1",
                "execution_inline": "never",
                "allow_provider_fallback": "true",
            }
        )
    )
    assert config.execution == ExecutionConfig(
        allow_fallback=True,
        intra_op_threads=4,
        inter_op_threads=2,
        parallel=True,
        spinning=True,
        memory_arena=False,
        memory_pattern=False,
        arena_shrinkage="cpu:0;gpu:1",
        inline=InlineRun.NEVER,
        session_options={"session.use_device_allocator_for_initializers": "1"},
    )
    assert config.parameters == {}
    assert config.notes == ()


@pytest.mark.parametrize(("level", "word"), [(-1, "basic"), (0, "all"), (1, "extended"), (2, "disabled")])
def test_graph_levels(level: int, word: str) -> None:
    config = parse_pbtxt(f"optimization {{ graph {{ level: {level} }} }}")
    assert config.execution.graph_optimization == word


def test_tensorrt_brings_cuda_and_cpu_behind_it() -> None:
    config = parse_pbtxt(
        accelerator(
            "gpu", "tensorrt", precision_mode="FP16", max_workspace_size_bytes="99", trt_engine_cache_enable="1"
        )
    )
    assert config.execution.providers == (
        ProviderConfig(
            "tensorrt",
            {"trt_fp16_enable": "1", "trt_max_workspace_size": "99", "trt_engine_cache_enable": "1"},
        ),
        ProviderConfig("cuda"),
        ProviderConfig("cpu"),
    )


def test_cuda_options_pass_through() -> None:
    config = parse_pbtxt(accelerator("gpu", "cuda", cudnn_conv_use_max_workspace="0"))
    assert config.execution.providers[0] == ProviderConfig("cuda", {"cudnn_conv_use_max_workspace": "0"})
    assert names(config) == ["cuda", "cpu"]


def test_openvino_runs_on_the_cpu() -> None:
    assert names(parse_pbtxt(accelerator("cpu", "openvino"))) == ["openvino", "cpu"]


def test_an_accelerator_for_the_other_device_is_noted() -> None:
    on_cpu = parse_pbtxt(accelerator("gpu", "tensorrt") + "instance_group { kind: KIND_CPU }")
    assert names(on_cpu) == []
    assert "gpu_execution_accelerator" in on_cpu.notes[0]
    on_gpu = parse_pbtxt(accelerator("cpu", "openvino") + "instance_group { kind: KIND_GPU }")
    assert names(on_gpu) == []
    assert "cpu_execution_accelerator" in on_gpu.notes[0]


def test_older_cuda_parameters_become_options() -> None:
    written = parameters(cudnn_conv_algo_search="1", arena_extend_strategy="1", gpu_mem_limit="1000")
    config = parse_pbtxt(written + "instance_group { kind: KIND_GPU }")
    assert config.execution.providers == (
        ProviderConfig(
            "cuda",
            {
                "arena_extend_strategy": "kSameAsRequested",
                "cudnn_conv_algo_search": "HEURISTIC",
                "gpu_mem_limit": "1000",
            },
        ),
        ProviderConfig("cpu"),
    )
    unused = parse_pbtxt(written)
    assert names(unused) == []
    assert "cudnn_conv_algo_search" in unused.notes[0]


def test_our_own_list_of_providers_decides_the_order() -> None:
    config = parse_pbtxt(parameters(execution_providers="tensorrt, cpu") + accelerator("gpu", "tensorrt", trt_x="1"))
    assert config.execution.providers == (ProviderConfig("tensorrt", {"trt_x": "1"}), ProviderConfig("cpu"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (parameters(intra_op_thread_count="-1"), "parameters[intra_op_thread_count]"),
        (parameters(intra_op_thread_count="two"), "whole number"),
        (parameters(intra_op_thread_count="99999"), "1024"),
        (parameters(intra_op_thread_count="٣"), "whole number"),
        (parameters(inter_op_thread_count=""), "whole number"),
        (parameters(execution_mode="2"), "parameters[execution_mode]"),
        (parameters(enable_mem_arena="yes"), "parameters[enable_mem_arena]"),
        (parameters(**{"memory.enable_memory_arena_shrinkage": "tpu:0"}), "arena_shrinkage"),
        (parameters(execution_inline="sometimes"), "parameters[execution_inline]"),
        (parameters(allow_provider_fallback="maybe"), "parameters[allow_provider_fallback]"),
        (parameters(oversize_requests="drop"), "parameters[oversize_requests]"),
        (parameters(execution_providers="rocm"), "parameters[execution_providers]"),
        (parameters(execution_providers="cpu,cuda"), "put it last"),
        (parameters(execution_providers="cuda,cuda"), "twice"),
        (parameters(execution_providers="cpu") + accelerator("gpu", "cuda"), "not in this list"),
        (parameters(cudnn_conv_algo_search="9"), "parameters[cudnn_conv_algo_search]"),
        (parameters(gpu_mem_limit="1") + accelerator("gpu", "cuda", gpu_mem_limit="2"), "otherwise"),
        (parameters(**{"session.optimized_model_file": "/tmp/x"}), "files or folders"),
        (
            parameters(**{"session.model_external_initializers_file_folder_path": "/"}),
            "parameters[session.model_external_initializers_file_folder_path]",
        ),
        ("optimization { graph { level: 3 } }", "optimization.graph.level"),
        (accelerator("gpu", "tensorRT"), "did you mean 'tensorrt'?"),
        (accelerator("gpu", "auto_mixed_precision"), "unknown accelerator"),
        (accelerator("cpu", "cuda"), "unknown accelerator"),
        (accelerator("gpu", "tensorrt", precision_mode="FP8"), "precision_mode"),
        (accelerator("gpu", "tensorrt", workspace="1"), "unknown setting"),
        (accelerator("gpu", "tensorrt", precision_mode="FP16", trt_fp16_enable="0"), "contradicts"),
        (accelerator("gpu", "cuda", device_id="1"), "gpus"),
        (accelerator("gpu", "cuda", user_compute_stream="12345"), "address"),
        (accelerator("gpu", "cuda") + "instance_group [{ kind: KIND_GPU }, { kind: KIND_CPU }]", "CPU"),
        (parameters(execution_providers="cpu") + "instance_group { kind: KIND_GPU }", "none of these"),
        (
            "optimization { execution_accelerators { "
            "gpu_execution_accelerator [{ name: 'cuda' }, { name: 'cuda' }] } }",
            "twice",
        ),
    ],
    ids=lambda value: value[:70].strip() if value.isascii() else "odd digits",
)
def test_wrong_settings_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigRefused) as caught:
        parse_pbtxt(text)
    assert words in caught.value.message
