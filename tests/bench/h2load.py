"""Load from h2load, nghttp2's HTTP/2 load generator: start it, read its report.

It cannot read trailers, so a call that failed with a gRPC status is a success to it: the caller compares with what the
server counted, and `body_bytes` with the size of the right answers. Its DATA frames are 16 KiB at most.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.generators import CpuClock, GeneratorFailed, Reading, Shape, children_cpu_s, tail

PROGRAM, PACKAGE = "h2load", "nghttp2-client"

_FINISHED = re.compile(r"^finished in ([0-9.]+)(us|ms|s), ", re.MULTILINE)
_REQUESTS = re.compile(
    r"^requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
    re.MULTILINE,
)
_CODES = re.compile(r"^status codes: (\d+) 2xx, ", re.MULTILINE)
_TRAFFIC = re.compile(r"^traffic: .*, \S+ \((\d+)\) data$", re.MULTILINE)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True)
class H2loadReport:
    """What h2load says at its end. `data_bytes`: payload of all DATA frames that came."""

    total: int
    succeeded: int
    successes_2xx: int
    failed: int
    seconds: float
    data_bytes: int

    @classmethod
    def read(cls, text: str) -> H2loadReport:
        """The report in `text`.

        Raises: GeneratorFailed when there is none.
        """
        found = [pattern.search(text) for pattern in (_FINISHED, _REQUESTS, _CODES, _TRAFFIC)]
        finished, requests, codes, traffic = found
        if finished is None or requests is None or codes is None or traffic is None:
            raise GeneratorFailed(f"h2load gave no report: {text[-2000:].strip()!r}")
        total, _, _, succeeded, failed, errored, timeout = map(int, requests.groups())
        return cls(
            total=total,
            succeeded=succeeded,
            successes_2xx=int(codes[1]),
            # "failed" counts the errored ones too; a time-out is in neither.
            failed=max(failed, errored) + timeout,
            seconds=float(finished[1]) * _SECONDS[finished[2]],
            data_bytes=int(traffic[1]),
        )


def measure(address: str, path: str, body: Path, shape: Shape, server_cpu_s: CpuClock, limit_s: float) -> Reading:
    """Call gRPC method `path` with the prefixed message in `body`, `shape.requests` times.

    Raises: GeneratorFailed.
    """
    command = [
        *(PROGRAM, "-n", str(shape.requests), "-c", str(shape.connections), "-m", str(shape.streams), "-t", "1"),
        *("-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{path}"),
    ]
    used_s = -children_cpu_s()
    cpu_s = -server_cpu_s()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise GeneratorFailed(f"h2load did not get {shape.requests} answers within {limit_s:.0f} s") from None
    cpu_s += server_cpu_s()
    used_s += children_cpu_s()
    report = H2loadReport.read(done.stdout + done.stderr)
    if report.failed or report.succeeded != shape.requests or report.successes_2xx != shape.requests:
        raise GeneratorFailed(
            f"h2load: {shape.requests} requests, {report.succeeded} answers, {report.successes_2xx} of them with "
            f"status 2xx, {report.failed} failed:\n{tail([done.stdout, done.stderr])}"
        )
    return Reading(shape.requests, report.succeeded, report.seconds, cpu_s, used_s, report.data_bytes)
