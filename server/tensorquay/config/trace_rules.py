"""Which trace settings go together: files and spans have their own, and each mode refuses what it cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorquay.config.server import ServerConfig

_OF_FILES = ("trace_file", "trace_log_frequency")
_OF_SPANS = (
    "trace_parent_limit",
    "otlp_endpoint",
    "otel_resource",
    "otel_max_queue_size",
    "otel_schedule_delay_ms",
    "otel_max_export_batch_size",
)


def trace_problem(config: ServerConfig) -> str | None:
    """Why the trace settings cannot be obeyed, or None."""
    if config.trace_mode.value == "opentelemetry":
        if "TENSORS" in config.trace_level:
            return "trace_level TENSORS needs trace_mode triton: spans never hold what clients send"
        if config.trace_count != -1:
            return "trace_count needs trace_mode triton; spans are bounded by trace_rate and otel_max_queue_size"
        return None
    if config.trace_rate == 0:
        return "trace_rate 0 needs trace_mode opentelemetry, expected at least 1"
    if config.trace_level != ("OFF",) and config.trace_file is None:
        return f"trace_level {', '.join(config.trace_level)} needs trace_file, the file to write to"
    return None


def unused_trace_settings(config: ServerConfig) -> list[str]:
    """Sentences about settings that were given and belong to the other mode."""
    spans = config.trace_mode.value == "opentelemetry"
    names, mode = (_OF_FILES, "triton") if spans else (_OF_SPANS, "opentelemetry")
    given = [name for name in names if name in config.model_fields_set]
    return [f"{name} has no effect: it is for trace_mode {mode}" for name in given]
