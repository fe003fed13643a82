"""More than fits: the surplus is refused in words, what was accepted is right, and afterwards all is as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest
from tests.support import ask, graphs
from tests.support.http_raw import RawAnswer, RawConnection, request
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until

BRIEF = 300_000.0
"""Turns of `graphs.working`: about a third of a second, during which the others line up."""

MOST_REQUESTS = 12
QUEUE = 4
SERVER_QUEUE = 8
_NEVER_INLINE = '[execution]\ninline = "never"\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repo = Repo(tmp_path_factory.mktemp("overload") / "repo")
    repo.model("bounded", {1: graphs.working()}, f"{_NEVER_INLINE}[batching.queue]\nmax_queue_size = {QUEUE}\n")
    repo.model("work", {1: graphs.working()}, _NEVER_INLINE)
    running = start([repo.root], f"--max-inflight-requests={MOST_REQUESTS}", f"--max-queue-requests={SERVER_QUEUE}")
    yield running
    assert running.stop() == 0, running.told()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as made:
        yield made


def _block(server: RunningServer, pool: ThreadPoolExecutor, model: str, others: int = 0) -> Future[RawAnswer]:
    """Begin a slow request on `model`; returns when it runs."""
    slow = pool.submit(ask.infer, server, model, ask.sequence([[BRIEF, 1]]))
    until(lambda: _inside(server) == others + 1 and ask.pending(server, model) == 0, "the slow request runs")
    return slow


def _inside(server: RunningServer) -> int:
    return int(ask.metric(server, "tensorquay_inflight_requests"))


def _line_up(server: RunningServer, pool: ThreadPoolExecutor, model: str, count: int) -> list[Future[RawAnswer]]:
    """Let `count` requests wait behind what runs."""
    before = _inside(server)
    asked = [pool.submit(ask.infer, server, model, ask.sequence([[0, number]])) for number in range(count)]
    until(lambda: _inside(server) == before + count, f"{count} are waiting")
    return asked


def test_a_full_queue_of_the_model_answers_as_triton_does(server: RunningServer, pool: ThreadPoolExecutor) -> None:
    slow = _block(server, pool, "bounded")
    accepted = _line_up(server, pool, "bounded", QUEUE)

    refused = ask.infer(server, "bounded", ask.sequence([[0, 1]]))
    assert refused.status == 503
    assert b"Exceeds maximum queue size" in refused.body
    code, details, _ = _refused_grpc(server, "bounded")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "Exceeds maximum queue size" in details

    assert ask.values(slow.result()) == [2 * BRIEF, 2]
    assert [ask.values(each.result()) for each in accepted] == [[0, 2 * number] for number in range(QUEUE)]
    assert ask.values(ask.infer(server, "bounded", ask.sequence([[0, 9]]))) == [0, 18]


def test_a_full_queue_of_the_server_says_when_to_come_back(server: RunningServer, pool: ThreadPoolExecutor) -> None:
    slow = _block(server, pool, "work")
    accepted = _line_up(server, pool, "work", SERVER_QUEUE)

    refused = ask.infer(server, "work", ask.sequence([[0, 1]]))
    assert refused.status == 429, refused
    assert int(refused.headers["retry-after"]) >= 1
    code, _, trailing = _refused_grpc(server, "work")
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(trailing["grpc-retry-pushback-ms"]) >= 1000

    assert ask.values(slow.result()) == [2 * BRIEF, 2]
    assert [ask.values(each.result()) for each in accepted] == [[0, 2 * number] for number in range(SERVER_QUEUE)]


def test_a_full_server_refuses_for_all_models_and_stays_alive(server: RunningServer, pool: ThreadPoolExecutor) -> None:
    slow = [_block(server, pool, "work"), _block(server, pool, "bounded", 1)]
    accepted = [*_line_up(server, pool, "work", SERVER_QUEUE), *_line_up(server, pool, "bounded", 2)]
    assert _inside(server) == MOST_REQUESTS

    for model in ("work", "bounded"):
        refused = ask.infer(server, model, ask.sequence([[0, 1]]))
        assert refused.status == 429, refused
        assert b"--max-inflight-requests" in refused.body
        assert int(refused.headers["retry-after"]) >= 1
    assert ask.get(server, "/v2/health/ready").status == 200
    assert ask.get(server, "/v2/models/work/stats").status == 200
    assert all(each.result().status == 200 for each in (*slow, *accepted))
    assert ask.metric(server, "tensorquay_inflight_bytes") == 0


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
        hoarder = RawConnection(running.http)
        with hoarder:
            hoarder.send(request("/v2/models/scale/infer", length=1_900_000) + b" " * 999_990)
            body = ask.infer_body(ask.sequence([[1, 2, 3, 4]]))
            # The hoarder's bytes are counted when they have arrived.
            until(lambda: ask.post(running, "/v2/models/scale/infer", body).status == 429, "the budget is spent")
            refused = ask.post(running, "/v2/models/scale/infer", body)
            assert b"--max-inflight-bytes" in refused.body
            assert ask.get(running, "/v2/health/live").status == 200
        until(lambda: ask.post(running, "/v2/models/scale/infer", body).status == 200, "what it held is given back")
        too_large = ask.exchange(running.http, request("/v2/models/scale/infer", length=2_000_001))
        assert too_large.status == 400
        assert "--http-max-input-size" in json.loads(too_large.body)["error"]
    finally:
        assert running.stop() == 0, running.told()


def test_more_connections_than_file_descriptors_do_not_end_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    import resource

    repo = Repo(tmp_path_factory.mktemp("descriptors") / "repo")
    repo.model("scale", {1: graphs.scale(2.0)})
    running = start([repo.root])
    try:
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (120, 120))
        crowd: list[RawConnection] = []
        with pytest.raises(OSError):  # noqa: PT011  refused, reset or never answered: whatever the kernel makes of it
            for _ in range(200):
                crowd.append(RawConnection(running.http))
                crowd[-1].socket.settimeout(2)
                crowd[-1].send(request("/v2/health/live", method="GET"))
                crowd[-1].answer()
        for each in crowd:
            each.socket.close()
        until(lambda: _answers(running), "it answers again when they are gone")
    finally:
        assert running.stop() == 0, running.told()


def _answers(server: RunningServer) -> bool:
    try:
        return ask.values(ask.infer(server, "scale", ask.sequence([[1, 2, 3, 4]]))) == [2, 4, 6, 8]
    except Exception as error:
        if isinstance(error, OSError | ask.Dropped):
            return False
        raise


def _refused_grpc(server: RunningServer, model: str) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with grpc.insecure_channel(server.grpc, (("grpc.enable_retries", 0),)) as channel:
        call = ask.unary(channel, "ModelInfer").future(ask.infer_message(ask.sequence([[0, 1]]), model))
        return call.code(), call.details(), dict(call.trailing_metadata())
