from __future__ import annotations

import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import click
import pytest

from tensorquay import __version__, cli
from tensorquay.config.server import ControlMode, ServerConfig


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ServerConfig]:
    """The configurations that would have been served; the environment holds no settings, `tmp_path` a model."""
    (tmp_path / "model").mkdir()
    for name in list(ServerConfig.model_fields):
        monkeypatch.delenv(f"TENSORQUAY_{name.upper()}", raising=False)
    app, seen = ModuleType("tensorquay.app"), []

    def run(config: ServerConfig) -> int:
        seen.append(config)
        return 0

    app.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorquay.app", app)
    monkeypatch.setattr("tensorquay.app", app, raising=False)
    return seen


def test_tritonservers_command_line_is_understood(served: list[ServerConfig], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    arguments = [
        "serve",
        f"--model-repository={tmp_path}",
        f"--model-store={other}",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--strict-readiness=false",
        "--exit-on-error=0",
        "--http-address=127.0.0.1",
        "--http-port=9000",
        "--grpc-port",
        "9001",
        "--metrics-port=9002",
        "--allow-metrics",
        "true",
        "--exit-timeout-secs=5",
        "--log-verbose=2",
        "--log-info=1",
        "--log-format=ISO8601",
        "--model-load-thread-count=2",
        "--allow-client-shm=true",
        "--backend-config=onnxruntime,default-max-batch-size=9",
        "--id=mine",
        "--grpc-infer-response-compression-level=none",
        "--strict-model-config=false",
        "--rate-limit=off",
    ]
    assert cli.main(arguments) == 0
    (config,) = served
    assert config.model_repository == (tmp_path, other)
    assert config.model_control_mode is ControlMode.EXPLICIT
    assert config.load_model == ("*",)
    assert (config.strict_readiness, config.exit_on_error, config.allow_client_shm) == (False, False, True)
    assert (config.http_host, config.http_port, config.grpc_port, config.metrics_port) == (
        "127.0.0.1",
        9000,
        9001,
        9002,
    )
    assert (config.default_max_batch_size, config.server_id, config.log_verbose) == (9, "mine", 2)
    assert config.notes == ()


@pytest.mark.parametrize("flag", [["--access-log"], ["--access-log", "true"], ["--access-log=1"]])
def test_a_boolean_flag_never_swallows_the_repository(
    served: list[ServerConfig], tmp_path: Path, flag: list[str]
) -> None:
    assert cli.main(["serve", *flag, str(tmp_path)]) == 0
    assert served[0].access_log is True
    assert served[0].model_repository == (tmp_path,)


def test_trace_flags_in_both_of_tritonservers_spellings(served: list[ServerConfig], tmp_path: Path) -> None:
    new = ["--trace-config", "triton,file=/t/x", "--trace-config=level=TIMESTAMPS", "--trace-config", "rate=5",
           "--trace-config=count=7", "--trace-config=triton,log-frequency=3", "--trace-config=mode=triton"]  # fmt: skip
    old = ["--trace-file=/t/x", "--trace-level=TIMESTAMPS", "--trace-rate=5", "--trace-count=7",
           "--trace-log-frequency=3"]  # fmt: skip
    assert cli.main(["serve", str(tmp_path), *new]) == 0
    assert cli.main(["serve", str(tmp_path), *old]) == 0
    first, second = served
    assert first.model_dump() == second.model_dump()
    assert (first.trace_file, first.trace_level, first.trace_rate) == (Path("/t/x"), ("TIMESTAMPS",), 5)
    assert (first.trace_count, first.trace_log_frequency) == (7, 3)


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        (["--cache-config=local,size=1"], "no response cache"),
        (["--rate-limit=execution_count"], "--rate-limit=off"),
        (["--disable-auto-complete-config"], "derives"),
        (["--strict-model-config"], "derives"),
        (["--trace-config=jaeger,url=x"], "expected triton or opentelemetry"),
        (["--trace-config=triton,colour=red"], "log-frequency"),
        (["--backend-config=onnxruntime,colour=red"], "default-max-batch-size"),
        (["--allow-sagemaker=true"], "V2 protocol"),
        (["--cache-config"], "no response cache"),
        (["--backend-config"], "requires a value"),
    ],
)
def test_a_flag_that_cannot_be_honoured_is_refused_with_advice(
    served: list[ServerConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path, flags: list[str], advice: str
) -> None:
    assert cli.main(["serve", str(tmp_path), *flags]) == 2
    error = capsys.readouterr().err
    assert advice in error
    assert flags[0].partition("=")[0] in error
    assert error.count("\n") == 1
    assert not served


def test_a_flag_without_effect_is_accepted_and_told(
    served: list[ServerConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ["--http-thread-count=8", "--pinned-memory-pool-byte-size", "1", "--metrics-config=summary_latencies=true"]
    assert cli.main(["serve", *flags, str(tmp_path)]) == 0
    error = capsys.readouterr().err
    assert error.count("has no effect here") == 3
    assert len(served[0].notes) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["serve"], 2, "which models?"),
        (["serve", "/nonexistent/models"], 1, "is not a directory"),
        (["serve", ".", "--http-prot=1"], 2, "did you mean '--http-port'?"),
        (["serve", ".", "--http-port=x"], 2, "--http-port: expected a valid integer"),
        (["serve", ".", "--http-port"], 2, "--http-port"),
        (["serv"], 2, "did you mean 'serve'?"),
        (["frobnicate"], 2, "there are serve, check, models, "),
        (["--nope"], 2, "no such option"),
        (["serve", ".", "--config=/nonexistent.toml"], 2, "cannot read the configuration file"),
    ],
)
def test_wrong_use_is_one_sentence_and_an_exit_code(
    served: list[ServerConfig], capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    assert cli.main(arguments) == code
    out, error = capsys.readouterr()
    assert text in error
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert out == ""
    assert not served


def test_a_models_folder_is_not_served(
    served: list[ServerConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "live" / "iris" / "1" / "model.onnx"
    file.parent.mkdir(parents=True)
    file.touch()
    assert cli.main(["serve", str(tmp_path / "live" / "iris")]) == 1
    assert f"is a model's folder, not a repository of models: serve its parent '{tmp_path / 'live'}'" in (
        capsys.readouterr().err
    )
    assert not served
    assert cli.main(["serve", str(tmp_path / "live")]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "flag", ["--model-control-mode=poll", "--model-control-mode=explicit", "--exit-on-error=false"]
)
def test_an_empty_repository_is_served_with_a_warning_if_models_may_come_or_it_is_wanted(
    served: list[ServerConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path, flag: str
) -> None:
    empty = tmp_path / "empty"
    (empty / ".git").mkdir(parents=True)
    (empty / "README").touch()
    assert cli.main(["serve", str(empty), flag]) == 0
    error = capsys.readouterr().err
    assert f"warning: no models found in '{empty}'" in error
    assert error.count("\n") == 1
    assert len(served) == 1


def test_an_empty_repository_that_nobody_would_look_at_again_is_refused(
    served: list[ServerConfig], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    full = tmp_path / "full"
    (full / "model").mkdir(parents=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli.main(["serve", str(empty)]) == 1
    error = capsys.readouterr().err
    assert f"tensorquay: no models found in '{empty}'" in error
    assert error.count("\n") == 1
    assert not served
    assert cli.main(["serve", str(empty), str(full)]) == 0
    assert f"warning: no models found in '{empty}'" in capsys.readouterr().err


def test_a_log_file_that_cannot_be_written_is_named(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    log = tmp_path / "none" / "x.log"
    assert cli.main(["serve", str(tmp_path), f"--log-file={log}"]) == 1
    assert capfd.readouterr().err == f"tensorquay: cannot write the log file '{log}': No such file or directory\n"


def test_the_exit_code_is_the_servers(
    monkeypatch: pytest.MonkeyPatch, served: list[ServerConfig], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.modules["tensorquay.app"], "run", lambda _config: 3)
    assert cli.main(["serve", str(tmp_path)]) == 3


def test_print_config_names_each_origin_and_serves_nothing(
    served: list[ServerConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORQUAY_GRPC_PORT", "7001")
    assert cli.main(["serve", "--http-port=7000", "--print-config"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert rows["http_port"].split()[1:] == ["7000", "command", "line"]
    assert rows["grpc_port"].split()[1:] == ["7001", "TENSORQUAY_GRPC_PORT"]
    assert set(ServerConfig.model_fields) <= set(rows)
    assert not served


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ServerConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert cli.main(["version"]) == 0
    out = capsys.readouterr().out
    assert out.count(f"tensorquay {__version__}") == 2
    assert "numpy " in out


@click.command()
def _hello() -> None:
    """Say hello."""
    click.echo("hello")


def _points(**named: str) -> dict[str, EntryPoint]:
    return {name: EntryPoint(name, value, cli.PLUGIN_GROUP) for name, value in named.items()}


def test_a_plugins_command_runs_and_is_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "hello_plugin", ModuleType("hello_plugin"))
    sys.modules["hello_plugin"].hello = _hello  # type: ignore[attr-defined]
    monkeypatch.setattr(cli, "_plugins", lambda: _points(hello="hello_plugin:hello"))
    assert cli.main(["hello"]) == 0
    assert capsys.readouterr().out == "hello\n"
    assert cli.main(["--help"]) == 0
    assert "Say hello." in capsys.readouterr().out


@pytest.mark.parametrize("value", ["no_such_module_at_all:x", "sys:no_such_name", "sys:path"])
def test_a_broken_plugin_is_one_sentence_and_stops_nobody_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    monkeypatch.setattr(cli, "_plugins", lambda: _points(broken=value))
    assert cli.main(["broken"]) == 1
    error = capsys.readouterr().err
    assert "the command 'broken'" in error
    assert error.count("\n") == 1
    assert cli.main(["--help"]) == 0
    assert "cannot be loaded" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0


def test_importing_the_command_brings_nothing_heavy() -> None:
    code = (
        "import sys, tensorquay.cli; "
        "print([m for m in ('pydantic','rich','httpx','numpy','onnxruntime','grpc','fastapi') if m in sys.modules])"
    )
    root = Path(cli.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_clone_and_the_module_are_the_command() -> None:
    root = Path(cli.__file__).parents[1]
    for start in ([str(root)], ["-m", "tensorquay"]):
        done = subprocess.run(
            [sys.executable, *start, "--version"], cwd=root, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"tensorquay {__version__}\n"


def test_the_first_process_of_a_container_can_be_ended_before_it_serves() -> None:
    """The kernel keeps from it what it has not asked for; every other process is ended by SIGTERM as it is."""
    code = (
        "import os, signal; from tensorquay import cli; os.getpid = lambda: {pid}; cli.main(['version']); "
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True); signal.raise_signal(signal.SIGTERM)"
    )
    for pid, default, status in ((1, "False", 128 + signal.SIGTERM), (7, "True", -signal.SIGTERM)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(pid=pid)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout.splitlines()[-1] == default
        assert done.returncode == status


def test_closed_standard_streams_are_taken_before_a_socket_gets_their_numbers() -> None:
    code = (
        "import os, sys; from tensorquay.cli import main; code = main(['--version']); print('lost', file=sys.stderr);"
        "sys.stdout.flush(); taken = os.open('/dev/zero', os.O_RDONLY); os._exit(code or taken)"
    )
    shell = f'exec "$0" -c "{code}" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, sys.executable], timeout=60, check=False)
    assert done.returncode > 2, "the first file of its own"
