"""The configuration of the server itself: one frozen value from a file, the environment and the command line.

The fields below are the only definition: the file's keys are their names, the variables TENSORQUAY_<NAME>, the flags
--<name-with-dashes>, and `tensorquay serve --help` is generated from their descriptions. A later source wins over an
earlier one (file < environment < command line) and every value remembers where it came from. Settings of one model
never live here (`model.py`). Names and defaults are tritonserver's where it has them (docs/operations.md).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from tensorquay.config.server_values import (
    API_CATEGORIES,
    Attributes,
    Endpoint,
    Paths,
    Port,
    Restrictions,
    Texts,
    TraceLevels,
    read_log_format,
    read_trace_mode,
)
from tensorquay.config.tls import TlsFiles, TlsFlags
from tensorquay.config.trace_rules import trace_problem, unused_trace_settings

MAX_GRPC_MESSAGE = 2**31 - 1
"""gRPC's own limit, and Triton's default."""


class InvalidServerConfig(Exception):
    """The server's settings are wrong: one sentence per problem, each naming the setting and where it was given."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class ControlMode(enum.Enum):
    """Who decides which models are loaded."""

    NONE = "none"
    """Everything at start, nothing later."""
    POLL = "poll"
    """The repository's content, looked at again and again."""
    EXPLICIT = "explicit"
    """Load and unload requests."""


class HttpTransport(enum.Enum):
    """What carries HTTP."""

    NATIVE = "native"
    ASGI = "asgi"


class GrpcTransport(enum.Enum):
    """What carries gRPC."""

    NATIVE = "native"
    GRPCIO = "grpcio"


class LogFormat(enum.Enum):
    """How log lines look. `default` is tritonserver's word for `text`."""

    TEXT = "text"
    ISO8601 = "ISO8601"
    JSON = "json"


class TraceMode(enum.Enum):
    """What traces are: Triton's files, or OpenTelemetry's spans."""

    TRITON = "triton"
    OPENTELEMETRY = "opentelemetry"


@dataclass(frozen=True, slots=True)
class Flag:
    """What a field's command-line option has beyond its name: other spellings, its group in the help, a metavar.

    `separator` splits a list given in one environment variable.
    """

    group: str
    aliases: tuple[str, ...] = ()
    metavar: str = ""
    separator: str = ","


_REPOSITORY, _HTTP, _GRPC, _METRICS = "Model repository", "HTTP", "gRPC", "Metrics"
_IMPORT = "Import"
_LIMITS, _LOGS, _TRACE, _SERVER = "Limits", "Logs", "Traces", "Server"


class ServerConfig(BaseModel):
    """Every setting of one server process. Frozen; built by `server_sources.load` or, in tests, directly."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model_repository: Annotated[Paths, Flag(_REPOSITORY, ("model-store",), "DIR")] = Field(
        default=(), description="Model repository; repeatable. A model found in two of them is not served."
    )
    model_control_mode: Annotated[ControlMode, Flag(_REPOSITORY)] = Field(
        default=ControlMode.NONE,
        description="none: load everything at start; poll: follow the repository; explicit: load and unload requests.",
    )
    load_model: Annotated[Texts, Flag(_REPOSITORY, metavar="NAME")] = Field(
        default=(), description="Model to load at start in explicit mode; repeatable, '*' alone means all."
    )
    repository_poll_secs: Annotated[float, Flag(_REPOSITORY)] = Field(
        default=15.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="Seconds between two looks at the repository (poll).",
    )
    settle_secs: Annotated[float, Flag(_REPOSITORY)] = Field(
        default=1.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds without any change before a version that appears is believed to be complete.",
    )
    strict_readiness: Annotated[bool, Flag(_REPOSITORY)] = Field(
        default=True, description="Ready only when every wanted model is; false: ready when the server answers."
    )
    exit_on_error: Annotated[bool, Flag(_REPOSITORY)] = Field(
        default=True, description="Exit when a model fails to load at start."
    )
    model_load_thread_count: Annotated[int, Flag(_REPOSITORY)] = Field(
        default=4, ge=1, le=256, description="Models loaded at the same time."
    )
    default_max_batch_size: Annotated[int, Flag(_REPOSITORY)] = Field(
        default=64,
        ge=0,
        le=2**31 - 1,
        description="max_batch_size of a model that can batch and does not say; 0: none batches.",
    )

    auto_import: Annotated[bool, Flag(_IMPORT)] = Field(
        default=True,
        description="Import models of other kinds (model.pt2, saved_model.pb, model.keras …) that are dropped as a "
        "version, and serve them when they are proven equal.",
    )
    import_cache: Annotated[Path | None, Flag(_IMPORT, metavar="DIR")] = Field(
        default=None, description="Where imported models are kept; unset: tensorquay/imports in the user's cache."
    )
    import_cache_bytes: Annotated[int, Flag(_IMPORT)] = Field(
        default=20 * 2**30, ge=0, le=2**50, description="What is kept there at most; the longest unused goes first."
    )
    import_python: Annotated[Path | None, Flag(_IMPORT, metavar="FILE")] = Field(
        default=None, description="Interpreter that has the frameworks, if the server's own has not."
    )
    import_timeout_secs: Annotated[float, Flag(_IMPORT)] = Field(
        default=1800.0, gt=0, le=86_400, allow_inf_nan=False, description="Longest time of one import."
    )
    import_memory_bytes: Annotated[int, Flag(_IMPORT)] = Field(
        default=0, ge=0, le=2**50, description="Most memory of one import; 0: 80 % of what is free when it starts."
    )

    auto_optimize: Annotated[bool, Flag(_REPOSITORY)] = Field(
        default=True, description="Optimise models in the background whose configuration asks for it; false: none."
    )
    optimize_memory_bytes: Annotated[int, Flag(_REPOSITORY)] = Field(
        default=0, ge=0, le=2**50, description="Most memory of one background optimisation; 0: 80 % of what is free."
    )

    allow_http: Annotated[bool, Flag(_HTTP)] = Field(default=True, description="Serve HTTP.")
    http_host: Annotated[str, Flag(_HTTP, ("http-address",), "ADDRESS")] = Field(
        default="0.0.0.0",
        min_length=1,
        max_length=255,
        description="Address to listen on; 127.0.0.1 for this machine only.",
    )
    http_port: Annotated[Port, Flag(_HTTP)] = Field(default=8000, description="Port; 0 picks a free one.")
    http_transport: Annotated[HttpTransport, Flag(_HTTP)] = Field(
        HttpTransport.NATIVE,
        description="native: our own HTTP/1.1; asgi: uvicorn, for comparison and as a fallback.",
    )
    http_max_input_size: Annotated[int, Flag(_HTTP)] = Field(
        default=64 * 2**20, ge=1, le=2**40, description="Largest request body in bytes, also after decompression."
    )
    http_restricted_api: Annotated[Restrictions, Flag(_HTTP, (), "APIS:HEADER=VALUE", ";")] = Field(
        default_factory=dict,
        description="Close APIs to requests without this header; repeatable. APIs: " + ", ".join(API_CATEGORIES) + ".",
    )
    console: Annotated[bool, Flag(_HTTP)] = Field(
        default=True, description="Serve the console, a page to watch and try models with, at /."
    )
    http_own_name: Annotated[Texts, Flag(_HTTP, metavar="NAME")] = Field(
        default=(),
        description="Public name by which this server's own pages are opened without TLS; repeatable. Addresses and "
        "private names need not be listed.",
    )
    http_header_forward_pattern: Annotated[str, Flag(_HTTP, metavar="REGEX")] = Field(
        default="", max_length=1000, description="Headers whose whole name matches become request parameters."
    )
    http_use_ssl: Annotated[bool, Flag(_HTTP)] = Field(
        default=False, description="Serve HTTPS; needs the certificate and its key."
    )
    http_use_ssl_mutual: Annotated[bool, Flag(_HTTP)] = Field(
        default=False, description="TLS, and only for clients with a certificate signed in the root certificates."
    )
    http_server_cert: Annotated[Path | None, Flag(_HTTP, metavar="FILE")] = Field(
        default=None,
        description="The server's certificate, then those that signed it, in PEM; read again when replaced.",
    )
    http_server_key: Annotated[Path | None, Flag(_HTTP, metavar="FILE")] = Field(
        default=None, description="The certificate's key in PEM, not encrypted."
    )
    http_root_cert: Annotated[Path | None, Flag(_HTTP, metavar="FILE")] = Field(
        default=None, description="Authorities that sign clients' certificates, in PEM."
    )

    allow_grpc: Annotated[bool, Flag(_GRPC)] = Field(default=True, description="Serve gRPC.")
    grpc_host: Annotated[str, Flag(_GRPC, ("grpc-address",), "ADDRESS")] = Field(
        default="0.0.0.0", min_length=1, max_length=255, description="Address to listen on."
    )
    grpc_port: Annotated[Port, Flag(_GRPC)] = Field(default=8001, description="Port; 0 picks a free one.")
    grpc_transport: Annotated[GrpcTransport, Flag(_GRPC)] = Field(
        GrpcTransport.NATIVE,
        description="native: our own HTTP/2; grpcio: the reference implementation, for comparison and as a fallback.",
    )
    grpc_max_message_size: Annotated[int, Flag(_GRPC)] = Field(
        default=MAX_GRPC_MESSAGE, ge=1, le=MAX_GRPC_MESSAGE, description="Largest message in bytes, either way."
    )
    grpc_restricted_protocol: Annotated[Restrictions, Flag(_GRPC, (), "APIS:HEADER=VALUE", ";")] = Field(
        default_factory=dict,
        description="As --http-restricted-api, with metadata key 'triton-grpc-protocol-<header>'; repeatable.",
    )
    grpc_header_forward_pattern: Annotated[str, Flag(_GRPC, metavar="REGEX")] = Field(
        default="", max_length=1000, description="Metadata whose whole key matches becomes request parameters."
    )
    grpc_use_ssl: Annotated[bool, Flag(_GRPC)] = Field(
        default=False, description="Serve gRPC over TLS; needs the certificate and its key."
    )
    grpc_use_ssl_mutual: Annotated[bool, Flag(_GRPC)] = Field(
        default=False, description="TLS, and only for clients with a certificate signed in the root certificates."
    )
    grpc_server_cert: Annotated[Path | None, Flag(_GRPC, metavar="FILE")] = Field(
        default=None,
        description="The server's certificate, then those that signed it, in PEM; read again when replaced.",
    )
    grpc_server_key: Annotated[Path | None, Flag(_GRPC, metavar="FILE")] = Field(
        default=None, description="The certificate's key in PEM, not encrypted."
    )
    grpc_root_cert: Annotated[Path | None, Flag(_GRPC, metavar="FILE")] = Field(
        default=None, description="Authorities that sign clients' certificates, in PEM."
    )

    allow_metrics: Annotated[bool, Flag(_METRICS)] = Field(default=True, description="Serve Prometheus metrics.")
    metrics_host: Annotated[str, Flag(_METRICS, ("metrics-address",), "ADDRESS")] = Field(
        default="0.0.0.0",
        min_length=1,
        max_length=255,
        description="Address to listen on; the HTTP address when not given.",
    )
    metrics_port: Annotated[Port, Flag(_METRICS)] = Field(default=8002, description="Port; 0 picks a free one.")
    metrics_use_ssl: Annotated[bool, Flag(_METRICS)] = Field(
        default=False, description="Serve metrics as the HTTP port serves: its certificate, its demands on clients."
    )

    max_inflight_requests: Annotated[int, Flag(_LIMITS)] = Field(
        default=8192, ge=1, le=10**7, description="Requests accepted and not yet answered; more are refused with 429."
    )
    max_inflight_bytes: Annotated[int, Flag(_LIMITS)] = Field(
        default=2**30, ge=1, le=2**50, description="Input bytes of those requests together."
    )
    max_queue_requests: Annotated[int, Flag(_LIMITS)] = Field(
        default=4096, ge=1, le=10**7, description="Requests waiting for one model version that sets no max_queue_size."
    )

    server_id: Annotated[str, Flag(_SERVER, ("id",), "NAME")] = Field(
        default="triton",
        min_length=1,
        max_length=255,
        description="The server's name in its metadata; clients compare it.",
    )
    exit_timeout_secs: Annotated[float, Flag(_SERVER)] = Field(
        default=30.0,
        ge=0,
        le=86_400,
        allow_inf_nan=False,
        description="Longest wait for running requests when told to stop.",
    )
    threads: Annotated[int, Flag(_SERVER)] = Field(
        default=0,
        ge=0,
        le=4096,
        description="CPU threads for all models together; 0: from the container's quota and affinity.",
    )
    frontends: Annotated[int, Flag(_SERVER)] = Field(
        default=0, ge=0, le=64, description="Processes that serve HTTP and gRPC for the one that runs the models."
    )
    frontend_timeout_secs: Annotated[float, Flag(_SERVER)] = Field(
        default=30.0,
        ge=0.0,
        le=3600.0,
        allow_inf_nan=False,
        description="One of them that does not answer for so long is killed and replaced; 0: never.",
    )
    allow_client_shm: Annotated[bool, Flag(_SERVER)] = Field(
        default=False,
        description="Let clients register system shared memory (they must be on this machine and trusted).",
    )

    log_verbose: Annotated[int, Flag(_LOGS)] = Field(
        default=0, ge=0, le=2**32 - 1, description="1: the server's own details; 2: those of its libraries too."
    )
    log_info: Annotated[bool, Flag(_LOGS)] = Field(default=True, description="Log information.")
    log_warning: Annotated[bool, Flag(_LOGS)] = Field(default=True, description="Log warnings.")
    log_error: Annotated[bool, Flag(_LOGS)] = Field(default=True, description="Log errors.")
    log_format: Annotated[LogFormat, BeforeValidator(read_log_format), Flag(_LOGS)] = Field(
        default=LogFormat.TEXT, description="text (tritonserver: default), ISO8601 (text with full UTC stamps) or json."
    )
    log_file: Annotated[Path | None, Flag(_LOGS, metavar="FILE")] = Field(
        default=None, description="Append to this file instead of standard error; reopened when rotated."
    )
    access_log: Annotated[bool, Flag(_LOGS)] = Field(default=False, description="Log a line per request.")

    trace_file: Annotated[Path | None, Flag(_TRACE, metavar="FILE")] = Field(
        default=None, description="Where sampled requests are written (JSON); needed for any trace level."
    )
    trace_level: Annotated[TraceLevels, Flag(_TRACE)] = Field(
        default=("OFF",), description="OFF, TIMESTAMPS or TENSORS; repeatable."
    )
    trace_rate: Annotated[int, Flag(_TRACE)] = Field(
        default=1000, ge=0, le=2**32 - 1, description="One request in this many is traced; 0: as callers ask (spans)."
    )
    trace_count: Annotated[int, Flag(_TRACE)] = Field(
        default=-1, ge=-1, le=2**31 - 1, description="How many are traced in all; -1: no limit."
    )
    trace_log_frequency: Annotated[int, Flag(_TRACE)] = Field(
        default=0, ge=0, le=2**32 - 1, description="Traces per numbered file (FILE.0, FILE.1 …); 0: one file."
    )
    trace_mode: Annotated[TraceMode, BeforeValidator(read_trace_mode), Flag(_TRACE)] = Field(
        default=TraceMode.TRITON,
        description="triton: JSON files; opentelemetry: spans, sent to a collector unless trace_level is OFF.",
    )
    trace_parent_limit: Annotated[int, Flag(_TRACE)] = Field(
        default=100, ge=0, le=10**6, description="Spans: requests a second that are traced because their callers ask."
    )
    otlp_endpoint: Annotated[Endpoint, Flag(_TRACE, metavar="URL")] = Field(
        default="",
        max_length=2048,
        description="Spans: the collector, OTLP over HTTP, http://localhost:4318/v1/traces.",
    )
    otel_resource: Annotated[Attributes, Flag(_TRACE, metavar="KEY=VALUE")] = Field(
        default=(), max_length=128, description="Spans: an attribute of this server, service.name=digits; repeatable."
    )
    otel_max_queue_size: Annotated[int, Flag(_TRACE)] = Field(
        default=2048, ge=1, le=10**6, description="Spans: how many wait to be sent; more are dropped and counted."
    )
    otel_schedule_delay_ms: Annotated[int, Flag(_TRACE)] = Field(
        default=5000, ge=1, le=3_600_000, description="Spans: longest wait before they are sent."
    )
    otel_max_export_batch_size: Annotated[int, Flag(_TRACE)] = Field(
        default=512, ge=1, le=10**6, description="Spans: most in one request to the collector."
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _notes: tuple[str, ...] = PrivateAttr(default=())

    def origin(self, name: str) -> str:
        """Where the value of field `name` was given: a file, a variable, "command line", or "default"."""
        return self._origins.get(name, "default")

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the operator about what was accepted without effect."""
        return self._notes + tuple(
            filter(None, (self._tls("http").note(), self._tls("grpc").note(), *unused_trace_settings(self)))
        )

    @property
    def traces_spans(self) -> bool:
        """Whether requests are traced as spans. Level OFF, when somebody says it, switches them off too."""
        off = self.trace_level == ("OFF",) and "trace_level" in self.model_fields_set
        return self.trace_mode is TraceMode.OPENTELEMETRY and not off

    @property
    def http_tls(self) -> TlsFiles | None:
        """The files of the HTTP port; None when it is plain."""
        return self._tls("http").files()

    @property
    def grpc_tls(self) -> TlsFiles | None:
        """The files of the gRPC port; None when it is plain."""
        return self._tls("grpc").files()

    def _tls(self, port: str) -> TlsFlags:
        names = (f"{port}_use_ssl_mutual", f"{port}_server_cert", f"{port}_server_key", f"{port}_root_cert")
        switch = f"{port}_use_ssl"
        said = getattr(self, switch) if switch in self.model_fields_set else None
        return TlsFlags(port, said, *(getattr(self, name) for name in names))

    def with_sources(self, origins: Mapping[str, str], notes: tuple[str, ...]) -> ServerConfig:
        """A copy that remembers where its values came from."""
        copy = self.model_copy()
        copy._origins = dict(origins)
        copy._notes = notes
        return copy

    def shown(self, name: str) -> str:
        """The value of field `name` for people; secrets are left out."""
        value: Any = getattr(self, name)
        if isinstance(value, dict):
            return ", ".join(f"{category}:{key.key}=…" for category, key in value.items())
        if isinstance(value, tuple):
            return ", ".join(map(str, value))
        if isinstance(value, enum.Enum):
            return str(value.value)
        if isinstance(value, bool):
            return str(value).lower()
        return "" if value is None else str(value)

    @field_validator("http_header_forward_pattern", "grpc_header_forward_pattern")
    @classmethod
    def _is_regex(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
        return pattern

    @model_validator(mode="before")
    @classmethod
    def _metrics_follow_http(cls, given: Any) -> Any:
        # tritonserver's rule: who closes the HTTP port to the outside does not want the metrics open.
        if isinstance(given, dict) and "metrics_host" not in given and "http_host" in given:
            return {**given, "metrics_host": given["http_host"]}
        return given

    @model_validator(mode="after")
    def _agree(self) -> ServerConfig:
        if not (self.allow_http or self.allow_grpc):
            raise ValueError("allow_http and allow_grpc are both false: nothing could ask for a prediction")
        open_ports = [
            (name, host, port)
            for name, allowed, host, port in (
                ("http_port", self.allow_http, self.http_host, self.http_port),
                ("grpc_port", self.allow_grpc, self.grpc_host, self.grpc_port),
                ("metrics_port", self.allow_metrics, self.metrics_host, self.metrics_port),
            )
            if allowed and port != 0
        ]
        for index, (name, host, port) in enumerate(open_ports):
            for other, other_host, other_port in open_ports[:index]:
                if port == other_port and (host == other_host or "0.0.0.0" in {host, other_host}):
                    raise ValueError(f"{other} and {name} are both {port}; give each its own port")
        if self.metrics_use_ssl and self.http_tls is None:
            raise ValueError("metrics_use_ssl needs http_use_ssl: the metrics port has that port's certificate")
        for door in ("http", "grpc"):
            self._tls(door).files()
        for door, transport in (("http", self.http_transport), ("grpc", self.grpc_transport)):
            if self.frontends and getattr(self, f"allow_{door}") and transport.value != "native":
                raise ValueError(f"frontends needs {door}_transport native, got {transport.value}; leave one out")
        if self.load_model and self.model_control_mode is not ControlMode.EXPLICIT:
            raise ValueError("load_model needs model_control_mode explicit; in the other modes every model is loaded")
        if "*" in self.load_model and len(self.load_model) > 1:
            raise ValueError("load_model '*' means all models and must stand alone")
        problem = trace_problem(self)
        if problem is not None:
            raise ValueError(problem)
        return self
