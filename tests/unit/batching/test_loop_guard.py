"""When slow runs are too many for the event loop, and when they are a busy machine's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tensorquay.batching.loop_guard import MOST_NS, SLOW_NS, LoopGuard

MS = 1_000_000


def test_one_very_slow_run_is_enough():
    assert LoopGuard().ends(MOST_NS + 1, 10**12)


def test_a_hiccup_now_and_then_is_forgiven():
    guard = LoopGuard()
    assert not any(guard.ends(20 * MS, second * 1000 * MS) for second in range(1, 1000))


def test_runs_that_are_always_slow_are_not():
    guard = LoopGuard()
    told = [guard.ends(SLOW_NS, number * SLOW_NS) for number in range(1, 50)]
    assert told.index(True) < 25


@given(st.lists(st.tuples(st.integers(0, 2_000 * MS), st.integers(SLOW_NS, MOST_NS)), min_size=1, max_size=50))
def test_it_ends_where_more_was_held_than_is_forgiven(runs: list[tuple[int, int]]) -> None:
    guard, now_ns, held = LoopGuard(), 0, 0.0
    for number, (pause_ns, run_ns) in enumerate(runs):
        now_ns += pause_ns + run_ns
        held = max(held - (pause_ns + run_ns) / 20, 0) + run_ns
        if abs(held - MOST_NS) > number + 2:
            assert guard.ends(run_ns, now_ns) == (held > MOST_NS)
        else:
            guard.ends(run_ns, now_ns)
