"""One line per request in the access log, the same for every door and transport.

Decides which fields a line has and how long what a client sent may be in it; whether and where lines are written is
`telemetry/logs.py`'s, which never waits. Exists only while the log is on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from tensorquay.core.clock import Clock
from tensorquay.core.facts import PredictionFacts
from tensorquay.core.log_lines import LINES, Line

LEFT: Final = 499
"""The status of a request whose client left before there was an answer, as nginx writes it."""

LEFT_CALL: Final = "CANCELLED"
"""The same for gRPC."""

REFUSED: Final = "tensorquay.refused"
"""In the scope of an ASGI request: the status it was refused with before the application could answer."""

_NAME: Final = "tensorquay.access"
_MOST_LINES = 128
"""Lines that go to the log together. One by one they would cost more than the requests: each wakes a thread."""

_PAUSE_S = 0.05
"""How long a line may wait for others."""

_MAX_PATH = 1024
_MAX_METHOD = 64

_logger = logging.getLogger(_NAME)


class AccessLog:
    """See the module. Loop-confined; owner: whoever opens the doors."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: list[Line] = []
        self._timed = False
        self._ending = False

    def now_ns(self) -> int:
        """When a request begins, by the clock that its end is measured with."""
        return self._clock.now_ns()

    def http(
        self,
        method: str,
        path: str,
        status: int,
        *,
        begun_ns: int,
        peer: object,
        sizes: tuple[int, int],
        facts: PredictionFacts | None = None,
    ) -> None:
        """The line of an HTTP request.

        Args:
            path: percent-encoded, without the query, which may hold secrets.
            peer: the client's address as asyncio tells it.
            sizes: bytes of the request's and of the answer's body, without their heads.
        """
        if not _logger.isEnabledFor(logging.INFO):
            return
        method, path = method[:_MAX_METHOD] or "-", path[:_MAX_PATH] or "-"
        fields = self._fields("http", method, path, status, begun_ns, peer, sizes)
        self._write(f"{method} {path} {status}", fields, facts)

    def grpc(
        self,
        path: str,
        status: str,
        *,
        begun_ns: int,
        peer: object,
        sizes: tuple[int, int],
        facts: PredictionFacts | None = None,
        what: str = "",
    ) -> None:
        """The line of a gRPC call.

        Args:
            path: "/package.Service/Method".
            status: a gRPC code's name.
            peer: as for `http`; or a text.
            sizes: bytes of the messages either way, as they are without compression.
            what: of a call, when it is not the whole.
        """
        if not _logger.isEnabledFor(logging.INFO):
            return
        method, path = path.rpartition("/")[2][:_MAX_METHOD] or "-", path[:_MAX_PATH] or "-"
        fields = self._fields("grpc", method, path, status, begun_ns, peer, sizes)
        self._write(f"{method} {what}{status}", fields, facts)

    def close(self) -> None:
        """The doors shut: hand over what waits, and lines that still come one by one."""
        self._ending = True
        self._hand_over()

    def _fields(
        self,
        door: str,
        method: str,
        path: str,
        status: int | str,
        begun_ns: int,
        peer: object,
        sizes: tuple[int, int],
    ) -> dict[str, Any]:
        return {
            "door": door,
            "method": method,
            "path": path,
            "status": status,
            "ms": round((self._clock.now_ns() - begun_ns) / 1e6, 3),
            "peer": _shown(peer),
            "request_bytes": sizes[0],
            "response_bytes": sizes[1],
        }

    def _write(self, message: str, fields: dict[str, Any], facts: PredictionFacts | None) -> None:
        if facts is not None:
            fields |= facts.fields()
        lines = self._lines
        lines.append((self._clock.wall_ms(), message, fields))
        if len(lines) >= _MOST_LINES or self._ending:
            self._hand_over()
        elif not self._timed:
            self._timed = True
            asyncio.get_running_loop().call_later(_PAUSE_S, self._on_time)

    def _on_time(self) -> None:
        self._timed = False
        self._hand_over()

    def _hand_over(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            _logger.info("%d requests", len(lines), extra={LINES: lines})


def _shown(peer: object) -> str:
    """A client's address as "host:port"; "-" where there is none."""
    if isinstance(peer, str) and peer:
        return peer[:_MAX_METHOD]
    if not isinstance(peer, tuple) or len(peer) < 2:
        return "-"
    host, port = peer[0], peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
