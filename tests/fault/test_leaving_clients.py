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

BRIEF = 300_000.0
"""Turns of `graphs.working`: about a third of a second, during which the others line up."""

_PATH = "/v2/models/work/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repo = Repo(tmp_path_factory.mktemp("leaving") / "repo")
    repo.model("work", {1: graphs.working()}, '[execution]\ninline = "never"\n')
    running = start([repo.root])
    yield running
    assert ask.pending(running, "work") == 0
    assert ask.metric(running, "tensorquay_inflight_requests") == 0
    assert ask.metric(running, "tensorquay_inflight_bytes") == 0
    assert running.stop() == 0, running.told()


@pytest.fixture
def queue(server: RunningServer) -> Iterator[Queue]:
    with ThreadPoolExecutor(16) as pool, grpc.insecure_channel(server.grpc) as channel:
        made = Queue(server, pool, channel)
        yield made
        made.check_everybody_else()


class Queue:
    """Clients in line behind a slow request, some of whom leave."""

    def __init__(self, server: RunningServer, pool: ThreadPoolExecutor, channel: grpc.Channel) -> None:
        self.server = server
        self.channel = channel
        self._pool = pool
        self._staying: list[tuple[Future[RawAnswer], list[float]]] = []
        self._canceled = self._failures("CANCELED")
        self._inside = 0

    def block(self, turns: float = BRIEF) -> None:
        """Begin a slow request, and wait until it is running: what comes now waits behind it."""
        self._staying.append((self._ask(turns, 1.0), [2 * turns, 2.0]))
        self._inside += 1
        until(lambda: self.inside() == self._inside and ask.pending(self.server, "work") == 0, "the slow one runs")

    def stay(self, *numbers: float) -> None:
        """Clients that wait for their answers."""
        self._staying.extend((self._ask(0, number), [0, 2 * number]) for number in numbers)
        self._inside += len(numbers)

    def leave(self, count: int = 1) -> None:
        """Say that `count` further requests are inside that will be given up."""
        self._inside += count

    def full(self) -> None:
        """Wait until everybody is inside."""
        until(lambda: self.inside() == self._inside, "everybody is inside")

    def gone(self, count: int = 1) -> None:
        """Wait until the server has noticed that `count` clients left."""
        until(lambda: self._failures("CANCELED") == self._canceled + count, f"{count} are counted as canceled")

    def inside(self) -> int:
        """Requests accepted and not answered."""
        return int(ask.metric(self.server, "tensorquay_inflight_requests"))

    def check_everybody_else(self) -> None:
        """Everybody who stayed has the right answer, and nothing is left behind."""
        for answer, expected in self._staying:
            assert ask.values(answer.result()) == expected
        assert self.inside() == 0
        assert ask.pending(self.server, "work") == 0

    def _ask(self, turns: float, number: float) -> Future[RawAnswer]:
        return self._pool.submit(ask.infer, self.server, "work", ask.sequence([[turns, number]]))

    def _failures(self, reason: str) -> int:
        return int(ask.metric(self.server, "nv_inference_request_failure", model="work", reason=reason))


@pytest.mark.parametrize("how", ["in good order", "with a reset"])
def test_an_http_client_leaves_while_it_waits(queue: Queue, how: str) -> None:
    queue.block()
    leaver = RawConnection(queue.server.http)
    leaver.send(request(_PATH, ask.infer_body(ask.sequence([[0, 77]]))))
    queue.leave()
    queue.stay(1, 2, 3)
    queue.full()

    leaver.socket.close() if how == "in good order" else leaver.reset()

    queue.gone()


def test_an_http_client_leaves_in_the_middle_of_the_run(queue: Queue) -> None:
    """It cannot be taken out of the batch any more; the batch goes on for the others."""
    queue.block()
    leaver = RawConnection(queue.server.http)
    leaver.send(request(_PATH, ask.infer_body(ask.sequence([[BRIEF, 77]]))))
    queue.leave()
    queue.stay(1, 2, 3)
    queue.full()
    until(lambda: queue.inside() == 4 and ask.pending(queue.server, "work") == 0, "they ride together")

    leaver.reset()

    queue.gone()
    assert queue.inside() == 3, "the others' batch was over before the client left; nothing was tried"


def test_a_grpc_client_cancels_while_it_waits(queue: Queue) -> None:
    queue.block()
    leaver = ask.unary(queue.channel, "ModelInfer").future(ask.infer_message(ask.sequence([[0, 77]]), "work"))
    queue.leave()
    queue.stay(1, 2, 3)
    queue.full()

    leaver.cancel()

    queue.gone()


def test_a_grpc_client_cancels_in_the_middle_of_the_run(queue: Queue) -> None:
    queue.block()
    leaver = ask.unary(queue.channel, "ModelInfer").future(ask.infer_message(ask.sequence([[BRIEF, 77]]), "work"))
    queue.leave()
    queue.stay(1, 2, 3)
    queue.full()
    until(lambda: queue.inside() == 4 and ask.pending(queue.server, "work") == 0, "they ride together")

    leaver.cancel()

    queue.gone()
    assert queue.inside() == 3, "the others' batch was over before the client left; nothing was tried"


def test_a_grpc_deadline_passes_while_the_request_waits(queue: Queue) -> None:
    queue.block(3 * BRIEF)
    late = ask.unary(queue.channel, "ModelInfer").future(
        ask.infer_message(ask.sequence([[0, 77]]), "work"), timeout=0.3
    )
    queue.leave()
    queue.stay(1, 2, 3)

    assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED

    queue.gone()


def test_a_stream_breaks_with_requests_waiting(queue: Queue) -> None:
    queue.block()
    messages = [ask.infer_message(ask.sequence([[0, 77]]), "work", id=str(number)) for number in range(5)]
    stream = queue.channel.stream_stream(ask.SERVICE + "ModelStreamInfer")(iter(messages))
    queue.leave(5)
    queue.stay(1, 2, 3)
    queue.full()

    stream.cancel()

    queue.gone(5)


def test_a_whole_crowd_leaves(queue: Queue) -> None:
    queue.block()
    crowd = [RawConnection(queue.server.http) for _ in range(50)]
    for leaver in crowd:
        leaver.send(
            request(_PATH, ask.infer_body(ask.sequence([[0, 77]] * 70)))
        )  # more rows than a batch: in two pieces
    queue.leave(50)
    queue.stay(1, 2, 3)
    queue.full()

    for leaver in crowd:
        leaver.reset()

    queue.gone(50)


def test_pipelined_requests_leave_with_their_connection(queue: Queue) -> None:
    queue.block()
    leaver = RawConnection(queue.server.http)
    asked = request(_PATH, ask.infer_body(ask.sequence([[0, 77]])))
    leaver.send(asked * 3)
    queue.leave()  # one connection, one at a time: the second is not inside before the first is answered
    queue.stay(1, 2, 3)
    queue.full()

    leaver.reset()

    until(lambda: queue.inside() == 0, "all are gone, answered or not")


def test_a_client_that_never_reads_its_answers_does_not_stop_the_others(server: RunningServer) -> None:
    with RawConnection(server.http) as deaf:
        deaf.send(request(_PATH, ask.infer_body(ask.sequence([[0, 1]] * 5_000))) * 20)
        for number in range(20):
            assert ask.values(ask.infer(server, "work", ask.sequence([[0, number]]))) == [0, 2 * number]
