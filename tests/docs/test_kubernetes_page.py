"""What docs/kubernetes.md shows is run where it can be; what needs a cluster names files that are there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.k8s.rendering import K8S, ROOT, documents, kustomize, only, server_container

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
MARK = "# needs a cluster\n"

SHELL = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
RUN = [line for block in SHELL if not block.startswith(MARK) for line in block.splitlines()]
TOLD = [line for block in SHELL if block.startswith(MARK) for line in block.removeprefix(MARK).splitlines()]


@pytest.mark.parametrize("command", RUN)
def test_a_command_does_what_it_says(command: str) -> None:
    words = shlex.split(command)
    if words[:2] == ["kubectl", "kustomize"]:
        words[:2] = kustomize()
    elif words[0] == "tensorquay":
        words[:1] = [sys.executable, "-m", "tensorquay"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_commands_for_a_cluster_name_what_is_there() -> None:
    assert RUN
    assert TOLD
    for line in TOLD:
        words = shlex.split(line)
        assert words[0] == "kubectl", line
        for word in words:
            if word.startswith(("k8s/", "model_repo/")):
                assert (ROOT / word).exists(), word
        if "-k" in words:
            assert (ROOT / words[words.index("-k") + 1] / "kustomization.yaml").exists()


def test_the_overlay_it_shows_can_be_rendered(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    # Beside k8s, as the page says.
    (tmp_path / "k8s").symlink_to(K8S)
    folder = tmp_path / "deploy"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(shown)
    done = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    manifests = documents(done.stdout)
    container = server_container(manifests)
    wanted = yaml.safe_load(shown)["images"][0]
    assert container["image"] == f"{wanted['newName']}:{wanted['newTag']}"
    assert container["resources"]["limits"]["cpu"] == "4"
    assert only(manifests, "HorizontalPodAutoscaler")
    assert "replicas" not in only(manifests, "Deployment")["spec"]


def test_every_folder_of_manifests_is_in_its_table() -> None:
    told = re.findall(r"`((?:base|overlays|components|kserve|extras)[/\w.-]*)`", PAGE)
    for each in told:
        assert (K8S / each).exists(), each
    for file in K8S.rglob("kustomization.yaml"):
        name = file.parent.relative_to(K8S).as_posix()
        assert name in {each.rstrip("/") for each in told}, name


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
