"""What is in the image of docker/Dockerfile, and what is not (make test-container)."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from tests.container.engine import LOCKED_DOWN, ROOT, Container, Engine

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

MOST_BYTES = 350_000_000
"""The image over its base, unpacked."""

MOST_START_S = 3.0
"""From `podman run` to ready, with the shipped models."""


def test_it_is_small(engine: Engine, image: str) -> None:
    ours = engine.image(image)["Size"] - engine.base_image("Dockerfile")["Size"]
    print(f"\nthe image over its base: {ours / 1e6:.0f} MB unpacked")
    assert 0 < ours <= MOST_BYTES


def test_it_starts_quickly(engine: Engine, image: str) -> None:
    """CPU time decides, because it is the server's own; the clock of a busy machine is only told."""
    took, spent = [], []
    for _ in range(3):
        begun = time.monotonic()
        with Container(engine, image, ROOT / "model_repo") as container:
            container.wait_until()
            took.append(time.monotonic() - begun)
            fields = Path(f"/proc/{container.state()['Pid']}/stat").read_text().rpartition(")")[2].split()
            spent.append((int(fields[11]) + int(fields[12])) / 100)
    print(f"\nfrom podman run to ready: {min(took):.2f} s, best of {len(took)}; {min(spent):.2f} s of CPU time")
    assert min(spent) <= MOST_START_S


def test_what_it_says_of_itself(engine: Engine, image: str) -> None:
    told = engine.image(image)
    config = told["Config"]
    user, _, group = config["User"].partition(":")
    assert user.isdigit()
    assert group.isdigit()
    assert 0 not in {int(user), int(group)}
    assert config["StopSignal"] in {"SIGTERM", "15"}
    assert config["Entrypoint"] == ["tensorquay"]
    assert config["Cmd"] == ["serve"]
    assert told["HealthCheck" if "HealthCheck" in told else "Healthcheck"]["Test"] == ["CMD", "tensorquay", "health"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.revision"] == "test"
    assert labels["org.opencontainers.image.version"] in (ROOT / "pyproject.toml").read_text()


def test_exactly_the_pinned_packages_are_in_it_and_on_record(engine: Engine, image: str) -> None:
    found = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    # Where a package has two pins, that of Python 3.11 stands first.
    pins = dict(reversed(found))
    status, text = engine.once(image, "/opt/tensorquay/packages.json", options=["--entrypoint=cat"])
    assert status == 0, text
    record = {
        each["metadata"]["name"].lower().replace("_", "-"): each["metadata"]["version"]
        for each in json.loads(text)["installed"]
    }
    status, text = engine.once(
        image,
        *("-c", "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))"),
        options=["--entrypoint=/opt/tensorquay/bin/python3"],
    )
    assert {name.lower().replace("_", "-") for name in json.loads(text)} == set(record)
    assert record.pop("tensorquay") == "0.1.0"
    assert {name: pins.get(name) for name in record} == record
    assert {"onnxruntime", "numpy", "grpcio"} <= set(record)
    strangers = {
        "pytest",
        "hypothesis",
        "mypy",
        "ruff",
        "torch",
        "tensorflow",
        "jax",
        "scikit-learn",
        "pip",
        "tritonclient",
    }
    assert not strangers & set(record)


def test_nothing_in_it_compiles_tests_or_remembers(engine: Engine, image: str) -> None:
    look = (
        "for tool in gcc cc g++ c++ make ld git; do command -v $tool; done; "
        "ls -d /build /root/.cache /tmp/* /opt/tensorquay/bin/pip* /opt/tensorquay/lib/python3*/site-packages/tests; "
        "find / -xdev -user 65532; find /opt/tensorquay -perm /022 -not -type l"
    )
    status, found = engine.once(image, "-c", f"({look}) 2>/dev/null; true", options=["--entrypoint=sh", "--user=0:0"])
    assert (status, found) == (0, "")


@pytest.mark.parametrize("user", ["65532:65532", "1000770000:0"])
def test_any_user_may_run_it(engine: Engine, image: str, user: str) -> None:
    """Some platforms choose the number themselves."""
    status, told = engine.once(image, "version", options=[*LOCKED_DOWN, f"--user={user}"])
    assert status == 0, told
    assert told.startswith("tensorquay 0.1.0\n")
