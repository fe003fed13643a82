"""Run the import command for one source: bounded, without the server's secrets, and gone when nobody waits any more.

The command watches its own worker's memory and time; here is only what keeps a server safe from the command itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay.config.surroundings import variables
from tensorquay.core.errors import ModelFailed, Unavailable
from tensorquay.lifecycle.imports import SayProgress

_log = logging.getLogger("tensorquay.importing")

_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SYSTEMROOT")
"""All that an import sees of the server's environment: a source is untrusted, and the rest may hold secrets."""

_LINE_LIMIT = 1 << 20
_GRACE_S = 30.0
"""How much longer than its own time limit the command may take before it is killed from outside."""

_END_S = 5.0
"""How long the command may take to end its worker when it is told to stop."""

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
        *(sys.executable, "-P", "-m", "tensorquay_convert"),
        *(str(order.source), f"--output={order.target}", f"--report={order.report}", *order.options),
        *("--untrusted", "--json", "--progress=json"),
        f"--timeout={limits.time_s:g}",
        *((f"--memory-limit={limits.memory_bytes}",) if limits.memory_bytes else ()),
        *((f"--python={limits.python}",) if limits.python else ()),
    ]
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
            env=variables(_KEPT_VARIABLES),
            start_new_session=True,
        )
    except OSError as exc:
        raise Unavailable(f"the import could not be started: {exc.strerror}") from exc
    try:
        async with asyncio.timeout(limits.time_s + _GRACE_S):
            result, _ = await asyncio.gather(_result(process), _follow(process, order, say))
            status = await process.wait()
    except TimeoutError as exc:
        raise ModelFailed(f"the import took longer than {limits.time_s:g} s (--import-timeout-secs)") from exc
    finally:
        await _end(process)
    if status != 0:
        raise ModelFailed(_sentence(result, status, order))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have the command end its own worker, which is in no group of ours; then make sure of the command."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _result(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The last line of standard output, as JSON; empty when it is none."""
    assert process.stdout is not None
    last = b""
    async for line in _lines(process.stdout):
        last = line or last
    try:
        decoded = json.loads(last)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


async def _follow(process: asyncio.subprocess.Process, order: ImportTask, say: SayProgress) -> None:
    """Pass progress on; anything else the command writes there is not for us."""
    assert process.stderr is not None
    said = ""
    async for line in _lines(process.stderr):
        try:
            event = json.loads(line)
            text = _without_folders(str(event["text"]), order)[:200]
        except (ValueError, TypeError, KeyError):
            continue
        if text != said:
            said = text
            say(text)


async def _lines(stream: asyncio.StreamReader) -> Any:
    """Lines of `stream`; one that is too long is left out."""
    while True:
        try:
            line = await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                yield exc.partial
            return
        except asyncio.LimitOverrunError as exc:
            await stream.read(max(exc.consumed, 1))
            continue
        yield line.strip()


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
