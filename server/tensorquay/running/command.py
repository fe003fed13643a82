"""Run one command of the converters as a process, follow its progress, take its result, and make sure of its end.

The commands watch their own workers' memory and time; here is only what keeps a server safe from the command itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay.config.surroundings import variables
from tensorquay.core.errors import Unavailable

_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SYSTEMROOT")
"""All that a command sees of the server's environment: what it works on is untrusted, and the rest may hold secrets."""

_LINE_LIMIT = 1 << 20
_END_S = 5.0
"""How long a command may take to end its worker when it is told to stop."""

_LEAST_PRIORITY = 19
_FIRST_TO_GO = "1000"


class TooLong(Exception):
    """The command did not end in its time, and was killed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit status, and the JSON object on the last line that it printed; empty when none."""

    status: int
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a command may take of the machine.

    Args:
        time_s: after it, the command is killed.
        background: only what nobody else wants of the processors, and the first to go when memory is short.
        processors: at most so many; 0: all that this process may use.
    """

    time_s: float
    background: bool = False
    processors: int = 0


async def run_command(arguments: Sequence[str], allowance: Allowance, say: Callable[[str], None]) -> Ended:
    """Run `python -P -m tensorquay_convert <arguments>`. Cancelling it kills the command and everything it started.

    Args: say: gets a few words whenever the command says how far it is.
    Raises: TooLong; Unavailable when it cannot be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "tensorquay_convert", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
            env=variables(_KEPT_VARIABLES),
            start_new_session=True,
        )
    except OSError as exc:
        raise Unavailable(f"the {arguments[0]} could not be started: {exc.strerror}") from exc
    try:
        _restrain(process.pid, allowance)
        async with asyncio.timeout(allowance.time_s):
            result, _ = await asyncio.gather(_result(process), _follow(process, say))
            status = await process.wait()
    except TimeoutError as exc:
        raise TooLong from exc
    finally:
        await _end(process)
    return Ended(status, result)


def _restrain(pid: int, allowance: Allowance) -> None:
    """What the command starts from now on inherits it all; what it has started already is looked for."""
    done: set[int] = set()
    while rest := [each for each in _family(pid) if each not in done]:
        for each in rest:
            _restrain_one(each, allowance)
        done.update(rest)


def _restrain_one(task: int, allowance: Allowance) -> None:
    # None of these is there everywhere, and a command that ended already is none of our business.
    with contextlib.suppress(OSError):
        if allowance.background and hasattr(os, "setpriority"):
            os.setpriority(os.PRIO_PROCESS, task, _LEAST_PRIORITY)
    with contextlib.suppress(OSError):
        if allowance.background and hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(task, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        if allowance.background:
            # Where memory gets short, this goes before the server does.
            Path(f"/proc/{task}/oom_score_adj").write_text(_FIRST_TO_GO)
    with contextlib.suppress(OSError):
        if allowance.processors and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(task, _some(os.sched_getaffinity(0), allowance.processors))


def _family(pid: int) -> list[int]:
    """`pid`, its threads and the processes below it, as far as the system tells."""
    found, seen = [pid], {pid}
    for each in found:  # grows while it is walked
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{each}/task").iterdir():
                known = [int(thread.name), *map(int, (thread / "children").read_text().split())]
                found.extend(one for one in known if one not in seen)
                seen.update(known)
    return found


def _some(processors: Collection[int], count: int) -> list[int]:
    """The last `count`: the first ones are where interrupts and impatient programs gather."""
    return sorted(processors)[-count:]


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
    except (ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


async def _follow(process: asyncio.subprocess.Process, say: Callable[[str], None]) -> None:
    """Pass progress on; anything else the command writes there is not for us."""
    assert process.stderr is not None
    async for line in _lines(process.stderr):
        try:
            text = str(json.loads(line)["text"])
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        say(text)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
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
