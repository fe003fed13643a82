"""What the figures were measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tensorquay.config.resources import cpu_budget, memory_budget

_PACKAGES = ("tensorquay", "onnxruntime", "numpy", "grpcio", "uvicorn", "uvloop", "httptools", "orjson", "protobuf")


def describe(packages: Sequence[str] = _PACKAGES) -> dict[str, Any]:
    """Machine, limits, versions and how busy the machine was before anything was measured."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "budget": cpu_budget().reason,
        "memory": memory_budget().reason,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "load_average_before": [round(value, 2) for value in os.getloadavg()],
    }


def stolen_share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Of the time between two `cpu_ticks`, the part that the hypervisor gave to somebody else."""
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total else 0.0


def cpu_ticks() -> tuple[int, int]:
    """(stolen, all) clock ticks of this machine's CPUs so far."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
