"""Builds images and runs containers with buildah and podman: no daemon, no registry, a storage of its own.

Images start from a stand-in for the base that the Dockerfile names, made of Debian's packages by mmdebstrap and kept in
`.container/` in the repository's root with everything else (`make clean` removes it). It needs Linux and root.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.support.http_raw import exchange, request
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
STORE = ROOT / ".container"
TOOLS = ("buildah", "podman", "runc", "mmdebstrap")

LOCKED_DOWN = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
"""Nothing may be written, not even below /tmp; no rights, and no way to get one."""

_PORTS = ("HTTP", "GRPC", "METRICS")
_PIP_KEYS = ("index-url", "extra-index-url", "cert", "trusted-host", "proxy", "timeout")


def why_not() -> str:
    """Why containers cannot be tried on this machine; empty if they can."""
    if sys.platform != "linux":
        return f"containers are tried on Linux, this is {sys.platform}"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: apt-get install {' '.join(TOOLS)})"
    if os.geteuid() != 0:
        return "making a base image and limits on memory need root"
    return ""


class Engine:
    """One storage of images, and the containers started from it."""

    def __init__(self) -> None:
        STORE.mkdir(exist_ok=True)
        settings = STORE / "containers.conf"
        # runc, because crun refuses mixed hierarchies of cgroups; the usual limits ask for more than a guest may give.
        settings.write_text(
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            '[containers]\ndefault_ulimits = ["nofile=10000:10000", "nproc=4096:4096"]\n'
        )
        self.environment = {"CONTAINERS_CONF": str(settings)}
        with self.alone():
            driver = self._driver()
        self._storage = [f"--storage-driver={driver}", f"--root={STORE}/storage", f"--runroot={STORE}/state"]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other run of these tests is inside such a block meanwhile; waits for the one that is.

        For what has a fixed name in the storage: two runs at once would replace each other's containers and volumes.
        """
        with (STORE / "alone").open("w") as file:
            # Given up with the process, however it ends.
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def podman(self, *arguments: str, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """One command of podman."""
        return self._call("podman", *arguments, check=check, timeout_s=timeout_s)

    def build(self, dockerfile: str, tag: str, *arguments: str) -> str:
        """Build docker/`dockerfile` as a person would; what did not change is taken from the build before.

        Returns: the tag.
        """
        with self.alone():
            self._make_base(_base_of(ROOT / "docker" / dockerfile))
        named = (f"--file=docker/{dockerfile}", f"--tag={tag}")
        self._call("buildah", *self.build_options(), *arguments, *named, ".", timeout_s=1500)
        # What older builds left; what this one may be continued from stays.
        self.podman("image", "prune", "--force", "--filter=until=1h", check=False)
        return tag

    def build_here(self, folder: Path, tag: str) -> str:
        """Build the Dockerfile in `folder`, with that folder as what it may copy from. Returns: the tag."""
        self._call("buildah", *self.build_options(), f"--tag={tag}", str(folder), timeout_s=600)
        return tag

    def build_options(self) -> list[str]:
        """What makes of `buildah` a `docker build` that needs no daemon and no registry."""
        return ["bud", "--isolation=chroot", "--pull-never", "--format=docker", "--layers", *self._pip_settings()]

    def spelled(self, tool: str) -> str:
        """`tool` with its storage, for a shell."""
        return shlex.join([tool, *self._storage])

    def image(self, name: str) -> dict[str, Any]:
        """What the engine knows of an image."""
        found: list[dict[str, Any]] = json.loads(self.podman("image", "inspect", name).stdout)
        return found[0]

    def base_image(self, dockerfile: str) -> dict[str, Any]:
        """The stand-in that docker/`dockerfile` was built upon."""
        return self.image(_base_of(ROOT / "docker" / dockerfile))

    def once(self, image: str, *arguments: str, options: Sequence[str] = (), network: str = "none") -> tuple[int, str]:
        """Run a container to its end: its exit status, and all that it said."""
        done = self.podman(
            "run", "--rm", f"--network={network}", "--no-healthcheck", *options, image, *arguments, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def _call(self, tool: str, *arguments: str, check: bool = True, timeout_s: float = 120) -> Any:
        done = subprocess.run(
            [tool, *self._storage, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0 or not check, (
            f"{tool} {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
        return done

    def _make_base(self, name: str) -> None:
        if self.podman("image", "exists", name, check=False).returncode == 0:
            return
        archive = STORE / "base.tar"
        packages = "--include=python3,python3-venv,ca-certificates"
        made = subprocess.run(
            ["mmdebstrap", "--variant=minbase", packages, name.rpartition("-")[2], str(archive)],
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert made.returncode == 0, f"no base could be made:\n{made.stderr[-4000:]}"
        working = self._call("buildah", "from", "scratch").stdout.strip()
        self._call("buildah", "add", working, str(archive), "/")
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self._call("buildah", "config", "--env", path, working)
        self._call("buildah", "commit", "--rm", working, name)
        archive.unlink()

    @staticmethod
    def _pip_settings() -> Iterator[str]:
        """Options that give the build this machine's way to the packages, as its pip knows it."""
        told = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        known = dict(re.findall(r"^(?:global|user|site|install|:env:)\.([\w-]+)='(.*)'$", told, re.MULTILINE))
        kept = {key: known[key] for key in _PIP_KEYS if key in known and "file:" not in known[key]}
        settings = STORE / "pip.conf"
        settings.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in kept.items()))
        yield f"--volume={settings}:/etc/pip.conf:ro"
        if "cert" in kept:
            yield f"--volume={kept['cert']}:{kept['cert']}:ro"

    @staticmethod
    def _driver() -> str:
        """overlay where the kernel lets us mount one; vfs, which copies every layer, elsewhere."""
        folders = {name: STORE / "try" / name for name in ("lower", "upper", "work", "merged")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={folders['lower']},upperdir={folders['upper']},workdir={folders['work']}"
        mounted = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", options, str(folders["merged"])],
            capture_output=True,
            check=False,
        )
        if mounted.returncode != 0:
            return "vfs"
        subprocess.run(["umount", str(folders["merged"])], check=True)
        return "overlay"


class Container:
    """A running server in a container, on free ports of this machine; gone at the end of the `with`."""

    def __init__(
        self,
        engine: Engine,
        image: str,
        models: Path,
        *arguments: str,
        options: Sequence[str] = LOCKED_DOWN,
        at: str = "/models",
        healthcheck: bool = False,
    ) -> None:
        ports = free_ports(len(_PORTS))
        self.http, self.grpc, self.metrics = (f"127.0.0.1:{port}" for port in ports)
        named = [f"--env=TENSORQUAY_{name}_PORT={port}" for name, port in zip(_PORTS, ports, strict=True)]
        quiet = [] if healthcheck else ["--no-healthcheck"]
        self._engine = engine
        self.id = engine.podman(
            *("run", "--detach", "--network=host", *quiet, *named, *options, f"--volume={models}:{at}:ro"),
            *(image, *arguments),
        ).stdout.split()[-1]

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_failure: object) -> None:
        self._engine.podman("rm", "--force", "--time=0", self.id)

    def told(self) -> str:
        """Everything it has printed so far."""
        logs = self._engine.podman("logs", self.id)
        return str(logs.stdout + logs.stderr)

    def state(self) -> dict[str, Any]:
        """Its state as the engine knows it (Status, ExitCode, Pid, …)."""
        found: dict[str, Any] = json.loads(self._engine.podman("inspect", self.id).stdout)[0]["State"]
        return found

    def run(self, *command: str) -> tuple[int, str]:
        """A command inside it: exit status and output."""
        done = self._engine.podman("exec", self.id, *command, check=False)
        return done.returncode, done.stdout + done.stderr

    def answers(self, path: str) -> int:
        """The HTTP status of a GET; 0 as long as nobody listens."""
        try:
            return exchange(self.http, request(path, method="GET")).status
        except ConnectionError:
            return 0

    def wait_until(self, path: str = "/v2/health/ready", status: int = 200) -> Container:
        """Wait for a GET of `path` to be answered with `status`; fails when the container ends instead."""

        def there() -> bool:
            if self.answers(path) == status:
                return True
            assert self.state()["Status"] == "running", self.told()
            return False

        until(there, f"{path} answers {status}", 60)
        return self

    def stop(self, grace_s: int = 60) -> int:
        """`podman stop`; the exit status."""
        self._engine.podman("stop", f"--time={grace_s}", self.id, timeout_s=grace_s + 60)
        return int(self.state()["ExitCode"])


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on just now."""
    with ExitStack() as held:
        taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in taken]


def _base_of(dockerfile: Path) -> str:
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile.read_text(), re.MULTILINE)
    assert found is not None, f"{dockerfile} names no PYTHON_IMAGE"
    return found[1]
