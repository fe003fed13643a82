"""Laws of version policies and of settling."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tensorquay.config.model import AllVersions, LatestVersions, SpecificVersions
from tensorquay.repository.settle import Now, Sighting, settled
from tensorquay.repository.snapshot import FileStamp
from tensorquay.repository.version_policy import select

versions = st.lists(st.integers(1, 2**63 - 1), max_size=20)


@given(versions, st.integers(-2, 30), st.lists(st.integers(1, 20)))
def test_every_policy_selects_only_what_is_there_once_and_ascending(present, count, named):
    for policy in (LatestVersions(count), AllVersions(), SpecificVersions(tuple(named))):
        chosen = select(policy, present)
        assert set(chosen) <= set(present)
        assert list(chosen) == sorted(set(chosen))
        assert chosen == select(policy, [*reversed(present), *present])


@given(versions, st.integers(1, 30))
def test_latest_never_prefers_an_older_version(present, count):
    chosen = select(LatestVersions(count), present)
    assert len(chosen) == min(count, len(set(present)))
    assert all(left < min(chosen) for left in set(present) - set(chosen))


SETTLE_NS = 1_000
looks = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 700)), min_size=1, max_size=20)


@given(looks)
def test_files_are_believed_exactly_when_two_looks_that_far_apart_found_them_the_same(steps):
    """Files that are always new by the wall clock, so only the looks count."""
    now_ns, since_ns, content = 0, 0, None
    seen: Sighting | None = None
    for size, step in steps:
        now_ns += step
        if size != content:
            content, since_ns = size, now_ns
        seen = settled(seen, (FileStamp("f", size, 10**18, 1),), Now(now_ns, 10**18), SETTLE_NS)
        assert seen.settled == (now_ns - since_ns >= SETTLE_NS)


@given(st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 3_000))
def test_at_first_sight_only_files_that_nobody_touched_lately_are_believed(mtime_ns, ctime_ns, wall_ns):
    files = (FileStamp("f", 1, mtime_ns, 1, ctime_ns),)
    believed = settled(None, files, Now(0, wall_ns), SETTLE_NS).settled
    assert believed == (wall_ns - max(mtime_ns, ctime_ns) >= SETTLE_NS)


@given(st.integers(0, 10**6))
def test_without_a_settle_time_everything_is_believed_and_an_empty_folder_never_by_its_age(wall_ns):
    assert settled(None, (), Now(0, wall_ns), 0).settled
    assert not settled(None, (), Now(0, wall_ns), SETTLE_NS).settled
