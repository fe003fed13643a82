"""What the manifests expect of the server is what a real one does: settings, flags, probes, metrics, ports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.container.engine import free_ports
from tests.k8s.promql import exported, spoken
from tests.k8s.rendering import K8S, ROOT, Manifest, component_file, documents, only, rendered, server_container
from tests.support import ask, graphs
from tests.support.http_raw import exchange, request
from tests.support.repo import Repo
from tests.support.serving import RunningServer, launch, start
from tests.support.waiting import until

from tensorquay.config.server import ServerConfig
from tensorquay.config.server_sources import load
from tensorquay.telemetry.families import FAMILIES, Group

SERVER_TOML = K8S / "base" / "server.toml"

TARGET_LABELS = {"namespace", "pod", "job", "instance", "service", "container", "endpoint"}
"""What Prometheus adds to every sample of a pod."""


def rules() -> list[Manifest]:
    """Every alert."""
    (rule,) = documents((K8S / "components/prometheus-operator/prometheusrule.yaml").read_text())
    return [alert for group in rule["spec"]["groups"] for alert in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the PromQL."""
    for alert in rules():
        yield alert["alert"], alert["expr"]
    for trigger in component_file("keda/scaledobject.yaml")["spec"]["triggers"]:
        yield f"KEDA {trigger['name']}", trigger["metadata"]["query"]
    for rule in component_file("hpa/prometheus-adapter-rules.yaml")["rules"]:
        yield f"adapter {rule['name']['as']}", rule["seriesQuery"]


@pytest.fixture(scope="module")
def pod() -> Iterator[RunningServer]:
    """The server with the settings of a pod, on free ports; with all that has metrics switched on."""
    more = ("--frontends=1", "--auto-import=true", "--auto-optimize=true")
    running = start([ROOT / "model_repo"], f"--config={SERVER_TOML}", *more)
    yield running
    assert running.stop() == 0, running.told()


# -- settings and flags


def test_the_server_takes_the_settings_of_the_config_map() -> None:
    config = load(file=SERVER_TOML, environment={}, command_line={"model_repository": ["/models"]})
    assert config.exit_on_error is False
    assert config.notes == ()


@pytest.mark.parametrize("runs", ["Deployment", "ClusterServingRuntime"])
def test_the_server_takes_the_arguments_and_variables_of_its_container(runs: str, tmp_path: Path) -> None:
    """Every flag exists; nothing is accepted without effect; a health check in the container asks the right port."""
    if runs == "Deployment":
        container = server_container(rendered("cpu"))
        variables = {each["name"]: each["value"] for each in container["env"]}
        assert variables.keys() == {"TENSORQUAY_CONFIG"}
        variables["TENSORQUAY_CONFIG"] = str(SERVER_TOML)
    else:
        (container,) = only(rendered("kserve"), "ClusterServingRuntime")["spec"]["containers"]
        variables = {}
    words = [sys.executable, "-m", "tensorquay", *container["args"], "--print-config"]
    environment = {**os.environ, **variables, "COLUMNS": "200"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=60, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "no effect" not in done.stdout + done.stderr
    rows = (line.replace("│", " ").split() for line in done.stdout.splitlines())
    shown = {row[0]: row[1:] for row in rows if row}
    assert shown["exit_on_error"][0] == "false"
    assert shown["auto_import"][0] == "false"
    assert shown["model_repository"][0] == container["args"][1]
    for port in container["ports"]:
        door = "http" if port["name"] == "http1" else port["name"]
        assert shown[f"{door}_port"][0] == str(port["containerPort"])


def test_settings_that_say_the_default_say_so_for_a_reason() -> None:
    """server.toml may repeat a default where another manifest depends on it, and nowhere else."""
    config = load(file=SERVER_TOML, environment={}, command_line={})
    repeated = {
        name
        for name, field in ServerConfig.model_fields.items()
        if config.origin(name) != "default" and getattr(config, name) == field.default
    }
    assert repeated == {"exit_timeout_secs", "repository_poll_secs", "strict_readiness"}


# -- probes


def path_of(probe: str) -> str:
    path: str = server_container(rendered("cpu"))[probe]["httpGet"]["path"]
    return path


def test_a_pod_that_serves_passes_every_probe(pod: RunningServer) -> None:
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert ask.get(pod, path_of(probe)).status == 200


def test_a_load_without_end_restarts_nothing_and_gets_no_traffic(tmp_path: Path) -> None:
    """The kubelet asks while a model warms up for ever: it lives, it has started, it is not ready."""
    repo = Repo(tmp_path / "repo")
    folder = repo.model("slow", {1: graphs.working()}, _ENDLESS_WARMUP)
    (folder / "warmup").mkdir()
    (folder / "warmup" / "x").write_bytes(ask.sequence([[1e15, 1]]).tobytes())
    (port,) = free_ports(1)
    server = launch([repo.root], f"--config={SERVER_TOML}", f"--http-port={port}", "--exit-timeout-secs=0.5")
    server.http = f"127.0.0.1:{port}"
    try:
        until(lambda: any("load_started" in line for line in list(server.log)), "a load has begun")
        assert ask.get(server, path_of("startupProbe")).status == 200
        assert ask.get(server, path_of("livenessProbe")).status == 200
        assert ask.get(server, path_of("readinessProbe")).status >= 400
        assert server.stop(signal.SIGTERM) == 1
    finally:
        server.end()


def test_a_model_that_is_broken_from_the_start_keeps_the_pod_out_of_the_service_but_alive(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("good", {1: graphs.working()})
    bad = repo.root / "bad" / "1"
    bad.mkdir(parents=True)
    (bad / "model.onnx").write_text("no model")
    server = start([repo.root], f"--config={SERVER_TOML}")
    try:
        assert ask.get(server, path_of("livenessProbe")).status == 200
        assert ask.get(server, path_of("readinessProbe")).status >= 400
        assert ask.values(ask.infer(server, "good", ask.sequence([[0.0, 1]]))) == [0, 2]
    finally:
        server.end()


# -- metrics


@pytest.fixture(scope="module")
def page(pod: RunningServer) -> dict[str, frozenset[str]]:
    """What the server exports, and what it would in a container with limits; this test may be in none."""
    path = only(rendered("cpu"), "Deployment")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/path"]
    answer = exchange(pod.metrics, request(path, method="GET"))
    assert answer.status == 200
    limited = {each.name: frozenset(each.labels) for each in FAMILIES.values() if each.group is Group.CONTAINER}
    return limited | exported(answer.body.decode())


def test_every_metric_and_label_that_is_asked_for_is_exported(page: dict[str, frozenset[str]]) -> None:
    asked = set()
    for where, expression in expressions():
        said = spoken(expression)
        for metric, labels in said.metrics.items():
            assert metric in page, f"{where}: the server exports no {metric}"
            assert labels <= page[metric] | TARGET_LABELS, f"{where}: {metric} has no label {labels - page[metric]}"
            asked.add(metric)
        known = frozenset().union(*(page[metric] for metric in said.metrics)) | TARGET_LABELS
        assert said.grouped_by <= known, f"{where}: grouped by {said.grouped_by - known}"
    assert len(asked) >= 10


def test_states_and_reasons_that_rules_name_are_the_servers(pod: RunningServer) -> None:
    text = exchange(pod.metrics, request("/metrics", method="GET")).body.decode()
    for _, expression in expressions():
        for value in [word for word in expression.split('"')[1::2] if word.isupper()]:
            assert f'="{value}"' in text, value


def test_every_alert_says_what_to_do() -> None:
    for alert in rules():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        notes = alert["annotations"]
        assert notes.keys() == {"summary", "description", "runbook"}
        assert len(notes["runbook"].split()) >= 12, alert["alert"]
        for text in notes.values():
            assert text.rstrip().endswith("."), alert["alert"]


_ENDLESS_WARMUP = """
    [[warmup]]
    name = "long"
    count = 1
    [warmup.inputs.x]
    datatype = "FP32"
    dims = [2]
    data = "file"
    file = "x"
"""
