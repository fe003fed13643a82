"""What an import costs: `--help`, completion and a client must not wait for a runtime they do not use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "asyncio", "fastapi", "google.protobuf", "grpc", "httptools", "httpx", "numpy", "onnx", "onnxruntime", "orjson",
    "PIL", "prometheus_client", "pydantic", "rich", "starlette", "tritonclient", "uvicorn", "uvloop",
}  # fmt: skip


def _imported_by(module: str) -> set[str]:
    """The modules that `import module` loads in a fresh interpreter."""
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(ended.stdout))


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("tensorquay", set()),
        ("tensorquay.cli", set()),
        ("tensorquay.__main__", set()),
        ("tensorquay.commands.serve", {"pydantic", "rich"}),
        ("tensorquay.config.server", {"pydantic"}),
        ("tensorquay.core.errors", set()),
    ],
)
def test_an_import_brings_nothing_heavy(module: str, allowed: set[str]) -> None:
    assert (_imported_by(module) & HEAVY) <= allowed


@pytest.mark.parametrize("front_end", ["http_api", "grpc_api", "transport", "protocol"])
def test_no_front_end_brings_the_runtime(front_end: str) -> None:
    """ONNX Runtime is found through the backend registry when a model needs it, and by nobody else."""
    assert not _imported_by(f"tensorquay.{front_end}") & {"onnx", "onnxruntime"}


def test_the_engine_knows_no_wire_and_no_runtime() -> None:
    assert not _imported_by("tensorquay.engine") & {"onnx", "onnxruntime", "fastapi", "starlette", "grpc", "uvicorn"}


def test_the_client_brings_nothing_of_the_server() -> None:
    loaded = _imported_by("tensorquay_client")
    assert not any(module.split(".")[0] == "tensorquay" for module in loaded)
    assert not loaded & {"onnx", "onnxruntime", "fastapi", "grpc", "pydantic", "uvicorn"}


def test_an_import_command_brings_no_framework_and_no_server() -> None:
    loaded = _imported_by("tensorquay_convert.cli")
    assert not any(module.split(".")[0] == "tensorquay" for module in loaded)
    assert not loaded & (HEAVY | {"torch", "tensorflow", "jax", "sklearn"})


def test_tritonclient_can_live_in_the_same_process() -> None:
    """Both speak of messages called `inference.*`; ours are in a pool of their own."""
    code = "import tritonclient.grpc, tensorquay.protocol.v2_proto, tensorquay_client.grpc_client; print('together')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "together\n", ended.stderr
