"""A reader's desk: a copy of the clone with `tensorquay` at hand, where the blocks of a page are run in their order.

What differs from a reader's own: ports are free ones of loopback, `tensorquay serve` goes to the background when it is
ready (a reader has a second terminal) and ends with the page, and a `curl` that is answered with an error fails.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

from tests.container.engine import free_ports
from tests.docs.markdown import ROOT, SHELL, Block, commands_in
from tests.support.serving import START_TIMEOUT_S, RunningServer, start

COPIED = ("docs", "docker", "k8s", "model_repo", "tests")
"""What a page's commands may write to; tests, because tools in it write into the clone that they lie in."""
LINKED = ("server", "clients", "converters")
FILES = ("Makefile", "README.md", "pyproject.toml", "constraints.txt", "constraints-frameworks.txt", ".dockerignore")

_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
_PORT = re.compile(
    r"(?P<before>(?:localhost|127\.0\.0\.1|0\.0\.0\.0):|\bTENSORQUAY_\w*PORT=|--(?:http|grpc|metrics)-port[= ]|"
    r"\b(?:http|grpc|metrics)_port *= *)(?P<port>[1-9]\d{3,4})\b"
)
_HTTP_PORT = re.compile(r"--http-port[= ](\d+)")
_MAKE_NOT_OF_US = "MAKEFLAGS", "MAKELEVEL", "MFLAGS"

_TENSORQUAY = """#!/bin/sh
case "$1" in serve) exec "{python}" -m tests.docs.desk "{socket}" "$@" ;; esac
exec "{python}" -m tensorquay "$@"
"""
_PYTHON = '#!/bin/sh\nexec "{python}" "$@"\n'
# An error that is shown below is what the page wants to say.
_CURL = """#!/bin/sh
for word in "$@"; do case "$word" in --fail*|-f) exec "{curl}" "$@" ;; esac; done
exec "{curl}" $DESK_CURL "$@"
"""
_KUBECTL = """#!/bin/sh
[ "$1" = kustomize ] && shift && exec "{kustomize}" build "$@"
echo "kubectl: only 'kubectl kustomize' can be tried here" >&2; exit 1
"""


class Desk:
    """One reader. `folder` is where they are; `run` is what they do.

    Owner: the test, which closes it. Servers are started by a thread that waits for the reader's `tensorquay serve`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tensorquay"
        self.ports: dict[int, int] = dict(zip((8000, 8001, 8002), free_ports(3), strict=True))
        """Port in the documents → port in use."""
        self._tools = folder / "bin"
        self._state = folder / "state.sh"
        self._socket = str(folder / "s")
        self._servers: list[tuple[str, RunningServer]] = []
        self._said: list[str] = []
        self._lay_out(folder)
        self._listener = Listener(self._socket, family="AF_UNIX")
        self._doorman = threading.Thread(target=self._answer, daemon=True)
        self._doorman.start()

    def _lay_out(self, folder: Path) -> None:
        self.folder.mkdir()
        for name in COPIED:
            shutil.copytree(ROOT / name, self.folder / name, ignore=_LEFT_OUT)
        for name in LINKED:
            (self.folder / name).symlink_to(ROOT / name)
        for name in FILES:
            shutil.copy(ROOT / name, self.folder)
        self._tools.mkdir()
        (folder / "home").mkdir()
        own = self.folder / ".venv" / "bin"
        own.mkdir(parents=True)
        for tool in (self._tools / "tensorquay", own / "tensorquay"):
            _executable(tool, _TENSORQUAY.format(python=sys.executable, socket=self._socket))
        for tool in (self._tools / "python", self._tools / "python3", own / "python"):
            _executable(tool, _PYTHON.format(python=sys.executable))
        # To make, the environment is newer than what it is made from.
        for stamp in (".made", ".serve", ".dev"):
            (self.folder / ".venv" / stamp).touch()
        if curl := shutil.which("curl"):
            _executable(self._tools / "curl", _CURL.format(curl=curl))
        kustomize = shutil.which("kustomize")
        if shutil.which("kubectl") is None and kustomize is not None:
            _executable(self._tools / "kubectl", _KUBECTL.format(kustomize=kustomize))

    def lacks(self, program: str) -> bool:
        """Whether nobody can run `program` on this machine."""
        return shutil.which(program, path=self._path) is None

    @property
    def _path(self) -> str:
        return f"{self._tools}{os.pathsep}{os.environ['PATH']}"

    def here(self, text: str) -> str:
        """`text` with this desk's ports."""

        def free(found: re.Match[str]) -> str:
            port = int(found["port"])
            if port not in self.ports:
                (self.ports[port],) = free_ports(1)
            return f"{found['before']}{self.ports[port]}"

        return _PORT.sub(free, text)

    def as_told(self, text: str) -> str:
        """`text` with the documents' ports: the reverse of `here`."""
        for told, used in self.ports.items():
            text = text.replace(f":{used}", f":{told}")
        return text

    def run(self, block: Block, *, timeout_s: float = 100, shown: bool = False) -> str:
        """What a shell or Python block prints (standard output). Fails, with everything it said, where a command fails.

        Args: shown: what it prints is shown below it, so an answer over HTTP may be an error.
        """
        text = self.here(commands_in(block) if block.language in SHELL else block.text)
        if block.language not in SHELL:
            code = self.folder.parent / "block.py"
            code.write_text(text)
            text = f'python - < "{code}"\n'
        return self.type(text, timeout_s=timeout_s, shown=shown, what=str(block))

    def type(self, script: str, *, timeout_s: float = 100, shown: bool = False, what: str = "a command") -> str:
        """Run `script` where the last one ended: folder and exported variables stay. Returns its standard output."""
        state = self._state
        begin = f'set -e\n[ ! -f "{state}" ] || . "{state}"\n'
        end = f'trap \'{{ export -p; printf "cd %q\\n" "$PWD"; }} > "{state}"\' EXIT\n'
        shell = subprocess.Popen(
            ["bash", "-c", begin + end + script],
            cwd=self.folder,
            env=self._environment(shown=shown),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            printed, complaints = shell.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            printed, complaints = shell.communicate()
            complaints += f"\nnot done after {timeout_s:g} s"
            shell.returncode = 124
        assert shell.returncode == 0, f"{what} failed ({shell.returncode}):\n{printed[-4000:]}\n{complaints[-4000:]}"
        self._said.append(complaints)
        return printed

    @property
    def complaints(self) -> str:
        """What the last block said on standard error."""
        return self._said[-1] if self._said else ""

    def serve(self, *arguments: str) -> RunningServer:
        """What stands before the page's first block: a server on the documents' ports, e.g. `serve("model_repo")`."""
        return self._start(list(arguments), str(self.folder), {})

    def close(self) -> None:
        """End what the page started; a server that does not end well fails the test."""
        with suppress(OSError), Client(self._socket) as bell:
            bell.send(None)
        # It may be starting a server, of which nobody else would know.
        self._doorman.join(START_TIMEOUT_S + 10)
        self._listener.close()
        try:
            ended = {port: server.stop() for port, server in self._servers}
        finally:
            for _, server in self._servers:
                server.end()
        told = "".join(server.told() for _, server in self._servers)
        assert not any(ended.values()), f"exit codes of the page's servers {ended}; they said:\n{told[-4000:]}"

    def _environment(self, *, shown: bool) -> dict[str, str]:
        http, grpc, metrics = (str(self.ports[port]) for port in (8000, 8001, 8002))
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TENSORQUAY_", "PYTEST_")) and name not in _MAKE_NOT_OF_US
        }
        return {
            **kept,
            "PATH": self._path,
            "HOME": str(self.folder.parent / "home"),
            "XDG_CACHE_HOME": str(self.folder.parent / "home" / ".cache"),
            "PYTHONPATH": os.pathsep.join(str(ROOT / each) for each in ("server", "clients", "converters", ".")),
            "no_proxy": "*",
            "NO_PROXY": "*",
            "DESK_CURL": "" if shown else "--fail-with-body",
            "TENSORQUAY_HTTP_HOST": "127.0.0.1",
            "TENSORQUAY_GRPC_HOST": "127.0.0.1",
            "TENSORQUAY_HTTP_PORT": http,
            "TENSORQUAY_GRPC_PORT": grpc,
            "TENSORQUAY_METRICS_PORT": metrics,
            "TENSORQUAY_URL": f"http://127.0.0.1:{http}",
            "TENSORQUAY_GRPC_URL": f"127.0.0.1:{grpc}",
        }

    def _answer(self) -> None:
        """Start a server for every `tensorquay serve` on the desk; ends with the desk's own bell."""
        while True:
            with self._listener.accept() as caller:
                asked = caller.recv()
                if asked is None:
                    return
                self._greet(caller, *asked)

    def _greet(self, caller: Connection, arguments: list[str], folder: str, environment: dict[str, str]) -> None:
        try:
            server = self._start(arguments, folder, environment)
        except AssertionError as refused:
            caller.send((1, str(refused)))
            return
        caller.send((0, server.told()))

    def _start(self, arguments: list[str], folder: str, environment: dict[str, str]) -> RunningServer:
        http, grpc, metrics = (self.ports[port] for port in (8000, 8001, 8002))
        flags = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}", *arguments]
        port = _HTTP_PORT.findall(" ".join(flags))[-1]
        # A reader who starts it again has stopped the one before.
        for entry in [each for each in self._servers if each[0] == port]:
            self._servers.remove(entry)
            assert entry[1].stop() == 0, entry[1].told()
        server = start([], *flags, env=environment, cwd=folder)
        self._servers.append((port, server))
        return server


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def main(socket: str, arguments: Sequence[str]) -> int:
    """What `tensorquay serve …` is on a desk: what only looks is done at once, a server is asked of the test."""
    if {"--print-config", "--help", "-h"} & set(arguments):
        os.execv(sys.executable, [sys.executable, "-m", "tensorquay", *arguments])  # the same, without the desk
    wanted = {name: value for name, value in os.environ.items() if name.startswith("TENSORQUAY_")}
    with Client(socket) as desk:
        desk.send((list(arguments[1:]), str(Path.cwd()), wanted))
        code, told = desk.recv()
    print(told, file=sys.stderr if code else sys.stdout)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
