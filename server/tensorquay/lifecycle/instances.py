"""Turn instance groups into sessions to make: which device, how many slots. Pure.

On the CPU one session serves all slots: sessions are thread-safe, and a second copy of the weights buys nothing. On a
GPU every instance is a session of its own, as in Triton, because they overlap copies with kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tensorquay.config.model import InstanceGroup, InstanceKind
from tensorquay.core.errors import ModelFailed

MAX_INSTANCES = 256
"""Most slots of one version: each is a thread. Triton hangs on `count: 2000000`; here it is a sentence."""


@dataclass(frozen=True, slots=True)
class PlannedSession:
    """One session to make, and how many slots share it."""

    kind: InstanceKind
    device_id: int
    slots: int


def plan_instances(
    groups: Sequence[InstanceGroup], gpus: Sequence[int], *, allow_fallback: bool = False
) -> tuple[PlannedSession, ...]:
    """The sessions for `groups` on a machine whose runtime has `gpus` (device numbers, maybe none).

    Args: allow_fallback: a group whose GPU is not there runs on the CPU instead.
    Raises: ModelFailed when a group asks for a GPU that is not there, or for too many instances.
    """
    groups = groups or (InstanceGroup(),)
    cpu_slots = 0
    planned: list[PlannedSession] = []
    for number, group in enumerate(groups):
        where = f"instance_group {group.name or number!r}"
        if not 1 <= group.count <= MAX_INSTANCES:
            raise ModelFailed(f"{where}: count: expected 1 to {MAX_INSTANCES}, got {group.count}")
        if group.kind is InstanceKind.CPU or (group.kind is InstanceKind.AUTO and not gpus and not group.gpus):
            cpu_slots += group.count
            continue
        missing = [device for device in group.gpus if device not in gpus]
        if (missing or not gpus) and allow_fallback:
            cpu_slots += group.count
            continue
        if missing or not gpus:
            has = f"GPUs {list(gpus)}" if gpus else "no GPU"
            wanted = f"GPU {', '.join(map(str, missing))}" if missing else "a GPU"
            raise ModelFailed(
                f"{where}: asks for {wanted}, the runtime has {has}: install the GPU runtime, use KIND_CPU, or "
                "set allow_fallback"
            )
        devices = group.gpus or tuple(gpus)
        planned.extend(PlannedSession(InstanceKind.GPU, d, 1) for d in devices for _ in range(group.count))
        if len(planned) > MAX_INSTANCES:
            break
    if cpu_slots:
        planned.append(PlannedSession(InstanceKind.CPU, 0, cpu_slots))
    total = sum(session.slots for session in planned)
    if total > MAX_INSTANCES:
        raise ModelFailed(f"instance_group: {total} instances together, at most {MAX_INSTANCES} are possible")
    return tuple(planned)
