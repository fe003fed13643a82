"""What the page says of versions: everything in the statistics table, family by family.

A version's lines differ between scrapes in their numbers only, so each is kept as a template; filling one in costs a
quarter of writing it anew. The labels are checked against the declaration when the template is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from tensorquay.core.errors import Rejection
from tensorquay.core.ids import VersionKey
from tensorquay.telemetry.exposition import Labels, Page, check_labels, histogram_names, labels_text, number
from tensorquay.telemetry.families import FAMILIES
from tensorquay.telemetry.statistics import (
    ROW_BUCKETS,
    TIME_BUCKETS_NS,
    FailureReason,
    Histogram,
    StatisticsTable,
    VersionStatistics,
)

Tags: TypeAlias = Callable[[str], Mapping[str, str]]
"""The label names and values that a model's metric tags become."""

_SINGLE: tuple[tuple[str, Callable[[VersionStatistics], float]], ...] = (
    ("nv_inference_request_success", lambda s: s.success_count),
    ("nv_inference_count", lambda s: s.inference_count),
    ("nv_inference_exec_count", lambda s: s.execution_count),
    ("nv_inference_request_duration_us", lambda s: s.success_ns // 1000),
    ("nv_inference_queue_duration_us", lambda s: s.queue_ns // 1000),
    ("nv_inference_compute_input_duration_us", lambda s: s.input_ns // 1000),
    ("nv_inference_compute_infer_duration_us", lambda s: s.infer_ns // 1000),
    ("nv_inference_compute_output_duration_us", lambda s: s.output_ns // 1000),
    ("nv_inference_pending_request_count", lambda s: s.pending),
    ("nv_model_load_duration_secs", lambda s: s.load_seconds),
    ("tensorquay_queue_requests", lambda s: s.pending),
    ("tensorquay_offered_rows_total", lambda s: s.offered_rows),
    ("tensorquay_model_loads_total", lambda s: s.loads),
    ("tensorquay_model_load_failures_total", lambda s: s.load_failures),
)

_BY_REASON: tuple[tuple[str, tuple[str, ...], Callable[[VersionStatistics], Iterable[int]]], ...] = (
    ("nv_inference_request_failure", tuple(each.value for each in FailureReason), lambda s: s.failures.values()),
    ("tensorquay_rejected_total", tuple(each.value for each in Rejection), lambda s: s.rejected.values()),
)

_HISTOGRAMS: tuple[tuple[str, tuple[int, ...], int, Callable[[VersionStatistics], Histogram]], ...] = (
    ("tensorquay_request_seconds", TIME_BUCKETS_NS, 10**9, lambda s: s.request_time),
    ("tensorquay_queue_seconds", TIME_BUCKETS_NS, 10**9, lambda s: s.queue_time),
    ("tensorquay_compute_seconds", TIME_BUCKETS_NS, 10**9, lambda s: s.compute_time),
    ("tensorquay_compute_input_seconds", TIME_BUCKETS_NS, 10**9, lambda s: s.input_time),
    ("tensorquay_compute_infer_seconds", TIME_BUCKETS_NS, 10**9, lambda s: s.infer_time),
    ("tensorquay_compute_output_seconds", TIME_BUCKETS_NS, 10**9, lambda s: s.output_time),
    ("tensorquay_batch_rows", ROW_BUCKETS, 1, lambda s: s.batch_rows),
)


_TURN = 64
"""Versions of one family, or new versions' templates by a sixteenth, that are written before others have their turn."""


@dataclass(frozen=True, slots=True)
class _Templates:
    """One version's lines with a place for each number, in the order of `_SINGLE`, `_BY_REASON`, `_HISTOGRAMS`."""

    labels: Labels
    single: tuple[str, ...]
    by_reason: tuple[str, ...]
    histograms: tuple[str, ...]


_Fill: TypeAlias = Callable[[_Templates, VersionStatistics], str]


class VersionPage:
    """Keeps the templates of every version in the table: about 17 KB each. Loop-confined.

    Args: tags: asked at each scrape; a version whose tags changed gets new templates.
    """

    def __init__(self, table: StatisticsTable, tags: Tags) -> None:
        self._table = table
        self._tags = tags
        self._known: dict[VersionKey, _Templates] = {}

    def labels(self, key: VersionKey) -> Labels:
        """What every line of that version carries."""
        return {"model": key.name, "version": str(key.version), **self._tags(key.name)}

    def write(self, page: Page) -> Iterator[None]:
        """Every family of the table, versions by name and number; a step is about a millisecond of work."""
        versions: list[tuple[_Templates, VersionStatistics]] = []
        for count, stats in enumerate(self._table.all(), 1):
            versions.append((self._templates(stats.key), stats))
            if count % (_TURN // 16) == 0:
                yield
        if len(self._known) > len(versions):
            # Of versions that the table has forgotten.
            there = {stats.key for _, stats in versions}
            self._known = {key: made for key, made in self._known.items() if key in there}
        turns = [versions[start : start + _TURN] for start in range(0, len(versions), _TURN)]
        for name, fill in _FILLS:
            lines: list[str] = []
            for turn in turns:
                lines += [fill(made, stats) for made, stats in turn]
                if len(turn) == _TURN:
                    yield
            page.lines(name, lines)

    def _templates(self, key: VersionKey) -> _Templates:
        labels = self.labels(key)
        known = self._known.get(key)
        if known is None or known.labels != labels:
            known = self._known[key] = _made(labels)
        return known


def _made(labels: Labels) -> _Templates:
    plain = _as_template(labels_text(labels))
    by_reason, by_bound = _around(labels, "reason"), _around(labels, "le")
    for name, _ in _SINGLE:
        check_labels(FAMILIES[name], labels)
    for name, _, _ in _BY_REASON:
        check_labels(FAMILIES[name], {**labels, "reason": ""})
    for name, _, _, _ in _HISTOGRAMS:
        check_labels(FAMILIES[name], labels)
    return _Templates(
        labels,
        tuple(f"{name}{plain} %s" for name, _ in _SINGLE),
        tuple(
            "\n".join(f"{name}{by_reason[0]}{reason}{by_reason[1]} %s" for reason in reasons)
            for name, reasons, _ in _BY_REASON
        ),
        tuple(_histogram(name, bounds, unit, plain, by_bound) for name, bounds, unit, _ in _HISTOGRAMS),
    )


def _single(place: int, value: Callable[[VersionStatistics], float]) -> _Fill:
    def fill(made: _Templates, stats: VersionStatistics) -> str:
        found = value(stats)
        # Whole numbers write themselves.
        return made.single[place] % (found if type(found) is int else number(found))

    return fill


def _by_reason(place: int, counts: Callable[[VersionStatistics], Iterable[int]]) -> _Fill:
    return lambda made, stats: made.by_reason[place] % tuple(counts(stats))


def _in_buckets(place: int, unit: int, histogram: Callable[[VersionStatistics], Histogram]) -> _Fill:
    return lambda made, stats: made.histograms[place] % _values(histogram(stats), unit)


def _values(histogram: Histogram, unit: int) -> tuple[object, ...]:
    counts = tuple(accumulate(histogram.counts))
    return (*counts, number(histogram.total / unit), counts[-1])


def _histogram(name: str, bounds: tuple[int, ...], unit: int, plain: str, around: tuple[str, str]) -> str:
    buckets, total, count = histogram_names(FAMILIES[name])
    ends = (*(number(bound / unit) for bound in bounds), "+Inf")
    lines = [f"{buckets}{around[0]}{end}{around[1]} %s" for end in ends]
    return "\n".join((*lines, f"{total}{plain} %s", f"{count}{plain} %s"))


def _around(labels: Labels, name: str) -> tuple[str, str]:
    """The text of `labels` and one more, `name`, before and after the value of that one."""
    hole = "\0"  # stands for the value; a metric tag may hold anything
    while any(hole in value for value in labels.values()):
        hole += "\0"
    before, after = labels_text({**labels, name: hole}).split(hole)
    return _as_template(before), _as_template(after)


def _as_template(text: str) -> str:
    return text.replace("%", "%%")


_FILLS: tuple[tuple[str, _Fill], ...] = (
    *((name, _single(place, value)) for place, (name, value) in enumerate(_SINGLE)),
    *((name, _by_reason(place, counts)) for place, (name, _, counts) in enumerate(_BY_REASON)),
    *((name, _in_buckets(place, unit, found)) for place, (name, _, unit, found) in enumerate(_HISTOGRAMS)),
)
"""Every family, and how a version's lines of it are written."""
