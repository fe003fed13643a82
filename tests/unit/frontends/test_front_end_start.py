"""What a front-end process brings along, and how it ends when nobody is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tensorquay.frontends.settings import DoorSettings, FrontEndSettings
from tensorquay.grpc_api.control import control_methods
from tensorquay.grpc_api.methods import CONTROL_PATHS

HEAVY = {"fastapi", "grpc", "onnx", "onnxruntime", "PIL", "prometheus_client", "pydantic", "starlette", "uvicorn"}
WORKER = "tensorquay.frontends.worker"


def test_a_front_end_brings_no_runtime_and_no_framework() -> None:
    code = f"import sys, json, {WORKER}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & HEAVY
    assert "tensorquay.engine" not in loaded


def test_without_settings_it_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-m", WORKER], input=b"", capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_settings_travel_whole() -> None:
    door = DoorSettings("::1", 8000, 2**31, ("/c", "/k", None), "x-.*", {"inference": ("x-key", "secret")})
    sent = FrontEndSettings(door, None, 1, 2, True, False, 3, 4, 5, 6, 7, 10, 20)
    got = FrontEndSettings.from_json(sent.to_json())
    assert got.http is not None
    assert got.http.tls_files("http") is not None
    assert got.http.tls_files("http").roots is None  # type: ignore[union-attr]
    assert [list(got.http.tls or ()), list((got.http.restricted or {})["inference"])] == [
        ["/c", "/k", None], ["x-key", "secret"],
    ]  # fmt: skip
    assert Path("/k") == got.http.tls_files("http").key  # type: ignore[union-attr]


def test_every_control_method_is_handed_over() -> None:
    assert set(CONTROL_PATHS) == set(control_methods(object()))  # type: ignore[arg-type]
