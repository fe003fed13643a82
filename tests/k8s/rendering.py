"""Manifests as a cluster would get them: rendered by kustomize, read without mercy.

What is rendered: each overlay, alone and with the components that docs/kubernetes.md offers for it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"

Manifest = dict[str, Any]

VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cpu": ("overlays/cpu", ()),
    "gpu": ("overlays/gpu", ()),
    "cpu, hpa, operator": ("overlays/cpu", ("hpa", "prometheus-operator")),
    "cpu, keda, store": ("overlays/cpu", ("keda", "object-store")),
    "gpu, hpa, store, operator": ("overlays/gpu", ("hpa", "object-store", "prometheus-operator")),
    "gpu, keda, operator": ("overlays/gpu", ("keda", "prometheus-operator")),
    "kserve": ("kserve", ()),
}
"""Name → overlay and components. Every overlay and every component is in one of them."""

SERVED = [name for name, (overlay, _) in VARIANTS.items() if overlay.startswith("overlays/")]
"""Those that have our Deployment."""

PLAIN = ("extras/models-shell.yaml", "kserve/inferenceservice.yaml")
"""What is applied as it stands."""


class _OnceOnly(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: YAML's readers disagree on which one counts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"line {node.start_mark.line + 1}: {twice} more than once"
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[Manifest]:
    """The YAML documents in `text` that are not empty."""
    return [each for each in yaml.load_all(text, _OnceOnly) if each]


def kustomize() -> list[str]:
    """The command that renders a folder; skips the test, loudly, where there is none."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    pytest.skip("neither kustomize nor kubectl is installed: the manifests in k8s/ were NOT rendered")


@functools.cache
def _rendered(command: tuple[str, ...], overlay: str, components: tuple[str, ...]) -> str:
    with tempfile.TemporaryDirectory(prefix="rendered-") as folder:
        here = K8S / overlay
        if components:
            # As a user's own overlay would be; kustomize wants relative paths.
            here = Path(folder)
            wanted = {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "namespace": "tensorquay",
                "resources": [os.path.relpath(K8S / overlay, here.resolve())],
                "components": [os.path.relpath(K8S / "components" / each, here.resolve()) for each in components],
            }
            (here / "kustomization.yaml").write_text(yaml.safe_dump(wanted))
        done = subprocess.run([*command, str(here)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stderr, f"kustomize complains: {done.stderr[-2000:]}"
    return done.stdout


def rendered(variant: str) -> list[Manifest]:
    """The manifests of one of `VARIANTS`, freshly read: tests may change them."""
    overlay, components = VARIANTS[variant]
    return documents(_rendered(tuple(kustomize()), overlay, components))


def plain(name: str) -> list[Manifest]:
    """The manifests in a file of `PLAIN`."""
    return documents((K8S / name).read_text())


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [each for each in manifests if each["kind"] == kind]


def only(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one of that kind (and name)."""
    (found,) = (each for each in of_kind(manifests, kind) if name is None or each["metadata"]["name"] == name)
    return found


def component_file(name: str) -> Manifest:
    """A YAML file of one document under k8s/components."""
    (found,) = documents((K8S / "components" / name).read_text())
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Name and pod specification of everything that runs containers; of a KServe runtime, as much as it has of one."""
    for each in manifests:
        if each["kind"] == "Deployment":
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]
        elif each["kind"] in {"Pod", "ClusterServingRuntime"}:
            yield each["metadata"]["name"], each["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    """Init containers too."""
    return [*spec.get("initContainers", ()), *spec["containers"]]


def server_container(manifests: list[Manifest]) -> Manifest:
    """The container of the Deployment that serves."""
    (found,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def bytes_of(quantity: str) -> int:
    """A Kubernetes quantity of memory, in the binary units that the manifests use."""
    for unit, factor in {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}.items():
        if quantity.endswith(unit):
            return int(quantity.removesuffix(unit)) * factor
    return int(quantity)
