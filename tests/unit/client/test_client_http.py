"""`HttpClient` and `AsyncHttpClient` over sockets and over a made-up transport."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest

from tensorquay_client import AsyncHttpClient, HttpClient, Retry
from tensorquay_client.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    ProtocolError,
    Unavailable,
)

METADATA = {
    "name": "echo",
    "versions": ["1"],
    "platform": "p",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
    "outputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
}


class Echo(BaseHTTPRequestHandler):
    """Answers a prediction with its own tensors; counts connections and requests."""

    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.server.requests += 1
        self.respond(200, json.dumps(METADATA).encode())

    def do_POST(self) -> None:
        self.server.requests += 1
        self.server.headers = dict(self.headers)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        length = int(self.headers["Inference-Header-Content-Length"])
        request = json.loads(body[:length])
        head = json.dumps({"model_name": "echo", "model_version": "1", "outputs": request["inputs"]}).encode()
        answer = head + body[length:]
        headers = {"Inference-Header-Content-Length": str(len(head))}
        if "gzip" in self.headers["Accept-Encoding"]:
            answer, headers["Content-Encoding"] = gzip.compress(answer), "gzip"
        self.respond(200, answer, headers)

    def respond(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    made.connections = made.requests = 0
    made.url = f"127.0.0.1:{made.server_address[1]}"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sleeps(list[float]):
    """Remembers pauses instead of making them."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)

    async def later(self, seconds: float) -> None:
        self.append(seconds)


LARGE = np.random.default_rng(1).random(300_001, dtype=np.float32)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_arrays_small_and_large_go_there_and_back_on_one_connection(server: Any, compression: Any) -> None:
    with HttpClient(server.url, compression=compression, headers={"Authorization": "me"}) as client:
        for array in (
            np.arange(3, dtype=np.float32),
            LARGE,
            np.zeros(0, np.int64),
            np.array([b"a", b""], dtype=object),
        ):
            result = client.infer("echo", {"x": array}, headers={"X-Trace": "1"})
            np.testing.assert_array_equal(result["x"], array)
    assert server.connections == 1
    assert server.headers["Authorization"] == "me"
    assert server.headers["X-Trace"] == "1"
    assert server.headers["Accept-Encoding"] == (compression or "identity")
    assert "Transfer-Encoding" not in server.headers


async def test_the_same_async(server: Any) -> None:
    async with AsyncHttpClient(server.url) as client:
        for array in (np.arange(3, dtype=np.float32), LARGE):
            np.testing.assert_array_equal((await client.infer("echo", {"x": array}))["x"], array)
        assert (await client.model_metadata("echo")).versions == ("1",)
    assert server.connections == 1


async def test_many_calls_at_once(server: Any) -> None:
    async with AsyncHttpClient(server.url, connections=4) as client:
        results = await asyncio.gather(*(client.infer("echo", {"x": np.array([i])}) for i in range(32)))
    assert [int(result["x"][0]) for result in results] == list(range(32))
    assert server.connections <= 4


def test_cast_asks_for_the_metadata_once(server: Any) -> None:
    with HttpClient(server.url) as client:
        for _ in range(3):
            assert client.infer("echo", {"x": [1, 2]}, cast=True).datatypes == {"x": "FP32"}
        assert server.requests == 4
        with pytest.raises(InvalidArgument, match="input 'x'"):
            client.infer("echo", {"x": ["text"]}, cast=True)


def test_a_closed_port_is_tried_again_with_pauses_and_then_reported(closed_port: int) -> None:
    sleeps = Sleeps()
    with HttpClient(f"127.0.0.1:{closed_port}", sleep=sleeps) as client:
        with pytest.raises(ConnectionFailed, match=f"infer 'm': cannot reach http://127.0.0.1:{closed_port}") as caught:
            client.infer("m", {"x": np.zeros(1)})
        assert not caught.value.sent
        assert caught.value.status is None
    assert len(sleeps) == 2
    assert max(sleeps) <= 0.1


async def test_a_closed_port_async(closed_port: int) -> None:
    sleeps = Sleeps()
    async with AsyncHttpClient(f"127.0.0.1:{closed_port}", retry=Retry(attempts=2), sleep=sleeps.later) as client:
        with pytest.raises(ConnectionFailed):
            await client.live()
    assert len(sleeps) == 1


def scripted(*answers: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    left, seen = list(answers), []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.MockTransport(handle), seen


BUSY = {"error": "not now"}
DONE = {"model_name": "m", "outputs": []}


def http(retry: Retry, *answers: httpx.Response | Exception) -> tuple[HttpClient, list[httpx.Request], Sleeps]:
    transport, seen = scripted(*answers)
    sleeps = Sleeps()
    return HttpClient("h:1", transport=transport, retry=retry, sleep=sleeps), seen, sleeps


def test_questions_are_repeated() -> None:
    client, seen, _ = http(
        Retry(),
        httpx.Response(503, json=BUSY),
        httpx.ReadError("reset"),
        httpx.Response(200, json={"name": "n", "version": "1"}),
    )
    with client:
        assert client.server_metadata().name == "n"
    assert [str(request.url) for request in seen] == ["http://h:1/v2"] * 3


def test_predictions_are_not_repeated_by_default() -> None:
    for answer, kind in ((httpx.Response(503, json=BUSY), Unavailable), (httpx.ReadError("reset"), ConnectionFailed)):
        client, seen, sleeps = http(Retry(), answer)
        with client, pytest.raises(kind):
            client.infer("m", {})
        assert (len(seen), sleeps) == (1, [])


def test_predictions_are_repeated_when_allowed_and_told_when() -> None:
    client, seen, sleeps = http(
        Retry(infer=True), httpx.Response(429, json=BUSY, headers={"Retry-After": "1"}), httpx.Response(200, json=DONE)
    )
    with client:
        assert client.infer("m", {}).model_name == "m"
    assert (len(seen), sleeps) == (2, [1.0])


def test_predictions_refused_without_a_time_to_return_are_not_repeated() -> None:
    client, seen, _ = http(Retry(infer=True), httpx.Response(503, json=BUSY))
    with client, pytest.raises(Unavailable, match="not now"):
        client.infer("m", {})
    assert len(seen) == 1


def test_loading_is_never_repeated_once_sent() -> None:
    client, seen, _ = http(Retry(infer=True), httpx.Response(503, json=BUSY, headers={"Retry-After": "1"}))
    with client, pytest.raises(Unavailable):
        client.load_model("m")
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpx.ConnectTimeout("slow"), ConnectionFailed),
        (httpx.ReadTimeout("slow"), DeadlineExceeded),
        (httpx.WriteTimeout("slow"), DeadlineExceeded),
        (httpx.PoolTimeout("busy"), DeadlineExceeded),
        (httpx.RemoteProtocolError("cut"), ConnectionFailed),
        (httpx.UnsupportedProtocol("what"), ProtocolError),
    ],
)
def test_failures_of_the_carrier_are_ours(raised: Exception, kind: type[Exception]) -> None:
    client, _, _ = http(Retry(attempts=1), raised)
    with client, pytest.raises(kind, match="server readiness"):
        client.ready()


def test_answers_are_limited_after_decompression() -> None:
    bomb = httpx.Response(200, content=gzip.compress(b" " * 100_000), headers={"Content-Encoding": "gzip"})
    transport, _ = scripted(bomb)
    with (
        HttpClient("h:1", transport=transport, max_response_bytes=10_000) as client,
        pytest.raises(ProtocolError, match="max_response_bytes = 10000"),
    ):
        client.server_metadata()


async def test_the_timeout_ends_an_answer_that_never_comes() -> None:
    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with AsyncHttpClient("h:1", transport=httpx.MockTransport(silent)) as client:
        with pytest.raises(DeadlineExceeded, match="infer 'm': no answer within") as caught:
            await client.infer("m", {}, timeout_s=0.01)
    assert caught.value.status is None


async def test_all_calls_have_async_twins() -> None:
    answers: dict[tuple[str, str], Any] = {
        ("GET", "/v2/health/live"): None,
        ("GET", "/v2/health/ready"): None,
        ("GET", "/v2/models/m/ready"): None,
        ("GET", "/v2"): {"name": "n", "version": "1", "extensions": ["a"]},
        ("GET", "/v2/models/m"): METADATA,
        ("GET", "/v2/models/m/config"): {"name": "m"},
        ("GET", "/v2/models/m/stats"): {"model_stats": []},
        ("POST", "/v2/repository/index"): [],
        ("POST", "/v2/repository/models/m/load"): None,
        ("POST", "/v2/repository/models/m/unload"): None,
        ("POST", "/v2/models/m/infer"): DONE,
    }

    def handle(request: httpx.Request) -> httpx.Response:
        found = answers[request.method, request.url.path]
        return httpx.Response(200, content=b"" if found is None else json.dumps(found).encode())

    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("live", ()),
        ("ready", ()),
        ("model_ready", ("m",)),
        ("server_metadata", ()),
        ("model_metadata", ("m",)),
        ("model_config", ("m",)),
        ("statistics", ("m",)),
        ("repository_index", ()),
        ("load_model", ("m",)),
        ("unload_model", ("m",)),
    ]
    transport = httpx.MockTransport(handle)
    with HttpClient("h:1", transport=transport) as sync:
        async with AsyncHttpClient("h:1", transport=transport) as other:
            for name, arguments in calls:
                method: Callable[..., Awaitable[Any]] = getattr(other, name)
                assert await method(*arguments) == getattr(sync, name)(*arguments), name
            cast = await other.infer("m", {"x": [1]}, cast=True)
            assert cast.model_name == sync.infer("m", {"x": [1]}, cast=True).model_name


def test_a_closed_client_says_so() -> None:
    client = HttpClient("h:1")
    assert repr(client) == "HttpClient('h:1')"
    client.close()
    with pytest.raises(RuntimeError, match=r"HttpClient\('h:1', closed\)"):
        client.live()


def test_errors_of_the_server_are_typed(server: Any) -> None:
    transport, _ = scripted(httpx.Response(404, json={"error": "Request for unknown model: 'm' is not found"}))
    with HttpClient("h:1", transport=transport) as client, pytest.raises(NotFound, match="unknown model: 'm'"):
        client.infer("m", {})
