"""A backend made of numpy: as quick as nothing, and able to hang, fail and count on command.

Without arguments its models are `y = 2 * x` over FP32 [rows, 2]. Everything a test changes is an attribute; threads
may read them at any time. Gates are `threading.Event`s: None lets everything through, an unset event holds the caller
until it is set, and a gate that nobody opens within `gate_timeout_s` fails the test instead of hanging it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from tensorquay.backends.api import GraphSignature, LoadRequest, Placement, RuntimeFacts
from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument, InvariantViolation, ModelFailed, ServingError
from tensorquay.core.signature import TensorSpec

Compute: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Inputs by name to outputs by name; new arrays."""

DEFAULT_GRAPH = GraphSignature(
    inputs=(TensorSpec("x", DataType.FP32, (-1, 2), axis_names=("batch", None)),),
    outputs=(TensorSpec("y", DataType.FP32, (-1, 2), axis_names=("batch", None)),),
)


class FakeBackend:
    """See the module.

    Args:
        graph: what every model declares.
        compute: what every model does; twice the input of the same position when None.
        name: what configurations call it.

    Attributes:
        run_gate, load_gate: hold runs and loads; `run_started` and `load_started` tell that one has begun.
        fail_run: given the inputs, the error of this run, or None.
        fail_load: given the request, the error of this load, or None. `fail_inspect`: the same for a path.
        graph_of: given a path, what its model declares; `graph` when None.
        devices: the GPU numbers it claims to have. runtime: what it says that it runs on.
        batches: the inputs of every run, in order of their beginning.
        loads: every request to load, in order. live_sessions, most_live: sessions not closed, now and at most.
    """

    def __init__(
        self, graph: GraphSignature = DEFAULT_GRAPH, compute: Compute | None = None, *, name: str = "fake"
    ) -> None:
        self.graph = graph
        self.compute = compute if compute is not None else self._twice
        self._name = name
        self.devices: tuple[int, ...] = ()
        self.runtime = RuntimeFacts("1.0")
        self.run_gate: threading.Event | None = None
        self.load_gate: threading.Event | None = None
        self.run_started = threading.Event()
        self.load_started = threading.Event()
        self.gate_timeout_s = 30.0
        self.fail_run: Callable[[Mapping[str, Array]], Exception | None] = lambda _: None
        self.fail_load: Callable[[LoadRequest], Exception | None] = lambda _: None
        self.fail_inspect: Callable[[Path], Exception | None] = lambda _: None
        self.graph_of: Callable[[Path], GraphSignature] | None = None
        self.batches: list[dict[str, Array]] = []
        self.loads: list[LoadRequest] = []
        self.live_sessions = 0
        self.most_live = 0
        self._lock = threading.Lock()

    @property
    def gpus(self) -> tuple[int, ...]:
        """See `Backend.gpus`; a test may set `devices`."""
        return self.devices

    @property
    def no_gpu_because(self) -> str:
        """See `Backend.no_gpu_because`."""
        return "" if self.devices else "a fake backend has only the GPUs a test gives it"

    @property
    def name(self) -> str:
        """See `Backend.name`."""
        return self._name

    def facts(self) -> RuntimeFacts:
        """See `TellsFacts.facts`; a test may set `runtime`."""
        return self.runtime

    def inspect(self, model_path: Path) -> GraphSignature:
        """See `Backend.inspect`. The file must exist; what is in it does not matter."""
        failure = self.fail_inspect(model_path)
        if failure is not None:
            raise failure
        if not model_path.exists():
            raise ModelFailed(f"cannot read '{model_path.name}': no such file")
        return self.graph_of(model_path) if self.graph_of is not None else self.graph

    def load(self, request: LoadRequest) -> FakeSession:
        """See `Backend.load`."""
        with self._lock:
            self.loads.append(request)
        self.load_started.set()
        self.pass_gate(self.load_gate)
        failure = self.fail_load(request)
        if failure is not None:
            raise failure
        graph = self.inspect(request.model_path)
        with self._lock:
            self.live_sessions += 1
            self.most_live = max(self.most_live, self.live_sessions)
        return FakeSession(self, graph, request)

    def pass_gate(self, gate: threading.Event | None) -> None:
        """Wait at `gate`, if there is one.

        Raises: AssertionError when nobody opens it in time: the test forgot to.
        """
        if gate is not None and not gate.wait(self.gate_timeout_s):
            raise AssertionError(f"a gate of FakeBackend '{self._name}' stayed shut for {self.gate_timeout_s} s")

    def record(self, inputs: Mapping[str, Array]) -> None:
        """Remember one run's inputs. They are copied: a server may reuse its buffers afterwards."""
        with self._lock:
            self.batches.append({name: array.copy() for name, array in inputs.items()})

    def session_closed(self) -> None:
        """One session less."""
        with self._lock:
            self.live_sessions -= 1

    def rows(self, input_name: str | None = None) -> list[int]:
        """First-axis sizes of the recorded batches: of input `input_name`, or of the first one present."""
        with self._lock:
            return [
                next(iter(b.values())).shape[0] if input_name is None else b[input_name].shape[0] for b in self.batches
            ]

    def _twice(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        arrays = list(inputs.values())
        doubled = [np.asarray(array + array, dtype=array.dtype) for array in arrays]
        return {spec.name: doubled[min(i, len(doubled) - 1)] for i, spec in enumerate(self.graph.outputs)}


class FakeSession:
    """See `backends.api.Session`."""

    def __init__(self, backend: FakeBackend, graph: GraphSignature, request: LoadRequest) -> None:
        self._backend = backend
        self._graph = graph
        self.request = request
        self.closed = False
        self._running = 0
        self._lock = threading.Lock()

    @property
    def graph(self) -> GraphSignature:
        """See `Session.graph`."""
        return self._graph

    @property
    def placement(self) -> Placement:
        """See `Session.placement`."""
        return Placement(("FakeExecutionProvider",), max(1, self.request.thread_budget), 1)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `Session.run`. Raises InvariantViolation when it is called after or during `close`."""
        with self._lock:
            if self.closed:
                raise InvariantViolation("a closed FakeSession was run")
            self._running += 1
        try:
            self._check(inputs, outputs)
            self._backend.record(inputs)
            self._backend.run_started.set()
            self._backend.pass_gate(self._backend.run_gate)
            failure = self._backend.fail_run(inputs)
            if failure is not None:
                raise failure
            results = self._backend.compute(inputs)
            return [results[name] for name in outputs]
        finally:
            with self._lock:
                self._running -= 1

    def close(self) -> None:
        """See `Session.close`. Raises InvariantViolation for a second time, or while a run is going on."""
        with self._lock:
            if self.closed:
                raise InvariantViolation("a FakeSession was closed twice")
            if self._running:
                raise InvariantViolation(f"a FakeSession was closed during {self._running} runs")
            self.closed = True
        self._backend.session_closed()

    def _check(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> None:
        known = {spec.name: spec for spec in self._graph.inputs}
        for name, array in inputs.items():
            if name not in known:
                raise InvalidArgument(f"the model has no input '{name}'")
            if array.dtype != known[name].datatype.numpy:
                raise InvalidArgument(f"input '{name}': expected {known[name].datatype.wire}, got {array.dtype}")
        absent = [spec.name for spec in self._graph.inputs if spec.name not in inputs and not spec.optional]
        if absent:
            raise InvalidArgument(f"missing input {absent}")
        unknown = [name for name in outputs if name not in {spec.name for spec in self._graph.outputs}]
        if unknown:
            raise InvalidArgument(f"the model has no output {unknown}")


def fail_on(
    name: str, value: float, error: ServingError | None = None
) -> Callable[[Mapping[str, Array]], Exception | None]:
    """For `FakeBackend.fail_run`: fail every run whose input `name` holds `value` anywhere."""
    failure = error if error is not None else ModelFailed(f"told to fail on {value}")
    return lambda inputs: failure if name in inputs and bool((inputs[name] == value).any()) else None
