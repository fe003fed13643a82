"""What recording metrics costs: `python -m tests.bench.metrics_cost`, from the root of a clone, on a machine at rest.

One server takes turns of a tenth of a second with and without recording (`metrics_server.py`) under a closed loop of
cheap predictions, the dearest case for metrics. Neighbouring turns are compared, so that whatever else happens on the
machine happens to both: CPU time of the server per request, with recording over without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from tests.bench.cases import GRPC, HTTP_BINARY
from tests.bench.load import LoadSpec, dump
from tests.bench.pace import Window
from tests.bench.processes import ProcessTree
from tests.support import graphs
from tests.support.serving import start

_CONNECTIONS = 4


@dataclass(frozen=True)
class Case:
    """One door; `batches`: whether runs hold what comes together, or one request each."""

    door: str
    batches: bool
    in_flight: int = 64

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.door}, {self.in_flight} in flight, {'batches' if self.batches else 'one request per run'}"


CASES = (Case(HTTP_BINARY, True), Case(HTTP_BINARY, False), Case(GRPC, True), Case(GRPC, False))

Slice = tuple[bool, int, int]
"""Recorded or not, requests answered, CPU nanoseconds."""


class NoResult(Exception):
    """Something did not add up; there is no figure to print."""


def ratios(slices: Sequence[Slice], least: int) -> list[float]:
    """CPU per request with recording over without, for neighbouring turns that answered `least` requests or more."""
    found = []
    for before, after in pairwise(slices):
        if min(before[1], after[1]) >= least:
            on, off = (before, after) if before[0] else (after, before)
            found.append((on[2] / on[1]) / (off[2] / off[1]))
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile.

    Raises: NoResult for less than four values.
    """
    if len(values) < 4:
        raise NoResult(f"{len(values)} pairs of turns can be compared, at least 4 are needed: measure longer")
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def measure(case: Case, seconds: float, least: int) -> str:
    """A line with the result.

    Raises: NoResult.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        graphs.write(graphs.add_sub(), folder / "models" / "simple" / "1" / "model.onnx")
        (folder / "models" / "simple" / "config.toml").write_text(
            f"[batching]\nenabled = {str(case.batches).lower()}\n"
        )
        data = _rows(folder / "rows.npz")
        slices = folder / "slices.json"
        server = start(
            [folder / "models"],
            "--log-info=false",
            env={"BENCH_SLICES": str(slices)},
            module="tests.bench.metrics_server",
        )
        try:
            spec = LoadSpec(
                door=case.door,
                address=server.grpc if case.door == GRPC else server.http,
                model="simple",
                data=str(data),
                in_flight=case.in_flight,
                connections=_CONNECTIONS,
                exact=True,
                window=Window(min(1.0, seconds), seconds, case.in_flight),
                pid=ProcessTree.of(server.pid).processes[0].pid,
                limit_s=60 + 10 * seconds,
            )
            load = [sys.executable, "-m", "tests.bench.load"]
            done = subprocess.run(load, input=dump(spec), capture_output=True, text=True, check=False)
        finally:
            code = server.stop()
        if code or not done.stdout or "error" in json.loads(done.stdout):
            raise NoResult(f"{case.told}: {done.stdout or done.stderr[-2000:]}{server.told()[-2000:]}")
        taken: list[Slice] = [(bool(on), count, cpu) for on, count, cpu in json.loads(slices.read_text())]
        # The first and the last turns are not all load.
        busy = [each for each in taken if each[1] >= least]
        low, middle, high = quartiles(ratios(taken, least))
        pairs = len(ratios(taken, least))
        without = statistics.median(cpu / count for on, count, cpu in busy if not on) / 1000
        return (
            f"{case.told}: {middle:.3f} ({low:.3f} to {high:.3f}, the middle half of {pairs} pairs), "
            f"{without:.1f} us of CPU per request without"
        )


def _rows(path: Path) -> Path:
    first = np.arange(16, dtype=np.int32)[None].repeat(4, axis=0)
    second = np.arange(4, dtype=np.int32)[:, None] + first
    outputs = {"out/OUTPUT0": first + second, "out/OUTPUT1": first - second}
    np.savez(path, **{"in/INPUT0": first, "in/INPUT1": second}, **outputs)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Measure every case and print a line each. Returns: 0, or 1 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.metrics_cost", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of one measurement (20)")
    parser.add_argument("--least", type=int, default=50, help="requests a turn must have answered to count (50)")
    given = parser.parse_args(arguments)
    for case in CASES:
        try:
            print(measure(case, given.seconds, given.least), flush=True)
        except NoResult as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
