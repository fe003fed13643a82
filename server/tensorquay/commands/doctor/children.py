"""Questions that may crash or hang whoever asks them, asked by a process of its own."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBE = Path(__file__).with_name("probe.py")

_MAX_OUTPUT = 4 * 2**20
"""Bytes kept of each of a child's two outputs; what comes after them is read, so that it can go on, and forgotten."""

_PIECE = 64 * 2**10
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended. `why` says in words why it did not end well, "" when it did; `late`: it took too long."""

    output: str
    errors: str
    why: str = ""
    late: bool = False

    def document(self) -> Any:
        """The last line of its output as JSON; None when that is none."""
        lines = self.output.strip().splitlines()
        try:
            return json.loads(lines[-1]) if lines else None
        except ValueError:
            return None


def run(
    arguments: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None, code: int = 0
) -> Ended:
    """Run a program to its end, at most `timeout_s`, with everything it has started.

    Args:
        environment: its variables; this process's when None.
        code: the exit status that counts as good beside 0.
    """
    try:
        child = subprocess.Popen(  # the interpreter that runs us, or the one the settings name
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        return Ended("", "", f"cannot be run: {error.strerror or error}")
    with _Outputs(child) as outputs:
        late = not outputs.end_within(timeout_s)
        if late:
            _kill(child)
            outputs.end_within(_GRACE_S)  # else held by the kernel: it goes when that lets it
        output, errors = outputs.texts()
    if late:
        return Ended(output, errors, f"did not end within {timeout_s:g} s", late=True)
    why = ""
    if child.returncode < 0:
        why = f"was ended by {_signal(-child.returncode)}"
    elif child.returncode not in {0, code}:
        why = f"ended with status {child.returncode}"
    return Ended(output, errors, why)


def ask(question: str, *arguments: str, timeout_s: float, python: str = "") -> Ended:
    """Put a question of `probe.py`.

    Args: python: the interpreter to ask; ours when "".
    """
    # -I for strangers' interpreters: what lies in the working directory is not theirs.
    how = [python, "-I", str(PROBE)] if python else [sys.executable, "-m", "tensorquay.commands.doctor.probe"]
    return run([*how, question, *arguments], timeout_s=timeout_s)


class _Outputs:
    """The beginnings of a child's two outputs, read while it runs."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self._kept = (bytearray(), bytearray())
        self._pipes = selectors.DefaultSelector()
        for pipe, kept in zip((child.stdout, child.stderr), self._kept, strict=True):
            if pipe is not None:
                self._pipes.register(pipe, selectors.EVENT_READ, kept)

    def __enter__(self) -> _Outputs:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pipes.close()
        for pipe in (self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()

    def end_within(self, seconds: float) -> bool:
        """Read until both have ended and the child too; whether that took at most so many seconds."""
        end = time.monotonic() + seconds
        while self._pipes.get_map():
            left_s = end - time.monotonic()
            if left_s <= 0:
                return False
            for key, _ in self._pipes.select(left_s):
                piece = os.read(key.fd, _PIECE)
                key.data.extend(piece[: _MAX_OUTPUT - len(key.data)])
                if not piece:
                    self._pipes.unregister(key.fileobj)
        try:
            self._child.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return False
        return True

    def texts(self) -> tuple[str, str]:
        """Output and errors, as far as they are kept."""
        output, errors = (kept.decode(errors="replace") for kept in self._kept)
        return output, errors


def _kill(child: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
