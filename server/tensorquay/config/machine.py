"""What the processor of this machine can do, as far as it decides how models compute here.

Reads what the kernel says. The names of features are those that `optimization.json` and `provenance.json` have.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "sve",
)
"""Features that decide how fast, and to which last digit, a runtime computes."""

_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """The processor's name, and those of `CPU_FEATURES` that it has; both empty where the system does not tell."""

    name: str = ""
    features: tuple[str, ...] = ()


def cpu_facts(root: Path = Path("/")) -> CpuFacts:
    """This machine's processor.

    Args: root: where `proc` is found.
    """
    try:
        with (root / "proc/cpuinfo").open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return CpuFacts(platform.processor())
    name, flags = "", frozenset[str]()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and not name:
            name = value.strip()
        elif key.strip() in {"flags", "Features"} and not flags:
            flags = frozenset(value.split())
    return CpuFacts(name or platform.processor(), tuple(each for each in CPU_FEATURES if each in flags))
