"""What a run adds to its riders' traces: times, rows, and links both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tensorquay.batching.execute import execute
from tensorquay.batching.rider import Rider
from tensorquay.batching.run_traces import trace_runs, trace_starts
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ModelFailed
from tensorquay.core.request_trace import MAX_LINKS, MAX_RUNS, BatchTrace, Entrance, RequestTrace
from tensorquay.core.signature import Signature, TensorSpec
from tensorquay.testing.manual_clock import ManualClock

X, Y = (TensorSpec(name, DataType.FP32, (-1, -1)) for name in "xy")
SIGNATURE = Signature("m", (X,), (Y,), 512)
POISON = 666.0


class Doubler:
    """y = 2x in 50 ns; refuses a batch that holds POISON."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        self._clock.advance(50)
        if (inputs["x"] == POISON).any():
            raise ModelFailed("poison")
        return [inputs["x"] * 2]


class Recorder:
    def __init__(self) -> None:
        self.made = 0

    def ids(self) -> tuple[bytes, bytes]:
        self.made += 1
        return bytes([99 + self.made]) * 16, bytes([99 + self.made]) * 8


def rider(value: float, rows: int = 1, *, sampled: int = 0) -> Rider:
    made = Rider((np.full((rows, 1), value, np.float32),), rows, ((1,),))
    made.enqueued_ns = 700
    if sampled:
        made.trace = RequestTrace(lambda _: None, Entrance.HTTP, 600, bytes([sampled]) * 16, bytes([sampled]) * 8)
        made.trace.asks("m", "")
        made.trace.accepted("3", "CPU", rows)
    return made


def ran(riders: list[Rider]) -> tuple[list[BatchTrace], list[RequestTrace]]:
    clock, recorder = ManualClock(1000), Recorder()
    result = execute(Doubler(clock), SIGNATURE, riders, clock)  # type: ignore[arg-type]
    trace_runs(recorder, riders, result.outcomes)
    traces = [each.trace for each in riders if isinstance(each.trace, RequestTrace)]
    batches = [batch for trace in traces for batch in trace.batches]
    assert len(batches) == recorder.made
    return batches, traces


def test_a_batch_and_its_sampled_riders_know_each_other():
    (batch,), traces = ran([rider(1.0, sampled=1), rider(2.0, 3), rider(3.0, 2, sampled=2)])
    assert (batch.model, batch.version, batch.provider, batch.rows, batch.riders) == ("m", "3", "CPU", 6, 3)
    assert batch.links == [(trace.trace_id, trace.span_id) for trace in traces]
    assert (batch.times.start_ns, batch.times.infer_ns) == (1000, 50)
    for trace, rows in zip(traces, (1, 2), strict=True):
        (run,) = trace.runs
        assert (run.queued_ns, run.rows, run.batch_rows) == (700, rows, 6)
        assert run.times == batch.times
        assert (run.batch_trace_id, run.batch_span_id) == (batch.trace_id, batch.span_id)


def test_a_run_without_sampled_riders_is_not_recorded():
    assert ran([rider(1.0), rider(2.0)]) == ([], [])


def test_after_a_poisoned_batch_each_rider_has_its_own_run():
    batches, traces = ran([rider(1.0, sampled=1), rider(POISON, sampled=2), rider(3.0, sampled=3), rider(4.0)])
    assert [batch.links for batch in batches] == [[(b"\1" * 16, b"\1" * 8)], [(b"\3" * 16, b"\3" * 8)]]
    assert [(batch.rows, batch.riders) for batch in batches] == [(1, 1), (1, 1)]
    assert [len(trace.runs) for trace in traces] == [1, 0, 1]


def test_who_has_left_is_not_linked():
    riders = [rider(1.0, sampled=1), rider(2.0, sampled=2)]
    riders[0].done = True
    (batch,), traces = ran(riders)
    assert batch.links == [(b"\2" * 16, b"\2" * 8)]
    assert not traces[0].runs


def test_who_is_told_of_a_start_was_running_until_the_end_is_told():
    clock, riders = ManualClock(1000), [rider(1.0, sampled=1), rider(2.0), rider(POISON, sampled=2)]
    trace_starts(riders, clock)
    traces = [each.trace for each in riders if isinstance(each.trace, RequestTrace)]
    assert [trace.running_ns for trace in traces] == [1000, 1000]
    result = execute(Doubler(clock), SIGNATURE, riders, clock)  # type: ignore[arg-type]
    trace_runs(Recorder(), riders, result.outcomes)
    # The second run of the two had no end that could be told.
    assert [trace.running_ns for trace in traces] == [0, 1000]


def test_when_the_first_can_tell_no_more_the_next_one_does():
    full, other = rider(1.0, sampled=1), rider(2.0, sampled=2)
    clock = ManualClock(1000)
    for _ in range(MAX_RUNS):
        trace_runs(Recorder(), [full], execute(Doubler(clock), SIGNATURE, [full], clock).outcomes)  # type: ignore[arg-type]
    assert len(full.trace.batches) == MAX_RUNS  # type: ignore[union-attr]
    both = [full, other]
    trace_runs(Recorder(), both, execute(Doubler(clock), SIGNATURE, both, clock).outcomes)  # type: ignore[arg-type]
    (batch,) = other.trace.batches  # type: ignore[union-attr]
    assert len(batch.links) == 2


def test_links_are_bounded():
    (batch,), _ = ran([rider(1.0, sampled=1 + n % 200) for n in range(300)])
    assert len(batch.links) == MAX_LINKS
    assert batch.riders == 300
