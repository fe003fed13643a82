"""Front-end processes that end, an owner that ends, ports that are taken: each costs only what it must."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from tests.support import ask, graphs
from tests.support.collector import Collector
from tests.support.http_raw import Dropped, RawConnection, request
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer, launch
from tests.support.waiting import until

Serve = Callable[..., RunningServer]

FRONTENDS = "--frontends=2"
PATIENT = "--exit-timeout-secs=3600"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.model("scale", {1: graphs.scale(2.0)})
    made.model("wide", {1: graphs.scale(3.0, ("batch", 200_000))})
    made.model("work", {1: graphs.working()}, '[execution]\ninline = "never"\n')
    return made


def children(server: RunningServer) -> list[psutil.Process]:
    """The front ends, oldest first."""
    return sorted(psutil.Process(server.pid).children(), key=lambda process: process.create_time())


def alive(server: RunningServer) -> float:
    return ask.metric(server, "tensorquay_frontends")


def test_a_killed_front_end_takes_only_its_own_connections_and_is_replaced(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], FRONTENDS, PATIENT)
    victim = children(server)[0]

    with Load(server, "scale", http=6, grpc=4) as load:
        load.more(20)
        victim.kill()
        until(lambda: ask.metric(server, "tensorquay_frontend_restarts_total") == 1, "one was replaced")
        until(lambda: alive(server) == 2, "both are there again")
        load.more(20)

    load.check({2.0}, lost=True)
    # A client asks one after another, so each lost at most the one answer it waited for.
    assert sum(len(told.lost) for told in load.told) <= len(load.told)
    assert any(not told.lost for told in load.told), "the other front end's clients lost something too"
    assert "front end 0 was ended by SIGKILL" in server.told()
    assert victim.pid not in {process.pid for process in children(server)}
    _books_are_closed(server)
    assert server.stop() == 0, server.told()


def test_a_front_end_that_hangs_is_replaced(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], FRONTENDS, PATIENT, "--frontend-timeout-secs=2")
    well, victim = children(server)
    victim.suspend()
    until(lambda: ask.metric(server, "tensorquay_frontend_restarts_total") == 1, "it was replaced")
    until(lambda: alive(server) == 2, "both are there again")
    assert well.pid in {process.pid for process in children(server)}
    assert victim.pid not in {process.pid for process in children(server)}
    with Load(server, "scale", http=4) as load:
        load.more(20)
    load.check({2.0})
    assert server.told().count("did not answer for 2 s and was killed") == 1
    assert server.stop() == 0, server.told()


def test_what_a_dead_front_end_had_under_way_is_cancelled_and_its_memory_given_back(repo: Repo, serve: Serve) -> None:
    repo.model("waits", {1: graphs.scale(2.0, ("batch", 200_000))},
               "max_batch_size = 32\n[batching]\nmax_queue_delay_us = 3_600_000_000\n")  # fmt: skip
    server = serve([repo.root], "--frontends=1", PATIENT)
    body = _binary(np.ones((1, 200_000), np.float32))
    with contextlib.ExitStack() as open_connections:
        for _ in range(8):
            connection = open_connections.enter_context(RawConnection(server.http))
            connection.send(request("/v2/models/waits/infer", body[1], headers={_LENGTH: str(body[0])}))
        until(lambda: ask.pending(server, "waits") == 8, "all are waiting")

        children(server)[0].kill()

        until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 0, "all were cancelled")
    assert ask.metric(server, "tensorquay_inflight_bytes") == 0
    assert ask.metric(server, "nv_inference_request_failure", model="waits", reason="CANCELED") == 8
    until(lambda: alive(server) == 1, "another one serves")


def test_what_is_known_of_a_dead_front_ends_traces_is_told(repo: Repo, serve: Serve) -> None:
    repo.model("waits", {1: graphs.scale()}, "max_batch_size = 32\n[batching]\nmax_queue_delay_us = 3_600_000_000\n")
    collector = Collector()
    flags = ("--trace-mode=opentelemetry", f"--otlp-endpoint={collector.url}", "--otel-schedule-delay-ms=10")
    try:
        server = serve([repo.root], "--frontends=1", PATIENT, *flags)
        caller = f"00-{7:032x}-{7:016x}-01"
        with RawConnection(server.http) as connection:
            body = ask.infer_body(np.ones((1, 4), np.float32))
            connection.send(request("/v2/models/waits/infer", body, headers={"traceparent": caller}))
            until(lambda: ask.pending(server, "waits") == 1, "it waits")
            children(server)[0].kill()
            spans = collector.of(caller, 2)
        assert spans.pop("queue")
        (told,) = spans.values()
        assert told.attributes["tensorquay.model"] == "waits"
        assert told.attributes["tensorquay.error"] == "cancelled"
    finally:
        collector.close()


def test_the_memory_shared_with_a_dead_front_end_is_given_back(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], "--frontends=1", PATIENT)
    head, body = _binary(np.ones((1, 200_000), np.float32))
    for number in range(3):
        answer = ask.post(server, "/v2/models/wide/infer", body, **{_LENGTH: str(head)})
        assert answer.status == 200
        assert len(answer.body) > 800_000
        assert _memfds(server) == 2

        children(server)[0].kill()

        until(
            lambda restarts=number + 1: ask.metric(server, "tensorquay_frontend_restarts_total") == restarts, "restart"
        )
        until(lambda: alive(server) == 1, "another one serves")
        until(lambda: _memfds(server) == 2, "the memory of the dead one is gone")


def test_without_its_owner_no_front_end_goes_on(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], FRONTENDS)
    orphans = children(server)
    assert len(orphans) == 2

    os.kill(server.pid, signal.SIGKILL)

    gone, left = psutil.wait_procs(orphans, timeout=30)
    assert len(gone) == 2, left
    assert server.wait() == -signal.SIGKILL


def test_stop_under_load_answers_what_was_accepted_and_refuses_the_rest_in_words(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], FRONTENDS, PATIENT)
    fronts = children(server)

    with Load(server, "work", http=4, grpc=3, width=2, lead=0.0, until_refused=True) as load:
        load.more(20)
        # As a service manager does it, which signals the whole group.
        for process in (*fronts, server.process):
            os.kill(process.pid, signal.SIGTERM)
        until(lambda: load.ended, "every client heard of the end")
        code = server.wait()

    assert code == 0, server.told()
    load.check({2.0}, refusals=True)
    assert all(told.refused for told in load.told)
    assert not any(process.is_running() for process in fronts)


def test_a_second_signal_ends_all_of_them(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], FRONTENDS, PATIENT)
    fronts = children(server)
    with RawConnection(server.http) as connection:
        connection.send(request("/v2/models/work/infer", ask.infer_body(np.array([[1e15, 1]], np.float32))))
        until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 1, "the request is inside")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: ask.get(server, "/v2/health/ready").status == 400, "it is stopping")

        assert server.stop() == 128 + signal.SIGTERM

        assert len(psutil.wait_procs(fronts, timeout=30)[0]) == 2


def test_a_taken_port_is_said_at_once_and_a_shared_one_is_taken(repo: Repo, serve: Serve) -> None:
    first = serve([repo.root], FRONTENDS)
    host, _, port = first.http.rpartition(":")
    for flags in ((), (FRONTENDS,)):
        second = launch([repo.root], f"--http-port={port}", *flags)
        assert second.wait() == 1
        assert f"cannot listen for HTTP on {host} port {port}" in second.told()
    # Nobody who does not ask to share can have it, also while no front end listens.
    for process in children(first):
        process.kill()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind((host, int(port)))
    until(lambda: alive(first) == 2, "both are there again")


def test_a_taken_grpc_port_is_said_at_once_too(repo: Repo) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = launch([repo.root], FRONTENDS, f"--grpc-port={taken.getsockname()[1]}")
        assert server.wait() == 1
    assert "cannot listen for gRPC" in server.told()
    assert "Traceback" not in server.told()


_LENGTH = "Inference-Header-Content-Length"


def _binary(array: np.ndarray) -> tuple[int, bytes]:
    """Length of the JSON part, and the whole body, of a request with binary tensors."""
    shape = ",".join(map(str, array.shape))
    head = (
        f'{{"inputs":[{{"name":"x","datatype":"FP32","shape":[{shape}],'
        f'"parameters":{{"binary_data_size":{array.nbytes}}}}}],"parameters":{{"binary_data_output":true}}}}'
    ).encode()
    return len(head), head + array.tobytes()


def _memfds(server: RunningServer) -> int:
    """Different arenas the owner has mapped."""
    maps = Path(f"/proc/{server.pid}/maps").read_text().splitlines()
    return len({line.split()[4] for line in maps if "memfd:tensorquay" in line})


def _books_are_closed(server: RunningServer) -> None:
    """Nothing is left inside, and every request that was run is counted once, as answered or as failed."""
    until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 0, "nothing is inside")
    answered = ask.metric(server, "nv_inference_request_success", model="scale")
    cancelled = ask.metric(server, "nv_inference_request_failure", model="scale", reason="CANCELED")
    run = ask.metric(server, "nv_inference_count", model="scale")
    assert answered <= run <= answered + cancelled


def test_clients_of_a_dead_front_end_see_an_end_and_no_half_answer(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], "--frontends=1")
    with RawConnection(server.http) as connection:
        connection.send(request("/v2/models/work/infer", ask.infer_body(np.array([[1e15, 1]], np.float32))))
        until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 1, "the request is inside")
        children(server)[0].kill()
        with pytest.raises(Dropped) as told:
            connection.answer()
    assert told.value.received == 0
