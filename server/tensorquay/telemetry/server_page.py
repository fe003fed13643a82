"""What the page says beside the statistics table: states, loaded models, refusals, processes, container, machine.

`ServerFigures` are callables of the composition root, each asked once per scrape; what is None is not on the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from tensorquay.core.ids import VersionKey
from tensorquay.telemetry import machine
from tensorquay.telemetry.container import Container
from tensorquay.telemetry.exposition import Labels, Page, check_labels, labels_text
from tensorquay.telemetry.families import FAMILIES
from tensorquay.telemetry.jobs import JobCounters
from tensorquay.telemetry.statistics import StatisticsTable

STATES = ("UNKNOWN", "LOADING", "READY", "UNLOADING", "UNAVAILABLE")


@dataclass(frozen=True, slots=True)
class VersionState:
    """A version and what the repository index shows for it; without a version: a model that is refused as a whole.

    `failed`: what the repository holds of it could not be loaded, or was refused.
    """

    model: str
    version: str
    state: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class ReadyVersion:
    """A version that answers.

    Attributes:
        slots: runs it can do at once. inline: they happen on the event loop.
        oldest_ns: when the longest waiting request began to wait, on the server's clock; None when none waits.
        node_shares: provider → share of the graph's nodes; empty when the backend cannot tell.
        file_bytes: size of the files it was loaded from; 0 when the backend cannot tell.
    """

    key: VersionKey
    slots: int
    inline: bool
    oldest_ns: int | None = None
    node_shares: Mapping[str, float] = field(default_factory=dict)
    file_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What to ask at each scrape.

    Attributes:
        states: the versions in the index.
        ready: the versions that answer.
        rejected: requests refused by admission control, by bound.
        inflight: requests and input bytes inside the server.
        frontends: front-end processes alive, and restarts so far.
        spans: sent to the collector, and lost.
        utilization: see `telemetry/utilization.py`.
        imports, optimizations: of the services, where they are on.
    """

    states: Callable[[], Iterable[VersionState]]
    ready: Callable[[], Iterable[ReadyVersion]] = tuple
    rejected: Callable[[], Mapping[str, int]] | None = None
    inflight: Callable[[], tuple[int, int]] | None = None
    frontends: Callable[[], tuple[int, int]] | None = None
    spans: Callable[[], tuple[int, int]] | None = None
    utilization: Callable[[], float] | None = None
    imports: JobCounters | None = None
    optimizations: JobCounters | None = None


class ServerPage:
    """Writes those families. Owns its registry of process figures, never the default one. Loop-confined.

    Args:
        labels: what lines of a version carry.
        build: labels of tensorquay_build_info.
        root: where `proc` and `sys` are found.
    """

    def __init__(
        self,
        table: StatisticsTable,
        figures: ServerFigures,
        *,
        labels: Callable[[VersionKey], Labels],
        build: Mapping[str, str],
        root: Path = Path("/"),
    ) -> None:
        self._table = table
        self._figures = figures
        self._labels = labels
        self._build = build
        self._states: dict[tuple[str, str], tuple[VersionState, tuple[str, str]]] = {}
        self._proc = root / "proc"
        self._cpu = machine.CpuMeter(self._proc)
        self._container = Container(root)
        self._process = ProcessCollector(registry=CollectorRegistry(auto_describe=False))

    def write(self, page: Page) -> Iterator[None]:
        """Every family that there is something to say of; a step is some microseconds per version."""
        page.family("tensorquay_build_info", [(self._build, 1)])
        yield from self._models(page)
        self._requests(page)
        self._services(page)
        self._machine(page)
        self._in_container(page)

    def _models(self, page: Page) -> Iterator[None]:
        # By name, because a page with the same series twice is refused as a whole.
        states = self._state_lines({(each.model, each.version): each for each in self._figures.states()})
        page.lines("tensorquay_model_state", [lines for lines, _ in states])
        page.lines("tensorquay_model_failed", [line for _, line in states])
        yield
        now_ns = self._table.clock.now_ns()
        ready = [(self._labels(each.key), each) for each in self._figures.ready()]
        page.family(
            "tensorquay_queue_oldest_seconds",
            (
                (labels, 0 if each.oldest_ns is None else max(now_ns - each.oldest_ns, 0) / 1e9)
                for labels, each in ready
            ),
        )
        yield
        page.family("tensorquay_model_bytes", ((labels, each.file_bytes) for labels, each in ready if each.file_bytes))
        yield
        page.family(
            "tensorquay_provider_node_share",
            (
                ({**labels, "provider": provider}, share)
                for labels, each in ready
                for provider, share in each.node_shares.items()
            ),
        )
        yield
        page.family(
            "tensorquay_model_swaps_total",
            (
                ({"model": model, "result": result}, count)
                for model, swaps in sorted(self._table.swaps.items())
                for result, count in (("swapped", swaps.swapped), ("failed", swaps.failed))
            ),
        )

    def _state_lines(self, index: Mapping[tuple[str, str], VersionState]) -> list[tuple[str, str]]:
        """Five lines and one per version, which change so rarely that they are kept while the version is as it was."""
        before, self._states = self._states, {}
        for key, current in index.items():
            kept = before.get(key)
            self._states[key] = kept if kept is not None and kept[0] == current else (current, _states(current))
        return [lines for _, lines in self._states.values()]

    def _requests(self, page: Page) -> None:
        page.family(
            "tensorquay_refused_requests_total",
            (({"reason": kind.name.lower()}, count) for kind, count in self._table.refusals.items()),
        )
        figures = self._figures
        if figures.rejected is not None:
            page.family(
                "tensorquay_admission_rejected_total",
                (({"reason": reason}, count) for reason, count in sorted(figures.rejected().items())),
            )
        if figures.inflight is not None:
            requests, input_bytes = figures.inflight()
            page.family("tensorquay_inflight_requests", [({}, requests)])
            page.family("tensorquay_inflight_bytes", [({}, input_bytes)])

    def _services(self, page: Page) -> None:
        figures = self._figures
        if figures.utilization is not None:
            page.family("tensorquay_utilization", [({}, figures.utilization())])
        for what, counters in (("imports", figures.imports), ("optimizations", figures.optimizations)):
            if counters is not None:
                counts = (({"result": result}, count) for result, count in counters.by_result.items())
                page.family(f"tensorquay_{what}_total", counts)
                page.family(f"tensorquay_{what}_running", [({}, counters.running)])
        if figures.frontends is not None:
            alive, restarts = figures.frontends()
            page.family("tensorquay_frontends", [({}, alive)])
            page.family("tensorquay_frontend_restarts_total", [({}, restarts)])
        if figures.spans is not None:
            sent, dropped = figures.spans()
            page.family("tensorquay_trace_spans_sent_total", [({}, sent)])
            page.family("tensorquay_trace_spans_dropped_total", [({}, dropped)])

    def _machine(self, page: Page) -> None:
        share, memory = self._cpu.read(), machine.memory(self._proc)
        _one(page, "nv_cpu_utilization", share)
        if memory is not None:
            _one(page, "nv_cpu_memory_total_bytes", memory.total)
            _one(page, "nv_cpu_memory_used_bytes", memory.used)

    def _in_container(self, page: Page) -> None:
        now = self._container.read()
        _one(page, "tensorquay_container_cpu_seconds_total", now.cpu_seconds)
        _one(page, "tensorquay_container_cpu_periods_total", now.cpu_periods)
        _one(page, "tensorquay_container_cpu_throttled_periods_total", now.cpu_throttled_periods)
        _one(page, "tensorquay_container_cpu_throttled_seconds_total", now.cpu_throttled_seconds)
        _one(page, "tensorquay_container_cpu_limit_cores", now.cpu_limit_cores)
        _one(page, "tensorquay_container_memory_bytes", now.memory_bytes)
        _one(page, "tensorquay_container_memory_limit_bytes", now.memory_limit_bytes)
        for metric in self._process.collect():
            for sample in metric.samples:
                # What a newer prometheus_client adds is not declared here, and no reason to have no page.
                if sample.name in FAMILIES:
                    _one(page, sample.name, sample.value)


def _states(current: VersionState) -> tuple[str, str]:
    """The lines of tensorquay_model_state and the one of tensorquay_model_failed."""
    own = {"model": current.model, "version": current.version}
    lines = [_line("tensorquay_model_state", {**own, "state": each}, current.state == each) for each in STATES]
    return "\n".join(lines), _line("tensorquay_model_failed", own, current.failed)


def _line(name: str, labels: Labels, holds: bool) -> str:
    check_labels(FAMILIES[name], labels)
    return f"{name}{labels_text(labels)} {int(holds)}"


def _one(page: Page, name: str, value: float | None) -> None:
    if value is not None:
        page.family(name, [({}, value)])
