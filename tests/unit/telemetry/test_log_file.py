"""A log file on a disk that fills and empties again, that is rotated, and that is no file."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorquay.config.server import ServerConfig
from tensorquay.telemetry.log_file import LogFile
from tensorquay.telemetry.logs import Logs

log = logging.getLogger("tensorquay.test")


class _Disk(io.RawIOBase):
    """Lets so many bytes through and no more, as a full disk does: the last write is short, the next one fails."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)
        self.room = 0

    def write(self, data: object) -> int:
        content = bytes(data)  # type: ignore[call-overload]
        if content and not self.room:
            raise OSError(28, "No space left on device")
        taken = self._file.write(content[: self.room])
        self.room -= taken
        return taken

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


class _OnDisk(LogFile):
    def __init__(self, file: Path) -> None:
        self.disk = _Disk(file)
        super().__init__(file)

    def _open(self) -> _Disk:
        return self.disk


def _line(number: int, size: int) -> logging.LogRecord:
    return logging.LogRecord("t", logging.INFO, "", 0, json.dumps({"n": number, "x": "y" * size}), None, None)


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 400)), min_size=1, max_size=30))
def test_whatever_room_there_is_lines_are_whole_and_the_missing_ones_are_counted(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    file = tmp_path_factory.mktemp("disk") / "x.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "__stderr__", io.StringIO())
        sink = _OnDisk(file)
        for number, (size, room) in enumerate(steps):
            sink.disk.room += room
            sink.handle(_line(number, size))
        sink.disk.room = 10_000
        sink.handle(_line(len(steps), 0))
        sink.close()
    lines = file.read_text().splitlines()
    there = [json.loads(line)["n"] for line in lines if line.startswith("{")]
    told = [int(line.partition(" ")[0]) for line in lines if not line.startswith("{")]
    assert there == sorted(set(there))
    assert there[-1] == len(steps)
    assert len(there) + sum(told) == len(steps) + 1
    assert file.read_bytes().endswith(b"\n")


def _told(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    told = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", told)
    return told


def test_each_time_it_fails_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch)
    sink = _OnDisk(tmp_path / "x.log")
    for room in (0, 0, 1000, 0, -1000, 0):
        sink.disk.room = max(sink.disk.room + room, 0)
        sink.handle(_line(1, 10))
    sink.close()
    assert told.getvalue().count("cannot be written") == 2
    assert "2 log lines are missing here" in (tmp_path / "x.log").read_text()


def test_a_disk_that_is_full_at_the_end_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _told(monkeypatch)
    logs = Logs(ServerConfig(log_file=Path("/dev/full")))
    logs.start()
    log.info("lost")
    logs.close()
    assert not logs.stuck
    assert told.getvalue().count("\n") == 1
    assert "No space left" in told.getvalue()


def test_a_pipe_that_nobody_reads_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="a named pipe or a socket that nobody reads"):
        Logs(ServerConfig(log_file=pipe)).start()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    logs = Logs(ServerConfig(log_file=pipe))
    logs.start()
    log.info("heard")
    logs.close()
    assert b"heard" in os.read(reader, 4096)
    os.close(reader)


def _renamed(file: Path) -> None:
    file.rename(file.with_suffix(".1"))


def _copied(file: Path) -> None:
    file.with_suffix(".1").write_bytes(file.read_bytes())
    os.truncate(file, 0)


def _a_directory(file: Path) -> None:
    _renamed(file)
    file.mkdir()


def _a_pipe(file: Path) -> None:
    _renamed(file)
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("happens", "ill"), [(_renamed, ""), (_copied, ""), (_a_directory, "Is a directory"), (_a_pipe, "nobody reads")]
)
def test_what_happens_to_a_file_while_it_is_written(
    happens: Callable[[Path], None], ill: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _told(monkeypatch)
    file = tmp_path / "x.log"
    logs = Logs(ServerConfig(log_file=file, log_format="json"))
    logs.start()
    log.info("before")
    logging.shutdown([lambda: logs._handler])  # type: ignore[list-item]  waits until it is written
    happens(file)
    log.info("after")
    log.info("and after")
    logging.shutdown([lambda: logs._handler])  # type: ignore[list-item]
    if ill:
        file.rmdir() if file.is_dir() else file.unlink()
        log.info("well again")
    logs.close()
    assert [json.loads(line)["message"] for line in file.with_suffix(".1").read_text().splitlines()] == ["before"]
    now = [json.loads(line)["message"] for line in file.read_text().splitlines()]
    if ill:
        assert now == ["2 log lines are missing here: the log could not be written", "well again"]
        assert ill in told.getvalue()
        assert told.getvalue().count("\n") == 1
    else:
        assert now == ["after", "and after"]
        assert not told.getvalue()
