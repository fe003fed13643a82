"""Who may call what (protocol 1.16), forwarded headers, and what a full server says: flags, headers, statuses."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from tests.support.serving import RunningServer, start
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from doors import Grpc, grpc_request, read_message
from observing import samples, value, waits
from strangers import connect
from waiting import until
from wire import Answer, Call, given

ROW = given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]])
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


@pytest.fixture(scope="module")
def guarded(zoo_path: Path) -> Iterator[RunningServer]:
    """Two sets of closed APIs, forwarded headers, room for one request."""
    running = start(
        [zoo_path],
        "--model-control-mode=explicit",
        "--load-model=double",
        "--load-model=waiting",
        "--http-restricted-api=inference:infer-key=open",
        "--http-restricted-api=model-repository,statistics,model-config:admin-key=secret",
        "--grpc-restricted-protocol=inference:infer-key=open",
        "--grpc-restricted-protocol=model-repository,statistics,health:admin-key=secret",
        "--http-header-forward-pattern=x-mine-.*",
        "--grpc-header-forward-pattern=x-mine-.*",
        "--max-inflight-requests=1",
    )
    yield running
    assert running.stop() == 0, running.told()


_KEYS = {"inference": ("infer-key", "open"), "admin": ("admin-key", "secret")}
_CLOSED = [
    ("POST", "/v2/models/double/infer", "inference"),
    ("POST", "/v2/models/double/versions/1/infer", "inference"),
    ("POST", "/v2/repository/index", "admin"),
    ("POST", "/v2/repository/models/double/load", "admin"),
    ("GET", "/v2/models/stats", "admin"),
    ("GET", "/v2/models/double/stats", "admin"),
    ("GET", "/v2/models/double/versions/1/stats", "admin"),
    ("GET", "/v2/models/double/config", "admin"),
]


@pytest.mark.parametrize(("verb", "path", "group"), _CLOSED)
def test_1_16_closed_http_apis(guarded: RunningServer, verb: str, path: str, group: str) -> None:
    name, secret = _KEYS[group]
    content = json.dumps(BODY) if path.endswith("infer") else ""
    with httpx.Client(base_url=guarded.url, trust_env=False) as client:
        for headers in ({}, {name: "wrong"}, {name: ""}, {name: secret + "x"}, {"other": secret}):
            response = client.request(verb, path, headers=headers, content=content)
            assert response.status_code == 403
            assert response.json()["error"] == f"This API is restricted, expecting header '{name}'"
            assert secret not in response.text
        assert client.request(verb, path, headers={name.upper(): secret}, content=content).status_code == 200


@pytest.mark.parametrize(("verb", "path", "group"), _CLOSED)
def test_1_16_closed_http_apis_are_closed_however_their_path_is_written(
    guarded: RunningServer, verb: str, path: str, group: str
) -> None:
    name, secret = _KEYS[group]
    content = json.dumps(BODY) if path.endswith("infer") else ""
    last = path.rindex("/")
    written = [f"{path[:at]}%{ord(path[at]):02X}{path[at + 1 :]}" for at in (1, 4, last, last + 1, len(path) - 1)]
    for spelling in [*written, "".join(f"%{ord(letter):02x}" for letter in path[1:]).join(("/", ""))]:
        assert _asked(guarded, verb, spelling, content).status == 403, spelling
        # With its key it is served, unless that spelling is no route at all.
        assert _asked(guarded, verb, spelling, content, {name: secret}).status in {200, 404}, spelling


def _asked(
    server: RunningServer, verb: str, path: str, content: str, headers: dict[str, str] | None = None
) -> http.client.HTTPResponse:
    """The answer, to a path that is sent as it is."""
    connection = http.client.HTTPConnection(server.http, timeout=30)
    try:
        connection.request(verb, path, content, headers or {})
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def test_1_16_the_other_http_apis_stay_open(guarded: RunningServer) -> None:
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/double", "/v2/models/double/ready"):
        assert httpx.get(guarded.url + path, trust_env=False).status_code == 200


def test_1_16_closed_grpc_protocols(guarded: RunningServer) -> None:
    door = Grpc(guarded.grpc)
    stub = door.stub
    request = grpc_request(Call("double", (ROW,)))
    try:
        for call, name, secret in (
            (lambda **o: stub.ModelInfer(request, **o), "infer-key", "open"),
            (lambda **o: list(stub.ModelStreamInfer(iter([request]), **o)), "infer-key", "open"),
            (lambda **o: stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), **o), "admin-key", "secret"),
            (lambda **o: stub.ModelStatistics(service_pb2.ModelStatisticsRequest(), **o), "admin-key", "secret"),
            (lambda **o: stub.ServerReady(service_pb2.ServerReadyRequest(), **o), "admin-key", "secret"),
        ):
            for metadata in ((), ((f"triton-grpc-protocol-{name}", "wrong"),), ((name, secret),)):
                with pytest.raises(grpc.RpcError) as caught:
                    call(metadata=metadata)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert caught.value.details() == f"This protocol is restricted, expecting header '{name}'"
            assert call(metadata=((f"triton-grpc-protocol-{name}", secret),))
        assert stub.ServerMetadata(service_pb2.ServerMetadataRequest()).name == "triton"
    finally:
        door.close()


def test_1_16_tritonclient_with_the_keys(guarded: RunningServer) -> None:
    for kind, headers in (("http", {"infer-key": "open"}), ("grpc", {"triton-grpc-protocol-infer-key": "open"})):
        stranger = connect(kind, guarded)
        inputs = [stranger.input("x", np.ones((1, 4), np.float32))]
        with pytest.raises(InferenceServerException, match="restricted, expecting header 'infer-key'"):
            stranger.client.infer("double", inputs)
        assert stranger.client.infer("double", inputs, headers=headers).as_numpy("y").tolist() == [[2.0] * 4]
        stranger.client.close()


def test_1_4_forwarded_headers_break_nothing(guarded: RunningServer) -> None:
    headers = {"infer-key": "open", "X-Mine-One": "1", "x-mine-two": "a,b", "x-other": "3"}
    answer = httpx.post(f"{guarded.url}/v2/models/double/infer", json=BODY, headers=headers, trust_env=False)
    assert answer.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]
    assert "x-mine" not in answer.text
    door = Grpc(guarded.grpc)
    metadata = (
        ("triton-grpc-protocol-infer-key", "open"),
        ("x-mine-one", "1"),
        ("x-mine-bin", b"\x00\xff"),
        ("x-mine-one", "2"),
    )
    got = read_message(door.stub.ModelInfer(grpc_request(Call("double", (ROW,))), metadata=metadata))
    assert isinstance(got, Answer)
    door.close()


def test_a_full_server_answers_429_with_retry_after(guarded: RunningServer) -> None:
    door = Grpc(guarded.grpc)
    key = (("triton-grpc-protocol-infer-key", "open"),)

    def refused() -> float:
        return value(samples(guarded), "tensorquay_admission_rejected_total", reason="requests")

    first = door.stub.ModelInfer.future(grpc_request(Call("waiting", (ROW,))), metadata=key)
    try:
        until(lambda: waits(guarded, "waiting"), "the first request waits")
        before = refused()
        answer = httpx.post(
            f"{guarded.url}/v2/models/double/infer", json=BODY, headers={"infer-key": "open"}, trust_env=False
        )
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "--max-inflight-requests" in answer.json()["error"]
        with pytest.raises(grpc.RpcError) as caught:
            door.stub.ModelInfer(grpc_request(Call("double", (ROW,))), metadata=key)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        assert refused() == before + 2
        # Being full is no reason to be taken out of rotation.
        assert httpx.get(f"{guarded.url}/v2/health/ready", trust_env=False).status_code == 200
    finally:
        first.cancel()
    until(lambda: value(samples(guarded), "tensorquay_inflight_requests") == 0, "there is room again")
    assert door.stub.ModelInfer(grpc_request(Call("double", (ROW,))), metadata=key)
    door.close()
