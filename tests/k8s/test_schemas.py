"""Every manifest is what Kubernetes' API servers, and those of the operators, accept; a misspelt field is refused."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator

import jsonschema
import kubernetes_validate
import pytest
from tests.k8s import crd_schemas
from tests.k8s.rendering import K8S, PLAIN, VARIANTS, Manifest, documents, only, plain, rendered

OLDEST, NEWEST = "1.30", "1.37"
"""docs/kubernetes.md: the pause before a stop needs 1.30; the newest is the newest that the schemas know."""


@functools.cache
def _accepted(text: str, version: str) -> None:
    kubernetes_validate.validate(json.loads(text), version, strict=True)


def accept(manifest: Manifest, version: str) -> None:
    """Fails where an API server of that version would, also for a field that it does not know."""
    _accepted(json.dumps(manifest, sort_keys=True), version)


def everything() -> Iterator[Manifest]:
    """Each distinct manifest once."""
    seen = set()
    for manifests in [*map(rendered, VARIANTS), *map(plain, PLAIN)]:
        for manifest in manifests:
            text = json.dumps(manifest, sort_keys=True)
            if text not in seen:
                seen.add(text)
                yield manifest


def as_pod(container: Manifest, volumes: list[Manifest]) -> Manifest:
    """A pod around what a custom resource says about containers."""
    spec = {"containers": [container], "volumes": [*volumes, {"name": "models", "emptyDir": {}}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wrapped"}, "spec": spec}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_accepts_every_manifest(version: str) -> None:
    checked = set()
    for manifest in everything():
        if manifest["kind"] not in crd_schemas.OURS:
            accept(manifest, version)
            checked.add(manifest["kind"])
    assert checked == {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Namespace",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
    }


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_what_custom_resources_take_from_pods_and_autoscalers_is_accepted_too(version: str) -> None:
    runtime = only(rendered("kserve"), "ClusterServingRuntime")["spec"]
    for container in runtime["containers"]:
        accept(as_pod(container, runtime["volumes"]), version)
    scaled = only(rendered("cpu, keda, store"), "ScaledObject")["spec"]
    scaler = only(rendered("cpu, hpa, operator"), "HorizontalPodAutoscaler")
    scaler["spec"]["behavior"] = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    accept(scaler, version)


def test_custom_resources_have_the_fields_that_their_operators_know() -> None:
    checked = set()
    for manifest in everything():
        if manifest["kind"] in crd_schemas.OURS:
            crd_schemas.check(crd_schemas.OURS[manifest["kind"]], manifest)
            checked.add(manifest["kind"])
    assert checked == set(crd_schemas.OURS)


def test_custom_resources_fit_the_crds_themselves() -> None:
    crds = crd_schemas.given_crds()
    if not crds:
        pytest.skip(
            f"{crd_schemas.CRD_SCHEMAS} names no folder of CRDs: custom resources were NOT checked against them"
        )
    checked = 0
    for manifest in everything():
        schema = crds.get((manifest["apiVersion"], manifest["kind"]))
        if schema is not None:
            crd_schemas.check(schema, manifest)
            checked += 1
    assert checked, f"none of these CRDs is of a kind that k8s/ has: {sorted(crds)}"


def _faulty(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Each manifest with one field more that nobody knows, at every place where a mapping of fields stands."""
    for manifest in manifests:
        for path in _places(manifest, ()):
            broken = copy.deepcopy(manifest)
            place = broken
            for step in path:
                place = place[step]
            place["mispelt"] = "x"
            yield f"{manifest['kind']}/{'/'.join(map(str, path))}", broken


OPEN = {"labels", "matchLabels", "annotations", "data", "requests", "limits", "selector", "nodeSelector"}
"""Mappings whose keys are the user's own."""


def _places(node: object, path: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
    if isinstance(node, dict):
        if not path or path[-1] not in OPEN:
            yield path
        for key, value in node.items():
            yield from _places(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _places(value, (*path, number))


def test_a_misspelt_field_anywhere_is_refused() -> None:
    """The checks above are worth something: none of these faults gets through."""
    cpu = rendered("cpu")
    for where, broken in _faulty([only(cpu, "Service", "tensorquay"), only(cpu, "PodDisruptionBudget")]):
        assert _refused(broken, lambda each: kubernetes_validate.validate(each, NEWEST, strict=True)), where
    custom = [each for each in everything() if each["kind"] in {"ServiceMonitor", "PrometheusRule", "InferenceService"}]
    assert len(custom) == 3
    for where, broken in _faulty(custom):
        assert _refused(broken, lambda each: crd_schemas.check(crd_schemas.OURS[each["kind"]], each)), where


def _refused(manifest: Manifest, check: Callable[[Manifest], object]) -> bool:
    try:
        check(manifest)
    except jsonschema.ValidationError:
        return True
    return False


def test_a_wrong_type_is_refused() -> None:
    deployment = only(rendered("cpu"), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSeconds"] = "10"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_every_file_is_part_of_something_that_is_checked() -> None:
    """A manifest that no kustomization names would be checked by nobody."""
    named = {K8S / each for each in PLAIN}
    for file in K8S.rglob("kustomization.yaml"):
        (content,) = documents(file.read_text())
        named.add(file)
        for patch in content.get("patches", ()):
            named |= {file.parent / patch["path"]} if "path" in patch else set()
        named |= {file.parent / each for each in content.get("resources", ())}
        for made in content.get("configMapGenerator", ()):
            named |= {file.parent / each for each in (*made.get("files", ()), *made.get("envs", ()))}
    # Configuration of another program, checked by test_rules.
    named.add(K8S / "components/hpa/prometheus-adapter-rules.yaml")
    assert {each for each in K8S.rglob("*") if each.is_file()} <= named

    used = {(K8S / overlay) for overlay, _ in VARIANTS.values()}
    used |= {K8S / "components" / each for _, components in VARIANTS.values() for each in components}
    assert used | {K8S / "base"} == {file.parent for file in K8S.rglob("kustomization.yaml")}
