"""Containers that cannot serve: each says why in one sentence and ends (make test-container)."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.container.engine import LOCKED_DOWN, ROOT, Container, Engine, free_ports
from tests.support import graphs
from tests.support.repo import Repo

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

SHIPPED = f"--volume={ROOT}/model_repo:/models:ro"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.name.startswith("pytest"):
            folder.chmod(0o755)
    return Repo(tmp_path / "repo")


def ends(
    engine: Engine, image: str, *arguments: str, options: Sequence[str] = (), status: int = 1, network: str = "none"
) -> str:
    """The one sentence with which a container ends that was to serve; it has the exit status of `status`."""
    code, told = engine.once(image, *arguments, options=[*LOCKED_DOWN, *options], network=network)
    # The log, and what ONNX Runtime says by itself, are no sentences to the person who started it.
    said = [line for line in told.splitlines() if line.startswith("tensorquay") and ": note: " not in line]
    assert code == status, told
    assert "Traceback" not in told
    assert len(said) == 1, told
    return said[0]


def test_nothing_mounted(engine: Engine, image: str) -> None:
    assert "'/models' is not a directory: nothing is there" in ends(engine, image)


def test_a_file_mounted(engine: Engine, image: str) -> None:
    told = ends(engine, image, options=[f"--volume={ROOT}/README.md:/models:ro"])
    assert "'/models' is not a directory but a file" in told


def test_a_model_mounted_instead_of_a_repository(engine: Engine, image: str) -> None:
    told = ends(engine, image, options=[f"--volume={ROOT}/model_repo/digits:/models:ro"])
    assert "is a model's folder, not a repository of models: mount the folder above it" in told


def test_an_unreadable_repository(engine: Engine, image: str, repo: Repo) -> None:
    repo.model("closed", {1: graphs.working()})
    repo.root.chmod(0o700)
    told = ends(engine, image, options=[f"--volume={repo.root}:/models:ro"])
    assert "'/models' cannot be read by user 65532: Permission denied" in told


def test_an_unreadable_model(engine: Engine, image: str, repo: Repo) -> None:
    (repo.model("closed", {1: graphs.working()}) / "1" / "model.onnx").chmod(0o600)
    code, told = engine.once(image, options=[*LOCKED_DOWN, f"--volume={repo.root}:/models:ro"])
    assert code == 1
    assert "tensorquay: model 'closed': cannot read 'model.onnx': Permission denied\n" in told


def test_an_empty_repository(engine: Engine, image: str, repo: Repo) -> None:
    told = ends(engine, image, options=[f"--volume={repo.root}:/models:ro"])
    assert "no models found in '/models'; a model is /models/NAME/1/model.onnx" in told


def test_a_model_that_is_not_there(engine: Engine, image: str) -> None:
    flags = ("--model-control-mode=explicit", "--load-model=wanted")
    code, told = engine.once(image, "serve", *flags, options=[*LOCKED_DOWN, SHIPPED])
    assert code == 1
    assert "there is no folder 'wanted' in the model repository" in told


@pytest.mark.parametrize("which", ["HTTP", "GRPC", "METRICS"])
def test_a_port_that_is_taken(engine: Engine, image: str, which: str) -> None:
    ports = dict(zip(("HTTP", "GRPC", "METRICS"), free_ports(3), strict=True))
    with socket.create_server(("0.0.0.0", 0)) as taken:
        ports[which] = taken.getsockname()[1]
        named = [f"--env=TENSORQUAY_{name}_PORT={port}" for name, port in ports.items()]
        told = ends(engine, image, options=[SHIPPED, *named], network="host")
    assert re.search(rf"cannot listen for \w+ on \S+ port {ports[which]}: another process listens there", told), told


@pytest.mark.parametrize("limit", ["32m", "48m", "64m"])
def test_too_little_memory(engine: Engine, image: str, limit: str) -> None:
    told = ends(engine, image, options=[SHIPPED, f"--memory={limit}"])
    assert f"too little memory: {int(limit[:-1]) << 20} bytes: cgroup" in told


def test_a_model_that_does_not_fit_is_refused_and_the_others_are_served(engine: Engine, image: str, repo: Repo) -> None:
    repo.model("small", {1: graphs.working()})
    repo.model("large", {1: bytes(60 << 20)})
    options = [*LOCKED_DOWN, "--memory=128m"]
    code, told = engine.once(image, options=[*options, f"--volume={repo.root}:/models:ro"])
    assert code == 1, told
    assert "too much for the memory limit of 134217728 bytes" in told
    with Container(engine, image, repo.root, "serve", "--exit-on-error=false", options=options) as container:
        container.wait_until("/v2/models/small/ready")
        assert container.answers("/v2/health/ready") != 200


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (
            [],
            ["--env=TENSORQUAY_HTTP_PRT=1"],
            "unknown variable TENSORQUAY_HTTP_PRT, did you mean TENSORQUAY_HTTP_PORT?",
        ),
        ([], ["--env=TENSORQUAY_HTTP_PORT=many"], "TENSORQUAY_HTTP_PORT"),
        ([], ["--env=TENSORQUAY_CONFIG=/etc/absent.toml"], "cannot read the configuration file /etc/absent.toml"),
        (["serve", "--http-prot=1"], [], "did you mean '--http-port'?"),
        (["sevre"], [], "did you mean 'serve'?"),
    ],
)
def test_a_bad_configuration(engine: Engine, image: str, arguments: list[str], options: list[str], says: str) -> None:
    assert says in ends(engine, image, *arguments, options=[SHIPPED, *options], status=2)
