"""What models can run on here: execution providers, GPUs, and the native libraries they need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorquay.backends.onnxruntime.runtime import CPU, CUDA, TENSORRT
from tensorquay.commands.doctor.children import Ended
from tensorquay.commands.doctor.findings import Finding, listed, note, ok, problem, warning

_GPU_BUILD = "pip uninstall -y onnxruntime; pip install 'tensorquay[gpu]'"
_SHORT = {CUDA: "cuda", TENSORRT: "tensorrt"}
_MAKERS = (
    (re.compile(r"libcuda\.so"), "the NVIDIA driver: install it, and in a container start with --gpus all"),
    (re.compile(r"libcudnn"), "cuDNN"),
    (re.compile(r"libnv(infer|onnxparser)"), "TensorRT"),
    (re.compile(r"lib(cudart|cublas|cufft|curand|cusparse|cusolver|nvrtc|nvJitLink)"), "CUDA"),
    (re.compile(r"libopenvino"), "OpenVINO"),
)
_MAX_FILE = 4096


def examine(
    ended: Ended, environment: Mapping[str, str], *, root: Path = Path("/"), wheels_fit: bool = True
) -> Iterator[Finding]:
    """Findings about providers.

    Args:
        ended: the answer to the question "runtime".
        root: where `proc` and `dev` are found.
        wheels_fit: whether exactly one ONNX Runtime is installed; otherwise that is the remedy, told elsewhere.
    """
    driver = _driver(root)
    said = ended.document()
    if ended.why or not isinstance(said, dict):
        reason = ended.errors.strip().splitlines()[-1][:300] if ended.errors.strip() else "no word of why"
        remedy = "pip install --force-reinstall 'tensorquay[cpu]'" if wheels_fit else ""
        yield problem("providers.runtime", f"asking ONNX Runtime {ended.why or 'gave no answer'}: {reason}", remedy)
        return
    available = list(said["available"])
    shown = [name.removesuffix("ExecutionProvider") for name in available]
    yield ok("providers.available", f"ONNX Runtime {said['version']} offers {listed(shown)}")
    if CPU not in available:
        yield problem(
            "providers.cpu", "this build of ONNX Runtime has no CPU provider", "pip install 'tensorquay[cpu]'"
        )
    for_gpus = CUDA in available or bool(said["built_for_cuda"])
    gpus = int(said["gpus"])
    if not for_gpus:
        if driver:
            yield warning(
                "providers.gpu",
                f"there is an NVIDIA driver ({driver}), but this build of ONNX Runtime cannot use GPUs: models run on "
                "the CPU",
                _GPU_BUILD,
            )
        else:
            yield ok("providers.gpu", "models run on the CPU: this build is for CPUs, and there is no NVIDIA driver")
        return
    if not gpus:
        yield _no_gpu(driver, environment)
        return
    name = said["gpu_name"] or "of unknown name"
    yield ok(
        "providers.gpu",
        f"{gpus} NVIDIA GPU{'s' if gpus > 1 else ''}, the first is {name}; driver {driver or 'unknown'}",
    )
    yield from _cuda_age(str(said["built_for_cuda"]), str(said["driver_cuda"]))
    yield from _libraries(said, available)


def usable_gpus(ended: Ended) -> int | None:
    """How many GPUs models can run on, by the answer to the question "runtime"; None when there was none."""
    said = ended.document()
    if ended.why or not isinstance(said, dict):
        return None
    return int(said["gpus"]) if CUDA in said["available"] else 0


def _driver(root: Path) -> str:
    """The version of the NVIDIA kernel driver; "" without one."""
    try:
        with (root / "proc/driver/nvidia/version").open("rb") as file:
            text = file.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return "of unknown version" if (root / "dev/nvidiactl").exists() else ""
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found[1] if found else "of unknown version"


def _no_gpu(driver: str, environment: Mapping[str, str]) -> Finding:
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return note(
            "providers.gpu",
            f"models run on the CPU: CUDA_VISIBLE_DEVICES='{hidden[:40]}' shows this process no GPU",
            "unset it, if GPUs are wanted",
        )
    if driver:
        return warning(
            "providers.gpu",
            f"models run on the CPU: there is an NVIDIA driver ({driver}), but this process may use no GPU",
            "in a container start with --gpus all (Kubernetes: resources.limits nvidia.com/gpu); outside, nvidia-smi "
            "must list one",
        )
    return note(
        "providers.gpu",
        "models run on the CPU: this build could use NVIDIA GPUs, and there is no NVIDIA driver",
        "install the driver, or pip install 'tensorquay[cpu]' in an environment of its own, which is smaller",
    )


def _cuda_age(built_for: str, driver_runs: str) -> Iterator[Finding]:
    """A driver runs programs of its own major version of CUDA and older ones."""
    built, runs = built_for.partition(".")[0], driver_runs.partition(".")[0]
    if built.isdigit() and runs.isdigit() and int(runs) < int(built):
        yield problem(
            "providers.driver",
            f"this build is for CUDA {built_for}, the driver runs CUDA {driver_runs} and older",
            "install a newer driver",
        )


def _libraries(said: Mapping[str, Any], available: list[str]) -> Iterator[Finding]:
    for provider, libraries in said["libraries"].items():
        short = _SHORT.get(provider, provider.removesuffix("ExecutionProvider").lower())
        missing = {name: why for name, why in libraries.items() if why}
        check = f"providers.{short}"
        if not missing:
            yield ok(check, f"the {len(libraries)} libraries that '{short}' needs can be loaded")
            continue
        # TensorRT is an offer: whoever does not ask for it does not need it.
        tell = problem if provider == CUDA and provider in available else note
        yield tell(
            check,
            f"'{short}' cannot be used: {listed(list(missing))} cannot be loaded",
            "; ".join(dict.fromkeys(map(_maker, missing))),
        )


def _maker(library: str) -> str:
    """What brings `library`."""
    version = re.search(r"\.so\.(\d+)", library)
    for pattern, name in _MAKERS:
        if pattern.match(library):
            if ":" in name:
                return f"{library} comes with {name}"
            wanted = f"{name} {version[1]}" if version and name in {"cuDNN", "TensorRT"} else name
            return f"{library} comes with {wanted}: install it where the dynamic linker looks (LD_LIBRARY_PATH)"
    return f"install the package that has {library}"
