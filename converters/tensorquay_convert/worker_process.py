"""The life of a worker's process: reads one job from standard input, tells events, dies with whoever waits for it.

Only the standard library is imported before the first event can be told, because the interpreter may be another one
(`--python`) that lacks the rest. Whatever the job does, the process that started this one (`isolation.py`) survives.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tensorquay_convert.errors import CommandFailed, ExitCode, LimitExceeded, NotPublished
from tensorquay_convert.progress import Teller, to_descriptor

_MAX_REQUEST_BYTES = 16 << 20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

Job = Callable[[Mapping[str, Any], Teller], Mapping[str, Any]]
"""Takes what the parent sent, returns the event "done". Raises: CommandFailed of the kind that says why not."""


def run(descriptor: int, parent: int, job: Job, *, name: str, shares: Mapping[str, float]) -> int:
    """Do what standard input says, tell it on `descriptor`, and return an `ExitCode`.

    On Linux a child does it. This process then only waits, inherits what the child's own children leave behind, and
    ends all of it: a framework's stray helpers would outlive it.

    Args:
        parent: the process that waits for us; without it there is nobody to work for.
        name: of what is done, for sentences ("the import").
        shares: see `Teller`.
    """
    os.set_inheritable(descriptor, False)
    if sys.platform != "linux":
        return _work(descriptor, job, name, shares)
    _belong_to(parent)
    supervisor = os.getpid()
    child = os.fork()
    if child == 0:
        _belong_to(supervisor)
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel kills this one first
        return _work(descriptor, job, name, shares)
    _, status = os.waitpid(child, 0)
    _end_children()
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    # To end as it did is to tell how it ended.
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(supervisor, -code)
    return ExitCode.FAILED


def _work(descriptor: int, job: Job, name: str, shares: Mapping[str, float]) -> int:
    teller = Teller(to_descriptor(descriptor), shares)
    try:
        teller.send(job(_request(), teller))
        return ExitCode.DONE
    except CommandFailed as exc:
        failure = exc
    except MemoryError:
        traceback.print_exc()
        failure = LimitExceeded(f"{name} ran out of memory")
    except BaseException as exc:  # noqa: BLE001 - told as an event below
        # Frameworks raise anything, SystemExit and their own BaseExceptions included; the log has where.
        traceback.print_exc()
        failure = _full_disk(exc) or CommandFailed(f"{name} failed: {one_sentence(exc)}")
    teller.send(
        {
            "event": "failed",
            "code": int(failure.code),
            "sentence": failure.sentence,
            "remedy": failure.remedy,
            "facts": failure.facts,
        }
    )
    return failure.code


def _full_disk(exc: BaseException) -> NotPublished | None:
    """What to tell when there was no room for the result, however deep in a framework that came up."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return NotPublished(
                f"the result could not be written: {os.strerror(cause.errno or 0)}",
                remedy="make room on the disk of the repository, and of temporary files",
            )
        cause = cause.__cause__ or cause.__context__
    return None


def one_sentence(exc: BaseException) -> str:
    """The type of a foreign exception and the first line of what it says."""
    text = next((line.strip() for line in str(exc).splitlines() if line.strip()), "")[:300]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _request() -> Mapping[str, Any]:
    text = sys.stdin.buffer.read(_MAX_REQUEST_BYTES)
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise CommandFailed(f"the worker got no job it can read on standard input ({one_sentence(exc)})") from exc
    if not isinstance(found, dict):
        raise CommandFailed("the worker got no job it can read on standard input")
    return found


def _belong_to(parent: int) -> None:
    """Die when the parent does, and be the parent of what our children leave behind. Linux only."""
    system = ctypes.CDLL(None)
    system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    system.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        raise SystemExit("the process that started this one is gone")


def _end_children() -> None:
    """Kill what is left below this process, until nothing is; orphans come up to it as their parents die."""
    while True:
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    here = str(os.getpid())
    found = []
    for path in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                path.name.isdigit()
                and (path / "stat").read_text(errors="replace").rpartition(")")[2].split()[1] == here
            ):
                found.append(int(path.name))
    return found
