"""Runs probes so that none can hang or end the doctor: each in a thread that is left behind when it takes too long.

A file system that does not answer holds whoever asks it, and nothing can free him; so nobody waits for him.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from tensorquay.commands.doctor.findings import Finding, problem

Probe = Callable[[], Iterable[Finding]]


def findings_of(section: str, probe: Probe, *, timeout_s: float) -> list[Finding]:
    """What `probe` finds, or the one finding that it found nothing and why."""
    found: list[Finding] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            found.extend(probe())
        except Exception as error:  # noqa: BLE001  a probe that breaks is a finding, and the others go on
            failed.append(error)

    thread = threading.Thread(target=run, name=f"doctor {section}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        return [
            *found,
            problem(
                f"{section}.answer",
                f"looking at {section} took more than {timeout_s:g} s, and was given up",
                "a disk or a mount that does not answer holds everything that asks it; --timeout gives more time",
            ),
        ]
    if failed:
        error = failed[0]
        found.append(problem(f"{section}.answer", f"looking at {section} failed: {type(error).__name__}: {error}"))
    return found
