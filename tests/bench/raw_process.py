"""Raw ONNX Runtime in a process of its own: one command per line in, one answer per line out (both JSON).

It only calls `run` in a loop on a batch that is already there: what no server can beat. Sessions have ONNX Runtime's
own defaults but for the number of threads, and are tried with and without spinning threads.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import onnxruntime
from tests.bench.arithmetic import per_request_us


class Raw:
    """The sessions of one model and rows to run it on."""

    def __init__(self, model: str, threads: int, data: str) -> None:
        self._model = model
        self._threads = threads
        self._data = data
        with np.load(data) as stored:
            self._rows = {key.removeprefix("in/"): stored[key] for key in stored.files}
        self._sessions: dict[bool, onnxruntime.InferenceSession] = {}

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        if command["do"] == "reference":
            return self._reference()
        return self._measure(command["batch"], command["spinning"], command["seconds"], command["runs"])

    def _session(self, spinning: bool) -> onnxruntime.InferenceSession:
        if spinning not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
            self._sessions[spinning] = onnxruntime.InferenceSession(
                self._model, options, providers=["CPUExecutionProvider"]
            )
        return self._sessions[spinning]

    def _reference(self) -> dict[str, Any]:
        """Compute every row by itself and write inputs and outputs to the file of the data."""
        session = self._session(False)
        names = [output.name for output in session.get_outputs()]
        count = len(next(iter(self._rows.values())))
        answers = [session.run(names, self._batch(slice(row, row + 1))) for row in range(count)]
        columns = zip(*answers, strict=True)
        outputs = {f"out/{name}": np.concatenate(parts) for name, parts in zip(names, columns, strict=True)}
        stored: dict[str, Any] = {f"in/{name}": rows for name, rows in self._rows.items()}
        np.savez(self._data, **stored, **outputs)
        return {"rows": count, "closest": min(_closest(array) for array in outputs.values())}

    def _measure(self, batch: int, spinning: bool, seconds: float, runs: int) -> dict[str, Any]:
        session = self._session(spinning)
        names = [output.name for output in session.get_outputs()]
        count = len(next(iter(self._rows.values())))
        feed = self._batch(np.arange(batch) % count)
        # The bound method under the wrapper's checks would be 1 us faster; whoever calls the runtime calls this.
        session.run(names, feed)
        done = 0
        cpu_s = -time.process_time()
        begun_s = time.perf_counter()
        until_s = begun_s + seconds
        while done < runs or time.perf_counter() < until_s:
            session.run(names, feed)
            done += 1
        wall_s = time.perf_counter() - begun_s
        cpu_s += time.process_time()
        return {
            "batch": batch,
            "spinning": spinning,
            "items_s": done * batch / wall_s,
            "run_ms": wall_s / done * 1e3,
            "cpu_us": per_request_us(cpu_s, done * batch),
        }

    def _batch(self, rows: Any) -> dict[str, np.ndarray]:
        return {name: np.ascontiguousarray(array[rows]) for name, array in self._rows.items()}


def _closest(outputs: np.ndarray) -> float:
    """How far the two most alike rows are from each other, relative to the largest value.

    Two rows are as far apart as their elements that differ most.
    """
    flat = outputs.reshape(len(outputs), -1).astype(np.float64)
    differences = [float(np.abs(flat[:row] - flat[row]).max(axis=1).min()) for row in range(1, len(flat))]
    return min(differences, default=float("inf")) / float(np.abs(flat).max())


def main() -> None:
    """Serve commands until standard input ends. The first line says what to load."""
    opened = json.loads(sys.stdin.readline())
    raw = Raw(opened["model"], opened["threads"], opened["data"])
    for line in sys.stdin:
        print(json.dumps(raw.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
