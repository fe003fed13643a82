"""The shipped test kit: it must do what it says, and its conformance check must be able to fail."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from tensorquay.backends.api import GraphSignature, LoadRequest
from tensorquay.config.model import ExecutionConfig, InstanceKind
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument, InvariantViolation, ModelFailed
from tensorquay.core.signature import TensorSpec
from tensorquay.testing import BackendNonconformity, FakeBackend, FakeSession, ManualClock, check_backend
from tensorquay.testing.fake_backend import fail_on

X = np.array([[1, 2], [3, 4]], np.float32)


@pytest.fixture
def path(tmp_path) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"anything")
    return file


def load(backend, path, threads=1):
    return backend.load(LoadRequest(path, ExecutionConfig(), InstanceKind.CPU, 0, threads))


class Strict(FakeBackend):
    """A fake that also refuses what is no model file, so that it conforms."""

    def inspect(self, model_path):
        if model_path.exists() and model_path.read_bytes() != b"anything":
            raise ModelFailed(f"'{model_path.name}' is no model")
        return super().inspect(model_path)


def test_the_fake_doubles_records_and_counts(path):
    backend = FakeBackend()
    session = load(backend, path)
    assert session.run({"x": X}, ["y"])[0].tolist() == [[2, 4], [6, 8]]
    assert backend.rows() == backend.rows("x") == [2]
    assert (backend.live_sessions, len(backend.loads)) == (1, 1)
    other = load(backend, path)
    session.close()
    other.close()
    assert (backend.live_sessions, backend.most_live) == (0, 2)


def test_recorded_batches_are_copies(path):
    backend = FakeBackend()
    array = X.copy()
    load(backend, path).run({"x": array}, ["y"])
    array[:] = 0
    assert backend.batches[0]["x"].tolist() == X.tolist()


def test_a_run_waits_at_its_gate(path):
    backend = FakeBackend()
    backend.run_gate = threading.Event()
    session = load(backend, path)
    results = []
    thread = threading.Thread(target=lambda: results.append(session.run({"x": X}, ["y"])))
    thread.start()
    assert backend.run_started.wait(10)
    assert results == []
    with pytest.raises(InvariantViolation, match="closed during 1 runs"):
        session.close()
    backend.run_gate.set()
    thread.join()
    assert len(results) == 1


def test_a_load_waits_at_its_gate_and_a_shut_gate_fails_the_test(path):
    backend = FakeBackend()
    backend.load_gate = threading.Event()
    backend.gate_timeout_s = 0
    with pytest.raises(AssertionError, match="stayed shut"):
        load(backend, path)
    assert backend.load_started.is_set()
    assert backend.live_sessions == 0


def test_failing_on_command(path):
    backend = FakeBackend()
    backend.fail_run = fail_on("x", 3)
    session = load(backend, path)
    with pytest.raises(ModelFailed, match="told to fail"):
        session.run({"x": X}, ["y"])
    assert session.run({"x": X[:1]}, ["y"])[0].tolist() == [[2, 4]]
    backend.fail_load = lambda request: ModelFailed("no") if request.thread_budget == 7 else None
    with pytest.raises(ModelFailed, match="no"):
        load(backend, path, threads=7)
    backend.fail_inspect = lambda _: ModelFailed("unreadable")
    with pytest.raises(ModelFailed, match="unreadable"):
        backend.inspect(path)


def test_the_fake_refuses_what_a_real_one_refuses(path):
    session = load(FakeBackend(), path)
    for feed, outputs in (({}, ["y"]), ({"z": X}, ["y"]), ({"x": X.astype("f8")}, ["y"]), ({"x": X}, ["q"])):
        with pytest.raises(InvalidArgument):
            session.run(feed, outputs)
    session.close()
    with pytest.raises(InvariantViolation):
        session.run({"x": X}, ["y"])
    with pytest.raises(InvariantViolation):
        session.close()


def test_a_schema_of_ones_own(path):
    graph = GraphSignature(
        (TensorSpec("a", DataType.INT64, (-1,)), TensorSpec("b", DataType.INT64, (-1,), optional=True)),
        (TensorSpec("s", DataType.INT64, ()),),
    )
    backend = Strict(graph, lambda inputs: {"s": np.asarray(sum(array.sum() for array in inputs.values()))})
    assert check_backend(lambda: backend, [path]) == 1
    assert load(backend, path).run({"a": np.array([1, 2])}, ["s"])[0] == 3


def test_the_conforming_fake_conforms(path):
    assert check_backend(Strict, [path]) == 1


def _backend(compute=None, **methods):
    session = type("Session", (FakeSession,), {k: v for k, v in methods.items() if k != "inspect"})
    inspect = {"inspect": methods["inspect"]} if "inspect" in methods else {}

    def make_session(self, request):
        return session(self, self.inspect(request.model_path), request)

    return type("Broken", (Strict,), {"load": make_session, **inspect})(compute=compute)


def _shares(self, inputs, outputs):
    FakeSession.run(self, inputs, outputs)
    return [inputs["x"]]


def _writes(self, inputs, outputs):
    result = FakeSession.run(self, inputs, outputs)
    if inputs["x"].flags.writeable:
        inputs["x"][...] = 9
    return result


def _swallows(self, inputs, outputs):
    try:
        return FakeSession.run(self, inputs, outputs)
    except InvalidArgument:
        return [np.zeros((2, 2), np.float32)]


def _raises_other(self, inputs, outputs):
    try:
        return FakeSession.run(self, inputs, outputs)
    except InvalidArgument as exc:
        raise ValueError("raw") from exc


def _leaks(self, inputs, outputs):
    try:
        return FakeSession.run(self, inputs, outputs)
    except InvalidArgument as exc:
        raise InvalidArgument(f"in {self.request.model_path}: {exc}") from exc


def _unordered(self, inputs, outputs):
    return [*FakeSession.run(self, inputs, outputs), np.zeros(1)]


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (_backend(run=_shares), "shares memory"),
        (_backend(run=_writes), "outputs differ|written to"),
        (_backend(run=_swallows), "but the run succeeded"),
        (_backend(run=_raises_other), "must raise InvalidArgument, got ValueError"),
        (_backend(run=_leaks), "path of this machine"),
        (_backend(run=_unordered), "1 outputs were asked for, 2 came"),
        (_backend(lambda inputs: {"y": inputs["x"].astype("f8")}), "must be float32, is float64"),
        (_backend(inspect=lambda self, path: self.graph), "but returned"),
        (FakeBackend(name=""), "name must be"),
    ],
)
def test_the_check_finds_a_backend_that_breaks_the_contract(path, backend, words):
    with pytest.raises(BackendNonconformity, match=words):
        check_backend(lambda: backend, [path])


def test_the_check_takes_given_inputs(path):
    backend = Strict()
    check_backend(lambda: backend, [path], inputs={str(path): {"x": X}})
    assert any(batch["x"].tolist() == X.tolist() for batch in backend.batches)


def test_the_clock_moves_only_when_told_to():
    clock = ManualClock(5, start_wall_ms=100)
    assert (clock.now_ns(), clock.wall_ms()) == (5, 100)
    assert clock.advance(1, us=1, ms=1, s=1) == 5 + 1 + 1_000 + 1_000_000 + 1_000_000_000
    assert clock.wall_ms() == 100 + 1_001
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)
