"""Request and batch traces as OTLP: an ExportTraceServiceRequest, written field by field.

By hand, because a library's span objects would cost more than the predictions do at a full data plane's rate
(tests/bench/trace_cost.py). Names and attributes are OpenTelemetry's conventions for HTTP and RPC servers; what they
have no name for begins with "tensorquay.". Source: opentelemetry-proto, trace/v1/trace.proto; semantic conventions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct
from urllib.parse import quote

from tensorquay.core.request_trace import BatchTrace, Entrance, RequestTrace, RunTimes

_MOST = 0xFFFF_FFFF_FFFF_FFFF

# Tags of fields, and whole fields that are always the same.
_RESOURCE_SPANS, _RESOURCE, _SCOPE_SPANS, _SCOPE = 0x0A, 0x0A, 0x12, 0x0A
_SPAN, _NAME, _STATE, _ATTRIBUTE = 0x12, 0x2A, 0x1A, 0x4A
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_INTERNAL, _SERVER = b"\x30\x01", b"\x30\x02"
_FAILED = b"\x7a\x02\x18\x02"
# Flags: sampled; that it is known whether the parent is in another process (0x100), and that it is so (0x200).
_LOCAL = b"\x85\x01\x01\x01\x00\x00"
_REMOTE = b"\x85\x01\x01\x03\x00\x00"
_LINK, _LINK_FLAGS = b"\x6a\x21", b"\x35\x01\x01\x00\x00"
_QUEUE = b"\x2a\x05queue" + _INTERNAL + _LOCAL
_RUN = b"\x2a\x03run" + _INTERNAL + _LOCAL
_BATCH = b"\x2a\x05batch" + _INTERNAL + _LOCAL
_QUEUE_SPAN = bytes((_SPAN, 38 + len(_QUEUE) + 18))
# Events, before and after their time.
_JOINED, _JOINED_NAME = (0x5A, 0x1A, 0x09), b"\x12\x0finputs_prepared"
_RAN, _RAN_NAME = (0x5A, 0x16, 0x09), b"\x12\x0boutputs_got"

# Several fields in one step: ids, times, a run's course, a link.
_own = Struct("<2s16s2s8s").pack
_child = Struct("<2s16s2sQ2s8s").pack
_times = Struct("<BQBQ").pack
_course = Struct("<BQBQ3BQ17s3BQ13s").pack
_link = Struct("<2s2s16s2s8s5s").pack

_SERVICE = "inference.GRPCInferenceService"

_SERVERS_FAULT = frozenset({"deadline_exceeded", "unimplemented", "internal", "unavailable"})
"""Failed gRPC calls that are the server's failure; the others are the client's (semantic conventions, gRPC)."""


class SpanEncoder:
    """Makes requests for a collector.

    Args:
        resource: attributes of this server.
        version: of the instrumentation, which is ours.
        wall_offset_ns: what the server's monotonic clock lacks to Unix time.
    Owner: one thread.
    """

    def __init__(self, resource: Mapping[str, str], *, version: str, wall_offset_ns: int) -> None:
        attributes = b"".join(_field(0x0A, _text_pair(key, value)) for key, value in resource.items())
        self._resource = _field(_RESOURCE, attributes)
        self._scope = _field(_SCOPE, _field(0x0A, b"tensorquay") + _field(0x12, version.encode()))
        self._offset_ns = wall_offset_ns
        self._last: RunTimes | None = None
        self._last_course = b""

    def spans(self, trace: RequestTrace) -> bytes:
        """Its spans, and those of the runs it tells about: a part of a request."""
        spans = [self._request(trace)]
        trace_id, span_id, runs = trace.trace_id, trace.span_id, trace.runs
        number = int.from_bytes(span_id, "little")
        if trace.queued_ns and not runs:
            number = _next(number)
            spans.append(self._queue(trace_id, number, span_id, trace.queued_ns, trace.running_ns or trace.ended_ns))
            if trace.running_ns:
                # It was answered before its run had ended, or that failed.
                own = _child(_TRACE_ID, trace_id, _SPAN_ID, _next(number), _PARENT_ID, span_id)
                spans.append(_field(_SPAN, own + _RUN + self._times(trace.running_ns, trace.ended_ns)))
        for run in runs:
            number = _next(number)
            spans.append(self._queue(trace_id, number, span_id, run.queued_ns, run.times.start_ns))
            number = _next(number)
            content = b"".join(
                (
                    _child(_TRACE_ID, trace_id, _SPAN_ID, number, _PARENT_ID, span_id),
                    _RUN,
                    self._course(run.times),
                    _counts(run.rows, run.batch_rows),
                    _link(_LINK, _TRACE_ID, run.batch_trace_id, _SPAN_ID, run.batch_span_id, _LINK_FLAGS),
                )
            )
            spans.append(_field(_SPAN, content))
        spans += [self._batch(batch) for batch in trace.batches]
        return b"".join(spans)

    def request(self, spans: Sequence[bytes]) -> bytes:
        """An ExportTraceServiceRequest of what `spans` made."""
        return _field(_RESOURCE_SPANS, self._resource + _field(_SCOPE_SPANS, self._scope + b"".join(spans)))

    def _request(self, trace: RequestTrace) -> bytes:
        """The span of a request: the others of its trace are its children."""
        runs = trace.runs
        entrance = trace.entrance
        if entrance is Entrance.HTTP:
            said = _http(trace.model, trace.version_asked, trace.status, trace.error)
        else:
            said = _grpc(entrance is Entrance.GRPC, trace.error)
        parts = [
            _own(_TRACE_ID, trace.trace_id, _SPAN_ID, trace.span_id),
            self._times(trace.arrival_ns, trace.ended_ns),
            said,
            _named(trace.model, trace.version),
            _counts(trace.rows, runs[0].batch_rows if runs else 0),
        ]
        if trace.request_id:
            parts.append(_text("tensorquay.request_id", trace.request_id))
        if trace.parent_id:
            parts += (_PARENT_ID, trace.parent_id, _REMOTE)
            if trace.state:
                parts.append(_field(_STATE, trace.state.encode()))
        else:
            parts.append(_LOCAL)
        return _field(_SPAN, b"".join(parts))

    def _queue(self, trace_id: bytes, number: int, parent_id: bytes, start_ns: int, end_ns: int) -> bytes:
        """A span of always the same length."""
        offset_ns = self._offset_ns
        start_ns += offset_ns
        end_ns = max(start_ns, end_ns + offset_ns)
        own = _child(_TRACE_ID, trace_id, _SPAN_ID, number, _PARENT_ID, parent_id)
        return _QUEUE_SPAN + own + _QUEUE + _times(0x39, start_ns & _MOST, 0x41, end_ns & _MOST)

    def _batch(self, batch: BatchTrace) -> bytes:
        parts = [
            _own(_TRACE_ID, batch.trace_id, _SPAN_ID, batch.span_id),
            _BATCH,
            self._course(batch.times),
            _named(batch.model, batch.version),
            _batched(batch.provider, batch.rows, batch.riders),
        ]
        for trace_id, span_id in batch.links:
            parts.append(_link(_LINK, _TRACE_ID, trace_id, _SPAN_ID, span_id, _LINK_FLAGS))
        return _field(_SPAN, b"".join(parts))

    def _times(self, start_ns: int, end_ns: int) -> bytes:
        """Of a span: start and end, which is never before it."""
        start_ns += self._offset_ns
        return _times(0x39, start_ns & _MOST, 0x41, max(start_ns, end_ns + self._offset_ns) & _MOST)

    def _course(self, times: RunTimes) -> bytes:
        """Start and end of a run, and the moments between: its inputs are joined, its outputs are there to be cut.

        A run is asked about again and again: by each of its sampled riders, and for its own span.
        """
        if times is not self._last:
            start_ns, input_ns, infer_ns, output_ns = times
            start_ns += self._offset_ns
            joined_ns = start_ns + input_ns
            ran_ns = joined_ns + infer_ns
            moments = (0x39, start_ns & _MOST, 0x41, (ran_ns + output_ns) & _MOST)
            events = (*_JOINED, joined_ns & _MOST, _JOINED_NAME, *_RAN, ran_ns & _MOST, _RAN_NAME)
            self._last, self._last_course = times, _course(*moments, *events)
        return self._last_course


def span_count(trace: RequestTrace) -> int:
    """How many spans `SpanEncoder` makes of it."""
    own = 2 * len(trace.runs)
    if not own and trace.queued_ns:
        own = 2 if trace.running_ns else 1
    return 1 + own + len(trace.batches)


# What follows is kept: the same few models and outcomes come again and again. Ids of requests do not, and are not kept.


@lru_cache(maxsize=256)
def _grpc(unary: bool, error: str) -> bytes:
    """Name, kind, status and the conventions' attributes of a call's span."""
    method = f"{_SERVICE}/{'ModelInfer' if unary else 'ModelStreamInfer'}"
    code = error.upper() or "OK"
    failed = error in _SERVERS_FAULT
    pairs = {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": code,
        "tensorquay.error": error,
        "error.type": code if failed else "",
    }
    texts = b"".join(_text(key, value) for key, value in pairs.items())
    return _field(_NAME, method.encode()) + _SERVER + texts + (_FAILED if failed else b"")


@lru_cache(maxsize=512)
def _http(model: str, version: str, status: int, error: str) -> bytes:
    """The same of an HTTP request's; `version` is the one it names."""
    route = f"/v2/models/{{model}}{'/versions/{version}' if version else ''}/infer"
    named = f"/versions/{version}" if version else ""
    failed = status >= 500
    pairs = {
        "http.request.method": "POST",
        "http.route": route,
        "url.path": f"/v2/models/{quote(model, safe='', errors='replace')}{named}/infer",
        "network.protocol.name": "http",
        "tensorquay.error": error,
        "error.type": str(status) if failed else "",
    }
    texts = b"".join(_text(key, value) for key, value in pairs.items())
    return b"".join(
        (
            _field(_NAME, f"POST {route}".encode()),
            _SERVER,
            texts,
            _number("http.response.status_code", status),
            _FAILED if failed else b"",
        )
    )


@lru_cache(maxsize=512)
def _named(model: str, version: str) -> bytes:
    return _text("tensorquay.model", model) + _text("tensorquay.version", version)


@lru_cache(maxsize=1024)
def _counts(rows: int, batch_rows: int) -> bytes:
    own = _number("tensorquay.rows", rows) if rows else b""
    return own + (_number("tensorquay.batch_rows", batch_rows) if batch_rows else b"")


@lru_cache(maxsize=1024)
def _batched(provider: str, rows: int, riders: int) -> bytes:
    counts = _number("tensorquay.batch_rows", rows) + _number("tensorquay.batch_riders", riders)
    return _text("tensorquay.provider", provider) + counts


def _next(number: int) -> int:
    """The id of another span of the same trace: ids are random, so the next numbers are as free as any."""
    return (number + 1) & _MOST or 1


def _text(key: str, value: str) -> bytes:
    """An attribute of a span; nothing for an empty one."""
    return _field(_ATTRIBUTE, _text_pair(key, value)) if value else b""


def _number(key: str, value: int) -> bytes:
    return _field(_ATTRIBUTE, _field(0x0A, key.encode()) + _field(0x12, b"\x18" + _varint(value)))


def _text_pair(key: str, value: str) -> bytes:
    return _field(0x0A, key.encode()) + _field(0x12, _field(0x0A, value.encode("utf-8", "replace")))


def _field(tag: int, content: bytes) -> bytes:
    """A length-delimited field whose tag is one byte."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    return bytes((tag,)) + _varint(size) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
