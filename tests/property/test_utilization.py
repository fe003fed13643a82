"""Laws of the number to scale on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core.ids import VersionKey
from tensorquay.telemetry.utilization import VersionWork, Work, utilization

S = 10**9


@st.composite
def versions(draw: st.DrawFn) -> VersionWork:
    rows = draw(st.integers(0, 10**6))
    return VersionWork(
        offered_rows=draw(st.integers(0, 10**7)),
        run_rows=rows,
        run_ns=draw(st.integers(0, 300 * S)) if rows else 0,
        slots=draw(st.integers(0, 8)),
        inline=draw(st.booleans()),
        gpus=draw(st.frozensets(st.integers(0, 1))),
        failed_rows=draw(st.integers(0, 10**6)),
    )


@st.composite
def works(draw: st.DrawFn) -> Work:
    own, loop, front = (draw(st.integers(0, 100 * S)) for _ in range(3))
    return Work(
        at_ns=draw(st.integers(1, 60 * S)),
        cpu_ns=own + loop + front,
        loop_ns=loop,
        frontends_ns=front,
        frontends=draw(st.integers(0, 4)),
        refused=draw(st.integers(0, 10)),
        gpus={number: draw(st.integers(0, 60 * S)) for number in range(draw(st.integers(0, 2)))},
        versions={VersionKey(f"m{n}", 1): draw(versions()) for n in range(draw(st.integers(0, 4)))},
    )


CORES = st.floats(0.1, 64)


@given(works(), CORES)
def test_it_is_never_negative_and_finite(work: Work, cores: float) -> None:
    assert 0 <= utilization(Work(), work, cores=cores) < 1e15


@given(works(), CORES)
def test_when_nobody_asked_it_is_zero_whatever_the_cpu_does(work: Work, cores: float) -> None:
    later = replace(work, at_ns=work.at_ns + 30 * S, cpu_ns=work.cpu_ns + 30 * S, loop_ns=work.loop_ns + 30 * S)
    assert utilization(work, later, cores=cores) == 0
    assert utilization(work, work, cores=cores) == 0
    assert utilization(later, work, cores=cores) == 0, "a clock that went back"


@given(works(), CORES, st.integers(0, 3), st.integers(1, 10**6))
def test_more_demand_never_makes_it_less(work: Work, cores: float, which: int, more: int) -> None:
    key = VersionKey(f"m{which}", 1)
    if key not in work.versions:
        return
    version = work.versions[key]
    busier = replace(work, versions={**work.versions, key: replace(version, offered_rows=version.offered_rows + more)})
    assert utilization(Work(), busier, cores=cores) >= utilization(Work(), work, cores=cores)


@given(works(), CORES, st.integers(2, 50))
def test_it_does_not_depend_on_how_long_was_looked(work: Work, cores: float, factor: int) -> None:
    longer = Work(
        at_ns=work.at_ns * factor,
        cpu_ns=work.cpu_ns * factor,
        loop_ns=work.loop_ns * factor,
        frontends_ns=work.frontends_ns * factor,
        frontends=work.frontends,
        refused=work.refused * factor,
        gpus={number: full_ns * factor for number, full_ns in work.gpus.items()},
        versions={
            key: replace(
                each,
                offered_rows=each.offered_rows * factor,
                run_rows=each.run_rows * factor,
                run_ns=each.run_ns * factor,
                failed_rows=each.failed_rows * factor,
            )
            for key, each in work.versions.items()
        },
    )
    once, often = (utilization(Work(), each, cores=cores) for each in (work, longer))
    assert often == pytest.approx(once, rel=1e-6)


@given(works(), CORES)
def test_idle_versions_beside_change_nothing(work: Work, cores: float) -> None:
    idle = {VersionKey(f"idle{n}", 1): VersionWork(slots=2) for n in range(50)}
    beside = replace(work, versions={**work.versions, **idle})
    assert utilization(Work(), beside, cores=cores) == utilization(Work(), work, cores=cores)


def threaded(offered: int, rows: int, run_s: float, slots: int = 1) -> VersionWork:
    return VersionWork(offered, rows, int(run_s * S), slots)


def over_ten_seconds(*of: VersionWork, cpu_s: float = 0.0, loop_s: float = 0.0) -> Work:
    versions = {VersionKey(f"m{n}", 1): each for n, each in enumerate(of)}
    return Work(at_ns=10 * S, cpu_ns=int(cpu_s * S), loop_ns=int(loop_s * S), versions=versions)


@pytest.mark.parametrize("times", [1, 2, 4, 10])
def test_twice_the_traffic_is_twice_the_value_beyond_saturation_too(times: int) -> None:
    # 100 rows of 20 ms in 10 s are 0.2; the instance can do 500, and what comes beyond is turned away.
    offered = 100 * times
    rows = min(offered, 500)
    work = over_ten_seconds(threaded(offered, rows, rows * 0.02), cpu_s=rows * 0.02)
    assert utilization(Work(), work, cores=2) == pytest.approx(0.2 * times)


def test_one_hot_version_among_many_idle_ones_counts() -> None:
    work = over_ten_seconds(threaded(450, 450, 9.0), *(threaded(1, 1, 0.01) for _ in range(99)), cpu_s=10.0)
    assert utilization(Work(), work, cores=16) == pytest.approx(0.9)


def test_many_lukewarm_versions_fill_the_cpu_together() -> None:
    work = over_ten_seconds(*(threaded(10, 10, 1.0) for _ in range(20)), cpu_s=19.0)
    assert utilization(Work(), work, cores=2) == pytest.approx(0.95)
    # As much again is turned away: the CPU cannot be more than full, demand can.
    twice = over_ten_seconds(*(threaded(20, 10, 1.0) for _ in range(20)), cpu_s=19.0)
    assert utilization(Work(), twice, cores=2) == pytest.approx(1.9)


def test_inline_versions_and_codecs_share_the_event_loop() -> None:
    cheap = VersionWork(10_000, 10_000, 2 * S, slots=1, inline=True)
    work = over_ten_seconds(cheap, cheap, cpu_s=8.0, loop_s=8.0)
    assert utilization(Work(), work, cores=16) == pytest.approx(0.8)
    refused = VersionWork(20_000, 10_000, 2 * S, slots=1, inline=True)
    full = over_ten_seconds(refused, cpu_s=10.0, loop_s=10.0)
    assert utilization(Work(), full, cores=16) == pytest.approx(1.2)


def test_front_ends_that_are_full_count() -> None:
    work = Work(at_ns=10 * S, cpu_ns=19 * S, frontends_ns=18 * S, frontends=2, refused=5)
    assert utilization(Work(), work, cores=16) == pytest.approx(0.9)


def test_a_gpu_version_is_seen_although_the_cpu_idles() -> None:
    # Twice what one instance can do; a run takes hardly any CPU.
    work = over_ten_seconds(threaded(2000, 1000, 10.0), cpu_s=0.5)
    assert utilization(Work(), work, cores=16) == pytest.approx(2.0)


GPU = frozenset({0})


def test_versions_that_share_a_gpu_are_told_together() -> None:
    # Ten of them, each in a run for a fifth of the time; in 8.5 s of ten one or another ran.
    ten = [replace(threaded(100, 100, 2.0), gpus=GPU) for _ in range(10)]
    work = replace(over_ten_seconds(*ten, cpu_s=0.5), gpus={0: int(8.5 * S)})
    assert utilization(Work(), work, cores=16) == pytest.approx(0.85)
    # As much again is turned away.
    twice = {key: replace(each, offered_rows=200) for key, each in work.versions.items()}
    assert utilization(Work(), replace(work, versions=twice), cores=16) == pytest.approx(1.7)
    elsewhere = {key: replace(each, gpus=frozenset()) for key, each in twice.items()}
    assert utilization(Work(), replace(work, versions=elsewhere, gpus={}), cores=16) == pytest.approx(0.4)


@given(works(), CORES)
def test_a_gpu_never_makes_it_less_and_alone_no_more_than_all_of_the_time(work: Work, cores: float) -> None:
    later = Work(at_ns=60 * S, refused=1, gpus=work.gpus)
    assert utilization(Work(), later, cores=cores) <= 1
    assert utilization(Work(), work, cores=cores) >= utilization(Work(), replace(work, gpus={}), cores=cores)


def test_requests_that_fail_in_a_run_need_no_other_server() -> None:
    good = threaded(100, 100, 1.0)
    failing = replace(good, offered_rows=100_000, failed_rows=99_900)
    assert utilization(Work(), over_ten_seconds(failing), cores=2) == pytest.approx(0.1)


def test_counters_that_began_anew_count_from_there() -> None:
    before = over_ten_seconds(threaded(10_000, 10_000, 9.0))
    after = replace(over_ten_seconds(threaded(50, 50, 5.0)), at_ns=20 * S)
    assert utilization(before, after, cores=16) == pytest.approx(0.5)


def test_a_version_that_ran_nothing_in_the_window_costs_what_it_used_to() -> None:
    before = over_ten_seconds(threaded(100, 100, 5.0))
    stuck = replace(before, at_ns=20 * S, versions={VersionKey("m0", 1): threaded(300, 100, 5.0)})
    assert utilization(before, stuck, cores=2) == pytest.approx(1.0)


def test_a_version_that_serves_no_more_has_no_capacity_to_fill() -> None:
    gone = VersionWork(100, 100, 5 * S, slots=0)
    assert utilization(Work(), over_ten_seconds(gone, cpu_s=5.0), cores=2) == pytest.approx(0.25)
