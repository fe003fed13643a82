"""Which execution providers a session asks for, and whether it got them. No silent fallback.

ONNX Runtime quietly continues on the CPU when a provider's library does not load; a model that was sized for a GPU
then serves a hundred times slower and nobody knows why. So: what was asked for and did not attach fails the load,
unless the configuration allows falling back, and then the placement says so.
Choosing is pure: a request and a `Machine` in, a `Choice` out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorquay.backends.api import LoadRequest
from tensorquay.backends.onnxruntime.runtime import CPU, CUDA, OPENVINO, TENSORRT, Machine
from tensorquay.config.model import InstanceKind
from tensorquay.config.refusal import ALLOW_FALLBACK
from tensorquay.core.errors import ModelFailed

SHORT_NAMES = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT, "openvino": OPENVINO}
"""What configurations write → what ONNX Runtime calls it. Any other name is passed through as it is."""

ON_NVIDIA = frozenset({CUDA, TENSORRT})
"""Providers that need an NVIDIA GPU."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One execution provider by ONNX Runtime's name, and its options."""

    name: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Choice:
    """Providers in order of preference, the CPU last; and sentences about what was asked for and left out."""

    providers: tuple[Provider, ...]
    notes: tuple[str, ...] = ()


def choose(request: LoadRequest, machine: Machine) -> Choice:
    """The providers for `request` on `machine`.

    Raises: ModelFailed, with cause and remedy, when one cannot be had and the configuration allows no fallback, or
    when the configuration contradicts itself.
    """
    wanted = _named(request)
    notes: list[str] = []
    if request.kind is InstanceKind.CPU:
        _refuse_gpu(wanted)
    elif request.kind is InstanceKind.GPU:
        wanted = _with_gpu(wanted)
    elif not wanted:
        wanted = _best(request, machine, notes)
    usable: list[Provider] = []
    for provider in wanted:
        trouble = _unavailable(provider, request, machine)
        if trouble is None:
            usable.append(provider)
        elif request.execution.allow_fallback:
            notes.append(f"{trouble}; falling back, as the configuration allows")
        else:
            raise refusal(trouble)
    if all(provider.name != CPU for provider in usable):
        # ONNX Runtime adds it anyway for what no other provider can run.
        usable.append(Provider(CPU, {}))
    return Choice(tuple(_placed(provider, request) for provider in usable), tuple(notes))


def missing(choice: Choice, attached: Sequence[str]) -> tuple[str, ...]:
    """Providers that were asked for and are not in the session."""
    return tuple(provider.name for provider in choice.providers if provider.name not in attached)


def refusal(trouble: str) -> ModelFailed:
    """The error for a provider that cannot be had."""
    return ModelFailed(
        f"{trouble}. Repair that, or choose other providers, or allow falling back to the CPU ({ALLOW_FALLBACK})"
    )


def why_no_gpu(machine: Machine) -> str:
    """Why no model can run on a GPU here and what to do about it, as a clause; empty when one can."""
    if machine.gpus:
        return ""
    return _not_built(CUDA, machine) or (
        "this process sees no NVIDIA GPU (driver missing, not passed to the container, or hidden by "
        "CUDA_VISIBLE_DEVICES)"
    )


def short_name(provider: str) -> str:
    """What a configuration calls `provider`."""
    return next((short for short, full in SHORT_NAMES.items() if full == provider), provider)


def _named(request: LoadRequest) -> list[Provider]:
    found: dict[str, Provider] = {}
    for config in request.execution.providers:
        name = SHORT_NAMES.get(config.name.lower(), config.name)
        if name in found:
            raise ModelFailed(f"execution provider '{short_name(name)}' is listed twice")
        found[name] = Provider(name, {str(key): str(value) for key, value in config.options.items()})
    return list(found.values())


def _refuse_gpu(wanted: list[Provider]) -> None:
    if any(provider.name in ON_NVIDIA for provider in wanted):
        listed = ", ".join(short_name(provider.name) for provider in wanted)
        raise ModelFailed(
            f"the instance group says KIND_CPU and the providers are {listed}: these contradict each other"
        )


def _with_gpu(wanted: list[Provider]) -> list[Provider]:
    names = [provider.name for provider in wanted]
    if names == [CPU]:
        raise ModelFailed("the instance group asks for a GPU and the only provider is cpu: these contradict each other")
    if CUDA not in names:
        # What TensorRT cannot run belongs on the same GPU, not on the CPU.
        at = names.index(CPU) if CPU in names else len(names)
        wanted = [*wanted[:at], Provider(CUDA, {}), *wanted[at:]]
    return wanted


def _best(request: LoadRequest, machine: Machine, notes: list[str]) -> list[Provider]:
    """KIND_AUTO without providers: the GPU if this build can use one and there is one, else the CPU."""
    if CUDA not in machine.available:
        return [Provider(CPU, {})]
    if request.device_id < machine.gpus:
        return [Provider(CUDA, {}), Provider(CPU, {})]
    notes.append("runs on the CPU: this build of ONNX Runtime knows CUDA, but this process sees no such NVIDIA GPU")
    return [Provider(CPU, {})]


def _unavailable(provider: Provider, request: LoadRequest, machine: Machine) -> str | None:
    """Why `provider` cannot even be asked for, or None."""
    trouble = _not_built(provider.name, machine)
    if trouble:
        return trouble
    short = short_name(provider.name)
    if provider.name in ON_NVIDIA:
        device = provider.options.get("device_id", str(request.device_id))
        if machine.gpus == 0:
            return f"execution provider '{short}' needs an NVIDIA GPU and this process sees none"
        if not (device.isascii() and device.isdigit()) or len(device) > 9 or int(device) >= machine.gpus:
            return f"execution provider '{short}' was given GPU {device[:24]}, this process sees {machine.gpus}"
    return None


def _not_built(provider: str, machine: Machine) -> str:
    """That this build lacks `provider`, and what to install; empty when it has it."""
    if provider in machine.available:
        return ""
    has = ", ".join(short_name(name) for name in machine.available)
    trouble = f"execution provider '{short_name(provider)}' is not in this build of ONNX Runtime, which has {has}"
    if len(machine.wheels) > 1:
        return f"{trouble}; {' and '.join(machine.wheels)} are both installed and overwrite each other: keep one"
    if provider in ON_NVIDIA:
        return f"{trouble}; install the GPU build: pip uninstall onnxruntime; pip install 'tensorquay[gpu]'"
    return trouble


def _placed(provider: Provider, request: LoadRequest) -> Provider:
    """`provider` with the instance's GPU, unless its own options name one."""
    if provider.name not in ON_NVIDIA or "device_id" in provider.options:
        return provider
    return Provider(provider.name, {**provider.options, "device_id": str(request.device_id)})
