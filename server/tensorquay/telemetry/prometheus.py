"""The page that Prometheus scrapes: Triton's names exactly, and our own histograms in seconds.

Reads the statistics table when asked; the hot path knows nothing of metrics. Owns its registry, never the default one.
Called on the event loop, which owns the table. Names and labels: docs/operations.md, "Metrics".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from tensorquay.telemetry import machine
from tensorquay.telemetry.exposition import CONTENT_TYPE, Bucketed, Labels, Page
from tensorquay.telemetry.statistics import Histogram, StatisticsTable, VersionStatistics

STATES = ("UNKNOWN", "LOADING", "READY", "UNLOADING", "UNAVAILABLE")

_COUNTERS: tuple[tuple[str, str, Callable[[VersionStatistics], int]], ...] = (
    ("request_success", "Requests answered", lambda s: s.success_count),
    ("count", "Batch elements run through the model", lambda s: s.inference_count),
    ("exec_count", "Runs of the model, each of one batch", lambda s: s.execution_count),
    ("request_duration_us", "Cumulative time of answered requests, in microseconds", lambda s: s.success_ns // 1000),
    ("queue_duration_us", "Cumulative time in the queue, in microseconds", lambda s: s.queue_ns // 1000),
    ("compute_input_duration_us", "Cumulative time to prepare inputs, in microseconds", lambda s: s.input_ns // 1000),
    ("compute_infer_duration_us", "Cumulative time of runs, in microseconds", lambda s: s.infer_ns // 1000),
    ("compute_output_duration_us", "Cumulative time to take outputs, in microseconds", lambda s: s.output_ns // 1000),
)

_TIMES: tuple[tuple[str, str, Callable[[VersionStatistics], Histogram]], ...] = (
    ("tensorquay_request_seconds", "From arrival to answer, per answered request", lambda s: s.request_time),
    ("tensorquay_queue_seconds", "In the queue, per answered request", lambda s: s.queue_time),
    ("tensorquay_compute_seconds", "Preparing inputs, running and taking outputs, per run", lambda s: s.compute_time),
)


@dataclass(frozen=True, slots=True)
class VersionState:
    """A version and the state the repository index shows for it."""

    model: str
    version: str
    state: str


class Metrics:
    """Renders the page.

    Args:
        table: every version's counters.
        states: the versions there are and their states, asked at each scrape.
        tags: the metric_tags of a model by its name; each becomes a label "_<tag>", as Triton has it.
        rejected: requests refused by admission control, by reason; asked at each scrape.
        inflight: requests and input bytes inside the server now; asked at each scrape.
        frontends: front-end processes that are alive, and restarts of them so far; None when there are none.
        build: labels of tensorquay_build_info (version, python, runtime …).
    """

    def __init__(
        self,
        table: StatisticsTable,
        *,
        states: Callable[[], Iterable[VersionState]],
        build: Mapping[str, str],
        tags: Callable[[str], Mapping[str, str]] | None = None,
        rejected: Callable[[], Mapping[str, int]] | None = None,
        inflight: Callable[[], tuple[int, int]] | None = None,
        frontends: Callable[[], tuple[int, int]] | None = None,
        proc: Path = Path("/proc"),
    ) -> None:
        self._table = table
        self._states = states
        self._build = {_label_name(name): value for name, value in build.items()}
        self._tags = tags
        self._rejected = rejected
        self._inflight = inflight
        self._frontends = frontends
        self._proc = proc
        self._cpu = machine.CpuMeter(proc)
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)

    def render(self) -> tuple[bytes, str]:
        """The page and its content type. Costs about 60 lines per version."""
        page = Page()
        versions = [(self._labels_of(stats), stats) for stats in self._table.all()]
        self._triton(page, versions)
        self._own(page, versions)
        self._server(page)
        page.raw(generate_latest(self._process).decode())
        return page.encode(), CONTENT_TYPE

    def _triton(self, page: Page, versions: list[tuple[Labels, VersionStatistics]]) -> None:
        for name, help_text, value in _COUNTERS:
            page.family(f"nv_inference_{name}", "counter", help_text, ((labels, value(s)) for labels, s in versions))
        page.family(
            "nv_inference_request_failure",
            "counter",
            "Requests not answered, by reason",
            (({**labels, "reason": why.value}, n) for labels, s in versions for why, n in s.failures.items()),
        )
        page.family(
            "nv_inference_pending_request_count",
            "gauge",
            "Requests waiting to be run",
            ((labels, s.pending) for labels, s in versions),
        )
        page.family(
            "nv_model_load_duration_secs",
            "gauge",
            "Time the last load took, in seconds",
            ((labels, s.load_seconds) for labels, s in versions),
        )
        share, memory = self._cpu.read(), machine.memory(self._proc)
        if share is not None:
            page.family("nv_cpu_utilization", "gauge", "CPU use of the machine, 0 to 1", [({}, share)])
        if memory is not None:
            page.family("nv_cpu_memory_total_bytes", "gauge", "Main memory of the machine", [({}, memory.total)])
            page.family("nv_cpu_memory_used_bytes", "gauge", "Main memory in use", [({}, memory.used)])

    def _own(self, page: Page, versions: list[tuple[Labels, VersionStatistics]]) -> None:
        for name, help_text, histogram in _TIMES:
            page.histogram(name, help_text, ((labels, _seconds(histogram(s))) for labels, s in versions))
        page.histogram(
            "tensorquay_batch_rows",
            "Batch elements per run of the model",
            ((labels, _bucketed(s.batch_rows, 1)) for labels, s in versions),
        )
        page.family(
            "tensorquay_model_loads_total",
            "counter",
            "Loads that succeeded",
            ((labels, s.loads) for labels, s in versions),
        )
        page.family(
            "tensorquay_model_load_failures_total",
            "counter",
            "Loads that failed",
            ((labels, s.load_failures) for labels, s in versions),
        )

    def _server(self, page: Page) -> None:
        # By name, because a page with the same series twice is refused as a whole.
        states = {(each.model, each.version): each.state for each in self._states()}
        page.family("tensorquay_build_info", "gauge", "What is running; always 1", [(self._build, 1)])
        page.family(
            "tensorquay_model_state",
            "gauge",
            "1 for the state a version is in, 0 for the others",
            (
                ({"model": model, "version": version, "state": state}, int(current == state))
                for (model, version), current in states.items()
                for state in STATES
            ),
        )
        if self._rejected is not None:
            page.family(
                "tensorquay_admission_rejected_total",
                "counter",
                "Requests refused at the door, by the bound that was reached",
                (({"reason": reason}, count) for reason, count in sorted(self._rejected().items())),
            )
        if self._inflight is not None:
            requests, input_bytes = self._inflight()
            page.family("tensorquay_inflight_requests", "gauge", "Requests inside the server", [({}, requests)])
            page.family("tensorquay_inflight_bytes", "gauge", "Input bytes of those requests", [({}, input_bytes)])
        if self._frontends is not None:
            alive, restarts = self._frontends()
            page.family("tensorquay_frontends", "gauge", "Front-end processes that accept connections", [({}, alive)])
            page.family(
                "tensorquay_frontend_restarts_total",
                "counter",
                "Front-end processes started in the place of one that had ended",
                [({}, restarts)],
            )

    def _labels_of(self, stats: VersionStatistics) -> Labels:
        labels = {"model": stats.key.name, "version": str(stats.key.version)}
        if self._tags is not None:
            labels |= {"_" + _label_name(name): value for name, value in self._tags(stats.key.name).items()}
        return labels


def _seconds(histogram: Histogram) -> Bucketed:
    return _bucketed(histogram, 1_000_000_000)


def _bucketed(histogram: Histogram, unit: int) -> Bucketed:
    """A histogram of integers in `unit`-ths, cumulative."""
    buckets: list[tuple[float, int]] = []
    below = 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        below += count
        buckets.append((bound / unit if unit != 1 else bound, below))
    return Bucketed(tuple(buckets), histogram.total / unit if unit != 1 else histogram.total)


def _label_name(name: str) -> str:
    """A tag's name as a label's: everything a label name may not hold becomes an underscore."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)
