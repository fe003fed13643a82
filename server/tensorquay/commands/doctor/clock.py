"""Is the machine's time plausible, and cheap to ask for?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from tensorquay.commands.doctor.findings import Finding, ok, problem, warning
from tensorquay.config.resources import read_text

_DAY_MS = 86_400_000
_SLOW = frozenset({"acpi_pm", "hpet", "jiffies", "pit", "refined-jiffies"})


def examine(
    now_ms: int, newest_ms: int, environment: Mapping[str, str], *, root: Path = Path("/")
) -> Iterator[Finding]:
    """Findings about time.

    Args:
        now_ms: the wall clock.
        newest_ms: when the program's files were written: it cannot be earlier than that.
        root: where `sys` is found.
    """
    shown = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if now_ms < newest_ms - _DAY_MS:
        yield problem(
            "clock.wall",
            f"the clock says {shown}, which is before this program was installed: certificates seem not to be valid "
            "yet",
            "set the clock, or let NTP do it",
        )
    else:
        zone = environment.get("TZ")
        yield ok("clock.wall", f"the clock says {shown}{f', time zone {zone[:40]}' if zone else ''}")
    source = read_text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource").strip()
    if source in _SLOW:
        yield warning(
            "clock.source",
            f"the kernel's clock source is '{source}', where asking for the time takes a microsecond or more; every "
            "request asks several times",
            "boot with tsc where the processor has one (clocksource=tsc), or give the virtual machine kvm-clock",
        )
    elif source:
        yield ok("clock.source", f"the kernel's clock source is '{source}'")
