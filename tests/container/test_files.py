"""The files of docker/ as they stand: pinned, locked down, and true to the server. Builds and runs nothing."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.container.files import DOCKERFILES, ROOT, Dockerfile, Ignored, read

from tensorquay import cli
from tensorquay.config.server import ServerConfig

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SETTINGS = {f"TENSORQUAY_{name.upper()}" for name in ServerConfig.model_fields}
OURS = COMPOSE["services"]["tensorquay"]

every_dockerfile = pytest.mark.parametrize(
    "file", [read(path) for path in DOCKERFILES], ids=[path.name for path in DOCKERFILES]
)
every_server = pytest.mark.parametrize(
    "file", [read(ROOT / "docker" / name) for name in ("Dockerfile", "Dockerfile.gpu")]
)


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / name).read_text(), re.MULTILINE))


def is_pinned(image: str) -> bool:
    """It names a version: not whatever is newest today."""
    name, _, tag = image.rpartition(":")
    return bool(name) and re.match(r"v?\d", tag) is not None


def test_there_are_the_three_images() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.gpu", "Dockerfile.import"]


@every_dockerfile
def test_bases_are_pinned(file: Dockerfile) -> None:
    names = {stage.name for stage in file.stages}
    for stage in file.stages:
        assert stage.base in names or is_pinned(stage.base), stage.base


@every_dockerfile
def test_packages_are_pinned_and_nothing_is_compiled(file: Dockerfile) -> None:
    assert all("==" in line for line in _lines(ROOT / "docker" / "build-requirements.txt"))
    runs = [run for stage in file.stages for run in stage.all("RUN")]
    for install in re.findall(r"pip (?:--python \S+ )?install .*?(?=&&|;;|$)", "\n".join(runs), re.MULTILINE):
        assert any(word in install for word in ("--constraint", "build-requirements.txt", "--no-deps", "==")), install
        assert "--no-cache-dir" in install
    assert not re.search(r"\b(gcc|g\+\+|make|build-essential|python3-dev|curl|wget|git)\b", "\n".join(runs))


@every_dockerfile
def test_what_ships_is_the_build_stages_folder_and_no_more(file: Dockerfile) -> None:
    assert file.ships.all("COPY") == ["--from=build /opt/tensorquay /opt/tensorquay"]
    assert file.ships.all("RUN") == []
    assert any("packages.json" in run for stage in file.stages for run in stage.all("RUN"))


@every_dockerfile
def test_it_runs_as_a_numbered_user_and_hears_signals(file: Dockerfile) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", file.ships.last("USER"))
    assert file.ships.last("STOPSIGNAL") == "SIGTERM"
    # Exec form: with a shell between, the shell gets the signal.
    command, *_ = file.ships.command("ENTRYPOINT")
    assert command in PROJECT["scripts"]
    assert file.ships.command("CMD")[0] in {*cli._BUILT_IN, *PROJECT["entry-points"]["tensorquay.commands"]}


@every_server
def test_the_health_check_is_a_command_of_ours_that_is_there(file: Dockerfile) -> None:
    command, *arguments = file.ships.command("HEALTHCHECK")
    assert command in PROJECT["scripts"]
    assert arguments[0] in cli._BUILT_IN
    assert cli.main([*arguments, "--help"]) == 0


@every_server
def test_its_settings_and_ports_are_the_servers(file: Dockerfile) -> None:
    given = {name for name in file.ships.environment() if name.startswith("TENSORQUAY_")}
    assert given == {"TENSORQUAY_MODEL_REPOSITORY"} <= SETTINGS
    fresh = ServerConfig()
    assert file.ships.last("EXPOSE").split() == [str(fresh.http_port), str(fresh.grpc_port), str(fresh.metrics_port)]


@every_dockerfile
def test_it_is_labelled_with_this_version(file: Dockerfile) -> None:
    assert file.arguments["VERSION"] == PROJECT["version"]
    labels = dict(re.findall(r"org\.opencontainers\.image\.(\w+)=\"([^\"]*)\"", " ".join(file.ships.all("LABEL"))))
    assert set(labels) == {"title", "description", "version", "revision", "licenses"}
    assert labels["licenses"] == PROJECT["license"]


def test_versions_that_a_dockerfile_names_are_those_of_the_pins() -> None:
    assert (
        read(ROOT / "docker" / "Dockerfile.gpu").arguments["ONNXRUNTIME_VERSION"]
        == pins("constraints.txt")["onnxruntime"]
    )
    frameworks = read(ROOT / "docker" / "Dockerfile.import").arguments
    assert frameworks["TORCH_VERSION"] == pins("constraints-frameworks.txt")["torch"]
    assert set(frameworks["EXTRAS"].split()) == set(PROJECT["optional-dependencies"]) - {
        *("cpu", "gpu", "dev", "fuzz", "container", "browser")
    }


@every_dockerfile
def test_what_it_copies_gets_into_the_build(file: Dockerfile) -> None:
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    for copy in file.stages[-2].all("COPY"):
        *sources, _target = copy.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not ignored(source), source


def test_nothing_else_gets_into_the_build() -> None:
    ignored = Ignored((ROOT / ".dockerignore").read_text())
    for path in (
        ".git/config",
        ".venv/bin/python",
        ".container/pip.conf",
        "tests/conftest.py",
        "model_repo/simple/1/model.onnx",
    ):
        assert ignored(path), path
    for path in ("docs/client.md", "docker/compose.yaml", "server/tensorquay/__pycache__/cli.pyc", ".env", "tls.key"):
        assert ignored(path), path
    assert not ignored("server/tensorquay/protocol/inference.binpb")


def test_the_list_of_requirements_is_pyprojects(capsys: pytest.CaptureFixture[str]) -> None:
    module = _script(ROOT / "docker" / "requirements.py")
    listed = module.requirements(ROOT / "pyproject.toml", ["cpu", "sklearn"])
    extras = PROJECT["optional-dependencies"]
    assert listed == [*PROJECT["dependencies"], *extras["cpu"], *extras["sklearn"]]
    with pytest.raises(SystemExit, match="has no extra gpus; it has boosting"):
        module.requirements(ROOT / "pyproject.toml", ["gpus"])


def test_the_script_that_installs_tools_is_a_script() -> None:
    script = ROOT / "tests" / "container" / "install_tools.sh"
    subprocess.run(["sh", "-n", str(script)], check=True, timeout=60)
    assert script.stat().st_mode & 0o100


@pytest.mark.container
@pytest.mark.parametrize("path", DOCKERFILES, ids=[path.name for path in DOCKERFILES])
def test_hadolint_finds_nothing(path: Path) -> None:
    said = _tool("hadolint", str(path))
    assert said == ""


@pytest.mark.container
def test_prometheus_takes_its_configuration() -> None:
    assert "SUCCESS" in _tool("promtool", "check", "config", str(ROOT / "docker" / "prometheus" / "prometheus.yml"))


# -- compose


@pytest.mark.parametrize("name", list(COMPOSE["services"]))
def test_a_service_is_pinned_and_open_to_this_machine_only(name: str) -> None:
    service = COMPOSE["services"][name]
    image = service["image"]
    assert image == f"tensorquay:{PROJECT['version']}" if service is OURS else is_pinned(image)
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])
    for volume in service.get("volumes", ()):
        source = volume["source"].partition(":-")[2].rstrip("}") if isinstance(volume, dict) else volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (ROOT / "docker" / source).exists(), source


def test_the_server_is_locked_down_and_limited() -> None:
    assert OURS["read_only"] is True
    assert OURS["cap_drop"] == ["ALL"]
    assert OURS["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "mem_limit", "pids_limit"} <= set(OURS)
    assert OURS["volumes"][0]["read_only"] is True
    assert (
        read(ROOT / OURS["build"]["dockerfile"]).ships.environment()["TENSORQUAY_MODEL_REPOSITORY"]
        == OURS["volumes"][0]["target"]
    )
    assert set(OURS["environment"]) <= SETTINGS


def test_it_is_given_longer_to_stop_than_it_takes() -> None:
    assert int(OURS["stop_grace_period"].rstrip("s")) > int(OURS["environment"]["TENSORQUAY_EXIT_TIMEOUT_SECS"])


def test_prometheus_and_grafana_find_each_other_and_the_server() -> None:
    scraped = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped == [
        {"job_name": "tensorquay", "static_configs": [{"targets": [f"tensorquay:{ServerConfig().metrics_port}"]}]}
    ]
    provisioning = ROOT / "docker" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "tensorquay.yaml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    # The dashboard takes the data source that is chosen, and Grafana's default is chosen first.
    assert source["type"] == "prometheus"
    assert source["isDefault"] is True
    folder = COMPOSE["services"]["prometheus"]["volumes"][0].split(":")
    (config,) = (each for each in COMPOSE["services"]["prometheus"]["command"] if each.startswith("--config.file="))
    assert config == f"--config.file={folder[1]}/prometheus.yml"
    (rules,) = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())["rule_files"]
    assert (ROOT / "docker" / folder[0] / rules).exists()


def test_services_are_asked_at_the_ports_they_listen_on() -> None:
    published = {name: {port.split(":")[-1] for port in each["ports"]} for name, each in COMPOSE["services"].items()}
    fresh = ServerConfig()
    assert published == {
        "tensorquay": {str(fresh.http_port), str(fresh.grpc_port), str(fresh.metrics_port)},
        "prometheus": {"9090"},
        "grafana": {"3000"},
    }
    for file in (ROOT / "docker" / "prometheus" / "prometheus.yml", *(ROOT / "docker" / "grafana").rglob("*.yaml")):
        for name, port in re.findall(r"\b(tensorquay|prometheus|grafana):(\d+)", file.read_text()):
            assert port in published[name], f"{file.name}: {name}:{port}"


def test_grafana_reads_its_provisioning_where_it_is_mounted() -> None:
    """The images' own layout: Grafana looks for provisioning in /etc/grafana, by these two names."""
    mounted = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    folder = ROOT / "docker" / "grafana" / "provisioning"
    assert {each.name for each in folder.iterdir()} == {"datasources", "dashboards"}
    for file in folder.rglob("*.yaml"):
        assert yaml.safe_load(file.read_text())["apiVersion"] == 1
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    outside = {inside: source for source, inside in mounted.items()}
    assert (ROOT / "docker" / outside[home.rpartition("/")[0]] / home.rpartition("/")[2]).exists()


@pytest.mark.container
def test_compose_takes_its_file() -> None:
    """By the schema of the Compose specification, which the checker carries."""
    assert "ok" in _tool("check-jsonschema", "--builtin-schema=vendor.compose-spec", str(ROOT / "docker/compose.yaml"))


def _tool(name: str, *arguments: str) -> str:
    """What a linter says, if it is there: beside our Python, or on the path."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: {arguments[-1]} was NOT looked at")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def _script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
