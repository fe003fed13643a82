"""What the user may decide about a proof."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tensorquay_convert.job import ImportJob, Tolerance


@dataclass(frozen=True, slots=True)
class ProofOptions:
    """How to prove.

    Args:
        max_batch: the largest batch that is run.
        examples: files with inputs (`examples.py` says which kinds), or `NAME=file` for one array of several.
        static: no axis is meant to be dynamic, so none is looked at.
        budget_s: when it is spent, cases that are left are not run, except those that the verdict needs.
        case_elements: the largest number of input elements in one case, where a smaller batch is possible.
    """

    max_batch: int = 32
    tolerance: Tolerance = field(default_factory=Tolerance)
    seed: int = 0
    examples: tuple[Path, ...] = ()
    static: bool = False
    budget_s: float = 120.0
    case_elements: int = 32_000_000

    @staticmethod
    def from_job(job: ImportJob) -> ProofOptions:
        """As an import asks for it."""
        return ProofOptions(
            max_batch=job.max_batch,
            tolerance=job.tolerance,
            seed=job.seed,
            examples=tuple(Path(each) for each in job.examples),
            static=job.static,
        )
