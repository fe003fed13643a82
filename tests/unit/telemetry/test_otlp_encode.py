"""Spans as OpenTelemetry's own messages read them: names, attributes, times, links, and what is an error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.support.collector import plain

from tensorquay.core.request_trace import BatchTrace, Entrance, RequestTrace, Run, RunTimes
from tensorquay.telemetry.otlp_encode import SpanEncoder, span_count

WALL = 1_700_000_000 * 10**9
RESOURCE = {"service.name": "digits", "long": "x" * 200, "accents": "\u00e9\u00fc"}
ENCODER = SpanEncoder(RESOURCE, version="1.2", wall_offset_ns=WALL)
TIMES = RunTimes(start_ns=300, input_ns=10, infer_ns=50, output_ns=5)


def ids(number: int) -> tuple[bytes, bytes]:
    return bytes([number]) * 16, bytes([number]) * 8


def request(entrance: Entrance = Entrance.HTTP, *, parent: bytes = b"", **values: Any) -> RequestTrace:
    trace = RequestTrace(lambda _: None, entrance, 100, *ids(1), parent, values.pop("state", ""))
    trace.asks(values.pop("model", "digits"), values.pop("asked", ""), values.pop("request_id", ""))
    trace.version = values.pop("version", "")
    trace.rows = values.pop("rows", 0)
    trace.end(500, **values)
    return trace


def batch(rider: RequestTrace, links: int = 1) -> BatchTrace:
    rider.provider = "CPUExecutionProvider"
    made = BatchTrace(*ids(9), rider, TIMES, rows=8, riders=3)
    made.links += [ids(number + 1) for number in range(links)]
    return made


def decoded(*recorded: RequestTrace) -> list[Span]:
    message = ExportTraceServiceRequest.FromString(ENCODER.request([ENCODER.spans(each) for each in recorded]))
    (resource,) = message.resource_spans
    assert plain(resource.resource.attributes) == RESOURCE
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("tensorquay", "1.2")
    spans = list(scope.spans)
    assert len(spans) == sum(map(span_count, recorded))
    assert len({span.span_id for span in spans}) == len(spans)
    return spans


def test_a_prediction_is_a_server_span_with_queue_and_run_below_it():
    trace = request(parent=ids(7)[1], version="2", asked="2", request_id="r-1", rows=3, status=200, state="v=1")
    trace.rode(Run(200, TIMES, 3, 8, *ids(9)))
    server, queue, run = decoded(trace)
    assert server.name == "POST /v2/models/{model}/versions/{version}/infer"
    assert server.kind == Span.SPAN_KIND_SERVER
    assert (server.trace_id, server.span_id) == ids(1)
    assert (server.parent_span_id, server.trace_state, server.flags) == (ids(7)[1], "v=1", 0x301)
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (WALL + 100, WALL + 500)
    assert plain(server.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/versions/{version}/infer",
        "http.response.status_code": 200,
        "network.protocol.name": "http",
        "url.path": "/v2/models/digits/versions/2/infer",
        "tensorquay.model": "digits",
        "tensorquay.version": "2",
        "tensorquay.request_id": "r-1",
        "tensorquay.rows": 3,
        "tensorquay.batch_rows": 8,
    }
    assert server.status.code == Status.STATUS_CODE_UNSET
    for child in (queue, run):
        assert (child.trace_id, child.parent_span_id) == ids(1)
        assert (child.kind, child.flags) == (Span.SPAN_KIND_INTERNAL, 0x101)
    assert (queue.name, queue.start_time_unix_nano, queue.end_time_unix_nano) == ("queue", WALL + 200, WALL + 300)
    assert (run.name, run.start_time_unix_nano, run.end_time_unix_nano) == ("run", WALL + 300, WALL + 365)
    assert [(event.name, event.time_unix_nano) for event in run.events] == [
        ("inputs_prepared", WALL + 310),
        ("outputs_got", WALL + 360),
    ]
    assert [(link.trace_id, link.span_id) for link in run.links] == [ids(9)]
    assert plain(run.attributes) == {"tensorquay.rows": 3, "tensorquay.batch_rows": 8}


def test_a_batch_is_a_trace_of_its_own_and_linked_to_its_riders():
    trace = request(version="2")
    trace.leads(batch(trace, links=3))
    own, span = decoded(trace)
    assert own.trace_id == ids(1)[0]
    assert (span.name, span.trace_id, span.span_id, span.parent_span_id) == ("batch", *ids(9), b"")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (WALL + 300, WALL + 365)
    assert [(link.trace_id, link.span_id) for link in span.links] == [ids(1), ids(2), ids(3)]
    assert plain(span.attributes) == {
        "tensorquay.model": "digits",
        "tensorquay.version": "2",
        "tensorquay.provider": "CPUExecutionProvider",
        "tensorquay.batch_rows": 8,
        "tensorquay.batch_riders": 3,
    }


def test_grpc_calls_are_named_by_their_method():
    unary, streamed = decoded(request(Entrance.GRPC)), decoded(request(Entrance.GRPC_STREAM))
    assert unary[0].name == "inference.GRPCInferenceService/ModelInfer"
    assert streamed[0].name == "inference.GRPCInferenceService/ModelStreamInfer"
    assert plain(unary[0].attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": "inference.GRPCInferenceService/ModelInfer",
        "rpc.response.status_code": "OK",
        "tensorquay.model": "digits",
    }


@pytest.mark.parametrize(
    ("entrance", "error", "status", "failed"),
    [
        (Entrance.HTTP, "invalid_argument", 400, None),
        (Entrance.HTTP, "resource_exhausted", 429, None),
        (Entrance.HTTP, "internal", 500, "500"),
        (Entrance.HTTP, "unavailable", 503, "503"),
        (Entrance.GRPC, "invalid_argument", 0, None),
        (Entrance.GRPC, "resource_exhausted", 0, None),
        (Entrance.GRPC, "internal", 0, "INTERNAL"),
        (Entrance.GRPC, "deadline_exceeded", 0, "DEADLINE_EXCEEDED"),
        (Entrance.GRPC, "cancelled", 0, None),
    ],
)
def test_an_error_is_the_servers_or_the_clients_as_the_conventions_have_it(
    entrance: Entrance, error: str, status: int, failed: str | None
) -> None:
    (span,) = decoded(request(entrance, error=error, status=status))
    attributes = plain(span.attributes)
    assert attributes["tensorquay.error"] == error
    assert attributes.get("error.type") == failed
    assert span.status.code == (Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET)
    assert span.status.message == ""


def test_a_request_that_only_waited_has_a_queue_span():
    trace = request(error="unavailable", status=503)
    trace.waited(150)
    _, queue = decoded(trace)
    assert (queue.name, queue.start_time_unix_nano, queue.end_time_unix_nano) == ("queue", WALL + 150, WALL + 500)


def test_a_request_that_is_answered_during_its_run_waited_only_until_then():
    trace = request(error="deadline_exceeded")
    trace.waited(150)
    trace.running_ns = 200
    _, queue, run = decoded(trace)
    assert (queue.name, queue.start_time_unix_nano, queue.end_time_unix_nano) == ("queue", WALL + 150, WALL + 200)
    assert (run.name, run.start_time_unix_nano, run.end_time_unix_nano) == ("run", WALL + 200, WALL + 500)
    assert not run.links


def test_a_request_of_several_runs_has_them_all_within_a_bound():
    trace = request()
    for number in range(100):
        trace.rode(Run(200, TIMES, 1, 8, *ids(number + 1)))
    spans = decoded(trace)
    assert [span.name for span in spans] == ["POST /v2/models/{model}/infer", *["queue", "run"] * 32]


_TEXT = st.text(max_size=400)


@given(_TEXT, st.text("0123456789", max_size=400), _TEXT, st.integers(0, 2**40), st.integers(200, 599))
def test_whatever_a_client_calls_things_it_is_a_message(
    model: str, version: str, request_id: str, rows: int, status: int
) -> None:
    (span,) = decoded(request(model=model, asked=version, request_id=request_id, rows=rows, status=status))
    attributes = plain(span.attributes)
    assert attributes.get("tensorquay.rows", 0) == rows
    assert all(len(str(value)) <= 13 * 256 for value in attributes.values())


def test_lone_surrogates_are_replaced():
    (span,) = decoded(request(model="a\udce9", request_id="\ud800"))
    assert plain(span.attributes)["tensorquay.model"] == "a?"


@pytest.mark.parametrize("span_id", [b"\xff" * 8, b"\xff" * 7 + b"\xfe"])
def test_ids_of_children_never_become_zero(span_id: bytes) -> None:
    trace = RequestTrace(lambda _: None, Entrance.HTTP, 100, ids(1)[0], span_id)
    trace.rode(Run(200, TIMES, 1, 1, *ids(9)))
    trace.end(500, status=200)
    assert all(any(span.span_id) for span in decoded(trace))
