"""What spans cost: `python -m tests.bench.trace_cost`, from the root of a clone, on a machine at rest.

Servers with and without tracing take turns under the same load of cheap predictions, the dearest case for traces:
CPU time of the server per request, each over the plain one of the same round. A collector takes the spans. For HTTP
also with a caller's span in every request, each a new one, which is sampled by nobody. Needs wrk and h2load.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tests.bench import h2load, wire, wrk
from tests.bench.generators import GeneratorFailed, Shape, missing
from tests.bench.processes import ProcessTree
from tests.support import graphs
from tests.support.collector import Collector
from tests.support.serving import RunningServer, start

_CALLERS = 4096
"""More than the server keeps heads of: none of them has been seen before."""

_LIMIT_S = 120.0
_WARM = 4000


@dataclass(frozen=True)
class Case:
    """One server under one load. The first of a kind of load is what the others are compared with."""

    name: str
    server: str
    load: str


SERVERS: dict[str, tuple[str, ...]] = {"off": (), "1 %": ("--trace-rate=100",)}
"""Name → flags; all but the first trace."""

CASES = (
    Case("HTTP, nothing traced", "off", "http"),
    Case("HTTP, 1 % traced", "1 %", "http"),
    Case("HTTP, nothing traced, each request with a caller's span", "off", "http with callers"),
    Case("HTTP, 1 % traced, each request with a caller's span", "1 %", "http with callers"),
    Case("gRPC, nothing traced", "off", "grpc"),
    Case("gRPC, 1 % traced", "1 %", "grpc"),
)


class Bench:
    """The servers, their load, and what was measured."""

    def __init__(self, folder: Path, servers: dict[str, RunningServer], requests: int) -> None:
        self._servers = servers
        self._trees = {name: ProcessTree.of(server.pid) for name, server in servers.items()}
        self._requests = requests
        self._folder = folder
        row = {name: np.arange(16, dtype=np.int32)[None] for name in ("INPUT0", "INPUT1")}
        for name, server in servers.items():
            request = wire.http_infer(server.http, "simple", row, binary=True)
            _write(folder / name / "http", [request])
            _write(folder / name / "http with callers", [_with_caller(request, n) for n in range(_CALLERS)])
            _write(folder / name / "grpc", [wire.grpc_infer("simple", row)])

    def us(self, case: Case, requests: int = 0) -> float:
        """CPU time of the server per request, in microseconds.

        Raises: GeneratorFailed.
        """
        server, tree = self._servers[case.server], self._trees[case.server]
        count = requests or self._requests
        files = self._folder / case.server / case.load
        if case.load == "grpc":
            path = "/inference.GRPCInferenceService/ModelInfer"
            shape = Shape(count, 8, 8)
            reading = h2load.measure(server.grpc, path, files / "0", shape, tree.cpu_s, _LIMIT_S)
        else:
            shape = Shape(count, 64)
            number = len(list(files.iterdir()))
            reading = wrk.measure(server.http, files, number, shape, tree.cpu_s, _LIMIT_S)
        return 1e6 * reading.server_cpu_s / reading.requests


def _with_caller(request: bytes, number: int) -> bytes:
    head, end, body = request.partition(b"\r\n\r\n")
    return b"%b\r\ntraceparent: 00-%032x-%016x-00%b%b" % (head, number + 1, number + 1, end, body)


def _write(folder: Path, requests: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for number, request in enumerate(requests):
        (folder / str(number)).write_bytes(request)


@contextmanager
def _running(folder: Path, collector: Collector) -> Iterator[dict[str, RunningServer]]:
    graphs.write(graphs.add_sub(), folder / "models" / "simple" / "1" / "model.onnx")
    on = ("--trace-mode=opentelemetry", f"--otlp-endpoint={collector.url}", "--otel-max-queue-size=20000")
    servers: dict[str, RunningServer] = {}
    try:
        for name in dict.fromkeys(case.server for case in CASES):
            flags = (*on, *SERVERS[name]) if SERVERS[name] else ()
            servers[name] = start([folder / "models"], "--log-info=false", *flags)
        yield servers
    finally:
        for server in servers.values():
            server.stop()


def report(figures: dict[Case, list[float]]) -> str:
    """A line per case: microseconds, and how they compare with the first case of the same protocol, round by round."""
    lines = []
    for case, taken in figures.items():
        base = next(each for each in figures if each.load.split()[0] == case.load.split()[0])
        ratios = [us / plain for us, plain in zip(taken, figures[base], strict=True)]
        over = "" if case is base else f"  x {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        lines.append(f"{case.name}: {statistics.median(taken):.1f} us of CPU per request{over}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. Returns: 0, or 1 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trace_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each case (9)")
    parser.add_argument("--requests", type=int, default=60_000, help="of one measurement (60000)")
    given = parser.parse_args(arguments)
    lacking = missing(wrk.PROGRAM, wrk.PACKAGE) or missing(h2load.PROGRAM, h2load.PACKAGE)
    if lacking:
        print(f"bench: {lacking.partition(';')[0]}", file=sys.stderr)
        return 1
    collector = Collector(keeps=False)
    try:
        with tempfile.TemporaryDirectory() as made, _running(Path(made), collector) as servers:
            bench = Bench(Path(made) / "requests", servers, given.requests)
            for case in CASES:
                bench.us(case, _WARM)
            figures: dict[Case, list[float]] = {case: [] for case in CASES}
            for number in range(given.rounds):
                # Every other round the other way round: whoever comes first must not always be the same.
                for case in CASES[:: 1 if number % 2 else -1]:
                    figures[case].append(bench.us(case))
            print(report(figures))
    except GeneratorFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        collector.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
