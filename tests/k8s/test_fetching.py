"""What the init container of components/object-store is told, done by rclone itself from a local folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.k8s.rendering import ROOT, Manifest, containers, of_kind, only, rendered


@pytest.fixture
def fetching() -> tuple[list[str], dict[str, str]]:
    """Arguments and variables as the container gets them, but for the kind of store."""
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed (Debian: apt-get install rclone): fetching models was NOT tried")
    manifests = rendered("cpu, keda, store")
    container = containers(only(manifests, "Deployment")["spec"]["template"]["spec"])[0]
    (source,) = (each["configMapRef"]["name"] for each in container["envFrom"] if "configMapRef" in each)
    variables: Manifest = only(of_kind(manifests, "ConfigMap"), "ConfigMap", source)["data"]
    assert variables["RCLONE_CONFIG_MODELS_TYPE"] == "s3"
    return container["args"], {**variables, "RCLONE_CONFIG_MODELS_TYPE": "local"}


def fetch(fetching: tuple[list[str], dict[str, str]], source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    arguments, variables = fetching
    variables = {**variables, "MODELS_PATH": str(source), "HOME": str(target.parent), "RCLONE_RETRIES": "1"}
    # $(NAME) is filled by the kubelet.
    words = [re.sub(r"\$\((\w+)\)", lambda found: variables[found[1]], word) for word in arguments]
    assert words[2] == "/models"
    words[2] = str(target)
    return subprocess.run(
        ["rclone", *words],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_repository_is_copied_whole(fetching: tuple[list[str], dict[str, str]], tmp_path: Path) -> None:
    source = ROOT / "model_repo" / "digits"
    done = fetch(fetching, source, tmp_path / "models")
    assert done.returncode == 0, done.stderr
    copied = {each.relative_to(tmp_path / "models"): each.read_bytes() for each in (tmp_path / "models").rglob("*.*")}
    assert copied == {each.relative_to(source): each.read_bytes() for each in source.rglob("*.*")}
    # The container was started again in the same pod: nothing to do.
    assert fetch(fetching, source, tmp_path / "models").returncode == 0


def test_a_folder_that_is_not_there_keeps_the_server_from_starting(
    fetching: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    done = fetch(fetching, tmp_path / "nowhere", tmp_path / "models")
    assert done.returncode != 0
    assert "directory not found" in done.stderr
