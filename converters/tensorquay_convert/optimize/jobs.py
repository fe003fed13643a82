"""What the conductor asks of a worker, and what it gets back: plain values, free of the worker's libraries.

`working.py` does the jobs. The conductor never touches a graph: whatever a pass, a model or the runtime does to its
process costs one variant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorquay_convert.errors import CommandFailed
from tensorquay_convert.optimize.goals import GateRules, Goals
from tensorquay_convert.optimize.plain import to_plain
from tensorquay_convert.optimize.results import (
    DataFacts,
    Judgement,
    Machine,
    NodeSensitivity,
    PassReport,
    Point,
    Sitting,
    Subject,
    Timing,
)
from tensorquay_convert.optimize.variants import Settings, Variant

MODEL = "model.onnx"


@dataclass(frozen=True, slots=True)
class PrepareJob:
    """Read model and data, write samples into the folder `samples`."""

    model: Path
    name: str
    data: tuple[str, ...]
    labels: str
    goals: Goals
    samples: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """The model and the data, read."""

    subject: Subject
    data: DataFacts


@dataclass(frozen=True, slots=True)
class ReferenceJob:
    """Run the model as it is on what is judged, into the folder `reference`; time it against itself.

    `budget_s`: of the whole optimisation; decides which points are too slow to be timed and how much is judged.
    """

    model: Path
    settings: Settings
    samples: Path
    reference: Path
    points: tuple[Point, ...]
    seconds: float
    budget_s: float
    seed: int
    rules: GateRules


@dataclass(frozen=True, slots=True)
class Reference:
    """`points`: those that are worth their time; `notes` name the others. `digest`: of the model's files."""

    digest: str
    points: tuple[Point, ...]
    sittings: tuple[Sitting, ...]
    machine: Machine
    nodes: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrialJob:
    """Make a variant in the folder `target`, judge it, time it.

    Args:
        baseline_settings: how the model as it is runs.
        to_beat: the lower bound of the best variant's score so far; timing ends early for what cannot reach it.
        noise: the baseline against itself.
        known: digests of the files tried before, to the names of their variants and the settings they ran with.
    """

    variant: Variant
    model: Path
    baseline_settings: Settings
    subject: Subject
    samples: Path
    reference: Path
    target: Path
    points: tuple[Point, ...]
    goals: Goals
    seconds: float
    to_beat: float
    noise: tuple[Timing, ...]
    known: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a variant in the process that made it.

    `same_as`: another variant whose file is this one; then nothing was judged or timed. `cut`: timing ended early.
    """

    passes: tuple[PassReport, ...]
    digest: str = ""
    bytes: int = 0
    same_as: str = ""
    judgement: Judgement | None = None
    sittings: tuple[Sitting, ...] = ()
    nodes: Mapping[str, int] = field(default_factory=dict)
    sensitivity: tuple[NodeSensitivity, ...] = ()
    cut: bool = False


@dataclass(frozen=True, slots=True)
class SittingJob:
    """Time a variant's file against the model once more, in a fresh process."""

    model: Path
    baseline_settings: Settings
    variant: Path
    settings: Settings
    samples: Path
    points: tuple[Point, ...]
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Sat:
    """One sitting per point."""

    sittings: tuple[Sitting, ...]


Job = PrepareJob | ReferenceJob | TrialJob | SittingJob
Result = Prepared | Reference | Tried | Sat


def request_of(job: Job) -> dict[str, Any]:
    """The job as plain values."""
    return {"job": type(job).__name__, "values": to_plain(job)}


def key_of(digest: str, settings: Settings) -> str:
    """How `TrialJob.known` calls a file that runs with these settings."""
    return f"{digest} {sorted(to_plain(settings).items())}"


def failure_sentence(failure: CommandFailed) -> str:
    """A failed job's words, with what would help."""
    return f"{failure.sentence}; {failure.remedy}" if failure.remedy else failure.sentence
