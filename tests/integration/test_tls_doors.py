"""TLS from the command line to strangers' clients: every port, both transports, mutual TLS, renewal under load."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.support.serving import RunningServer, launch, start

from graphs import add_sub, write
from native_grpc import message
from pki import Authority, Pair
from tensorquay_client import (
    AsyncGrpcClient,
    AsyncHttpClient,
    ConnectionFailed,
    GrpcClient,
    HttpClient,
    InvalidArgument,
    Retry,
    Tls,
)

INFER = "/inference.GRPCInferenceService/ModelInfer"
ROW = np.arange(16, dtype=np.int32).reshape(1, 16)
ONCE = Retry(attempts=1)
TRANSPORTS = {"native": (), "fallback": ("--http-transport=asgi", "--grpc-transport=grpcio")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tls")
    write(add_sub(), root / "models" / "simple" / "1" / "model.onnx")
    return root


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder / "pki")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Authority:
    """An authority that nobody here trusts."""
    return Authority(folder / "other", "stranger")


class Ports:
    """A server with TLS on every port, and the files it serves with."""

    def __init__(self, folder: Path, authority: Authority, kind: str, *flags: str) -> None:
        self.authority = authority
        self.ca = authority.certificate
        self._files = folder / f"served-{kind}-{len(flags)}"
        self._files.mkdir()
        self.put(authority.issue())
        names = [
            f"--{port}-{file}" for port in ("http", "grpc") for file in ("server-cert=tls.crt", "server-key=tls.key")
        ]
        given = [f"{name.partition('=')[0]}={self._files / name.partition('=')[2]}" for name in names]
        on = ("--http-use-ssl", "--grpc-use-ssl=true", "--metrics-use-ssl", "--log-verbose=1")
        self.server: RunningServer = start([folder / "models"], *TRANSPORTS[kind], *on, *given, *flags)

    def put(self, pair: Pair) -> None:
        """Replace the files, the key first, each by a rename."""
        for path, name in ((pair.key, "tls.key"), (pair.certificate, "tls.crt")):
            shutil.copy(path, self._files / "new")
            (self._files / "new").replace(self._files / name)

    @functools.cached_property
    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    def shown(self, address: str, context: ssl.SSLContext | None = None) -> bytes:
        """The certificate that a new connection to `address` is shown."""
        host, _, port = address.rpartition(":")
        if context is None:
            context = ssl.create_default_context(cafile=self.ca)
            context.check_hostname = False
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as sock,
        ):
            found = sock.getpeercert(binary_form=True)
            assert found is not None
            return found


@pytest.fixture(scope="module", params=TRANSPORTS)
def ports(request: pytest.FixtureRequest, folder: Path, authority: Authority) -> Iterator[Ports]:
    ports = Ports(folder, authority, request.param)
    yield ports
    assert ports.server.stop() == 0, ports.server.told()


@pytest.fixture(scope="module", params=TRANSPORTS)
def mutual(request: pytest.FixtureRequest, folder: Path, authority: Authority) -> Iterator[Ports]:
    roots = [f"--{port}-root-cert={authority.certificate}" for port in ("http", "grpc")]
    ports = Ports(folder, authority, request.param, "--http-use-ssl-mutual", "--grpc-use-ssl-mutual", *roots)
    yield ports
    assert ports.server.stop() == 0, ports.server.told()


def curl(ports: Ports, *words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed: this peer was NOT tested")
    command = [program, "-sSv", "--max-time", "30", "--cacert", str(ports.ca), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def added(result: Any) -> bool:
    return bool((result["OUTPUT0"] == 2 * ROW).all())


# -- who comes as he should


def test_the_banner_says_it(ports: Ports) -> None:
    told = ports.server.told()
    assert f"HTTP     https://{ports.server.http}" in told
    assert f"gRPC     grpcs://{ports.server.grpc}" in told
    assert f"metrics  https://{ports.server.metrics}/metrics" in told
    assert f"console  https://{ports.server.http}/" in told
    assert "TLS certificate is used, valid until" in told


def test_curl_over_http(ports: Ports) -> None:
    url = f"https://{ports.server.http}/v2"
    body = {
        "inputs": [{"name": n, "shape": [1, 16], "datatype": "INT32", "data": [1] * 16} for n in ("INPUT0", "INPUT1")]
    }
    done = curl(ports, "--http1.1", url, "-d", json.dumps(body), f"{url}/models/simple/infer")
    assert "server accepted http/1.1" in done.stderr
    assert "SSL certificate verify ok" in done.stderr
    assert "Re-using existing connection" in done.stderr
    assert '"data":[2,2,' in done.stdout
    assert "nv_inference_request_success" in curl(ports, f"https://{ports.server.metrics}/metrics").stdout


def test_curl_over_http2_on_the_grpc_port(ports: Ports, tmp_path: Path) -> None:
    payload = message()
    (tmp_path / "body").write_bytes(b"\0" + len(payload).to_bytes(4, "big") + payload)
    done = curl(
        *(ports, "--http2", "--data-binary", f"@{tmp_path / 'body'}", "-H", "content-type: application/grpc"),
        *("-H", "te: trailers", "-o", str(tmp_path / "answer"), f"https://{ports.server.grpc}{INFER}"),
    )
    assert "server accepted h2" in done.stderr
    assert "grpc-status: 0" in done.stderr
    assert b"OUTPUT0" in (tmp_path / "answer").read_bytes()


def test_h2load(ports: Ports, tmp_path: Path) -> None:
    program = shutil.which("h2load")
    if program is None:
        pytest.skip("h2load is not installed (Debian: nghttp2-client): this peer was NOT tested")
    payload = message()
    (tmp_path / "body").write_bytes(b"\0" + len(payload).to_bytes(4, "big") + payload)
    command = [program, "-n", "1000", "-c", "4", "-m", "20", "-d", str(tmp_path / "body")]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"https://{ports.server.grpc}{INFER}"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    assert "1000 succeeded, 0 failed, 0 errored, 0 timeout" in said


def test_tritonclient(ports: Ports) -> None:
    for module, client in (
        (
            tritonclient.http,
            tritonclient.http.InferenceServerClient(
                ports.server.http, ssl=True, ssl_context_factory=lambda: ports.trusting
            ),
        ),
        (
            tritonclient.grpc,
            tritonclient.grpc.InferenceServerClient(ports.server.grpc, ssl=True, root_certificates=str(ports.ca)),
        ),
    ):
        inputs = [module.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        for each in inputs:
            each.set_data_from_numpy(ROW)
        assert client.is_server_ready()
        assert (client.infer("simple", inputs).as_numpy("OUTPUT0") == 2 * ROW).all()
        client.close()


async def test_our_own_clients(ports: Ports) -> None:
    tls, rows = Tls(ca=ports.ca), {"INPUT0": ROW, "INPUT1": ROW}
    https, grpcs = f"https://{ports.server.http}", f"grpcs://{ports.server.grpc}"

    def ask() -> None:
        with HttpClient(https, tls=tls) as over_http, GrpcClient(grpcs, tls=tls) as over_grpc:
            assert added(over_http.infer("simple", rows))
            assert added(over_grpc.infer("simple", rows))
        with HttpClient(https, tls=Tls(insecure=True)) as careless:
            assert careless.ready()

    await asyncio.to_thread(ask)
    async with AsyncHttpClient(https, tls=tls) as over_http, AsyncGrpcClient(grpcs, tls=tls) as over_grpc:
        assert added(await over_http.infer("simple", rows))
        assert added(await over_grpc.infer("simple", rows))


@pytest.mark.parametrize("ports", ["native"], indirect=True)
def test_the_command_line(ports: Ports, tmp_path: Path) -> None:
    np.save(tmp_path / "row.npy", ROW)
    rows = [f"--input={name}={tmp_path / 'row.npy'}" for name in ("INPUT0", "INPUT1")]
    infer = ["infer", "simple", *rows, "--json", "--ca", str(ports.ca), "--url"]
    for words in (
        [*infer, f"https://{ports.server.http}"],
        [*infer, f"grpcs://{ports.server.grpc}", "--grpc"],
        ["models", "--url", f"https://{ports.server.http}", "--ca", str(ports.ca), "show", "simple"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "tensorquay", *words], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert "OUTPUT0" in done.stdout


# -- who does not


def test_nobody_is_believed_without_reason(ports: Ports, stranger: Authority) -> None:
    https, grpcs = f"https://{ports.server.http}", f"grpcs://{ports.server.grpc}"
    for tls in (Tls(ca=stranger.certificate), None):
        with HttpClient(https, tls=tls, retry=ONCE) as client, pytest.raises(ConnectionFailed, match="VERIFY_FAILED"):
            client.live()
        with (
            GrpcClient(grpcs, tls=tls, retry=ONCE, timeout_s=10) as client,
            pytest.raises(ConnectionFailed, match=r"cannot reach .*CERTIFICATE_VERIFY_FAILED"),
        ):
            client.live()
    elsewhere = ports.authority.issue("elsewhere", names="subjectAltName=DNS:elsewhere")
    before = ports.shown(ports.server.http)
    ports.put(elsewhere)
    wanted = ssl.PEM_cert_to_DER_cert(elsewhere.certificate.read_text())
    _until_shown(ports, wanted)
    tls = Tls(ca=ports.ca)
    with HttpClient(https, tls=tls, retry=ONCE) as client, pytest.raises(ConnectionFailed, match="not valid for"):
        client.live()
    with (
        GrpcClient(grpcs, tls=tls, retry=ONCE, timeout_s=10) as client,
        pytest.raises(ConnectionFailed, match="cannot reach"),
    ):
        client.live()
    back = ports.authority.issue()
    ports.put(back)
    _until_shown(ports, ssl.PEM_cert_to_DER_cert(back.certificate.read_text()))
    assert before != wanted


def test_plain_clients_get_nothing_and_hurt_nobody(ports: Ports) -> None:
    for address in (ports.server.http, ports.server.grpc, ports.server.metrics):
        with socket.create_connection(address.rsplit(":", 1), timeout=30) as sock:
            sock.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert not sock.recv(100).startswith(b"HTTP")
    with GrpcClient(ports.server.grpc, retry=ONCE, timeout_s=5) as client, pytest.raises(ConnectionFailed):
        client.live()
    with HttpClient(f"https://{ports.server.http}", tls=Tls(ca=ports.ca)) as client:
        assert client.live()


def test_clients_refuse_what_makes_no_sense(tmp_path: Path, authority: Authority) -> None:
    for make, text in (
        (lambda: Tls(ca="x", insecure=True), "give one of the two"),
        (lambda: Tls(key="x"), "a key without its certificate"),
        (lambda: Tls(ca=tmp_path / "none").context(), "no authorities in '.*none': No such file"),
        (lambda: Tls(certificate=authority.certificate).context(), "cannot use the certificate"),
        (lambda: HttpClient("localhost:1", tls=Tls()), "https://"),
        (lambda: GrpcClient("localhost:1", tls=Tls()), "grpcs://"),
        (lambda: HttpClient("https://h", tls=Tls(), verify=False), "one of them"),
        (lambda: GrpcClient("grpcs://h:1", tls=Tls(), credentials=object()), "one of them"),
        (lambda: GrpcClient("grpcs://h:1", tls=Tls(insecure=True)), "gRPC cannot connect insecurely"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            make()


# -- mutual


def test_clients_with_a_certificate_and_no_others(mutual: Ports, authority: Authority, stranger: Authority) -> None:
    https, grpcs = f"https://{mutual.server.http}", f"grpcs://{mutual.server.grpc}"
    ours, theirs = authority.issue("client"), stranger.issue("client")
    good = Tls(ca=mutual.ca, certificate=ours.certificate, key=ours.key)
    with HttpClient(https, tls=good) as over_http, GrpcClient(grpcs, tls=good) as over_grpc:
        assert added(over_http.infer("simple", {"INPUT0": ROW, "INPUT1": ROW}))
        assert added(over_grpc.infer("simple", {"INPUT0": ROW, "INPUT1": ROW}))
    credentials = grpc.ssl_channel_credentials(
        mutual.ca.read_bytes(), ours.key.read_bytes(), ours.certificate.read_bytes()
    )
    with grpc.secure_channel(mutual.server.grpc, credentials) as channel:
        assert b"OUTPUT0" in channel.unary_unary(INFER)(message(), timeout=30)
    for bad in (Tls(ca=mutual.ca), Tls(ca=mutual.ca, certificate=theirs.certificate, key=theirs.key)):
        # The server's alert arrives, not only the end of the connection.
        with HttpClient(https, tls=bad, retry=ONCE) as client, pytest.raises(ConnectionFailed, match=r"(?i)alert"):
            client.live()
        with (
            GrpcClient(grpcs, tls=bad, retry=ONCE, timeout_s=10) as client,
            pytest.raises(ConnectionFailed),
        ):
            client.live()
    done = curl(mutual, "--cert", str(ours.certificate), "--key", str(ours.key), f"https://{mutual.server.http}/v2")
    assert '"name":"triton"' in done.stdout
    done = curl(mutual, f"https://{mutual.server.metrics}/metrics")
    assert done.returncode != 0
    assert not done.stdout


# -- renewal


def _until_shown(ports: Ports, wanted: bytes) -> None:
    """Until new connections to the HTTP and gRPC port see `wanted`; the server looks once a second."""
    for address in (ports.server.http, ports.server.grpc):
        for _ in range(100_000):  # each of them a handshake
            if ports.shown(address) == wanted:
                break


def test_renewal_under_load_loses_nothing(ports: Ports) -> None:
    tls, rows, stop = Tls(ca=ports.ca), {"INPUT0": ROW, "INPUT1": ROW}, threading.Event()
    https, grpcs = f"https://{ports.server.http}", f"grpcs://{ports.server.grpc}"
    wrong: list[BaseException] = []
    answered = {kind: threading.Event() for kind in ("kept http", "kept grpc", "new")}

    def work(kind: str) -> None:
        try:
            if kind == "new":
                while not stop.is_set():
                    host, _, port = ports.server.http.rpartition(":")
                    connection = http.client.HTTPSConnection(host, int(port), context=ports.trusting, timeout=30)
                    connection.request("GET", "/v2/health/ready")
                    assert connection.getresponse().status == 200
                    connection.close()
                    answered[kind].set()
                return
            client = (
                HttpClient(https, tls=tls, retry=ONCE) if "http" in kind else GrpcClient(grpcs, tls=tls, retry=ONCE)
            )
            with client:
                while not stop.is_set():
                    assert added(client.infer("simple", rows))
                    answered[kind].set()
        except BaseException as error:  # noqa: BLE001 - told by the test
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in answered]
    for thread in threads:
        thread.start()
    renewed = ports.authority.issue()
    ports.put(renewed)
    _until_shown(ports, ssl.PEM_cert_to_DER_cert(renewed.certificate.read_text()))
    for each in answered.values():
        each.clear()
        assert each.wait(30) or wrong
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert "TLS certificate is renewed" in ports.server.told()


# -- the start


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["--http-use-ssl"], 2, "http_use_ssl needs http_server_cert"),
        (["--grpc-use-ssl-mutual", "--grpc-server-cert=a", "--grpc-server-key=b"], 2, "needs grpc_root_cert"),
        (
            ["--grpc-use-ssl", "--grpc-server-cert=absent", "--grpc-server-key=b"],
            1,
            "--grpc-server-cert: cannot read 'absent': No such file or directory",
        ),
    ],
)
def test_a_start_that_cannot_be_says_why(folder: Path, flags: list[str], code: int, text: str) -> None:
    server = launch([folder / "models"], *flags)
    assert server.wait() == code
    said = [line for line in server.log if text in line]
    assert len(said) == 1
    assert said[0].startswith("tensorquay")


def test_check_says_it_before(folder: Path, authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    from tensorquay import cli

    pair, expired, other = authority.issue(), authority.issue_expired(), authority.issue()

    def check(*words: str) -> tuple[int, str]:
        return cli.main(["check", *words]), capsys.readouterr().out

    files = [f"--http-server-cert={pair.certificate}", f"--http-server-key={pair.key}"]
    code, out = check(str(folder / "models"), *files)
    assert code == 0
    assert "http TLS: certificate and key fit, valid until" in out
    code, out = check(f"--grpc-server-cert={expired.certificate}", f"--grpc-server-key={expired.key}")
    assert code == 1
    assert "--grpc-server-cert: the certificate expired at 2020-01-02 00:00 UTC" in out.replace("\n", " ")
    code, out = check("--json", files[0], f"--http-server-key={other.key}", f"--grpc-root-cert={authority.certificate}")
    problems = json.loads(out)["tls"]["problems"]
    assert code == 1
    assert not json.loads(out)["ok"]
    assert "does not belong" in problems[0]
    assert "--grpc-server-cert is needed too" in problems[1]
    assert cli.main(["check"]) == 2
