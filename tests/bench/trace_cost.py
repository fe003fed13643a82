"""What spans cost: `python -m tests.bench.trace_cost`, from the root of a clone, on a machine at rest.

Cheap predictions, the dearest case for traces; CPU time of the server per request. Two questions, each asked of one
server, because two processes of the same program differ by some percent: what spans for one request in a hundred cost,
in turns with and without (`trace_server.py`; a collector takes them); and, without any tracing, what a caller's span
costs that is a new one in every request. Needs wrk and h2load.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tests.bench import h2load, wire, wrk
from tests.bench.generators import GeneratorFailed, Shape, missing
from tests.bench.metrics_cost import NoResult, quartiles, ratios
from tests.bench.processes import ProcessTree
from tests.support import graphs
from tests.support.collector import Collector
from tests.support.serving import RunningServer, start

_CALLERS = 4096
"""More than the server keeps heads of: none of them has been seen before."""

_LIMIT_S = 240.0
_WARM = 20_000
_LEAST = 1000
"""Requests of a turn that was all load."""

HTTP, CALLERS, GRPC = "HTTP", "HTTP, a caller's span in every request", "gRPC"


class Bench:
    """A server, its loads, and what they cost it."""

    def __init__(self, folder: Path, server: RunningServer) -> None:
        self._server = server
        self._tree = ProcessTree.of(server.pid)
        self._folder = folder
        row = {name: np.arange(16, dtype=np.int32)[None] for name in ("INPUT0", "INPUT1")}
        request = wire.http_infer(server.http, "simple", row, binary=True)
        _write(folder / HTTP, [request])
        _write(folder / CALLERS, [_with_caller(request, number) for number in range(_CALLERS)])
        _write(folder / GRPC, [wire.grpc_infer("simple", row)])

    def us(self, load: str, requests: int) -> float:
        """CPU time of the server per request, in microseconds.

        Raises: GeneratorFailed.
        """
        files, clock = self._folder / load, self._tree.cpu_s
        if load == GRPC:
            path = "/inference.GRPCInferenceService/ModelInfer"
            reading = h2load.measure(self._server.grpc, path, files / "0", Shape(requests, 8, 8), clock, _LIMIT_S)
        else:
            number = len(list(files.iterdir()))
            reading = wrk.measure(self._server.http, files, number, Shape(requests, 64), clock, _LIMIT_S)
        return 1e6 * reading.server_cpu_s / reading.requests


def _with_caller(request: bytes, number: int) -> bytes:
    head, end, body = request.partition(b"\r\n\r\n")
    return b"%b\r\ntraceparent: 00-%032x-%016x-00%b%b" % (head, number + 1, number + 1, end, body)


def _write(folder: Path, requests: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for number, request in enumerate(requests):
        (folder / str(number)).write_bytes(request)


@contextmanager
def _running(folder: Path, *flags: str, **options: Any) -> Iterator[Bench]:
    graphs.write(graphs.add_sub(), folder / "models" / "simple" / "1" / "model.onnx")
    server = start([folder / "models"], "--log-info=false", *flags, **options)
    try:
        yield Bench(folder / "requests", server)
    finally:
        server.stop()


def spans(load: str, collector: Collector, seconds: float) -> str:
    """What one request in a hundred costs.

    Raises: GeneratorFailed, NoResult.
    """
    flags = ("--trace-mode=opentelemetry", f"--otlp-endpoint={collector.url}", "--trace-rate=100")
    with tempfile.TemporaryDirectory() as made:
        slices = Path(made) / "slices.json"
        environment = {"BENCH_SLICES": str(slices)}
        with _running(Path(made), *flags, env=environment, module="tests.bench.trace_server") as bench:
            begun_s = time.monotonic()
            bench.us(load, _WARM)
            bench.us(load, int(_WARM * seconds / (time.monotonic() - begun_s)))
        taken = [(bool(on), count, cpu) for on, count, cpu in json.loads(slices.read_text())]
    found = ratios(taken, _LEAST)
    low, middle, high = quartiles(found)
    without = statistics.median(cpu / count for on, count, cpu in taken if not on and count >= _LEAST) / 1000
    return (
        f"{load}, 1 % traced: {middle:.3f} ({low:.3f} to {high:.3f}, the middle half of {len(found)} pairs), "
        f"{without:.1f} us of CPU per request without"
    )


def callers(rounds: int, requests: int) -> str:
    """What a caller's span costs where nothing is traced.

    Raises: GeneratorFailed.
    """
    figures: dict[str, list[float]] = {HTTP: [], CALLERS: []}
    with tempfile.TemporaryDirectory() as made, _running(Path(made)) as bench:
        for load in figures:
            bench.us(load, _WARM)
        for number in range(rounds):
            # Every other round the other way round: whoever comes first must not always be the same.
            for load in list(figures)[:: 1 if number % 2 else -1]:
                figures[load].append(bench.us(load, requests))
    found = [with_ / plain for with_, plain in zip(figures[CALLERS], figures[HTTP], strict=True)]
    return (
        f"{CALLERS}, nothing traced: {statistics.median(found):.3f} ({min(found):.3f} to {max(found):.3f}), "
        f"{statistics.median(figures[HTTP]):.1f} us of CPU per request without"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. Returns: 0, or 1 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trace_cost", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of one measurement with turns (60)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements with and without a caller's span (5)")
    parser.add_argument("--requests", type=int, default=60_000, help="of one of these (60000)")
    given = parser.parse_args(arguments)
    lacking = missing(wrk.PROGRAM, wrk.PACKAGE) or missing(h2load.PROGRAM, h2load.PACKAGE)
    if lacking:
        print(f"bench: {lacking.partition(';')[0]}", file=sys.stderr)
        return 1
    collector = Collector(keeps=False)
    try:
        for load in (HTTP, GRPC):
            print(spans(load, collector, given.seconds), flush=True)
        print(callers(given.rounds, given.requests), flush=True)
    except (GeneratorFailed, NoResult) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        collector.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
