"""Trace files: JSON arrays of trace records, written by a thread of their own.

Owns the files. A file is a complete JSON array after every write, so it can be read while the server runs. What comes
faster than it can be written is dropped and counted; a file that cannot be written is told once. The record format is
Triton's, which its own summary script reads.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_log = logging.getLogger("tensorquay.tracing")

QUEUE_JOBS = 4096
_CLOSE_TIMEOUT_S = 5.0


class TraceWriter:
    """Appends groups of records to files, in order, off the thread that asks."""

    def __init__(self, queue_jobs: int = QUEUE_JOBS) -> None:
        self._jobs: queue.Queue[tuple[str, bool, Sequence[Sequence[dict[str, object]]]] | None] = queue.Queue(
            queue_jobs
        )
        self._thread: threading.Thread | None = None
        self._open: dict[str, IO[bytes]] = {}
        self._numbers: dict[str, int] = {}
        self._failed: set[str] = set()
        self.dropped = 0
        """Traces lost because the writer was behind."""

    def write(self, file: str, traces: Sequence[Sequence[dict[str, object]]], *, numbered: bool) -> None:
        """Append `traces` (each a list of records) to `file`, or make the next numbered file of them."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
            self._thread.start()
        try:
            self._jobs.put_nowait((file, numbered, traces))
        except queue.Full:
            if self.dropped == 0:
                _log.warning("traces are being dropped: they come faster than they can be written")
            self.dropped += len(traces)

    def close(self) -> None:
        """Write what waits, within a few seconds."""
        if self._thread is None:
            return
        try:
            self._jobs.put(None, timeout=_CLOSE_TIMEOUT_S)
        except queue.Full:
            _log.warning("traces were lost: their file could not be written in time")
        else:
            self._thread.join(_CLOSE_TIMEOUT_S)
        self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            file, numbered, traces = job
            try:
                self._save(file, numbered, traces)
            except OSError as exc:
                if file not in self._failed:
                    self._failed.add(file)
                    _log.error("cannot write the trace file %s: %s; traces are being lost", file, exc.strerror or exc)
        self._close_files()

    def _close_files(self) -> None:
        for stream in self._open.values():
            stream.close()
        self._open.clear()

    def _save(self, file: str, numbered: bool, traces: Sequence[Sequence[dict[str, object]]]) -> None:
        text = ",".join(
            json.dumps(record, separators=(",", ":"), allow_nan=True, default=str)
            for records in traces
            for record in records
        ).encode("utf-8", "backslashreplace")
        if numbered:
            number = self._numbers.get(file, 0)
            Path(f"{file}.{number}").write_bytes(b"[" + text + b"]")
            self._numbers[file] = number + 1
            return
        stream = self._open.get(file)
        if stream is None:
            made = Path(file).open("wb", buffering=0)  # noqa: SIM115 - open until `_run` ends
            made.write(b"[]")
            stream = self._open[file] = made
        # Over the closing bracket, which is written anew behind the new records.
        end = stream.seek(-1, 2)
        try:
            _write_all(stream, (b"," if end > 1 else b"") + text + b"]")
        except OSError:
            stream.truncate(end)
            stream.seek(end)
            stream.write(b"]")
            raise


def _write_all(stream: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]
