"""What the system lets the server have: CPU time, memory, shared memory, open files, processes, swap."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tensorquay.commands.doctor.findings import Finding, gib, note, ok, problem, warning
from tensorquay.commands.memory import LEAST_BYTES
from tensorquay.config.resources import (
    cpu_budget,
    memory_budget,
    memory_folders,
    natural,
    read_text,
    tightest_cpu_quota,
)
from tensorquay.config.server import ServerConfig
from tensorquay.telemetry.container import Container, ContainerFigures

WANTED_FILES = 12_000
"""What the server's own bounds on connections come to, with some room."""

FEW_FILES = 1024
FEW_PROCESSES = 512
_SMALL_SHM = 64 * 2**20
"""What container engines give unless they are told otherwise."""

_THROTTLED_SHARE = 0.01

Limits = Callable[[], Mapping[str, int | None]]
"""Soft limits of this process: "nofile", "nproc"; None for none."""


def soft_limits() -> dict[str, int | None]:
    """See `Limits`; empty where the system has none."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return {}
    found: dict[str, int | None] = {}
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        soft = resource.getrlimit(number)[0]
        found[name] = None if soft == resource.RLIM_INFINITY else soft
    return found


def examine(
    config: ServerConfig,
    *,
    root: Path = Path("/"),
    affinity: int | None = None,
    limits: Limits = soft_limits,
    disk: Callable[[Path], tuple[int, int]],
) -> Iterator[Finding]:
    """Findings about limits.

    Args:
        root: where `proc`, `sys` and `dev` are found.
        affinity: CPUs this process may run on; asked from the system when None.
        disk: bytes that a file system has, and those that are free. Raises OSError.
    """
    figures = Container(root).read()
    yield from _cpu(root, affinity, figures)
    yield from _memory(root, figures)
    yield from _swap(root)
    yield from _shared_memory(config, root / "dev/shm", disk)
    yield from _numbers(limits())


def _cpu(root: Path, affinity: int | None, figures: ContainerFigures) -> Iterator[Finding]:
    quota = tightest_cpu_quota(root)
    budget = cpu_budget(root, affinity=affinity)
    if quota is not None and quota.cpus < 1:
        yield warning(
            "limits.cpu",
            f"less than one CPU: {quota}; the server stands still for part of every {quota.period_us // 1000} ms",
            "raise the limit (--cpus, or resources.limits.cpu in Kubernetes)",
        )
    else:
        yield ok("limits.cpu", f"CPU time for {budget.reason}")
    if figures.cpu_periods:
        share = (figures.cpu_throttled_periods or 0) / figures.cpu_periods
        text = f"the quota stopped this container in {share:.1%} of {figures.cpu_periods} periods so far"
        if share > _THROTTLED_SHARE:
            yield warning("limits.throttling", text, "raise the CPU limit, or take it away: requests wait meanwhile")
        else:
            yield ok("limits.throttling", text)


def _memory(root: Path, figures: ContainerFigures) -> Iterator[Finding]:
    budget = memory_budget(root)
    limit = budget.limit_bytes
    if limit is None:
        yield note("limits.memory", f"how much memory there is, is {budget.reason}")
        return
    used = figures.memory_bytes
    if limit < LEAST_BYTES:
        yield problem(
            "limits.memory",
            f"too little memory: {budget.reason}, the server alone needs {LEAST_BYTES >> 20} MiB",
            "raise the limit (--memory, or resources.limits.memory in Kubernetes)",
        )
    elif figures.memory_limit_bytes == limit and used is not None and limit - used < LEAST_BYTES:
        yield warning(
            "limits.memory",
            f"{gib(max(limit - used, 0))} of {gib(limit)} are left in this container: the kernel ends what takes more",
            "raise the limit, or stop what else runs in it",
        )
    else:
        yield ok("limits.memory", f"{gib(limit)} of memory ({budget.reason.partition(': ')[2]})")
    killed = _killed(root)
    if killed:
        yield warning(
            "limits.killed",
            f"the kernel has ended {killed} process{'es' if killed > 1 else ''} of this container for lack of memory",
            "raise the limit, or serve less: models, instances, --max-inflight-bytes",
        )


def _killed(root: Path) -> int:
    for version, folder in memory_folders(root):
        if version == 2:
            for line in read_text(folder / "memory.events").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return natural(value) or 0
    return 0


def _swap(root: Path) -> Iterator[Finding]:
    sizes: dict[str, int] = {}
    for line in read_text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        number = natural(value.strip().removesuffix("kB").strip())
        if number is not None:
            sizes[name] = number * 1024
    total, free = sizes.get("SwapTotal", 0), sizes.get("SwapFree", 0)
    if not total:
        yield ok("limits.swap", "no swap, or none that can be seen")
    elif total - free > max(total // 4, 100 * 2**20):
        yield warning(
            "limits.swap",
            f"{gib(total - free)} of {gib(total)} swap are in use on this machine: a model that is swapped out answers "
            "late",
            "more memory, or fewer programs beside the server",
        )
    else:
        yield ok("limits.swap", f"{gib(total)} of swap, {gib(total - free)} in use")


def _shared_memory(config: ServerConfig, folder: Path, disk: Callable[[Path], tuple[int, int]]) -> Iterator[Finding]:
    try:
        total, free = disk(folder)
    except OSError:
        if config.allow_client_shm:
            yield problem(
                "limits.shm",
                f"{folder} is not there: clients cannot pass tensors through shared memory",
                "mount a tmpfs there",
            )
        return
    text = f"{folder} has {gib(total)}, {gib(free)} of them free"
    if config.allow_client_shm and total <= _SMALL_SHM:
        yield warning(
            "limits.shm",
            f"{text}: little for the tensors of clients (--allow-client-shm)",
            "--shm-size of the container engine, or an emptyDir with medium Memory in Kubernetes",
        )
    else:
        yield ok("limits.shm", text)


def _numbers(limits: Mapping[str, int | None]) -> Iterator[Finding]:
    if "nofile" in limits:
        files = limits["nofile"]
        text = f"at most {files} open files: about as many clients can be connected at once"
        remedy = "ulimit -n 65536 before the start, LimitNOFILE= of systemd, --ulimit nofile= of the container engine"
        if files is None or files >= WANTED_FILES:
            yield ok("limits.files", "open files are not limited" if files is None else f"at most {files} open files")
        elif files >= FEW_FILES:
            yield note("limits.files", text, f"for more: {remedy}")
        else:
            yield warning("limits.files", text, remedy)
    if "nproc" in limits:
        count = limits["nproc"]
        if count is not None and count < FEW_PROCESSES:
            yield warning(
                "limits.processes",
                f"this user may have at most {count} threads and processes, in all that he runs",
                "ulimit -u, TasksMax= of systemd, --pids-limit of the container engine",
            )
        else:
            yield ok("limits.processes", "threads are not limited" if count is None else f"at most {count} threads")
