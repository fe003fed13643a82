"""What lies beside a served model, in a few facts: its size, the verdict of its proof, whether there is a report.

Runs in a thread. The files are whoever's wrote the repository: read with a bound and never out of the model's folder;
what is missing in them or of another type counts as not said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay.core.errors import InvalidArgument
from tensorquay.protocol.json_text import parse_json_object
from tensorquay.repository.files import UnusableFile, read_inside, resolve_inside

_PROVENANCE = "provenance.json"
_REPORT = "report.html"
_MAX_BYTES = 4 << 20
_MOST = 10**12


@dataclass(frozen=True, slots=True)
class Records:
    """`verified` is None for a model that was not imported, or whose record cannot be read."""

    verified: Mapping[str, Any] | None = None
    has_report: bool = False


def read_records(folder: Path) -> Records:
    """What is beside the model in `folder`. Never raises for what it finds there."""
    try:
        real = folder.resolve()
    except (OSError, RuntimeError):
        return Records()
    return Records(_verified(real), _is_there(real / _REPORT, real))


def _verified(real: Path) -> Mapping[str, Any] | None:
    try:
        record = parse_json_object(read_inside(real / _PROVENANCE, _PROVENANCE, real, _MAX_BYTES), _PROVENANCE)
    except (UnusableFile, InvalidArgument, OSError):
        return None
    proof = record.get("proof")
    if not isinstance(proof, dict) or not isinstance(proof.get("passed"), bool):
        return None
    return {
        "passed": proof["passed"],
        "cases": _number(proof.get("cases")),
        "max_absolute": _number(proof.get("max_absolute")),
        "real_inputs": proof.get("real_inputs") is True,
    }


def _number(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, float | int):
        return None
    return value if -_MOST <= value <= _MOST else None


def _is_there(path: Path, real: Path) -> bool:
    try:
        return resolve_inside(path, real).is_file()
    except (UnusableFile, OSError):
        return False
