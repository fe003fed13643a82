"""Requests that keep coming while a page is looked at."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from types import TracebackType
from typing import Any

from tests.support.serving import RunningServer
from tests.support.waiting import until

DIGIT = [
    0, 0, 0, 6, 14, 1, 0, 0, 0, 0, 1, 16, 10, 0, 0, 0, 0, 0, 13, 14, 1, 0, 0, 0, 0, 2, 16, 12, 10, 3, 0, 0,
    0, 5, 16, 15, 14, 16, 1, 0, 0, 3, 16, 12, 0, 15, 8, 0, 0, 0, 11, 16, 9, 16, 8, 0, 0, 0, 0, 11, 15, 11, 1, 0,
]  # fmt: skip


def digits(rows: int = 1) -> tuple[str, dict[str, Any]]:
    """A right request."""
    tensor = {"name": "image", "datatype": "FP32", "shape": [rows, 1, 8, 8], "data": DIGIT * rows}
    return "digits", {"inputs": [tensor]}


def wrong() -> tuple[str, dict[str, Any]]:
    """A request that is refused, for its shape."""
    return "simple", {"inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [1, 3], "data": [1, 2, 3]}]}


class Asking:
    """One client that sends `requests` in turn, a moment apart, from entering to leaving the `with`."""

    def __init__(self, server: RunningServer, *requests: tuple[str, dict[str, Any]], pause_s: float = 0.02) -> None:
        self._address = server.http
        self._requests = [(f"/v2/models/{model}/infer", json.dumps(body)) for model, body in requests]
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers = 0

    def __enter__(self) -> Asking:
        self._thread.start()
        until(lambda: self.answers > len(self._requests), "the client was answered")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(30)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        for path, body in itertools.cycle(self._requests):
            if self._stop.wait(self._pause_s):
                break
            connection.request("POST", path, body)
            connection.getresponse().read()
            self.answers += 1
        connection.close()
