"""What ONNX Runtime finds on this machine, for people who look for what is missing.

Loads native libraries, which may crash: to be asked in a process that may end.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from tensorquay.backends.onnxruntime.elf import needed
from tensorquay.backends.onnxruntime.runtime import (
    CUDA,
    OPENVINO,
    TENSORRT,
    import_runtime,
    installed_wheels,
    preload,
    survey,
)

_FILES = {CUDA: "cuda", TENSORRT: "tensorrt", OPENVINO: "openvino"}


def examine() -> dict[str, object]:
    """Version, providers, GPUs, and per provider the libraries it needs: name → "" or why it cannot be loaded.

    Raises: ModelFailed when there is no runtime.
    """
    runtime = import_runtime()
    machine = survey(runtime)
    if machine.gpus:
        preload(runtime)
    folder = Path(runtime.__file__ or "").parent / "capi"
    return {
        "version": str(runtime.__version__),
        "wheels": list(installed_wheels()),
        "available": list(machine.available),
        "built_for_cuda": str(getattr(runtime, "cuda_version", "") or ""),
        "gpus": machine.gpus,
        "gpu_name": machine.gpu_name,
        "driver_cuda": _driver_cuda(),
        "libraries": {
            provider: {name: _trouble(name, folder) for name in needed(path)}
            for provider, short in _FILES.items()
            if (path := folder / f"libonnxruntime_providers_{short}.so").is_file()
        },
    }


def _trouble(name: str, folder: Path) -> str:
    beside = folder / name
    try:
        ctypes.CDLL(str(beside) if beside.is_file() else name, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)[:300]
    return ""


def _driver_cuda() -> str:
    """The newest CUDA that the driver can run, "12.4"; "" without a driver."""
    version = ctypes.c_int(0)
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
            return ""
    except (OSError, AttributeError):
        return ""
    return f"{version.value // 1000}.{version.value % 1000 // 10}"
