"""`optimization.json` files as a server meets them, and the machine they were made on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorquay.backends.api import RuntimeFacts
from tensorquay.config.machine import CpuFacts

CPU = CpuFacts("Test CPU 1", ("avx2", "avx512f", "avx512_vnni"))
RUNTIME = RuntimeFacts("1.31.0")


def optimization(**changes: Any) -> dict[str, Any]:
    """What an optimisation on `CPU` with `RUNTIME` wrote; `changes` replace members, mappings member by member."""
    plain: dict[str, Any] = {
        "schema": "tensorquay.optimization/1",
        "model": "m",
        "at": "2026-11-21T10:00:00Z",
        "tensorquay": "0.1.0",
        "baseline": {"version": 1, "sha256": "", "file": "model.onnx"},
        "winner": "static int8, minmax",
        "sentence": "static int8, minmax is 1.7 × as fast",
        "settings": {
            "provider": "cpu",
            "provider_options": {},
            "graph_optimization": "all",
            "intra_op_threads": 0,
            "inter_op_threads": 1,
            "parallel": False,
            "spinning": False,
            "session_options": {},
        },
        "machine": {
            "cpu": CPU.name,
            "features": list(CPU.features),
            "processors": 8,
            "onnxruntime": RUNTIME.version,
            "providers": ["CPUExecutionProvider"],
            "gpu": "",
            "driver": "",
        },
        "trials": [
            {"variant": {"name": "dynamic int8"}, "verdict": "slower", "score": 0.4},
            {"variant": {"name": "static int8, minmax"}, "verdict": "won", "score": 1.704},
        ],
    }
    for name, value in changes.items():
        both = isinstance(plain.get(name), dict) and isinstance(value, dict)
        plain[name] = {**plain[name], **value} if both else value
    return plain


def write_optimization(folder: Path, **changes: Any) -> Path:
    """Put it into a version's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "optimization.json"
    path.write_text(json.dumps(optimization(**changes)))
    return path
