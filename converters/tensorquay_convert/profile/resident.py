"""How much memory this process holds, as the kernel counts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes in main memory: now, and at most since the process began. None where there is no /proc."""

    now_bytes: int | None
    peak_bytes: int | None


def resident(status: Path = _STATUS) -> Resident:
    """Look now. `status`: as /proc/<pid>/status is written."""
    try:
        text = status.read_text(errors="replace")[:_MAX_BYTES]
    except OSError:
        return Resident(None, None)
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number = value.split()[0] if value.split() else ""
        if name in {"VmRSS", "VmHWM"} and number.isdigit():
            found[name] = int(number) * 1024
    return Resident(found.get("VmRSS"), found.get("VmHWM"))
