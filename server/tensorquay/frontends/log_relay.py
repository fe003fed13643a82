"""A front end's log: its records go to the owner, which writes all of them, by its settings, to one place.

Bounded: while much waits to be sent, records are dropped and counted, and the count is told with the next one that
gets through. Without a link, what is at least a warning goes to standard error.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from tensorquay.core.log_lines import LINES

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_MAX_TEXT = 16_384
_MAX_FIELD = 1024
_PLAIN = logging.Formatter()

_LOGGER = "tensorquay"


class Relay(logging.Handler):
    """The only handler of a front end's process. Called in any thread; sends on the loop.

    Args: send: takes one record as a JSON document, on the loop or any thread; False when it could not be taken.
    """

    def __init__(self, send: Callable[[object], bool]) -> None:
        super().__init__()
        self._send = send
        self._dropped = 0
        self._counting = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Send `record`."""
        try:
            document = _document(record)
        except Exception as error:  # noqa: BLE001  a wrong format string is a bug to be read, not a reason to fail
            document = {"name": record.name, "level": record.levelno, "created": record.created}
            document["message"] = f"(unprintable log message: {error!r})"
        with self._counting:
            dropped = self._dropped
            if dropped:
                document["dropped_before"] = dropped
            if self._send(document):
                self._dropped -= dropped
                return
            self._dropped += len(document.get("lines", (None,)))
        if record.levelno >= logging.WARNING and sys.__stderr__ is not None:
            try:
                sys.__stderr__.write(f"tensorquay front end: {document['message']}\n")
            except (OSError, ValueError):
                return  # nowhere left to tell


def _document(record: logging.LogRecord) -> dict[str, Any]:
    lines = getattr(record, LINES, None)
    if lines is not None:
        return {
            "name": record.name,
            "level": record.levelno,
            "created": record.created,
            "message": record.getMessage(),
            "lines": lines,
        }
    fields = {
        name: value if isinstance(value, int | float) or value is None else str(value)[:_MAX_FIELD]
        for name, value in vars(record).items()
        if name not in _STANDARD and not name.startswith("_")
    }
    document: dict[str, Any] = {
        "name": record.name,
        "level": record.levelno,
        "created": record.created,
        "message": record.getMessage()[:_MAX_TEXT],
        "fields": fields,
    }
    if record.exc_info:
        document["exception"] = (record.exc_text or _PLAIN.formatException(record.exc_info))[:_MAX_TEXT]
    return document


def handle(document: Any) -> None:
    """Log in this process what a `Relay` sent, if it is wanted here."""
    logger = logging.getLogger(document["name"])
    dropped = document.get("dropped_before")
    if dropped:
        logging.getLogger(_LOGGER).warning("%d log records of a front end were dropped: too much waited", dropped)
    if not logger.isEnabledFor(document["level"]):
        return
    record = logging.LogRecord(document["name"], document["level"], "", 0, document["message"], None, None)
    record.created = document["created"]
    record.exc_text = document.get("exception")
    if "lines" in document:
        setattr(record, LINES, document["lines"])
    for name, value in document.get("fields", {}).items():
        setattr(record, name, value)
    logger.handle(record)
