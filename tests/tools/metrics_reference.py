"""docs/reference/metrics.md: the table of families, the enums behind their labels, and what the utilization is."""

from __future__ import annotations

import inspect

from tests.tools.markdown_tables import NOTICE, table

from tensorquay.core.errors import ErrorKind, Rejection
from tensorquay.telemetry import utilization
from tensorquay.telemetry.families import FAMILIES, Family, Group, Kind
from tensorquay.telemetry.server_page import STATES
from tensorquay.telemetry.statistics import ROW_BUCKETS, TIME_BUCKETS_NS, FailureReason

_HEAD = f"""# Metrics

{NOTICE} [Operations](../operations.md#metrics) says how to use them.

`GET /metrics` on the metrics port, Prometheus text format 0.0.4. Families with labels `model` and `version` also carry
the model's `metric_tags` as labels `_<tag>`. Counters begin at 0 with the process; those of a version stay when it is
loaded again, and begin anew when it was unloaded for more than ten minutes. A histogram has `_bucket`, `_sum` and
`_count`.
"""

_REJECTIONS = {
    Rejection.QUEUE_FULL: "the queue holds as many as the model's `max_queue_size` allows",
    Rejection.SERVER_QUEUE_FULL: "the queue holds as many as `--max-queue-requests` allows",
    Rejection.QUEUE_TIMEOUT: "it waited longer than the model's queue policy or its own `timeout` allows",
    Rejection.DEADLINE: "the client's deadline passed while it waited",
    Rejection.INFLIGHT_REQUESTS: "the server holds as many requests as `--max-inflight-requests` allows",
    Rejection.INFLIGHT_BYTES: "the server holds as many bytes as `--max-inflight-bytes` allows",
    Rejection.UNLOADING: "the version was being unloaded",
    Rejection.OTHER: "anything else that is unavailable, said by a backend",
}
_FAILURES = {
    FailureReason.REJECTED: "turned away or out of time in the queue",
    FailureReason.CANCELED: "the client left, or its deadline passed",
    FailureReason.BACKEND: "the model failed",
    FailureReason.OTHER: "the request was wrong",
}


def metrics_reference() -> str:
    """The page."""
    parts = [_HEAD]
    for group in Group:
        parts += [f"## {group.value}\n", _families([f for f in FAMILIES.values() if f.group is group])]
    parts += [
        "## Values of labels\n",
        _values(),
        "## Buckets\n",
        _buckets(),
        "## `tensorquay_utilization`\n",
        _definition(),
    ]
    return "\n".join(parts)


def _families(families: list[Family]) -> str:
    rows: list[tuple[str, ...]] = []
    for family in families:
        text = f"{family.help}."
        if family.same_as:
            text += f" See also `{family.same_as}`."
        rows.append(
            (
                f"`{family.name}`",
                family.kind.value,
                ", ".join(f"`{label}`" for label in family.labels) or "none",
                family.unit,
                text,
                family.present,
            )
        )
    return _table("name", "type", "labels", "unit", "meaning", "present", rows=rows)


def _table(*heads: str, rows: list[tuple[str, ...]]) -> str:
    return "\n".join(table(heads, rows))


def _values() -> str:
    rows: list[tuple[str, ...]] = [
        (f"`{each.value}`", "`nv_inference_request_failure`", _FAILURES[each]) for each in FailureReason
    ]
    rows += [(f"`{each.value}`", "`tensorquay_rejected_total`", _REJECTIONS[each]) for each in Rejection]
    rows += [(f"`{kind.name.lower()}`", "`tensorquay_refused_requests_total`", kind.value) for kind in ErrorKind]
    rows += [
        ("`requests`, `bytes`", "`tensorquay_admission_rejected_total`", "which of the two bounds on what is inside"),
        (", ".join(f"`{state}`" for state in STATES), "`tensorquay_model_state`", "as in the repository index"),
        ("`swapped`, `failed`", "`tensorquay_model_swaps_total`", "it took place; it failed and the old one serves on"),
        (
            "`imported`, `reused`, `failed`, `stopped`",
            "`tensorquay_imports_total`",
            "`reused`: the same files were imported before",
        ),
        (
            "`optimized`, `kept`, `failed`, `stopped`",
            "`tensorquay_optimizations_total`",
            "`kept`: nothing better was found",
        ),
    ]
    return _table("value", "of", "meaning", rows=rows)


def _buckets() -> str:
    seconds = ", ".join(f"{bound / 1e9:g}" for bound in TIME_BUCKETS_NS)
    rows = ", ".join(str(bound) for bound in ROW_BUCKETS)
    timed = sum(f.kind is Kind.HISTOGRAM and f.unit == "seconds" for f in FAMILIES.values())
    return f"The {timed} histograms in seconds: {seconds}, +Inf.\n\n`tensorquay_batch_rows`: {rows}, +Inf.\n"


def _definition() -> str:
    text = inspect.getdoc(utilization) or ""
    return (
        f"{text.strip()}\n\nIt is a mean over the last {utilization.WINDOW_S:.0f} to "
        f"{utilization.WINDOW_S + utilization.TICK_S:.0f} seconds, whoever scrapes and how often.\n"
    )
