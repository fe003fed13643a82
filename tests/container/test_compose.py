"""docker/compose.yaml run for real, its server and its Prometheus, by podman (make test-container).

No compose program is needed: what the file says of a service is given to podman word by word, and a word that is not
known here fails. What differs: the services share one network of their own, where they find each other by name; nothing
is published; and Prometheus is Debian's, in an image made here. Grafana is not in Debian: its files are checked
elsewhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.boards.expressions import rules
from tests.container.engine import ROOT, Engine
from tests.support.waiting import until

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

FOLDER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
POD = "tensorquay-compose-test"
RUN = ("tensorquay", "prometheus")

_ASK = """
import json, sys
from urllib.parse import quote
from urllib.request import urlopen
print(urlopen("http://prometheus:9090/api/v1/" + sys.argv[1], timeout=10).read().decode())
"""

_PREDICT = """
import numpy as np
from tensorquay_client import HttpClient
with HttpClient("tensorquay:8000") as client:
    client.infer("simple", {"INPUT0": np.ones((1, 16), np.int32), "INPUT1": np.ones((1, 16), np.int32)})
"""

NOBODY = "65534"
"""The user of the real image."""


def options(service: dict[str, Any]) -> Iterator[str]:
    """podman's for what compose.yaml says of a service."""
    for key, value in service.items():
        match key:
            case "image" | "build" | "ports" | "depends_on" | "restart" | "command" | "stop_grace_period":
                continue
            case "environment":
                yield from (f"--env={name}={text}" for name, text in value.items())
            case "volumes":
                yield from (f"--volume={volume(each)}" for each in value)
            case "cpus":
                yield f"--cpus={value}"
            case "mem_limit":
                yield f"--memory={value}"
            case "pids_limit":
                yield f"--pids-limit={value}"
            case "read_only":
                yield from ("--read-only", "--read-only-tmpfs=false") if value else ()
            case "tmpfs":
                yield from (f"--tmpfs={each}" for each in value)
            case "cap_drop":
                yield from (f"--cap-drop={each}" for each in value)
            case "security_opt":
                yield from (f"--security-opt={each.replace(':true', '')}" for each in value)
            case _:
                raise AssertionError(f"compose.yaml says {key}, which this test cannot give to podman")


def volume(said: str | dict[str, Any]) -> str:
    """SOURCE:TARGET[:ro]; paths start at the file's folder, and variables are not set."""
    if isinstance(said, dict):
        source = said["source"].partition(":-")[2].rstrip("}")
        return f"{(FOLDER / source).resolve()}:{said['target']}{':ro' if said.get('read_only') else ''}"
    source, _, rest = said.partition(":")
    if source in COMPOSE["volumes"]:
        return f"{POD}-{source}:{rest}"
    return f"{(FOLDER / source).resolve()}:{rest}"


@pytest.fixture(scope="module")
def prometheus_image(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian's Prometheus upon the stand-in for the base; folder, user and entry point are those of the real image."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus): compose.yaml was NOT run")
    folder: Path = tmp_path_factory.mktemp("image")
    shutil.copy(program, folder / "prometheus")
    base = engine.base_image("Dockerfile")["RepoTags"][0]
    (folder / "Dockerfile").write_text(
        f"FROM {base}\nCOPY prometheus /bin/prometheus\n"
        f"RUN mkdir /prometheus && chown {NOBODY}:{NOBODY} /prometheus\n"
        f'USER {NOBODY}:{NOBODY}\nVOLUME /prometheus\nENTRYPOINT ["/bin/prometheus"]\n'
    )
    return engine.build_here(folder, "prometheus:test")


@pytest.fixture
def together(engine: Engine, image: str, prometheus_image: str, tmp_path: Path) -> Iterator[Engine]:
    """Both services, the server ready first, as `depends_on` has it."""
    if shutil.which("catatonit") is None:
        pytest.skip("compose.yaml was NOT run: a pod of podman's needs catatonit (Debian: apt-get install catatonit)")
    images = {"tensorquay": image, "prometheus": prometheus_image}
    # A pod without a network outside itself takes no --add-host.
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *RUN)))
    volumes = [f"{POD}-{each}" for each in COMPOSE["volumes"]]
    with engine.alone():
        engine.podman("pod", "rm", "--force", "--ignore", "--time=0", POD)
        engine.podman("volume", "rm", "--force", *volumes, check=False)
        try:
            engine.podman("pod", "create", f"--name={POD}", "--network=none")
            for name in RUN:
                service = COMPOSE["services"][name]
                engine.podman(
                    *("run", "--detach", f"--pod={POD}", f"--name={POD}-{name}", "--no-healthcheck"),
                    f"--volume={hosts}:/etc/hosts:ro",
                    *(*options(service), f"localhost/{images[name]}", *service.get("command", ())),
                )
                if name == "tensorquay":
                    until(lambda: inside(engine, "tensorquay", "health")[0] == 0, "the server is ready", 120)
            yield engine
        finally:
            engine.podman("pod", "rm", "--force", "--ignore", "--time=0", POD)
            engine.podman("volume", "rm", "--force", *volumes, check=False)


def inside(engine: Engine, *command: str) -> tuple[int, str]:
    """A command in the server's container."""
    done = engine.podman("exec", f"{POD}-tensorquay", *command, check=False)
    return done.returncode, done.stdout + done.stderr


def ask(engine: Engine, path: str) -> Any:
    """Prometheus' answer; None as long as it does not listen."""
    status, told = inside(engine, "python3", "-c", _ASK, path)
    if status != 0:
        logs = engine.podman("logs", f"{POD}-prometheus")
        state = json.loads(engine.podman("inspect", f"{POD}-prometheus").stdout)[0]["State"]
        assert state["Status"] == "running", logs.stdout + logs.stderr + told
        return None
    return json.loads(told)["data"]


def test_the_server_is_scraped_and_watched(together: Engine) -> None:
    """One start for all of it: it takes seconds."""
    until(lambda: ask(together, "targets"), "Prometheus answers", 60)
    assert inside(together, "python3", "-c", _PREDICT)[0] == 0
    answered = "query?query=nv_inference_request_success%7Bmodel%3D%22simple%22%7D"

    def counted() -> bool:
        return any(each["value"][1] == "1" for each in ask(together, answered)["result"])

    until(counted, "the prediction is counted by Prometheus", 60)
    (target,) = ask(together, "targets")["activeTargets"]
    assert target["labels"] == {"instance": "tensorquay:8002", "job": "tensorquay"}
    assert target["health"] == "up"

    found = [rule["name"] for group in ask(together, "rules")["groups"] for rule in group["rules"]]
    assert sorted(found) == sorted(rule["alert"] for rule in rules())
    limit = ask(together, "query?query=tensorquay_container_memory_limit_bytes")["result"]
    assert [each["value"][1] for each in limit] == [str(2**30)]

    # The server's drain is shorter than what compose gives it.
    grace = COMPOSE["services"]["tensorquay"]["stop_grace_period"].rstrip("s")
    together.podman("stop", f"--time={grace}", f"{POD}-tensorquay", timeout_s=120)
    state = json.loads(together.podman("inspect", f"{POD}-tensorquay").stdout)[0]["State"]
    assert state["ExitCode"] == 0
