"""Imported models are kept once, found again, and never beyond the bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tensorquay.config.surroundings import user_cache
from tensorquay.core.errors import Unavailable
from tensorquay.importing.cache import MODEL, ImportCache


def keep(cache: ImportCache, digest: str, content: bytes = b"model", used_ns: int | None = None) -> Path:
    made = cache.stage() / "made"
    made.mkdir()
    (made / MODEL).write_bytes(content)
    path = cache.keep(digest, made)
    made.parent.rmdir()
    if used_ns is not None:
        os.utime(path.parent, ns=(used_ns, used_ns))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "imports"


def test_what_is_kept_is_found_by_another_server_too(root):
    path = keep(ImportCache(root, max_bytes=100), "d1")
    assert ImportCache(root, max_bytes=100).find("d1") == path
    assert path.read_bytes() == b"model"
    assert ImportCache(root, max_bytes=100).find("d2") is None


def test_only_this_user_may_read_the_cache(root):
    keep(ImportCache(root, max_bytes=100), "d1")
    assert root.stat().st_mode & 0o077 == 0


def test_the_longest_unused_goes_first(root):
    for number in range(4):
        keep(ImportCache(root, max_bytes=100), f"d{number}", b"x" * 10, used_ns=number + 1)
    assert ImportCache(root, max_bytes=100).find("d0") is not None, "used now"
    keep(ImportCache(root, max_bytes=30), "new", b"x" * 10)
    left = {each.name for each in root.iterdir()}
    assert left == {"d0", "d3", "new"}


def test_what_this_server_uses_stays_whatever_the_bound(root):
    cache = ImportCache(root, max_bytes=1)
    keep(cache, "d1", b"x" * 10, used_ns=1)
    keep(cache, "d2", b"x" * 10, used_ns=2)
    assert {each.name for each in root.iterdir()} == {"d1", "d2"}


def test_the_faster_of_two_servers_wins_and_the_other_takes_its_result(root):
    slow, fast = ImportCache(root, max_bytes=100), ImportCache(root, max_bytes=100)
    made = slow.stage() / "made"
    made.mkdir()
    (made / MODEL).write_bytes(b"slow")
    path = keep(fast, "d1", b"fast")
    assert slow.keep("d1", made) == path
    assert path.read_bytes() == b"fast"


def test_reports_of_refused_imports_are_kept_up_to_a_number(root):
    cache = ImportCache(root, max_bytes=1)
    for number in range(60):
        folder = cache.report_folder(f"d{number}")
        folder.mkdir(parents=True)
        os.utime(folder, ns=(number, number))
    assert {each.name for each in (root / "refused").iterdir()} == {f"d{number}" for number in range(10, 60)}


def test_stages_of_dead_processes_are_removed_and_others_left(root):
    cache = ImportCache(root, max_bytes=100)
    mine = cache.stage()
    dead = root / f".stage-{2**22 + 1}-x"
    dead.mkdir()
    (dead / "half").write_bytes(b"x")
    cache.stage()
    assert mine.exists()
    assert not dead.exists()


def test_a_cache_that_cannot_be_written_says_how_to_name_another(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unavailable, match="--import-cache names a folder that can"):
        ImportCache(tmp_path / "file" / "imports", max_bytes=1).stage()


@pytest.mark.parametrize(("given", "expected"), [("/x/cache", "/x/cache"), ("relative", "/home/me/.cache")])
def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, given, expected):
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", "/home/me")
    assert user_cache() == Path(expected)
