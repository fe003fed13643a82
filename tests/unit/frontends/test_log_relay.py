"""A front end's log records arrive whole at the owner, and those that do not are counted line by line."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tensorquay.core.log_lines import LINES
from tensorquay.frontends import log_relay
from tensorquay.frontends.log_relay import Relay

REQUESTS = [[1_700_000_000_000, f"GET /{number} 200", {"door": "http", "status": 200}] for number in range(3)]


@pytest.fixture
def logger() -> logging.Logger:
    made = logging.getLogger("tensorquay.access")
    made.setLevel(logging.NOTSET)
    return made


def _record(logger: logging.Logger, lines: list[Any] | None = None) -> logging.LogRecord:
    extra = {"model": "m"} if lines is None else {LINES: lines}
    return logger.makeRecord(logger.name, logging.INFO, "", 0, "%d requests", (3,), None, extra=extra)


def test_many_lines_in_one_record_arrive_as_they_were(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Any] = []
    relay = Relay(lambda document: sent.append(json.loads(json.dumps(document))) or True)
    relay.emit(_record(logger, REQUESTS))
    relay.emit(_record(logger))
    with caplog.at_level(logging.INFO):
        for document in sent:
            log_relay.handle(document)
    many, one = caplog.records
    assert getattr(many, LINES) == REQUESTS
    assert (one.getMessage(), one.model) == ("3 requests", "m")  # type: ignore[attr-defined]


def test_lines_that_cannot_be_sent_are_counted(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Any] = []
    room = False

    def send(document: object) -> bool:
        if room:
            sent.append(document)
        return room

    relay = Relay(send)
    relay.emit(_record(logger, REQUESTS))
    relay.emit(_record(logger))
    room = True
    relay.emit(_record(logger, REQUESTS))
    with caplog.at_level(logging.INFO):
        log_relay.handle(sent[0])
    assert "4 log records of a front end were dropped" in caplog.text
