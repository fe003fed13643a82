"""The process's log: text for people or JSON lines for machines, written off the threads that log.

Owns the handler on the root logger, the queue and the writing thread. Logging never blocks and never raises: the queue
is bounded and what does not fit is counted and told later; a stream that fails (full disk, closed pipe) is told once.
Fields given as `extra=` are part of the line; `request_id` has its own place. Text from clients cannot break a line,
turn it around or imitate a field: what is not printable (`str.isprintable`) is escaped as in JSON, and in text a value
that could be taken for more than one field is written as a JSON string. A record may stand for many lines
(`core/log_lines.py`).
"""

from __future__ import annotations

import copy
import json
import logging
import queue
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import orjson

from tensorquay.config.server import LogFormat, ServerConfig
from tensorquay.core.log_lines import LINES, Line
from tensorquay.telemetry.log_file import Forgiving, LogFile

OURS: Final = "tensorquay"
ACCESS: Final = "tensorquay.access"
"""Name of the logger for one line per request; silent unless the access log is on."""

QUEUE_RECORDS = 10_000
MAX_TEXT = 16_384
"""Longest message, in characters; a hostile name must not fill a disk."""

_CLOSE_TIMEOUT_S = 5.0
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_MAX_ID = 256
_MAX_FIELD = 1024
_LIKE_A_NAME = re.compile(r"(?:^ ?|  )[^ ]+")
"""A word of a message where a field may begin: after two spaces, which there are before every message too."""

_LETTERS = {"DEBUG": "D", "INFO": "I", "WARNING": "W", "ERROR": "E", "CRITICAL": "C"}


@dataclass(slots=True)
class LogState:
    """What is logged and how; changed at run time through `LogSettings` only."""

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose: int = 0
    format: LogFormat = LogFormat.TEXT

    def allows(self, level: int) -> bool:
        """Whether a record of `level` is wanted; CRITICAL always is."""
        if level >= logging.CRITICAL:
            return True
        if level >= logging.ERROR:
            return self.error
        if level >= logging.WARNING:
            return self.warning
        if level >= logging.INFO:
            return self.info
        return self.verbose > 0


class Logs:
    """The process's log output, from `start` to `close`.

    Args:
        config: its log_* fields and access_log.
        stream: where to write when there is no log_file; standard error by default.
    """

    def __init__(
        self, config: ServerConfig, *, stream: TextIO | None = None, queue_records: int = QUEUE_RECORDS
    ) -> None:
        self.file = config.log_file
        self.state = LogState(
            info=config.log_info,
            warning=config.log_warning,
            error=config.log_error,
            verbose=config.log_verbose,
            format=config.log_format,
        )
        self._access = config.access_log
        self._stream = stream
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(queue_records)
        self._handler = _Enqueue(self._queue, self.state, queue_records)
        self._thread: threading.Thread | None = None
        self.stuck = False
        """After `close`: whether the writing thread hangs in its stream, with what it had not written yet."""
        self._restore: list[tuple[logging.Logger, int]] = []

    def start(self) -> None:
        """Take over the root logger.

        Raises: OSError when log_file cannot be opened.
        """
        sink = _open(self.file, self._stream)
        sink.setFormatter(_Lines(self.state))
        self._thread = threading.Thread(target=self._write, args=(sink,), name="logs", daemon=True)
        self._thread.start()
        self._restore = [(logger, logger.level) for logger in map(logging.getLogger, ("", OURS, ACCESS))]
        logging.getLogger().addHandler(self._handler)
        self.apply()

    def apply(self) -> None:
        """Set the loggers' levels from `state`, so that unwanted records are not even made."""
        wanted = [
            level for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR) if self.state.allows(level)
        ]
        lowest = wanted[0] if wanted else logging.CRITICAL
        logging.getLogger(OURS).setLevel(lowest)
        # Libraries talk a lot at INFO; theirs comes with verbose 1, their DEBUG with verbose 2.
        floor = {0: logging.WARNING, 1: logging.INFO}.get(self.state.verbose, logging.DEBUG)
        logging.getLogger().setLevel(max(floor, lowest))
        logging.getLogger(ACCESS).setLevel(logging.NOTSET if self._access else logging.CRITICAL + 1)

    @property
    def dropped(self) -> int:
        """Records that found the queue full, so far."""
        return self._handler.dropped

    def close(self) -> None:
        """Write what waits (within a few seconds) and give the root logger back."""
        if self._thread is None:
            return
        logging.getLogger().removeHandler(self._handler)
        for logger, level in self._restore:
            logger.setLevel(level)
        try:
            self._queue.put(None, timeout=_CLOSE_TIMEOUT_S)
        except queue.Full:
            self.stuck = True
        else:
            self._thread.join(_CLOSE_TIMEOUT_S)
            self.stuck = self._thread.is_alive()
        self._thread = None

    def _write(self, sink: logging.Handler) -> None:
        told = 0
        while (record := self._queue.get()) is not None:
            self._handler.written += _weight(record)
            sink.handle(record)
            told = self._tell_dropped(sink, told)
            self._queue.task_done()
        # The end mark is an item too: whoever flushes later must not wait for it.
        self._queue.task_done()
        self._tell_dropped(sink, told)
        if self.file is not None:
            sink.close()

    def _tell_dropped(self, sink: logging.Handler, told: int) -> int:
        dropped = self._handler.dropped
        if dropped > told and self._queue.empty():
            text = f"{dropped - told} log records were dropped: they came faster than they could be written"
            sink.handle(logging.LogRecord(OURS + ".logs", logging.WARNING, "", 0, text, None, None))
            return dropped
        return told


class _Enqueue(logging.Handler):
    """Hands records to the writing thread; a full queue costs a count, never a wait.

    Attributes:
        dropped: lines, so far.
        written: lines that the writing thread has taken; only it writes this.
    """

    def __init__(self, target: queue.Queue[logging.LogRecord | None], state: LogState, most: int) -> None:
        super().__init__()
        self._target = target
        self._state = state
        self._most = most
        self._taken = 0
        self.dropped = 0
        self.written = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._state.allows(record.levelno):
            return
        weight = _weight(record)
        if self._taken - self.written + weight > self._most:
            self.dropped += weight
            return
        if not hasattr(record, LINES):
            record = self._finished(record)
        try:
            self._target.put_nowait(record)
        except queue.Full:
            self.dropped += weight
        else:
            self._taken += weight

    @staticmethod
    def _finished(record: logging.LogRecord) -> logging.LogRecord:
        record = copy.copy(record)  # other handlers see the same object
        try:
            # Formatted here, so that no array or frame is kept alive by a waiting record.
            record.msg, record.args = record.getMessage()[:MAX_TEXT], None
            if record.exc_info:
                record.exc_text = record.exc_text or _PLAIN.formatException(record.exc_info)
                record.exc_info = None
        except Exception as exc:  # noqa: BLE001 - a wrong format string is a bug to be read, not a reason to fail a request
            record.msg, record.args = f"(unprintable log message: {exc!r})", None
        return record

    def flush(self) -> None:
        """Wait, within a few seconds, until what was logged is written (`logging.shutdown` calls this)."""
        with self._target.all_tasks_done:
            self._target.all_tasks_done.wait_for(lambda: self._target.unfinished_tasks == 0, _CLOSE_TIMEOUT_S)


def _weight(record: logging.LogRecord) -> int:
    """How many lines a record is."""
    lines = getattr(record, LINES, None)
    return 1 if lines is None else len(lines)


_PLAIN = logging.Formatter()


class _Stream(Forgiving, logging.StreamHandler[TextIO]):
    """Standard error, or a stream handed in."""


def _open(file: Path | None, stream: TextIO | None) -> logging.Handler:
    if file is None:
        return _Stream(stream if stream is not None else sys.stderr)
    return LogFile(file)


class _Lines(logging.Formatter):
    """One record as one line (and, in text, its traceback below), or as its many."""

    def __init__(self, state: LogState) -> None:
        super().__init__()
        self._state = state
        self._second = (0, "", "")

    def format(self, record: logging.LogRecord) -> str:
        lines: list[Line] | None = getattr(record, LINES, None)
        if lines is not None:
            return "\n".join(self._many(record, lines))
        fields = {
            name: value for name, value in vars(record).items() if name not in _STANDARD and not name.startswith("_")
        }
        request_id = fields.pop("request_id", None)
        if self._state.format is LogFormat.JSON:
            return _json_line(record, request_id, fields)
        return _text_line(record, request_id, fields, iso=self._state.format is LogFormat.ISO8601)

    def _many(self, record: logging.LogRecord, lines: list[Line]) -> Iterator[str]:
        json_, iso = self._state.format is LogFormat.JSON, self._state.format is LogFormat.ISO8601
        level, name = record.levelname.lower(), record.name
        for at_ms, message, fields in lines:
            if json_:
                line = {"time": self._utc(at_ms), "level": level, "logger": name, "message": message, **fields}
                try:
                    text = orjson.dumps(line).decode()
                except orjson.JSONEncodeError:
                    # Half a surrogate pair, which no encoding has.
                    text = _JSON_ASCII.encode(line)
                yield text if text.isascii() and "\x7f" not in text else _escaped(text)
            else:
                stamp = self._utc(at_ms) if iso else self._local(at_ms)
                yield _text(stamp, record, message, fields.get("request_id"), fields)

    def _utc(self, at_ms: int) -> str:
        """As `_stamp`."""
        return f"{self._of_second(at_ms)[1]}.{at_ms % 1000:03d}Z"

    def _local(self, at_ms: int) -> str:
        """As the function of that name."""
        return f"{self._of_second(at_ms)[2]}.{at_ms % 1000:03d}"

    def _of_second(self, at_ms: int) -> tuple[int, str, str]:
        """Kept, because most lines are of the same second as the one before."""
        second = at_ms // 1000
        if second != self._second[0]:
            at = datetime.fromtimestamp(second, UTC)
            self._second = second, at.strftime("%Y-%m-%dT%H:%M:%S"), at.astimezone().strftime("%H:%M:%S")
        return self._second


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text_line(record: logging.LogRecord, request_id: Any, fields: dict[str, Any], *, iso: bool) -> str:
    stamp = _stamp(record) if iso else _local(record.created)
    line = _text(stamp, record, str(record.msg), request_id, fields)
    if record.exc_text:
        line += "\n" + "\n".join("    " + _escaped(row) for row in record.exc_text.splitlines())
    return line


def _local(created: float) -> str:
    """Local time without the date: what a person at a terminal compares with the clock on the wall."""
    return datetime.fromtimestamp(created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _text(stamp: str, record: logging.LogRecord, message: str, request_id: Any, fields: dict[str, Any]) -> str:
    letter = _LETTERS.get(record.levelname, record.levelname[:1])
    name = record.name.removeprefix(OURS + ".")
    told = "".join([f"  {key}={value!s}" for key, value in fields.items() if key != "request_id"])
    count = len(fields) - ("request_id" in fields)
    if request_id:
        told = f"  request_id={str(request_id)[:_MAX_ID]}{told}"
        count += 1
    # One look at all of them together: at each by itself it would cost several times as much.
    if (
        len(told) > _MAX_FIELD
        or told.count(" ") != 2 * count
        or told.count("=") != count
        or '"' in told
        or not told.isprintable()
    ):
        told = _quoted(request_id, fields)
    if "=" in message or not message.isprintable():
        message = _message(message)
    return f"{stamp} {letter} {name:<12} {message}{told}"


def _quoted(request_id: Any, fields: dict[str, Any]) -> str:
    """Fields of which some may be long, or could be misread."""
    shown = {"request_id": str(request_id)[:_MAX_ID]} if request_id else {}
    shown |= {key: str(value)[:_MAX_FIELD] for key, value in fields.items() if key != "request_id"}
    return "".join([f"  {_escaped(key)}={_value(value)}" for key, value in shown.items()])


def _json_line(record: logging.LogRecord, request_id: Any, fields: dict[str, Any]) -> str:
    line: dict[str, Any] = {
        "time": _stamp(record),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": str(record.msg),
    }
    if request_id:
        line["request_id"] = str(request_id)[:_MAX_ID]
    for key, value in fields.items():
        line[f"extra_{key}" if key in line else key] = value
    if record.exc_text:
        line["exception"] = record.exc_text
    try:
        text = _JSON.encode(line)
    except (TypeError, ValueError, RecursionError):
        safe = {key: value if isinstance(value, str) else _shortened(value) for key, value in line.items()}
        text = _JSON.encode(safe)
    return _escaped(text)


def _shortened(value: object) -> str:
    return str(value)[:_MAX_FIELD]


def _message(text: str) -> str:
    """A message, in which nothing looks like a field."""
    return _LIKE_A_NAME.sub(lambda word: word[0].replace("=", "\\u003d"), _escaped(text))


def _value(text: str) -> str:
    """A field's value: as it is, or as a JSON string where it could be misread."""
    plain = text.isprintable() and not any(each in text for each in ' "=')
    return text if plain else _escaped(_JSON.encode(text))


def _escaped(text: str) -> str:
    """`text` with what is not printable as JSON writes it, so that JSON stays the JSON it was.

    Some readers take such characters for the end of a line, and terminals obey them or turn the text around.
    """
    if text.isprintable():
        return text
    return text.translate({ord(each): _JSON_ASCII.encode(each)[1:-1] for each in set(text) if not each.isprintable()})


_JSON = json.JSONEncoder(default=_shortened, ensure_ascii=False, allow_nan=False)
_JSON_ASCII = json.JSONEncoder(default=_shortened)
