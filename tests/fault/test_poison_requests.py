"""A request that breaks the model does so for itself alone: its batch, the model and the server go on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tests.support import ask, graphs
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tritonclient.grpc import service_pb2

TABLE = (10.0, 20.0, 30.0)
POISON = 99

# The batch waits until it is full: whoever is in it is decided by the test and not by the clock.
_FULL_BATCHES = """
    max_batch_size = 8
    [batching]
    max_queue_delay_us = 3_600_000_000
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repo = Repo(tmp_path_factory.mktemp("poison") / "repo")
    repo.model("lookup", {1: graphs.batched_lookup(TABLE)}, _FULL_BATCHES)
    repo.model("inline", {1: graphs.batched_lookup(TABLE)}, '[execution]\ninline = "always"\n')
    repo.model("threaded", {1: graphs.batched_lookup(TABLE)}, '[execution]\ninline = "never"\n')
    repo.model("fold", {1: graphs.reshape()})
    repo.model("expand", {1: graphs.expand()})
    repo.model("any", {1: graphs.scale(2.0, ("batch", "n"))}, _FULL_BATCHES)
    running = start([repo.root])
    yield running
    assert running.stop() == 0, running.told()


@pytest.mark.parametrize("poisoned", [{3}, {0, 7}, {1, 2, 3, 4}, set(range(8))], ids=str)
def test_only_the_poisoned_riders_of_a_batch_fail(server: RunningServer, poisoned: set[int]) -> None:
    indices = [POISON if rider in poisoned else rider % 3 for rider in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda index: _look_up(server, "lookup", index), indices))

    for rider, answer in enumerate(answers):
        if rider in poisoned:
            assert answer.status == 400, answer
            assert b"lookup" in answer.body
        else:
            assert ask.values(answer) == [TABLE[rider % 3]]


def test_only_the_poisoned_riders_fail_over_grpc(server: RunningServer) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        infer = ask.unary(channel, "ModelInfer")
        calls = [
            infer.future(ask.infer_message(np.array([[index]], np.int64), "lookup", "index"))
            for index in (0, POISON, 2, 1, 0, 1, -50, 2)
        ]
        codes = [None if (failed := call.exception()) is None else failed.code() for call in calls]
        told = [ask.raw_values(call.result()) for call, code in zip(calls, codes, strict=True) if code is None]

    wrong = grpc.StatusCode.INVALID_ARGUMENT
    assert codes == [None, wrong, None, None, None, None, wrong, None]
    assert told == [[10], [30], [20], [10], [20], [30]]


def test_a_poisoned_request_of_a_stream_fails_alone(server: RunningServer) -> None:
    messages = [
        ask.infer_message(np.array([[index]], np.int64), "threaded", "index", id=str(number))
        for number, index in enumerate((0, POISON, 2))
    ]
    with grpc.insecure_channel(server.grpc) as channel:
        stream = channel.stream_stream(ask.SERVICE + "ModelStreamInfer")(iter(messages))
        told = [service_pb2.ModelStreamInferResponse.FromString(message) for message in stream]

    assert len(told) == 3
    assert {each.infer_response.id for each in told if not each.error_message} == {"0", "2"}
    assert sum(bool(each.error_message) for each in told) == 1


@pytest.mark.parametrize("model", ["inline", "threaded"])
def test_a_model_that_fails_at_run_time_serves_on(server: RunningServer, model: str) -> None:
    for _ in range(50):
        assert _look_up(server, model, POISON).status == 400
        assert ask.values(_look_up(server, model, 1)) == [20]


def test_a_run_that_fails_inside_the_runtime_is_told_without_its_inside(server: RunningServer) -> None:
    body = (
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[4],"data":[1,2,3,4]},'
        b'{"name":"shape","datatype":"INT64","shape":[2],"data":[3,%d]}]}'
    )
    refused = ask.post(server, "/v2/models/fold/infer", body % 3)
    assert refused.status == 500, refused
    assert b"fold" in refused.body
    assert b"/" not in refused.body, "no path of this machine"
    assert b".cc" not in refused.body, "no source of the runtime"
    assert ask.post(server, "/v2/models/fold/infer", body.replace(b"[3,%d]", b"[2,2]")).status == 200


def test_a_run_that_wants_more_memory_than_there_is_fails_alone(server: RunningServer) -> None:
    body = (
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]},'
        b'{"name":"shape","datatype":"INT64","shape":[3],"data":[%d,%d,%d]}]}'
    )
    refused = ask.post(server, "/v2/models/expand/infer", body % (2**20, 2**20, 2**10))
    assert refused.status in {400, 500, 503}, refused
    refused = ask.post(server, "/v2/models/expand/infer", body % (2**40, 2**40, 2**40))
    assert refused.status in {400, 500}, refused
    assert ask.values(ask.post(server, "/v2/models/expand/infer", body % (1, 2, 3))) == [1] * 6


def test_requests_of_different_shapes_wait_for_company_of_their_own(server: RunningServer) -> None:
    """Eight of each of three shapes, all mixed: three full batches, everybody gets its own numbers."""
    arrays = [np.full((1, 1 + number % 3), number, np.float32) for number in range(24)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda array: ask.infer(server, "any", array), arrays))

    for array, answer in zip(arrays, answers, strict=True):
        assert ask.values(answer) == (2 * array).reshape(-1).tolist()
    statistics = ask.get(server, "/v2/models/any/stats").body
    assert b'"batch_size":8' in statistics.replace(b" ", b"")


def test_numbers_that_are_none_stay_with_their_request(server: RunningServer) -> None:
    """NaN and infinity in one row of a batch reach neither another row nor the text of another answer."""
    rows = [np.full((1, 5), value, np.float32) for value in (1, np.nan, 2, np.inf, 3, -np.inf, 4, 5)]
    with grpc.insecure_channel(server.grpc) as channel:
        infer = ask.unary(channel, "ModelInfer")
        calls = [infer.future(ask.infer_message(row, "any")) for row in rows]
        told = [np.array(ask.raw_values(call.result())) for call in calls]

    for row, answer in zip(rows, told, strict=True):
        np.testing.assert_array_equal(answer, 2 * row[0])


def _look_up(server: RunningServer, model: str, index: int) -> ask.RawAnswer:
    return ask.infer(server, model, np.array([[index]], np.int64), "index")
