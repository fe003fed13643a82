"""Told to stop, the server answers what it accepted, refuses the rest in words and ends with the right status."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tests.support import ask, graphs
from tests.support.http_raw import RawAnswer, RawConnection, request
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer, launch
from tests.support.waiting import until
from tritonclient.grpc import service_pb2

Serve = Callable[..., RunningServer]

QUICK, BRIEF, ENDLESS = 0.0, 300_000.0, 1e15
"""Turns of `graphs.working`: none, about a third of a second, for ever."""

PATIENT = "--exit-timeout-secs=3600"
"""Longer than any test waits: a stop that needs this time-out to end fails its test."""

REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

NO_INLINE = '[execution]\ninline = "never"\n'


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.model("work", {1: graphs.working()}, NO_INLINE)
    return made


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def test_stop_under_load_answers_everybody_in_words(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], PATIENT)

    with Load(server, "work", http=4, grpc=3, width=2, lead=QUICK, until_refused=True) as load:
        load.more(20)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: load.ended, "every client heard of the end")
        code = server.wait()

    assert code == 0, server.told()
    load.check({2.0}, refusals=True)
    assert all(told.refused for told in load.told)


def test_what_was_accepted_before_the_stop_is_answered(repo: Repo, serve: Serve, pool: ThreadPoolExecutor) -> None:
    """Even requests that would have waited an hour for company: from now on nobody comes."""
    repo.model("waits", {1: graphs.working()}, "max_batch_size = 32\n[batching]\nmax_queue_delay_us = 3_600_000_000\n")
    server = serve([repo.root], PATIENT)
    waiting = [pool.submit(ask.infer, server, "waits", ask.sequence([[QUICK, number]])) for number in range(8)]
    with grpc.insecure_channel(server.grpc) as channel:
        call = ask.unary(channel, "ModelInfer").future(ask.infer_message(ask.sequence([[QUICK, 9]]), "waits"))
        until(lambda: ask.pending(server, "waits") == 9, "everybody is waiting")
        running = pool.submit(ask.infer, server, "work", ask.sequence([[BRIEF, 1]]))
        until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 10, "one is running")

        assert server.stop() == 0, server.told()

        assert ask.values(running.result()) == [2 * BRIEF, 2]
        assert [ask.values(each.result()) for each in waiting] == [[0, 2 * number] for number in range(8)]
        assert ask.raw_values(call.result()) == [0, 18]


def test_from_the_signal_on_it_is_not_ready_and_refuses_in_words(
    repo: Repo, serve: Serve, pool: ThreadPoolExecutor
) -> None:
    server = serve([repo.root], PATIENT)
    accepted = pool.submit(ask.infer, server, "work", ask.sequence([[3 * BRIEF, 1]]))
    until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 1, "the request is inside")
    with RawConnection(server.http) as kept, grpc.insecure_channel(server.grpc) as channel:
        kept.send(request("/v2/health/ready", method="GET"))
        assert kept.answer().status == 200

        server.process.send_signal(signal.SIGTERM)

        until(lambda: ask.get(server, "/v2/health/ready").status == 400, "not ready")
        assert ask.get(server, "/v2/health/live").status == 200
        assert ask.get(server, "/v2/models/work/ready").status == 400
        kept.send(request("/v2/models/work/infer", ask.infer_body(ask.sequence([[QUICK, 1]]))))
        refused = kept.answer()
        assert refused.status == 503
        assert b"shutting down" in refused.body
        assert refused.headers["connection"] == "close"
        assert kept.ends()
        with pytest.raises(grpc.RpcError) as told:
            ask.unary(channel, "ModelInfer")(ask.infer_message(ask.sequence([[QUICK, 1]]), "work"))
        assert told.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ask.unary(channel, "ServerReady")(b"") == b""

    assert ask.values(accepted.result()) == [6 * BRIEF, 2]
    assert server.wait() == 0, server.told()


def test_idle_clients_do_not_keep_it_from_ending(repo: Repo, serve: Serve) -> None:
    """An open stream, a kept connection, half a head, half a body, a connection that never said a word."""
    server = serve([repo.root], PATIENT)
    with (
        grpc.insecure_channel(server.grpc) as channel,
        RawConnection(server.http) as kept,
        RawConnection(server.http) as half_head,
        RawConnection(server.http) as half_body,
        RawConnection(server.http) as half_control,
        RawConnection(server.http),
    ):
        stream = channel.stream_stream(ask.SERVICE + "ModelStreamInfer")(_requests_without_end(1))
        listing = channel.stream_stream(REFLECTION)(_requests_without_end(0))
        assert service_pb2.ModelStreamInferResponse.FromString(next(stream)).infer_response.id == "0"
        kept.send(request("/v2/health/live", method="GET"))
        assert kept.answer().status == 200
        half_head.send(b"POST /v2/models/work/infer HTTP/1.1\r\nHost: te")
        half_body.send(request("/v2/models/work/infer", b'{"inputs":', length=1000))
        half_control.send(request("/v2/repository/index", b"{", length=1000))

        assert server.stop() == 0, server.told()

        assert kept.ends()
        for half in (half_head, half_body, half_control):
            assert half.answer().status == 503
        assert stream.code() is grpc.StatusCode.UNAVAILABLE
        assert listing.code() in {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


def test_a_stream_is_answered_before_the_end(repo: Repo, serve: Serve) -> None:
    server = serve([repo.root], PATIENT)
    with grpc.insecure_channel(server.grpc) as channel:
        asked = [_stream_message(str(number), BRIEF / 4) for number in range(4)]
        stream = channel.stream_stream(ask.SERVICE + "ModelStreamInfer")(iter(asked))
        until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 4, "all are inside")

        server.process.send_signal(signal.SIGTERM)

        told = [service_pb2.ModelStreamInferResponse.FromString(message) for message in stream]
        assert sorted(each.infer_response.id for each in told) == ["0", "1", "2", "3"], told
    assert server.wait() == 0, server.told()


def test_a_slow_reader_gets_all_of_its_answer(repo: Repo, serve: Serve) -> None:
    repo.model("scale", {1: graphs.scale(2.0, ("batch", 1_000_000))})
    server = serve([repo.root], PATIENT)
    with RawConnection(server.http) as slow:
        tensor = {
            "name": "x",
            "datatype": "FP32",
            "shape": [4, 1_000_000],
            "parameters": {"binary_data_size": 16_000_000},
        }
        body = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        head = {"Inference-Header-Content-Length": str(len(body))}
        slow.send(request("/v2/models/scale/infer", body + bytes(16_000_000), headers=head))
        until(lambda: ask.metric(server, "nv_inference_request_success", model="scale") == 1, "it is computed")

        server.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(server), "the doors are closing")

        answer = slow.answer()
        assert answer.status == 200
        assert len(answer.body) > 16_000_000
    assert server.wait() == 0, server.told()


def test_a_second_signal_ends_it_at_once(repo: Repo, serve: Serve, pool: ThreadPoolExecutor) -> None:
    server = serve([repo.root], PATIENT)
    stuck = pool.submit(_infer_or_nothing, server, ENDLESS)
    until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 1, "the request is inside")
    server.process.send_signal(signal.SIGTERM)
    until(lambda: ask.get(server, "/v2/health/ready").status == 400, "it is stopping")

    assert server.stop() == 128 + signal.SIGTERM
    assert stuck.result() is None


def test_a_model_that_never_returns_cannot_keep_it_beyond_the_exit_timeout(
    repo: Repo, serve: Serve, pool: ThreadPoolExecutor
) -> None:
    server = serve([repo.root], "--exit-timeout-secs=0.5")
    stuck = pool.submit(_infer_or_nothing, server, ENDLESS)
    until(lambda: ask.metric(server, "tensorquay_inflight_requests") == 1, "the request is inside")

    assert server.stop() == 1
    assert "stopped before everything was finished" in server.told()
    answer = stuck.result()
    assert answer is None or answer.status == 503


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_while_models_load_ends_it_well(tmp_path: Path, number: signal.Signals) -> None:
    server = launch([_loading(tmp_path, BRIEF, 2).root], PATIENT, "--log-format=json")
    try:
        until(lambda: any("load_started" in line for line in list(server.log)), "a load has begun")

        assert server.stop(number) == 0, server.told()
        assert "Traceback" not in server.told()
    finally:
        server.end()


def test_a_signal_while_a_model_loads_for_ever_is_bounded_too(tmp_path: Path) -> None:
    server = launch([_loading(tmp_path, ENDLESS, 1).root], "--exit-timeout-secs=0.5", "--log-format=json")
    try:
        until(lambda: any("load_started" in line for line in list(server.log)), "a load has begun")

        assert server.stop() == 1, server.told()
    finally:
        server.end()


def _loading(tmp_path: Path, turns: float, count: int) -> Repo:
    """A repository whose model takes its time to load: `count` warm-up runs of `turns` turns."""
    repo = Repo(tmp_path / "repo")
    warmup = f"""
        [[warmup]]
        name = "long"
        count = {count}
        [warmup.inputs.x]
        datatype = "FP32"
        dims = [2]
        data = "file"
        file = "x"
    """
    folder = repo.model("work", {1: graphs.working()}, warmup)
    (folder / "warmup").mkdir()
    (folder / "warmup" / "x").write_bytes(ask.sequence([[turns, 1]]).tobytes())
    return repo


def _infer_or_nothing(server: RunningServer, turns: float) -> RawAnswer | None:
    with RawConnection(server.http) as connection:
        connection.send(request("/v2/models/work/infer", ask.infer_body(ask.sequence([[turns, 1]]))))
        return None if connection.ends() else connection.answer()


def _refuses(server: RunningServer) -> bool:
    try:
        return ask.get(server, "/v2/health/ready").status == 400
    except ConnectionRefusedError:
        return True


def _stream_message(identity: str, turns: float) -> bytes:
    return ask.infer_message(ask.sequence([[turns, 1]]), "work", id=identity)


def _requests_without_end(count: int) -> Iterator[bytes]:
    """`count` messages, and then a client that neither asks nor leaves, for as long as the call lasts."""
    for number in range(count):
        yield _stream_message(str(number), QUICK)
    threading.Event().wait(60)
