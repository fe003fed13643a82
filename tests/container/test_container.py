"""The image of docker/Dockerfile at work: predictions, limits, signals (make test-container)."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.container.engine import LOCKED_DOWN, ROOT, Container, Engine
from tests.support import ask, graphs
from tests.support.repo import Repo
from tests.support.waiting import until

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

BRIEF = 300_000.0
"""Turns of `graphs.working`: about a third of a second."""


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """A repository that any user may read, as one that is mounted must be."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder.name.startswith("pytest"):
            folder.chmod(0o755)
    return Repo(tmp_path / "repo")


@pytest.mark.parametrize("triton", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_it_predicts(shipped: Container, triton: object) -> None:
    address = shipped.http if triton is tritonclient.http else shipped.grpc
    with triton.InferenceServerClient(address) as client:  # type: ignore[attr-defined]
        ones = np.ones((1, 16), np.int32)
        inputs = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]  # type: ignore[attr-defined]
        for tensor in inputs:
            tensor.set_data_from_numpy(ones)
        assert client.is_server_ready()
        assert (client.infer("simple", inputs).as_numpy("OUTPUT0") == 2).all()


def test_it_has_no_rights_and_may_write_nothing(shipped: Container) -> None:
    status, told = shipped.run("cat", "/proc/1/status")
    assert status == 0, told
    facts = dict(line.split(":\t", 1) for line in told.splitlines())
    assert set(facts["Uid"].split()) == {"65532"}
    assert {int(facts[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert facts["NoNewPrivs"] == "1"
    for folder in ("/", "/tmp", "/models", "/opt/tensorquay"):
        status, told = shipped.run("touch", f"{folder}/written")
        assert status == 1
        assert "Read-only file system" in told


def test_its_health_is_asked_by_its_own_command(engine: Engine, shipped: Container) -> None:
    assert shipped.run("tensorquay", "health") == (0, "ready\n")
    assert shipped.run("tensorquay", "health", "--grpc", shipped.grpc) == (0, "ready\n")
    assert engine.podman("healthcheck", "run", shipped.id).returncode == 0


@pytest.mark.parametrize(("cpus", "threads"), [("0.5", 1), ("1", 1), ("1.5", 2)])
def test_threads_follow_the_limit_of_the_container(engine: Engine, image: str, cpus: str, threads: int) -> None:
    options = (*LOCKED_DOWN, f"--cpus={cpus}", "--memory=512m")
    with Container(engine, image, ROOT / "model_repo", options=options) as container:
        container.wait_until()
        told = until(
            lambda: re.search(r"^threads +(\d+) threads?: (.*)$", container.told(), re.MULTILINE), "the banner"
        )
        assert int(told[1]) == threads
        assert "quota" in told[2]
        assert f"digits version 2: CPUExecutionProvider, {threads} thread" in container.told()


def test_stop_answers_what_is_in_flight(engine: Engine, image: str, repo: Repo) -> None:
    """A request that runs, one that waits an hour for company, and one over gRPC."""
    waits = "max_batch_size = 32\n[batching]\nmax_queue_delay_us = 3_600_000_000\n"
    repo.model("work", {1: graphs.working()}, '[execution]\ninline = "never"\n')
    repo.model("waits", {1: graphs.working()}, waits)
    with Container(engine, image, repo.root) as container, ThreadPoolExecutor() as pool:
        container.wait_until()
        waiting = pool.submit(ask.infer, container, "waits", ask.sequence([[0, 7]]))
        with grpc.insecure_channel(container.grpc) as channel:
            call = ask.unary(channel, "ModelInfer").future(ask.infer_message(ask.sequence([[0, 9]]), "waits"))
            until(lambda: ask.pending(container, "waits") == 2, "both wait")
            running = pool.submit(ask.infer, container, "work", ask.sequence([[BRIEF, 1]]))
            until(lambda: ask.metric(container, "tensorquay_inflight_requests") == 3, "one runs")

            assert container.stop() == 0, container.told()

            assert ask.values(running.result()) == [2 * BRIEF, 2]
            assert ask.values(waiting.result()) == [0, 14]
            assert ask.raw_values(call.result()) == [0, 18]
        assert "stopping on SIGTERM" in container.told()


def test_a_container_that_has_only_begun_is_stopped_at_once(engine: Engine, image: str) -> None:
    """What its first process has not asked for, the kernel keeps from it; then only the grace period's end ends it."""
    with Container(engine, image, ROOT / "model_repo") as container:
        status = Path(f"/proc/{container.state()['Pid']}/status")

        def listens() -> bool:
            caught = re.search(r"^SigCgt:\s*(\w+)", status.read_text(), re.MULTILINE)
            return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

        until(listens, "it asks for SIGTERM")
        # 137 would be the end of the grace period; 0 is a server that was quicker than this test.
        assert container.stop() in {128 + signal.SIGTERM, 0}, container.told()


def test_front_end_processes_work_with_nothing_to_write_to(engine: Engine, image: str) -> None:
    with Container(engine, image, ROOT / "model_repo", "serve", "--frontends=2") as container:
        container.wait_until()
        answer = ask.post(
            container, "/v2/models/digits/infer", ask.infer_body(np.zeros((1, 1, 8, 8), np.float32), "image")
        )
        assert answer.status == 200
        assert container.stop() == 0, container.told()


def test_models_may_be_mounted_where_kserve_puts_them(engine: Engine, image: str) -> None:
    arguments = ("serve", "--model-store=/mnt/models", "--strict-readiness=true")
    with Container(engine, image, ROOT / "model_repo", *arguments, at="/mnt/models") as container:
        container.wait_until("/v2/models/digits/ready")
    with Container(
        engine,
        image,
        ROOT / "model_repo",
        options=[*LOCKED_DOWN, "--env=TENSORQUAY_MODEL_REPOSITORY=/mnt/models"],
        at="/mnt/models",
    ) as container:
        container.wait_until("/v2/models/digits/ready")


def test_what_is_good_is_served_and_readiness_tells_the_truth(engine: Engine, image: str, repo: Repo) -> None:
    repo.model("good", {1: graphs.working()})
    closed = repo.model("closed", {1: graphs.working()}) / "1" / "model.onnx"
    closed.chmod(0o600)
    with Container(engine, image, repo.root, "serve", "--exit-on-error=false") as container:
        container.wait_until("/v2/models/good/ready")
        assert ask.values(ask.infer(container, "good", ask.sequence([[0, 3]]))) == [0, 6]
        assert container.answers("/v2/health/live") == 200
        assert container.answers("/v2/health/ready") != 200
        status, told = container.run("tensorquay", "health")
        assert (status, told.count("\n")) == (1, 1), told
        assert "is not ready" in told
        assert container.run("tensorquay", "health", "--live") == (0, "live\n")
        index = json.loads(ask.post(container, "/v2/repository/index").body)
        assert "Permission denied" in {entry["name"]: entry.get("reason", "") for entry in index}["closed"]
        assert container.stop() == 0
