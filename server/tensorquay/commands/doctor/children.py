"""Questions that may crash or hang whoever asks them, asked by a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROBE = Path(__file__).with_name("probe.py")

_MAX_OUTPUT = 4 * 2**20
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
            text=True,
            errors="replace",
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        return Ended("", "", f"cannot be run: {error.strerror or error}")
    try:
        output, errors = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return Ended(*_killed(child), f"did not end within {timeout_s:g} s", late=True)
    why = ""
    if child.returncode < 0:
        why = f"was ended by {_signal(-child.returncode)}"
    elif child.returncode not in {0, code}:
        why = f"ended with status {child.returncode}"
    return Ended(output[:_MAX_OUTPUT], errors[:_MAX_OUTPUT], why)


def ask(question: str, *arguments: str, timeout_s: float, python: str = "") -> Ended:
    """Put a question of `probe.py`.

    Args: python: the interpreter to ask; ours when "".
    """
    # -I for strangers' interpreters: what lies in the working directory is not theirs.
    how = [python, "-I", str(PROBE)] if python else [sys.executable, "-m", "tensorquay.commands.doctor.probe"]
    return run([*how, question, *arguments], timeout_s=timeout_s)


def _killed(child: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        child.kill()
    try:
        output, errors = child.communicate(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        return "", ""  # held by the kernel: it goes when that lets it
    return output[:_MAX_OUTPUT], errors[:_MAX_OUTPUT]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
