"""The result of a proof as a value: what was run, how far it was off, and the verdict. Goes to `verification.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output of one case. Errors are NaN when nothing could be compared (`problem` says why).

    `worst_index` is where the largest absolute error is; `relative` is measured where |expected| > the dtype's floor.
    `top1` is the share of rows (last axis) whose largest entry is the same one, None where that makes no sense.
    """

    output: str
    dtype: str
    shape: tuple[int, ...]
    max_absolute: float
    max_relative: float
    worst_index: tuple[int, ...]
    expected_there: float | str
    got_there: float | str
    cosine: float | None
    top1: float | None
    atol: float
    rtol: float
    within: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One set of inputs. `sizes`: of the dynamic axes. `origin`: "seeded", or the example file."""

    name: str
    origin: str
    sizes: Mapping[str, int]
    comparisons: tuple[Comparison, ...]
    problem: str = ""
    """Why it could not be run at all, on either side."""
    outside: bool = False
    """The source itself does not take these inputs: nothing was compared, and it counts neither way."""

    @property
    def passed(self) -> bool:
        """Whether everything in it is within its tolerance."""
        return not self.problem and bool(self.comparisons) and all(each.within for each in self.comparisons)


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first node whose output parts from the source, in the graph's order."""

    node: str
    operator: str
    output: str
    max_absolute: float
    sentence: str
    """For people: the node, what it gives, what the source has there, and its line in the model's source if known."""
    confirmed: bool = False
    """With the source's value in place of `output`, or the node repaired, the model answered as its source."""
    among: tuple[str, ...] = ()
    """The nodes between the last value known to agree and this one; empty when it can be this one only."""
    source_line: str = ""
    """Where the exporter says that the node comes from in the model's source."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Some entries of one output in its worst case, for plots: at most `compare.MAX_POINTS`.

    `histogram`: (exponent of ten, count) of the absolute errors; None counts the entries without error.
    """

    output: str
    case: str
    expected: tuple[float, ...]
    got: tuple[float, ...]
    histogram: tuple[tuple[int | None, int], ...]


@dataclass(frozen=True, slots=True)
class AxisProof:
    """A dynamic axis and the sizes it was really run at."""

    name: str
    tensors: tuple[str, ...]
    sizes: tuple[int, ...]
    dynamic: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """The whole proof. `problems`: one sentence each, most telling first; empty exactly when it passed."""

    cases: tuple[Case, ...]
    axes: tuple[AxisProof, ...]
    problems: tuple[str, ...]
    culprit: Culprit | None
    advice: str
    seed: int
    real_inputs: bool
    """Whether inputs of the user's own were among the cases."""
    runtime: str
    seconds: float
    notes: tuple[str, ...] = ()
    """What the user should know and nothing has to be done about, one sentence each."""
    samples: tuple[Sample, ...] = ()
    """One for each output with numbers."""

    @property
    def passed(self) -> bool:
        """Whether the model may be published."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; NaN and infinities as texts."""
        plain: dict[str, Any] = _plain(asdict(self))
        plain["passed"] = self.passed
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
