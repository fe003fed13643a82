from __future__ import annotations

import re
from pathlib import Path

import pytest

from tensorquay.config.server import ControlMode, InvalidServerConfig, LogFormat, ServerConfig
from tensorquay.config.server_sources import MAX_FILE_BYTES, NOT_SETTINGS, flag_of, load
from tensorquay.config.server_values import RestrictedKey

ROOT = Path(__file__).parents[3]


def problems_of(**command_line: object) -> tuple[str, ...]:
    with pytest.raises(InvalidServerConfig) as caught:
        load(environment={}, command_line=command_line)
    return caught.value.problems


def test_a_later_source_wins_and_every_value_remembers_its_own(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('model_repository = ["models"]\nhttp_port = 1\ngrpc_port = 2\nmetrics_port = 3\n')
    config = load(
        file=file,
        environment={"TENSORQUAY_GRPC_PORT": "20", "TENSORQUAY_METRICS_PORT": "30", "PATH": "/bin"},
        command_line={"metrics_port": "300"},
    )
    assert (config.http_port, config.grpc_port, config.metrics_port) == (1, 20, 300)
    assert config.origin("http_port") == "server.toml"
    assert config.origin("grpc_port") == "TENSORQUAY_GRPC_PORT"
    assert config.origin("metrics_port") == "command line"
    assert config.origin("threads") == "default"
    assert config.model_repository == (tmp_path / "models",), "a path in a file starts at the file's folder"


def test_lists_from_the_environment_are_split() -> None:
    config = load(
        environment={
            "TENSORQUAY_MODEL_REPOSITORY": "/a, /b",
            "TENSORQUAY_HTTP_RESTRICTED_API": "health,metadata:k=v;logging:x=y=z:1",
        },
        command_line={},
    )
    assert config.model_repository == (Path("/a"), Path("/b"))
    assert config.http_restricted_api == {
        "health": RestrictedKey("k", "v"),
        "metadata": RestrictedKey("k", "v"),
        "logging": RestrictedKey("x", "y=z:1"),
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"http_port": "70000"}, ("--http-port", "65535", "70000")),
        ({"http_port": "eighty"}, ("--http-port", "integer", "eighty")),
        ({"model_control_mode": "polling"}, ("--model-control-mode", "'poll'", "polling")),
        ({"log_info": "maybe"}, ("--log-info", "boolean")),
        ({"settle_secs": "nan"}, ("--settle-secs", "finite")),
        ({"http_port": "8001"}, ("http_port and grpc_port are both 8001",)),
        ({"allow_http": "0", "allow_grpc": "0"}, ("allow_http and allow_grpc",)),
        ({"load_model": ["m"]}, ("load_model needs model_control_mode explicit",)),
        ({"load_model": ["*", "m"], "model_control_mode": "explicit"}, ("must stand alone",)),
        ({"trace_level": ["TIMESTAMPS"]}, ("needs trace_file",)),
        ({"trace_level": ["OFF", "TENSORS"], "trace_file": "x"}, ("OFF alone",)),
        ({"trace_level": ["LOUD"], "trace_file": "x"}, ("LOUD", "TIMESTAMPS")),
        ({"http_header_forward_pattern": "("}, ("regular expression",)),
        ({"http_restricted_api": ["weather:k=v"]}, ("'weather' is no API", "health")),
        ({"http_restricted_api": ["health:k=v", "health:k=w"]}, ("'health' is restricted twice",)),
        ({"grpc_max_message_size": str(2**31)}, ("--grpc-max-message-size", "2147483647")),
    ],
)
def test_a_wrong_setting_is_told_with_its_name_and_rule(given: dict[str, object], expected: tuple[str, ...]) -> None:
    (problem,) = problems_of(**given)
    for part in expected:
        assert part in problem


def test_every_problem_is_told_at_once() -> None:
    assert len(problems_of(http_port="x", grpc_port="y", log_error="z")) == 3


@pytest.mark.parametrize(
    "entry", ["health", "health:key", "health:=SECRET", "health:key=", ":k=v", "health:a b=SECRET"]
)
def test_the_secret_of_a_restricted_api_is_never_told(entry: str) -> None:
    text = "; ".join(
        problems_of(http_restricted_api=[entry], grpc_restricted_protocol=["inference:k=SECRET,x"], http_port="x")
    )
    assert "http-restricted-api" in text
    assert "SECRET" not in text


def test_the_secret_is_not_shown_either() -> None:
    config = load(environment={}, command_line={"http_restricted_api": ["health:k=SECRET"]})
    assert "SECRET" not in repr(config) + config.shown("http_restricted_api")
    assert config.http_restricted_api["health"].value == "SECRET"


def test_metrics_listen_where_http_does_unless_told_otherwise() -> None:
    assert load(environment={}, command_line={"http_host": "127.0.0.1"}).metrics_host == "127.0.0.1"
    both = load(environment={}, command_line={"http_host": "127.0.0.1", "metrics_host": "::1"})
    assert both.metrics_host == "::1"
    assert ServerConfig(http_host="127.0.0.1").metrics_host == "127.0.0.1"


def test_free_ports_may_be_asked_for_everywhere() -> None:
    config = ServerConfig(http_port=0, grpc_port=0, metrics_port=0)
    assert config.http_port == config.grpc_port == 0


@pytest.mark.parametrize("text", ["default", "text", "TEXT"])
def test_tritonservers_name_of_the_text_format_is_understood(text: str) -> None:
    assert load(environment={}, command_line={"log_format": text}).log_format is LogFormat.TEXT


def test_an_unknown_variable_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidServerConfig, match="did you mean TENSORQUAY_HTTP_PORT"):
        load(environment={"TENSORQUAY_HTPT_PORT": "1"}, command_line={})


def test_what_kubernetes_puts_beside_a_service_of_our_name_is_not_a_setting() -> None:
    links = {
        "TENSORQUAY_SERVICE_HOST": "10.0.0.7",
        "TENSORQUAY_SERVICE_PORT": "8000",
        "TENSORQUAY_SERVICE_PORT_HTTP": "8000",
        "TENSORQUAY_PORT": "tcp://10.0.0.7:8000",
        "TENSORQUAY_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "TENSORQUAY_PORT_8000_TCP_PROTO": "tcp",
        "TENSORQUAY_HTTP_PORT": "tcp://10.0.0.7:8000",
        "TENSORQUAY_HTTP_SERVICE_HOST": "10.0.0.7",
        "TENSORQUAY_HTTP_PORT_8000_TCP_ADDR": "10.0.0.7",
    }
    assert load(environment=links, command_line={}).http_port == 8000


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"http_prt = 1", "did you mean 'http_port'"),
        (b"http_port = ", "not TOML"),
        (
            b"http_port: 8000",
            "line 1: not TOML: Expected '=' after a key in a key/value pair, at column 10; TOML writes",
        ),
        (b"a = 1\n\xff\xfe", "line 2: it is not UTF-8 text, got byte 0xff; save the file as UTF-8"),
        (b"x = " + b"[" * 100_000, "not TOML"),
        (b"# a\nhttp_prt = 1", "server.toml line 2: unknown setting 'http_prt', did you mean 'http_port'?"),
        (b"[http]\nport = 1", "server.toml line 1: unknown setting 'http'; settings stand in no [table]"),
        (b"\nhttp_port = 99999", "http_port (server.toml line 2): expected less than or equal to 65535, got 99999"),
        (b"#" * (MAX_FILE_BYTES + 1), "larger than"),
        (b"http_port = [1]", "http_port (server.toml line 1)"),
        (b"model_repository = 3", "model_repository (server.toml line 1): expected a list of texts, got 3"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "server.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidServerConfig) as caught:
        load(file=file, environment={}, command_line={})
    assert expected in str(caught.value)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(InvalidServerConfig, match="cannot read the configuration file"):
        load(file=Path("/nonexistent/server.toml"), environment={}, command_line={})


def test_settings_cannot_be_changed_or_invented() -> None:
    config = ServerConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.http_port = 1
    with pytest.raises(ValueError, match="Extra inputs"):
        ServerConfig(port=1)  # type: ignore[call-arg]


def test_every_field_has_a_flag_a_description_and_a_default() -> None:
    config = ServerConfig()
    for name, field in ServerConfig.model_fields.items():
        assert flag_of(name).group
        assert field.description
        assert isinstance(config.shown(name), str)
    assert config.model_control_mode is ControlMode.NONE
    assert config.allow_client_shm is False


def test_a_variable_that_another_command_reads_does_not_stop_the_server() -> None:
    load(environment=dict.fromkeys(NOT_SETTINGS, "127.0.0.1:8001"), command_line={})


@pytest.mark.parametrize("folder", ["server", "clients", "converters", "docker", "k8s"])
def test_every_variable_that_we_read_or_set_is_known_to_the_server(folder: str) -> None:
    """One environment serves all commands: `tensorquay serve` may refuse none that another one reads."""
    settings = {f"TENSORQUAY_{name.upper()}" for name in ServerConfig.model_fields}
    named: dict[str, Path] = {}
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in {".pyc", ".binpb"} or not path.is_file():
            continue
        for variable in re.findall(r"\bTENSORQUAY_[A-Z][A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")):
            named[variable] = path.relative_to(ROOT)
    unknown = {
        variable: str(path) for variable, path in named.items() if variable not in settings | NOT_SETTINGS.keys()
    }
    assert not unknown, f"neither fields of ServerConfig nor in NOT_SETTINGS: {unknown}"
