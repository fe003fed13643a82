"""A log that cannot be written costs log lines and nothing else."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import ask, graphs
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer
from tests.support.waiting import until

Serve = Callable[..., RunningServer]
ROW = ask.sequence([[1, 2, 3, 4]])


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.model("scale", {1: graphs.scale(2.0)})
    return made


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("more", [(), ("--frontends=2", "--log-format=json")], ids=["plain", "frontends"])
def test_a_full_disk_does_not_stop_serving(repo: Repo, serve: Serve, more: tuple[str, ...]) -> None:
    server = serve([repo.root], "--log-file=/dev/full", "--access-log=true", "--log-verbose=2", *more)

    with Load(server, "scale") as load:
        load.more(50)

    load.check({2.0})
    assert ask.metric(server, "nv_inference_request_success", model="scale") >= load.answers
    assert server.stop() == 0
    assert server.told().count("the log cannot be written") == 1, "told once, on standard error"


def test_a_log_file_that_is_taken_away_is_made_again(repo: Repo, tmp_path: Path, serve: Serve) -> None:
    log = tmp_path / "server.log"
    server = serve([repo.root], f"--log-file={log}", "--access-log=true")
    log.rename(tmp_path / "server.log.1")

    assert ask.values(ask.infer(server, "scale", ROW)) == [2, 4, 6, 8]

    until(lambda: log.exists() and "/v2/models/scale/infer" in log.read_text(), "it is written anew")
    assert server.stop() == 0


def test_a_log_folder_that_is_taken_away_does_not_stop_serving(repo: Repo, tmp_path: Path, serve: Serve) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    server = serve([repo.root], f"--log-file={folder / 'server.log'}", "--access-log=true")
    (folder / "server.log").unlink()
    folder.rmdir()

    for _ in range(20):
        assert ask.values(ask.infer(server, "scale", ROW)) == [2, 4, 6, 8]

    assert server.stop() == 0


def test_nobody_reads_what_it_prints(repo: Repo) -> None:
    """Whoever started it has closed both pipes: every write to them fails, the banner's too."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with _server_writing_to(repo, write_end, write_end) as server:
        for _ in range(20):
            assert ask.values(ask.infer(server, "scale", ROW)) == [2, 4, 6, 8]
        assert server.stop() == 0


def test_a_pipe_that_nobody_empties_does_not_stop_serving(repo: Repo) -> None:
    """Both streams go into a pipe that is full: a write to it would wait for ever."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"." * 4096)
    os.set_blocking(write_end, True)
    try:
        with _server_writing_to(repo, write_end, write_end) as server:
            for _ in range(200):
                assert ask.values(ask.infer(server, "scale", ROW)) == [2, 4, 6, 8]
            assert server.stop() == 0
    finally:
        os.close(read_end)


@contextlib.contextmanager
def _server_writing_to(repo: Repo, out: int, err: int) -> Iterator[RunningServer]:
    """A server whose standard streams are these descriptors (closed here), found by a port of the test's choice."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorquay", "serve", repo.root, "--http-host=127.0.0.1", f"--http-port={port}"),
            *("--allow-grpc=false", "--allow-metrics=false", "--access-log=true", "--log-verbose=2"),
        ],
        stdout=out,
        stderr=err,
    )
    os.close(out)
    server = RunningServer(process, http=f"127.0.0.1:{port}")
    try:
        until(lambda: _is_ready(server), "it has started")
        yield server
    finally:
        server.end()


def _is_ready(server: RunningServer) -> bool:
    try:
        return ask.get(server, "/v2/health/ready").status == 200
    except ConnectionRefusedError:
        return False


def test_a_client_cannot_write_lines_into_the_log(repo: Repo, tmp_path: Path, serve: Serve) -> None:
    log = tmp_path / "server.log"
    server = serve([repo.root], f"--log-file={log}", "--access-log=true")
    before = len(log.read_text().splitlines())

    assert ask.get(server, "/v2/models/a%0d%0a12:00:00.000%20E%20forged/ready").status == 400
    ask.exchange(server.http, ask.request("/v2/\x1b[31mred", method="GET"))

    assert server.stop() == 0
    written = log.read_text()
    assert "\x1b" not in written
    assert not any(line.startswith("12:00:00.000") for line in written.splitlines())
    assert len(written.splitlines()) > before
