from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tensorquay.config.server import LogFormat, ServerConfig
from tensorquay.core.errors import InvalidArgument, Unimplemented
from tensorquay.core.log_lines import LINES
from tensorquay.telemetry.log_settings import LogSettings
from tensorquay.telemetry.logs import ACCESS, Logs, LogState, _Lines

log = logging.getLogger("tensorquay.test")


@pytest.fixture
def started() -> Iterator[Callable[..., tuple[Logs, io.StringIO]]]:
    running: list[Logs] = []

    def start(**settings: object) -> tuple[Logs, io.StringIO]:
        stream = io.StringIO()
        logs = Logs(ServerConfig(**settings), stream=stream)  # type: ignore[arg-type]
        logs.start()
        running.append(logs)
        return logs, stream

    yield start
    for logs in running:
        logs.close()


Start = Callable[..., tuple[Logs, io.StringIO]]


def test_text_has_letter_name_message_and_fields(started: Start) -> None:
    logs, stream = started()
    log.info("loaded %s", "digits", extra={"request_id": "r-1", "rows": 3})
    logs.close()
    (line,) = stream.getvalue().splitlines()
    stamp, letter, name, rest = line.split(maxsplit=3)
    assert len(stamp) == len("12:00:00.000")
    assert (letter, name) == ("I", "test")
    assert rest == "loaded digits  request_id=r-1  rows=3"


def test_iso8601_stamps_are_utc(started: Start) -> None:
    logs, stream = started(log_format="ISO8601")
    log.warning("x")
    logs.close()
    stamp = stream.getvalue().split()[0]
    assert stamp.endswith("Z")
    assert "T" in stamp


def test_json_is_one_object_per_line_with_the_fields(started: Start) -> None:
    logs, stream = started(log_format="json")
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed\nbadly", extra={"request_id": "r", "rows": 3, "level": "odd", "what": object()})
    log.info("nan", extra={"value": float("nan")})
    logs.close()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == "failed\nbadly"
    assert (first["level"], first["logger"], first["request_id"], first["rows"]) == ("error", "tensorquay.test", "r", 3)
    assert first["extra_level"] == "odd"
    assert "ValueError: boom" in first["exception"]
    assert first["what"].startswith("<object")
    assert second["value"] == "nan"


def test_a_client_cannot_forge_a_line(started: Start) -> None:
    logs, stream = started()
    log.info("model '%s'", "a\n12:00:00.000 I forged\x1b[31m\u2028", extra={"name_given": "b\nc"})
    logs.close()
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_a_librarys_own_lines_are_a_field(started: Start) -> None:
    logs, stream = started()
    logging.getLogger("other.library").warning("read %s", "f", extra={"lines": 3})
    logs.close()
    assert stream.getvalue().endswith(" W other.library read f  lines=3\n")


FIELD = re.compile(r'  ([^ =]+)=("(?:[^"\\]|\\.)*"|[^ "=]*)')
"""A field as docs/operations.md says it is written."""


@example("1  status=INTERNAL  model=other \u202etxet")
@example("status=INTERNAL  a==b=c")
@example("größe-模型-مرحبا")
@example('"quoted\\" \x7f\x85\u2028\U000e0041')
@given(st.text(max_size=60) | st.text(' ="\\a\n\u202e', max_size=20))
def test_what_a_client_writes_imitates_nothing_and_can_be_read_back(text: str) -> None:
    named = {"name": "tensorquay.test", "levelname": "INFO"}

    def written(form: LogFormat) -> Iterator[str]:
        many = logging.makeLogRecord(
            named | {LINES: [(0, f"{text} {text}", {"request_id": text, "model": text, "rows": 1})]}
        )
        one = logging.makeLogRecord(named | {"msg": f"{text} {text}", "request_id": text, "model": text, "rows": 1})
        for record in (many, one):
            line = _Lines(LogState(format=form)).format(record)
            assert line.isprintable()
            yield line

    expected = {"request_id": text} if text else {}
    for line in written(LogFormat.TEXT):
        fields = {key: json.loads(value) if value[:1] == '"' else value for key, value in FIELD.findall(line)}
        assert fields == expected | {"model": text, "rows": "1"}
    for line in written(LogFormat.JSON):
        assert json.loads(line).items() >= {"message": f"{text} {text}", "model": text, "rows": 1}.items()


def test_only_what_could_be_misread_is_quoted(started: Start) -> None:
    logs, stream = started()
    fields = {"model": "größe-模型", "path": "/a\\b'c", "rows": 3, "id": "r 1", "why": 'a"b', "to": "x=1"}
    log.info("a = b,  c", extra=fields)
    logs.close()
    assert stream.getvalue().endswith(
        """a = b,  c  model=größe-模型  path=/a\\b'c  rows=3  id="r 1"  why="a\\"b"  to="x=1"\n"""
    )


def test_a_traceback_is_indented_below_its_line(started: Start) -> None:
    logs, stream = started()
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed")
    logs.close()
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_a_wrong_format_string_costs_the_message_only(started: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without pytest's own handlers, which raise on such a record.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    logs, stream = started()
    log.info("%d", "x")
    log.info("after")
    logs.close()
    assert "unprintable" in stream.getvalue()
    assert "after" in stream.getvalue()


def test_very_long_messages_are_cut(started: Start) -> None:
    logs, stream = started()
    log.info("x" * 1_000_000)
    logs.close()
    assert len(stream.getvalue()) < 20_000


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "IWEC"),
        ({"log_info": False}, "WEC"),
        ({"log_warning": False}, "IEC"),
        ({"log_error": False}, "IWC"),
        ({"log_info": False, "log_warning": False, "log_error": False}, "C"),
        ({"log_verbose": 1}, "DIWEC"),
        ({"log_verbose": 1, "log_info": False}, "DWEC"),
    ],
)
def test_each_severity_has_its_own_switch(started: Start, settings: dict[str, object], expected: str) -> None:
    logs, stream = started(**settings)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        log.log(level, "x")
    logs.close()
    assert "".join(line.split()[1] for line in stream.getvalue().splitlines()) == expected


@pytest.mark.parametrize(("verbose", "expected"), [(0, "W"), (1, "IW"), (2, "DIW")])
def test_libraries_are_quiet_until_asked(started: Start, verbose: int, expected: str) -> None:
    logs, stream = started(log_verbose=verbose)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        logging.getLogger("some.library").log(level, "x")
    logs.close()
    assert "".join(line.split()[1] for line in stream.getvalue().splitlines()) == expected


def test_the_access_log_is_off_until_asked(started: Start) -> None:
    logs, stream = started()
    logging.getLogger(ACCESS).info("GET /v2")
    logs.close()
    assert stream.getvalue() == ""
    logs, stream = started(access_log=True)
    logging.getLogger(ACCESS).info("GET /v2")
    logs.close()
    assert "GET /v2" in stream.getvalue()


def test_the_root_logger_is_given_back(started: Start) -> None:
    root, before = logging.getLogger(), (logging.getLogger().level, list(logging.getLogger().handlers), log.level)
    logs, _ = started(log_verbose=2)
    assert root.level == logging.DEBUG
    logs.close()
    logs.close()
    assert (root.level, root.handlers, log.level) == before


class _Stuck(io.StringIO):
    """A stream that waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.gate.wait(20)
        return super().write(text)


def test_a_slow_stream_drops_records_with_a_count_and_never_blocks() -> None:
    stream = _Stuck()
    logs = Logs(ServerConfig(), stream=stream, queue_records=5)
    logs.start()
    log.info("first")
    assert stream.entered.wait(20)
    for number in range(20):
        log.info("waiting %d", number)
    assert logs.dropped == 15
    stream.gate.set()
    logs.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + 5 + 1
    assert "15 log records were dropped" in lines[-1]


def test_flushing_waits_until_everything_is_written(started: Start) -> None:
    logs, stream = started()
    for number in range(100):
        log.info("%d", number)
    logs._handler.flush()
    assert len(stream.getvalue().splitlines()) == 100


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_once_and_hurts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", told)
    logs = Logs(ServerConfig(), stream=_Full())
    logs.start()
    for _ in range(5):
        log.info("x")
    logs.close()
    assert told.getvalue().count("cannot be written") == 1
    assert "No space left" in told.getvalue()


def test_a_rotated_file_is_reopened(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    logs = Logs(ServerConfig(log_file=file))
    logs.start()
    # As a field: pytest keeps messages too, and cannot pass such text on between its processes.
    log.info("one", extra={"half": "\ud800"})
    logs.close()
    file.rename(tmp_path / "server.log.1")
    logs = Logs(ServerConfig(log_file=file))
    logs.start()
    log.info("two")
    logs.close()
    assert "one" in (tmp_path / "server.log.1").read_text()
    assert "two" in file.read_text()


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Logs(ServerConfig(log_file=tmp_path / "absent" / "x.log")).start()


# -- the V2 logging extension

INITIAL = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


def test_settings_are_shown_and_changed_as_the_extension_says(started: Start) -> None:
    logs, stream = started()
    settings = LogSettings(logs)
    assert settings.get() == INITIAL
    assert settings.update({}) == INITIAL
    change = {"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"}
    assert settings.update(change) == INITIAL | change == settings.get()
    log.info("not wanted")
    log.debug("wanted")
    logs.close()
    (line,) = stream.getvalue().splitlines()
    assert "wanted" in line
    assert line.split()[0].endswith("Z")


def test_the_plural_names_of_tritons_documentation_are_accepted(started: Start) -> None:
    settings = LogSettings(started()[0])
    shown = settings.update({"log_warnings": False, "log_errors": False})
    assert (shown["log_warning"], shown["log_error"]) == (False, False)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"log_info": 1}, "expect boolean for 'log_info', got 1"),
        ({"log_info": "false"}, "expect boolean for 'log_info', got 'false'"),
        ({"log_info": None}, "expect boolean for 'log_info', got null"),
        ({"log_verbose_level": True}, "got true"),
        ({"log_verbose_level": -1}, "got -1"),
        ({"log_verbose_level": 2**32}, "from 0 to 4294967295"),
        ({"log_verbose_level": 10**5000}, "a huge number"),
        ({"log_verbose_level": "1"}, "expect an integer"),
        ({"log_verbose_level": 1.0}, "expect an integer"),
        ({"log_format": "iso"}, "invalid argument for log_format, got: iso"),
        ({"log_format": ["default"]}, "expect string for 'log_format', got a list"),
        ({"log_colour": True}, "unknown log setting 'log_colour'"),
    ],
)
def test_a_wrong_change_is_refused_and_nothing_changes(started: Start, change: dict[str, object], text: str) -> None:
    settings = LogSettings(started()[0])
    with pytest.raises(InvalidArgument) as caught:
        settings.update({"log_warning": False, **change})
    assert text in str(caught.value)
    assert settings.get() == INITIAL


def test_the_file_cannot_be_changed(started: Start) -> None:
    settings = LogSettings(started()[0])
    with pytest.raises(Unimplemented, match="log file location can not be updated through network protocol"):
        settings.update({"log_file": "x.log", "log_info": False})
    assert settings.get() == INITIAL


def test_json_stays_json(started: Start) -> None:
    logs, stream = started(log_format="json")
    settings = LogSettings(logs)
    assert settings.update({"log_format": "default"})["log_format"] == "ISO8601"
    log.info("x")
    logs.close()
    assert json.loads(stream.getvalue())["message"] == "x"
