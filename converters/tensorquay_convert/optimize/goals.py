"""What the user wants of an optimisation, and may limit: plain values."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Objective(enum.Enum):
    """What "faster" means. Whatever it is, a variant must win by more than the noise.

    LATENCY looks at the smallest batch, THROUGHPUT at the largest, BALANCED at all of them (geometric mean) and
    refuses a variant that loses at any. SIZE wants fewer bytes and refuses what is slower at any batch.
    """

    BALANCED = "balanced"
    LATENCY = "latency"
    THROUGHPUT = "throughput"
    SIZE = "size"


class Metric(enum.Enum):
    """How good answers are, against labels. Higher is better but for MAE and RMSE."""

    TOP1 = "top1"
    TOP5 = "top5"
    F1 = "f1"
    """Macro-averaged over the classes that occur."""
    MAE = "mae"
    RMSE = "rmse"
    R2 = "r2"


@dataclass(frozen=True, slots=True)
class GateRules:
    """What a variant's answers must keep. None: not asked; what nobody asks for is decided by `gate.py`.

    Args:
        max_drop: most the task metric may lose with labels, as a share (0.005: half a percentage point of accuracy,
            or half a percent of an error metric); without labels, the most rows whose top-1 may change.
        min_cosine: least mean cosine between an output's rows and the baseline's.
        metric: which task metric; None: TOP1 for classes, RMSE for numbers.
        output: the output that labels are about; empty: the one that looks like it.
    """

    max_drop: float | None = None
    min_cosine: float | None = None
    metric: Metric | None = None
    output: str = ""


@dataclass(frozen=True, slots=True)
class Goals:
    """Everything that decides the result.

    Args:
        batches: batch sizes to time, ascending. A model without a batch axis is timed as it is.
        sizes: for other dynamic axes, by axis name: the sizes to time (and draw samples) at.
        provider: cpu, cuda or tensorrt.
        threads: intra-op threads of the baseline, 0: the processors this process may use.
        time_budget_s: no new variant is begun after it.
        seed: of drawn samples, of splits and of resampling.
        only: families to try (`variants.Family` values); empty: all that make sense.
    """

    objective: Objective = Objective.BALANCED
    gate: GateRules = field(default_factory=GateRules)
    batches: tuple[int, ...] = (1, 8, 32)
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    provider: str = "cpu"
    threads: int = 0
    time_budget_s: float = 300.0
    seed: int = 0
    only: tuple[str, ...] = ()
