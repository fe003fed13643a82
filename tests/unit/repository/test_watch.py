"""Repeated looks: what is believed, what is not yet, and what happens when a repository goes away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tensorquay.repository.settle import Now
from tensorquay.repository.snapshot import RepositoryUnreadable
from tensorquay.repository.watch import RepositoryWatch

S = 1_000_000_000


class Eyes:
    """A watch with a hand on the clock; file times are set to what a test says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.watch = RepositoryWatch([root], settle_s=2.0)
        self.now_s = 100.0

    def write(self, path: str, content: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def look(self, after_s: float = 0.0, *, wall_ns: int = 0):
        # Wall time 0: every file is from the future, so age never counts.
        self.now_s += after_s
        return self.watch.look(Now(int(self.now_s * S), wall_ns))


@pytest.fixture
def eyes(tmp_path: Path) -> Eyes:
    (tmp_path / "models").mkdir()
    return Eyes(tmp_path / "models")


def test_a_version_is_believed_after_it_was_quiet_for_long_enough(eyes):
    eyes.write("m/1/model.onnx", "half")
    assert eyes.look().unsettled_versions == {("m", 1)}
    eyes.write("m/1/model.onnx", "whole file")
    assert eyes.look(1.5).unsettled_versions == {("m", 1)}
    assert eyes.look(1.5).unsettled_versions == {("m", 1)}, "it changed 1.5 s ago"
    look = eyes.look(0.5)
    assert look.complete
    eyes.write("m/1/model.onnx", "and changed again")
    assert eyes.look(5).unsettled_versions == {("m", 1)}


def test_a_second_file_that_comes_later_is_a_change(eyes):
    eyes.write("m/1/model.onnx", "graph")
    eyes.look()
    eyes.write("m/1/weights.bin", "w")
    assert not eyes.look(2).complete
    assert eyes.look(2).complete


def test_files_that_are_old_already_are_believed_at_once(eyes):
    eyes.write("m/1/model.onnx", "x")
    newest_ns = (eyes.root / "m/1/model.onnx").stat().st_ctime_ns
    assert not eyes.look(wall_ns=newest_ns + 2 * S - 1).complete
    eyes = Eyes(eyes.root)
    assert eyes.look(wall_ns=newest_ns + 2 * S).complete


def test_a_copy_that_preserves_the_modification_time_is_not_believed_for_it(eyes):
    eyes.write("m/1/model.onnx", "x")
    path = eyes.root / "m/1/model.onnx"
    os.utime(path, ns=(1, 1))
    assert not eyes.look(wall_ns=path.stat().st_ctime_ns + S).complete


def test_a_configuration_that_still_changes_holds_the_whole_model(eyes):
    eyes.write("m/1/model.onnx", "x")
    eyes.look()
    assert eyes.look(2).complete
    eyes.write("m/config.pbtxt", "max_batch_size: 1")
    assert eyes.look(1).unsettled_models == {"m"}
    eyes.write("m/config.pbtxt", "max_batch_size: 12")
    assert eyes.look(1.5).unsettled_models == {"m"}
    assert eyes.look(2).complete


def test_an_unreadable_repository_shows_what_was_there(eyes):
    eyes.write("m/1/model.onnx", "x")
    first = eyes.look()
    eyes.root.rename(eyes.root.with_name("away"))
    look = eyes.look(1)
    assert look.snapshot == first.snapshot
    assert look.unreadable == ("model repository 1 cannot be read: No such file or directory",)
    eyes.root.with_name("away").rename(eyes.root)
    assert eyes.look(1).unreadable == ()


def test_a_repository_that_never_could_be_read_is_an_error(tmp_path):
    with pytest.raises(RepositoryUnreadable):
        RepositoryWatch([tmp_path / "missing"], settle_s=1).look(Now(0, 0))


def test_without_a_settle_time_everything_is_believed(eyes):
    eyes.write("m/1/model.onnx", "x")
    eyes.write("m/config.pbtxt", "max_batch_size: 1")
    assert RepositoryWatch([eyes.root], settle_s=0).look(Now(0, 0)).complete
