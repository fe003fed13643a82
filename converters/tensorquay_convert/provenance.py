"""Where a model comes from, as a value that travels with it: `provenance.json` in the version's folder.

The schema is versioned and described in docs/import.md; additions keep the number, changes of meaning raise it.
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tensorquay_convert.api import Exported, SourceFacts
from tensorquay_convert.proof.verification import Comparison, Verification

SCHEMA = "tensorquay.provenance/1"
PROVENANCE_FILE = "provenance.json"
VERIFICATION_FILE = "verification.json"
REPORT_FILE = "report.html"
MODEL_FILE = "model.onnx"

_CHUNK = 1 << 20
_CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "sve")
"""Features that decide how a runtime computes, and hence the last digits of a result."""


def file_digest(path: Path) -> str:
    """SHA-256 in hex. Raises: OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digests(files: Iterable[Path], base: Path) -> list[dict[str, Any]]:
    """Path (relative to `base` where it is inside), bytes and SHA-256 of each file, sorted by path. Raises: OSError."""
    found = []
    for path in files:
        shown = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name
        found.append({"path": shown, "bytes": path.stat().st_size, "sha256": file_digest(path)})
    return sorted(found, key=lambda each: str(each["path"]))


def source_digest(files: Iterable[Mapping[str, Any]]) -> str:
    """One digest of all files: SHA-256 over lines "<sha256>  <path>", sorted by path, as `sha256sum` prints them."""
    lines = "".join(f"{each['sha256']}  {each['path']}\n" for each in sorted(files, key=lambda each: str(each["path"])))
    return hashlib.sha256(lines.encode()).hexdigest()


def describe_source(given: str, imported: str, facts: SourceFacts, notes: Iterable[str]) -> dict[str, Any]:
    """The source and its digests. Raises: OSError."""
    files = [Path(os.path.realpath(each)) for each in facts.files]
    base = Path(os.path.commonpath([each.parent for each in files])) if files else Path.cwd()
    listed = digests(files, base)
    return {
        "given": given,
        "imported": imported,
        "kind": facts.kind.value,
        "shown": facts.shown,
        "sha256": source_digest(listed),
        "files": listed,
        "notes": [*notes, *facts.notes],
    }


def describe_conversion(exported: Exported, opset: int, notes: Iterable[str]) -> dict[str, Any]:
    """Who exported, to which operator set, and what was tried before."""
    return {
        "exporter": exported.exporter,
        "opset": opset,
        "attempts": list(exported.attempts),
        "notes": [*exported.notes, *notes],
    }


def describe_interface(facts: SourceFacts) -> dict[str, Any]:
    """Inputs and outputs with their axes, and class names where the source has them."""
    interface = facts.interface
    return {
        "inputs": [
            {
                "name": spec.name,
                "dtype": spec.dtype,
                "shape": list(spec.shape or ()),
                "meaning": spec.values.meaning.value,
            }
            for spec in interface.inputs
        ],
        "outputs": [
            {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape or ())} for spec in interface.outputs
        ],
        "axes": {name: asdict(bounds) for name, bounds in interface.axes.items()},
        "labels": {name: list(labels) for name, labels in facts.labels.items()},
    }


def describe_machine(packages: Mapping[str, str]) -> dict[str, Any]:
    """The interpreter, the machine and the packages that took part."""
    model, flags = processor()
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": model,
        "cpu_features": flags,
        "packages": dict(sorted(packages.items())),
    }


def summary(verification: Verification) -> dict[str, Any]:
    """The proof in a few numbers; the whole of it is in `verification.json`."""
    compared = [each for case in verification.cases for each in case.comparisons]
    worst = max(
        (each for each in compared if not math.isnan(each.max_absolute)),
        key=lambda each: each.max_absolute,
        default=None,
    )
    return {
        "passed": verification.passed,
        "cases": len(verification.cases),
        "comparisons": len(compared),
        "max_absolute": _number(None if worst is None else worst.max_absolute),
        "worst_output": None if worst is None else worst.output,
        "outputs": [_output_summary(name, compared) for name in dict.fromkeys(each.output for each in compared)],
        "real_inputs": verification.real_inputs,
        "seed": verification.seed,
        "axes": {axis.name: list(axis.sizes) for axis in verification.axes},
        "runtime": verification.runtime,
        "seconds": round(verification.seconds, 3),
        "problems": list(verification.problems),
        "notes": list(verification.notes),
    }


def _output_summary(name: str, compared: list[Comparison]) -> dict[str, Any]:
    """The worst of one output over all cases."""
    mine = [each for each in compared if each.output == name]
    cosines = [each.cosine for each in mine if each.cosine is not None]
    shares = [each.top1 for each in mine if each.top1 is not None]
    return {
        "name": name,
        "dtype": mine[0].dtype,
        "max_absolute": _worst(each.max_absolute for each in mine),
        "max_relative": _worst(each.max_relative for each in mine),
        "min_cosine": _number(min(cosines, default=None)),
        "min_top1": _number(min(shares, default=None)),
        "atol": max(each.atol for each in mine),
        "rtol": max(each.rtol for each in mine),
        "within": all(each.within for each in mine),
    }


def _worst(values: Iterable[float]) -> float | str | None:
    """The largest of those that are numbers."""
    return _number(max((each for each in values if not math.isnan(each)), default=None))


def _number(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return value if value is None or math.isfinite(value) else str(value)


def now() -> str:
    """The time as RFC 3339 in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def processor() -> tuple[str, list[str]]:
    """The processor's name and those of its features that matter; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")[:65536]
    except OSError:
        return platform.processor(), []
    name, flags = "", set[str]()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and not name:
            name = value.strip()
        elif key.strip() in {"flags", "Features"} and not flags:
            flags = set(value.split())
    return name or platform.processor(), [each for each in _CPU_FLAGS if each in flags]
