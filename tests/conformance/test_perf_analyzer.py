"""NVIDIA's perf_analyzer, unmodified: its C++ clients over HTTP and gRPC, streams and shared memory.

Its wheels need a C library newer than Debian 12 has, so our environment has none: it runs where it is on the path.
"""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from tests.support.serving import RunningServer

PROGRAM = shutil.which("perf_analyzer")

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="perf_analyzer is not on the path: its C++ clients were NOT tried"),
    pytest.mark.long,
]

LOADS = {
    "http": ("simple", "http", ()),
    "grpc": ("digits", "grpc", ("-b2", "--concurrency-range=4")),
    "stream": ("simple", "grpc", ("--streaming", "--concurrency-range=4")),
    "shared memory, http": ("simple", "http", ("--shared-memory=system",)),
    "shared memory, grpc": ("simple", "grpc", ("--shared-memory=system",)),
    "arrivals": ("digits", "http", ("--request-rate-range=50", "--request-distribution=poisson")),
    "strings": ("simple_identity", "http", ("--shape=INPUT0:1",)),
}
"""What is tried: model, protocol, further options."""


@pytest.mark.parametrize("load", LOADS)
def test_it_measures_without_an_error(server: RunningServer, load: str) -> None:
    model, protocol, options = LOADS[load]
    assert PROGRAM is not None
    done = subprocess.run(
        [
            *(PROGRAM, f"-m{model}", f"-i{protocol}", f"-u{server.http if protocol == 'http' else server.grpc}"),
            # Any noise will do: that every window has answers and none has errors is what is asked here.
            *("--measurement-interval=500", "--stability-percentage=999", *options),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"throughput: [1-9]", done.stdout), done.stdout
