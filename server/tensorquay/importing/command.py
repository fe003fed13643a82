"""The import command for one source: what the server calls it with, and what of its words clients see."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay.core.errors import ModelFailed
from tensorquay.lifecycle.imports import SayProgress
from tensorquay.running.command import Allowance, TooLong, run_command

_log = logging.getLogger("tensorquay.importing")

_GRACE_S = 30.0
"""How much longer than its own time limit the command may take before it is killed from outside."""

_MAX_SAID = 200

_FAILED = "the import ended without saying why (exit status {status})"


@dataclass(frozen=True, slots=True)
class ImportTask:
    """One import: `source` into the folder `target`, which does not exist yet; report and log into `report`."""

    source: Path
    options: Sequence[str]
    target: Path
    report: Path


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """What one import may take. `memory_bytes` 0: the command's own default. `python` None: the server's."""

    time_s: float
    memory_bytes: int = 0
    python: Path | None = None


async def run_import(order: ImportTask, limits: ImportLimits, say: SayProgress) -> None:
    """Carry out `order`. Cancelling it kills the command and everything it started.

    Raises: ModelFailed with the command's own sentence; Unavailable when it cannot be started.
    """
    arguments = [
        *("import", str(order.source), f"--output={order.target}", f"--report={order.report}", *order.options),
        *("--untrusted", "--json", "--progress=json"),
        f"--timeout={limits.time_s:g}",
        *((f"--memory-limit={limits.memory_bytes}",) if limits.memory_bytes else ()),
        *((f"--python={limits.python}",) if limits.python else ()),
    ]
    said = ""

    def tell(text: str) -> None:
        nonlocal said
        short = _without_folders(text, order)[:_MAX_SAID]
        if short != said:
            said = short
            say(short)

    try:
        ended = await run_command(arguments, Allowance(limits.time_s + _GRACE_S), tell)
    except TooLong as exc:
        raise ModelFailed(f"the import took longer than {limits.time_s:g} s (--import-timeout-secs)") from exc
    if ended.status != 0:
        raise ModelFailed(_sentence(ended.result, ended.status, order))


def _sentence(result: dict[str, Any], status: int, order: ImportTask) -> str:
    """The command's words for what went wrong, for the index: paths of this machine go to the log instead."""
    sentence, remedy = str(result.get("sentence") or _FAILED.format(status=status)), str(result.get("remedy") or "")
    facts = result.get("facts")
    for name in ("report", "log"):
        path = facts.get(name) if isinstance(facts, dict) else None
        if isinstance(path, str) and path:
            _log.warning("the %s of the refused import of %s is in %s", name, order.source.name, path)
            remedy = remedy.replace(f"the {name} is in '{path}'", f"its {name} is where the server's log says")
    return _without_folders(f"{sentence}; {remedy}" if remedy else sentence, order)


def _without_folders(text: str, order: ImportTask) -> str:
    """`text` for clients, who are not told where on this machine something lies."""
    for folder in (order.source.parent, order.report, order.target.parent):
        text = text.replace(f"{folder}/", "")
    return text
