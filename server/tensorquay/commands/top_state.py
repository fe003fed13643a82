"""What `tensorquay top` knows of a server: taken out of the events of the live feed, kept as plain values.

Another server may say anything: text is shown as text, what is no number counts as not told, and what has another shape
altogether is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorquay.commands.output import plain

KEPT = 300
"""Points of a trend."""

_MOST_TEXT = 2000


@dataclass(frozen=True, slots=True)
class Line:
    """One version: what it is and what it did in the last interval. Times in milliseconds; None: nothing to tell."""

    model: str
    version: str
    state: str = ""
    reason: str = ""
    provider: str = ""
    requests: float = 0.0
    failures: float = 0.0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    waiting: float = 0.0
    rows: float | None = None
    busy: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model}/{self.version}" if self.version else self.model


@dataclass(slots=True)
class State:
    """Mutable; owner: the command. `trouble`: why nothing new comes; empty while connected."""

    url: str
    hello: Mapping[str, Any] = field(default_factory=dict)
    server: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    at_ms: float | None = None
    trouble: str = ""
    requests: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    cpu: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    latency: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    _known: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    _busy: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    def take(self, name: str, data: Any) -> bool:
        """Learn from one event. Returns: whether there are figures to show that were not there before.

        Raises: TypeError, KeyError, AttributeError, ValueError when it is not shaped like one.
        """
        if name == "hello":
            self.hello = dict(data["server"].items())
            # Another life of the server, or a gap: its history tells what there is to tell.
            for trend in (self.requests, self.cpu, self.latency):
                trend.clear()
        elif name == "models":
            self._known = {
                (str(model["name"]), str(each["version"])): dict(each)
                for model in data["models"]
                for each in model["versions"] or ({"version": ""},)
            }
        elif name == "history":
            for point in data["points"]:
                self._figures(point)
            return bool(data["points"])
        elif name == "figures":
            self._figures(data)
            return True
        return False

    def lines(self) -> list[Line]:
        """Every version, in no particular order; those that were busy but are in no index too."""
        keys = dict.fromkeys([*self._known, *self._busy])
        return [_line(key, self._known.get(key, {}), self._busy.get(key, {})) for key in keys]

    def _figures(self, data: Any) -> None:
        self.figures, self.server = data, dict(data["server"].items())
        self._busy = {(str(each["model"]), str(each["version"])): dict(each) for each in data["versions"]}
        self.at_ms = number(data.get("at_ms"))
        self.requests.append(number(self.server.get("requests_per_s")) or 0.0)
        self.cpu.append(number(self.server.get("cpu_cores")) or 0.0)
        self.latency.append(number(_table(self.server.get("latency_ms")).get("p99")) or 0.0)


def number(value: object) -> float | None:
    """`value` if it is a number that can be shown."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1e18 < value < 1e18 else None


def text(value: object) -> str:
    """`value` if it is a text, harmless to a terminal and not endless."""
    return plain(value[:_MOST_TEXT]) if isinstance(value, str) else ""


def _line(key: tuple[str, str], known: Mapping[str, Any], busy: Mapping[str, Any]) -> Line:
    latency = _table(busy.get("latency_ms"))
    return Line(
        model=text(key[0]),
        version=text(key[1]),
        state=text(known.get("state")) or ("not loaded" if known else "gone"),
        reason=text(known.get("reason")),
        provider=text(known.get("provider")),
        requests=number(busy.get("requests_per_s")) or 0.0,
        failures=sum(number(each) or 0.0 for each in _table(busy.get("failures_per_s")).values()),
        p50=number(latency.get("p50")),
        p95=number(latency.get("p95")),
        p99=number(latency.get("p99")),
        waiting=number(busy.get("waiting")) or 0.0,
        rows=number(busy.get("rows_per_run")),
        busy=number(busy.get("busy")) or 0.0,
    )


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
