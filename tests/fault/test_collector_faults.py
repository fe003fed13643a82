"""A collector that is not there, hangs, or comes back: predictions go on, and the log says so once.

What it may answer besides is in tests/unit/telemetry/test_otlp_http.py.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support import ask, graphs
from tests.support.collector import Collector
from tests.support.http_raw import RawConnection, request
from tests.support.repo import Repo
from tests.support.serving import RunningServer
from tests.support.waiting import until

Serve = Callable[..., RunningServer]

X = np.ones((1, 4), np.float32)
CAUSE = "spans cannot be sent to"
BACK = "spans are sent to"
DROPPED = "tensorquay_trace_spans_dropped_total"
SENT = "tensorquay_trace_spans_sent_total"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.model("scale", {1: graphs.scale(2.0, ("batch", 4))})
    return made


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def traced(serve: Serve, repo: Repo, url: str, *flags: str, **env: str) -> RunningServer:
    return serve(
        [repo.root],
        "--trace-mode=opentelemetry",
        "--trace-rate=1",
        f"--otlp-endpoint={url}",
        "--otel-schedule-delay-ms=1",
        *flags,
        env=env,
    )


def predict(server: RunningServer, count: int = 1) -> None:
    """`count` predictions, which are right."""
    with RawConnection(server.http) as connection:
        for _ in range(count):
            connection.send(request("/v2/models/scale/infer", ask.infer_body(X)))
            assert ask.values(connection.answer()) == [2.0] * 4


def told(server: RunningServer, text: str) -> int:
    return sum(text in line for line in server.log)


def nobody() -> str:
    """Where nobody listens: a port that was free a moment ago."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1/traces"


def test_without_a_collector_the_server_serves_on_and_forgets_the_rest(repo: Repo, serve: Serve) -> None:
    server = traced(serve, repo, nobody(), "--otel-max-queue-size=64")
    predict(server, 200)
    until(lambda: told(server, CAUSE) == 1, "it is told")
    # Each prediction has four spans, of which 64 are kept.
    assert ask.metric(server, DROPPED) >= 200 * 4 - 64
    assert ask.metric(server, SENT) == 0
    assert server.stop() == 0, server.told()
    assert told(server, CAUSE) == 1
    assert told(server, "were not sent before the end") == 1


def test_a_collector_that_comes_back_gets_what_was_kept(repo: Repo, serve: Serve, collector: Collector) -> None:
    url, port = collector.url, collector.port
    server = traced(serve, repo, url)
    predict(server)
    collector.wait(lambda c: len(c.spans) == 4)
    collector.close()
    predict(server)
    until(lambda: told(server, CAUSE) == 1, "its absence is told")
    again = Collector(port)
    try:
        again.wait(lambda c: len(c.spans) == 4)
        until(lambda: told(server, BACK) == 1, "its return is told")
        assert ask.metric(server, DROPPED) == 0
        assert server.stop() == 0, server.told()
    finally:
        again.close()
    assert (told(server, CAUSE), told(server, BACK)) == (1, 1)


def test_a_collector_that_hangs_delays_nobody_and_not_the_end(repo: Repo, serve: Serve, collector: Collector) -> None:
    release = threading.Event()
    collector.behave = lambda _handler: (release.wait(60), None)[1]
    server = traced(serve, repo, collector.url, "--otel-max-queue-size=16", OTEL_EXPORTER_OTLP_TIMEOUT="3600000")
    try:
        predict(server, 50)
        collector.wait(lambda c: len(c.requests) == 1)
        predict(server, 50)
        assert ask.metric(server, DROPPED) >= 100 * 4 - 16
        # Its time-out is an hour: that this ends at all is the proof.
        assert server.stop() == 0, server.told()
    finally:
        release.set()
