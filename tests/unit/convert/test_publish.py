"""A version appears whole or not at all, an existing one is never touched, and nothing is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.core import ids
from tensorquay.repository import files
from tensorquay_convert import publish
from tensorquay_convert.errors import NotPublished
from tensorquay_convert.publish import Extras, Repository, Stage, publish_folder

PLAIN = Extras(("y",))
LABELLED = Extras(("logits", "scores"), {"scores": ["cat", "dog\x7f"]})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "repo"
    made.mkdir()
    return made


def put(root: Path, version: int | None = None, extras: Extras = PLAIN, content: str = "x") -> Path:
    repository = Repository(root, "m", version)
    repository.check()
    with repository.stage() as stage:
        (stage.version / "model.onnx").write_text(content)
        (stage.version / "deep").mkdir()
        (stage.version / "deep/side.txt").write_text("side")
        return repository.commit(stage, extras)


def everything(root: Path) -> list[str]:
    return sorted(each.relative_to(root).as_posix() for each in root.rglob("*"))


def test_versions_count_up_and_nothing_else_is_there(root: Path) -> None:
    assert put(root) == root / "m/1"
    assert put(root, 7) == root / "m/7"
    assert put(root) == root / "m/8"
    assert everything(root / "m/8") == ["deep", "deep/side.txt", "model.onnx"]
    assert sorted(each.name for each in (root / "m").iterdir()) == ["1", "7", "8"]
    assert [each.name for each in root.iterdir()] == ["m"]


def test_an_existing_version_is_never_overwritten(root: Path) -> None:
    put(root, 3, content="first")
    before = everything(root)
    with pytest.raises(NotPublished, match=r"m/3' exists, and a version is never overwritten; .*the next one, 4"):
        put(root, 3, content="second")
    assert everything(root) == before
    assert (root / "m/3/model.onnx").read_text() == "first"


def test_a_version_that_appears_meanwhile_wins(root: Path) -> None:
    repository = Repository(root, "m", 2)
    with repository.stage() as stage:
        (stage.version / "model.onnx").write_text("late")
        put(root, 2, content="early")
        with pytest.raises(NotPublished, match="exists"):
            repository.commit(stage, PLAIN)
    assert (root / "m/2/model.onnx").read_text() == "early"
    assert everything(root) == ["m", "m/2", "m/2/deep", "m/2/deep/side.txt", "m/2/model.onnx"]


def test_an_empty_folder_is_a_version_somebody_begins(root: Path) -> None:
    (root / "m/1").mkdir(parents=True)
    with pytest.raises(NotPublished, match="exists"):
        put(root, 1)
    assert put(root).name == "2"


def test_many_at_once_get_a_version_each(root: Path) -> None:
    start = threading.Barrier(8)
    made: list[str] = []

    def one() -> None:
        start.wait()
        made.append(put(root).name)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(made) == [str(number) for number in range(1, 9)]
    assert sorted(each.name for each in (root / "m").iterdir()) == sorted(made)
    assert [each.name for each in root.iterdir()] == ["m"]


# -- configuration


def test_class_names_come_with_a_new_model(root: Path) -> None:
    put(root, extras=LABELLED)
    config = tomllib.loads((root / "m/config.toml").read_text())
    assert config == {"output": [{"name": "logits"}, {"name": "scores", "labels": "labels1.txt"}]}
    assert (root / "m/labels1.txt").read_text() == "cat\ndog\x7f\n"


def test_a_first_axis_that_is_no_batch_is_configured(root: Path) -> None:
    put(root, extras=Extras(("y",), {}, batched=False))
    assert tomllib.loads((root / "m/config.toml").read_text()) == {"max_batch_size": 0}


@given(st.lists(st.text(min_size=1, max_size=20).filter(lambda t: max(t) < "\ud800"), min_size=1, unique=True))
def test_any_names_of_outputs_make_a_file_that_says_them(names: list[str]) -> None:
    made = publish.configuration(Extras(tuple(names), {names[0]: ["a"]}))
    assert [each["name"] for each in tomllib.loads(made["config.toml"])["output"]] == names


def test_a_model_that_is_there_keeps_its_configuration(root: Path) -> None:
    put(root)
    put(root, extras=LABELLED)
    assert not (root / "m/config.toml").exists(), "version 1 may have other outputs"
    other = root / "n"
    other.mkdir()
    (other / "config.pbtxt").write_text("")
    repository = Repository(root, "n")
    with repository.stage() as stage:
        repository.commit(stage, LABELLED)
    assert sorted(each.name for each in other.iterdir()) == ["1", "config.pbtxt"]


def test_an_empty_models_folder_gets_its_configuration(root: Path) -> None:
    (root / "m").mkdir()
    put(root, extras=LABELLED)
    assert sorted(each.name for each in (root / "m").iterdir()) == ["1", "config.toml", "labels1.txt"]


# -- what cannot be


@pytest.mark.parametrize("version", [0, -1, 2**63])
def test_a_number_that_is_no_version_is_refused(root: Path, version: int) -> None:
    with pytest.raises(NotPublished, match="cannot be a version"):
        Repository(root, "m", version).check()


def test_after_the_highest_version_there_is_none(root: Path) -> None:
    (root / "m" / str(2**63 - 1)).mkdir(parents=True)
    with pytest.raises(NotPublished, match="there is none after it"):
        put(root)


def test_repositories_that_are_none_are_refused_before_any_work(root: Path) -> None:
    with pytest.raises(NotPublished, match=r"does not exist; mkdir -p"):
        Repository(root / "nothing", "m").check()
    (root / "file").write_text("")
    with pytest.raises(NotPublished, match="is no folder"):
        Repository(root / "file", "m").check()
    with pytest.raises(NotPublished, match="so no version can be put there"):
        Repository(root, "file").check()
    (root / "m").mkdir()
    (root / "m/1").write_text("")
    with pytest.raises(NotPublished, match="exists"):
        Repository(root, "m", 1).check()


@given(
    st.text(max_size=30) | st.sampled_from([".", "..", "a/b", "a\\b", "x" * 256, "\ud800", ".hidden", "a.tmp", "a~"])
)
def test_the_servers_rule_of_names_is_ours(name: str) -> None:
    assert publish.is_model_name(name) == ids.is_model_name(name)
    seen = files.is_clean(name) and ids.is_model_name(name) and not files.is_skipped(name)
    if seen:
        publish.refuse_name(name)
    else:
        with pytest.raises(NotPublished, match="cannot be the name of a model"):
            publish.refuse_name(name)


# -- failures on the way


class Disk:
    """Fails the n-th of the calls that write."""

    CALLS = ("fsync", "link", "mkdir", "rename")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
        self.left = number
        self.code = code
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))
        monkeypatch.setattr(Path, "write_text", self._failing(Path.write_text))

    def _failing(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            self.left -= 1
            if self.left == 0:
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments, **options)

        return call


@pytest.mark.parametrize("there", ["new model", "new version", "empty folder"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_whichever_write_fails_nothing_is_left(
    root: Path, monkeypatch: pytest.MonkeyPatch, there: str, code: int
) -> None:
    if there == "new version":
        put(root)
    elif there == "empty folder":
        (root / "m").mkdir()
    before = everything(root)
    for number in range(1, 100):
        with monkeypatch.context() as broken:
            disk = Disk(broken, number, code)
            told = failure_of(lambda: put(root, extras=LABELLED))
        if told is None:
            break
        assert os.strerror(code) in told
        assert disk.left <= 0
        assert everything(root) == before
    assert number > 5
    assert (root / "m" / ("2" if there == "new version" else "1") / "model.onnx").exists()
    assert not [each for each in everything(root) if publish.STAGE_PREFIX in each]


def failure_of(work: Callable[[], object]) -> str | None:
    """What it says when it does not publish; None when it does."""
    try:
        work()
    except NotPublished as exc:
        return str(exc)
    except OSError as exc:
        return exc.strerror  # a write of the worker's own
    return None


def test_a_full_disk_is_said_with_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(root, "m")
    with repository.stage() as stage:
        Disk(monkeypatch, 1, errno.ENOSPC)
        with pytest.raises(NotPublished, match="No space left on device; make room"):
            repository.commit(stage, PLAIN)


def test_a_place_that_cannot_be_written_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch, 1, errno.EROFS)
    with (
        pytest.raises(NotPublished, match="cannot be written to: Read-only file system"),
        Repository(root, "m").stage(),
    ):
        pass
    assert everything(root) == []


# -- stages of others


@pytest.fixture
def stale(root: Path) -> Path:
    made = root / f"{publish.STAGE_PREFIX}0123456789ab"
    (made / "version").mkdir(parents=True)
    (made / "lock").write_text("")
    return made


def test_a_dead_imports_stage_is_removed(root: Path, stale: Path) -> None:
    put(root)
    assert not stale.exists()


def test_a_living_imports_stage_stays(root: Path, stale: Path) -> None:
    with (stale / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        put(root)
        assert stale.exists()


def test_a_stage_that_is_just_being_made_stays(root: Path, stale: Path) -> None:
    (stale / "lock").unlink()
    put(root)
    assert stale.exists()
    os.utime(stale, (1, 1))
    put(root)
    assert not stale.exists()


# -- without a repository


def test_a_folder_appears_whole_and_never_over_another(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        (stage.version / "model.onnx").write_text("x")
        assert publish_folder(stage, tmp_path / "out") == tmp_path / "out"
    assert everything(tmp_path) == ["out", "out/model.onnx"]
    with Stage(tmp_path) as stage, pytest.raises(NotPublished, match="exists"):
        publish_folder(stage, tmp_path / "out")
    assert everything(tmp_path) == ["out", "out/model.onnx"]
