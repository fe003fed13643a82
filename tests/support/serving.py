"""A real server in a process of its own, on free loopback ports, ended with the test.

What it prints is read until its banner names the ports; everything is kept for the failure report.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60

_DOOR = re.compile(r"^(HTTP|gRPC|metrics)\s+(?:https?://|grpcs://)?(\S+?:\d+)", re.MULTILINE)


@dataclass
class RunningServer:
    """One server process. `http`, `grpc`, `metrics` are "host:port"."""

    process: subprocess.Popen[str]
    output: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    http: str = ""
    grpc: str = ""
    metrics: str = ""
    _readers: list[threading.Thread] = field(default_factory=list)
    _started: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Base URL of the HTTP door."""
        return f"http://{self.http}"

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def told(self) -> str:
        """Everything it has printed so far."""
        return "".join(self.output) + "".join(self.log)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Signal it and wait for its end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for its end; kills it, and fails, when that takes too long."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end within {timeout_s} s; it said:\n{self.told()}") from None
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def end(self) -> None:
        """Make sure it is gone, whatever the test did; for fixtures."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


def launch(
    repositories: Sequence[Path | str],
    *flags: str,
    env: dict[str, str] | None = None,
    cwd: Path | str | None = None,
    module: str = "tensorquay",
) -> RunningServer:
    """Start `tensorquay serve` without waiting for it; `module` is what stands for the command."""
    command = [
        sys.executable,
        "-m",
        module,
        "serve",
        *map(str, repositories),
        "--http-host=127.0.0.1",
        "--grpc-host=127.0.0.1",
        "--http-port=0",
        "--grpc-port=0",
        "--metrics-port=0",
        # One suite for every transport: the other ones come in here (see the Makefile).
        *os.environ.get("SERVER_UNDER_TEST_FLAGS", "").split(),
        *flags,
    ]
    process = subprocess.Popen(  # our own interpreter
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",  # gRPC's core logs bytes as they came
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
        cwd=cwd,
    )
    server = RunningServer(process)
    for stream, kept in ((process.stdout, server.output), (process.stderr, server.log)):
        reader = threading.Thread(target=_read, args=(stream, kept, server._started), daemon=True)
        reader.start()
        server._readers.append(reader)
    return server


def start(
    repositories: Sequence[Path | str],
    *flags: str,
    env: dict[str, str] | None = None,
    cwd: Path | str | None = None,
    module: str = "tensorquay",
) -> RunningServer:
    """Start a server and wait until it has said where it listens, that is until its models are loaded."""
    server = launch(repositories, *flags, env=env, cwd=cwd, module=module)
    if not server._started.wait(START_TIMEOUT_S) or not any(map(_ends_banner, server.output)):
        server.end()
        raise AssertionError(f"the server did not start; it said:\n{server.told()}")
    for door, address in _DOOR.findall("".join(server.output)):
        setattr(server, door.lower(), address)
    return server


def _ends_banner(line: str) -> bool:
    return line.startswith("threads ")


def _read(stream: object, kept: list[str], started: threading.Event) -> None:
    for line in stream:  # type: ignore[attr-defined]
        kept.append(line)
        if _ends_banner(line):
            started.set()
    # The end of the output: whoever waits for the banner waits in vain.
    started.set()
