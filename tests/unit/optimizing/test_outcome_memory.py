"""What came of an optimisation is found again, whoever wrote it, and nothing else is believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tensorquay.optimizing.command import Outcome, Result
from tensorquay.optimizing.memory import OutcomeMemory

KEPT = Outcome(Result.KEPT, "nothing is faster")


@pytest.mark.parametrize("outcome", [KEPT, Outcome(Result.OPTIMIZED, "s", 4), Outcome(Result.FAILED, "no")])
def test_an_outcome_is_remembered_by_another_server_too(tmp_path: Path, outcome: Outcome) -> None:
    OutcomeMemory(tmp_path / "a/b").remember("k1", outcome)
    assert OutcomeMemory(tmp_path / "a/b").recall("k1") == outcome
    assert OutcomeMemory(tmp_path / "a/b").recall("k2") is None
    assert (tmp_path / "a/b").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 9000,
        b'{"schema": "tensorquay.background-optimization/1", "result": "x", "sentence": "", "version": 0}',
        b'{"schema": "tensorquay.background-optimization/2", "result": "kept", "sentence": "", "version": 0}',
        b'{"schema": "tensorquay.background-optimization/1", "result": "kept", "sentence": "", "version": []}',
    ],
)
def test_what_cannot_be_read_was_never_tried(tmp_path: Path, content: bytes) -> None:
    memory = OutcomeMemory(tmp_path)
    memory.remember("k", KEPT)
    (tmp_path / "k/outcome.json").write_bytes(content)
    assert memory.recall("k") is None


def test_the_oldest_go_first(tmp_path: Path) -> None:
    memory = OutcomeMemory(tmp_path)
    for number in range(210):
        memory.remember(f"k{number}", KEPT)
        os.utime(tmp_path / f"k{number}", ns=(number, number))
    memory.remember("new", KEPT)
    assert len(list(tmp_path.iterdir())) == 200
    assert memory.recall("k0") is None
    assert memory.recall("k209") == memory.recall("new") == KEPT


def test_a_folder_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="Not a directory"):
        OutcomeMemory(tmp_path / "file/more").remember("k", KEPT)
    assert OutcomeMemory(tmp_path / "file/more").recall("k") is None
