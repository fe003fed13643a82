"""What `tensorquay serve` refuses before it loads anything: folders that are none, and too little memory."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from tensorquay.commands.folders import refuse_model_folder, refuse_unreadable
from tensorquay.commands.memory import LEAST_BYTES, refuse_too_little_memory

V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def limited(root: Path, limit: str) -> Path:
    """A /proc and /sys in which this process has a memory limit."""
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": V2_MOUNT,
        "sys/fs/cgroup/memory.max": limit,
        "proc/meminfo": "MemTotal: 16777216 kB\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("limit", ["1", "4194304", str(LEAST_BYTES - 1)])
def test_too_little_memory_is_refused_with_the_limit_and_the_need(tmp_path: Path, limit: str) -> None:
    with pytest.raises(click.ClickException) as refused:
        refuse_too_little_memory(limited(tmp_path, limit))
    assert f"{limit} bytes: cgroup v2 memory limit" in refused.value.message
    assert str(LEAST_BYTES) in refused.value.message


@pytest.mark.parametrize("limit", ["max", str(LEAST_BYTES), "0", "nonsense", ""])
def test_enough_memory_and_no_limit_are_not_refused(tmp_path: Path, limit: str) -> None:
    refuse_too_little_memory(limited(tmp_path, limit))


def test_a_machine_that_says_nothing_is_not_refused(tmp_path: Path) -> None:
    refuse_too_little_memory(tmp_path)


def test_a_repository_that_is_not_there_and_one_that_is_a_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match=r"is not a directory: nothing is there; .* mount one there"):
        refuse_unreadable(tmp_path / "absent")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(click.ClickException, match="is not a directory but a file"):
        refuse_unreadable(file)
    refuse_unreadable(tmp_path)


def test_a_repository_that_may_not_be_read_names_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(click.ClickException) as refused:
        refuse_unreadable(tmp_path)
    assert refused.value.message == (
        f"the model repository '{tmp_path}' cannot be read by user {os.getuid()}: Permission denied"
    )


def test_a_model_that_was_mounted_as_a_repository_is_told_what_to_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").touch()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path)
    with pytest.raises(click.ClickException, match="not a repository of models: mount the folder above it"):
        refuse_model_folder(tmp_path)
