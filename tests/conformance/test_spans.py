"""OpenTelemetry over every door: the caller's trace goes in, our span comes back, and a collector gets the rest.

The collector is a real one as far as OTLP goes: it decodes what it is sent with OpenTelemetry's own messages.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from tests.support import graphs
from tests.support.ask import metric, pending
from tests.support.collector import Collector, Seen
from tests.support.http_raw import RawConnection, request
from tests.support.repo import Repo
from tests.support.serving import RunningServer, start
from tests.support.waiting import until
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tensorquay_client import GrpcClient, HttpClient
from tensorquay_client.errors import NotFound

SPAN = "b7ad6b7169203331"
CLIENTS_FAULT, SERVERS_FAULT = Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def tracing(collector: Collector, *flags: str) -> tuple[str, ...]:
    return (
        "--trace-config=mode=opentelemetry",
        f"--trace-config=opentelemetry,url={collector.url}",
        "--trace-config=opentelemetry,bsp_schedule_delay=20",
        "--access-log=true",
        *flags,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models: `top`; `split`, whose batches have at most four rows; `waits`, which waits for company."""
    repo = Repo(tmp_path_factory.mktemp("spans") / "repo")
    repo.model("top", {1: graphs.scale(2.0, ("batch", 4))})
    repo.model("split", {1: graphs.scale(2.0, ("batch", 4))}, "max_batch_size = 4\n")
    waiting = "max_batch_size = 8\n[batching]\nmax_queue_delay_us = 3_600_000_000\n"
    repo.model("waits", {1: graphs.scale(2.0, ("batch", 4))}, waiting)
    return repo.root


@pytest.fixture(scope="module", params=[(), ("--frontends=1",)], ids=["one process", "front end"])
def traced(models: Path, collector: Collector, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """A server that traces what its callers ask for, and nothing else."""
    if request.param and os.environ.get("SERVER_UNDER_TEST_FLAGS"):
        pytest.skip("the suite is run over something else than the default")
    flags = tracing(collector, "--trace-config=rate=0", "--trace-parent-limit=1000", *request.param)
    running = start([models], *flags, env={"OTEL_RESOURCE_ATTRIBUTES": "team=vision", "OTEL_SERVICE_NAME": "zoo"})
    yield running
    assert running.stop() == 0, running.told()


_numbers = iter(range(1, 10_000))


def parent(flags: str = "01") -> str:
    """The traceparent of a caller nobody else is."""
    return f"00-{next(_numbers):032x}-{SPAN}-{flags}"


def body(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}], **more}


def ask_json(server: RunningServer, headers: dict[str, str], model: str = "top") -> httpx.Response:
    return httpx.post(f"{server.url}/v2/models/{model}/infer", json=body(id="id-7"), headers=headers, trust_env=False)


def ask_binary(server: RunningServer, headers: dict[str, str], model: str = "top") -> httpx.Response:
    said = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    head = json.dumps({"id": "id-7", "inputs": [said], "parameters": {"binary_data_output": True}}).encode()
    return httpx.post(
        f"{server.url}/v2/models/{model}/infer",
        content=head + np.arange(4, dtype=np.float32).tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head)), **headers},
        trust_env=False,
    )


def ask_compressed(server: RunningServer, headers: dict[str, str], model: str = "top") -> httpx.Response:
    text = json.dumps(body(id="id-7")).encode()
    return httpx.post(
        f"{server.url}/v2/models/{model}/infer",
        content=gzip.compress(text + b" " * 8192),
        headers={"content-encoding": "gzip", **headers},
        trust_env=False,
    )


def told_by_http(ask: Callable[..., httpx.Response]) -> Callable[[RunningServer, str], str]:
    def told(server: RunningServer, caller: str) -> str:
        answer = ask(server, {"traceparent": caller, "tracestate": "v=1"})
        assert answer.status_code == 200, answer.text
        return answer.headers["traceparent"]

    return told


def message(model: str = "top", **more: Any) -> Any:
    made = service_pb2.ModelInferRequest(model_name=model, id="id-7", **more)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    made.raw_input_contents.append(np.arange(4, dtype=np.float32).tobytes())
    return made


def stub(channel: grpc.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def told_by_grpc(server: RunningServer, caller: str) -> str:
    with grpc.insecure_channel(server.grpc) as channel:
        _, call = stub(channel).ModelInfer.with_call(
            message(), metadata=(("traceparent", caller), ("tracestate", "v=1")), timeout=30
        )
        return dict(call.initial_metadata())["traceparent"]


DOORS = {
    "json": told_by_http(ask_json),
    "binary": told_by_http(ask_binary),
    "compressed": told_by_http(ask_compressed),
    "grpc": told_by_grpc,
}


@pytest.mark.parametrize("door", DOORS)
def test_a_prediction_is_traced_from_the_caller_to_the_batch(
    traced: RunningServer, collector: Collector, door: str
) -> None:
    caller = parent()
    told = DOORS[door](traced, caller)
    spans = collector.of(caller, 3)
    queue, run = spans.pop("queue"), spans.pop("run")
    (server,) = spans.values()
    assert told == f"00-{server.trace}-{server.id}-01"
    assert (server.parent, server.span.trace_state) == (SPAN, "v=1")
    assert {queue.parent, run.parent} == {server.id}
    for key, value in {"model": "top", "version": "1", "request_id": "id-7", "rows": 1, "batch_rows": 1}.items():
        assert server.attributes[f"tensorquay.{key}"] == value
    assert server.name == (
        "inference.GRPCInferenceService/ModelInfer" if door == "grpc" else "POST /v2/models/{model}/infer"
    )
    (link,) = run.links
    batch = collector.batch(link)
    assert batch.links == {(server.trace, server.id)}
    assert batch.attributes["tensorquay.provider"] == "CPUExecutionProvider"
    assert ordered(server, queue, run)
    assert server.resource["service.name"] == "zoo"
    assert server.resource["team"] == "vision"


def ordered(server: Seen, queue: Seen, run: Seen) -> bool:
    """Whether the children follow each other within their parent."""
    times = [
        server.span.start_time_unix_nano,
        queue.span.start_time_unix_nano,
        queue.span.end_time_unix_nano,
        run.span.end_time_unix_nano,
        server.span.end_time_unix_nano,
    ]
    return times == sorted(times) and queue.span.end_time_unix_nano == run.span.start_time_unix_nano


def test_each_message_of_a_stream_has_a_span(traced: RunningServer, collector: Collector) -> None:
    caller = parent()
    with grpc.insecure_channel(traced.grpc) as channel:
        answers = list(
            stub(channel).ModelStreamInfer(
                iter([message(), message("nobody")]), metadata=(("traceparent", caller),), timeout=30
            )
        )
    assert len(answers) == 2
    trace = caller.split("-")[1]
    collector.wait(lambda c: sum(seen.trace == trace for seen in c.spans) >= 4)
    found = [seen for seen in collector.spans if seen.trace == trace]
    servers = [seen for seen in found if seen.parent == SPAN]
    assert {seen.name for seen in servers} == {"inference.GRPCInferenceService/ModelStreamInfer"}
    codes = sorted(seen.attributes["rpc.response.status_code"] for seen in servers)
    assert codes == ["NOT_FOUND", "OK"]


@pytest.mark.parametrize(
    ("path", "content", "status", "error", "code"),
    [
        ("nobody", json.dumps(body()).encode(), 404, "not_found", CLIENTS_FAULT),
        ("top", b"{", 400, "invalid_argument", CLIENTS_FAULT),
        ("top/versions/9", json.dumps(body()).encode(), 404, "not_found", CLIENTS_FAULT),
    ],
)
def test_what_is_refused_is_traced_too(
    traced: RunningServer, collector: Collector, path: str, content: bytes, status: int, error: str, code: int
) -> None:
    caller = parent()
    answer = httpx.post(
        f"{traced.url}/v2/models/{path}/infer", content=content, headers={"traceparent": caller}, trust_env=False
    )
    assert answer.status_code == status
    (server,) = collector.of(caller, 1).values()
    assert answer.headers["traceparent"] == f"00-{server.trace}-{server.id}-01"
    assert server.attributes["http.response.status_code"] == status
    assert server.attributes["tensorquay.error"] == error
    assert server.attributes["url.path"] == f"/v2/models/{path}/infer"
    assert server.span.status.code == code
    assert server.span.status.message == ""


def test_a_refused_call_names_its_span(traced: RunningServer, collector: Collector) -> None:
    caller = parent()
    with grpc.insecure_channel(traced.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        stub(channel).ModelInfer(message("nobody"), metadata=(("traceparent", caller),), timeout=30)
    (server,) = collector.of(caller, 1).values()
    assert dict(caught.value.initial_metadata())["traceparent"] == f"00-{server.trace}-{server.id}-01"
    assert server.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert server.attributes["tensorquay.model"] == "nobody"


def test_who_waits_in_vain_has_waited(traced: RunningServer, collector: Collector) -> None:
    late, gone = parent(), parent()
    with grpc.insecure_channel(traced.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        stub(channel).ModelInfer(message("waits"), metadata=(("traceparent", late),), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with RawConnection(traced.http) as connection:
        text = json.dumps(body()).encode()
        connection.send(request("/v2/models/waits/infer", text, headers={"traceparent": gone}))
        until(lambda: pending(traced, "waits") == 1, "it waits")
        connection.reset()
    for caller, error, code in ((late, "deadline_exceeded", SERVERS_FAULT), (gone, "cancelled", CLIENTS_FAULT)):
        spans = collector.of(caller, 2)
        queue = spans.pop("queue")
        (server,) = spans.values()
        assert server.attributes["tensorquay.error"] == error
        assert server.span.status.code == code
        assert queue.span.end_time_unix_nano == server.span.end_time_unix_nano


def test_nothing_a_client_sends_is_in_a_span(traced: RunningServer, collector: Collector) -> None:
    caller, secret = parent(), "hunter2"
    answer = httpx.post(
        f"{traced.url}/v2/models/top/infer?key={secret}",
        json=body(parameters={"note": secret}, outputs=[{"name": secret}]),
        headers={"traceparent": caller, "authorization": secret},
        trust_env=False,
    )
    assert answer.status_code == 400
    (server,) = collector.of(caller, 1).values()
    assert secret.encode() not in server.span.SerializeToString()


@pytest.mark.parametrize(
    "said", [parent("00"), "nonsense", parent().upper(), parent().replace(SPAN, "0" * 16), parent()[:-1], "x" * 5000]
)
def test_who_does_not_ask_well_is_served_and_not_traced(traced: RunningServer, said: str) -> None:
    answer = ask_json(traced, {"traceparent": said})
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers
    with grpc.insecure_channel(traced.grpc) as channel:
        _, call = stub(channel).ModelInfer.with_call(message(), metadata=(("traceparent", said),), timeout=30)
        assert "traceparent" not in dict(call.initial_metadata())


def test_two_callers_are_none(traced: RunningServer) -> None:
    headers = httpx.Headers([("traceparent", parent()), ("traceparent", parent())])
    answer = httpx.post(f"{traced.url}/v2/models/top/infer", json=body(), headers=headers, trust_env=False)
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers


def test_our_client_brings_its_callers_span(traced: RunningServer, collector: Collector) -> None:
    x = np.ones((1, 4), np.float32)
    http, refused, called = parent(), parent(), parent()
    with HttpClient(traced.url) as client:
        client.infer("top", {"x": x}, headers={"traceparent": http})
        with pytest.raises(NotFound):
            client.infer("nobody", {"x": x}, headers={"traceparent": refused})
    with GrpcClient(traced.grpc) as client:
        client.infer("top", {"x": x}, headers={"traceparent": called})
    for caller, count in ((http, 3), (refused, 1), (called, 3)):
        assert SPAN in {seen.parent for seen in collector.of(caller, count).values()}


def test_a_request_of_many_batches_has_all_its_runs(traced: RunningServer, collector: Collector) -> None:
    caller = parent()
    inputs = [{"name": "x", "datatype": "FP32", "shape": [10, 4], "data": list(range(40))}]
    answer = httpx.post(
        f"{traced.url}/v2/models/split/infer",
        json={"inputs": inputs},
        headers={"traceparent": caller},
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    trace = caller.split("-")[1]
    collector.wait(lambda c: sum(seen.trace == trace for seen in c.spans) >= 7)
    runs = [seen for seen in collector.spans if seen.trace == trace and seen.name == "run"]
    assert sorted(seen.attributes["tensorquay.rows"] for seen in runs) == [2, 4, 4]
    for run in runs:
        (link,) = run.links
        assert collector.batch(link).attributes["tensorquay.batch_rows"] == run.attributes["tensorquay.rows"]


@pytest.mark.parametrize("door", DOORS)
def test_the_access_log_names_the_trace(traced: RunningServer, door: str) -> None:
    caller = parent()
    DOORS[door](traced, caller)
    trace = f"trace_id={caller.split('-')[1]}"
    until(lambda: any(trace in line and "access" in line for line in traced.log), "the line is there")


def test_the_settings_are_shown_and_cannot_be_changed(traced: RunningServer) -> None:
    url = f"{traced.url}/v2/trace/setting"
    assert httpx.get(url, trust_env=False).json()["trace_mode"] == "opentelemetry"
    refused = httpx.post(url, json={"trace_rate": "1"}, trust_env=False)
    assert refused.status_code == 503
    assert "opentelemetry" in refused.json()["error"]


def test_what_was_sent_is_counted(traced: RunningServer, collector: Collector) -> None:
    caller = parent()
    ask_json(traced, {"traceparent": caller})
    collector.of(caller, 3)
    # The collector has what it counts a moment before the server knows.
    until(lambda: metric(traced, "tensorquay_trace_spans_sent_total") > 0, "spans are counted")
    assert metric(traced, "tensorquay_trace_spans_dropped_total") == 0


def test_a_share_of_the_others_is_traced_and_the_rest_sent_at_the_end(models: Path) -> None:
    collector = Collector()
    flags = tracing(collector, "--trace-config=rate=1", "--trace-config=opentelemetry,bsp_schedule_delay=3600000")
    variables = {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3"}
    server = start([models], *flags, env=variables)
    try:
        answer = ask_json(server, {})
        assert answer.headers["traceparent"].startswith("00-")
        assert server.stop() == 0
        spans = collector.of(answer.headers["traceparent"], 3)
        assert spans["POST /v2/models/{model}/infer"].parent == ""
        assert collector.requests[0]["api-key"] == "s3"
        assert collector.requests[0]["content-encoding"] == "gzip"
        assert "s3" not in server.told()
    finally:
        server.end()
        collector.close()
