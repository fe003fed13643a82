"""Handle on the process that runs raw ONNX Runtime (`raw_process.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from tests.bench.arithmetic import RawPoint


class RawRuntime:
    """One model in raw ONNX Runtime. A context manager: the process ends with it.

    Args: data: an .npz with the rows, "in/<name>"; `reference` adds what they compute to.
    """

    def __init__(self, model: Path, threads: int, data: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.raw_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tell({"model": str(model), "threads": threads, "data": str(data)})

    def __enter__(self) -> RawRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def reference(self) -> None:
        """Compute the expected answers.

        Raises: ValueError when two rows' answers are so alike that a mix-up would pass for rounding.
        """
        closest = self._ask({"do": "reference"})["closest"]
        if closest < 1e-2:
            raise ValueError(f"the answers of two rows differ by {closest:g} of their size only: choose other inputs")

    def measure(self, batch: int, *, spinning: bool, seconds: float, runs: int = 3) -> RawPoint:
        """Throughput at one batch size, over at least `seconds` and `runs`."""
        command = {"do": "measure", "batch": batch, "spinning": spinning, "seconds": seconds, "runs": runs}
        return cast(RawPoint, self._ask(command))

    def _tell(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        self._tell(command)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"raw ONNX Runtime ended with status {self._process.wait(60)}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer
