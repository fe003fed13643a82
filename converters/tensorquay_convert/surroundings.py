"""What a worker is surrounded by: its environment variables, and how much memory there is for it.

Knows Linux's /proc and control groups; elsewhere memory is not limited and only the time limit holds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_SHARE_OF_AVAILABLE = 0.8
_UNLIMITED = 1 << 60

_ALWAYS: Mapping[str, str] = {
    "ORT_DISABLE_TELEMETRY": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "JAX_PLATFORMS": "cpu",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONFAULTHANDLER": "1",
    "NO_COLOR": "1",
}
"""Nothing is fetched or reported, nothing runs on a GPU, a result does not depend on hashing, a crash leaves its stack.

oneDNN's own kernels are off in TensorFlow: they round differently from the reference, and it is the reference of the
proof.
"""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_OF_THIS_INTERPRETER = ("PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "CONDA_PREFIX")
_FOR_STRANGERS = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH",
    "SYSTEMROOT", "XDG_CACHE_HOME",
)  # fmt: skip


def worker_environment(
    given: Mapping[str, str], *, other_python: bool = False, untrusted: bool = False, gpu: bool = False
) -> dict[str, str]:
    """The worker's environment variables.

    Args:
        given: this process's.
        other_python: leave out what belongs to this interpreter.
        untrusted: the source is a stranger's: pass only what programs need to start, no one's secrets.
        gpu: the work is for a GPU: let it see those there are.
    """
    if untrusted:
        kept = {name: value for name, value in given.items() if name in _FOR_STRANGERS or name.startswith("LC_")}
    else:
        kept = dict(given)
    if other_python:
        for name in _OF_THIS_INTERPRETER:
            kept.pop(name, None)
    threads = str(usable_cpus())
    for name in _THREADS:
        kept.setdefault(name, threads)
    always = {name: value for name, value in _ALWAYS.items() if not (gpu and name == "CUDA_VISIBLE_DEVICES")}
    return {**kept, **always}


def usable_cpus() -> int:
    """Processors this process may use: those it may run on, or fewer where its control group has a quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


def _quota() -> float:
    """CPUs that this process's control group may use; infinite without a limit."""
    try:
        quota, _, period = (_CGROUP / "cpu.max").read_text().partition(" ")
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no such file, or "max": version 1, or no limit
    try:
        quota = (_CGROUP / "cpu/cpu.cfs_quota_us").read_text()
        return float(int(quota) / int((_CGROUP / "cpu/cpu.cfs_period_us").read_text())) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def default_memory_limit() -> int | None:
    """Bytes an import may use unless told: four fifths of what is available now; None where nobody can tell."""
    available = _available(PROC / "meminfo")
    if available is None:
        return None
    return int(min(available, _left_in_group()) * _SHARE_OF_AVAILABLE)


def _available(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def _left_in_group() -> int:
    """Bytes this process's control group may still take; as good as endless without a limit."""
    for limit, used in (
        (_CGROUP / "memory.max", _CGROUP / "memory.current"),
        (_CGROUP / "memory/memory.limit_in_bytes", _CGROUP / "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):
            continue  # no such file, or "max": no limit
    return _UNLIMITED


@dataclass(frozen=True, slots=True)
class Process:
    """A process as /proc shows it."""

    pid: int
    parent: int
    session: int
    resident_bytes: int
    alive: bool = True
    """False for a zombie: it ended, and its parent has not asked for its status."""


def tree_of(root: int) -> list[Process]:
    """`root`, what descends from it, and what is in its session: an orphan of it stays there. Empty without /proc."""
    seen = {each.pid: each for each in _all_processes()}
    found = {pid for pid, each in seen.items() if root in {pid, each.session}}
    grew = True
    while grew:
        below = {pid for pid, each in seen.items() if each.parent in found} - found
        found |= below
        grew = bool(below)
    return [seen[pid] for pid in found]


def process(pid: int) -> Process | None:
    """The process with this number now."""
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None  # it ended, or there is no /proc
    # The command's name, in parentheses, may hold anything; what follows it is numbers.
    fields = text.rpartition(")")[2].split()
    if len(fields) <= 21:
        return None
    resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    return Process(pid, int(fields[1]), int(fields[3]), resident, alive=fields[0] not in {"Z", "X"})


def _all_processes() -> Iterator[Process]:
    try:
        names = [each for each in os.listdir(PROC) if each.isdigit()]  # noqa: PTH208 - names, many times a second
    except OSError:
        return
    for name in names:
        found = process(int(name))
        if found is not None:
            yield found


def own_environment() -> Mapping[str, str]:
    """This process's environment variables. Read here and passed on; no setting of ours is taken from them."""
    return os.environ


def own_version() -> str:
    """Of this distribution; "unknown" when it runs from where it was never installed."""
    try:
        return version("tensorquay")
    except PackageNotFoundError:
        return "unknown"
