"""TLS, and programs that speak HTTP/2, against our server over real sockets.

Programs that are not installed are skipped, and say so.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2

from native_grpc import NativeHouse, connect, message
from pki import Authority
from tensorquay.config.tls import TlsFiles
from tensorquay.core.clock import SystemClock
from tensorquay.transport.tls import GRPC_PROTOCOLS, Certificates, PortContext

INFER = "/inference.GRPCInferenceService/ModelInfer"

# -- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("stock_loop", [False, True], ids=["uvloop", "asyncio"])
def test_tls_with_alpn_serves_and_without_it_turns_away(
    repository: Path, authority: Authority, stock_loop: bool
) -> None:
    pair, clock = authority.issue(), SystemClock()
    files = TlsFiles("grpc", pair.certificate, pair.key)
    context = PortContext(Certificates(files, GRPC_PROTOCOLS, clock=clock), clock=clock)
    house = NativeHouse(repository, stock_loop=stock_loop, tls=context)
    try:
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
        with grpc.secure_channel(house.address.replace("127.0.0.1", "localhost"), credentials) as channel:
            assert channel.unary_unary(INFER)(message(), timeout=30)
            request = service_pb2.ModelInferRequest(model_name="bytes")
            request.inputs.add(name="x", datatype="UINT8", shape=(1, 600_000))
            request.raw_input_contents.append(bytes(600_000))
            assert len(channel.unary_unary(INFER)(request.SerializeToString(), timeout=30)) > 600_000
        trusting = ssl.create_default_context(cafile=authority.certificate)
        for protocols in (["http/1.1"], None):
            if protocols:
                trusting.set_alpn_protocols(protocols)
            with connect(house) as plain:
                try:
                    with trusting.wrap_socket(plain, server_hostname="localhost") as sock:
                        assert sock.recv(100) == b""
                except (ssl.SSLError, ConnectionResetError):
                    pass  # turned away in the handshake itself
    finally:
        house.close()


# -- programs


def program(name: str) -> str:
    """Where `name` is."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: nghttp2-client, curl): this peer was NOT tested")
    return found


def run(*command: str) -> str:
    """What a program says, both ways."""
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return (done.stdout + done.stderr).decode("latin-1")


@pytest.fixture
def body(tmp_path: Path) -> Path:
    """A prefixed request as a file."""
    path = tmp_path / "body"
    payload = message()
    path.write_bytes(b"\0" + len(payload).to_bytes(4, "big") + payload)
    return path


def test_curl(house: NativeHouse, body: Path) -> None:
    curl = program("curl")
    said = run(
        *(curl, "-sv", "--http2-prior-knowledge", "--data-binary", f"@{body}", "-H", "content-type: application/grpc"),
        *("-H", "te: trailers", f"http://{house.address}{INFER}"),
    )
    assert "HTTP/2 200" in said
    assert "grpc-status: 0" in said
    assert "OUTPUT0" in said
    said = run(curl, "-sv", "--http2-prior-knowledge", f"http://{house.address}/v2/health/ready")
    assert "HTTP/2 405" in said
    said = run(curl, "-sv", "--http2-prior-knowledge", "-d", "{}", f"http://{house.address}/v2")
    assert "HTTP/2 415" in said


def test_nghttp(house: NativeHouse, body: Path) -> None:
    said = run(
        *(program("nghttp"), "-v", "-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"),
        *("--no-dep", "-p", "32", "-b", "100", f"http://{house.address}{INFER}"),
    )
    assert "grpc-status: 0" in said
    assert "GOAWAY" not in said.split("send GOAWAY")[0]


def test_h2load_with_many_streams_and_small_windows(house: NativeHouse, body: Path) -> None:
    said = run(
        *(program("h2load"), "-n", "3000", "-c", "4", "-m", "50", "-w", "10", "-W", "12", "-d", str(body)),
        *("-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{house.address}{INFER}"),
    )
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in said
    assert "status codes: 3000 2xx" in said
