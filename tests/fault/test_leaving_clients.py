"""A client that leaves costs its own answer and nobody else's, wherever its request is at that moment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest
from tests.support import ask, graphs
from tests.support.http_raw import RawAnswer, RawConnection, request
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until

LONG = 1_000_000.0
"""Turns of `graphs.working`: about a second, for leaving in the middle of a run."""

ROWS = 16

# The batch waits until it is full: who waits and for how long is decided by the test and not by a clock.
_FULL_BATCHES = f"""
    max_batch_size = {ROWS}
    [batching]
    max_queue_delay_us = 3_600_000_000
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repo = Repo(tmp_path_factory.mktemp("leaving") / "repo")
    repo.model("work", {1: graphs.working()}, f"{_FULL_BATCHES}[execution]\ninline = 'never'\n")
    running = start([repo.root])
    yield running
    assert running.stop() == 0, running.told()


@pytest.fixture
def queue(server: RunningServer) -> Iterator[Queue]:
    with ThreadPoolExecutor(16) as pool, grpc.insecure_channel(server.grpc) as channel:
        made = Queue(server, pool, channel)
        yield made
        made.check_everybody_else()


class Queue:
    """Clients whose requests wait for a full batch, and some of whom leave."""

    def __init__(self, server: RunningServer, pool: ThreadPoolExecutor, channel: grpc.Channel) -> None:
        self.server = server
        self.channel = channel
        self._pool = pool
        self._staying: list[tuple[Future[RawAnswer], list[float]]] = []
        self._canceled = self._failures("CANCELED")

    def stay(self, *numbers: float, rows: int = 1) -> None:
        """Clients that wait for their answers, with `rows` rows each."""
        for number in numbers:
            answer = self._pool.submit(ask.infer, self.server, "work", ask.sequence([[0, number]] * rows))
            self._staying.append((answer, [0, 2 * number] * rows))

    def leaver(self, turns: float = 0, count: int = 1) -> RawConnection:
        """An HTTP client with `count` requests sent."""
        client = RawConnection(self.server.http)
        client.send(request("/v2/models/work/infer", ask.infer_body(ask.sequence([[turns, 77]]))) * count)
        return client

    def waiting(self, count: int) -> None:
        """Wait until `count` requests wait."""
        until(lambda: ask.pending(self.server, "work") == count, f"{count} are waiting")

    def gone(self, count: int = 1) -> None:
        """Wait until the server has noticed that `count` clients left."""
        until(lambda: self._failures("CANCELED") == self._canceled + count, f"{count} are counted as canceled")

    def inside(self) -> int:
        """Requests accepted and not answered."""
        return int(ask.metric(self.server, "tensorquay_inflight_requests"))

    def check_everybody_else(self) -> None:
        """Fill the batch: everybody who stayed has the right answer, and nothing is left behind."""
        if waiting := ask.pending(self.server, "work"):
            self.stay(5, rows=ROWS - waiting)
        for answer, expected in self._staying:
            assert ask.values(answer.result()) == expected
        until(lambda: self.inside() == 0, "nothing is left inside")
        assert ask.pending(self.server, "work") == 0
        assert ask.metric(self.server, "tensorquay_inflight_bytes") == 0

    def _failures(self, reason: str) -> int:
        return int(ask.metric(self.server, "nv_inference_request_failure", model="work", reason=reason))


@pytest.mark.parametrize("how", ["in good order", "with a reset"])
def test_an_http_client_leaves_while_it_waits(queue: Queue, how: str) -> None:
    queue.stay(1)
    leaver = queue.leaver()
    queue.stay(2, 3)
    queue.waiting(4)

    leaver.socket.close() if how == "in good order" else leaver.reset()

    queue.gone()
    queue.waiting(3)


@pytest.mark.parametrize("how", ["in good order", "with a reset"])
def test_an_http_client_leaves_in_the_middle_of_the_run(queue: Queue, how: str) -> None:
    """It cannot be taken out of the batch any more; the batch goes on for the others."""
    queue.stay(1, 2, 3)
    leaver = queue.leaver(LONG)
    queue.waiting(4)
    queue.stay(4, rows=ROWS - 4)
    until(lambda: ask.pending(queue.server, "work") == 0, "they ride together")

    leaver.socket.close() if how == "in good order" else leaver.reset()

    queue.gone()


def test_a_grpc_client_cancels_while_it_waits(queue: Queue) -> None:
    queue.stay(1)
    leaver = ask.unary(queue.channel, "ModelInfer").future(ask.infer_message(ask.sequence([[0, 77]]), "work"))
    queue.stay(2, 3)
    queue.waiting(4)

    leaver.cancel()

    queue.gone()
    queue.waiting(3)


def test_a_grpc_client_cancels_in_the_middle_of_the_run(queue: Queue) -> None:
    queue.stay(1, 2, 3)
    leaver = ask.unary(queue.channel, "ModelInfer").future(ask.infer_message(ask.sequence([[LONG, 77]]), "work"))
    queue.waiting(4)
    queue.stay(4, rows=ROWS - 4)
    until(lambda: ask.pending(queue.server, "work") == 0, "they ride together")

    leaver.cancel()

    queue.gone()


def test_a_grpc_deadline_passes_while_the_request_waits(queue: Queue) -> None:
    queue.stay(1)
    queue.waiting(1)
    late = ask.unary(queue.channel, "ModelInfer").future(
        ask.infer_message(ask.sequence([[0, 77]]), "work"), timeout=0.3
    )
    queue.stay(2, 3)

    assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED

    queue.gone()
    queue.waiting(3)


def test_a_grpc_client_dies(queue: Queue) -> None:
    with grpc.insecure_channel(queue.server.grpc, (("grpc.use_local_subchannel_pool", 1),)) as channel:
        calls = [
            ask.unary(channel, "ModelInfer").future(ask.infer_message(ask.sequence([[0, 77]]), "work"))
            for _ in range(5)
        ]
        queue.stay(1, 2, 3)
        queue.waiting(8)

    queue.gone(5)
    assert all(call.exception().code() is grpc.StatusCode.CANCELLED for call in calls)


def test_a_stream_breaks_with_requests_waiting(queue: Queue) -> None:
    messages = [ask.infer_message(ask.sequence([[0, 77]]), "work", id=str(number)) for number in range(5)]
    stream = queue.channel.stream_stream(ask.SERVICE + "ModelStreamInfer")(iter(messages))
    queue.stay(1, 2, 3)
    queue.waiting(8)

    stream.cancel()

    queue.gone(5)
    queue.waiting(3)


def test_a_whole_crowd_leaves_in_the_middle_of_the_run(queue: Queue) -> None:
    """Some of the crowd ride, some wait, and one has sent more rows than a batch holds."""
    queue.stay(1)
    crowd = [queue.leaver(LONG) for _ in range(3)]
    queue.waiting(4)
    crowd.append(RawConnection(queue.server.http))
    crowd[-1].send(request("/v2/models/work/infer", ask.infer_body(ask.sequence([[LONG, 77]] * (ROWS + ROWS - 4)))))
    # Its first piece does not fit beside the four, so they go without it.
    until(lambda: queue.inside() == 5 and ask.pending(queue.server, "work") == 2, "the four are running")
    crowd += [queue.leaver(LONG) for _ in range(7)]
    until(lambda: queue.inside() == 12, "all are inside")

    for leaver in crowd:
        leaver.reset()

    queue.gone(11)


def test_pipelined_requests_leave_with_their_connection(queue: Queue) -> None:
    leaver = queue.leaver(count=3)
    queue.stay(1, 2, 3)
    queue.waiting(6)

    leaver.reset()

    queue.gone(3)
    queue.waiting(3)


def test_a_client_that_never_reads_its_answers_does_not_stop_the_others(queue: Queue) -> None:
    with RawConnection(queue.server.http) as deaf:
        deaf.send(request("/v2/models/work/infer", ask.infer_body(ask.sequence([[0, 1]] * ROWS * 100))) * 40)
        for number in range(20):
            answer = ask.infer(queue.server, "work", ask.sequence([[0, number]] * ROWS))
            assert ask.values(answer) == [0, 2 * number] * ROWS
