"""The jobs of a profile as plain values, and what they give; `measuring.py` does them, each in a process of its own.

Nothing of the runtime is needed to ask for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorquay_convert.optimize.goals import Goals
from tensorquay_convert.optimize.plain import to_plain
from tensorquay_convert.optimize.results import DataFacts, Machine, Point, Subject
from tensorquay_convert.optimize.variants import Settings
from tensorquay_convert.profile.results import Curve, Memory, Operators


@dataclass(frozen=True, slots=True)
class PrepareJob:
    """Read model and data, write samples into the folder `samples`."""

    model: Path
    name: str
    data: tuple[str, ...]
    goals: Goals
    samples: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """The model and the data, read."""

    subject: Subject
    data: DataFacts


@dataclass(frozen=True, slots=True)
class MemoryJob:
    """Load the model and run it once at each point."""

    model: Path
    settings: Settings
    samples: Path
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """`points`: those the model ran at; `left_out` says why the others are none of them."""

    memory: Memory
    points: tuple[Point, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CurveJob:
    """Time every point with every thread count.

    Args:
        run_s: by point name, how long one run takes about with all threads; decides what is not even tried.
        keep: hold a session for each thread count all the time; False: load the model again in every round.
        seconds: what all of it may take, about.
    """

    model: Path
    settings: Settings
    samples: Path
    points: tuple[Point, ...]
    threads: tuple[int, ...]
    run_s: Mapping[str, float]
    keep: bool
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Curved:
    """The curve, and what was left out of it for lack of time."""

    curve: Curve
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OperatorsJob:
    """Time by operator at one point. `scratch`: an empty folder. `trace`: a file to write."""

    model: Path
    settings: Settings
    samples: Path
    point: Point
    subject: Subject
    seconds: float
    scratch: Path
    trace: Path


@dataclass(frozen=True, slots=True)
class Timed:
    """Time by operator; where it was taken; what the trace holds."""

    operators: Operators
    machine: Machine
    trace: Mapping[str, int] = field(default_factory=dict)


Job = PrepareJob | MemoryJob | CurveJob | OperatorsJob
Result = Prepared | Held | Curved | Timed


def request_of(job: Job) -> dict[str, Any]:
    """The job as plain values."""
    return {"job": type(job).__name__, "values": to_plain(job)}
