"""Sample requests and record when each stage of them happened (V2 trace extension).

Owns the live settings, the sampling counters and the traces that wait for their file. Called on the event loop; when
tracing is off `TraceRecorder.enabled` is all that is asked. Files are written by `trace_files.TraceWriter`. In trace
mode opentelemetry this object only shows the settings: spans are `otel.py`'s, and nothing is sampled here.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping

from tensorquay.config.server import ServerConfig, TraceMode
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import Overloaded, Unavailable
from tensorquay.core.tensors import Tensor
from tensorquay.telemetry.trace_files import TraceWriter
from tensorquay.telemetry.trace_settings import OFF, Shown, TraceChanges, TraceValues, parse

MAX_MODELS = 4096
"""Most models with settings of their own."""

MAX_WAITING = 1024
"""Traces kept for one file before they are written even if it is not complete."""

MAX_EVENTS = 256
"""Events and tensors of one trace; a request has about a dozen."""

MAX_ELEMENTS = 65_536
"""Elements of one traced tensor; of a bigger one only name, shape and type are kept."""


class Trace:
    """One sampled request. Loop-confined until `finish`.

    `model_version` and `request_id` may be set whenever they become known.
    """

    __slots__ = ("_events", "_setting", "model", "model_version", "request_id", "tensors", "timestamps", "trace_id")

    def __init__(self, setting: _Sampling, trace_id: int, model: str, version: int, request_id: str) -> None:
        self._setting: _Sampling | None = setting
        self._events: list[tuple[str, int] | tuple[str, Tensor]] = []
        self.trace_id = trace_id
        self.model = model
        self.model_version = version
        self.request_id = request_id
        self.timestamps = "TIMESTAMPS" in setting.values.level
        self.tensors = "TENSORS" in setting.values.level

    def event(self, name: str, ns: int) -> None:
        """Stage `name` ("QUEUE_START") happened at `ns` on the server's monotonic clock."""
        if self.timestamps and len(self._events) < MAX_EVENTS:
            self._events.append((name, ns))

    def tensor(self, activity: str, tensor: Tensor) -> None:
        """`tensor` at `activity` ("TENSOR_QUEUE_INPUT"); kept only at level TENSORS. Nobody may write into it."""
        if self.tensors and len(self._events) < MAX_EVENTS:
            self._events.append((activity, tensor))

    def finish(self) -> None:
        """Hand the trace over to be written; a second call does nothing."""
        setting, self._setting = self._setting, None
        if setting is not None:
            setting.finished(self._records())

    def _records(self) -> list[dict[str, object]]:
        header: dict[str, object] = {
            "id": self.trace_id,
            "model_name": self.model,
            "model_version": self.model_version,
        }
        if self.request_id:
            header["request_id"] = self.request_id
        records = [header]
        for name, what in self._events:
            if isinstance(what, Tensor):
                records.append({"id": self.trace_id, "activity": name, "tensor": _described(what)})
            else:
                records.append({"id": self.trace_id, "timestamps": [{"name": name, "ns": what}]})
        return records

    def __del__(self) -> None:
        # A request that was refused after it was sampled: its place in the count is free again.
        setting = self._setting
        if setting is not None:
            setting.abandoned()


class _Sampling:
    """One set of settings in force, with its counters and the traces that wait for their file."""

    def __init__(self, values: TraceValues, said: Mapping[str, tuple[str, ...] | int], writer: TraceWriter) -> None:
        self.values = values
        self.said = said
        self.remaining = values.count
        self.enabled = values.level != OFF and values.rate > 0 and bool(values.file) and values.mode == "triton"
        self._writer = writer
        self._lock = threading.RLock()  # a collection inside may end another trace, whose __del__ comes back here
        self._seen = 0
        self._running = 0
        self._waiting: list[list[dict[str, object]]] = []

    def take(self) -> bool:
        """Whether the request that comes now is traced."""
        if self.remaining == 0:
            return False
        self._seen += 1
        if self._seen % self.values.rate:
            return False
        if self.remaining > 0:
            self.remaining -= 1
        self._running += 1
        return True

    def finished(self, records: list[dict[str, object]]) -> None:
        with self._lock:
            self._running -= 1
            self._waiting.append(records)
            self._write_if_due()

    def abandoned(self) -> None:
        with self._lock:
            self._running -= 1
            if self.values.count >= 0:
                self.remaining += 1

    def _write_if_due(self) -> None:
        frequency, waiting = self.values.log_frequency, len(self._waiting)
        counted_out = self.remaining == 0 and self._running == 0
        if counted_out or (frequency and waiting >= frequency):
            self._write(numbered=True)
        elif waiting >= MAX_WAITING:
            self._write(numbered=bool(frequency))
        elif not frequency and self.values.count < 0:
            self._write(numbered=False)

    def flush(self) -> None:
        """Write what waits: these settings are replaced, or the server stops."""
        with self._lock:
            self._write(numbered=bool(self.values.log_frequency))

    def _write(self, *, numbered: bool) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._writer.write(self.values.file, waiting, numbered=numbered)


class TraceRecorder:
    """The settings in force for the server and for models that differ, and what they sample.

    Args: config: its trace_* fields, to which clearing a server-wide setting returns.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._start = TraceValues(
            level=config.trace_level,
            rate=config.trace_rate,
            count=config.trace_count,
            log_frequency=config.trace_log_frequency,
            file="" if config.trace_file is None else str(config.trace_file),
            mode=config.trace_mode.value,
        )
        self._writer = TraceWriter()
        self._server = _Sampling(self._start, {}, self._writer)
        self._models: dict[str, _Sampling] = {}
        self._ids = itertools.count(1)
        self.enabled = self._server.enabled
        """Whether any request may be traced."""

    def sample(self, model: str, version: int = -1, request_id: str = "") -> Trace | None:
        """A trace for the request that comes now, or None for most."""
        if not self.enabled:
            return None
        setting = self._models.get(model, self._server)
        if not setting.enabled or not setting.take():
            return None
        return Trace(setting, next(self._ids), model, version, request_id)

    def settings(self, model: str | None = None) -> Shown:
        """The settings in force for the server, or for `model` (which the caller knows to exist)."""
        setting = self._models.get(model, self._server) if model else self._server
        return setting.values.shown(setting.remaining)

    def update(self, changes: Mapping[str, object], model: str | None = None) -> Shown:
        """Change settings of the server or of `model` and answer as `settings`.

        Args: changes: setting → text, list of texts, or None (or an empty list) to clear it.
        Raises: Unimplemented for trace_file; InvalidArgument for an unknown setting, a wrong value, or a set that
        cannot be obeyed; Overloaded when too many models have their own; Unavailable in trace mode opentelemetry, as in
        Triton. Nothing is changed then.
        """
        if self._start.mode != TraceMode.TRITON.value:
            raise Unavailable("trace settings cannot be changed while the trace mode is opentelemetry")
        parsed = parse(changes)
        if model:
            self._update_model(model, parsed)
        else:
            self._update_server(parsed)
        self.enabled = self._server.enabled or any(setting.enabled for setting in self._models.values())
        return self.settings(model)

    def forget(self, model: str) -> None:
        """Drop the settings of a model that is gone for good."""
        setting = self._models.pop(model, None)
        if setting is not None:
            setting.flush()

    def close(self) -> None:
        """Write what waits."""
        for setting in (self._server, *self._models.values()):
            setting.flush()
        self._writer.close()

    def _update_server(self, changes: TraceChanges) -> None:
        values, said = changes.over(self._start, self._said_now(self._server))
        server = _Sampling(values.checked(), said, self._writer)
        # Models follow the server in what they did not say themselves; all must stay possible before any is replaced.
        models = {name: self._followed(setting, values) for name, setting in self._models.items()}
        self._server.flush()
        for setting in self._models.values():
            setting.flush()
        self._server, self._models = server, models

    def _followed(self, setting: _Sampling, server: TraceValues) -> _Sampling:
        values, said = TraceChanges().over(server, self._said_now(setting))
        return _Sampling(values.checked(), said, self._writer)

    def _update_model(self, model: str, changes: TraceChanges) -> None:
        current = self._models.get(model)
        if current is None and len(self._models) >= MAX_MODELS:
            raise Overloaded(f"{MAX_MODELS} models have trace settings of their own, the most this server keeps")
        server = TraceChanges({"count": self._server.remaining}).over(self._server.values, {})[0]
        values, said = changes.over(server, {} if current is None else self._said_now(current))
        if said:
            made = _Sampling(values.checked(), said, self._writer)
            self._models[model] = made
        else:
            self._models.pop(model, None)
        if current is not None:
            current.flush()

    @staticmethod
    def _said_now(setting: _Sampling) -> dict[str, tuple[str, ...] | int]:
        """What was said of `setting`, its count as far as it is counted down."""
        said = dict(setting.said)
        if "count" in said:
            said["count"] = setting.remaining
        return said


def _described(tensor: Tensor) -> dict[str, object]:
    """A tensor in Triton's trace format: data and shape as comma-separated text."""
    data = ""
    if tensor.array.size <= MAX_ELEMENTS and tensor.datatype is not DataType.BF16:
        if tensor.datatype is DataType.BYTES:
            data = ",".join(f'"{bytes(item).decode("utf-8", "backslashreplace")}"' for item in tensor.array.flat)
        else:
            data = ",".join(str(item) for item in tensor.array.reshape(-1).tolist())
    return {
        "name": tensor.name,
        "data": data,
        "shape": ",".join(map(str, tensor.shape)),
        "dtype": tensor.datatype.wire,
    }
