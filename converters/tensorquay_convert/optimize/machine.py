"""Where something is measured: the processor, the runtime and its providers, a GPU."""

from __future__ import annotations

import subprocess

import onnxruntime

from tensorquay_convert import provenance
from tensorquay_convert.optimize.results import Machine
from tensorquay_convert.optimize.session import Opened
from tensorquay_convert.surroundings import usable_cpus

_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
_QUERY_S = 10


def machine_of(opened: Opened) -> Machine:
    """This machine, as the session uses it."""
    cpu, features = provenance.processor()
    gpu, driver = _gpu() if len(opened.providers) > 1 else ("", "")
    return Machine(cpu, tuple(features), usable_cpus(), onnxruntime.__version__, opened.providers, gpu, driver)


def _gpu() -> tuple[str, str]:
    """The first GPU's name and its driver's version; empty where nobody can tell."""
    try:
        told = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=_QUERY_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "", ""
    name, _, driver = next(iter(told.splitlines()), "").partition(",")
    return name.strip(), driver.strip()
