"""A server with front-end processes gives the answers, and keeps the books, of one without."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tests.support import ask, graphs
from tests.support.http_raw import RawConnection, request
from tests.support.pki import Authority
from tests.support.repo import Repo
from tests.support.serving import RunningServer, launch, start
from tests.support.waiting import until

WIDE = 150_528
"""Elements of a picture: 600 KB, far more than goes through the socket."""

HUGE = 20 * 2**20
"""Elements that are more bytes than an arena has."""


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repo = Repo(tmp_path_factory.mktemp("fronted") / "repo")
    repo.model("scale", {1: graphs.scale(2.0)})
    repo.model("wide", {1: graphs.scale(3.0, ("batch", "n"))}, "max_batch_size = 8\n")
    repo.model("text", {1: graphs.identity("BYTES")})
    running = start([repo.root], "--frontends=2", "--access-log", "--http-max-input-size=268435456")
    yield running
    assert running.stop() == 0, running.told()


def test_every_request_is_counted_once_whichever_process_took_it(fronted: RunningServer) -> None:
    before = ask.metric(fronted, "nv_inference_request_success", model="scale")
    array = np.array([[1, 2, 3, 4]], np.float32)

    def http(count: int) -> int:
        for _ in range(count):
            # A connection each, so that the kernel spreads them over the processes.
            assert ask.values(ask.infer(fronted, "scale", array)) == [2, 4, 6, 8]
        return count

    def over_grpc(count: int) -> int:
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(fronted.grpc, options=options) as channel:
            call = ask.unary(channel, "ModelInfer")
            for _ in range(count):
                assert ask.raw_values(call(ask.infer_message(array, "scale"))) == [2, 4, 6, 8]
        return count

    with ThreadPoolExecutor(8) as pool:
        asked = sum(pool.map(lambda number: (http if number % 2 else over_grpc)(25), range(8)))

    after = ask.metric(fronted, "nv_inference_request_success", model="scale")
    assert after - before == asked
    statistics = json.loads(ask.get(fronted, "/v2/models/scale/stats").body)["model_stats"][0]
    assert statistics["inference_stats"]["success"]["count"] == after
    assert statistics["inference_count"] == ask.metric(fronted, "nv_inference_count", model="scale")
    used = [sum(process.cpu_times()[:2]) for process in psutil.Process(fronted.pid).children()]
    assert all(used), "one of the processes was never used"


@pytest.mark.parametrize("elements", [4, WIDE, HUGE])
def test_tensors_of_every_size_come_back_right_over_both_protocols(fronted: RunningServer, elements: int) -> None:
    array = np.random.default_rng(elements).standard_normal((1, elements), np.float32)
    with triton_http.InferenceServerClient(fronted.http, network_timeout=60, connection_timeout=60) as client:
        tensor = triton_http.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)
        got = client.infer("wide", [tensor]).as_numpy("y")
    np.testing.assert_array_equal(got, array * np.float32(3))
    with triton_grpc.InferenceServerClient(fronted.grpc) as client:
        tensor = triton_grpc.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)
        got = client.infer("wide", [tensor], client_timeout=60).as_numpy("y")
    np.testing.assert_array_equal(got, array * np.float32(3))


def test_many_large_tensors_at_once_do_not_get_mixed_up(fronted: RunningServer) -> None:
    """More than the arenas hold: some go through the socket."""

    def one(number: int) -> None:
        array = np.full((1, WIDE), number, np.float32)
        array[0, :number] = 0
        with triton_grpc.InferenceServerClient(fronted.grpc) as client:
            tensor = triton_grpc.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)
            for _ in range(3):
                np.testing.assert_array_equal(client.infer("wide", [tensor]).as_numpy("y"), array * np.float32(3))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(1, 33)))


def test_texts_of_every_length_come_back(fronted: RunningServer) -> None:
    texts = np.array([[b"", b"a", "ü€😀".encode(), bytes(range(256)), b"x" * 300_000]], np.object_)
    with triton_grpc.InferenceServerClient(fronted.grpc) as client:
        tensor = triton_grpc.InferInput("x", list(texts.shape), "BYTES").set_data_from_numpy(texts)
        got = client.infer("text", [tensor], request_id="größe").as_numpy("y")
    assert got.tolist() == texts.tolist()


def test_each_request_has_one_line_in_the_access_log_with_its_clients_address(fronted: RunningServer) -> None:
    marks = {"/v2/models/scale/versions/1": "control", "/v2/models/scale/versions/1/ready": "handed over"}
    for path in marks:
        assert ask.get(fronted, path).status == 200
    assert ask.post(fronted, "/v2/models/scale/versions/1/infer", b"{").status == 400
    for path in (*marks, "/v2/models/scale/versions/1/infer"):
        until(lambda path=path: _lines(fronted, f" {path} "), f"a line for {path}")
        (line,) = _lines(fronted, f" {path} ")
        assert "peer=127.0.0.1:" in line


def test_a_traced_request_has_its_trace_in_the_access_log(serve: Callable[..., RunningServer], tmp_path: Path) -> None:
    """Front ends see the callers' headers. Nobody collects the spans."""
    repo = Repo(tmp_path / "repo")
    repo.model("scale", {1: graphs.scale(2.0)})
    log = tmp_path / "log"
    spans = ("--trace-mode=opentelemetry", "--trace-rate=0", "--otlp-endpoint=http://127.0.0.1:9/v1/traces")
    server = serve([repo.root], "--access-log", "--log-format=json", f"--log-file={log}", "--frontends=1", *spans)
    row = np.array([[1, 2, 3, 4]], np.float32)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = f"00-{trace}-00f067aa0ba902b7-01"
    assert ask.post(server, "/v2/models/scale/infer", ask.infer_body(row), traceparent=parent).status == 200
    assert ask.infer(server, "scale", row).status == 200
    with grpc.insecure_channel(server.grpc) as channel:
        ask.unary(channel, "ModelInfer")(ask.infer_message(row, "scale"), metadata=(("traceparent", parent),))
    assert server.stop() == 0, "what was logged last is written too"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line.get("trace_id") for line in lines if line.get("model") == "scale" and "door" in line] == [
        trace,
        None,
        trace,
    ]


def test_a_client_that_leaves_is_noticed_through_the_link(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("waits", {1: graphs.scale(2.0)}, "max_batch_size = 32\n[batching]\nmax_queue_delay_us = 3_600_000_000\n")
    server = start([repo.root], "--frontends=2")
    try:
        with RawConnection(server.http) as leaving:
            leaving.send(request("/v2/models/waits/infer", ask.infer_body(np.ones((1, 4), np.float32))))
            until(lambda: ask.pending(server, "waits") == 1, "it is waiting")
        until(lambda: ask.pending(server, "waits") == 0, "it has left")
        with grpc.insecure_channel(server.grpc) as channel:
            call = ask.unary(channel, "ModelInfer").future(ask.infer_message(np.ones((1, 4), np.float32), "waits"))
            until(lambda: ask.pending(server, "waits") == 1, "it is waiting")
            call.cancel()
            until(lambda: ask.pending(server, "waits") == 0, "it has left")
            with pytest.raises(grpc.RpcError) as late:
                ask.unary(channel, "ModelInfer")(ask.infer_message(np.ones((1, 4), np.float32), "waits"), timeout=0.2)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: ask.metric(server, "nv_inference_request_failure", reason="CANCELED") == 3, "all are counted")
    finally:
        assert server.stop() == 0, server.told()


def test_requests_are_refused_with_the_owners_words_and_advice(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("waits", {1: graphs.scale(2.0)}, "max_batch_size = 32\n[batching]\nmax_queue_delay_us = 3_600_000_000\n")
    server = start([repo.root], "--frontends=2", "--max-inflight-requests=1")
    try:
        with RawConnection(server.http) as first:
            first.send(request("/v2/models/waits/infer", ask.infer_body(np.ones((1, 4), np.float32))))
            until(lambda: ask.pending(server, "waits") == 1, "it is waiting")
            refused = ask.infer(server, "waits", np.ones((1, 4), np.float32))
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        document = json.loads(refused.body)
        assert "at most 1 may" in document["error"]
        assert document["limit"] == 1
    finally:
        assert server.stop() == 0, server.told()


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_front_ends_need_transports_that_can_be_spread(door: str, tmp_path: Path) -> None:
    other = {"http": "asgi", "grpc": "grpcio"}[door]
    server = launch([tmp_path], "--frontends=2", f"--{door}-transport={other}")

    assert server.wait() == 2
    assert f"frontends needs {door}_transport native, got {other}" in server.told()


def _lines(server: RunningServer, text: str) -> list[str]:
    return [line for line in list(server.log) if text in line]


def test_each_front_end_speaks_tls(tmp_path: Path, serve: Callable[..., RunningServer]) -> None:
    authority = Authority(tmp_path / "pki")
    pair = authority.issue()
    repo = Repo(tmp_path / "repo")
    repo.model("scale", {1: graphs.scale(2.0)})
    flags = [
        flag
        for door in ("http", "grpc")
        for flag in (f"--{door}-use-ssl", f"--{door}-server-cert={pair.certificate}", f"--{door}-server-key={pair.key}")
    ]
    server = serve([repo.root], "--frontends=2", *flags)
    trusting = ssl.create_default_context(cafile=authority.certificate)
    trusting.check_hostname = False
    array = np.array([[1, 2, 3, 4]], np.float32)
    for _ in range(8):
        # A connection each: the kernel picks the process.
        with httpx.Client(base_url=f"https://{server.http}", verify=trusting) as client:
            body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
            answer = client.post("/v2/models/scale/infer", json=body)
            assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]
    roots = grpc.ssl_channel_credentials(Path(authority.certificate).read_bytes())
    with grpc.secure_channel(server.grpc, roots) as channel:
        call = ask.unary(channel, "ModelInfer")
        assert ask.raw_values(call(ask.infer_message(array, "scale"))) == [2, 4, 6, 8]
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://{server.http}/v2/health/live", timeout=20)
