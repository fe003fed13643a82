"""More than fits: the surplus is refused in words, what was accepted is right, and afterwards all is as before."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest
from tests.support import ask, graphs
from tests.support.http_raw import Dropped, RawAnswer, RawConnection, exchange, request
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until

MOST_REQUESTS = 12
QUEUE = 4
SERVER_QUEUE = 8
ROWS = 16

# The batch waits until it is full: the queue is as long as the test makes it.
_FULL_BATCHES = f"""
    max_batch_size = {ROWS}
    [batching]
    max_queue_delay_us = 3_600_000_000
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repo = Repo(tmp_path_factory.mktemp("overload") / "repo")
    repo.model("bounded", {1: graphs.working()}, f"{_FULL_BATCHES}[batching.queue]\nmax_queue_size = {QUEUE}\n")
    repo.model("waits", {1: graphs.working()}, _FULL_BATCHES)
    repo.model("work", {1: graphs.working()}, "[execution]\ninline = 'never'\n")
    running = start([repo.root], f"--max-inflight-requests={MOST_REQUESTS}", f"--max-queue-requests={SERVER_QUEUE}")
    yield running
    assert running.stop() == 0, running.told()


@pytest.fixture
def crowd(server: RunningServer) -> Iterator[Crowd]:
    with ThreadPoolExecutor(64) as pool:
        made = Crowd(server, pool)
        yield made
        made.check()


class Crowd:
    """Requests that wait for full batches."""

    def __init__(self, server: RunningServer, pool: ThreadPoolExecutor) -> None:
        self._server = server
        self._pool = pool
        self._waiting: dict[str, list[Future[RawAnswer]]] = {}
        self._leavers: list[RawConnection] = []

    def wait(self, model: str, count: int) -> None:
        """Let `count` requests wait for `model`, of whom one will leave in the end."""
        leaver = RawConnection(self._server.http)
        leaver.send(request(f"/v2/models/{model}/infer", ask.infer_body(ask.sequence([[0, 77]]))))
        self._leavers.append(leaver)
        self._waiting[model] = [self._ask(model, number, 1) for number in range(count - 1)]
        until(lambda: ask.pending(self._server, model) == count, f"{count} are waiting")

    def check(self) -> None:
        """Fill each batch: everybody else has the right answer, and nothing is left behind."""
        for leaver in self._leavers:
            leaver.reset()
        for model, waiting in self._waiting.items():
            until(lambda: ask.pending(self._server, model) == len(waiting), "one has left")  # noqa: B023  asked at once
            waiting.append(self._ask(model, len(waiting), ROWS - len(waiting)))
            for number, answer in enumerate(waiting):
                assert ask.values(answer.result())[-2:] == [0, 2 * number]
        until(lambda: _inside(self._server) == 0, "nothing is left inside")
        assert ask.metric(self._server, "tensorquay_inflight_bytes") == 0

    def _ask(self, model: str, number: int, rows: int) -> Future[RawAnswer]:
        return self._pool.submit(ask.infer, self._server, model, ask.sequence([[0, number]] * rows))


def test_a_full_queue_of_the_model_answers_as_triton_does(server: RunningServer, crowd: Crowd) -> None:
    crowd.wait("bounded", QUEUE)

    refused = ask.infer(server, "bounded", ask.sequence([[0, 1]]))
    assert refused.status == 503
    assert b"Exceeds maximum queue size" in refused.body
    code, details, _ = _refused_grpc(server, "bounded")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "Exceeds maximum queue size" in details


def test_a_full_queue_of_the_server_says_when_to_come_back(server: RunningServer, crowd: Crowd) -> None:
    crowd.wait("waits", SERVER_QUEUE)
    before = _rejected(server, "waits", "server_queue_full")

    refused = ask.infer(server, "waits", ask.sequence([[0, 1]]))
    assert refused.status == 429, refused
    assert int(refused.headers["retry-after"]) >= 1
    code, _, trailing = _refused_grpc(server, "waits")
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(trailing["grpc-retry-pushback-ms"]) >= 1000
    assert _rejected(server, "waits", "server_queue_full") == before + 2
    assert ask.values(ask.infer(server, "work", ask.sequence([[0, 1]]))) == [0, 2], "another model has its own queue"


def test_a_full_server_refuses_for_all_models_and_stays_alive(server: RunningServer, crowd: Crowd) -> None:
    crowd.wait("waits", SERVER_QUEUE)
    crowd.wait("bounded", MOST_REQUESTS - SERVER_QUEUE)

    for model in ("waits", "bounded", "work"):
        before = _rejected(server, model, "inflight_requests")
        offered = ask.metric(server, "tensorquay_offered_rows_total", model=model)
        refused = ask.infer(server, model, ask.sequence([[0, 1]]))
        assert refused.status == 429, refused
        assert b"--max-inflight-requests" in refused.body
        assert int(refused.headers["retry-after"]) >= 1
        assert _rejected(server, model, "inflight_requests") == before + 1
        assert ask.metric(server, "tensorquay_offered_rows_total", model=model) == offered + 1, "it was asked for"
    assert ask.get(server, "/v2/health/ready").status == 200
    assert ask.get(server, "/v2/models/work/stats").status == 200


def _rejected(server: RunningServer, model: str, reason: str) -> float:
    return ask.metric(server, "tensorquay_rejected_total", model=model, reason=reason)


def _inside(server: RunningServer) -> int:
    return int(ask.metric(server, "tensorquay_inflight_requests"))


def test_a_storm_is_weathered(server: RunningServer) -> None:
    """Several times more clients than fit, asking again at once whenever they are refused."""
    with Load(server, "work", http=16, grpc=8, width=2, lead=2_000.0) as load:
        load.more(3)

    load.check({2.0}, refusals=True)
    assert any(told.refused for told in load.told), "it was never too much"
    until(lambda: _inside(server) == 0, "nothing is left inside")
    with Load(server, "work", http=1, grpc=1, width=2, lead=0.0) as calm:
        calm.more(10)
    calm.check({2.0})


def test_bodies_beyond_the_budget_are_refused_before_they_are_read(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    repo = Repo(tmp_path_factory.mktemp("bytes") / "repo")
    repo.model("scale", {1: graphs.scale(2.0, ("batch", 4))})
    running = start([repo.root], "--max-inflight-bytes=1000000", "--http-max-input-size=2000000")
    try:
        path = "/v2/models/scale/infer"
        # Too long to arrive in one piece, as small requests do; those are served whatever others send.
        large = ask.infer_body(ask.sequence([[1, 2, 3, 4]])) + b" " * 800_000
        with RawConnection(running.http) as hoarder:
            hoarder.send(request(path, length=1_900_000) + b" " * 999_990)
            until(lambda: ask.post(running, path, large).status == 429, "the budget is spent")
            refused = ask.post(running, path, large)
            assert refused.status == 429
            assert b"--max-inflight-bytes" in refused.body
            assert int(refused.headers["retry-after"]) >= 1
            assert ask.get(running, "/v2/health/live").status == 200
        until(lambda: ask.post(running, path, large).status == 200, "what it held is given back")
        too_large = exchange(running.http, request("/v2/models/scale/infer", length=2_000_001))
        assert too_large.status == 400
        assert ask.metric(running, "tensorquay_refused_requests_total", reason="resource_exhausted") >= 2
        assert ask.metric(running, "tensorquay_refused_requests_total", reason="invalid_argument") == 1
        assert "--http-max-input-size" in json.loads(too_large.body)["error"]
    finally:
        assert running.stop() == 0, running.told()


def test_more_connections_than_file_descriptors_do_not_end_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    repo = Repo(tmp_path_factory.mktemp("descriptors") / "repo")
    repo.model("scale", {1: graphs.scale(2.0)})
    running = start([repo.root])
    try:
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (120, 120))
        with contextlib.ExitStack() as crowd:
            until(lambda: not _one_more(running, crowd), "no more fit")
        until(lambda: _answers(running), "it answers again when they are gone")
    finally:
        assert running.stop() == 0, running.told()


def _one_more(server: RunningServer, crowd: contextlib.ExitStack) -> bool:
    """Whether a further client, who stays, is served; what happens to one who is not is the kernel's affair."""
    try:
        client = crowd.enter_context(RawConnection(server.http))
        client.socket.settimeout(2)
        client.send(request("/v2/health/live", method="GET"))
        return client.answer().status == 200
    except (OSError, Dropped):
        return False


def _answers(server: RunningServer) -> bool:
    try:
        return ask.values(ask.infer(server, "scale", ask.sequence([[1, 2, 3, 4]]))) == [2, 4, 6, 8]
    except (OSError, Dropped):
        return False


def _refused_grpc(server: RunningServer, model: str) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with grpc.insecure_channel(server.grpc, (("grpc.enable_retries", 0),)) as channel:
        call = ask.unary(channel, "ModelInfer").future(ask.infer_message(ask.sequence([[0, 1]]), model))
        return call.code(), call.details(), dict(call.trailing_metadata())
