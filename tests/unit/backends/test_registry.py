"""Backends by name."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tensorquay.backends import registry
from tensorquay.backends.onnxruntime import runtime
from tensorquay.backends.registry import BackendRegistry
from tensorquay.core.errors import ModelFailed
from tensorquay.testing import FakeBackend


def entry_points(monkeypatch, **factories):
    points = [SimpleNamespace(name=name, load=lambda factory=factory: factory) for name, factory in factories.items()]

    def find(*, group):
        assert group == "tensorquay.backends"
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", find)


def test_a_backend_is_made_once():
    made = []
    backends = BackendRegistry({"fake": lambda: made.append(1) or FakeBackend()})
    assert backends.get("fake") is backends.get("fake")
    assert made == [1]


def test_ours_is_the_default_and_needs_no_entry_point():
    backends = BackendRegistry()
    assert backends.get().name == "onnxruntime"
    assert backends.get("") is backends.get("onnxruntime")


def test_third_parties_come_by_entry_point(monkeypatch):
    entry_points(monkeypatch, theirs=lambda: FakeBackend(name="theirs"))
    backends = BackendRegistry()
    assert backends.names() == ("onnxruntime", "theirs")
    assert backends.get("theirs").name == "theirs"


def test_an_entry_point_cannot_take_our_name(monkeypatch):
    entry_points(monkeypatch, onnxruntime=FakeBackend)
    assert BackendRegistry().get("onnxruntime").name == "onnxruntime"
    assert not isinstance(BackendRegistry().get("onnxruntime"), FakeBackend)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelFailed, match=r"unknown backend 'pytorch', expected one of fake, onnxruntime"):
        BackendRegistry({"fake": FakeBackend}).get("pytorch")


def test_a_backend_that_cannot_be_made_says_which_and_may_be_tried_again(monkeypatch):
    def broken():
        raise OSError("/secret/lib.so")

    backends = BackendRegistry({"broken": broken})
    with pytest.raises(ModelFailed, match="backend 'broken' cannot be loaded: OSError") as caught:
        backends.get("broken")
    assert "/secret" not in str(caught.value)


def test_a_thing_that_is_no_backend_is_refused():
    with pytest.raises(ModelFailed, match="it has no gpus, inspect, load"):
        BackendRegistry({"odd": lambda: SimpleNamespace(name="odd")}).get("odd")


def test_without_onnxruntime_the_error_names_the_extras(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(runtime.importlib, "import_module", absent)
    with pytest.raises(ModelFailed, match=r"pip install 'tensorquay\[cpu\]', or 'tensorquay\[gpu\]'"):
        runtime.import_runtime()
    with pytest.raises(ModelFailed, match="'onnx' is not installed"):
        runtime.import_onnx()


def test_the_groups_name_is_what_the_documentation_says():
    assert registry.ENTRY_POINT_GROUP == "tensorquay.backends"


def test_the_runtime_reports_to_nobody_and_leaves_no_file_of_its_reports(tmp_path):
    code = "from tensorquay.backends.onnxruntime import runtime; runtime.import_runtime()"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(runtime.__file__).parents[3])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
