"""Load from wrk, an HTTP/1.1 load generator in C: start it, read its report."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.generators import CpuClock, GeneratorFailed, Reading, Shape, children_cpu_s, tail

PROGRAM, PACKAGE = "wrk", "wrk"

_SCRIPT = Path(__file__).with_name("wrk.lua")
_REQUESTS = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
_REFUSED = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)", re.MULTILINE)
_ERRORS = re.compile(r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class WrkReport:
    """What wrk says at its end: answers, those of them that were no success, and connections that failed."""

    answers: int
    refused: int
    errors: int

    @classmethod
    def read(cls, text: str) -> WrkReport:
        """The report in `text`.

        Raises: GeneratorFailed when there is none.
        """
        answers = _REQUESTS.search(text)
        if answers is None:
            raise GeneratorFailed(f"wrk gave no report: {text[-2000:].strip()!r}")
        refused, errors = _REFUSED.search(text), _ERRORS.search(text)
        return cls(int(answers[1]), int(refused[1]) if refused else 0, sum(map(int, errors.groups())) if errors else 0)


def measure(address: str, requests: Path, files: int, shape: Shape, server_cpu_s: CpuClock, limit_s: float) -> Reading:
    """Send whole requests (files "0" … in `requests`) by turns, `shape.requests` in all.

    The window reaches from wrk's first request to the moment when every connection has its last answer.
    Raises: GeneratorFailed.
    """
    command = [
        *(PROGRAM, "-t1", f"-c{shape.connections}", f"-d{round(limit_s)}s", f"--timeout={round(limit_s)}s"),
        *("-s", str(_SCRIPT), f"http://{address}/"),
        *("--", str(requests), str(files), str(shape.requests), str(shape.connections)),
    ]
    used_s = -children_cpu_s()
    cpu_s = -server_cpu_s()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    guard = threading.Timer(limit_s + 10, process.kill)
    guard.start()
    begun_s = ended_s = 0.0
    said: list[str] = []
    try:
        for line in process.stdout:
            if line == "begun\n":
                begun_s = time.perf_counter()
            elif line == "answered\n":
                ended_s = time.perf_counter()
                cpu_s += server_cpu_s()
                process.send_signal(signal.SIGINT)  # it ends as if its time were over
            else:
                said.append(line)
    finally:
        guard.cancel()
        process.wait()
        process.stdout.close()
    used_s += children_cpu_s()
    if not begun_s or not ended_s:
        raise GeneratorFailed(f"wrk did not get {shape.requests} answers within {limit_s:.0f} s:\n{tail(said)}")
    report = WrkReport.read("".join(said))
    if report.refused or report.errors or report.answers != shape.requests:
        raise GeneratorFailed(
            f"wrk: {shape.requests} requests, {report.answers} answers, {report.refused} of them no success, "
            f"{report.errors} connection errors:\n{tail(said)}"
        )
    return Reading(shape.requests, report.answers, ended_s - begun_s, cpu_s, used_s)
