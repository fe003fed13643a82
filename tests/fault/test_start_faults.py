"""A server that cannot start as it was told says why in one sentence and ends; what may be left out is left out."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support import ask, graphs
from tests.support.repo import Repo
from tests.support.serving import RunningServer
from tests.support.waiting import until

Serve = Callable[..., RunningServer]


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.model("scale", {1: graphs.scale(2.0)})
    return made


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def _fails(*arguments: object, env: dict[str, str] | None = None, code: int = 1) -> str:
    """Run the server; it must end by itself with `code`, having said one sentence on standard error."""
    ended = subprocess.run(
        [sys.executable, "-m", "tensorquay", "serve", *map(str, arguments), "--log-info=false"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == "", "nothing is announced that is not served"
    assert "Traceback" not in ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("tensorquay")]
    assert said, ended.stderr
    return "\n".join(said)


_FREE = ("--http-port=0", "--grpc-port=0", "--metrics-port=0", "--http-host=127.0.0.1", "--grpc-host=127.0.0.1")


@pytest.mark.parametrize("door", ["http", "grpc", "metrics"])
def test_a_taken_port(repo: Repo, taken: int, door: str) -> None:
    said = _fails(repo.root, *_FREE, f"--{door}-port={taken}")

    assert str(taken) in said
    assert f"--{door}-port" in said
    assert said.count("\n") == 0


def test_a_port_that_its_own_other_door_has(repo: Repo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = _fails(repo.root, *_FREE, f"--http-port={port}", f"--metrics-port={port}", code=2)
    assert str(port) in said


def test_an_address_that_is_not_ours(repo: Repo) -> None:
    said = _fails(repo.root, *_FREE, "--http-host=203.0.113.7")
    assert "203.0.113.7" in said
    assert "--http-host" in said


def test_no_repository(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert "nowhere" in _fails(missing, *_FREE) or "repository" in _fails(missing, *_FREE)


def test_a_repository_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "repository" in _fails(tmp_path / "file", *_FREE)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_repository_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    assert "repository" in _fails(tmp_path / "closed", *_FREE)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("http_prt = 1", "http_prt"),
        ("exit_timeout_secs = 'x'", "exit_timeout_secs"),
        ("= =", "line"),
        ("max_inflight_requests = 0", "max_inflight_requests"),
    ],
)
def test_a_bad_configuration_file(repo: Repo, tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "server.toml").write_text(text)
    said = _fails(repo.root, *_FREE, f"--config={tmp_path / 'server.toml'}", code=2)
    assert word in said
    assert "server.toml" in said


def test_a_configuration_file_that_is_not_there(repo: Repo, tmp_path: Path) -> None:
    assert "absent.toml" in _fails(repo.root, *_FREE, f"--config={tmp_path / 'absent.toml'}", code=2)


def test_a_bad_environment_variable(repo: Repo) -> None:
    said = _fails(repo.root, *_FREE, env={"TENSORQUAY_MAX_INFLIGHT_REQUESTS": "many"}, code=2)
    assert "TENSORQUAY_MAX_INFLIGHT_REQUESTS" in said


def test_a_log_file_that_cannot_be_opened(repo: Repo, tmp_path: Path) -> None:
    assert "log" in _fails(repo.root, *_FREE, f"--log-file={tmp_path / 'no' / 'such' / 'folder.log'}")


def test_a_broken_model_stops_the_start(repo: Repo) -> None:
    repo.model("broken", {1: b"no model"})

    said = _fails(repo.root, *_FREE)

    assert "broken" in said
    assert "--exit-on-error=false" in said
    assert "scale" not in said


def test_a_broken_model_need_not_stop_the_start(repo: Repo, serve: Serve) -> None:
    repo.model("broken", {1: b"no model"})

    server = serve([repo.root], "--exit-on-error=false")

    assert "not served" in server.told()
    assert ask.get(server, "/v2/health/live").status == 200
    assert ask.get(server, "/v2/health/ready").status == 400, "strictly, not everything wanted serves"
    assert ask.values(ask.infer(server, "scale", ask.sequence([[1, 2, 3, 4]]))) == [2, 4, 6, 8]
    refused = ask.infer(server, "broken", ask.sequence([[1, 2, 3, 4]]))
    assert refused.status == 404
    assert b"no ONNX model" in refused.body, "the client hears why"
    assert ask.index(server)["broken", "1"][0] == "UNAVAILABLE"
    assert server.stop() == 0


def test_without_strictness_what_serves_is_enough(repo: Repo, serve: Serve) -> None:
    repo.model("broken", {1: b"no model"})

    server = serve([repo.root], "--exit-on-error=false", "--strict-readiness=false")

    assert ask.get(server, "/v2/health/ready").status == 200
    assert ask.values(ask.infer(server, "scale", ask.sequence([[1, 2, 3, 4]]))) == [2, 4, 6, 8]
    assert server.stop() == 0


def test_an_empty_repository_serves_nothing_and_is_ready(tmp_path: Path, serve: Serve) -> None:
    repo = Repo(tmp_path / "repo")

    server = serve([repo.root], "--model-control-mode=poll", "--repository-poll-secs=0.02", "--settle-secs=0.05")

    assert ask.get(server, "/v2/health/ready").status == 200
    assert ask.index(server) == {}
    repo.model("late", {1: graphs.scale(2.0)})
    until(lambda: ask.get(server, "/v2/models/late/ready").status == 200, "a model that comes later is served")
    assert server.stop() == 0


def test_the_same_model_in_two_repositories(repo: Repo, tmp_path: Path) -> None:
    other = Repo(tmp_path / "other")
    other.model("scale", {1: graphs.scale(3.0)})

    said = _fails(repo.root, other.root, *_FREE)

    assert "scale" in said
    assert "1 and 2" in said


def test_a_model_to_load_that_is_not_there(repo: Repo) -> None:
    said = _fails(repo.root, *_FREE, "--model-control-mode=explicit", "--load-model=absent")
    assert "absent" in said


def test_every_kind_of_bad_model_is_told_at_once(repo: Repo) -> None:
    repo.model("corrupt", {1: b"no model"})
    repo.model("empty", {1: b""})
    repo.model("unconfigured", {1: graphs.scale()}, "max_batch_size = -3")
    repo.model("versionless", {})
    (repo.root / "versionless" / "readme").write_text("")

    said = _fails(repo.root, *_FREE)

    for name in ("corrupt", "empty", "unconfigured", "versionless"):
        assert name in said
