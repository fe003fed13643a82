"""OpenTelemetry tracing of this process, put together: what begins traces, and what becomes of them when they end.

Exists only while it is on. What is traced is in `core/request_trace.py`, which requests in `trace_sampling.py`.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping

from tensorquay.config.otel import OtelSettings, otel_settings
from tensorquay.config.server import ServerConfig
from tensorquay.core.clock import Clock
from tensorquay.core.errors import ServingError
from tensorquay.core.request_trace import RequestTrace
from tensorquay.telemetry.otlp_encode import SpanEncoder
from tensorquay.telemetry.otlp_http import OtlpSender
from tensorquay.telemetry.span_export import SpanExporter
from tensorquay.telemetry.trace_sampling import RequestSampler, SamplingRule

_log = logging.getLogger("tensorquay.tracing")


class TracingUnusable(ServingError):
    """What tracing needs cannot be used; the server does not start without what it was told to do."""


class SpanRecorder:
    """See the module. Loop-confined; owner: `app.py`. Close it.

    Attributes:
        rule: what is sampled.
        sampler: begins the traces of requests that come in by this process.
    Raises: TracingUnusable for certificates that cannot be read, and when there can be no thread.
    """

    def __init__(self, settings: OtelSettings, *, version: str, clock: Clock) -> None:
        resource = {
            "service.version": version,
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            "host.name": socket.gethostname(),
            "process.pid": str(os.getpid()),
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "tensorquay",
            "telemetry.sdk.version": version,
            **settings.resource,
        }
        try:
            sender = OtlpSender(settings.collector, agent=f"tensorquay/{version}")
        except OSError as error:  # ssl.SSLError is one
            raise TracingUnusable(
                f"spans cannot be sent: the collector's certificate files cannot be read ({error.strerror or error}); "
                "check OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE and _CLIENT_KEY"
            ) from error
        # Mapped once: spans of one server then keep their order and lengths, whatever is done to the wall clock.
        offset_ns = time.time_ns() - clock.now_ns()
        try:
            self._exporter = SpanExporter(
                sender,
                SpanEncoder(resource, version=version, wall_offset_ns=offset_ns),
                queue_spans=settings.queue_spans,
                batch_spans=settings.batch_spans,
                delay_s=settings.delay_s,
            )
        except RuntimeError as error:
            raise TracingUnusable(
                f"spans cannot be sent: their thread cannot be started ({error}); the container's or the user's limit "
                "of processes (pids.max, ulimit -u) is reached"
            ) from error
        self.rule = SamplingRule(settings.ratio, settings.follow, settings.followed_per_s)
        self.sampler = RequestSampler(self.rule, self.ended)

    def counts(self) -> tuple[int, int]:
        """Spans that the collector took, and those that were lost, so far."""
        return self._exporter.sent, self._exporter.dropped

    def ended(self, trace: RequestTrace) -> None:
        """A request is answered."""
        self._exporter.put(trace)

    def ids(self) -> tuple[bytes, bytes]:
        """See `RequestSampler.ids`."""
        return self.sampler.ids()

    def close(self) -> None:
        """Send what waits, within about a second."""
        self._exporter.close()


def span_recorder(
    config: ServerConfig, environment: Mapping[str, str], *, version: str, clock: Clock
) -> SpanRecorder | None:
    """What `config` and OpenTelemetry's variables in `environment` ask for, None when nothing is traced.

    Raises: TracingUnusable.
    """
    settings, problems = otel_settings(config, environment)
    for problem in problems:
        _log.warning("%s", problem, extra={"event": "otel_variable"})
    return None if settings is None else SpanRecorder(settings, version=version, clock=clock)
