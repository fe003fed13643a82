"""What was found: measured, judged, decided. Plain values; `plain.py` writes them to `optimization.json`.

Numbers that do not exist are None: JSON has neither NaN nor infinity.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorquay_convert.optimize.variants import Settings, Variant


@dataclass(frozen=True, slots=True)
class Subject:
    """The model as it came.

    Args:
        operators: how many nodes of each operator ("Conv", "com.microsoft.Attention").
        bytes: the file and its external data.
        quantized: operators in it that compute with quantized values, with counts; empty for a float model.
        batched: requests can be stacked on the first axis of every input.
        inputs, outputs: name → "float32[batch,3,224,224]".
        fp32_weight_bytes: of initializers in FP32, which is what quantizing weights can save.
        notes: for the user.
    """

    name: str
    sha256: str
    bytes: int
    opset: int
    nodes: int
    operators: Mapping[str, int]
    quantized: Mapping[str, int]
    batched: bool
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    fp32_weight_bytes: int
    external_data: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """Where timings are taken. `batch` 0: the model has no batch axis. `group`: of the samples (`samples.py`).

    `name` is for people: "batch 8", "batch 8, seq 128".
    """

    name: str
    batch: int
    group: int
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What accuracy is judged on and time measured with.

    Args:
        real: from the user's files; False: seeded, and accuracy was not judged on real data.
        calibration, judging: how many samples (rows, or single requests of an unbatched model); they do not overlap.
        labels: labels were given.
        points: where timings are taken.
    """

    real: bool
    calibration: int
    judging: int
    labels: bool
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did.

    Args:
        name: of the pass, with what matters of its parameters ("static int8 QDQ, entropy").
        changed: False: the model is as it was before this pass; `summary` says so and why.
        summary: one sentence without a full stop ("fused 6 Attention, 12 SkipLayerNormalization").
        fused: new fused operators with counts. quantized: nodes that now compute in less precision.
        kept: nodes or operators kept in FP32 on purpose.
    """

    name: str
    changed: bool
    summary: str
    fused: Mapping[str, int] = field(default_factory=dict)
    quantized: int = 0
    kept: tuple[str, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputAgreement:
    """One output of a variant against the baseline's over all judged samples.

    Args:
        cosine: mean over rows; None where rows have no direction (integers, a single number, zeros).
        min_cosine: of the worst row. max_error: largest absolute. top1: share of rows with the same largest entry
            (classes, at least 2 entries in the last axis) or, for integers, of equal entries.
        nonfinite: entries that are NaN or infinite here and were not in the baseline.
        relative_error: root mean square error as a share of the baseline's root mean square (around its mean, for
            outputs of one number per row); None for what are no floats.
        problem: why it could not be compared (another shape or dtype, missing); then the numbers are None.
    """

    name: str
    cosine: float | None
    min_cosine: float | None
    max_error: float | None
    mean_error: float | None
    top1: float | None
    nonfinite: int = 0
    relative_error: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's verdict. `failed`: sentences, each what, got, allowed; empty when it passed.

    `rule` says in one line what was asked ("top1 on 450 labelled samples may drop 0.5 %"). `metric*` need labels.
    """

    outputs: tuple[OutputAgreement, ...]
    samples: int
    rule: str
    failed: tuple[str, ...]
    metric: str = ""
    metric_value: float | None = None
    metric_baseline: float | None = None

    @property
    def passed(self) -> bool:
        """Whether it may be published."""
        return not self.failed


@dataclass(frozen=True, slots=True)
class Sitting:
    """One process's measurement at one point: rounds of A B A B, A the baseline and B the variant.

    All times in seconds of one run. `ratio` is the median of each round's A / B: above 1, B is faster.
    """

    point: str
    batch: int
    rounds: int
    baseline_p50: float
    baseline_p99: float
    p50: float
    p99: float
    ratio: float
    low: float
    """99 % confidence bounds of the ratio within this sitting."""
    high: float


@dataclass(frozen=True, slots=True)
class Timing:
    """What all sittings at one point say together; `low` and `high` span them, noise between processes included."""

    point: str
    batch: int
    sittings: int
    baseline_p50: float
    baseline_p99: float
    p50: float
    p99: float
    ratio: float
    low: float
    high: float

    @property
    def items_s(self) -> float:
        """Rows per second at the median; requests per second of an unbatched model."""
        return max(1, self.batch) / self.p50 if self.p50 else 0.0


class Verdict(enum.Enum):
    """Why a variant is or is not the one; the value is for people."""

    WON = "won"
    PASSED = "faster, not the fastest"
    NOT_FASTER = "not faster"
    SLOWER = "slower"
    INACCURATE = "not accurate enough"
    UNCHANGED = "changed nothing"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Trial:
    """A variant and all that became of it. `reason`: one sentence; never empty but for WON and PASSED.

    `bytes` of the file and its data, None when there is none. `nodes` by execution provider, as far as it is told.
    `score`: how many times better by the objective, and its bounds; None when it was not timed.
    """

    variant: Variant
    verdict: Verdict
    reason: str = ""
    passes: tuple[PassReport, ...] = ()
    bytes: int | None = None
    judgement: Judgement | None = None
    timings: tuple[Timing, ...] = ()
    score: float | None = None
    score_low: float | None = None
    score_high: float | None = None
    nodes: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeSensitivity:
    """What quantizing this node alone costs. `loss`: 1 - mean cosine of the worst output, or the metric's drop."""

    node: str
    operator: str
    loss: float
    quantized: bool
    """Whether the mixed variant quantizes it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured; what a server compares itself with. `features` as in provenance.json."""

    cpu: str
    features: tuple[str, ...]
    processors: int
    onnxruntime: str
    providers: tuple[str, ...]
    gpu: str = ""
    driver: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole of an optimisation: `optimization.json`.

    Args:
        winner: name of the variant that won; empty: none did and the model stays as it is.
        sentence: the result in one sentence.
        settings: how a server should run the winner, where its configuration does not say.
        noise: the baseline against itself, measured the same way: what "no difference" looks like here.
        left_out: variants that were not begun, for lack of time or sense, are trials with NOT_TRIED.
    """

    subject: Subject
    data: DataFacts
    goals: Mapping[str, Any]
    machine: Machine
    winner: str
    sentence: str
    settings: Settings
    noise: tuple[Timing, ...]
    trials: tuple[Trial, ...]
    sensitivity: tuple[NodeSensitivity, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
