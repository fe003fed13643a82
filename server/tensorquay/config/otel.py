"""Where spans go and what they say of this server: our own settings, then OpenTelemetry's variables, then defaults.

A setting of ours that is wrong stops the start (`server.py`); a variable of OpenTelemetry's that is wrong is told and
left out, as its specification wants. Source: OpenTelemetry, "Environment Variable Specification", "OTLP Exporter
Configuration". Which variables are read: docs/operations.md, "Traces".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from tensorquay.config.server import ServerConfig, TraceMode
from tensorquay.config.server_values import OTLP_URL, endpoint_problem

DEFAULT_SERVICE = "tensorquay"

_MAX_VALUE = 4096
_MAX_PAIRS = 128
_PATH = "/v1/traces"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SHOWN = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Collector:
    """What is sent to, and how.

    Args:
        url: with the path. headers: sent with every request; may hold secrets.
        timeout_s: longest time of one request.
        gzip: whether requests are compressed.
        certificate, client_certificate, client_key: PEM files; None: the machine's authorities, no certificate of ours.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    gzip: bool = False
    certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None


@dataclass(frozen=True, slots=True)
class OtelSettings:
    """OpenTelemetry tracing that is on.

    Args:
        resource: attributes of this server.
        ratio: share of requests without a caller's span that are sampled.
        follow: whether a caller's decision is obeyed. followed_per_s: how many of those a second.
        queue_spans: most spans that wait. batch_spans: most in one request. delay_s: longest wait.
    """

    collector: Collector
    resource: Mapping[str, str]
    ratio: float
    follow: bool
    followed_per_s: int
    queue_spans: int
    batch_spans: int
    delay_s: float


def otel_settings(config: ServerConfig, environment: Mapping[str, str]) -> tuple[OtelSettings | None, tuple[str, ...]]:
    """What `config` and the variables ask for, None when nothing is traced; and sentences for the operator."""
    if config.trace_mode is not TraceMode.OPENTELEMETRY or not config.traces_spans:
        return None, ()
    read = _Variables(environment)
    if read.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None, ("OTEL_SDK_DISABLED is true: nothing is traced",)
    exporter = read.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    if exporter == "none":
        return None, ("OTEL_TRACES_EXPORTER is none: nothing is traced",)
    if exporter != "otlp":
        read.problem("OTEL_TRACES_EXPORTER", "otlp or none")
    ratio, follow = _sampling(config, read)
    queue = _chosen(config, "otel_max_queue_size", read, "OTEL_BSP_MAX_QUEUE_SIZE")
    batch = _chosen(config, "otel_max_export_batch_size", read, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")
    delay_ms = _chosen(config, "otel_schedule_delay_ms", read, "OTEL_BSP_SCHEDULE_DELAY")
    settings = OtelSettings(
        collector=_collector(config, read),
        resource=_resource(config, read),
        ratio=ratio,
        follow=follow,
        followed_per_s=config.trace_parent_limit,
        queue_spans=queue,
        batch_spans=min(batch, queue),
        delay_s=delay_ms / 1000,
    )
    return settings, tuple(read.problems)


class _Variables:
    """OpenTelemetry's variables. An empty one is an absent one (their specification)."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def get(self, name: str, default: str = "") -> str:
        """Its text."""
        return self._environment.get(name, "")[:_MAX_VALUE] or default

    def otlp(self, name: str) -> tuple[str, str]:
        """Text and name of OTEL_EXPORTER_OTLP_TRACES_<name>, or of OTEL_EXPORTER_OTLP_<name>."""
        own = f"OTEL_EXPORTER_OTLP_TRACES_{name}"
        value = self.get(own)
        return (value, own) if value else (self.get(f"OTEL_EXPORTER_OTLP_{name}"), f"OTEL_EXPORTER_OTLP_{name}")

    def problem(self, name: str, expected: str) -> None:
        """Its value is left out; never shown, as it may be a secret."""
        self.problems.append(f"{name} is left out: expected {expected}")

    def count(self, name: str) -> int | None:
        """A positive number, or None."""
        text = self.get(name).strip()
        if not text:
            return None
        if text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0:
            return int(text)
        self.problem(name, "a positive whole number")
        return None

    def pairs(self, text: str, name: str) -> dict[str, str]:
        """`key=value,key=value`, percent-encoded."""
        found: dict[str, str] = {}
        for entry in filter(None, (each.strip() for each in text.split(","))):
            key, equals, value = entry.partition("=")
            if not equals or not key.strip() or len(found) >= _MAX_PAIRS:
                self.problem(name, "key=value,key=value")
                return {}
            found[unquote(key.strip())] = unquote(value.strip())
        return found


def _chosen(config: ServerConfig, setting: str, read: _Variables, variable: str) -> int:
    """Ours if it was given, else OpenTelemetry's, else our default."""
    found = None if setting in config.model_fields_set else read.count(variable)
    return int(getattr(config, setting)) if found is None else found


def _collector(config: ServerConfig, read: _Variables) -> Collector:
    protocol, name = read.otlp("PROTOCOL")
    if protocol not in {"", "http/protobuf"}:
        read.problem(name, "http/protobuf, the only protocol spoken here")
    text, name = read.otlp("TIMEOUT")
    timeout_ms = read.count(name) if text else None
    text, name = read.otlp("COMPRESSION")
    if text not in {"", "none", "gzip"}:
        read.problem(name, "gzip or none")
    certificate, _ = read.otlp("CERTIFICATE")
    own, _ = read.otlp("CLIENT_CERTIFICATE")
    key, _ = read.otlp("CLIENT_KEY")
    return Collector(
        url=_url(config, read),
        headers=_headers(read),
        timeout_s=(timeout_ms or 10_000) / 1000,
        gzip=text == "gzip",
        certificate=_path(certificate),
        client_certificate=_path(own),
        client_key=_path(key),
    )


def _url(config: ServerConfig, read: _Variables) -> str:
    if config.otlp_endpoint:
        return config.otlp_endpoint
    for variable, path in (("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", _PATH)):
        given = read.get(variable).strip()
        if not given:
            continue
        problem = endpoint_problem(given)
        if problem is None:
            return given.rstrip("/") + path if path else given
        read.problem(variable, problem)
    return OTLP_URL


def _headers(read: _Variables) -> dict[str, str]:
    text, name = read.otlp("HEADERS")
    found = read.pairs(text, name)
    for key, value in found.items():
        if not _TOKEN.fullmatch(key) or not _SHOWN.fullmatch(value):
            read.problem(name, "names and values that headers may have")
            return {}
    return found


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _resource(config: ServerConfig, read: _Variables) -> dict[str, str]:
    found = read.pairs(read.get("OTEL_RESOURCE_ATTRIBUTES"), "OTEL_RESOURCE_ATTRIBUTES")
    service = read.get("OTEL_SERVICE_NAME")
    if service:
        found["service.name"] = service
    for entry in config.otel_resource:
        key, _, value = entry.partition("=")
        found[key.strip()] = value.strip()
    return {"service.name": DEFAULT_SERVICE, **found}


def _sampling(config: ServerConfig, read: _Variables) -> tuple[float, bool]:
    """Share of requests without a caller's span, and whether callers are obeyed."""
    if "trace_rate" in config.model_fields_set:
        return (1 / config.trace_rate if config.trace_rate else 0.0), True
    said = read.get("OTEL_TRACES_SAMPLER").strip().lower()
    parent, kind = said.startswith("parentbased_"), said.removeprefix("parentbased_")
    ratios = {"always_on": 1.0, "always_off": 0.0, "traceidratio": _ratio(read)}
    if kind in ratios:
        return ratios[kind], parent
    if said:
        read.problem("OTEL_TRACES_SAMPLER", "always_on, always_off or traceidratio, also with parentbased_ before it")
    return 1 / config.trace_rate, True


def _ratio(read: _Variables) -> float:
    text = read.get("OTEL_TRACES_SAMPLER_ARG").strip()
    if not text:
        return 1.0
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if 0.0 <= ratio <= 1.0:
        return ratio
    read.problem("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1")
    return 1.0
