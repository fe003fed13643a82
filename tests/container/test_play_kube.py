"""The Deployment of k8s/overlays/cpu run for real: as Kubernetes would, by `podman play kube` (make test-container).

The manifests are the rendered ones but for the image's name (ours is in no registry), the number of replicas (podman
runs one), and what podman does otherwise than a kubelet: it publishes ports on the machine, and asks probes with curl,
which our image does not have. The probes' paths are tried by tests/k8s. The pod has no network but its own, so it is
asked from inside.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.container.engine import ROOT, Engine
from tests.k8s.rendering import Manifest, bytes_of, only, rendered, server_container
from tests.support.waiting import until

pytestmark = [pytest.mark.container, pytest.mark.timeout(1800)]

CONTAINER = "tensorquay-pod-0-tensorquay"
"""As podman names the container "tensorquay" of the Deployment "tensorquay"."""


_PREDICT = """
import numpy as np
from tensorquay_client import GrpcClient, HttpClient
for client in HttpClient("127.0.0.1:8000"), GrpcClient("127.0.0.1:8001"):
    with client:
        ones = np.ones((1, 16), np.int32)
        assert (client.infer("simple", {"INPUT0": ones, "INPUT1": ones})["OUTPUT0"] == 2).all()
print("predicted")
"""

_SCRAPE = """
from urllib.request import urlopen
print(urlopen("http://127.0.0.1:8002/metrics", timeout=10).read().decode())
"""


def played(image: str) -> str:
    """What is given to podman; the claim is a volume of its name, made and filled before."""
    manifests = rendered("cpu")
    only(manifests, "Deployment")["spec"]["replicas"] = 1
    container = server_container(manifests)
    container["image"] = image
    for untold in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
        del container[untold]
    return yaml.safe_dump_all([each for each in manifests if each["kind"] in {"ConfigMap", "Deployment"}])


class Pod:
    """The running pod."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, *command: str) -> tuple[int, str]:
        """A command in the server's container."""
        done = self._engine.podman("exec", CONTAINER, *command, check=False)
        return done.returncode, done.stdout + done.stderr

    def told(self) -> str:
        """What the server has printed."""
        logs = self._engine.podman("logs", CONTAINER)
        return str(logs.stdout + logs.stderr)

    def facts(self) -> Manifest:
        """The container as the engine knows it."""
        found: Manifest = json.loads(self._engine.podman("inspect", CONTAINER).stdout)[0]
        return found


@pytest.fixture
def pod(engine: Engine, image: str, tmp_path: Path) -> Iterator[Pod]:
    """The Deployment, ready, with the shipped models on its claim."""
    if shutil.which("catatonit") is None:
        pytest.skip("THE DEPLOYMENT WAS NOT RUN: a pod of podman's needs catatonit (Debian: apt-get install catatonit)")
    with engine.alone():
        yield from running(engine, image, tmp_path / "deployment.yaml")


def running(engine: Engine, image: str, file: Path) -> Iterator[Pod]:
    """The fixture `pod`; `file` is where podman is given the manifests. Pod and volumes have the manifests' names."""
    manifests = rendered("cpu")
    claim = only(manifests, "PersistentVolumeClaim")["metadata"]["name"]
    # Podman makes a volume of a ConfigMap, too. An interrupted run may have left both behind.
    volumes = [claim, only(manifests, "ConfigMap")["metadata"]["name"]]
    engine.podman("volume", "rm", "--force", *volumes, check=False)
    engine.podman("volume", "create", claim)
    (volume,) = json.loads(engine.podman("volume", "inspect", claim).stdout)
    shutil.copytree(ROOT / "model_repo", volume["Mountpoint"], dirs_exist_ok=True)
    file.write_text(played(f"localhost/{image}"))
    try:
        engine.podman("play", "kube", "--network=none", "--replace", str(file))
        pod = Pod(engine)

        refusals: list[str] = []

        def ready() -> bool:
            state = pod.facts()["State"]
            assert state["Status"] == "running", pod.told()
            status, told = pod.run("tensorquay", "health")
            refusals.append(told)
            return status == 0

        try:
            until(ready, "the pod is ready", 120)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{refusals[-1:]}\n{pod.told()}") from late
        yield pod
    finally:
        engine.podman("play", "kube", "--down", str(file), check=False)
        engine.podman("volume", "rm", "--force", *volumes, check=False)


def test_the_deployment_runs_predicts_and_drains(engine: Engine, pod: Pod) -> None:
    """One pod for all of it: starting one takes seconds."""
    assert pod.run("python3", "-c", _PREDICT) == (0, "predicted\n")

    # The ConfigMap's settings, found by variable and mount.
    status, told = pod.run("tensorquay", "serve", "/models", "--print-config")
    assert status == 0, told
    assert "server.toml" in told
    assert '"message"' in pod.told(), "the log is not JSON"

    status, told = pod.run("python3", "-c", _SCRAPE)
    assert status == 0, told
    assert 'nv_inference_request_success{model="simple",version="1"} 2' in told

    # Confinement.
    status, told = pod.run("cat", "/proc/1/status")
    facts = dict(line.split(":\t", 1) for line in told.splitlines())
    assert set(facts["Uid"].split()) == {"65532"}
    assert {int(facts[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}
    assert facts["NoNewPrivs"] == "1"
    for folder in ("/", "/models", "/etc/tensorquay", "/opt/tensorquay"):
        status, told = pod.run("touch", f"{folder}/written")
        assert status == 1, f"{folder}: exit status {status}: {told}"
        assert "Read-only file system" in told
    host = pod.facts()["HostConfig"]
    limits = server_container(rendered("cpu"))["resources"]["limits"]
    assert host["Memory"] == bytes_of(limits["memory"])
    assert re.search(rf"^threads +{limits['cpu']} threads: .*quota", pod.told(), re.MULTILINE), pod.told()
    assert host["ReadonlyRootfs"] is True

    # The end.
    engine.podman("stop", "--time=60", CONTAINER, timeout_s=120)
    state = pod.facts()["State"]
    assert state["ExitCode"] == 0, pod.told()
    assert state["OOMKilled"] is False
