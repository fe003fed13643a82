"""Versions come and go a hundred times while clients ask: nobody may notice anything but newer answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from tests.support import ask, graphs
from tests.support.load import Load
from tests.support.repo import Repo
from tests.support.serving import RunningServer
from tests.support.waiting import until

Serve = Callable[..., RunningServer]

SWAPS = 100

pytestmark = pytest.mark.slow


def test_a_hundred_versions_dropped_into_a_polled_repository_fail_no_request(tmp_path: Path, serve: Serve) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("scale", {1: graphs.scale(1.0)})
    server = serve(
        [repo.root],
        "--model-control-mode=poll",
        "--repository-poll-secs=0.02",
        "--settle-secs=0.02",
        "--log-info=false",
    )

    with Load(server, "scale") as load:
        for number in range(2, SWAPS + 2):
            repo.version("scale", number, graphs.scale(float(number)))
            _until_ready(server, number)
            # What nobody wants any more may go while its last requests are being answered.
            repo.remove(f"scale/{number - 1}")
        load.more(2)

    load.check({float(number) for number in range(1, SWAPS + 2)})
    for told in load.told:
        assert told.factors == [float(version) for version in told.versions], (
            f"{told.who}: answered for another version"
        )
        assert all(old <= new for old, new in pairwise(told.versions)), f"{told.who}: went back to an older version"
        assert told.versions[-1] == SWAPS + 1
    assert ask.metric(server, "nv_inference_pending_request_count", model="scale") == 0
    assert {key for key, (state, _) in ask.index(server).items() if state == "READY"} == {("scale", str(SWAPS + 1))}


def test_a_hundred_reloads_by_request_fail_no_request(tmp_path: Path, serve: Serve) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("scale", {1: graphs.scale(1.0)})
    server = serve([repo.root], "--model-control-mode=explicit", "--load-model=scale", "--log-info=false")
    threads: list[int] = []

    with Load(server, "scale") as load:
        for number in range(2, SWAPS + 2):
            repo.file("scale/1/model.onnx", graphs.scale(float(number)))
            assert ask.load_model(server, "scale").status == 200
            # A load that was answered is in force: the very next request is the new one's.
            assert ask.values(ask.infer(server, "scale", ask.sequence([[1, 1, 1, 1]]))) == [float(number)] * 4
            if number in {10, SWAPS + 1}:
                threads.append(ask.threads(server))
        load.more(2)

    load.check({float(number) for number in range(1, SWAPS + 2)})
    for told in load.told:
        assert all(old <= new for old, new in pairwise(told.factors)), f"{told.who}: went back to an older file"
    assert threads[1] <= threads[0] + 4, f"threads grow with reloads: {threads}"


def test_reloads_with_another_configuration_fail_no_request(tmp_path: Path, serve: Serve) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("scale", {1: graphs.scale(3.0)})
    server = serve([repo.root], "--model-control-mode=explicit", "--load-model=scale", "--log-info=false")

    with Load(server, "scale") as load:
        for rows in range(1, 11):
            config = json.dumps({"max_batch_size": rows, "dynamic_batching": {}})
            assert ask.load_model(server, "scale", config=config).status == 200
            in_force = json.loads(ask.get(server, "/v2/models/scale/config").body)
            assert in_force["max_batch_size"] == rows
        load.more(2)

    load.check({3.0})


def test_loads_and_unloads_of_one_model_do_not_touch_another(tmp_path: Path, serve: Serve) -> None:
    repo = Repo(tmp_path / "repo")
    repo.model("steady", {1: graphs.scale(5.0)})
    repo.model("restless", {1: graphs.scale(7.0)})
    server = serve([repo.root], "--model-control-mode=explicit", "--load-model=steady", "--log-info=false")

    with Load(server, "steady") as load:
        for _ in range(15):
            assert ask.load_model(server, "restless").status == 200
            assert ask.post(server, "/v2/repository/models/restless/unload").status == 200
        until(lambda: ask.index(server)["restless", "1"][0] == "UNAVAILABLE", "the last unload was finished")
        load.more(2)

    load.check({5.0})
    assert ask.index(server)["restless", "1"] == ("UNAVAILABLE", "unloaded")


def test_a_swap_does_not_wait_for_company_that_cannot_come(tmp_path: Path, serve: Serve) -> None:
    """Requests that wait for a full batch of the old version are answered by it when it goes."""
    repo = Repo(tmp_path / "repo")
    repo.model("scale", {1: graphs.scale(1.0)}, "max_batch_size = 32\n[batching]\nmax_queue_delay_us = 3_600_000_000\n")
    server = serve([repo.root], "--model-control-mode=explicit", "--load-model=scale")
    with ThreadPoolExecutor(4) as pool:
        row = ask.sequence([[1, 2, 3, 4]])
        waiting = [pool.submit(ask.infer, server, "scale", row) for _ in range(4)]
        until(lambda: ask.pending(server, "scale") == 4, "they are waiting")
        repo.version("scale", 2, graphs.scale(2.0))

        assert ask.load_model(server, "scale").status == 200

        assert [ask.values(each.result()) for each in waiting] == [[1, 2, 3, 4]] * 4
    until(lambda: ask.index(server)["scale", "1"][0] == "UNAVAILABLE", "the old version is gone")
    assert ask.values(ask.infer(server, "scale", ask.sequence([[1, 2, 3, 4]] * 32)))[:4] == [2, 4, 6, 8]


def _until_ready(server: RunningServer, number: int) -> None:
    path = f"/v2/models/scale/versions/{number}/ready"
    until(lambda: ask.get(server, path).status == 200, f"version {number} is ready")
