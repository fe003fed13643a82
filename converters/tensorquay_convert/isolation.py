"""Run one job in a process of its own, and survive whatever it does: crash, hang, fork, fill memory, print for ever.

The worker gets the job on standard input and tells events over a pipe; what it and its libraries print is kept, the
last part of it, for the log. The result is its last event, or its exit status when it left without one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay_convert import surroundings
from tensorquay_convert.errors import BY_CODE, CommandFailed, ExitCode, FrameworkMissing, LimitExceeded
from tensorquay_convert.progress import MAX_LINE_BYTES, Listener, read_event, read_told

DEFAULT_TIMEOUT_S = 1800.0
_LOOK_S = 0.1
"""How often memory and time are looked at. Nothing tells of memory by itself, so it has to be asked for."""
_KEPT_OUTPUT_BYTES = 256 << 10
_READ_BYTES = 64 << 10
_KILL_ROUNDS = 100
"""Against one that forks while it is being ended."""
_TURNS = 64
"""Reads of one pipe in a row: a worker that prints without end does not keep us from looking at the clock."""

_BOOTSTRAP = """
import importlib.util, json, os, sys
sys.path[:] = [each for each in sys.path if each]
folder, events, parent, module = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if sys.version_info < (3, 11):
    os.write(events, json.dumps({"event": "failed", "code": 4, "remedy": "", "facts": {}, "sentence":
        "the interpreter %s is Python %d.%d, this needs 3.11 or newer"
        % (sys.executable, sys.version_info[0], sys.version_info[1])}).encode() + b"\\n")
    sys.exit(4)
spec = importlib.util.spec_from_file_location(
    "tensorquay_convert", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
package = importlib.util.module_from_spec(spec)
sys.modules["tensorquay_convert"] = package
spec.loader.exec_module(package)
import importlib
sys.exit(importlib.import_module(module).main(events, parent))
"""
"""Loads this package, and nothing else of this interpreter's, from where it lies: another Python may run it."""


_SIGNALS: Mapping[int, str] = {
    signal.SIGKILL: " (out of memory?)",
    signal.SIGSEGV: ", a crash in native code",
    signal.SIGABRT: ", a crash in native code",
    signal.SIGBUS: ", a crash in native code",
    signal.SIGFPE: ", a crash in native code",
    signal.SIGILL: ", an instruction that this processor does not have",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may take. `memory_bytes` None: what `surroundings.default_memory_limit` says."""

    timeout_s: float = DEFAULT_TIMEOUT_S
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Who does a job. `module` has `main(events, parent)` (see `worker_process.run`); `name` is for sentences."""

    module: str
    name: str


IMPORT = Work("tensorquay_convert.worker", "the import")


@dataclass(frozen=True, slots=True)
class Ran:
    """A worker that finished its job: the event "done", what it took, and the end of what it printed."""

    result: Mapping[str, Any]
    seconds: float
    peak_rss_bytes: int
    output: bytes


class WorkerFailed(Exception):
    """Carries the failure together with what the worker printed last, for the log.

    Args: failure: what to tell. output: the end of what it printed. unforeseen: the log says more than the sentence.
    """

    def __init__(self, failure: CommandFailed, output: bytes, *, unforeseen: bool) -> None:
        self.failure = failure
        self.output = output
        self.unforeseen = unforeseen
        super().__init__(str(failure))


def run_worker(
    request: Mapping[str, Any],
    environment: Mapping[str, str],
    listener: Listener,
    *,
    work: Work = IMPORT,
    python: str = "",
    limits: Limits | None = None,
) -> Ran:
    """Do the job in a process of its own and wait for its end.

    Args:
        request: plain JSON values, for whoever `work` names.
        python: another interpreter; empty: this one.
    Raises: WorkerFailed; FrameworkMissing when the interpreter cannot be started; KeyboardInterrupt after the worker
        was ended.
    """
    limits = limits or Limits()
    memory = limits.memory_bytes if limits.memory_bytes is not None else surroundings.default_memory_limit()
    interpreter = python or sys.executable
    events, told = os.pipe()
    try:
        process = subprocess.Popen(  # our own code, in the interpreter the user named
            [interpreter, "-c", _BOOTSTRAP, str(Path(__file__).parent), str(told), str(os.getpid()), work.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[told],
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as exc:
        os.close(events)
        raise FrameworkMissing(f"the interpreter '{interpreter}' cannot be started: {exc.strerror}") from exc
    finally:
        os.close(told)
    watch = _Watch(process, events, listener, limits.timeout_s, memory, work.name)
    try:
        return watch.until_it_ends(json.dumps(request).encode())
    finally:
        watch.end()


class _Watch:
    """One worker while it lives. Owner: `run_worker`; used by its thread only."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        events: int,
        listener: Listener,
        timeout_s: float,
        memory_bytes: int | None,
        name: str,
    ) -> None:
        self._name = name
        self._process = process
        self._events = events
        self._listener = listener
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._started = time.monotonic()
        self._peak = 0
        self._line = bytearray()
        self._output: deque[bytes] = deque()
        self._kept = 0
        self._result: Mapping[str, Any] | None = None
        self._selector = selectors.DefaultSelector()
        assert process.stdout is not None
        for descriptor, taken in ((events, self._take_events), (process.stdout.fileno(), self._take_output)):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, taken)

    def until_it_ends(self, job: bytes) -> Ran:
        """Feed it, listen, look at its limits. Raises: WorkerFailed."""
        feeder = threading.Thread(target=self._feed, args=(job,), daemon=True)
        feeder.start()
        while self._process.poll() is None:
            self._listen(_LOOK_S)
            exceeded = self._exceeded()
            if exceeded is not None:
                self._kill()
                self._listen(0)
                raise WorkerFailed(exceeded, self._printed(), unforeseen=False)
        self._listen(0)
        return self._judge(self._process.wait())

    def end(self) -> None:
        """Nothing of it is left afterwards."""
        if self._process.poll() is None:
            self._kill()
            self._process.wait()
        self._selector.close()
        os.close(self._events)
        for stream in (self._process.stdout, self._process.stdin):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _feed(self, job: bytes) -> None:
        """In a thread: a worker that never reads must not keep us from ending it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it ended before it read; its exit status tells
            self._process.stdin.write(job)
            self._process.stdin.close()

    def _listen(self, timeout_s: float) -> None:
        if not self._selector.get_map():
            # It closed both pipes and goes on: only its end can be waited for.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
            return
        for key, _ in self._selector.select(timeout_s):
            for _ in range(_TURNS):
                try:
                    data = os.read(key.fd, _READ_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    self._selector.unregister(key.fd)
                    break
                key.data(data)

    def _take_output(self, data: bytes) -> None:
        self._output.append(data)
        self._kept += len(data)
        while self._kept - len(self._output[0]) >= _KEPT_OUTPUT_BYTES:
            self._kept -= len(self._output.popleft())

    def _take_events(self, data: bytes) -> None:
        self._line += data
        while (end := self._line.find(b"\n")) >= 0:
            event = read_event(bytes(self._line[:end]))
            del self._line[: end + 1]
            if event is None:
                continue
            if event["event"] in {"done", "failed"}:
                self._result = event
            elif (told := read_told(event)) is not None:
                self._listener(told)
        if len(self._line) > MAX_LINE_BYTES:
            self._line.clear()

    def _exceeded(self) -> LimitExceeded | None:
        elapsed = time.monotonic() - self._started
        tree = surroundings.tree_of(self._process.pid)
        held = sum(each.resident_bytes for each in tree)
        self._peak = max(self._peak, held)
        if elapsed > self._timeout_s:
            return LimitExceeded(
                f"{self._name} was stopped after {_seconds(self._timeout_s)}, its time limit",
                remedy="give it more with --timeout",
                facts={"timeout_s": self._timeout_s},
            )
        if self._memory_bytes is not None and held > self._memory_bytes:
            return LimitExceeded(
                f"{self._name} was stopped when it held {_mib(held)}, its limit is {_mib(self._memory_bytes)}",
                remedy="give it more with --memory-limit, or use a larger machine",
                facts={"memory_limit_bytes": self._memory_bytes, "held_bytes": held},
            )
        return None

    def _kill(self) -> None:
        """End everything that came from the worker, and the worker last: orphans fall to it, so none is lost."""
        root = self._process.pid
        for _ in range(_KILL_ROUNDS):
            below = [each for each in surroundings.tree_of(root) if each.alive and each.pid != root]
            for each in below:
                _end(each.pid)
            if not below:
                break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(root, signal.SIGKILL)

    def _printed(self) -> bytes:
        return b"".join(self._output)[-_KEPT_OUTPUT_BYTES:]

    def _judge(self, status: int) -> Ran:
        result, printed = self._result, self._printed()
        if status == 0 and result is not None and result["event"] == "done":
            return Ran(result, time.monotonic() - self._started, self._peak, printed)
        if result is not None and result["event"] == "failed":
            failure = failure_from(result)
            raise WorkerFailed(failure, printed, unforeseen=failure.code is ExitCode.FAILED)
        raise WorkerFailed(self._left_without_result(status), printed, unforeseen=True)

    def _left_without_result(self, status: int) -> CommandFailed:
        if status >= 0:
            return CommandFailed(f"the process of {self._name} ended with status {status} and without a result")
        said = _SIGNALS.get(-status, "")
        return LimitExceeded(
            f"the process of {self._name} was killed by signal {-status}{said}",
            facts={"signal": -status, "peak_rss_bytes": self._peak},
        )


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def failure_from(event: Mapping[str, Any]) -> CommandFailed:
    """The failure that an event "failed" tells."""
    try:
        kind = BY_CODE[ExitCode(event["code"])]
        return kind(str(event["sentence"]), remedy=str(event["remedy"]), facts=dict(event["facts"]))
    except (KeyError, ValueError, TypeError) as exc:
        raise CommandFailed("the worker told a failure that cannot be read") from exc


def _mib(size: int) -> str:
    return f"{math.ceil(size / (1 << 20))} MiB"


def _seconds(value: float) -> str:
    return f"{value:g} s"
