"""What docs/container.md shows is run, in the order in which it stands there (make test-container)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.container.engine import LOCKED_DOWN, ROOT, Container, Engine, free_ports
from tests.docs.markdown import SHELL, block_with, blocks_of
from tests.support import ask

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

PAGE = "docs/container.md"
BLOCKS = [each.text for each in blocks_of(PAGE) if each.language in SHELL and not each.mark]

MAKE_A_MODEL = """
import skops.io
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
x, y = load_digits(return_X_y=True)
skops.io.dump(LogisticRegression(max_iter=200).fit(x / 16, y), "/data/model.skops")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the commands are run in: a copy of what they need, so that nothing is written beside the sources."""
    for folder in ("docker", "server", "clients", "converters", "model_repo"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "constraints.txt", "constraints-frameworks.txt", "README.md", ".dockerignore"):
        shutil.copy(ROOT / file, tmp_path)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.name.startswith("pytest"):
            folder.chmod(0o755)
    return tmp_path


def shell(script: str, engine: Engine, checkout: Path) -> str:
    """Run a block of the page with our engine as `docker`, and free ports for the ones it publishes."""
    http, grpc, metrics = free_ports(3)
    asked = {"HTTP_PORT": http, "GRPC_PORT": grpc, "METRICS_PORT": metrics, "URL": f"http://127.0.0.1:{http}"}
    ports = " ".join(f"--env=TENSORQUAY_{name}={value}" for name, value in asked.items())
    docker = f"""
set -eu
git() {{ echo 0123abcd; }}
docker() {{
    verb=$1; shift
    case $verb in
        build) {engine.spelled("buildah")} {" ".join(engine.build_options())} "$@" ;;
        # The commands are for bridged networks, which need rules in the kernel's firewall.
        run) case " $* " in *" --network "*) set -- "$@" ;; *) set -- --network=host {ports} "$@" ;; esac
             {engine.spelled("podman")} run --no-healthcheck "$@" ;;
        *) {engine.spelled("podman")} "$verb" "$@" ;;
    esac
}}
"""
    done = subprocess.run(
        ["bash", "-c", docker + script.replace("localhost:8000", f"127.0.0.1:{http}")],
        cwd=checkout,
        env={**os.environ, **engine.environment},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def block(containing: str) -> str:
    return block_with(PAGE, containing).text


def test_every_block_is_run_here() -> None:
    run = {
        block(each) for each in ("docker build --file docker/Dockerfile ", "packages.json", "--detach", "import:0.1.0")
    }
    assert run == set(BLOCKS)


@pytest.fixture
def name_is_free(engine: Engine) -> Iterator[None]:
    """The page gives its container a name, and a run that was cut off may have left one."""
    remove = ("rm", "--force", "--ignore", "--time=0", "tensorquay")
    with engine.alone():
        engine.podman(*remove)
        yield
        engine.podman(*remove)


@pytest.mark.usefixtures("image", "name_is_free")
def test_building_and_running(engine: Engine, checkout: Path) -> None:
    assert "tensorquay 0.1.0\n" in shell(block("docker build --file docker/Dockerfile "), engine, checkout)
    shell(block("packages.json"), engine, checkout)
    assert json.loads((checkout / "packages.json").read_text())["installed"]
    told = shell(block("--detach"), engine, checkout)
    assert '"data":["hello"]}]}ready\n' in told
    assert "1 thread: cgroup" in told


def test_a_model_that_the_import_image_imports_is_served_by_the_other(
    engine: Engine, image: str, checkout: Path
) -> None:
    incoming = checkout / "incoming"
    (incoming / "models").mkdir(parents=True)
    for folder in (incoming, incoming / "models"):
        os.chown(folder, 65532, 65532)
    build, run = re.split(r"(?=^docker run)", block("import:0.1.0"), maxsplit=1, flags=re.MULTILINE)
    shell(build, engine, checkout)
    (checkout / "make.py").write_text(MAKE_A_MODEL)
    volumes = (f"--volume={incoming}:/data", f"--volume={checkout}/make.py:/make.py:ro", "--entrypoint=python3")
    status, told = engine.once("tensorquay-import:0.1.0", "/make.py", options=[*volumes, "--read-only"])
    assert status == 0, told
    assert "kept    /data/models/my_model/1" in shell(run, engine, checkout)
    with Container(engine, image, incoming / "models", options=LOCKED_DOWN) as container:
        container.wait_until()
        metadata = json.loads(ask.get(container, "/v2/models/my_model").body)
        assert [each["name"] for each in metadata["outputs"]] == ["label", "probabilities"]
