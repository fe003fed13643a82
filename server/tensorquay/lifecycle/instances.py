"""Turn instance groups into sessions to make: which device, how many slots. Pure.

On the CPU one session serves all slots: sessions are thread-safe, and a second copy of the weights buys nothing. On a
GPU every instance is a session of its own, as in Triton, because they overlap copies with kernels.

Nothing that asks for a GPU gets a CPU silently, and a list of providers asks: with cuda or tensorrt in it, KIND_AUTO
means a GPU, also when cpu follows; with neither, it means the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorquay.config.model import ExecutionConfig, InstanceGroup, InstanceKind
from tensorquay.config.refusal import ALLOW_FALLBACK
from tensorquay.config.rules import wants_gpu
from tensorquay.core.errors import ModelFailed

MAX_INSTANCES = 256
"""Most slots of one version: each is a thread. Triton hangs on `count: 2000000`; here it is a sentence."""


@dataclass(frozen=True, slots=True)
class PlannedSession:
    """One session to make, and how many slots share it.

    `fallback` says which GPU was asked for, and why this is a CPU all the same; empty when all is as asked.
    """

    kind: InstanceKind
    device_id: int
    slots: int
    fallback: str = ""


def plan_instances(
    groups: Sequence[InstanceGroup],
    gpus: Sequence[int],
    execution: ExecutionConfig | None = None,
    *,
    no_gpu_because: str = "",
) -> tuple[PlannedSession, ...]:
    """The sessions for `groups` on a machine whose runtime has `gpus` (device numbers, maybe none).

    Args:
        execution: its providers decide what KIND_AUTO means; its `allow_fallback` puts a group whose GPU is not
            there on the CPU.
        no_gpu_because: why there are no `gpus`, and the remedy.
    Raises: ModelFailed when a group or the providers ask for a GPU that is not there, or for too many instances.
    """
    execution = execution or ExecutionConfig()
    groups = groups or (InstanceGroup(),)
    cpu_slots = 0
    planned: list[PlannedSession] = []
    fallbacks: list[str] = []
    for number, group in enumerate(groups):
        where = f"instance_group {group.name or number!r}"
        if not 1 <= group.count <= MAX_INSTANCES:
            raise ModelFailed(f"{where}: count: expected 1 to {MAX_INSTANCES}, got {group.count}")
        if _on_cpu(group, gpus, execution):
            cpu_slots += group.count
            continue
        trouble = _missing(where, group, gpus, execution)
        if trouble:
            trouble += f": {no_gpu_because}" if no_gpu_because and not gpus else ""
            if not execution.allow_fallback:
                raise ModelFailed(
                    f"{trouble}. Repair that, or ask for the CPU only, or allow falling back to it ({ALLOW_FALLBACK})"
                )
            fallbacks.append(trouble)
            cpu_slots += group.count
            continue
        devices = group.gpus or tuple(gpus)
        planned.extend(PlannedSession(InstanceKind.GPU, d, 1) for d in devices for _ in range(group.count))
        if len(planned) > MAX_INSTANCES:
            break
    if cpu_slots:
        fallback = f"{'; '.join(fallbacks)}; runs on the CPU (allow_fallback)" if fallbacks else ""
        planned.append(PlannedSession(InstanceKind.CPU, 0, cpu_slots, fallback))
    total = sum(session.slots for session in planned)
    if total > MAX_INSTANCES:
        raise ModelFailed(f"instance_group: {total} instances together, at most {MAX_INSTANCES} are possible")
    return tuple(planned)


def _on_cpu(group: InstanceGroup, gpus: Sequence[int], execution: ExecutionConfig) -> bool:
    """Whether the CPU is what `group` asks for, or what it leaves the server to choose."""
    if group.kind is not InstanceKind.AUTO:
        return group.kind is InstanceKind.CPU
    if group.gpus or wants_gpu(execution):
        return False
    return bool(execution.providers) or not gpus


def _missing(where: str, group: InstanceGroup, gpus: Sequence[int], execution: ExecutionConfig) -> str:
    """What `group` asks for that is not among `gpus`; empty when all is there."""
    absent = [device for device in group.gpus if device not in gpus]
    if gpus and not absent:
        return ""
    has = f"GPUs {list(gpus)}" if gpus else "no GPU"
    if group.kind is InstanceKind.AUTO and not group.gpus:
        # Nobody wrote this group, or nothing about a GPU in it: the providers are what asks.
        listed = ", ".join(provider.name for provider in execution.providers)
        return f"execution providers {listed}: ask for a GPU, the runtime has {has}"
    wanted = f"GPU {', '.join(map(str, absent))}" if absent else "a GPU"
    return f"{where}: asks for {wanted}, the runtime has {has}"
