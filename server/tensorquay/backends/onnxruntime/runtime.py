"""The native libraries, imported when a backend is made and not before, and what this machine offers them.

Decides nothing about models. Never writes to stdout or stderr: ONNX Runtime's own logging is switched off, because
what matters arrives as an exception or as a provider that is missing, and both are told in our words.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import io
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tensorquay.config.surroundings import forbid_telemetry
from tensorquay.core.errors import ModelFailed

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"

_FATAL = 4
_MAX_GPU_NAME = 256
_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-rocm",
    "onnxruntime-migraphx",
    "onnxruntime-qnn",
    "onnxruntime-training",
)
_LIBRARIES = {CUDA: "cuda", TENSORRT: "tensorrt", OPENVINO: "openvino"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be asked for here: providers this build has, NVIDIA GPUs this process sees, installed distributions;
    and the first GPU's name."""

    available: tuple[str, ...]
    gpus: int
    wheels: tuple[str, ...]
    gpu_name: str = ""


def import_runtime() -> ModuleType:
    """The `onnxruntime` module, silenced.

    Raises: ModelFailed naming what to install.
    """
    forbid_telemetry()
    try:
        runtime = importlib.import_module("onnxruntime")
        # Without a build of the native half the package imports and has nothing in it.
        runtime.set_default_logger_severity(_FATAL)
        if hasattr(runtime, "disable_telemetry_events"):
            runtime.disable_telemetry_events()
    except (ImportError, AttributeError) as exc:
        raise ModelFailed(
            "ONNX Runtime is not installed, or its installation is broken: "
            "pip install 'tensorquay[cpu]', or 'tensorquay[gpu]' on a machine with NVIDIA GPUs (never both)"
        ) from exc
    return runtime


def import_onnx() -> ModuleType:
    """The `onnx` module.

    Raises: ModelFailed naming what to install.
    """
    try:
        return importlib.import_module("onnx")
    except ImportError as exc:
        raise ModelFailed("the package 'onnx' is not installed: pip install tensorquay") from exc


def survey(runtime: ModuleType) -> Machine:
    """What `runtime` offers on this machine. Asks the CUDA driver only when this build could use it."""
    available = tuple(runtime.get_available_providers())
    built_for_cuda = CUDA in available or bool(getattr(runtime, "cuda_version", ""))
    gpus = count_gpus() if built_for_cuda else 0
    if gpus and CUDA not in available:
        # Builds that ship CUDA as a plugin offer it only once its libraries are loaded.
        preload(runtime)
        available = tuple(runtime.get_available_providers())
    return Machine(available, gpus, installed_wheels(), name_of_gpu() if gpus else "")


def installed_wheels() -> tuple[str, ...]:
    """Installed distributions that own the folder `onnxruntime`; more than one overwrite each other's files."""
    found = []
    for name in _WHEELS:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return tuple(found)


def count_gpus() -> int:
    """NVIDIA GPUs that this process may use (CUDA_VISIBLE_DEVICES counts); 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return max(0, count.value)


def name_of_gpu() -> str:
    """What the driver calls the first GPU that this process may use; empty without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(_MAX_GPU_NAME)
        if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
            return ""
        if driver.cuDeviceGetName(name, _MAX_GPU_NAME, device) != 0:
            return ""
    except (OSError, AttributeError):
        return ""
    return name.value.decode("utf-8", "replace").strip()


def preload(runtime: ModuleType) -> None:
    """Load the CUDA libraries that come as Python packages, so that the provider finds them. May take a second.

    What it cannot find shows later, in `why_not_attached`.
    """
    loader = getattr(runtime, "preload_dlls", None)
    if loader is not None:
        # It prints its troubles, and stdout belongs to the operator.
        with contextlib.redirect_stdout(io.StringIO()):
            loader()


def why_not_attached(runtime: ModuleType, provider: str, machine: Machine) -> str:
    """The likeliest cause that `provider` is in this build and yet not in the session, as a clause.

    Loads the provider's library as ONNX Runtime would and reports what the dynamic linker misses.
    """
    if len(machine.wheels) > 1:
        return f"{' and '.join(machine.wheels)} are both installed and overwrite each other: uninstall all but one"
    if provider in {CUDA, TENSORRT} and machine.gpus == 0:
        return "this process sees no NVIDIA GPU (driver missing, not passed to the container, or hidden)"
    short = _LIBRARIES.get(provider)
    if short is None:
        return "ONNX Runtime gave no reason"
    folder = Path(runtime.__file__ or "").parent / "capi"
    try:
        shared = folder / "libonnxruntime_providers_shared.so"
        if shared.is_file():
            ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{short}.so"))
    except OSError as exc:
        missing = str(exc).split(":", 1)[0].rsplit("/", 1)[-1]
        return f"the library {missing} could not be loaded: install the version this build of ONNX Runtime needs"
    return "its libraries load, but the device refused it (driver too old, out of memory, or an option it rejects)"
