"""The log's file: reopened when rotated, never waited for when it is opened, and with whole lines only.

Not buffered: a buffer would put the rest of one line behind what a full disk has cut off of another, and no reader of
JSON lines gets past that. What a full disk has cut off is taken back, and when the file can be written again its next
line says how many are missing.
"""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import stat
import sys
from pathlib import Path
from typing import Any, Final

_NAME: Final = "tensorquay.logs"


class Forgiving(logging.Handler):
    """A stream that fails is told once on standard error; the records meanwhile are lost, nothing else is."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - logging's signature
        if self._failed:
            return
        self._failed = True
        cause = sys.exc_info()[1]
        try:
            if sys.__stderr__ is not None:
                sys.__stderr__.write(f"tensorquay: the log cannot be written ({cause}); log lines are being lost\n")
        except (OSError, ValueError):
            return  # nowhere left to tell


class LogFile(Forgiving, logging.handlers.WatchedFileHandler):
    """See the module. Used by the writing thread only.

    Raises: OSError when it cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self._lost = 0
        super().__init__(file)

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record's lines, all of them or as many as there is room for."""
        told = 1 if self._lost else 0
        written = 0
        data = b""
        try:
            data = _encoded(self.format(record))
            if told:
                data = _encoded(self.format(_missing(self._lost))) + data
            stream = self._current()
            rest = memoryview(data)
            while written < len(data):
                written += stream.write(rest[written:])
        except Exception:  # noqa: BLE001  what cannot be formatted is lost like what cannot be written
            kept = self._take_back_half_a_line(data[:written])
            lines = data.count(b"\n") or told + 1
            self._lost = lines - kept if kept >= told else self._lost + lines - told
            self.handleError(record)
        else:
            self._lost, self._failed = 0, False

    def close(self) -> None:
        """Let go of the file; a disk may tell only now that it has not kept everything."""
        try:
            super().close()
        except OSError:
            self.handleError(_missing(self._lost))

    def _current(self) -> Any:
        """The file of that name, as it is now."""
        self.reopenIfNeeded()
        if self.stream is None:  # it could not be reopened before
            self.stream = self._open()
            self._statstream()
        return self.stream

    def _open(self) -> Any:
        return open(self.baseFilename, "ab", buffering=0, opener=_at_once)

    def _take_back_half_a_line(self, written: bytes) -> int:
        """Cut off what follows the last line break of `written`; returns how many whole lines stay."""
        half = len(written) - written.rfind(b"\n") - 1
        stream: Any = self.stream
        if half:
            try:
                number = stream.fileno()
                found = os.fstat(number)
                # Not if somebody else has appended to it since.
                if stat.S_ISREG(found.st_mode) and found.st_size == os.lseek(number, 0, os.SEEK_CUR):
                    os.ftruncate(number, found.st_size - half)
            except OSError:
                self.handleError(_missing(1))
        return written.count(b"\n")


def _encoded(lines: str) -> bytes:
    return lines.encode("utf-8", "backslashreplace") + b"\n"


def _missing(lines: int) -> logging.LogRecord:
    text = f"{lines} log lines are missing here: the log could not be written"
    return logging.LogRecord(_NAME, logging.WARNING, "", 0, text, None, None)


def _at_once(path: str, flags: int) -> int:
    """An opener that does not wait for somebody to read a named pipe."""
    try:
        number = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "it is a named pipe or a socket that nobody reads", path) from exc
        raise
    os.set_blocking(number, True)
    return number
