"""Laws of the batching policy, for any queue and limits."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tensorquay.batching.policy import BatchLimits, Dispatch, WaitUntil, decide


@dataclass(frozen=True)
class Item:
    key: int
    rows: int
    enqueued_ns: int


items = st.builds(Item, key=st.integers(0, 2), rows=st.integers(0, 8), enqueued_ns=st.integers(0, 100))
limits = st.builds(
    BatchLimits,
    max_rows=st.integers(8, 20),
    max_delay_ns=st.integers(0, 60),
    preferred_rows=st.lists(st.integers(1, 8), unique=True, max_size=3).map(lambda sizes: tuple(sorted(sizes))),
    max_riders=st.sampled_from([1, 2, 2**31]),
)


@given(st.lists(items, min_size=1, max_size=40), limits, st.integers(0, 200))
def test_a_batch_is_never_overfull_mixed_or_without_its_head_and_nobody_waits_past_the_delay(queue, limits, now_ns):
    match decide(queue, limits, now_ns):
        case Dispatch(picks):
            riders = [queue[pick] for pick in picks]
            assert picks[0] == 0
            assert list(picks) == sorted(set(picks))
            assert sum(rider.rows for rider in riders) <= limits.max_rows
            assert {rider.key for rider in riders} == {queue[0].key}
            assert len(picks) <= limits.max_riders
            # First come, first served among equals: nobody of the same shape is left out before the last pick.
            assert [i for i in range(picks[-1] + 1) if queue[i].key == queue[0].key] == list(picks)
        case WaitUntil(due_ns):
            assert now_ns < due_ns <= queue[0].enqueued_ns + limits.max_delay_ns


@given(st.lists(items, min_size=1, max_size=40), limits, st.integers(0, 200))
def test_the_policy_answers_the_same_question_the_same_way(queue, limits, now_ns):
    assert decide(queue, limits, now_ns) == decide(tuple(queue), limits, now_ns)
