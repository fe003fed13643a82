"""What is computed from measurements. Pure: no clock, no processes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, TypedDict


class Spread(TypedDict):
    """A figure measured several times: its median and how far apart the measurements were."""

    median: float
    low: float
    high: float
    all: list[float]


def spread(values: Sequence[float]) -> Spread:
    """Median, extremes and the values themselves, in the order measured. `values` is not empty."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "all": list(values)}


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The smallest value that at least `fraction` of `ordered` (ascending, not empty) do not exceed: nearest rank.

    Interpolating would invent latencies that no request had.
    """
    rank = max(1, math.ceil(fraction * len(ordered)))
    return ordered[rank - 1]


def whole_batches(rate_per_s: float, seconds: float, multiple: int) -> int:
    """How many requests to measure: about `seconds` worth of them, and a multiple of `multiple`, at least one.

    Answers come in bursts, one batch at a time. A window that holds whole batches begins and ends at the same place
    of a burst, so that it does not count a batch whose time lies outside it.
    """
    return max(1, round(rate_per_s * seconds / multiple)) * multiple


class RawPoint(TypedDict):
    """Raw throughput at one batch size."""

    batch: int
    spinning: bool
    items_s: float
    run_ms: float
    cpu_us: float


def best(points: Sequence[RawPoint]) -> RawPoint:
    """The fastest point; of equal ones the one with the smaller batch."""
    return max(points, key=lambda point: (point["items_s"], -point["batch"]))


def ratios(served: Sequence[float], raw: Sequence[float]) -> list[float]:
    """Served over raw, pair by pair: each was measured right before its partner."""
    return [mine / theirs for mine, theirs in zip(served, raw, strict=True)]


def per_request_us(cpu_s: float, requests: int) -> float:
    """CPU seconds of a window as microseconds of one of its requests."""
    return cpu_s / requests * 1e6


def rows_per_batch(before: dict[str, Any], after: dict[str, Any]) -> float | None:
    """Mean rows of the runs between two looks at the statistics; None when there were none."""
    runs = after["execution_count"] - before["execution_count"]
    rows = after["inference_count"] - before["inference_count"]
    return rows / runs if runs else None
