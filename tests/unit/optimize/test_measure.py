"""Sittings with a clock that is moved by hand, and what several of them say together."""

from __future__ import annotations

import gc
import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay_convert.optimize import measure, spread
from tensorquay_convert.optimize.measure import loses, noise, sit, timing, wins
from tensorquay_convert.optimize.results import Point, Sitting, Timing

POINT = Point("batch 8", 8, 0)


class Bench:
    """A clock, and calls that take time on it. `calls` lists who ran."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        self.random = random.Random(seed)

    def clock(self) -> float:
        return self.now

    def call(self, name: str, seconds: float | Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += seconds if isinstance(seconds, float) else seconds()

        return run

    def sit(self, a: float | Callable[[], float], b: float | Callable[[], float], seconds: float = 1.0) -> Sitting:
        return sit(self.call("A", a), self.call("B", b), POINT, seconds=seconds, seed=3, clock=self.clock)


def test_a_steady_model_is_measured_exactly() -> None:
    bench = Bench()
    found = bench.sit(0.004, 0.002)
    assert (found.point, found.batch) == ("batch 8", 8)
    assert found.baseline_p50 == found.baseline_p99 == pytest.approx(0.004)
    assert found.p50 == found.p99 == pytest.approx(0.002)
    assert (found.ratio, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found.rounds == pytest.approx(1.0 / 0.006, abs=2)


def test_both_are_first_equally_often_and_in_an_order_drawn_by_the_seed() -> None:
    benches = [Bench(), Bench()]
    for bench in benches:
        bench.sit(0.01, 0.01)
    assert benches[0].calls == benches[1].calls
    pairs = list(zip(*[iter(benches[0].calls[-40:])] * 2, strict=True))
    firsts = [first for first, second in pairs if first != second]
    assert len(firsts) == len(pairs)
    assert abs(firsts.count("A") - firsts.count("B")) <= 1
    assert "".join(firsts) not in {"AB" * 10, "BA" * 10}


def test_fast_models_run_many_times_in_a_block() -> None:
    bench = Bench()
    found = bench.sit(1e-5, 2e-5, seconds=0.2)
    tail = bench.calls[-300 * found.rounds :]
    blocks = [(name, len(list(group))) for name, group in itertools.groupby(tail)]
    shortest = min(count * (1e-5 if name == "A" else 2e-5) for name, count in blocks[1:])
    assert shortest >= measure.BLOCK_S * 0.999
    assert found.ratio == pytest.approx(0.5)


def test_a_slow_model_gets_three_rounds_even_past_its_time() -> None:
    bench = Bench()
    found = bench.sit(60.0, 30.0)
    assert found.rounds == measure.SLOW_ROUNDS
    assert found.ratio == pytest.approx(2.0)
    assert len(bench.calls) <= 2 * (measure.SLOW_ROUNDS + 1)


def test_a_model_that_nearly_fits_gets_ten_rounds() -> None:
    assert Bench().sit(0.07, 0.07).rounds == measure.MIN_ROUNDS


def test_rounds_are_bounded() -> None:
    assert Bench().sit(0.002, 0.002, seconds=1e6).rounds == measure.MAX_ROUNDS


def test_a_clock_that_stands_still_divides_nothing_by_zero() -> None:
    bench = Bench()
    ticks = itertools.count()
    call = bench.call("A", 0.0)
    found = sit(call, call, POINT, seconds=1.0, seed=0, clock=lambda: 0.001 * (next(ticks) // 500))
    assert math.isfinite(found.ratio)
    assert found.ratio > 0


def test_the_first_runs_do_not_count() -> None:
    bench = Bench()
    cold = itertools.chain([0.5, 0.2, 0.05, 0.02, 0.01, 0.005], itertools.repeat(0.001))
    found = bench.sit(lambda: next(cold), 0.001, seconds=5.0)
    assert found.baseline_p99 == pytest.approx(0.001)
    assert found.ratio == pytest.approx(1.0)


def test_disturbed_rounds_do_not_move_the_median() -> None:
    bench = Bench(1)
    found = bench.sit(lambda: 0.003 if bench.random.random() < 0.9 else 0.3, 0.003, seconds=2.0)
    assert found.ratio == pytest.approx(1.0, rel=1e-6)
    assert found.baseline_p99 == pytest.approx(0.3)
    assert found.baseline_p50 == pytest.approx(0.003)


def test_no_garbage_is_collected_meanwhile_and_it_is_again_afterwards() -> None:
    seen = set()
    bench = Bench()

    def fails() -> float:
        seen.add(gc.isenabled())
        if len(bench.calls) > 30:
            raise RuntimeError("the device is gone")
        return 0.01

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="the device is gone"):
        bench.sit(fails, 0.01)
    assert seen == {False}
    assert gc.isenabled()


@pytest.mark.parametrize("count", [8, 9, 20, 41, 200, 1000])
def test_the_interval_of_the_median_holds_it_with_99_percent(count: int) -> None:
    rank = spread._rank(count)
    outside = 2 * sum(math.comb(count, k) for k in range(rank)) / 2**count
    assert outside <= 0.0101
    one_more = outside + 2 * math.comb(count, rank) / 2**count
    assert one_more > 0.01, "and it is no wider than it has to be"


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=60))
def test_an_interval_holds_its_median(ratios: list[float]) -> None:
    for found in (spread.median_interval(ratios), spread.ratio_interval(ratios)):
        middle, low, high = found
        assert low <= middle * (1 + 1e-12)
        assert high >= middle * (1 - 1e-12)
        assert middle == statistics.median(ratios)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8, 20, 24, 100])
def test_intervals_of_few_and_many_rounds_hold_the_truth(count: int) -> None:
    rng = random.Random(count)
    inside = 0
    for _ in range(400):
        _, low, high = spread.ratio_interval([math.exp(rng.gauss(0, 0.05)) for _ in range(count)])
        inside += low <= 1 <= high
    assert inside >= 0.97 * 400


def one_process(
    rng: random.Random, *, true: float, process: float, rounds: float, count: int = 40, burst: int = 1
) -> Sitting:
    """A sitting as the statistics see it: an offset of its process, noise of its rounds, alike for `burst` of them."""
    offset = rng.gauss(0, process)
    ratios: list[float] = []
    while len(ratios) < count:
        ratios += [true * math.exp(offset + rng.gauss(0, rounds))] * burst
    ratio, low, high = spread.ratio_interval(ratios[:count])
    return Sitting(POINT.name, POINT.batch, count, 1.0, 1.1, 1.0 / true, 1.1 / true, ratio, low, high)


@pytest.mark.parametrize("sittings", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("true", "process", "rounds", "burst"),
    [
        (1.0, 0.0, 0.01, 1), (1.0, 0.01, 0.01, 1), (1.0, 0.01, 0.2, 1), (1.0, 0.005, 0.03, 4),
        (1.3, 0.015, 0.02, 1), (2.0, 0.04, 0.05, 1), (4.0, 0.08, 0.02, 1), (0.3, 0.06, 0.1, 4),
    ],
)  # fmt: skip
def test_a_new_process_finds_its_ratio_within_the_bounds(
    sittings: int, true: float, process: float, rounds: float, burst: int
) -> None:
    """Noise up to what `timing` calls usual: 1 % between processes and 6 % of the difference."""
    rng = random.Random(7)

    def one() -> Sitting:
        return one_process(rng, true=true, process=process, rounds=rounds, burst=burst)

    trials = 300
    inside = 0
    for _ in range(trials):
        found = timing([one() for _ in range(sittings)])
        inside += found.low <= one().ratio <= found.high
    assert inside >= 0.95 * trials


@pytest.mark.parametrize("process", [0.03, 0.06])
def test_more_sittings_learn_that_processes_differ_more_than_usual(process: float) -> None:
    rng = random.Random(11)

    def one() -> Sitting:
        return one_process(rng, true=1.0, process=process, rounds=0.02)

    def coverage(sittings: int) -> float:
        found = [(timing([one() for _ in range(sittings)]), one().ratio) for _ in range(300)]
        return sum(each.low <= ratio <= each.high for each, ratio in found) / len(found)

    assert coverage(12) >= 0.9
    assert coverage(12) > coverage(1)


@given(
    st.lists(
        st.tuples(st.floats(0.05, 20), st.floats(1.0, 1.5), st.floats(1.0, 1.5)), min_size=1, max_size=6
    )
)  # fmt: skip
def test_a_timing_spans_its_sittings(drawn: list[tuple[float, float, float]]) -> None:
    each = [sitting(ratio, ratio / down, ratio * up) for ratio, down, up in drawn]
    found = timing(each)
    assert found.sittings == len(each)
    assert found.low <= min(one.low for one in each)
    assert found.high >= max(one.high for one in each)
    assert found.low < found.ratio < found.high
    assert found == timing(list(reversed(each)))


def sitting(ratio: float, low: float, high: float) -> Sitting:
    return Sitting("batch 8", 8, 40, 0.002, 0.003, 0.002 / ratio, 0.003 / ratio, ratio, low, high)


def test_the_times_of_a_timing_are_the_middle_sittings() -> None:
    fast, slow = sitting(2.0, 1.9, 2.1), replace(sitting(2.0, 1.9, 2.1), p50=0.5, baseline_p50=1.0)
    assert timing([fast, slow, fast]).p50 == fast.p50
    assert timing([fast, slow, fast]).baseline_p50 == fast.baseline_p50


def about(ratio: float, half: float = 0.02) -> Timing:
    return Timing("batch 8", 8, 2, 1.0, 1.0, 1.0 / ratio, 1.0, ratio, ratio * (1 - half), ratio * (1 + half))


@pytest.mark.parametrize(
    ("seen", "margin"),
    [([], 0.01), ([about(1.0, 0.001)], 0.01), ([about(1.0)], 0.02), ([about(1.0), about(0.97)], 0.05)],
)
def test_the_noise_is_the_farthest_bound_of_the_baseline_against_itself(seen: Sequence[Timing], margin: float) -> None:
    assert noise(seen) == pytest.approx(margin, abs=0.003)


@pytest.mark.parametrize(
    ("found", "won", "lost"),
    [
        (about(1.2), True, False),
        (about(1.04), False, False),
        (about(1.2, half=0.3), False, False),
        (about(1.0), False, False),
        (about(0.97), False, False),
        (about(0.8), False, True),
        (about(0.8, half=0.4), False, False),
    ],
)
def test_only_what_is_beyond_the_noise_and_its_own_spread_wins_or_loses(found: Timing, won: bool, lost: bool) -> None:
    assert wins(found, 0.05) is won
    assert loses(found, 0.05) is lost


@given(st.floats(0.1, 10), st.floats(0, 0.5), st.floats(0, 0.5))
def test_nothing_wins_and_loses(ratio: float, half: float, margin: float) -> None:
    assert not (wins(about(ratio, half), margin) and loses(about(ratio, half), margin))


def test_the_same_model_does_not_beat_itself() -> None:
    """The noise rule, with processes that differ as is usual: a false win in at most 1 of 100."""
    rng = random.Random(5)

    def measured() -> Timing:
        return timing([one_process(rng, true=1.0, process=0.01, rounds=0.03) for _ in range(3)])

    won = sum(wins(measured(), noise([measured()])) for _ in range(300))
    assert won <= 3
