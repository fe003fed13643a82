"""What is tried: a variant is a few passes over the file, and the settings it runs with. Plain values."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

HAS_DOT_PRODUCT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimd", "sve"})
"""CPU features with which sums of 8-bit products do not saturate; x86 without them adds pairs in 16 bits."""


def saturates(features: Iterable[str]) -> bool:
    """Whether sums of 8-bit products saturate on this CPU: 8-bit weights may then be less accurate than 7-bit ones."""
    return not HAS_DOT_PRODUCT & set(features)


class Family(enum.Enum):
    """Kinds of variants; the value is what `--only` and reports say."""

    BASELINE = "baseline"
    GRAPH = "graph"
    """Graph optimisations saved into the file, constant folding."""
    FUSION = "fusion"
    HALF = "half"
    """FP16 and BF16."""
    DYNAMIC_INT8 = "dynamic-int8"
    STATIC_INT8 = "static-int8"
    MIXED = "mixed"
    """INT8 where it costs little accuracy, FP32 elsewhere."""
    WEIGHTS = "weights"
    """Weight-only 8 and 4 bits."""
    RUNTIME = "runtime"
    """Nothing in the file: threads, provider and its options, session options."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a session is made: what a server reads from `[execution]` in config.toml, under the same names.

    `intra_op_threads` 0: all processors this process may use. Spinning is off as the server has it.
    """

    provider: str = "cpu"
    provider_options: Mapping[str, str] = field(default_factory=dict)
    graph_optimization: str = "all"
    intra_op_threads: int = 0
    inter_op_threads: int = 1
    parallel: bool = False
    spinning: bool = False
    session_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One pass by its name in `passes.registry.PASSES`, with its parameters (JSON values)."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """`name` is unique, short and for people ("static int8, minmax"). `steps` are applied in order to the baseline."""

    name: str
    family: Family
    steps: tuple[Step, ...] = ()
    settings: Settings = Settings()
