from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki import Authority
from serving import RunningServer, start
from tensorquay import cli
from tensorquay.commands.health import from_settings
from tensorquay.config.server import ServerConfig

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ServerConfig.model_fields, "config"):
        monkeypatch.delenv(f"TENSORQUAY_{name.upper()}", raising=False)


@pytest.fixture(scope="module")
def unready(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Serves nothing, and knows that it should; keeps its health closed to strangers."""
    model = tmp_path_factory.mktemp("repository") / "broken" / "1"
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(b"no model")
    running = start(
        [model.parents[1]],
        "--exit-on-error=false",
        "--http-restricted-api=health:x-key=secret",
        "--grpc-restricted-protocol=health:x-key=secret",
    )
    yield running
    running.end()


def test_a_ready_server_is_told_by_zero_over_both_protocols(
    server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in (["--http", server.http], ["--http", server.url + "/"], ["--grpc", server.grpc]):
        assert cli.main(["health", *flags]) == 0
        assert cli.main(["health", *flags, "--live"]) == 0
        assert capsys.readouterr().out == "ready\nlive\n"


def test_the_address_comes_from_the_servers_own_settings(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = tmp_path / "server.toml"
    settings.write_text(f"http_port = {server.http.rpartition(':')[2]}\n")
    monkeypatch.setenv("TENSORQUAY_CONFIG", str(settings))
    assert cli.main(["health"]) == 0
    monkeypatch.setenv("TENSORQUAY_ALLOW_HTTP", "false")
    monkeypatch.setenv("TENSORQUAY_GRPC_PORT", server.grpc.rpartition(":")[2])
    assert cli.main(["health"]) == 0


def test_a_server_that_is_not_ready_is_told_by_one_and_the_key_comes_from_the_settings(
    unready: RunningServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TENSORQUAY_HTTP_PORT", unready.http.rpartition(":")[2])
    monkeypatch.setenv("TENSORQUAY_GRPC_PORT", unready.grpc.rpartition(":")[2])
    assert cli.main(["health"]) == 1
    assert "answered 403" in capsys.readouterr().err
    monkeypatch.setenv("TENSORQUAY_HTTP_RESTRICTED_API", "health:x-key=secret")
    assert cli.main(["health"]) == 1
    assert capsys.readouterr().err == f"tensorquay: http://{unready.http} is not ready\n"
    assert cli.main(["health", "--live"]) == 0
    monkeypatch.setenv("TENSORQUAY_ALLOW_HTTP", "false")
    assert cli.main(["health"]) == 1
    assert "is restricted" in capsys.readouterr().err
    monkeypatch.setenv("TENSORQUAY_GRPC_RESTRICTED_PROTOCOL", "health:X-Key=secret")
    assert cli.main(["health"]) == 1
    assert capsys.readouterr().err == f"tensorquay: {unready.grpc} is not ready\n"
    assert cli.main(["health", "--live"]) == 0


def test_tls_is_believed_on_this_machine_and_verified_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    files = {"use_ssl": "true", "server_cert": str(pair.certificate), "server_key": str(pair.key)}
    flags = [f"--{port}-{name.replace('_', '-')}={value}" for port in ("http", "grpc") for name, value in files.items()]
    server = start([ROOT / "model_repo"], *flags)
    try:
        for name, value in files.items():
            monkeypatch.setenv(f"TENSORQUAY_HTTP_{name.upper()}", value)
        monkeypatch.setenv("TENSORQUAY_HTTP_PORT", server.http.rpartition(":")[2])
        assert cli.main(["health"]) == 0
        url, trusted = f"https://{server.http}", ["--ca", str(authority.certificate)]
        assert cli.main(["health", "--http", url, *trusted]) == 0
        assert cli.main(["health", "--http", url, "--insecure"]) == 0
        assert cli.main(["health", "--grpc", server.grpc, *trusted]) == 0
        capsys.readouterr()
        assert cli.main(["health", "--http", url]) == 1
        assert "certificate" in capsys.readouterr().err.lower()
    finally:
        server.end()


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [
        (["--http", "ftp://there"], 1, "expected http://HOST:PORT"),
        (["--http", "http://there:99999"], 1, "out of range"),
        (["--http", "http://there/v2"], 1, "expected http://HOST:PORT"),
        (["--http", "there:1", "--grpc", "there:1"], 2, "give one"),
        (["--http", "http://there", "--ca", "x.pem"], 1, "are for https:// addresses"),
        (["--grpc", "there:1", "--insecure"], 1, "--insecure is for --http"),
        (["--grpc", "there:1", "--ca", "/nowhere/ca.pem"], 1, "cannot read /nowhere/ca.pem"),
        (["--timeout", "0"], 2, "--timeout"),
    ],
)
def test_wrong_use_is_one_sentence(
    flags: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["health", *flags]) == status
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_wrong_settings_are_no_health(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TENSORQUAY_HTTP_PORT", "many")
    assert cli.main(["health"]) == 1
    assert "TENSORQUAY_HTTP_PORT" in capsys.readouterr().err


@pytest.mark.parametrize("grpc", [False, True])
def test_nobody_there_and_somebody_silent_are_no_answer(grpc: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        flags = ["--grpc" if grpc else "--http", address]
        assert cli.main(["health", *flags, "--timeout", "0.2"]) == 1
        assert "no answer from" in capsys.readouterr().err
    assert cli.main(["health", *flags]) == 1
    assert "no answer from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://there/\r\nContent-Length: 0\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no answer from"),
        (b"", "no answer from"),
    ],
)
def test_a_stranger_on_the_port_is_no_health(answer: bytes, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:

        def answers() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=answers)
        thread.start()
        assert cli.main(["health", "--http", f"127.0.0.1:{stranger.getsockname()[1]}"]) == 1
        thread.join(10)
    assert says in capsys.readouterr().err


@given(
    host=st.one_of(st.ip_addresses().map(str), st.sampled_from(["0.0.0.0", "::", "localhost", "a.b"])),
    port=st.integers(1, 65535),
)
def test_an_address_that_means_all_is_asked_on_the_loopback_and_no_other_is_changed(host: str, port: int) -> None:
    asked = from_settings(ServerConfig(http_host=host, http_port=port, grpc_port=0, metrics_port=0))
    reached, _, at = asked.address.removeprefix("http://").rpartition(":")
    assert at == str(port)
    assert reached.strip("[]") == {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    assert ("[" in reached) == (":" in host)


def test_what_cannot_be_asked_says_what_to_say() -> None:
    both = ServerConfig(http_port=0)
    with pytest.raises(click.ClickException, match="http_port is 0"):
        from_settings(both)
    pem = Path("x.pem")
    mutual = ServerConfig(
        http_use_ssl_mutual=True, http_server_cert=pem, http_server_key=pem, http_root_cert=pem, allow_grpc=False
    )
    with pytest.raises(click.ClickException, match="say --http=URL or --grpc"):
        from_settings(mutual)
    assert from_settings(mutual.model_copy(update={"allow_grpc": True})).grpc
