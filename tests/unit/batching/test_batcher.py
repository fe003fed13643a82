"""The batcher with a session the test controls: who rides with whom, who is hurt by whom, what is counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tensorquay.backends.api import GraphSignature, Placement
from tensorquay.batching import batcher as batcher_module
from tensorquay.batching import loop_guard
from tensorquay.batching.batcher import Batcher
from tensorquay.batching.rider import Rider
from tensorquay.config.model import BatchingConfig, Oversize, QueuePolicy, TimeoutAction
from tensorquay.core.clock import SystemClock
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    ModelFailed,
    Overloaded,
    Rejection,
    ServingError,
    Unavailable,
)
from tensorquay.core.ids import VersionKey
from tensorquay.core.packed import Ride
from tensorquay.core.signature import Signature, TensorSpec
from tensorquay.telemetry.devices import Devices
from tensorquay.telemetry.statistics import VersionStatistics
from tensorquay.testing import ManualClock

SPEC_X = TensorSpec("x", DataType.FP32, (-1, -1))
SPEC_Y = TensorSpec("y", DataType.FP32, (-1, -1))
POISON = 666.0


class Doubler:
    """y = 2x; remembers its batches; refuses a batch that holds POISON; waits for `gate` when there is one."""

    graph = GraphSignature((SPEC_X,), (SPEC_Y,))

    def __init__(self, gate: threading.Event | None = None, gpu: int | None = None) -> None:
        self.gate = gate
        self.placement = Placement((), 1, 1, gpu=gpu)
        self.started = threading.Semaphore(0)
        self.batches: list[list[float]] = []

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        x = inputs["x"]
        self.batches.append([float(value) for value in x[:, :1].flat])
        self.started.release()
        if self.gate is not None:
            assert self.gate.wait(20), "the test forgot the gate"
        if (x == POISON).any():
            raise ModelFailed("poison")
        return [x * 2 for _ in outputs]

    def close(self) -> None:
        pass

    async def wait_started(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, True, 20)


class Passenger(Rider):
    """Tells `told` its outcome."""

    def __init__(self, told: Callable[[Any], None], *fields: Any, **more: Any) -> None:
        super().__init__(*fields, **more)
        self.told = told

    def settle(self, outcome: Any) -> None:
        self.told(outcome)


class Bench:
    """One batcher and its riders' outcomes as futures."""

    def __init__(self, session: Doubler, config: BatchingConfig, **options: Any) -> None:
        max_rows = options.pop("max_rows", 8)
        slots = options.pop("slots", 1)
        self.stats = VersionStatistics(VersionKey("m", 1))
        self.session = session
        options.setdefault("inline", session.gate is None)
        self.batcher = Batcher(
            [session] * slots,
            Signature("m", (SPEC_X,), (SPEC_Y,), max_rows),
            config,
            stats=self.stats,
            clock=SystemClock(),
            loop=asyncio.get_running_loop(),
            **options,
        )
        self.settled: list[float] = []

    def ride(self, value: float, rows: int = 1, width: int = 1, **fields: Any) -> tuple[Rider, asyncio.Future[Any]]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def settle(outcome: Any) -> None:
            assert not future.done(), "settled twice"
            self.settled.append(value)
            future.set_result(outcome)

        array = np.full((rows, width), value, np.float32)
        rider = Passenger(settle, arrays=(array,), rows=rows, key=((width,),), **fields)
        self.batcher.submit(rider)
        return rider, future


@pytest.fixture
async def make():
    made: list[Bench] = []

    def build(
        config: BatchingConfig | None = None, *, gated: bool = False, gpu: int | None = None, **options: Any
    ) -> Bench:
        bench = Bench(Doubler(threading.Event() if gated else None, gpu), config or BatchingConfig(), **options)
        made.append(bench)
        return bench

    yield build
    for bench in made:
        if bench.session.gate is not None:
            bench.session.gate.set()
        await bench.batcher.close()
        assert bench.batcher.pending == 0
        assert bench.stats.pending == 0


Make = Callable[..., Bench]


def values(outcome: Any) -> list[float]:
    assert isinstance(outcome, Ride), outcome
    assert outcome.arrays[0] is not None
    return [float(value) for value in outcome.arrays[0][:, :1].flat]


async def test_everything_of_one_loop_turn_is_one_batch(make: Make):
    bench = make()
    outcomes = await asyncio.gather(*(bench.ride(float(i))[1] for i in range(5)))
    assert [values(outcome) for outcome in outcomes] == [[0.0], [2.0], [4.0], [6.0], [8.0]]
    assert bench.session.batches == [[0.0, 1.0, 2.0, 3.0, 4.0]]
    assert bench.stats.execution_count == 1
    assert bench.stats.inference_count == 5
    assert outcomes[0].batch_rows == 5


async def test_requests_of_several_rows_are_merged_and_cut_back(make: Make):
    bench = make()
    outcomes = await asyncio.gather(*(bench.ride(float(i), rows=i)[1] for i in (3, 1, 4)))
    assert [values(outcome) for outcome in outcomes] == [[6.0] * 3, [2.0], [8.0] * 4]
    assert bench.stats.execution_count == 1


async def test_shapes_never_mix_and_the_other_shape_is_not_starved(make: Make):
    bench = make()
    outcomes = await asyncio.gather(
        bench.ride(1.0)[1], bench.ride(2.0, width=2)[1], bench.ride(3.0)[1], bench.ride(4.0, width=2)[1]
    )
    assert [values(outcome) for outcome in outcomes] == [[2.0], [4.0], [6.0], [8.0]]
    assert bench.session.batches == [[1.0, 3.0], [2.0, 4.0]]


async def test_while_the_device_is_busy_the_next_batch_forms(make: Make):
    bench = make(gated=True)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    rest = [bench.ride(float(i))[1] for i in range(2, 6)]
    bench.session.gate.set()
    await asyncio.gather(first, *rest)
    assert bench.session.batches == [[1.0], [2.0, 3.0, 4.0, 5.0]]


async def test_a_poison_request_fails_alone(make: Make):
    bench = make()
    outcomes = await asyncio.gather(*(bench.ride(value)[1] for value in (1.0, POISON, 3.0)))
    assert values(outcomes[0]) == [2.0]
    assert isinstance(outcomes[1], ModelFailed)
    assert values(outcomes[2]) == [6.0]
    assert bench.session.batches == [[1.0, POISON, 3.0], [1.0], [POISON], [3.0]]
    assert bench.stats.execution_count == 2
    assert bench.stats.inference_count == 2
    assert (bench.stats.offered_rows, bench.stats.failed_rows) == (3, 1)


async def test_a_rider_that_leaves_the_queue_is_not_run_and_hurts_nobody(make: Make):
    bench = make(gated=True)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    leaving, left = bench.ride(2.0)
    staying = bench.ride(3.0)[1]
    bench.batcher.cancel(leaving)
    bench.batcher.cancel(leaving)
    assert isinstance(await left, Cancelled)
    bench.session.gate.set()
    assert values(await first) == [2.0]
    assert values(await staying) == [6.0]
    assert bench.session.batches == [[1.0], [3.0]]


async def test_a_rider_that_leaves_inside_a_batch_hurts_nobody(make: Make):
    bench = make(gated=True)
    riders = [bench.ride(float(i)) for i in range(4)]
    await bench.session.wait_started()
    bench.batcher.cancel(riders[0][0])
    bench.session.gate.set()
    left, *rest = await asyncio.gather(*(future for _, future in riders))
    assert isinstance(left, Cancelled)
    assert [values(outcome) for outcome in rest] == [[2.0], [4.0], [6.0]]


async def test_an_oversize_request_is_split_and_its_answer_joined(make: Make):
    bench = make(max_rows=4)
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    array = np.arange(10, dtype=np.float32).reshape(10, 1)
    rider = Passenger(future.set_result, arrays=(array,), rows=10, key=((1,),))
    bench.batcher.submit(rider)
    assert values(await future) == [2.0 * i for i in range(10)]
    assert [len(batch) for batch in bench.session.batches] == [4, 4, 2]
    assert rider.done


async def test_an_oversize_request_can_leave_as_a_whole(make: Make):
    bench = make(gated=True, max_rows=2)
    first = bench.ride(0.0)[1]
    await bench.session.wait_started()
    big, outcome = bench.ride(1.0, rows=5)
    assert bench.batcher.pending == 3
    bench.batcher.cancel(big)
    assert isinstance(await outcome, Cancelled)
    assert bench.batcher.pending == 0
    bench.session.gate.set()
    await first
    assert bench.session.batches == [[0.0]]


async def test_an_oversize_request_fails_once_when_a_piece_fails(make: Make):
    bench = make(max_rows=2)
    outcome = await bench.ride(POISON, rows=5)[1]
    assert isinstance(outcome, ModelFailed)


async def test_strict_models_refuse_oversize_requests_in_tritons_words(make: Make):
    bench = make(BatchingConfig(oversize=Oversize.REFUSE))
    with pytest.raises(InvalidArgument, match="inference request batch-size must be <= 8 for 'm', got 9"):
        bench.ride(1.0, rows=9)


async def test_without_dynamic_batching_every_request_is_a_run(make: Make):
    bench = make(BatchingConfig(enabled=False))
    await asyncio.gather(*(bench.ride(float(i), rows=2)[1] for i in range(3)))
    assert bench.session.batches == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]


async def test_a_full_queue_refuses_in_tritons_words_and_accepts_again_later(make: Make):
    bench = make(BatchingConfig(default_queue_policy=QueuePolicy(max_queue_size=2)), gated=True)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    waiting = [bench.ride(2.0)[1], bench.ride(3.0)[1]]
    with pytest.raises(Unavailable, match="Exceeds maximum queue size"):
        bench.ride(4.0)
    bench.session.gate.set()
    await asyncio.gather(first, *waiting)
    assert values(await bench.ride(5.0)[1]) == [10.0]


async def test_the_servers_own_bound_says_when_to_come_back(make: Make):
    bench = make(gated=True, max_pending=1)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    second = bench.ride(2.0)[1]
    with pytest.raises(Overloaded) as refused:
        bench.ride(3.0)
    assert refused.value.retry_after_s
    bench.session.gate.set()
    await asyncio.gather(first, second)


async def test_an_oversize_request_gets_in_whole_or_not_at_all(make: Make):
    bench = make(gated=True, max_rows=2, max_pending=2)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    with pytest.raises(InvalidArgument, match=r"5 rows is 3 batches.*send at most 4 rows"):
        bench.ride(2.0, rows=5)
    waiting = bench.ride(3.0)[1]
    with pytest.raises(Overloaded):
        bench.ride(2.0, rows=4)
    assert bench.batcher.pending == 1
    bench.session.gate.set()
    await asyncio.gather(first, waiting)


async def test_a_split_request_counts_once_against_the_models_queue_size(make: Make):
    bench = make(BatchingConfig(default_queue_policy=QueuePolicy(max_queue_size=1)), max_rows=2)
    assert values(await bench.ride(2.0, rows=7)[1]) == [4.0] * 7


async def test_a_queue_timeout_is_answered_while_the_device_is_still_busy(make: Make):
    bench = make(BatchingConfig(default_queue_policy=QueuePolicy(default_timeout_us=400_000)), gated=True)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    outcome = await bench.ride(2.0)[1]
    assert not first.done()
    assert isinstance(outcome, Unavailable)
    assert "Request timeout expired" in outcome.message
    bench.session.gate.set()
    assert values(await first) == [2.0]


async def test_a_request_may_only_shorten_the_timeout_and_only_when_allowed(make: Make):
    policy = QueuePolicy(default_timeout_us=3_600_000_000, allow_timeout_override=True)
    bench = make(BatchingConfig(default_queue_policy=policy), gated=True)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    assert isinstance(await bench.ride(2.0, timeout_us=1000)[1], Unavailable)
    bench.session.gate.set()
    await first

    fixed = make(BatchingConfig(), gated=True)
    first = fixed.ride(1.0)[1]
    await fixed.session.wait_started()
    waiting = fixed.ride(2.0, timeout_us=1)[1]
    fixed.session.gate.set()
    assert values(await waiting) == [4.0]
    await first


async def test_a_deadline_is_answered_as_such(make: Make):
    bench = make(gated=True)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    outcome = await bench.ride(2.0, deadline_ns=SystemClock().now_ns() + 1_000_000)[1]
    assert isinstance(outcome, DeadlineExceeded)
    bench.session.gate.set()
    await first


async def test_delayed_requests_run_after_those_in_time(make: Make):
    policy = QueuePolicy(
        default_timeout_us=3_600_000_000, allow_timeout_override=True, timeout_action=TimeoutAction.DELAY
    )
    bench = make(BatchingConfig(default_queue_policy=policy), gated=True, max_rows=1)
    first = bench.ride(1.0)[1]
    await bench.session.wait_started()
    late = bench.ride(2.0, timeout_us=1)[1]
    in_time = bench.ride(3.0)[1]
    bench.session.gate.set()
    await asyncio.gather(first, late, in_time)
    assert bench.session.batches == [[1.0], [3.0], [2.0]]


async def test_priority_one_goes_first_and_levels_need_no_memory(make: Make):
    config = BatchingConfig(priority_levels=2**64 - 1, default_priority_level=2**63)
    bench = make(config, gated=True, max_rows=1)
    first = bench.ride(0.0)[1]
    await bench.session.wait_started()
    rides = [
        bench.ride(1.0)[1],
        bench.ride(2.0, priority=2**64 - 1)[1],
        bench.ride(3.0, priority=1)[1],
        bench.ride(4.0, priority=1)[1],
    ]
    bench.session.gate.set()
    await asyncio.gather(first, *rides)
    assert bench.session.batches == [[0.0], [3.0], [4.0], [1.0], [2.0]]


async def test_a_priority_beyond_the_levels_is_the_default_one(make: Make):
    bench = make(BatchingConfig(priority_levels=2, default_priority_level=1), gated=True, max_rows=1)
    first = bench.ride(0.0)[1]
    await bench.session.wait_started()
    rides = [bench.ride(1.0, priority=2)[1], bench.ride(2.0, priority=3)[1]]
    bench.session.gate.set()
    await asyncio.gather(first, *rides)
    assert bench.session.batches == [[0.0], [2.0], [1.0]]


async def test_preserve_ordering_holds_back_answers_but_not_runs(make: Make):
    bench = make(BatchingConfig(preserve_ordering=True), gated=True, slots=2, max_rows=1)
    slow = bench.ride(1.0)[1]
    await bench.session.wait_started()
    quick = bench.ride(2.0)[1]
    await bench.session.wait_started()
    leaving, left = bench.ride(3.0)
    bench.batcher.cancel(leaving)
    assert not left.done()
    bench.session.gate.set()
    await asyncio.gather(slow, quick, left)
    assert bench.settled == [1.0, 2.0, 3.0]


async def test_preferred_size_leaves_without_waiting_for_the_delay(make: Make):
    bench = make(BatchingConfig(max_queue_delay_us=3_600_000_000, preferred_batch_sizes=(3,)))
    outcomes = await asyncio.gather(*(bench.ride(float(i))[1] for i in range(3)))
    assert [values(outcome) for outcome in outcomes] == [[0.0], [2.0], [4.0]]


async def test_the_delay_ends(make: Make):
    bench = make(BatchingConfig(max_queue_delay_us=2000))
    assert values(await bench.ride(1.0)[1]) == [2.0]


async def test_close_answers_what_was_accepted_and_refuses_the_rest(make: Make):
    bench = make(gated=True)
    rides = [bench.ride(float(i))[1] for i in range(3)]
    await bench.session.wait_started()
    closing = asyncio.ensure_future(bench.batcher.close())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        bench.ride(9.0)
    assert not closing.done()
    bench.session.gate.set()
    assert [values(outcome) for outcome in await asyncio.gather(*rides)] == [[0.0], [2.0], [4.0]]
    await closing


async def test_a_session_that_raises_nonsense_still_answers_everybody(make: Make):
    bench = make()

    def broken(*_: object) -> list[Any]:
        raise MemoryError("no")

    bench.session.run = broken  # type: ignore[method-assign]
    outcomes = await asyncio.gather(*(bench.ride(float(i))[1] for i in range(2)))
    assert all(isinstance(outcome, MemoryError) for outcome in outcomes)
    assert not any(isinstance(outcome, ServingError) for outcome in outcomes)


async def test_an_output_without_a_batch_axis_is_the_models_failure(make: Make):
    bench = make()
    bench.session.run = lambda *_: [np.zeros((7, 1))]  # type: ignore[method-assign]
    outcomes = await asyncio.gather(bench.ride(1.0)[1], bench.ride(2.0)[1])
    assert all(isinstance(outcome, ModelFailed) for outcome in outcomes)


async def test_only_asked_outputs_are_computed(make: Make):
    asked: list[Sequence[str]] = []
    bench = make()

    def run(inputs: Mapping[str, Any], outputs: Sequence[str]) -> list[Any]:
        asked.append(list(outputs))
        return [inputs["x"] for _ in outputs]

    bench.session.run = run  # type: ignore[method-assign]
    outcome = await bench.ride(1.0, wanted=())[1]
    assert asked == [[]]
    assert outcome.arrays == (None,)


async def test_what_is_turned_away_has_been_offered_and_says_which_bound_it_met(make: Make) -> None:
    config = BatchingConfig(default_queue_policy=QueuePolicy(max_queue_size=2))
    bench = make(config, gated=True, max_pending=8, max_rows=8)
    bench.ride(1.0, rows=3)
    await bench.session.wait_started()
    assert bench.batcher.oldest_ns is None
    bench.ride(2.0)
    first = bench.batcher.oldest_ns
    assert first is not None
    bench.ride(3.0)
    assert bench.batcher.oldest_ns == first
    with pytest.raises(Unavailable) as full:
        bench.ride(4.0, rows=5)
    assert full.value.rejection is Rejection.QUEUE_FULL
    assert bench.stats.offered_rows == 3 + 1 + 1 + 5
    bench.batcher.turned_away(8)
    assert bench.stats.offered_rows == 18


async def test_a_request_that_is_too_large_for_ever_is_no_demand(make: Make) -> None:
    bench = make(BatchingConfig(oversize=Oversize.REFUSE), max_rows=2)
    with pytest.raises(InvalidArgument):
        bench.ride(1.0, rows=1000)
    bench.batcher.turned_away(1000)
    assert bench.stats.offered_rows == 0
    narrow = make(gated=True, max_rows=2, max_pending=2)
    with pytest.raises(InvalidArgument):
        narrow.ride(1.0, rows=1000)
    assert narrow.stats.offered_rows == 0


async def test_the_servers_own_bound_and_both_times_say_what_they_are(make: Make) -> None:
    bench = make(gated=True, max_pending=1)
    bench.ride(1.0)
    await bench.session.wait_started()
    _, late = bench.ride(2.0, deadline_ns=SystemClock().now_ns() + 1)
    assert (await late).rejection is Rejection.DEADLINE
    config = BatchingConfig(default_queue_policy=QueuePolicy(default_timeout_us=1))
    timed = make(config, gated=True)
    timed.ride(1.0)
    _, expired = timed.ride(2.0)
    assert (await expired).rejection is Rejection.QUEUE_TIMEOUT
    bench.ride(3.0)
    with pytest.raises(Overloaded) as full:
        bench.ride(4.0)
    assert full.value.rejection is Rejection.SERVER_QUEUE_FULL
    assert full.value.for_request("x").rejection is Rejection.SERVER_QUEUE_FULL


async def test_the_oldest_is_found_among_those_put_back_and_among_levels(make: Make) -> None:
    policy = QueuePolicy(default_timeout_us=1, timeout_action=TimeoutAction.DELAY)
    bench = make(BatchingConfig(priority_levels=2, default_priority_level=2, default_queue_policy=policy), gated=True)
    bench.ride(1.0)
    await bench.session.wait_started()
    bench.ride(2.0)
    oldest = bench.batcher.oldest_ns
    bench.ride(3.0, priority=1)
    await asyncio.sleep(0)
    assert bench.batcher.oldest_ns == oldest
    bench.batcher.hurry()
    assert bench.batcher.oldest_ns == oldest


async def test_a_gpu_is_told_of_runs_on_it_and_of_no_others(make: Make):
    clock = ManualClock()
    devices = Devices(clock)
    bench = make(BatchingConfig(enabled=False), gated=True, gpu=3, slots=2, devices=devices)
    _, poisoned = bench.ride(POISON)
    await bench.session.wait_started()
    clock.advance(s=1)
    _, other = bench.ride(1.0)
    await bench.session.wait_started()
    clock.advance(s=1)
    assert devices.full_ns() == {3: 1_500_000_000}
    assert bench.session.gate is not None
    bench.session.gate.set()
    await asyncio.gather(poisoned, other)
    clock.advance(s=60)
    assert devices.full_ns() == {3: 1_500_000_000}, "a run that failed has ended too"
    _, inline = make(gpu=3, devices=devices).ride(1.0)
    on_cpu = make(gated=True, devices=devices)
    _, answered = on_cpu.ride(1.0)
    await on_cpu.session.wait_started()
    clock.advance(s=60)
    assert devices.full_ns() == {3: 1_500_000_000}
    assert on_cpu.session.gate is not None
    on_cpu.session.gate.set()
    await asyncio.gather(inline, answered)


@pytest.mark.parametrize("stays", [False, True])
async def test_a_model_with_slow_runs_leaves_the_loop_unless_it_was_told_to_stay(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stays: bool
) -> None:
    monkeypatch.setattr(batcher_module, "SLOW_NS", 0)
    bench = make(inline=True, stays_inline=stays)
    assert values(await bench.ride(1.0)[1]) == [2.0]
    assert bench.batcher.inline, "one run that is slow by a hair is no reason"
    monkeypatch.setattr(loop_guard, "MOST_NS", 0)
    answers = [bench.ride(float(number))[1] for number in range(20)]
    assert [values(await each) for each in answers] == [[2.0 * number] for number in range(20)]
    assert bench.batcher.inline is stays
    assert values(await bench.ride(3.0)[1]) == [6.0]
    assert caplog.text.count("runs in a thread of its own from now on") == (0 if stays else 1)
