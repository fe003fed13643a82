"""Runs the cases of `frontend_cases.py` against one or more servers by turns, and accepts only what adds up."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.bench import environment, h2load, wrk
from tests.bench.arithmetic import per_request_us, rows_per_batch, spread
from tests.bench.frontend_cases import MODELS, OWN, DoorCase, Traffic, traffic, usable
from tests.bench.generators import GeneratorFailed, Reading, Shape
from tests.bench.load import LoadSpec, dump
from tests.bench.pace import Window
from tests.bench.processes import ProcessTree
from tests.bench.wire import WrongAnswer
from tests.support.serving import RunningServer, start

_WARM_REQUESTS_PER_SLOT = 40
_LIMIT_S = 120.0

Say = Callable[[str], None]


class NoResult(Exception):
    """Something did not add up; there is no figure to print."""


@dataclass(frozen=True)
class Contender:
    """A server that is measured. `http`, `grpc`: whether its doors of that kind are; `checkout`: None is this one."""

    name: str
    flags: tuple[str, ...] = ()
    http: bool = True
    grpc: bool = True
    checkout: Path | None = None

    def serves(self, case: DoorCase) -> bool:
        """Whether `case` is measured with it."""
        return self.grpc if case.is_grpc else self.http

    def environment(self) -> dict[str, str]:
        """What makes Python import the checkout's packages.

        Raises: NoResult when they would not be.
        """
        if self.checkout is None:
            return {}
        root = self.checkout.resolve()
        variables = {"PYTHONPATH": os.pathsep.join(str(root / part) for part in ("server", "clients"))}
        asked = [sys.executable, "-c", "import tensorquay.app; print(tensorquay.app.__file__)"]
        done = subprocess.run(asked, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
        if not done.stdout.strip() or not Path(done.stdout.strip()).resolve().is_relative_to(root):
            raise NoResult(
                f"{self.name}: no server in '{self.checkout}' (got {done.stdout.strip() or done.stderr[-500:]})"
            )
        return variables


@dataclass(frozen=True)
class Settings:
    """How long, how often, and what the servers are told.

    Args:
        seconds: about the length of one measurement.
        gap_batch: max_batch_size of the large-tensor model.
        server_cores: how many cores the servers are pinned to, where the generator then has one of its own.
    """

    seconds: float = 3.0
    rounds: int = 3
    gap_batch: int = 1
    server_cores: int = 1
    flags: tuple[str, ...] = ()

    @classmethod
    def quick(cls) -> Settings:
        """Just enough to see that everything works; the figures mean nothing."""
        return cls(seconds=0.05, rounds=1)


@dataclass(frozen=True)
class Cores:
    """Which cores servers and generators run on; None: they share them all."""

    server: frozenset[int] | None
    generator: frozenset[int] | None

    @classmethod
    def split(cls, available: Sequence[int], servers: int) -> Cores:
        """The last core for the generator, the first `servers` of the others for the servers."""
        if len(available) < 2:
            return cls(None, None)
        *others, last = sorted(available)
        return cls(frozenset(others[:servers]), frozenset((last,)))

    def told(self) -> str:
        """In words."""
        if self.server is None or self.generator is None:
            return "server and generator share one core"
        return f"server on core {_listed(self.server)}, generator on core {_listed(self.generator)}"


def _listed(cores: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


@contextlib.contextmanager
def pinned(cores: frozenset[int] | None) -> Iterator[None]:
    """Processes started inside run on `cores` only."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(cases: Sequence[DoorCase], contenders: Sequence[Contender], settings: Settings, say: Say) -> dict[str, Any]:
    """Everything, as the document that `frontend_report` prints.

    Raises: NoResult.
    """
    surroundings = environment.describe()
    ticks = environment.cpu_ticks()
    cores = Cores.split(sorted(os.sched_getaffinity(0)), settings.server_cores)
    floors = list(dict.fromkeys(usable([case.floor for case in cases])[0]))
    running: list[_Running] = []
    with tempfile.TemporaryDirectory(prefix="tensorquay-frontends-") as folder, contextlib.ExitStack() as ends:
        repository = Path(folder) / "models"
        for model in sorted({case.model for case in cases if case.model is not None}):
            MODELS[model].write(repository)
            MODELS[model].configure(repository, settings.gap_batch)
        for contender in contenders:
            flags = (*settings.flags, *contender.flags)
            with pinned(cores.server):
                server = start([repository], *flags, env=contender.environment())
            ends.callback(server.end)
            running.append(_Running(contender, server, cores, Path(folder)))
        rows = []
        for case in (*floors, *cases):
            rows += _by_turns(case, [each for each in running if each.contender.serves(case)], settings, say)
        for each in running:
            code = each.server.stop()
            if code != 0:
                raise NoResult(f"{each.contender.name}: the server ended with status {code}:\n{each.server.told()}")
    surroundings["stolen_percent"] = round(100 * environment.stolen_share(ticks, environment.cpu_ticks()), 2)
    return {
        "environment": surroundings,
        "settings": asdict(settings),
        "cores": cores.told(),
        "contenders": [each.contender.name for each in running],
        "rows": with_floors(rows),
    }


def with_floors(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every row with the server CPU time of its floor beside it, None where that is the row itself."""
    floors = {_place(row): row["server_cpu_us"]["median"] for row in rows if row["model"] is None}
    return [row | {"floor_us": None if row["model"] is None else floors.get(_place(row))} for row in rows]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["contender"], row["door"].startswith("grpc"), row["connections"], row["streams"]


def _by_turns(case: DoorCase, running: Sequence[_Running], settings: Settings, say: Say) -> list[dict[str, Any]]:
    """One row per server. They take turns in every round: what happens to the machine happens to all of them."""
    measured = [_Measurement(each, case) for each in running]
    for each in measured:
        each.begin(settings.seconds)
    for number in range(settings.rounds):
        for each in measured:
            each.take()
            say(f"{each.what}, round {number + 1}: {each.told()}")
    return [each.end() for each in measured]


@dataclass
class _Running:
    """A contender's server."""

    contender: Contender
    server: RunningServer
    cores: Cores
    folder: Path

    def cpu_s(self) -> float:
        """CPU time of its processes so far; children come and go, so they are looked up each time."""
        return ProcessTree.of(self.server.pid).cpu_s()

    def statistics(self, model: str) -> dict[str, Any]:
        """What the server counted."""
        with urllib.request.urlopen(f"{self.server.url}/v2/models/{model}/stats", timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)["model_stats"][0]
        return found


@dataclass
class _Measurement:
    """One case with one server."""

    running: _Running
    case: DoorCase
    readings: list[Reading] = field(default_factory=list)
    batches: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        server = self.running.server
        self.traffic: Traffic = traffic(self.case, server.grpc if self.case.is_grpc else server.http)
        self.what = f"{self.running.contender.name}: {self.case.model or 'floor'}, {self.case.door}, {self.case.shape}"
        self._folder = self.running.folder / "traffic"
        self._requests = 0
        self._seconds = 0.0
        self._answer_bytes = 0

    def begin(self, seconds: float) -> None:
        """Check the answers, warm up, and find out how many requests `seconds` hold.

        Raises: NoResult.
        """
        self._answer_bytes = self._checked()
        self._seconds = seconds
        self._write()
        requests = self.case.in_flight * _WARM_REQUESTS_PER_SLOT
        for share in (0.2, 1.0):
            self._requests = requests
            reading = self._load()
            slots = max(1, round(reading.requests / reading.seconds * seconds * share / self.case.in_flight))
            requests = slots * self.case.in_flight
        self._requests = requests

    def take(self) -> None:
        """Measure once.

        Raises: NoResult.
        """
        self._write()
        self.readings.append(self._load())

    def end(self) -> dict[str, Any]:
        """Check the answers again; the row of the document.

        Raises: NoResult.
        """
        self._checked()
        case = self.case
        row = {
            "contender": self.running.contender.name,
            "model": case.model,
            "door": case.door,
            "connections": case.connections,
            "streams": case.streams,
            "shape": case.shape,
            "generator": case.generator,
            "note": case.note,
            "goal_us": case.goal_us,
            "requests": sum(reading.requests for reading in self.readings),
            "server_cpu_us": spread([per_request_us(each.server_cpu_s, each.requests) for each in self.readings]),
            "generator_cpu_us": spread([per_request_us(each.generator_cpu_s, each.requests) for each in self.readings]),
            "rate_s": spread([each.requests / each.seconds for each in self.readings]),
        }
        return row | ({"rows_per_batch": spread(self.batches[-len(self.readings) :])} if self.batches else {})

    def told(self) -> str:
        """The last reading in words."""
        last = self.readings[-1]
        cpu_us = per_request_us(last.server_cpu_s, last.requests)
        return f"{cpu_us:.1f} µs of server CPU per request, {last.requests / last.seconds:,.0f}/s"

    def _checked(self) -> int:
        try:
            return self.traffic.check()
        except (WrongAnswer, OSError) as error:
            raise NoResult(f"{self.what}: {error}\nThe server said:\n{self.running.server.told()}") from error

    def _write(self) -> None:
        """Put the requests where a generator reads them; the folder is every measurement's."""
        self._folder.mkdir(exist_ok=True)
        for number, request in enumerate(self.traffic.requests):
            (self._folder / str(number)).write_bytes(request)

    def _load(self) -> Reading:
        """One run of the generator, and whether the server counted what it counted."""
        model = self.case.model
        before = None if model is None else self.running.statistics(model)
        try:
            with pinned(self.running.cores.generator):
                reading = self._generate()
        except GeneratorFailed as error:
            raise NoResult(f"{self.what}: {error}\nThe server said:\n{self.running.server.told()}") from error
        if before is not None and model is not None:
            after = self.running.statistics(model)
            agree(self.what, reading, before, after)
            batches = rows_per_batch(before, after)
            self.batches += [] if batches is None else [batches]
        if reading.body_bytes not in {None, reading.answered * self._answer_bytes}:
            raise NoResult(
                f"{self.what}: {reading.answered} answers of {self._answer_bytes} bytes were expected, "
                f"{reading.body_bytes} bytes came"
            )
        return reading

    def _generate(self) -> Reading:
        case, cpu_s = self.case, self.running.cpu_s
        shape = Shape(self._requests, case.connections, case.streams)
        if case.generator == wrk.PROGRAM:
            files = len(self.traffic.requests)
            return wrk.measure(self.traffic.address, self._folder, files, shape, cpu_s, _LIMIT_S)
        if case.generator == h2load.PROGRAM:
            return h2load.measure(self.traffic.address, self.traffic.path, self._folder / "0", shape, cpu_s, _LIMIT_S)
        assert case.generator == OWN
        return self._generate_own()

    def _generate_own(self) -> Reading:
        case = self.case
        rows = self._folder / "rows.npz"
        if self.traffic.rows is not None:
            inputs, outputs = self.traffic.rows
            stored: dict[str, Any] = {f"in/{name}": array for name, array in inputs.items()}
            np.savez(rows, **stored, **{f"out/{name}": array for name, array in outputs.items()})
        spec = LoadSpec(
            door=case.door,
            address=self.traffic.address,
            model=case.model or "",
            data=None if case.model is None else str(rows),
            in_flight=case.in_flight,
            connections=case.connections,
            exact=case.model is not None and MODELS[case.model].exact,
            window=Window(self._seconds / 4, self._seconds, case.in_flight),
            pid=self.running.server.pid,
            limit_s=_LIMIT_S,
        )
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.load"], input=dump(spec), capture_output=True, text=True, check=False
        )
        if not done.stdout:
            raise GeneratorFailed(f"the project's own generator failed:\n{done.stderr[-4000:]}")
        result: dict[str, Any] = json.loads(done.stdout)
        if "error" in result:
            raise GeneratorFailed(result["error"])
        requests = result["requests"]
        return Reading(
            requests,
            result["answered"],
            result["seconds"],
            result["server_cpu_us"] * requests / 1e6,
            result["load_cpu_us"] * requests / 1e6,
        )


def agree(what: str, reading: Reading, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Generator and server must have counted the same successes, and no failures.

    Args: before, after: the model's statistics around the run.
    Raises: NoResult.
    """
    counted, failed = (
        after["inference_stats"][kind]["count"] - before["inference_stats"][kind]["count"]
        for kind in ("success", "fail")
    )
    if counted != reading.answered or failed:
        raise NoResult(
            f"{what}: the generator counted {reading.answered} successes, the server {counted} and {failed} failures: "
            "this is no result"
        )
