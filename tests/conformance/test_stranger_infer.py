"""Predictions with tritonclient as it is: sync, async, callbacks, streams, compression, cancellation."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from tests.support.serving import RunningServer
from tritonclient.utils import InferenceServerException

from observing import failures, waits
from strangers import Stranger, connect, connect_async, simple_inputs
from waiting import until

KINDS = pytest.mark.parametrize("kind", ["http", "grpc"])


@pytest.fixture(scope="module")
def clients(server: RunningServer) -> Iterator[dict[str, Stranger]]:
    opened = {kind: connect(kind, server) for kind in ("http", "grpc")}
    yield opened
    for each in opened.values():
        each.client.close()


@pytest.fixture
def stranger(clients: dict[str, Stranger], kind: str) -> Stranger:
    return clients[kind]


@pytest.fixture(scope="module")
def zoo_grpc(zoo: RunningServer) -> Iterator[Stranger]:
    stranger = connect("grpc", zoo)
    yield stranger
    stranger.client.close()


def assert_simple(result: Any, a: np.ndarray, b: np.ndarray) -> None:
    assert np.array_equal(result.as_numpy("OUTPUT0"), a + b)
    assert np.array_equal(result.as_numpy("OUTPUT1"), a - b)


@KINDS
def test_infer(stranger: Stranger) -> None:
    inputs, a, b = simple_inputs(stranger, 3)
    result = stranger.client.infer("simple", inputs, request_id="r-1")
    assert_simple(result, a, b)
    response = result.get_response()
    assert (response["id"] if stranger.is_http else response.id) == "r-1"
    assert (response["model_version"] if stranger.is_http else response.model_version) == "1"


@KINDS
def test_infer_of_a_named_version_and_output(stranger: Stranger) -> None:
    inputs, a, b = simple_inputs(stranger)
    result = stranger.client.infer("simple", inputs, model_version="1", outputs=[stranger.output("OUTPUT1")])
    assert result.as_numpy("OUTPUT0") is None
    assert np.array_equal(result.as_numpy("OUTPUT1"), a - b)


@KINDS
def test_infer_with_every_option(stranger: Stranger) -> None:
    inputs, a, b = simple_inputs(stranger)
    result = stranger.client.infer(
        "simple",
        inputs,
        request_id="all",
        sequence_id=3,
        sequence_start=True,
        sequence_end=True,
        priority=1,
        timeout=10_000_000,
        headers={"x-request": "1"},
        parameters={"mine": "yes", "number": 3},
    )
    assert_simple(result, a, b)


def test_infer_as_json_both_ways(clients: dict[str, Stranger]) -> None:
    stranger = clients["http"]
    a = np.arange(16, dtype=np.int32).reshape(1, 16)
    inputs = [stranger.input("INPUT0", a, binary_data=False), stranger.input("INPUT1", a, binary_data=False)]
    outputs = [stranger.output("OUTPUT0", binary_data=False), stranger.output("OUTPUT1", binary_data=True)]
    result = stranger.client.infer("simple", inputs, outputs=outputs)
    assert "data" in result.get_output("OUTPUT0")
    assert "data" not in result.get_output("OUTPUT1")
    assert_simple(result, a, a)


@KINDS
def test_bytes_of_any_kind(stranger: Stranger) -> None:
    items = np.array([[b"\xff\xfe\x00", b"", "é漢".encode(), b"a\x00b\x00", bytes(range(256))]], dtype=np.object_)
    result = stranger.client.infer("simple_identity", [stranger.input("INPUT0", items, "BYTES")])
    assert np.array_equal(result.as_numpy("OUTPUT0"), items)


@KINDS
def test_text_as_the_examples_send_it(stranger: Stranger) -> None:
    items = np.array([["one", "zwei", "trois"]], dtype=np.object_)
    result = stranger.client.infer("simple_identity", [stranger.input("INPUT0", items, "BYTES")])
    assert [item.decode() for item in result.as_numpy("OUTPUT0")[0]] == ["one", "zwei", "trois"]


@KINDS
def test_classification(stranger: Stranger) -> None:
    name, shape = image_input(stranger)
    image = np.zeros((2, *shape[1:]), np.float32)
    outputs = [stranger.output("probabilities", class_count=3)]
    result = stranger.client.infer("digits", [stranger.input(name, image)], outputs=outputs)
    classes = result.as_numpy("probabilities")
    assert classes.shape == (2, 3)
    for row in classes:
        values = [float(item.decode().split(":")[0]) for item in row]
        assert values == sorted(values, reverse=True)
        for item in row:
            _, index, label = item.decode().split(":")
            assert 0 <= int(index) < 10
            assert label


def image_input(stranger: Stranger) -> tuple[str, list[int]]:
    entry = stranger.ask("get_model_metadata", "digits")["inputs"][0]
    return entry["name"], [int(size) for size in entry["shape"]]


@KINDS
def test_8_mib_each_way(stranger: Stranger, zoo: RunningServer, kind: str) -> None:
    other = connect(kind, zoo)
    array = np.arange(2 * 2**20, dtype=np.float32).reshape(2, -1)
    result = other.client.infer("t_fp32", [other.input("x", array)])
    assert np.array_equal(result.as_numpy("y"), array)
    other.client.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@KINDS
def test_compression(stranger: Stranger, coding: str) -> None:
    inputs, a, b = simple_inputs(stranger, 8)
    if stranger.is_http:
        options = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
    else:
        options = {"compression_algorithm": coding}
    assert_simple(stranger.client.infer("simple", inputs, **options), a, b)


@KINDS
def test_async_infer_many_at_once(stranger: Stranger) -> None:
    sent = [simple_inputs(stranger, 1 + number % 8) for number in range(16)]
    if stranger.is_http:
        waiting = [stranger.client.async_infer("simple", inputs) for inputs, _, _ in sent]
        for request, (_, a, b) in zip(waiting, sent, strict=True):
            assert_simple(request.get_result(), a, b)
        return
    done: queue.Queue[Any] = queue.Queue()
    for number, (inputs, _, _) in enumerate(sent):
        stranger.client.async_infer(
            "simple",
            inputs,
            lambda result, error, number=number: done.put((number, result, error)),
        )
    for _ in sent:
        number, result, error = done.get(timeout=60)
        assert error is None
        assert_simple(result, *sent[number][1:])


@KINDS
def test_async_infer_of_a_wrong_request(stranger: Stranger) -> None:
    inputs, _, _ = simple_inputs(stranger)
    if stranger.is_http:
        with pytest.raises(InferenceServerException, match="unknown model: 'nosuch'"):
            stranger.client.async_infer("nosuch", inputs).get_result()
        return
    done: queue.Queue[Any] = queue.Queue()
    stranger.client.async_infer("nosuch", inputs, lambda result, error: done.put((result, error)))
    result, error = done.get(timeout=60)
    assert result is None
    assert "unknown model: 'nosuch'" in error.message()


@KINDS
def test_errors_carry_status_and_text(stranger: Stranger) -> None:
    inputs, _, _ = simple_inputs(stranger)
    expected = {
        "http": ("404", "400"),
        "grpc": ("StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT"),
    }[stranger.kind]
    with pytest.raises(InferenceServerException) as caught:
        stranger.client.infer("nosuch", inputs)
    assert caught.value.status() == expected[0]
    assert "Request for unknown model: 'nosuch' is not found" in caught.value.message()
    wrong = [inputs[0], stranger.input("INPUT1", np.zeros((1, 16), np.float32))]
    with pytest.raises(InferenceServerException) as caught:
        stranger.client.infer("simple", wrong)
    assert caught.value.status() == expected[1]
    assert "inference input 'INPUT1' data-type is 'FP32', but model 'simple' expects 'INT32'" in caught.value.message()


# -- grpc only


def test_a_stream_answers_and_survives_errors(clients: dict[str, Stranger]) -> None:
    stranger = clients["grpc"]
    done: queue.Queue[Any] = queue.Queue()
    stranger.client.start_stream(lambda result, error: done.put((result, error)))
    try:
        inputs, a, b = simple_inputs(stranger)
        for model, failed in (("simple", False), ("nosuch", True), ("simple", False)):
            stranger.client.async_stream_infer(model, inputs, request_id=f"{model}-1")
            result, error = done.get(timeout=60)
            if failed:
                assert "unknown model: 'nosuch'" in error.message()
            else:
                assert error is None
                assert_simple(result, a, b)
                assert result.get_response().id == f"{model}-1"
    finally:
        stranger.client.stop_stream()


def test_a_stream_of_many_requests(clients: dict[str, Stranger]) -> None:
    stranger = clients["grpc"]
    done: queue.Queue[Any] = queue.Queue()
    stranger.client.start_stream(lambda result, error: done.put((result, error)))
    try:
        inputs, a, b = simple_inputs(stranger)
        for number in range(100):
            stranger.client.async_stream_infer("simple", inputs, request_id=str(number))
        seen = set()
        for _ in range(100):
            result, error = done.get(timeout=60)
            assert error is None
            assert_simple(result, a, b)
            seen.add(int(result.get_response().id))
        assert seen == set(range(100))
    finally:
        stranger.client.stop_stream()


def test_triton_grpc_error_gives_a_real_status(server: RunningServer) -> None:
    stranger = connect("grpc", server)
    done: queue.Queue[Any] = queue.Queue()
    stranger.client.start_stream(lambda result, error: done.put((result, error)), headers={"triton_grpc_error": "true"})
    inputs, _, _ = simple_inputs(stranger)
    stranger.client.async_stream_infer("nosuch", inputs)
    result, error = done.get(timeout=60)
    assert result is None
    assert error.status() == "StatusCode.NOT_FOUND"
    assert "unknown model: 'nosuch'" in error.message()
    stranger.client.stop_stream()
    stranger.client.close()


def test_cancelling_an_async_request(zoo: RunningServer, zoo_grpc: Stranger) -> None:
    done: queue.Queue[Any] = queue.Queue()
    row = np.ones((1, 4), np.float32)
    fails = failures(zoo, "waiting")
    context = zoo_grpc.client.async_infer(
        "waiting", [zoo_grpc.input("x", row)], lambda result, error: done.put((result, error))
    )
    until(lambda: waits(zoo, "waiting"), "the request waits")
    context.cancel()
    result, error = done.get(timeout=60)
    assert result is None
    assert error.status() == "StatusCode.CANCELLED"
    until(lambda: failures(zoo, "waiting") == fails + 1, "the request has left")


def test_a_client_timeout_ends_the_request_here_too(zoo: RunningServer, zoo_grpc: Stranger) -> None:
    fails = failures(zoo, "waiting")
    row = np.ones((1, 4), np.float32)
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        zoo_grpc.client.infer("waiting", [zoo_grpc.input("x", row)], client_timeout=0.05)
    until(lambda: failures(zoo, "waiting") == fails + 1, "the request has left the queue")


def test_raw_requests_by_the_clients_own_helpers(clients: dict[str, Stranger], server: RunningServer) -> None:
    inputs, a, b = simple_inputs(clients["http"])
    body, length = clients["http"].module.InferenceServerClient.generate_request_body(inputs)
    headers = {"Inference-Header-Content-Length": str(length)}
    answer = httpx.post(f"{server.url}/v2/models/simple/infer", content=body, headers=headers, trust_env=False)
    got = clients["http"].module.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(answer.headers["inference-header-content-length"])
    )
    assert_simple(got, a, b)


@KINDS
def test_threads_share_the_server(server: RunningServer, kind: str) -> None:
    def work(_number: int) -> int:
        stranger = connect(kind, server)
        try:
            for rows in range(1, 9):
                inputs, a, b = simple_inputs(stranger, rows)
                assert_simple(stranger.client.infer("simple", inputs), a, b)
        finally:
            stranger.client.close()
        return rows

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4), timeout=60)) == [8] * 4


# -- asyncio


@KINDS
async def test_aio_infer(server: RunningServer, kind: str) -> None:
    stranger = connect_async(kind, server)
    try:
        sent = [simple_inputs(stranger, rows) for rows in range(1, 9)]
        results = await asyncio.gather(*(stranger.client.infer("simple", inputs) for inputs, _, _ in sent))
        for result, (_, a, b) in zip(results, sent, strict=True):
            assert_simple(result, a, b)
        with pytest.raises(InferenceServerException, match="unknown model"):
            await stranger.client.infer("nosuch", sent[0][0])
        assert await stranger.client.is_server_live()
        assert await stranger.client.is_server_ready()
        assert await stranger.client.is_model_ready("simple")
    finally:
        await stranger.client.close()


async def test_aio_stream(server: RunningServer) -> None:
    stranger = connect_async("grpc", server)
    inputs, a, b = simple_inputs(stranger)

    async def requests() -> Any:
        for model in ("simple", "nosuch", "simple"):
            yield {"model_name": model, "inputs": inputs, "request_id": model}

    try:
        got = [pair async for pair in stranger.client.stream_infer(requests())]
    finally:
        await stranger.client.close()
    # Answers of different requests may overtake each other.
    assert sum(error is not None for _, error in got) == 1
    right = [result for result, error in got if error is None]
    assert len(right) == 2
    for result in right:
        assert_simple(result, a, b)


async def test_aio_cancellation_leaves_the_queue(zoo: RunningServer) -> None:
    fails = failures(zoo, "waiting")
    stranger = connect_async("grpc", zoo)
    row = stranger.input("x", np.ones((1, 4), np.float32))
    try:
        task = asyncio.ensure_future(stranger.client.infer("waiting", [row]))
        await asyncio.to_thread(until, lambda: waits(zoo, "waiting"), "the request waits")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(until, lambda: failures(zoo, "waiting") == fails + 1, "the request has left")
    finally:
        await stranger.client.close()
