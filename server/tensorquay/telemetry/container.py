"""What the container this process runs in has used and may use: CPU, throttling, memory, as the kernel counts them.

Reads cgroup v2 and v1 files. Where there is no cgroup, or a file is missing or makes no sense, that figure is None and
the others stay. Usage is of this process's own cgroup; limits are the tightest of it and all above
(`config/resources.py`); throttling is counted by the group whose quota that is.
Source: Linux `Documentation/admin-guide/cgroup-v2.rst`; cgroup-v1 `cpuacct.rst`, `memory.rst`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorquay.config.resources import (
    cpu_quotas,
    memory_folders,
    memory_limits,
    natural,
    own_folders,
    quota_folders,
    read_text,
)


@dataclass(frozen=True, slots=True)
class ContainerFigures:
    """One look at a container. None: not known, or, for a limit, there is none.

    Attributes:
        cpu_seconds: CPU time used since the container began.
        cpu_periods, cpu_throttled_periods: enforcement periods in which it ran, and those of them in which it was
            stopped because its quota was used up.
        cpu_throttled_seconds: how long its threads together were stopped for that.
        cpu_limit_cores: the quota in CPUs; may be below 1.
        memory_bytes: memory in use, without file pages that the kernel may drop (as kubelet shows it).
        memory_limit_bytes: beyond it processes are killed.
    """

    cpu_seconds: float | None = None
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled_seconds: float | None = None
    cpu_limit_cores: float | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None


class Container:
    """Finds the container's folders once and reads their files when asked: limits may be changed under way.

    Args: root: where `proc` and `sys` are found.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._quotas = quota_folders(root)
        self._memory = memory_folders(root)
        # The v2 root group is the machine, no container; only it has no type.
        self._own_cpu = next(own_folders(root, version=2, controller="cpu"), None)
        if self._own_cpu is not None and not (self._own_cpu / "cgroup.type").exists():
            self._own_cpu = None
        self._own_cpu_v1 = next(own_folders(root, version=1, controller="cpuacct"), None)

    def read(self) -> ContainerFigures:
        """The figures now: about ten small reads. Never raises."""
        limit, throttles = min(cpu_quotas(self._quotas), key=lambda each: each[0].cpus, default=(None, None))
        counts = {} if throttles is None else _counts(throttles / "cpu.stat")
        stopped_s = _scaled(counts.get("throttled_usec"), 1e6)
        if stopped_s is None:
            stopped_s = _scaled(counts.get("throttled_time"), 1e9)
        return ContainerFigures(
            cpu_seconds=self._cpu_seconds(),
            cpu_periods=counts.get("nr_periods"),
            cpu_throttled_periods=counts.get("nr_throttled"),
            cpu_throttled_seconds=stopped_s,
            cpu_limit_cores=None if limit is None else float(limit.cpus),
            memory_bytes=self._memory_bytes(),
            memory_limit_bytes=min((limit for _, limit in memory_limits(self._memory)), default=None),
        )

    def _cpu_seconds(self) -> float | None:
        if self._own_cpu is not None:
            used = _scaled(_counts(self._own_cpu / "cpu.stat").get("usage_usec"), 1e6)
            if used is not None:
                return used
        if self._own_cpu_v1 is not None:
            return _scaled(natural(read_text(self._own_cpu_v1 / "cpuacct.usage")), 1e9)
        return None

    def _memory_bytes(self) -> int | None:
        """Of the process's own group: the first folder of each version."""
        for version, folder in self._memory:
            used = natural(read_text(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes")))
            if used is not None:
                dropped = _counts(folder / "memory.stat").get(
                    "inactive_file" if version == 2 else "total_inactive_file", 0
                )
                return max(used - dropped, 0)
        return None


def _counts(path: Path) -> Mapping[str, int]:
    """A file of "name number" lines; what is no such line is left out."""
    found: dict[str, int] = {}
    for line in read_text(path).splitlines():
        name, _, value = line.partition(" ")
        number = natural(value)
        if number is not None:
            found[name] = number
    return found


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value / unit
