"""`tensorquay top` as people and programs run it: against real servers under load, in a real pseudo-terminal and in
pipes, with servers that are not there, that go, that come again, and that are none."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.load import Load
from tests.support.serving import RunningServer, start

from graphs import scale, write
from tensorquay.commands.top import top

COMMAND = [sys.executable, "-m", "tensorquay", "top"]
DEADLINE_S = 60.0
LEAVES = "\x1b[?1049l"
"""The end of the alternate screen."""


_IN_ITS_OWN_SESSION = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""Makes its terminal the controlling one, so that Ctrl-C in it is a signal."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("top")
    write(scale(2.0), folder / "[red]twice" / "1" / "model.onnx")
    write(scale(3.0), folder / "thrice" / "1" / "model.onnx")
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[RunningServer]:
    made = start([repository], "--exit-on-error=false")
    yield made
    made.end()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env={**os.environ, **environment},
    )


class Terminal:
    """`tensorquay top` in a pseudo-terminal of a given size."""

    def __init__(self, *arguments: str, columns: int = 80, rows: int = 24, kind: str = "xterm-256color") -> None:
        self._end, theirs = pty.openpty()
        self.resize(columns, rows)
        kept = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _IN_ITS_OWN_SESSION, *COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**kept, "TERM": kind},
        )
        self.before = termios.tcgetattr(self._end)
        os.close(theirs)
        self.pid = self._process.pid
        self.seen = ""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self._end, keys)

    def frame(self) -> str:
        """The newest whole frame, as it stands on the screen."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen.split("\x1b[H")[-1]).replace("\r", "")

    def until(self, holds: Callable[[], Any], what: str) -> None:
        """Read until `holds`."""
        end = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < end, f"not seen: {what}; the last frame was:\n{self.frame()}"
            if select.select([self._end], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self._end, 65536).decode()
                except OSError:  # the other end has closed
                    assert holds(), f"it ended before: {what}; it said:\n{self.seen[-2000:]}"
                    return

    def shows(self, *texts: str) -> None:
        self.until(lambda: all(each in self.frame() for each in texts), " and ".join(texts))

    def ended(self) -> int:
        """The exit status, once it has ended."""
        return self._process.wait(DEADLINE_S)

    def ends(self) -> int:
        """Wait for its end; the exit status."""
        self.until(lambda: LEAVES in self.seen, "the end of the alternate screen")
        after = termios.tcgetattr(self._end)
        assert after[3] == self.before[3], "the terminal is not as it was"
        return self.ended()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._end)


def test_a_terminal_shows_the_load_obeys_keys_and_is_given_back(server: RunningServer) -> None:
    with Load(server, "thrice", http=1, grpc=1), Terminal("--url", server.http, columns=100) as terminal:
        terminal.until(
            lambda: re.search(r"thrice/1 +READY +[1-9]", terminal.frame()), "requests of the model under load"
        )
        # Its name is markup, and stands there as it is; what does not serve says why.
        terminal.shows("[red]twice/1", "broken/1 UNAVAILABLE: ", "by traffic")
        terminal.press(b"\x1b[C")
        terminal.shows("by failures")
        terminal.press(b"\x1b[D\x1b[D")
        terminal.shows("by name")
        terminal.resize(60, 12)
        os.kill(terminal.pid, signal.SIGWINCH)
        terminal.until(
            lambda: len(terminal.frame().split("\n")) == 12 and "p50 ms" not in terminal.frame(), "a small frame"
        )
        assert max(map(len, terminal.frame().split("\n"))) <= 60
        terminal.press(b"q")
        assert terminal.ends() == 0


def test_a_terminal_that_cannot_be_drawn_on_gets_text(server: RunningServer) -> None:
    with Terminal("--url", server.http, kind="dumb") as terminal:
        terminal.until(lambda: terminal.seen.count("thrice/1") >= 2, "two looks")
        assert "\x1b" not in terminal.seen
        terminal.press(b"\x03")
        assert terminal.ended() == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, None])
def test_being_stopped_is_a_clean_end(server: RunningServer, how: int | None) -> None:
    with Terminal("--url", server.http) as terminal:
        terminal.shows("thrice/1")
        if how is None:
            terminal.press(b"\x03")  # Ctrl-C
        else:
            os.kill(terminal.pid, how)
        assert terminal.ends() == 0
        assert "Traceback" not in terminal.seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_goes_is_told_and_met_again(repository: Path) -> None:
    port = free_port()
    first = start([repository], "--exit-on-error=false", f"--http-port={port}")
    try:
        with Terminal("--url", f"127.0.0.1:{port}") as terminal:
            terminal.shows("thrice/1")
            first.stop()
            terminal.shows("no connection: ", "trying again", "thrice/1")
            second = start([repository], "--exit-on-error=false", f"--http-port={port}")
            try:
                terminal.until(lambda: terminal.frame().startswith("tensorquay "), "a connection again")
                terminal.press(b"q")
                assert terminal.ends() == 0
            finally:
                second.end()
    finally:
        first.end()


def test_a_pipe_gets_text_and_programs_get_json(server: RunningServer) -> None:
    with Load(server, "thrice", http=1, grpc=0):
        shown = run("--url", server.http, "--count", "2")
        lines = run("--json", "--count", "2", TENSORQUAY_URL=server.http)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.count("requests/s") == 2
    assert "[red]twice/1" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert (lines.returncode, lines.stderr) == (0, "")
    first, second = map(json.loads, lines.stdout.splitlines())
    assert first["at_ms"] < second["at_ms"]
    assert {each["model"] for each in second["versions"]} == {"thrice"}


def test_once_answers_at_once_and_in_ascii_where_nothing_else_can_be_shown(server: RunningServer) -> None:
    shown = run("--once", "--url", server.http, PYTHONIOENCODING="ascii:backslashreplace")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.count("requests/s") == 1
    assert shown.stdout.isascii()


class Answers(http.server.BaseHTTPRequestHandler):
    """Says what the test wants, whatever is asked."""

    status, kind, body = 200, "text/event-stream", b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-type", self.kind)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("status", "kind", "body", "told"),
    [
        (403, "application/json", b'{"error": "\x1b[31mclosed"}', "(--header NAME=VALUE sends one)"),
        (404, "application/json", b'{"error": "Not Found"}', "it has no /v2/live"),
        (200, "text/html", b"<p>", "does not tell live figures"),
        (200, "text/event-stream", b"event: figures\ndata: {\n\n", "does not tell live figures"),
        (200, "text/event-stream", b"event: figures\ndata: 3\n\n", "does not tell live figures"),
        (200, "text/event-stream", b"nothing\n\n", "does not tell live figures"),
        (503, "application/json", b'{"error": "32 readers watch"}', "answered 503: 32 readers watch"),
        (200, "text/event-stream", b"", "no answer from"),
        (400, "application/json", b"[" * 60_000, "answered 400: Bad Request"),
    ],
)
def test_what_is_no_server_of_ours_is_one_sentence(status: int, kind: str, body: bytes, told: str) -> None:
    handler = type("Handler", (Answers,), {"status": status, "kind": kind, "body": body})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        ended = CliRunner().invoke(top, ["--url", f"127.0.0.1:{stranger.server_port}"])
        stranger.shutdown()
    assert ended.exit_code == 1
    assert told in ended.output
    assert len(ended.output.splitlines()) == 1
    assert "\x1b" not in ended.output


def test_of_an_error_without_end_little_is_read() -> None:
    most = 256
    sent: list[int] = []

    class Endless(Answers):
        def do_GET(self) -> None:
            self.send_response(500)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(most):
                    self.wfile.write(b"x" * 2**20)
                    sent.append(1)

    with http.server.HTTPServer(("127.0.0.1", 0), Endless) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        ended = CliRunner().invoke(top, ["--url", f"127.0.0.1:{stranger.server_port}"])
        stranger.shutdown()
    assert "answered 500: Internal Server Error" in ended.output
    assert len(sent) < most / 4, "what the kernel holds, and no more"


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "http://[", "ftp://127.0.0.1:{port}"])
def test_no_server_is_one_sentence(address: str) -> None:
    ended = CliRunner().invoke(top, ["--url", address.format(port=free_port())])
    assert ended.exit_code == 1
    assert ended.output.startswith("Error: no answer from ")
    assert len(ended.output.splitlines()) == 1
