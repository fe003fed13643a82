"""Every family of metrics this server can write: one table for the page that is scraped and for its reference.

Nothing else may be written (`exposition.Page`). Names with `nv_` are Triton's, exactly; where one of ours says the same
in base units, each names the other. Per-version families also carry the model's `metric_tags` as labels `_<tag>`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


class Kind(enum.Enum):
    """Prometheus' types, as the page spells them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Group(enum.Enum):
    """Where a family belongs; also the sections of the reference."""

    TRITON = "Triton's names"
    REQUESTS = "Requests and runs"
    MODELS = "Models"
    SERVER = "The server"
    CONTAINER = "Container and process"


ALWAYS = "always"
PER_VERSION = "per version, from its first load until ten minutes after it was unloaded"
PER_READY = "per version that is READY"
PER_INDEX = "per version in the repository index; of a model that is refused as a whole without a version"


@dataclass(frozen=True, slots=True)
class Family:
    """One family.

    Attributes:
        labels: its own, without metric tags and without a histogram's `le`.
        unit: of its values (for counters of events, the event).
        present: when it is on the page.
        same_as: the family that says the same under another name or in another unit; empty when there is none.
    """

    name: str
    kind: Kind
    group: Group
    help: str
    unit: str
    labels: tuple[str, ...]
    present: str
    same_as: str = ""


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_VERSION = ("model", "version")
_UNDER_LIMIT = "where the container has a CPU limit"

_TABLE = (
    # -- Triton's
    Family(
        "nv_inference_request_success", _C, Group.TRITON, "Requests answered", "requests", _VERSION, PER_VERSION,
        "tensorquay_request_seconds",
    ),
    Family(
        "nv_inference_request_failure", _C, Group.TRITON,
        "Requests not answered, by reason: REJECTED, CANCELED, BACKEND, OTHER",
        "requests", (*_VERSION, "reason"), PER_VERSION,
    ),
    Family(
        "nv_inference_count", _C, Group.TRITON, "Batch elements run through the model", "rows", _VERSION, PER_VERSION,
        "tensorquay_batch_rows",
    ),
    Family(
        "nv_inference_exec_count", _C, Group.TRITON, "Runs of the model, each of one batch", "runs", _VERSION,
        PER_VERSION, "tensorquay_batch_rows",
    ),
    Family(
        "nv_inference_request_duration_us", _C, Group.TRITON,
        "Cumulative time of answered requests, in microseconds", "microseconds", _VERSION, PER_VERSION,
        "tensorquay_request_seconds",
    ),
    Family(
        "nv_inference_queue_duration_us", _C, Group.TRITON,
        "Cumulative time answered requests waited in the queue, in microseconds", "microseconds", _VERSION, PER_VERSION,
        "tensorquay_queue_seconds",
    ),
    Family(
        "nv_inference_compute_input_duration_us", _C, Group.TRITON,
        "Cumulative time to prepare inputs, per answered request, in microseconds", "microseconds", _VERSION,
        PER_VERSION,
    ),
    Family(
        "nv_inference_compute_infer_duration_us", _C, Group.TRITON,
        "Cumulative time of runs, per answered request, in microseconds", "microseconds", _VERSION, PER_VERSION,
    ),
    Family(
        "nv_inference_compute_output_duration_us", _C, Group.TRITON,
        "Cumulative time to take outputs, per answered request, in microseconds", "microseconds", _VERSION, PER_VERSION,
    ),
    Family(
        "nv_inference_pending_request_count", _G, Group.TRITON, "Requests waiting to be run", "requests", _VERSION,
        PER_VERSION, "tensorquay_queue_requests",
    ),
    Family(
        "nv_model_load_duration_secs", _G, Group.TRITON, "Time the last load took, in seconds", "seconds", _VERSION,
        PER_VERSION,
    ),
    Family(
        "nv_cpu_utilization", _G, Group.TRITON,
        "CPU use of the whole machine since the last scrape that is a second ago, 0 to 1", "ratio", (),
        "where /proc tells",
    ),
    Family(
        "nv_cpu_memory_total_bytes", _G, Group.TRITON, "Main memory of the machine", "bytes", (), "where /proc tells",
    ),
    Family(
        "nv_cpu_memory_used_bytes", _G, Group.TRITON, "Main memory of the machine in use", "bytes", (),
        "where /proc tells",
    ),
    # -- requests and runs
    Family(
        "tensorquay_request_seconds", _H, Group.REQUESTS, "From arrival to answer, per answered request", "seconds",
        _VERSION, PER_VERSION, "nv_inference_request_duration_us",
    ),
    Family(
        "tensorquay_queue_seconds", _H, Group.REQUESTS, "In the queue, per answered request", "seconds", _VERSION,
        PER_VERSION, "nv_inference_queue_duration_us",
    ),
    Family(
        "tensorquay_compute_seconds", _H, Group.REQUESTS, "Preparing inputs, running and taking outputs, per run",
        "seconds", _VERSION, PER_VERSION,
    ),
    Family(
        "tensorquay_compute_input_seconds", _H, Group.REQUESTS, "Preparing the inputs of a batch, per run", "seconds",
        _VERSION, PER_VERSION,
    ),
    Family(
        "tensorquay_compute_infer_seconds", _H, Group.REQUESTS, "Running the model, per run", "seconds", _VERSION,
        PER_VERSION,
    ),
    Family(
        "tensorquay_compute_output_seconds", _H, Group.REQUESTS, "Taking and dividing the outputs of a batch, per run",
        "seconds", _VERSION, PER_VERSION,
    ),
    Family(
        "tensorquay_batch_rows", _H, Group.REQUESTS, "Batch elements per run of the model", "rows", _VERSION,
        PER_VERSION, "nv_inference_count",
    ),
    Family(
        "tensorquay_queue_requests", _G, Group.REQUESTS, "Requests waiting to be run", "requests", _VERSION,
        PER_VERSION, "nv_inference_pending_request_count",
    ),
    Family(
        "tensorquay_queue_oldest_seconds", _G, Group.REQUESTS,
        "How long the longest waiting request has waited; 0 when none waits", "seconds", _VERSION, PER_READY,
    ),
    Family(
        "tensorquay_offered_rows_total", _C, Group.REQUESTS,
        "Batch elements that arrived to be run: those that were run, and those turned away for lack of capacity",
        "rows", _VERSION, PER_VERSION,
    ),
    Family(
        "tensorquay_rejected_total", _C, Group.REQUESTS,
        "Requests turned away or left unserved by a version, by the bound that was reached", "requests",
        (*_VERSION, "reason"), PER_VERSION,
    ),
    Family(
        "tensorquay_refused_requests_total", _C, Group.REQUESTS,
        "Inference requests answered with an error before any version counted them, by the kind of error", "requests",
        ("reason",), ALWAYS,
    ),
    Family(
        "tensorquay_admission_rejected_total", _C, Group.REQUESTS,
        "Requests refused because the server holds as many requests or bytes as it may", "requests", ("reason",),
        ALWAYS,
    ),
    Family(
        "tensorquay_inflight_requests", _G, Group.REQUESTS, "Requests inside the server", "requests", (), ALWAYS,
    ),
    Family(
        "tensorquay_inflight_bytes", _G, Group.REQUESTS, "Input bytes of the requests inside the server", "bytes", (),
        ALWAYS,
    ),
    # -- models
    Family(
        "tensorquay_model_state", _G, Group.MODELS, "1 for the state a version is in, 0 for the others", "1",
        (*_VERSION, "state"), PER_INDEX,
    ),
    Family(
        "tensorquay_model_failed", _G, Group.MODELS,
        "1 when what the repository holds could not be loaded or was refused, whether or not something older serves; "
        "the repository index has the reason", "1", _VERSION, PER_INDEX,
    ),
    Family(
        "tensorquay_model_loads_total", _C, Group.MODELS, "Loads that succeeded", "loads", _VERSION, PER_VERSION,
    ),
    Family(
        "tensorquay_model_load_failures_total", _C, Group.MODELS, "Loads that failed", "loads", _VERSION, PER_VERSION,
    ),
    Family(
        "tensorquay_model_swaps_total", _C, Group.MODELS,
        "Replacements of a serving version: swapped, or failed with the old one serving on", "swaps",
        ("model", "result"), "per model, as long as one of its versions",
    ),
    Family(
        "tensorquay_model_bytes", _G, Group.MODELS, "Size of the files the version was loaded from, weights included",
        "bytes", _VERSION, "per version that is READY, where the backend tells",
    ),
    Family(
        "tensorquay_provider_node_share", _G, Group.MODELS,
        "Share of the graph's nodes an execution provider runs, counted when nodes were assigned, before later fusions",
        "ratio", (*_VERSION, "provider"), "per version that is READY, where the backend tells",
    ),
    Family(
        "tensorquay_imports_total", _C, Group.MODELS, "Imports of dropped models, by result", "imports", ("result",),
        "with --auto-import",
    ),
    Family(
        "tensorquay_imports_running", _G, Group.MODELS, "Imports under way", "imports", (), "with --auto-import",
    ),
    Family(
        "tensorquay_optimizations_total", _C, Group.MODELS, "Background optimisations, by result", "optimisations",
        ("result",), "with --auto-optimize",
    ),
    Family(
        "tensorquay_optimizations_running", _G, Group.MODELS, "Background optimisations under way", "optimisations",
        (), "with --auto-optimize",
    ),
    # -- the server
    Family(
        "tensorquay_utilization", _G, Group.SERVER,
        "Offered load by what this server can do, mean of the last 30 s: 1 is all of it, above 1 it is turning "
        "requests away or falling behind; scale on it",
        "ratio", (), ALWAYS,
    ),
    Family(
        "tensorquay_frontends", _G, Group.SERVER, "Front-end processes that accept connections", "processes", (),
        "with --frontends",
    ),
    Family(
        "tensorquay_frontend_restarts_total", _C, Group.SERVER,
        "Front-end processes started in the place of one that had ended", "processes", (), "with --frontends",
    ),
    Family(
        "tensorquay_trace_spans_sent_total", _C, Group.SERVER, "Spans that the collector has taken", "spans", (),
        "with --trace-mode opentelemetry",
    ),
    Family(
        "tensorquay_trace_spans_dropped_total", _C, Group.SERVER,
        "Spans that were lost: too many waited, or the collector refused them", "spans", (),
        "with --trace-mode opentelemetry",
    ),
    Family(
        "tensorquay_build_info", _G, Group.SERVER, "What is running; always 1", "1", ("python", "version"), ALWAYS,
    ),
    # -- container and process
    Family(
        "tensorquay_container_cpu_seconds_total", _C, Group.CONTAINER, "CPU time the container has used", "seconds",
        (), "in a cgroup",
    ),
    Family(
        "tensorquay_container_cpu_periods_total", _C, Group.CONTAINER,
        "Periods of the CPU limit in which the container ran", "periods", (), _UNDER_LIMIT,
    ),
    Family(
        "tensorquay_container_cpu_throttled_periods_total", _C, Group.CONTAINER,
        "Periods in which the container was stopped because its CPU limit was used up", "periods", (), _UNDER_LIMIT,
    ),
    Family(
        "tensorquay_container_cpu_throttled_seconds_total", _C, Group.CONTAINER,
        "How long threads of the container were stopped by its CPU limit, all threads added up", "seconds", (),
        _UNDER_LIMIT,
    ),
    Family(
        "tensorquay_container_cpu_limit_cores", _G, Group.CONTAINER, "The container's CPU limit", "cores", (),
        _UNDER_LIMIT,
    ),
    Family(
        "tensorquay_container_memory_bytes", _G, Group.CONTAINER,
        "Memory the container uses, without file pages that the kernel may drop", "bytes", (), "in a cgroup",
    ),
    Family(
        "tensorquay_container_memory_limit_bytes", _G, Group.CONTAINER, "The container's memory limit", "bytes", (),
        "where the container has a memory limit",
    ),
    Family(
        "process_cpu_seconds_total", _C, Group.CONTAINER, "CPU time of the process, user and system", "seconds", (),
        "on Linux",
    ),
    Family(
        "process_virtual_memory_bytes", _G, Group.CONTAINER, "Virtual memory of the process", "bytes", (), "on Linux",
    ),
    Family(
        "process_resident_memory_bytes", _G, Group.CONTAINER, "Resident memory of the process", "bytes", (), "on Linux",
    ),
    Family(
        "process_start_time_seconds", _G, Group.CONTAINER, "When the process began, in seconds since 1970", "seconds",
        (), "on Linux",
    ),
    Family(
        "process_open_fds", _G, Group.CONTAINER, "Open file descriptors of the process", "descriptors", (), "on Linux",
    ),
    Family(
        "process_max_fds", _G, Group.CONTAINER, "Most file descriptors the process may open", "descriptors", (),
        "on Linux",
    ),
)  # fmt: skip

FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _TABLE})
"""By name."""
