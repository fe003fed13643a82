"""What a line of the access log holds, and that a flood of them costs lines and nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.config.server import LogFormat, ServerConfig
from tensorquay.core.errors import Overloaded
from tensorquay.core.facts import PredictionFacts
from tensorquay.core.log_lines import LINES
from tensorquay.core.messages import InferRequest, InferResponse
from tensorquay.core.packed import BatchRun, Ride
from tensorquay.telemetry.logs import Logs
from tensorquay.testing.manual_clock import ManualClock
from tensorquay.transport.access_log import AccessLog

REQUEST = InferRequest("digits", "", "r 1", [])


class _Held(io.StringIO):
    """A stream whose reader does not read until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.go.wait(30)
        return super().write(text)


@pytest.fixture
def access() -> Iterator[Callable[..., tuple[AccessLog, Logs, io.StringIO]]]:
    running: list[Logs] = []

    def begin(stream: io.StringIO | None = None, **more: Any) -> tuple[AccessLog, Logs, io.StringIO]:
        stream = stream or io.StringIO()
        config = ServerConfig(access_log=True, log_format=LogFormat.JSON)
        logs = Logs(config, stream=stream, **more)
        logs.start()
        running.append(logs)
        log = AccessLog(ManualClock())
        log.close()  # from then on lines do not wait for others
        return log, logs, stream

    yield begin
    for logs in running:
        logs.close()


def _line(logs: Logs, stream: io.StringIO) -> dict[str, Any]:
    logs.close()
    (text,) = stream.getvalue().splitlines()
    return dict(json.loads(text))


def test_a_line_has_everything_that_is_known(access: Any) -> None:
    log, logs, stream = access()
    facts = PredictionFacts.of(REQUEST)
    run = BatchRun((), (), 8, input_ns=1_000_000, infer_ns=2_000_000, output_ns=500_000)
    ride = Ride(run, 2, 5, 250_000)
    outcomes: list[object] = []
    facts.completed_by(outcomes.append)(InferResponse("digits", "7", "r 1", [], ride))
    facts.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"

    log.http(
        "POST",
        "/v2/models/digits/infer",
        200,
        begun_ns=log.now_ns() - 4_200_000,
        peer=("10.0.0.1", 5),
        sizes=(3, 4),
        facts=facts,
    )

    line = _line(logs, stream)
    del line["time"]
    assert line == {
        "level": "info",
        "logger": "tensorquay.access",
        "message": "POST /v2/models/digits/infer 200",
        "request_id": "r 1",
        "door": "http",
        "method": "POST",
        "path": "/v2/models/digits/infer",
        "status": 200,
        "ms": 4.2,
        "peer": "10.0.0.1:5",
        "request_bytes": 3,
        "response_bytes": 4,
        "model": "digits",
        "version": "7",
        "rows": 3,
        "batch_rows": 8,
        "queue_ms": 0.25,
        "run_ms": 3.5,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    assert len(outcomes) == 1, "the answer goes on to whom it is for"


def test_a_failed_prediction_has_what_it_asked_for(access: Any) -> None:
    log, logs, stream = access()
    facts = PredictionFacts.of(REQUEST)
    facts.completed_by(lambda _: None)(Overloaded("full"))
    log.grpc(
        "/inference.GRPCInferenceService/ModelInfer",
        "RESOURCE_EXHAUSTED",
        begun_ns=0,
        peer=None,
        sizes=(0, 0),
        facts=facts,
    )
    line = _line(logs, stream)
    assert (line["message"], line["model"], line["peer"]) == ("ModelInfer RESOURCE_EXHAUSTED", "digits", "-")
    assert not {"rows", "batch_rows", "queue_ms", "run_ms", "trace_id"} & line.keys()


def test_facts_survive_the_way_to_another_process() -> None:
    facts = PredictionFacts.of(REQUEST)
    run = BatchRun((), (np.zeros(3),), 3, input_ns=1, infer_ns=2, output_ns=3)
    facts.completed_by(lambda _: None)(InferResponse("digits", "7", "r 1", [], Ride(run, 0, 3, 9)))
    again = PredictionFacts.from_list(json.loads(json.dumps(facts.to_list())))
    assert again.fields() == facts.fields()


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        (("127.0.0.1", 4000), "127.0.0.1:4000"),
        (("::1", 4000, 0, 0), "[::1]:4000"),
        ("10.1.2.3:4", "10.1.2.3:4"),
        (None, "-"),
        ("", "-"),
    ],
)
def test_a_clients_address(access: Any, peer: object, shown: str) -> None:
    log, logs, stream = access()
    log.http("GET", "/", 200, begun_ns=0, peer=peer, sizes=(0, 0))
    assert _line(logs, stream)["peer"] == shown


@given(st.text(max_size=2000), st.text(max_size=2000), st.text(max_size=2000))
def test_no_text_of_a_client_ends_a_line_or_is_without_bound(path: str, name: str, identity: str) -> None:
    for format_ in LogFormat:
        stream = io.StringIO()
        logs = Logs(ServerConfig(access_log=True, log_format=format_), stream=stream)
        logs.start()
        facts = PredictionFacts.of(InferRequest(name, name, identity, []))
        log = AccessLog(ManualClock())
        log.close()
        log.http(name, path, 200, begun_ns=0, peer=None, sizes=(0, 0), facts=facts)
        logs.close()
        written = stream.getvalue()
        assert len(written.splitlines()) == 1
        assert len(written) < 20_000


@pytest.mark.parametrize("name", ["\udcff", "a\ud800b", "\x00", "\x85\u2028", "😀"])
def test_texts_that_no_encoding_has_are_written_too(access: Any, name: str) -> None:
    log, logs, stream = access()
    facts = PredictionFacts.of(InferRequest(name, "", name, []))
    log.http("GET", "/", 200, begun_ns=0, peer=None, sizes=(0, 0), facts=facts)
    line = _line(logs, stream)
    assert (line["model"], line["request_id"]) == (name, name)


def test_nothing_is_made_when_information_is_not_logged(access: Any) -> None:
    log, logs, stream = access()
    logs.state.info = False
    logs.apply()
    log.http("GET", "/", 200, begun_ns=0, peer=None, sizes=(0, 0))
    logs.close()
    assert not stream.getvalue()


def test_a_flood_is_dropped_and_counted_and_waits_for_nobody(access: Any) -> None:
    held = _Held()
    log, logs, _ = access(held, queue_records=100)
    log.http("GET", "/0", 200, begun_ns=0, peer=None, sizes=(0, 0))
    assert held.reached.wait(30)

    for number in range(5000):
        log.http("GET", f"/{number}", 200, begun_ns=0, peer=None, sizes=(0, 0))

    assert logs.dropped == 4900
    held.go.set()
    logs.close()
    told = [json.loads(line) for line in held.getvalue().splitlines()]
    assert sum(line["logger"] == "tensorquay.access" for line in told) == 101
    assert [line["message"] for line in told if line["level"] == "warning"] == [
        "4900 log records were dropped: they came faster than they could be written"
    ]


async def test_lines_are_handed_over_together(access: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, logs, stream = access()
    log = AccessLog(ManualClock())

    def say(count: int) -> None:
        for _ in range(count):
            log.grpc("/a/B", "OK", begun_ns=0, peer=None, sizes=(1, 2), what="message ")

    def told() -> list[int]:
        return [len(getattr(each, LINES)) for each in caplog.records if each.name == "tensorquay.access"]

    with caplog.at_level(logging.INFO):
        say(300)
        assert told() == [128, 128]
        for _ in range(10_000):
            if len(told()) == 3:
                break
            await asyncio.sleep(0.001)
        assert told() == [128, 128, 44], "after a moment also those that are few"
        say(3)
        log.close()
        assert told() == [128, 128, 44, 3]
    logs.close()
    lines = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert lines == ["B message OK"] * 303
