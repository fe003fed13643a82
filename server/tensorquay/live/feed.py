"""The live feed: samples once a second, remembers three hundred points, and tells whoever listens.

A reader never makes the feed wait and holds nothing of it but two numbers: one that is late misses figures instead of
collecting them. One encoding serves all readers. Events and their JSON: docs/protocol.md, "Live figures".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tensorquay.core.clock import Clock
from tensorquay.core.errors import Unavailable
from tensorquay.core.ids import VersionId, VersionKey
from tensorquay.lifecycle.manager import ModelManager
from tensorquay.live import overview
from tensorquay.live.history import History
from tensorquay.live.records import Records, read_records
from tensorquay.live.sampler import Sampler
from tensorquay.protocol.json_bodies import dumps
from tensorquay.telemetry.live import Figures, ServerCounters, ServerFigures
from tensorquay.telemetry.statistics import StatisticsTable

_log = logging.getLogger("tensorquay.live")

MOST_READERS = 32
INTERVAL_S = 1.0

_LONGEST_INTERVAL_S = 30.0
_MOST_SHARE, _MOST_SHARE_WATCHED = 0.002, 0.02
"""Of the loop's time that sampling may take while nobody watches, and while somebody does; it is done as rarely."""

_SOON_S = 0.01
_COSTS = 3
"""Samplings in a row that must all have been dear: one that was interrupted says nothing about the next."""

_REMEMBERED_VERSIONS = 24
"""Versions in a point of the history, the busiest ones."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What the feed tells about.

    Args:
        server: the process's own counters now.
        hello: what a reader is told first, asked for each reader.
        may_load: whether load and unload requests are obeyed.
    """

    table: StatisticsTable
    manager: ModelManager
    server: Callable[[], ServerCounters]
    hello: Callable[[], Mapping[str, Any]]
    may_load: bool


class LiveFeed:
    """See the module. Loop-confined; owner: `app.py`, which calls `start` once and `close` once.

    Args: sleep: waits between two samplings (tests bring their own).
    """

    def __init__(
        self, subject: Subject, *, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._subject = subject
        self._clock = clock
        self._sleep = sleep
        self._sampler = Sampler(subject.table, subject.server, self._instances, clock=clock)
        self._history = History()
        self._now = dumps(Figures(clock.wall_ms(), 0.0, ServerFigures()))
        self._encoding_ns = 0
        self._ticks = 0
        self._overview = b""
        self._overviews = 0
        self._shown_revision = -1
        self._records: dict[VersionId, Records] = {}
        self._reading: asyncio.Task[None] | None = None
        self._readers: set[Reader] = set()
        self._sampling: asyncio.Task[None] | None = None
        self.over = asyncio.Event()
        """Set when nothing more will be told."""

    # -- life

    def start(self) -> None:
        """Begin to sample."""
        self._sampler.begin()
        self._sampling = asyncio.get_running_loop().create_task(self._run(), name="live-feed")

    def end(self) -> None:
        """The server is stopping: readers hear it and go."""
        self.over.set()
        self._wake()

    async def close(self) -> None:
        """Stop sampling."""
        self.end()
        tasks = [task for task in (self._sampling, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- readers

    def now(self) -> bytes:
        """The newest figures, as JSON."""
        return self._now

    def read(self) -> Reader:
        """A new reader; to be given back with `leave`.

        Raises: Unavailable when there are too many already, or the server is stopping.
        """
        if self.over.is_set():
            raise Unavailable("the server is shutting down and tells no live figures any more")
        if len(self._readers) >= MOST_READERS:
            raise Unavailable(
                f"{MOST_READERS} readers watch the live figures already, more are not served; close a console, or ask "
                "for /v2/live/now"
            )
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        """`reader` has gone."""
        self._readers.discard(reader)

    def greeting(self) -> tuple[bytes, int, int]:
        """The first events of a reader, and the numbers of the figures and of the overview in them."""
        self._refresh()
        hello = {"server": self._subject.hello(), "interval_s": INTERVAL_S}
        events = (
            event("hello", dumps(hello)),
            event("models", self._overview),
            event("history", self._history.encoded()),
        )
        return b"".join(events), self._ticks, self._overviews

    def news(self, ticks: int, overviews: int) -> tuple[bytes, int, int]:
        """What is new for a reader that has those numbers, and the numbers it has then."""
        events = []
        if overviews != self._overviews:
            events.append(event("models", self._overview))
        if ticks != self._ticks:
            events.append(event("figures", self._now))
        return b"".join(events), self._ticks, self._overviews

    # -- the work

    async def _run(self) -> None:
        costs_ns = deque((0,) * _COSTS, _COSTS)
        while not self.over.is_set():
            await self._pause(min(costs_ns) / 1e9)
            self._encoding_ns = 0
            try:
                await self._tick()
            except Exception:  # noqa: BLE001  whatever one sampling met must not end the feed, nor the server
                _log.exception("sampling the live figures failed")
            costs_ns.append(self._sampler.cost_ns + self._encoding_ns)

    async def _pause(self, cost_s: float) -> None:
        """Wait until it is time for a sampling that costs so much: whoever comes to watch makes that earlier."""
        waited_s = 0.0
        while True:
            share = _MOST_SHARE_WATCHED if self._readers else _MOST_SHARE
            left_s = min(max(INTERVAL_S, cost_s / share), _LONGEST_INTERVAL_S) - waited_s
            if left_s < _SOON_S or self.over.is_set():
                return
            step_s = min(left_s, INTERVAL_S)
            await self._sleep(step_s)
            waited_s += step_s

    async def _tick(self) -> None:
        figures = await self._sampler.sample()
        begun_ns = time.thread_time_ns()
        self._now = dumps(figures)
        self._encoding_ns = time.thread_time_ns() - begun_ns
        self._ticks += 1
        self._history.add(self._now if len(figures.versions) <= _REMEMBERED_VERSIONS else dumps(_busiest(figures)))
        if self._readers:
            self._refresh()
            self._wake()

    def _refresh(self) -> None:
        """Make the overview anew if what it shows has changed."""
        manager = self._subject.manager
        revision = manager.revision
        if revision == self._shown_revision:
            return
        self._shown_revision = revision
        served = {each.id: each.loaded.files for each in manager.all_ready()}
        self._records = {key: found for key, found in self._records.items() if key in served}
        unread = {key: folder for key, folder in served.items() if key not in self._records}
        if unread and (self._reading is None or self._reading.done()):
            self._reading = asyncio.get_running_loop().create_task(self._read_records(unread), name="live-records")
        shown = overview.models(
            manager.index(), manager.catalogue, lambda key: self._records.get(key, _NO_RECORDS), manager.known
        )
        made = dumps({"models": shown, "may_load": self._subject.may_load})
        if made != self._overview:
            self._overview = made
            self._overviews += 1

    async def _read_records(self, unread: Mapping[VersionId, Any]) -> None:
        """Files are read in a thread, once per loading of a version; the overview that has them follows."""
        try:
            for key, folder in unread.items():
                self._records[key] = await asyncio.to_thread(read_records, folder)
        finally:
            self._shown_revision = -1

    def _instances(self, key: VersionKey) -> int:
        model = self._subject.manager.catalogue.get(key.name)
        served = model.versions.get(key.version) if model is not None else None
        return len(served.loaded.sessions) if served is not None else 1

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()


class Reader:
    """One who watches. Loop-confined; owner: whoever carries it to its client."""

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed
        self._news = asyncio.Event()
        self._ticks = self._overviews = -1
        self._greeted = False
        self._said_bye = False

    def wake(self) -> None:
        """There may be something new."""
        self._news.set()

    async def next(self) -> bytes | None:
        """The next events, at least one; None when there will be none any more."""
        if not self._greeted:
            self._greeted = True
            events, self._ticks, self._overviews = self._feed.greeting()
            return events
        while not self._feed.over.is_set():
            self._news.clear()
            events, self._ticks, self._overviews = self._feed.news(self._ticks, self._overviews)
            if events:
                return events
            await self._news.wait()
        if self._said_bye:
            return None
        self._said_bye = True
        return event("bye", b"{}")

    def leave(self) -> None:
        """Nobody reads any more."""
        self._feed.leave(self)


_NO_RECORDS = Records()


def event(name: str, data: bytes) -> bytes:
    """One server-sent event; JSON has no line breaks."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _busiest(figures: Figures) -> Figures:
    busiest = sorted(figures.versions, key=lambda each: (each.requests_per_s, each.waiting), reverse=True)
    return Figures(figures.at_ms, figures.seconds, figures.server, busiest[:_REMEMBERED_VERSIONS])
