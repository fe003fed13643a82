"""What the process that wants an import sends to the one that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorquay_convert.job import ImportJob


@dataclass(frozen=True, slots=True)
class Request:
    """What the parent sends.

    Args:
        job: with `source` and `kind` as detected (`kind` None: a factory whose framework only shows here).
        name: of the model; only for texts.
        given: the source as the user wrote it; `notes`: of the detection.
        stage: an empty folder for the result.
        command: how the import was asked for, for the provenance.
        version: of this distribution.
    """

    job: ImportJob
    name: str
    given: str
    notes: tuple[str, ...]
    stage: Path
    command: tuple[str, ...]
    version: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "job": self.job.to_json(),
            "name": self.name,
            "given": self.given,
            "notes": list(self.notes),
            "stage": str(self.stage),
            "command": list(self.command),
            "version": self.version,
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Request:
        """What `to_json` wrote. Raises: KeyError, TypeError or ValueError for anything else."""
        return Request(
            ImportJob.from_json(plain["job"]),
            plain["name"],
            plain["given"],
            tuple(plain["notes"]),
            Path(plain["stage"]),
            tuple(plain["command"]),
            plain["version"],
        )
