"""Models of other kinds dropped into a running server without frameworks: told, never fatal, nothing else touched."""

from __future__ import annotations

import pickle
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.support.serving import RunningServer

REPOSITORY = Path(__file__).parents[2] / "model_repo"
DEADLINE_S = 60.0

Serve = Callable[..., RunningServer]


def entry(server: RunningServer, name: str, version: str) -> dict[str, Any]:
    lines = httpx.post(f"{server.url}/v2/repository/index", json={}, timeout=30).json()
    return next((line for line in lines if line["name"] == name and line.get("version") == version), {})


def wait(server: RunningServer, name: str, version: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The line of that version once `wanted` holds; the wait only bounds a failure."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        line = entry(server, name, version)
        if line and wanted(line):
            return line
    raise AssertionError(f"{name}/{version} is {entry(server, name, version)}; the server said:\n{server.told()}")


def ended(line: dict[str, Any]) -> bool:
    return line.get("state") not in {"LOADING", None}


def put(repository: Path, name: str, version: int, file: str, write: Callable[[Path], object]) -> None:
    """Drop a version by a rename, as docs/repository.md advises."""
    stage = repository / name / f".new-{version}"
    stage.mkdir(parents=True)
    write(stage / file)
    stage.rename(repository / name / str(version))


def fake_export(path: Path) -> None:
    """Looks like a PyTorch export as far as anybody can tell without PyTorch."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/archive_version", "0")
        archive.writestr("model/models/model.json", "{}")
        archive.writestr("model/version", "0\n")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    target = tmp_path / "models"
    target.mkdir()
    shutil.copytree(REPOSITORY / "simple", target / "simple")
    return target


@pytest.fixture
def polling(tmp_path: Path, repository: Path, serve: Serve) -> RunningServer:
    return serve(
        [repository],
        "--model-control-mode=poll",
        "--repository-poll-secs=0.2",
        "--settle-secs=0",
        f"--import-cache={tmp_path / 'cache'}",
    )


def test_a_drop_whose_framework_is_missing_names_the_command_that_helps_and_the_old_version_serves(
    polling: RunningServer, repository: Path, tmp_path: Path
) -> None:
    put(repository, "simple", 9, "model.pt2", fake_export)
    line = wait(polling, "simple", "9", ended)
    assert line["state"] == "UNAVAILABLE"
    assert "torch" in line["reason"].lower()
    assert "pip install" in line["reason"]
    assert str(tmp_path) not in line["reason"]
    assert entry(polling, "simple", "1")["state"] == "READY"
    assert httpx.get(f"{polling.url}/v2/health/ready").status_code == 200
    assert not list((tmp_path / "cache").glob(".stage-*"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.pt2", b"PK\x03\x04 and then nothing"),
        ("model.keras", b""),
        ("model.tflite", bytes(range(100))),
        ("saved_model.pb", b"\xff" * 50),
        ("xgboost.json", b'{"learner": '),
    ],
)
def test_a_corrupt_drop_costs_that_version_only(
    polling: RunningServer, repository: Path, file: str, content: bytes
) -> None:
    put(repository, "simple", 9, file, lambda path: path.write_bytes(content))
    line = wait(polling, "simple", "9", ended)
    assert line["state"] == "UNAVAILABLE"
    assert line["reason"]
    assert "Traceback" not in line["reason"]
    assert entry(polling, "simple", "1")["state"] == "READY"


class Touch:
    """Creates a file when its pickle is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_never_read(polling: RunningServer, repository: Path, tmp_path: Path, protocol: int) -> None:
    proof = tmp_path / "ran"
    content = pickle.dumps(Touch(proof), protocol)
    for version, file in enumerate(("model.pkl", "model.pt", "model.skops"), 8):
        put(repository, "simple", version, file, lambda path: path.write_bytes(content))
        line = wait(polling, "simple", str(version), ended)
        assert line["state"] == "UNAVAILABLE"
        assert protocol == 0 or "pickle" in line["reason"], "the oldest protocol cannot be told from text"
    assert not proof.exists()


def test_switched_off_it_says_how_to_switch_it_on(repository: Path, serve: Serve) -> None:
    put(repository, "simple", 9, "model.pt2", fake_export)
    server = serve([repository], "--auto-import=false", "--exit-on-error=false")
    assert "--auto-import=true" in entry(server, "simple", "9")["reason"]
    assert entry(server, "simple", "1")["state"] == "READY", "an older version stands in"


def test_a_server_that_ends_leaves_no_import_behind(repository: Path, tmp_path: Path, serve: Serve) -> None:
    slow = tmp_path / "slow-python"
    slow.write_text("#!/bin/sh\nexec sleep 600\n")
    slow.chmod(0o755)
    put(repository, "slow", 1, "model.pt2", fake_export)
    server = serve(
        [repository],
        *("--model-control-mode=explicit", "--load-model=simple", "--exit-timeout-secs=20"),
        *(f"--import-python={slow}", f"--import-cache={tmp_path / 'cache'}"),
    )
    with httpx.Client(timeout=DEADLINE_S) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post(f"{server.url}/v2/repository/models/slow/load", timeout=2.0)
        line = wait(server, "slow", "1", lambda found: found.get("state") == "LOADING")
    assert "importing" in line["reason"]
    begun = psutil.Process(server.pid).children(recursive=True)
    assert begun
    assert server.stop(signal.SIGTERM) == 0, server.told()
    gone, alive = psutil.wait_procs(begun, timeout=DEADLINE_S)
    assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
    assert gone or alive


def test_the_check_says_that_it_will_be_imported(repository: Path) -> None:
    from click.testing import CliRunner

    from tensorquay.commands.check import check

    put(repository, "simple", 9, "model.pt2", fake_export)
    told = CliRunner().invoke(check, [str(repository)])
    assert told.exit_code == 0, told.output
    assert "version 9 is a PyTorch export (model.pt2): imported when it is served" in told.output
