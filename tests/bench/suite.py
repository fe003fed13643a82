"""Measures cases: raw and served by turns, on the same machine, with the same threads, in the same minutes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.bench import environment
from tests.bench.arithmetic import RawPoint, best, ratios, rows_per_batch, spread
from tests.bench.cases import Case
from tests.bench.load import GRPC_HEALTH, HTTP_HEALTH, LoadSpec, dump
from tests.bench.pace import Window
from tests.bench.processes import ProcessTree
from tests.bench.raw import RawRuntime
from tests.support.serving import RunningServer, start

_CONNECTIONS = 8
"""Of gRPC: few connections with several calls each, as its clients do."""

_MAX_ROWS = 64
_FIGURES = ("rate_s", "p50_ms", "p99_ms", "max_ms", "server_cpu_us", "load_cpu_us")

Say = Callable[[str], None]


class MeasurementFailed(Exception):
    """A figure could not be taken: the server or an answer was wrong."""


@dataclass(frozen=True)
class Settings:
    """How long everything takes.

    Args:
        threads: of raw ONNX Runtime and of the server, for one run of a model.
        rounds: how often each pair of served and raw is measured.
        seconds, warm_s: one served measurement, and what is thrown away before it.
        raw_s: one raw measurement beside a served one; sweep_s: one while looking for the best batch size.
        single_s: the measurement with one request under way; 0 leaves it out.
        max_size: larger batch sizes are not tried.
        batch: the server's max_batch_size for built models; None finds it.
    """

    threads: int
    rounds: int = 3
    seconds: float = 6.0
    warm_s: float = 2.0
    raw_s: float = 4.0
    sweep_s: float = 1.0
    single_s: float = 3.0
    max_size: int = 2**31
    batch: int | None = None
    doors: tuple[str, ...] | None = None

    @classmethod
    def quick(cls, threads: int) -> Settings:
        """Just enough to see that everything works; the figures mean nothing."""
        return cls(threads, rounds=1, seconds=0.2, warm_s=0.1, raw_s=0.1, sweep_s=0.05, single_s=0.1, max_size=2)


def measure(cases: Sequence[Case], settings: Settings, say: Say) -> dict[str, Any]:
    """Everything, as the document that `report` prints.

    Raises: MeasurementFailed.
    """
    surroundings = environment.describe()
    ticks = environment.cpu_ticks()
    models: list[dict[str, Any]] = []
    floors: list[dict[str, Any]] = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="tensorquay-bench-") as folder:
            models.append(_Measurement(case, settings, Path(folder), say).run(floors))
    surroundings["stolen_percent"] = round(100 * environment.stolen_share(ticks, environment.cpu_ticks()), 2)
    return {"environment": surroundings, "settings": asdict(settings), "models": models, "floors": floors}


class _Measurement:
    """One case, from building its model to stopping its server."""

    def __init__(self, case: Case, settings: Settings, folder: Path, say: Say) -> None:
        self._case = case
        self._settings = settings
        self._tell = say
        self._repository = folder / "models"
        self._data = folder / "rows.npz"

    def run(self, floors: list[dict[str, Any]]) -> dict[str, Any]:
        """The case's part of the document; a shipped model's server also gives the `floors`."""
        case, settings = self._case, self._settings
        self._say("building")
        graph = case.write(self._repository)
        sizes = [size for size in case.sizes if size <= settings.max_size]
        rows = case.rows(min(_MAX_ROWS, max(case.in_flight or 0, 2 * max(sizes), 4)))
        stored: dict[str, Any] = {f"in/{name}": array for name, array in rows.items()}
        np.savez(self._data, **stored)
        with RawRuntime(graph, settings.threads, self._data) as raw:
            raw.reference()
            sweep = self._sweep(raw, sizes)
            fastest = best(sweep)
            max_batch = settings.batch or case.max_batch or fastest["batch"]
            case.configure(self._repository, max_batch)
            # One batch runs, the next one waits; with fewer the server would wait for the load generator.
            in_flight = case.in_flight or max(2 * max_batch, 4)
            server = start([self._repository], f"--threads={settings.threads}")
            try:
                result = self._served(server, raw, fastest, max_batch, in_flight)
                if case.build is None:
                    floors.extend(self._floors(server, in_flight))
                peak = ProcessTree.of(server.pid).peak_bytes()
            except MeasurementFailed as error:
                server.stop()
                raise MeasurementFailed(f"{error}\nThe server said:\n{server.told()}") from error
            finally:
                code = server.stop()
        if code != 0:
            raise MeasurementFailed(f"{case.name}: the server ended with status {code}:\n{server.told()}")
        return {
            "name": case.name,
            "what": case.what,
            "model_bytes": graph.stat().st_size,
            "threads": settings.threads,
            "max_batch_size": max_batch,
            **result,
            "raw_sweep": sweep,
            "peak_bytes": peak,
        }

    def _say(self, text: str) -> None:
        self._tell(f"{self._case.name}: {text}")

    def _sweep(self, raw: RawRuntime, sizes: Sequence[int]) -> list[RawPoint]:
        points: list[RawPoint] = []
        for size in sizes:
            seconds = self._settings.sweep_s
            spins, sleeps = (raw.measure(size, spinning=spinning, seconds=seconds) for spinning in (True, False))
            points += (spins, sleeps)
            self._say(f"raw, batch {size}: {spins['items_s']:,.1f}/s, not spinning {sleeps['items_s']:,.1f}/s")
        return points

    def _served(
        self, server: RunningServer, raw: RawRuntime, fastest: RawPoint, max_batch: int, in_flight: int
    ) -> dict[str, Any]:
        settings, case = self._settings, self._case
        doors = [door for door in case.doors if settings.doors is None or door in settings.doors]
        resident = ProcessTree.of(server.pid).resident_bytes()
        served: dict[str, list[dict[str, Any]]] = {door: [] for door in doors}
        beside: dict[str, list[RawPoint]] = {door: [] for door in doors}
        window = Window(settings.warm_s, settings.seconds, 2 * max_batch)
        for number in range(settings.rounds):
            for door in doors:
                served[door].append(self._load(server, door, in_flight, window))
                beside[door].append(raw.measure(fastest["batch"], spinning=fastest["spinning"], seconds=settings.raw_s))
                self._say(
                    f"round {number + 1}, {door}: {served[door][-1]['rate_s']:,.1f}/s, "
                    f"raw {beside[door][-1]['items_s']:,.1f}/s"
                )
        return {
            "resident_bytes_before": resident,
            "raw": {
                "batch": fastest["batch"],
                "spinning": fastest["spinning"],
                **{
                    figure: spread([point[figure] for points in beside.values() for point in points])
                    for figure in ("items_s", "run_ms", "cpu_us")
                },
            },
            "doors": [self._door(door, in_flight, served[door], beside[door]) for door in doors],
            "single": self._single(server, doors),
        }

    def _single(self, server: RunningServer, doors: Sequence[str]) -> list[dict[str, Any]]:
        """One request under way at a time: what a lone caller waits."""
        if not self._settings.single_s:
            return []
        window = Window(self._settings.warm_s / 4, self._settings.single_s, 1)
        return [self._door(door, 1, [self._load(server, door, 1, window)]) for door in doors]

    def _floors(self, server: RunningServer, in_flight: int) -> list[dict[str, Any]]:
        """A constant answer through each door: what a request costs before there is a prediction in it."""
        settings = self._settings
        window = Window(settings.warm_s, settings.seconds, 1)
        served: dict[str, list[dict[str, Any]]] = {HTTP_HEALTH: [], GRPC_HEALTH: []}
        for _ in range(settings.rounds):
            for door, measured in served.items():
                measured.append(self._load(server, door, in_flight, window))
                self._say(f"{door}: {measured[-1]['rate_s']:,.1f}/s")
        return [self._door(door, in_flight, measured) for door, measured in served.items()]

    @staticmethod
    def _door(
        door: str, in_flight: int, measured: Sequence[dict[str, Any]], beside: Sequence[RawPoint] = ()
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "door": door,
            "in_flight": in_flight,
            "connections": measured[0]["connections"],
            "requests": sum(each["requests"] for each in measured),
            **{figure: spread([each[figure] for each in measured]) for figure in _FIGURES},
        }
        batches = [each["rows_per_batch"] for each in measured if each.get("rows_per_batch") is not None]
        if batches:
            row["rows_per_batch"] = spread(batches)
        if beside:
            row["of_raw"] = spread(
                ratios([each["rate_s"] for each in measured], [point["items_s"] for point in beside])
            )
        return row

    def _load(self, server: RunningServer, door: str, in_flight: int, window: Window) -> dict[str, Any]:
        health = door in {HTTP_HEALTH, GRPC_HEALTH}
        spec = LoadSpec(
            door=door,
            address=server.grpc if door.startswith("grpc") else server.http,
            model=self._case.name,
            data=None if health else str(self._data),
            in_flight=in_flight,
            connections=_CONNECTIONS,
            exact=self._case.exact,
            window=window,
            pid=server.pid,
            limit_s=120 + 10 * (window.warm_s + window.seconds),
        )
        before = None if health else self._statistics(server)
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.load"], input=dump(spec), capture_output=True, text=True, check=False
        )
        if not done.stdout:
            raise MeasurementFailed(f"{self._case.name}, {door}: the load generator failed:\n{done.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(done.stdout)
        if "error" in result:
            raise MeasurementFailed(f"{self._case.name}, {door}: {result['error']}")
        if before is not None:
            result["rows_per_batch"] = rows_per_batch(before, self._statistics(server))
        return result

    def _statistics(self, server: RunningServer) -> dict[str, Any]:
        with urllib.request.urlopen(f"{server.url}/v2/models/{self._case.name}/stats", timeout=30) as answer:
            statistics: dict[str, Any] = json.load(answer)["model_stats"][0]
        return statistics


def narrowed(cases: Sequence[Case], only: Sequence[str]) -> list[Case]:
    """The cases named in `only`, all when it is empty.

    Raises: ValueError for a name there is not.
    """
    known = [case.name for case in cases]
    for name in only:
        if name not in known:
            raise ValueError(f"there is no '{name}', expected some of {', '.join(known)}")
    return [case for case in cases if not only or case.name in only]


def with_in_flight(cases: Sequence[Case], in_flight: int | None) -> list[Case]:
    """The cases with that many requests under way, as they are when it is None."""
    return list(cases) if in_flight is None else [replace(case, in_flight=in_flight) for case in cases]
