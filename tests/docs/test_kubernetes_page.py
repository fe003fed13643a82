"""The overlay that docs/kubernetes.md shows is rendered, and its table has every folder of manifests.

Its commands are tested with every other page's (test_pages.py, test_accounting.py).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml
from tests.docs.markdown import block_with, prose
from tests.k8s.rendering import K8S, documents, kustomize, only, server_container

PAGE = "docs/kubernetes.md"


def test_the_overlay_it_shows_can_be_rendered(tmp_path: Path) -> None:
    shown = block_with(PAGE, "../k8s/overlays/cpu").text
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
    told = re.findall(r"`((?:base|overlays|components|kserve|extras)[/\w.-]*)`", prose(PAGE))
    for each in told:
        assert (K8S / each).exists(), each
    for file in K8S.rglob("kustomization.yaml"):
        name = file.parent.relative_to(K8S).as_posix()
        assert name in {each.rstrip("/") for each in told}, name
