"""The queue of spans and its thread: bounded, told once, never waited for."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tensorquay.core.request_trace import Entrance, RequestTrace, Run, RunTimes
from tensorquay.telemetry.otlp_encode import SpanEncoder
from tensorquay.telemetry.otlp_http import NotSent
from tensorquay.telemetry.span_export import CLOSE_TIMEOUT_S, SpanExporter

TIMEOUT_S = 20


class Collector:
    """Takes what it is sent when `gate` is open; `fails` says what it answers next, None for success."""

    shown = "http://collector/v1/traces"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Semaphore(0)
        self.fails: list[NotSent | None] = []
        self.sizes: list[int] = []
        self.timeouts: list[float] = []
        self.closed = False

    def send(self, data: bytes, *, timeout_s: float = float("inf")) -> None:
        self.timeouts.append(timeout_s)
        self.asked.release()
        assert self.gate.wait(TIMEOUT_S)
        failure = self.fails.pop(0) if self.fails else None
        if failure is not None:
            raise failure
        (resource,) = ExportTraceServiceRequest.FromString(data).resource_spans
        self.sizes.append(len(resource.scope_spans[0].spans))

    def close(self) -> None:
        self.closed = True

    def was_asked(self) -> None:
        assert self.asked.acquire(timeout=TIMEOUT_S)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.gate.set()


def trace() -> RequestTrace:
    made = RequestTrace(lambda _: None, Entrance.HTTP, 1, b"t" * 16, b"s" * 8)
    made.end(2, status=200)
    return made


def exporter(collector: Collector, *, queue: int = 100, batch: int = 10, delay_s: float = 0.001) -> SpanExporter:
    encoder = SpanEncoder({}, version="1", wall_offset_ns=0)
    return SpanExporter(collector, encoder, queue_spans=queue, batch_spans=batch, delay_s=delay_s)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "tensorquay.tracing"]


def test_spans_are_sent_in_batches_and_the_rest_at_the_end(collector: Collector) -> None:
    exports = exporter(collector, delay_s=3600)
    for _ in range(25):
        exports.put(trace())
    exports.close()
    assert sum(collector.sizes) == 25
    assert max(collector.sizes) == 10
    assert (exports.sent, exports.dropped) == (25, 0)
    assert collector.closed


def test_few_spans_leave_when_their_time_has_come(collector: Collector) -> None:
    exports = exporter(collector)
    exports.put(trace())
    collector.was_asked()
    exports.close()
    assert exports.sent == 1


def test_after_its_end_nothing_is_taken(collector: Collector) -> None:
    exports = exporter(collector)
    exports.close()
    exports.put(trace())
    assert (exports.sent, exports.dropped) == (0, 1)


def test_a_full_request_does_not_wait_for_its_time(collector: Collector) -> None:
    exports = exporter(collector, delay_s=3600)
    for _ in range(3):
        for _ in range(10):
            exports.put(trace())
        collector.was_asked()
    exports.close()
    assert exports.sent == 30


def test_a_trace_larger_than_the_queue_fits_by_itself(collector: Collector) -> None:
    exports = exporter(collector, queue=2)
    large = trace()
    for _ in range(5):
        large.rode(Run(1, RunTimes(1, 1, 1, 1), 1, 1, b"t" * 16, b"s" * 8))
    exports.put(large)
    collector.was_asked()
    exports.close()
    assert (exports.sent, exports.dropped) == (11, 0)


def test_a_bug_costs_the_spans_it_meets_and_no_others(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    exports = exporter(collector, batch=1)
    broken = trace()
    broken.model = None  # type: ignore[assignment]
    exports.put(broken)
    exports.put(trace())
    collector.was_asked()
    exports.close()
    assert (exports.sent, exports.dropped) == (1, 1)
    assert "1 spans could not be sent" in caplog.text


def test_no_wake_up_is_lost_however_the_two_take_turns(collector: Collector) -> None:
    """With a thread that is switched after nearly every step. A lost one would wait for the delay, an hour."""
    exports = exporter(collector, queue=1000, batch=4, delay_s=3600)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(300):
            for _ in range(4):
                exports.put(trace())
            collector.was_asked()
    finally:
        sys.setswitchinterval(before)
    exports.close()
    assert exports.dropped == 0


def test_what_does_not_fit_is_dropped_counted_and_told_once(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    collector.gate.clear()
    exports = exporter(collector, queue=20, batch=10)
    for _ in range(50):
        exports.put(trace())
    collector.was_asked()
    for _ in range(50):
        exports.put(trace())
    # Those being sent still count: what waits is never more than the bound.
    assert exports.dropped == 80
    collector.gate.set()
    exports.close()
    assert (exports.sent, exports.dropped) == (20, 80)
    assert len(messages(caplog)) == 1
    assert "dropped" in messages(caplog)[0]


def test_a_collector_that_fails_is_told_once_and_once_when_it_is_back(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorquay.telemetry.span_export._FIRST_PAUSE_S", 0.001)
    caplog.set_level(logging.INFO)
    collector.fails = [NotSent("connection refused"), NotSent("it answers 503"), NotSent("connection refused")]
    exports = exporter(collector)
    exports.put(trace())
    for _ in range(4):
        collector.was_asked()
    exports.close()
    assert (exports.sent, exports.dropped) == (1, 0)
    lost, back = messages(caplog)
    assert "connection refused" in lost
    assert collector.shown in lost
    assert "again" in back


def test_what_is_refused_for_good_is_not_sent_again(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    collector.fails = [NotSent("it answers 400", lasting=True)]
    exports = exporter(collector, batch=1)
    exports.put(trace())
    collector.was_asked()
    exports.put(trace())
    collector.was_asked()
    exports.close()
    assert (exports.sent, exports.dropped) == (1, 1)
    lost, back = messages(caplog)
    assert "400" in lost
    assert "1 were dropped" in back


def test_the_end_waits_for_a_collector_that_hangs_only_so_long(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.gate.clear()
    exports = exporter(collector)
    for _ in range(3):
        exports.put(trace())
    collector.was_asked()
    exports.close()
    assert exports.sent == 0
    assert "not sent" in messages(caplog)[-1]


def test_the_last_try_has_little_time(collector: Collector) -> None:
    exports = exporter(collector, delay_s=3600)
    exports.put(trace())
    exports.close()
    assert 0 < collector.timeouts[0] <= CLOSE_TIMEOUT_S


def test_the_end_does_not_wait_for_the_next_try(collector: Collector) -> None:
    collector.fails = [NotSent("connection refused", pause_s=300.0)]
    exports = exporter(collector)
    exports.put(trace())
    collector.was_asked()
    exports.close()
    assert (exports.sent, len(collector.timeouts)) == (0, 1)
