from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensorquay.core.errors import ErrorKind, InvalidArgument, NotFound, Overloaded, ServingError, Unimplemented
from tensorquay.core.messages import SharedMemoryRegion
from tensorquay.shared_memory import SharedMemoryRegistry

CONTENT = bytes(range(100))


@pytest.fixture
def shm(tmp_path: Path) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    (folder / "region").write_bytes(CONTENT)
    return folder


@pytest.fixture
def registry(shm: Path) -> SharedMemoryRegistry:
    return SharedMemoryRegistry(enabled=True, directory=shm)


@pytest.mark.parametrize("key", ["region", "/region"])
def test_a_registered_region_can_be_read_written_and_forgotten(
    registry: SharedMemoryRegistry, shm: Path, key: str
) -> None:
    registry.register("in", key, 10, 50)
    assert registry.status() == registry.status("in") == (SharedMemoryRegion("in", key, 10, 50),)
    assert bytes(registry.read("in", 5, 7)) == CONTENT[15:22]
    registry.write("in", 0, b"abc")
    assert (shm / "region").read_bytes()[9:14] == bytes([9]) + b"abc" + bytes([13])
    registry.unregister("in")
    assert registry.status() == ()
    with pytest.raises(NotFound, match="Unable to find shared memory region: 'in'"):
        registry.read("in", 0, 1)


def test_what_was_read_does_not_change_when_the_client_writes_on(registry: SharedMemoryRegistry, shm: Path) -> None:
    registry.register("in", "region", 0, 100)
    before = registry.read("in", 0, 3)
    (shm / "region").write_bytes(b"x" * 100)
    assert bytes(before) == CONTENT[:3]
    assert before.readonly


def test_a_taken_name_is_told_in_tritons_words(registry: SharedMemoryRegistry) -> None:
    registry.register("in", "region", 0, 100)
    with pytest.raises(ServingError, match="shared memory region 'in' already in manager") as caught:
        registry.register("in", "region", 0, 10)
    assert caught.value.kind is ErrorKind.ALREADY_EXISTS


def test_unregistering_all_or_an_unknown_one(registry: SharedMemoryRegistry) -> None:
    registry.register("b", "region", 0, 100)
    registry.register("a", "/region", 0, 100)
    assert [region.name for region in registry.status()] == ["a", "b"]
    registry.unregister("unknown")
    registry.unregister()
    assert registry.status() == ()


def test_an_unknown_region_has_no_status(registry: SharedMemoryRegistry) -> None:
    with pytest.raises(NotFound, match="Unable to find system shared memory region: 'x'"):
        registry.status("x")


@pytest.mark.parametrize(
    "key",
    ["", "/", ".", "..", "/..", "../secret", "a/b", "//region", "/etc/passwd", "region\0", "region\n", "x" * 256],
)
def test_a_key_that_is_no_plain_name_is_refused(registry: SharedMemoryRegistry, tmp_path: Path, key: str) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(InvalidArgument, match="plain name"):
        registry.register("in", key, 0, 1)


def test_what_is_no_shared_memory_is_refused(registry: SharedMemoryRegistry, shm: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    (shm / "link").symlink_to(secret)
    (shm / "folder").mkdir()
    os.mkfifo(shm / "pipe")
    for key in ("link", "folder", "pipe", "absent"):
        with pytest.raises(InvalidArgument, match="Unable to open shared memory region") as caught:
            registry.register("in", key, 0, 1)
        assert str(tmp_path) not in str(caught.value)
    assert registry.status() == ()


@pytest.mark.parametrize(
    ("offset", "byte_size"),
    [(0, 101), (100, 1), (99, 2), (-1, 5), (0, 0), (0, -1), (2**64, 1), (0, 2**64), (10**1000, 1)],
)
def test_a_range_outside_the_file_is_refused(registry: SharedMemoryRegistry, offset: int, byte_size: int) -> None:
    with pytest.raises(InvalidArgument, match="failed to register shared memory region 'in': invalid args"):
        registry.register("in", "region", offset, byte_size)


@pytest.mark.parametrize(
    ("offset", "byte_size", "text"),
    [
        (50, 1, "Invalid offset for"),
        (-1, 1, "Invalid offset for"),
        (0, 51, "Invalid offset \\+ byte size for"),
        (49, 2, "Invalid offset \\+ byte size for"),
        (0, -1, "Invalid offset \\+ byte size for"),
        (10**1000, 1, "Invalid offset for"),
        (0, 10**1000, "Invalid offset \\+ byte size for"),
    ],
)
def test_a_range_outside_the_region_is_refused(
    registry: SharedMemoryRegistry, offset: int, byte_size: int, text: str
) -> None:
    registry.register("in", "region", 0, 50)
    with pytest.raises(InvalidArgument, match=text + " shared memory region: 'in'"):
        registry.read("in", offset, byte_size)
    with pytest.raises(InvalidArgument, match=text):
        registry.check_range("in", offset, byte_size)


def test_a_client_that_shrinks_its_region_gets_an_error_and_nothing_grows(
    registry: SharedMemoryRegistry, shm: Path
) -> None:
    registry.register("in", "region", 0, 100)
    os.truncate(shm / "region", 10)
    for call in (lambda: registry.read("in", 5, 10), lambda: registry.write("in", 5, bytes(10))):
        with pytest.raises(InvalidArgument, match="smaller now"):
            call()
    assert (shm / "region").stat().st_size == 10
    assert bytes(registry.read("in", 0, 10)) == CONTENT[:10]


def test_a_region_outlives_its_name(registry: SharedMemoryRegistry, shm: Path) -> None:
    registry.register("in", "region", 0, 100)
    (shm / "region").unlink()
    assert bytes(registry.read("in", 0, 2)) == CONTENT[:2]


def _open_descriptors(file: Path) -> int:
    found = 0
    for descriptor in range(1024):
        try:
            found += os.path.samestat(os.fstat(descriptor), file.stat())
        except OSError:
            continue
    return found


def test_descriptors_are_given_back(registry: SharedMemoryRegistry, shm: Path) -> None:
    registry.register("kept", "region", 0, 100)
    assert _open_descriptors(shm / "region") == 1
    for _ in range(50):
        registry.register("in", "region", 0, 100)
        registry.unregister("in")
        with pytest.raises(InvalidArgument):
            registry.register("in", "region", 0, 101)
    assert _open_descriptors(shm / "region") == 1
    registry.close()
    assert _open_descriptors(shm / "region") == 0


def test_the_number_of_regions_is_bounded(shm: Path) -> None:
    registry = SharedMemoryRegistry(enabled=True, directory=shm, max_regions=2)
    registry.register("a", "region", 0, 1)
    registry.register("b", "region", 0, 1)
    with pytest.raises(Overloaded, match="2 regions"):
        registry.register("c", "region", 0, 1)


@pytest.mark.parametrize("name", ["", "x" * 1025])
def test_a_region_needs_a_reasonable_name(registry: SharedMemoryRegistry, name: str) -> None:
    with pytest.raises(InvalidArgument, match="needs a name"):
        registry.register(name, "region", 0, 1)


def test_everything_is_refused_when_switched_off(shm: Path) -> None:
    registry = SharedMemoryRegistry(enabled=False, directory=shm)
    for call in (
        lambda: registry.register("in", "region", 0, 1),
        lambda: registry.unregister("in"),
        registry.unregister,
        registry.status,
        lambda: registry.read("in", 0, 1),
        lambda: registry.write("in", 0, b"x"),
    ):
        with pytest.raises(Unimplemented, match="--allow-client-shm=true"):
            call()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 99), size=st.integers(1, 100), offset=st.integers(-5, 105), length=st.integers(-5, 105))
def test_a_read_gives_exactly_those_bytes_or_an_error(
    shm: Path, start: int, size: int, offset: int, length: int
) -> None:
    registry = SharedMemoryRegistry(enabled=True, directory=shm)
    fits = start + size <= 100
    try:
        registry.register("in", "region", start, size)
    except InvalidArgument:
        assert not fits
        return
    assert fits
    try:
        got = bytes(registry.read("in", offset, length))
    except InvalidArgument:
        assert not (0 <= offset < size and length >= 0 and offset + length <= size)
        return
    assert got == CONTENT[start : start + size][offset : offset + length]
    assert len(got) == length
