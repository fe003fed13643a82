"""Laws of how full a GPU is, with runs of several versions on it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tensorquay.telemetry.devices import FULL, Device, Devices
from tensorquay.testing import ManualClock

MS = 1_000_000

runs = st.tuples(st.integers(0, 2), st.integers(0, 200), st.integers(1, 100))
"""A version, when its run begins and how long it takes, in milliseconds."""


def _play(device: Device, clock: ManualClock, planned: list[tuple[int, int, int]], slots: list[int]) -> None:
    """Begin and end all runs in order of time, one millisecond after the other."""
    for ms in range(301):
        for version, begin, length in planned:
            if begin + length == ms:
                device.ended(FULL // slots[version])
            if begin == ms:
                device.began(FULL // slots[version])
        clock.advance(MS)


def _fitting(planned: list[tuple[int, int, int]], slots: list[int]) -> list[tuple[int, int, int]]:
    """Those that a version has a free instance for when they begin."""
    taken: list[tuple[int, int, int]] = []
    for run in sorted(planned, key=lambda run: run[1]):
        beside = [each for each in taken if each[0] == run[0] and each[1] + each[2] > run[1]]
        if len(beside) < slots[run[0]]:
            taken.append(run)
    return taken


@given(st.lists(runs, max_size=30), st.lists(st.integers(1, 16), min_size=3, max_size=3))
def test_it_lies_between_the_fullest_version_and_all_of_them_and_is_never_more_than_the_time(
    planned: list[tuple[int, int, int]], slots: list[int]
) -> None:
    planned = _fitting(planned, slots)
    clock = ManualClock()
    device = Device(clock)
    _play(device, clock, planned, slots)
    shares = [sum(length for version, _, length in planned if version == which) / slots[which] for which in range(3)]
    full_ms = device.full_ns() / MS
    assert max(shares) - 0.001 <= full_ms <= min(sum(shares), 301) + 0.001
    busy = {ms for _, begin, length in planned for ms in range(begin, begin + length)}
    assert full_ms <= len(busy) + 0.001
    if set(slots) == {1}:
        assert full_ms == len(busy), "with one instance each: the time in which any of them ran"
    clock.advance(50 * MS)
    assert device.full_ns() / MS == full_ms, "idle time adds nothing, whatever ran before"


def test_a_run_under_way_counts_until_now_and_gpus_are_told_apart() -> None:
    clock = ManualClock()
    devices = Devices(clock)
    devices.of(1).began(FULL // 2)
    devices.of(0)
    clock.advance(10 * MS)
    assert devices.full_ns() == {1: 5 * MS, 0: 0}
    devices.of(1).began(FULL)
    clock.advance(10 * MS)
    assert devices.full_ns() == {1: 15 * MS, 0: 0}
