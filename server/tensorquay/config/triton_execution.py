"""Triton's spelling of how a model is executed, both ways: optimization, accelerators and `parameters`.

Decides which execution providers a configuration asks for. Keys of `parameters` that neither Triton's ONNX Runtime
backend nor this server knows are kept, reported, and noted as read by nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tensorquay.config.model import (
    ADVISABLE,
    ExecutionConfig,
    InlineRun,
    InstanceGroup,
    InstanceKind,
    Oversize,
    ProviderConfig,
)
from tensorquay.config.refusal import ConfigRefused, did_you_mean
from tensorquay.config.rules import CPU_PROVIDERS, GPU_PROVIDERS, SESSION_OPTION_PREFIXES

OVERSIZE = "oversize_requests"
"""Ours: "split" or "refuse" a request of more rows than max_batch_size."""

_INLINE = "execution_inline"
_FALLBACK = "allow_provider_fallback"
_PROVIDERS = "execution_providers"
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_MODE = "execution_mode"

_COUNTS = {"intra_op_thread_count": "intra_op_threads", "inter_op_thread_count": "inter_op_threads"}
_SWITCHES = {
    _MODE: "parallel",
    "enable_mem_arena": "memory_arena",
    "enable_mem_pattern": "memory_pattern",
    "session.intra_op.allow_spinning": "spinning",
    _FALLBACK: "allow_fallback",
}
_TRUTH = {"0": False, "1": True, "false": False, "true": True}
_CUDA: Mapping[str, Mapping[str, str]] = {
    "cudnn_conv_algo_search": {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"},
    "arena_extend_strategy": {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"},
    "do_copy_in_default_stream": {"0": "0", "1": "1"},
    "gpu_mem_limit": {},
}
"""Older spellings of CUDA provider options: number → the runtime's word. Empty: any whole number, as it is."""

_LEVELS = {0: "all", -1: "basic", 1: "extended", 2: "disabled"}
_PRECISIONS = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "BF16": {"trt_bf16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}
_TENSORRT = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}

KNOWN_PARAMETERS = frozenset({*_COUNTS, *_SWITCHES, *_CUDA, OVERSIZE, _INLINE, _PROVIDERS, _SHRINKAGE})
"""Keys of `parameters` with a meaning here, besides the runtime's own session options."""


@dataclass(slots=True)
class _Reading:
    """What `parameters` said, piece by piece; lives within one call of `read_execution`."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    session_options: dict[str, str] = field(default_factory=dict)
    cuda: dict[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    free: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def refuse(self, key: str, value: str, rule: str) -> ConfigRefused:
        return ConfigRefused(file=self.file, key=f"parameters[{key}]", value=value, rule=rule)


@dataclass(frozen=True, slots=True)
class ExecutionRead:
    """How to execute, and what is left: parameters nobody here reads, and sentences for people."""

    execution: ExecutionConfig
    free: Mapping[str, str]
    notes: tuple[str, ...]


def read_execution(message: Any, groups: Sequence[InstanceGroup], file: str) -> ExecutionRead:
    """`optimization` and `parameters` of an `inference.ModelConfig`.

    Raises: ConfigRefused for a value outside what its key allows, or providers that contradict each other.
    """
    reading = _Reading(file)
    for key, value in sorted(message.parameters.items()):
        _read_parameter(reading, key, value.string_value)
    level = message.optimization.graph.level
    if level not in _LEVELS:
        raise ConfigRefused(
            file=file, key="optimization.graph.level", value=level, rule="it must be -1 (basic), 0 (all), 1 or 2 (off)"
        )
    accelerators = message.optimization.execution_accelerators
    on_gpu = _accelerators(accelerators.gpu_execution_accelerator, "gpu_execution_accelerator", GPU_PROVIDERS, file)
    on_cpu = _accelerators(accelerators.cpu_execution_accelerator, "cpu_execution_accelerator", CPU_PROVIDERS, file)
    providers = _providers(reading, on_gpu, on_cpu, {group.kind for group in groups})
    plain = ExecutionConfig()
    execution = ExecutionConfig(
        insists=frozenset(
            name for name, value in reading.values.items() if name in ADVISABLE and value == getattr(plain, name)
        ),
        providers=providers,
        graph_optimization=_LEVELS[level],
        session_options=reading.session_options,
        **reading.values,
    )
    return ExecutionRead(execution, reading.free, tuple(reading.notes))


def oversize_of(parameters: Mapping[str, str], file: str) -> Oversize:
    """What `oversize_requests` asks for; SPLIT when it is absent.

    Raises: ConfigRefused for any other word.
    """
    value = parameters.get(OVERSIZE, Oversize.SPLIT.value)
    try:
        return Oversize(value)
    except ValueError:
        raise ConfigRefused(
            file=file, key=f"parameters[{OVERSIZE}]", value=value, rule='it must be "split" or "refuse"'
        ) from None


def _read_parameter(reading: _Reading, key: str, value: str) -> None:
    if key in _COUNTS:
        reading.values[_COUNTS[key]] = _whole(reading, key, value)
    elif key in _SWITCHES:
        if value.lower() not in _TRUTH:
            raise reading.refuse(key, value, 'it must be "0" or "1"')
        reading.values[_SWITCHES[key]] = _TRUTH[value.lower()]
    elif key in _CUDA:
        words = _CUDA[key]
        if words and value not in words and value not in words.values():
            raise reading.refuse(key, value, f"it must be one of {', '.join(words)}")
        reading.cuda[key] = words.get(value, value) if words else str(_whole(reading, key, value))
    elif key == _SHRINKAGE:
        reading.values["arena_shrinkage"] = value
    elif key == _INLINE:
        try:
            reading.values["inline"] = InlineRun(value)
        except ValueError:
            raise reading.refuse(key, value, 'it must be "auto", "always" or "never"') from None
    elif key == _PROVIDERS:
        reading.order = tuple(name.strip() for name in value.split(","))
        if not set(reading.order) <= {*GPU_PROVIDERS, *CPU_PROVIDERS}:
            known = ", ".join((*GPU_PROVIDERS, *CPU_PROVIDERS))
            raise reading.refuse(key, value, f"it must list providers by comma, in order of preference, from {known}")
    elif key.startswith(SESSION_OPTION_PREFIXES):
        reading.session_options[key] = value
    else:
        reading.free[key] = value
        if key != OVERSIZE:
            hint = did_you_mean(key, KNOWN_PARAMETERS) if len(key) > 3 else ""
            hint = f" ({hint})" if hint.startswith("did") else ""
            reading.notes.append(f"{reading.file}: 'parameters[{key[:120]}]' is kept, nothing here reads it{hint}")


def _whole(reading: _Reading, key: str, value: str) -> int:
    if re.fullmatch(r"[0-9]{1,20}", value) is None:
        raise reading.refuse(key, value, "it must be a whole number, 0 or more")
    return int(value)


def _accelerators(listed: Any, field_name: str, known: Sequence[str], file: str) -> list[ProviderConfig]:
    found: list[ProviderConfig] = []
    for index, accelerator in enumerate(listed):
        key = f"optimization.execution_accelerators.{field_name}[{index}]"
        if accelerator.name not in known:
            raise ConfigRefused(
                file=file,
                key=f"{key}.name",
                value=accelerator.name,
                rule="unknown accelerator for an ONNX model",
                hint=did_you_mean(accelerator.name, known),
            )
        options = dict(sorted(accelerator.parameters.items()))
        if accelerator.name == "tensorrt":
            options = _tensorrt_options(options, key, file)
        found.append(ProviderConfig(accelerator.name, options))
    return found


def _tensorrt_options(written: Mapping[str, str], key: str, file: str) -> dict[str, str]:
    """Triton's names for TensorRT settings become the provider's; `trt_*` are the provider's already."""
    options: dict[str, str] = {}
    for name, value in written.items():
        at = f"{key}.parameters[{name}]"
        if name == "precision_mode":
            if value not in _PRECISIONS:
                raise ConfigRefused(file=file, key=at, value=value, rule=f"it must be one of {', '.join(_PRECISIONS)}")
            new = _PRECISIONS[value]
        elif name in _TENSORRT:
            new = {_TENSORRT[name]: value}
        elif name.startswith("trt_"):
            new = {name: value}
        else:
            hint = did_you_mean(name, (*_TENSORRT, "precision_mode"))
            raise ConfigRefused(file=file, key=at, value=value, rule="unknown setting of tensorrt", hint=hint)
        for option, setting in new.items():
            if options.setdefault(option, setting) != setting:
                raise ConfigRefused(file=file, key=at, value=value, rule=f"it contradicts {option} given beside it")
    return options


def _providers(
    reading: _Reading, on_gpu: list[ProviderConfig], on_cpu: list[ProviderConfig], kinds: set[InstanceKind]
) -> tuple[ProviderConfig, ...]:
    """The providers in order of preference; empty leaves the choice to the instance's kind."""
    given = {provider.name: provider for provider in (*on_gpu, *on_cpu)}
    if len(given) != len(on_gpu) + len(on_cpu):
        raise ConfigRefused(
            file=reading.file,
            key="optimization.execution_accelerators",
            value=[provider.name for provider in (*on_gpu, *on_cpu)],
            rule="an accelerator is listed twice",
        )
    if reading.order:
        unused = sorted(given.keys() - set(reading.order))
        if unused:
            raise reading.refuse(_PROVIDERS, ",".join(reading.order), f"accelerator '{unused[0]}' is not in this list")
        chosen = [given.get(name, ProviderConfig(name)) for name in reading.order]
    else:
        chosen = _implied(reading, on_gpu, on_cpu, kinds)
    return tuple(_with_cuda_options(reading, chosen, kinds))


def _implied(
    reading: _Reading, on_gpu: list[ProviderConfig], on_cpu: list[ProviderConfig], kinds: set[InstanceKind]
) -> list[ProviderConfig]:
    """Triton's rule: accelerators first, then CUDA on a GPU, then the CPU; a list for the other device is unused."""
    only_cpu = kinds == {InstanceKind.CPU}
    idle = on_gpu if only_cpu else on_cpu if on_gpu or InstanceKind.GPU in kinds else []
    if idle:
        where = "cpu" if idle is on_cpu else "gpu"
        reading.notes.append(
            f"{reading.file}: 'optimization.execution_accelerators.{where}_execution_accelerator' is accepted and has "
            f"no effect here: no instance runs on the {where.upper()}"
        )
    chosen = [] if idle is on_gpu else list(on_gpu)
    if chosen and all(provider.name != "cuda" for provider in chosen):
        chosen.append(ProviderConfig("cuda"))
    if idle is not on_cpu and not chosen:
        chosen = sorted(on_cpu, key=lambda provider: provider.name == "cpu")
    if chosen and chosen[-1].name != "cpu":
        chosen.append(ProviderConfig("cpu"))
    return chosen


def _with_cuda_options(
    reading: _Reading, chosen: list[ProviderConfig], kinds: set[InstanceKind]
) -> list[ProviderConfig]:
    if not reading.cuda:
        return chosen
    if not chosen and kinds == {InstanceKind.GPU}:
        chosen = [ProviderConfig("cuda"), ProviderConfig("cpu")]
    names = [provider.name for provider in chosen]
    if "cuda" not in names:
        listed = ", ".join(sorted(reading.cuda))
        reading.notes.append(
            f"{reading.file}: parameters {listed} are accepted and have no effect here: the cuda provider was not "
            "asked for (give instance_group kind KIND_GPU)"
        )
        return chosen
    at = names.index("cuda")
    for option, value in reading.cuda.items():
        if chosen[at].options.get(option, value) != value:
            raise reading.refuse(option, value, "the cuda accelerator's own parameters say otherwise")
    chosen[at] = replace(chosen[at], options={**reading.cuda, **chosen[at].options})
    return chosen


def write_execution(execution: ExecutionConfig, groups: Sequence[InstanceGroup], message: Any) -> None:
    """Write `execution` into an `inference.ModelConfig` so that `read_execution` gives it back."""
    levels = {word: number for number, word in _LEVELS.items()}
    message.optimization.graph.level = levels[execution.graph_optimization]
    parameters: dict[str, str] = dict(execution.session_options)
    plain = ExecutionConfig()
    for key, name in _COUNTS.items():
        if getattr(execution, name) != getattr(plain, name) or name in execution.insists:
            parameters[key] = str(getattr(execution, name))
    for key, name in _SWITCHES.items():
        if getattr(execution, name) != getattr(plain, name) or name in execution.insists:
            parameters[key] = "1" if getattr(execution, name) else "0"
    if execution.arena_shrinkage:
        parameters[_SHRINKAGE] = execution.arena_shrinkage
    if execution.inline is not plain.inline:
        parameters[_INLINE] = execution.inline.value
    on_gpu = [provider for provider in execution.providers if provider.name in GPU_PROVIDERS]
    on_cpu = [
        provider for provider in execution.providers if provider.name in CPU_PROVIDERS and _worth_writing(provider)
    ]
    accelerators = message.optimization.execution_accelerators
    for listed, found in (
        (accelerators.gpu_execution_accelerator, on_gpu),
        (accelerators.cpu_execution_accelerator, on_cpu),
    ):
        for provider in found:
            listed.add(name=provider.name, parameters=dict(provider.options))
    implied = _implied(_Reading(""), on_gpu, on_cpu, {group.kind for group in groups})
    if tuple(implied) != execution.providers:
        parameters[_PROVIDERS] = ",".join(provider.name for provider in execution.providers)
    for key, value in sorted(parameters.items()):
        message.parameters[key].string_value = value


def _worth_writing(provider: ProviderConfig) -> bool:
    """Triton's files never name the plain CPU provider: it is always there."""
    return provider.name != "cpu" or bool(provider.options)
