"""What no schema sees: names that are referred to exist, selectors find what they should, and numbers go together."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from tests.k8s.rendering import (
    K8S,
    PLAIN,
    ROOT,
    SERVED,
    VARIANTS,
    Manifest,
    bytes_of,
    component_file,
    containers,
    of_kind,
    only,
    plain,
    pods,
    rendered,
    server_container,
)

from tensorquay import __version__
from tensorquay.config.server import ServerConfig

MARGIN_S = 10
"""What a pod has beyond its pause and its drain, for unloading and the log."""


@pytest.fixture(params=SERVED)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """Each variant that has our Deployment."""
    return rendered(request.param)


def template(manifests: list[Manifest]) -> Manifest:
    found: Manifest = only(manifests, "Deployment")["spec"]["template"]
    return found


def settings(manifests: list[Manifest]) -> dict[str, Any]:
    """server.toml as the pod finds it, over the server's defaults."""
    (config,) = (each for each in of_kind(manifests, "ConfigMap") if "server.toml" in each["data"])
    return {name: field.default for name, field in ServerConfig.model_fields.items()} | tomllib.loads(
        config["data"]["server.toml"]
    )


# -- references


def test_what_a_pod_names_is_there(manifests: list[Manifest]) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    spec = template(manifests)["spec"]
    assert ("ServiceAccount", spec["serviceAccountName"]) in there
    for volume in spec["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in there
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
    for container in containers(spec):
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                assert ("ConfigMap", source["configMapRef"]["name"]) in there
            else:
                assert source["secretRef"]["optional"], "secrets are made by others, and may be missing"


def test_a_claim_that_nobody_mounts_is_not_made(manifests: list[Manifest]) -> None:
    claimed = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in template(manifests)["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claimed == {each["metadata"]["name"] for each in of_kind(manifests, "PersistentVolumeClaim")}


@pytest.mark.parametrize("variant", [*VARIANTS, *PLAIN])
def test_every_mount_is_of_a_volume_and_every_volume_is_mounted(variant: str) -> None:
    for _, spec in pods(rendered(variant) if variant in VARIANTS else plain(variant)):
        volumes = [each["name"] for each in spec["volumes"]]
        mounted = {each["name"] for container in containers(spec) for each in container["volumeMounts"]}
        assert len(set(volumes)) == len(volumes)
        assert mounted == set(volumes)


def test_settings_are_found_where_they_are_mounted(manifests: list[Manifest]) -> None:
    container = server_container(manifests)
    variables = {each["name"]: each["value"] for each in container["env"]}
    folder, _, name = variables["TENSORQUAY_CONFIG"].rpartition("/")
    assert name == "server.toml"
    assert folder in {each["mountPath"] for each in container["volumeMounts"] if each["name"] == "config"}
    assert container["args"][1] in {each["mountPath"] for each in container["volumeMounts"] if each["name"] == "models"}


def test_the_shell_for_models_mounts_the_claim_of_the_overlays() -> None:
    (shell,) = plain("extras/models-shell.yaml")
    cpu = rendered("cpu")
    assert shell["metadata"]["namespace"] == only(cpu, "Namespace")["metadata"]["name"]
    (volume,) = shell["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == only(cpu, "PersistentVolumeClaim")["metadata"]["name"]
    assert shell["spec"]["containers"][0]["image"] == server_container(cpu)["image"]


def test_everything_is_in_one_namespace(manifests: list[Manifest]) -> None:
    (namespace,) = of_kind(manifests, "Namespace")
    for each in manifests:
        if each is not namespace:
            assert each["metadata"]["namespace"] == namespace["metadata"]["name"], each["kind"]


# -- selectors


def test_selectors_find_the_pods_and_nothing_else_is_asked_of_them(manifests: list[Manifest]) -> None:
    labels = template(manifests)["metadata"]["labels"]
    spec = template(manifests)["spec"]
    selectors = [
        only(manifests, "Deployment")["spec"]["selector"]["matchLabels"],
        only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        only(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(each["spec"]["selector"] for each in of_kind(manifests, "Service")),
        *(each["labelSelector"]["matchLabels"] for each in spec["topologySpreadConstraints"]),
    ]
    for selector in selectors:
        assert selector
        assert selector.items() <= labels.items()


def test_one_service_is_scraped_and_only_once(manifests: list[Manifest]) -> None:
    for monitor in of_kind(manifests, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (endpoint,) = monitor["spec"]["endpoints"]
        scraped = [
            each["metadata"]["name"]
            for each in of_kind(manifests, "Service")
            if wanted.items() <= each["metadata"]["labels"].items()
            and endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}
        ]
        assert scraped == ["tensorquay"], "the alert TensorquayDown asks for this job"


def test_autoscalers_scale_the_deployment_and_own_its_size(manifests: list[Manifest]) -> None:
    deployment = only(manifests, "Deployment")
    scalers = of_kind(manifests, "HorizontalPodAutoscaler") + of_kind(manifests, "ScaledObject")
    assert len(scalers) <= 1
    assert ("replicas" in deployment["spec"]) == (not scalers)
    for scaler in scalers:
        spec = scaler["spec"]
        assert spec["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        least, most = (
            ("minReplicas", "maxReplicas") if "minReplicas" in spec else ("minReplicaCount", "maxReplicaCount")
        )
        assert 2 <= spec[least] <= spec[most]
        for metric in spec.get("metrics", ()):
            if metric["type"] == "ContainerResource":
                assert metric["containerResource"]["container"] == server_container(manifests)["name"]


def test_both_autoscalers_measure_and_want_the_same() -> None:
    scaler = only(rendered("cpu, hpa, operator"), "HorizontalPodAutoscaler")["spec"]
    scaled = only(rendered("cpu, keda, store"), "ScaledObject")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (scaled["minReplicaCount"], scaled["maxReplicaCount"])
    assert scaler["behavior"] == scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    wanted = {
        each["pods"]["metric"]["name"]: each["pods"]["target"]["averageValue"]
        for each in scaler["metrics"]
        if each["type"] == "Pods"
    }
    thresholds = [trigger["metadata"]["threshold"] for trigger in scaled["triggers"]]
    assert wanted == {"tensorquay_utilization": "700m", "tensorquay_waiting_requests": "16"}
    assert thresholds == ["0.7", "16"]
    offered = [rule["name"]["as"] for rule in component_file("hpa/prometheus-adapter-rules.yaml")["rules"]]
    assert offered == list(wanted)


def test_keda_asks_about_the_namespace_it_scales_in() -> None:
    for variant in SERVED:
        for scaled in of_kind(rendered(variant), "ScaledObject"):
            for trigger in scaled["spec"]["triggers"]:
                assert f'namespace="{scaled["metadata"]["namespace"]}"' in trigger["metadata"]["query"]


# -- ports


def test_ports_are_the_servers_and_the_same_everywhere(manifests: list[Manifest]) -> None:
    config = settings(manifests)
    wanted = {door: config[f"{door}_port"] for door in ("http", "grpc", "metrics")}
    container = server_container(manifests)
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == wanted
    for service in of_kind(manifests, "Service"):
        for port in service["spec"]["ports"]:
            assert port["port"] == wanted[port["name"]]
            assert port["targetPort"] == port["name"]
            assert port["appProtocol"] == ("kubernetes.io/h2c" if port["name"] == "grpc" else "http")
    let_in = [port["port"] for rule in only(manifests, "NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]]
    assert sorted(let_in) == sorted(wanted)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http"
    notes = template(manifests)["metadata"]["annotations"]
    assert notes["prometheus.io/port"] == str(wanted["metrics"])


def test_the_runtime_of_kserve_listens_where_it_is_asked() -> None:
    runtime = only(rendered("kserve"), "ClusterServingRuntime")["spec"]
    (container,) = runtime["containers"]
    (port,) = container["ports"]
    assert f"--http-port={port['containerPort']}" in container["args"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["containerPort"]
    assert runtime["annotations"]["prometheus.kserve.io/port"] == str(ServerConfig.model_fields["metrics_port"].default)


def test_the_example_asks_for_the_runtime_and_what_it_offers() -> None:
    runtime = only(rendered("kserve"), "ClusterServingRuntime")
    model = plain("kserve/inferenceservice.yaml")[0]["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["modelFormat"] in [
        {key: each[key] for key in ("name", "version")} for each in runtime["spec"]["supportedModelFormats"]
    ]


# -- stopping, starting


def test_a_pod_may_take_as_long_to_stop_as_the_server(manifests: list[Manifest]) -> None:
    spec = template(manifests)["spec"]
    pause_s = server_container(manifests)["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed_s = pause_s + settings(manifests)["exit_timeout_secs"] + MARGIN_S
    assert spec["terminationGracePeriodSeconds"] == needed_s


def test_the_pause_is_longer_than_readiness_takes_to_be_noticed(manifests: list[Manifest]) -> None:
    container = server_container(manifests)
    probe = container["readinessProbe"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] >= probe["periodSeconds"] * probe["failureThreshold"]


def test_kserve_stops_within_a_pods_default_grace() -> None:
    (container,) = only(rendered("kserve"), "ClusterServingRuntime")["spec"]["containers"]
    (timeout,) = (each for each in container["args"] if each.startswith("--exit-timeout-secs="))
    assert float(timeout.partition("=")[2]) + MARGIN_S <= 30


def test_only_readiness_waits_for_models(manifests: list[Manifest]) -> None:
    """Whatever a load takes, nothing restarts the pod for it."""
    for container in (
        server_container(manifests),
        only(rendered("kserve"), "ClusterServingRuntime")["spec"]["containers"][0],
    ):
        assert container["startupProbe"]["httpGet"]["path"] == "/v2/health/live"
        assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    config = settings(manifests)
    assert config["strict_readiness"] is True
    assert config["exit_on_error"] is False


def test_a_rollout_takes_nobody_away(manifests: list[Manifest]) -> None:
    spec = only(manifests, "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert spec["progressDeadlineSeconds"] >= 1800


# -- confinement


@pytest.mark.parametrize("variant", [*VARIANTS, *PLAIN])
def test_containers_may_do_nothing_they_need_not(variant: str) -> None:
    for name, spec in pods(rendered(variant) if variant in VARIANTS else plain(variant)):
        for container in containers(spec):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            both = spec.get("securityContext", {}) | security
            assert both["runAsNonRoot"] is True
            assert both["runAsUser"] > 0
            assert both["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@pytest.mark.parametrize("variant", [*VARIANTS, *PLAIN])
def test_containers_are_bounded(variant: str) -> None:
    for _, spec in pods(rendered(variant) if variant in VARIANTS else plain(variant)):
        for container in containers(spec):
            resources = container["resources"]
            assert resources["limits"]["cpu"]
            # Memory that is asked for and memory that may be had are the same: a node never has to choose whom to kill.
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
        for volume in spec["volumes"]:
            if "emptyDir" in volume:
                assert bytes_of(volume["emptyDir"]["sizeLimit"])


def test_nobody_gets_a_token(manifests: list[Manifest]) -> None:
    assert only(manifests, "ServiceAccount")["automountServiceAccountToken"] is False
    assert template(manifests)["spec"]["automountServiceAccountToken"] is False


def test_the_server_may_write_to_its_temporary_folder_only(manifests: list[Manifest]) -> None:
    mounts = server_container(manifests)["volumeMounts"]
    assert [each["mountPath"] for each in mounts if not each.get("readOnly")] == ["/tmp"]
    kinds = {each["name"]: each for each in template(manifests)["spec"]["volumes"]}
    assert "emptyDir" in kinds["tmp"]


def test_input_in_memory_is_bounded_well_below_the_limit(manifests: list[Manifest]) -> None:
    limit = bytes_of(server_container(manifests)["resources"]["limits"]["memory"])
    assert settings(manifests)["max_inflight_bytes"] <= limit / 4


def test_the_servers_processors_are_its_own(manifests: list[Manifest]) -> None:
    """Threads follow the limit; what is asked for must be what they run on."""
    resources = server_container(manifests)["resources"]
    assert resources["requests"]["cpu"] == resources["limits"]["cpu"]


def test_a_fetched_repository_fits_where_it_is_put() -> None:
    spec = template(rendered("cpu, keda, store"))["spec"]
    volumes = sum(bytes_of(each["emptyDir"]["sizeLimit"]) for each in spec["volumes"] if "emptyDir" in each)
    for container in containers(spec):
        assert bytes_of(container["resources"]["limits"]["ephemeral-storage"]) >= volumes


# -- images, secrets


@pytest.mark.parametrize("variant", [*VARIANTS, *PLAIN])
def test_images_are_pinned_and_ours_are_those_that_are_built(variant: str) -> None:
    built = re.findall(r"--tag (tensorquay:\S+)", (ROOT / "docs" / "container.md").read_text())
    wanted = f"tensorquay:{__version__}-gpu" if variant.startswith("gpu") else f"tensorquay:{__version__}"
    assert wanted in built
    for _, spec in pods(rendered(variant) if variant in VARIANTS else plain(variant)):
        for container in containers(spec):
            image = container["image"]
            assert re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+(-gpu)?", image), f"{image} has no version"
            if image.startswith("tensorquay"):
                assert image == wanted


def test_a_gpu_is_asked_for_where_one_is_used() -> None:
    for variant in SERVED:
        limits = server_container(rendered(variant))["resources"]["limits"]
        assert limits.get("nvidia.com/gpu") == ("1" if variant.startswith("gpu") else None)


def test_no_secret_lies_here() -> None:
    for variant in VARIANTS:
        assert not of_kind(rendered(variant), "Secret")
    for file in K8S.rglob("*"):
        if file.is_file():
            assert not re.search(
                r"(?i)(access_key_id|secret_access_key|password|private.key)\s*[:=]\s*\S", file.read_text()
            ), file
