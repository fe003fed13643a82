"""The conformance check that every backend must pass (`backends/api.py` is the contract it asserts).

Takes real model files: a backend is only as good as what it does with them. Raises at the first thing that is wrong.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NoReturn

import numpy as np

from tensorquay.backends.api import Backend, GraphSignature, LoadRequest, Session
from tensorquay.config.model import ExecutionConfig, InstanceKind
from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument, ModelFailed
from tensorquay.core.signature import TensorSpec

_THREADS = 4
_AXIS = 2
"""Size given to variable axes of made-up inputs."""


class BackendNonconformity(AssertionError):
    """A backend does not keep the contract; the text says which part of it, and with which model."""


def check_backend(
    make_backend: Callable[[], Backend],
    models: Iterable[Path],
    *,
    inputs: Mapping[str, Mapping[str, Array]] | None = None,
) -> int:
    """Assert the contract of `backends.api` with real models.

    Args:
        make_backend: returns a new backend.
        models: paths as a version's folder would hold them. They must be deterministic.
        inputs: per model path (as text), inputs to use; zeros and empty strings of a fitting shape otherwise.
    Returns: how many models were checked.
    Raises: BackendNonconformity.
    """
    backend = make_backend()
    if not (isinstance(backend.name, str) and backend.name):
        raise BackendNonconformity("name must be a text that is not empty")
    if not (isinstance(backend.gpus, tuple) and all(type(gpu) is int and gpu >= 0 for gpu in backend.gpus)):
        raise BackendNonconformity("gpus must be a tuple of device numbers")
    because = backend.no_gpu_because
    if not isinstance(because, str) or bool(because) == bool(backend.gpus):
        raise BackendNonconformity("no_gpu_because must be a text when there are no gpus, and empty when there are")
    _refuses_bad_files(backend)
    checked = 0
    for path in models:
        given = (inputs or {}).get(str(path))
        _Checker(backend, path).check(given)
        checked += 1
    return checked


def sample_inputs(graph: GraphSignature) -> dict[str, Array]:
    """Zeros (False, empty strings) for every required input; variable axes get size 2."""
    return {spec.name: _zeros(spec) for spec in graph.inputs if not spec.optional}


def _zeros(spec: TensorSpec) -> Array:
    shape = tuple(_AXIS if size < 0 else size for size in spec.shape)
    return np.full(shape, b"", np.object_) if spec.datatype is DataType.BYTES else np.zeros(shape, spec.datatype.numpy)


class _Checker:
    """One backend and one model."""

    def __init__(self, backend: Backend, path: Path) -> None:
        self._backend = backend
        self._path = path

    def check(self, given: Mapping[str, Array] | None) -> None:
        graph = self._backend.inspect(self._path)
        self._is_signature(graph)
        if self._backend.inspect(self._path) != graph:
            self._wrong("inspect must say the same twice")
        session = self._load()
        try:
            if session.graph != graph:
                self._wrong("a session's graph must be what inspect said")
            self._is_placed(session)
            self._runs(session, dict(given) if given is not None else sample_inputs(graph))
        finally:
            session.close()
        self._load().close()  # a model can be loaded again after it was closed

    def _load(self) -> Session:
        return self._backend.load(LoadRequest(self._path, ExecutionConfig(), InstanceKind.CPU, 0, thread_budget=1))

    def _is_signature(self, graph: GraphSignature) -> None:
        for role, specs in (("input", graph.inputs), ("output", graph.outputs)):
            if len({spec.name for spec in specs}) != len(specs):
                self._wrong(f"{role} names must differ")
            for spec in specs:
                if not spec.name or any(size < -1 for size in spec.shape):
                    self._wrong(f"{role} '{spec.name}' has shape {spec.shape}: sizes are -1 or more")
                if spec.axis_names and len(spec.axis_names) != len(spec.shape):
                    self._wrong(f"{role} '{spec.name}' needs one axis name per axis, or none")
        if not graph.outputs:
            self._wrong("a model has at least one output")

    def _is_placed(self, session: Session) -> None:
        placement = session.placement
        if not placement.providers or placement.intra_op_threads < 1 or placement.inter_op_threads < 1:
            self._wrong(f"placement must name providers and threads, got {placement}")

    def _runs(self, session: Session, feed: dict[str, Array]) -> None:
        names = [spec.name for spec in session.graph.outputs]
        before = {name: array.copy() for name, array in feed.items()}
        first = session.run(feed, names)
        self._fits(session.graph, first)
        for array in first:
            if any(array.size and np.shares_memory(array, other) for other in feed.values()):
                self._wrong("outputs must be new arrays, one shares memory with an input")
        self._same(first, session.run(feed, names), "the same inputs twice")
        self._same(first[::-1], session.run(feed, names[::-1]), "outputs asked for in another order")
        self._same(first[-1:], session.run(feed, names[-1:]), "one output alone")
        self._same(first, session.run({n: _read_only(a) for n, a in feed.items()}, names), "read-only inputs")
        self._same(
            first, session.run({n: _strided(a) for n, a in feed.items()}, names), "inputs that are not contiguous"
        )
        self._refuses_bad_inputs(session, feed, names)
        self._same(first, session.run(feed, names), "a run after refused ones")
        self._concurrent(session, feed, names, first)
        for name, array in feed.items():
            if not _equal(array, before[name]):
                self._wrong(f"input '{name}' was written to")

    def _refuses_bad_inputs(self, session: Session, feed: dict[str, Array], names: list[str]) -> None:
        some = next(iter(feed.values()), np.zeros(1, np.float32))
        self._refuses(session, {**feed, "no such input": some}, names, "an input it does not have")
        for name, array in feed.items():
            other = np.float64 if array.dtype != np.float64 else np.float32
            wrong = {**feed, name: np.zeros(array.shape, other)}
            self._refuses(session, wrong, names, f"input '{name}' of another data type")
        required = [spec.name for spec in session.graph.inputs if not spec.optional and spec.name in feed]
        if required:
            rest = {name: array for name, array in feed.items() if name != required[0]}
            self._refuses(session, rest, names, f"no input '{required[0]}'")

    def _refuses(self, session: Session, feed: Mapping[str, Array], names: list[str], what: str) -> None:
        try:
            session.run(feed, names)
        except InvalidArgument as exc:
            self._no_paths(str(exc))
            return
        except Exception as exc:
            raise BackendNonconformity(
                f"{self._path.name}: {what} must raise InvalidArgument, got {type(exc).__name__}: {exc}"
            ) from exc
        self._wrong(f"{what} must raise InvalidArgument, but the run succeeded")

    def _concurrent(self, session: Session, feed: dict[str, Array], names: list[str], expected: list[Array]) -> None:
        results: list[list[Array] | Exception] = []
        start = threading.Barrier(_THREADS)

        def work() -> None:
            try:
                start.wait(30)
                results.append(session.run(feed, names))
            except Exception as exc:  # noqa: BLE001 - carried to the thread that judges it
                results.append(exc)

        threads = [threading.Thread(target=work) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, Exception):
                raise BackendNonconformity(f"{self._path.name}: concurrent runs must work, got {result}") from result
            self._same(expected, result, "concurrent runs")

    def _fits(self, graph: GraphSignature, arrays: list[Array]) -> None:
        if len(arrays) != len(graph.outputs):
            self._wrong(f"{len(graph.outputs)} outputs were asked for, {len(arrays)} came")
        for spec, array in zip(graph.outputs, arrays, strict=True):
            if array.dtype != spec.datatype.numpy:
                self._wrong(f"output '{spec.name}' must be {spec.datatype.numpy}, is {array.dtype}")
            if spec.datatype is DataType.BYTES and not all(isinstance(item, bytes) for item in array.ravel().tolist()):
                self._wrong(f"output '{spec.name}' must hold bytes objects")

    def _same(self, expected: list[Array], got: list[Array], what: str) -> None:
        if len(expected) != len(got) or not all(_equal(a, b) for a, b in zip(expected, got, strict=False)):
            self._wrong(f"{what}: outputs differ")

    def _no_paths(self, text: str) -> None:
        if str(self._path.parent.absolute()) in text:
            self._wrong(f"an error's text holds a path of this machine: {text}")

    def _wrong(self, what: str) -> NoReturn:
        raise BackendNonconformity(f"{self._path.name}: {what}")


def _refuses_bad_files(backend: Backend) -> None:
    with tempfile.TemporaryDirectory() as folder:
        missing, garbage, empty = (Path(folder, name) for name in ("missing.model", "garbage.model", "empty.model"))
        garbage.write_bytes(b"\xff\x00this is not a model" * 20)
        empty.touch()
        for path in (missing, garbage, empty):
            try:
                backend.inspect(path)
            except ModelFailed as exc:
                if folder in str(exc):
                    raise BackendNonconformity(f"the error for {path.name} holds a path of this machine") from exc
            except Exception as exc:
                raise BackendNonconformity(f"inspect({path.name}) must raise ModelFailed, got {exc!r}") from exc
            else:
                raise BackendNonconformity(f"inspect({path.name}) must raise ModelFailed, but returned")


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _strided(array: Array) -> Array:
    """The same values with a gap after each element of the last axis."""
    if array.ndim == 0:
        return array
    wide = np.zeros((*array.shape[:-1], array.shape[-1] * 2), array.dtype)
    view = wide[..., ::2]
    view[...] = array
    return view


def _equal(left: Array, right: Array) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == np.object_:
        return bool(left.ravel().tolist() == right.ravel().tolist())
    return left.tobytes() == right.tobytes()  # bits, so that NaN equals itself
