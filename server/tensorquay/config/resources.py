"""How many CPUs and how much memory this process may really use.

Reads what the kernel says (affinity, cgroup v1 and v2) and never guesses from the size of the machine: a container
limited to 2 CPUs on a 64-core host that starts 64 threads is throttled, and its tail latency explodes. Pure but for
the files below `root`, so that tests build trees of their own.
Source: Linux `Documentation/admin-guide/cgroup-v2.rst` (cpu.max, memory.max) and cgroup-v1 `cpu.cfs_quota_us`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path, PurePosixPath

_MAX_FILE_BYTES = 1 << 20
_MAX_DEPTH = 64
"""Most cgroup levels walked; the kernel's own default limit on nesting is far lower in practice."""


@dataclass(frozen=True, slots=True)
class CpuBudget:
    """Threads this process should run at once, at least 1, and a sentence saying why."""

    threads: int
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes this process may use, None when nothing says, and a sentence saying why."""

    limit_bytes: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """One cgroup's limit: `quota_us` of CPU time in every `period_us`, and which cgroup version said so."""

    version: int
    quota_us: int
    period_us: int

    @property
    def cpus(self) -> Fraction:
        """The limit in CPUs; may be below 1."""
        return Fraction(self.quota_us, self.period_us)

    def __str__(self) -> str:
        return f"cgroup v{self.version} quota {self.quota_us}/{self.period_us} us"


def cpu_budget(root: Path = Path("/"), *, affinity: int | None = None, online: int | None = None) -> CpuBudget:
    """The tightest of affinity and every CPU quota above this process.

    Args:
        root: where `proc` and `sys` are found.
        affinity: CPUs this process may be scheduled on; asked from the kernel when None.
        online: CPUs of the machine, for the sentence only; asked from the kernel when None.
    """
    machine = max(1, online if online is not None else (os.cpu_count() or 1))
    allowed = max(1, affinity if affinity is not None else _affinity(machine))
    place = f"affinity {allowed} of {machine} CPUs"
    quota = tightest_cpu_quota(root)
    if quota is None:
        return CpuBudget(allowed, f"{_threads(allowed)}: no CPU quota, {place}")
    # Rounded up: half a CPU still needs a thread, and 2.5 CPUs are wasted by 2 threads.
    threads = max(1, min(allowed, ceil(quota.cpus)))
    return CpuBudget(threads, f"{_threads(threads)}: {quota}, {place}")


def usable_cores(root: Path = Path("/")) -> float:
    """CPUs this process may use: as `cpu_budget`, and not rounded. More than 0."""
    allowed = float(max(1, _affinity(max(1, os.cpu_count() or 1))))
    quota = tightest_cpu_quota(root)
    return allowed if quota is None else min(allowed, float(quota.cpus))


def memory_budget(root: Path = Path("/")) -> MemoryBudget:
    """The tightest memory limit above this process, or the machine's own memory when no limit is below it."""
    physical = _physical_memory(root)
    limit = tightest_memory_limit(root)
    if limit is not None and (physical is None or limit[1] < physical):
        version, value = limit
        return MemoryBudget(value, f"{value} bytes: cgroup v{version} memory limit")
    if physical is not None:
        return MemoryBudget(physical, f"{physical} bytes: the machine's memory, no lower cgroup limit")
    return MemoryBudget(None, "unknown: neither a cgroup limit nor /proc/meminfo could be read")


def tightest_cpu_quota(root: Path) -> CpuQuota | None:
    """The smallest quota of this process's cgroups and all above them, None when unlimited."""
    return min((quota for quota, _ in cpu_quotas(quota_folders(root))), key=lambda quota: quota.cpus, default=None)


def tightest_memory_limit(root: Path) -> tuple[int, int] | None:
    """(cgroup version, bytes) of the smallest memory limit above this process, None when unlimited."""
    return min(memory_limits(memory_folders(root)), key=lambda item: item[1], default=None)


def quota_folders(root: Path) -> list[tuple[int, Path]]:
    """(cgroup version, folder) of this process's cgroups that may have a CPU quota, its own ones first."""
    return [(version, folder) for version in (2, 1) for folder in own_folders(root, version=version, controller="cpu")]


def memory_folders(root: Path) -> list[tuple[int, Path]]:
    """As `quota_folders`, for memory."""
    return [
        (version, folder) for version in (2, 1) for folder in own_folders(root, version=version, controller="memory")
    ]


def cpu_quotas(folders: Iterable[tuple[int, Path]]) -> Iterator[tuple[CpuQuota, Path]]:
    """The quotas that `folders` (see `quota_folders`) have now, each with its folder."""
    for version, folder in folders:
        if version == 2:
            quota = parse_cpu_max(read_text(folder / "cpu.max"))
        else:
            quota = parse_cfs(read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us"))
        if quota is not None:
            yield quota, folder


def memory_limits(folders: Iterable[tuple[int, Path]]) -> Iterator[tuple[int, int]]:
    """(cgroup version, bytes) of the limits that `folders` (see `memory_folders`) have now."""
    for version, folder in folders:
        limit = natural(read_text(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")))
        # v1 spells "no limit" as the largest page-aligned int64.
        if limit is not None and 0 < limit < 2**62:
            yield version, limit


def parse_cpu_max(text: str) -> CpuQuota | None:
    """The quota in the text of a v2 `cpu.max` ("200000 100000"), None for "max …" and for what is not understood."""
    fields = text.split()
    if not fields:
        return None
    return _quota(2, fields[0], fields[1] if len(fields) > 1 else "100000")


def parse_cfs(quota_text: str, period_text: str) -> CpuQuota | None:
    """The quota in the texts of v1 `cpu.cfs_quota_us` and `cpu.cfs_period_us`; -1 and nonsense are None."""
    return _quota(1, quota_text.strip(), period_text.strip() or "100000")


def parse_own_cgroups(text: str) -> dict[str, str]:
    """Controller → cgroup path from `/proc/self/cgroup`; the v2 hierarchy has the key ""."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        hierarchy, controllers, path = fields
        if hierarchy == "0" and not controllers:
            paths[""] = path
        else:
            for controller in controllers.split(","):
                paths[controller] = path
    return paths


def parse_mounts(text: str) -> list[tuple[str, str, str, frozenset[str]]]:
    """(root inside the hierarchy, mount point, type, options) of every cgroup mount in `/proc/self/mountinfo`."""
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kinds = left.split(), right.split()
        if separator and len(fields) >= 5 and len(kinds) >= 3 and kinds[0] in {"cgroup", "cgroup2"}:
            mounts.append((_unescaped(fields[3]), _unescaped(fields[4]), kinds[0], frozenset(kinds[2].split(","))))
    return mounts


def own_folders(root: Path, *, version: int, controller: str) -> Iterator[Path]:
    """Folders of this process's own cgroup and each one above it, up to where the hierarchy is mounted."""
    own = parse_own_cgroups(read_text(root / "proc/self/cgroup")).get("" if version == 2 else controller)
    mounts = parse_mounts(read_text(root / "proc/self/mountinfo"))
    if own is None:
        return
    for inside, point, kind, options in mounts:
        if (version == 2) != (kind == "cgroup2") or (version == 1 and controller not in options):
            continue
        base = root / point.lstrip("/")
        # Without a cgroup namespace the path is the host's and the mount shows only the part from `inside` down.
        relative = own.removeprefix(inside) if inside != "/" and _below(own, inside) else own
        parts = [part for part in PurePosixPath(relative).parts if part not in {"/", "..", "."}][:_MAX_DEPTH]
        for depth in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:depth])


def _below(path: str, ancestor: str) -> bool:
    return path == ancestor or path.startswith(ancestor.rstrip("/") + "/")


def _quota(version: int, quota_text: str, period_text: str) -> CpuQuota | None:
    quota, period = natural(quota_text), natural(period_text)
    if not quota or not period:
        return None
    return CpuQuota(version, quota, period)


def natural(text: str) -> int | None:
    """A decimal number of at most 19 digits, else None ("max", "-1", nonsense)."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None


def _unescaped(text: str) -> str:
    """A mountinfo field with its octal escapes undone."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _physical_memory(root: Path) -> int | None:
    for line in read_text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            kibibytes = natural(line.removeprefix("MemTotal:").strip().removesuffix("kB"))
            return kibibytes * 1024 if kibibytes else None
    return None


def _affinity(machine: int) -> int:
    # Absent on macOS and Windows.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def read_text(path: Path) -> str:
    """The text of a kernel file, "" when it is not there or may not be read: then it limits nothing."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
