"""What a client counts, what the statistics say and what Prometheus reads are the same numbers (protocol 1.11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.serving import RunningServer, start

import graphs
from doors import Door, Grpc, GrpcStream, Http, grpc_request
from observing import failures, page, samples, statistics, value, waits
from waiting import until
from wire import Answer, Call, given

_WAITING = """max_batch_size: 8
dynamic_batching {
  preferred_batch_size: [ 8 ]
  max_queue_delay_microseconds: 3600000000
  default_queue_policy { timeout_action: REJECT allow_timeout_override: true max_queue_size: 2 }
}
"""


@pytest.fixture
def doors(fresh: RunningServer) -> Iterator[list[Door]]:
    """Every door that has a socket."""
    opened: list[Door] = [
        Http(fresh.url, binary=False),
        Http(fresh.url, binary=True),
        Grpc(fresh.grpc),
        Grpc(fresh.grpc, typed=True),
        GrpcStream(fresh.grpc),
    ]
    yield opened
    for door in opened:
        door.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[RunningServer]:
    """A server whose counters nobody has touched; `tagged` has metric tags, `idle` is never called."""
    graphs.write(graphs.scale(2.0), tmp_path / "tagged" / "1" / "model.onnx")
    (tmp_path / "tagged" / "config.pbtxt").write_text(
        'max_batch_size: 4\nmetric_tags { key: "team" value: "a" }\nparameters '
        '{ key: "oversize_requests" value { string_value: "refuse" } }\n'
    )
    graphs.write(graphs.lookup(), tmp_path / "lookup" / "1" / "model.onnx")
    graphs.write(graphs.scale(2.0), tmp_path / "waiting" / "1" / "model.onnx")
    (tmp_path / "waiting" / "config.pbtxt").write_text(_WAITING)
    graphs.write(graphs.scale(2.0), tmp_path / "idle" / "1" / "model.onnx")
    running = start([tmp_path])
    yield running
    assert running.stop() == 0, running.told()


def rows(count: int) -> tuple[Any, ...]:
    return (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]] * count),)


def test_sums_agree_after_successes_and_failures_of_every_kind(fresh: RunningServer, doors: list[Door]) -> None:
    success = dict.fromkeys(("tagged", "lookup", "waiting"), 0)
    elements = dict.fromkeys(success, 0)
    wrong = dict.fromkeys(success, 0)
    for door in doors:
        for count in (1, 2, 3, 4, 5):
            answered = isinstance(door.infer(Call("tagged", rows(count))), Answer)
            assert answered is (count <= 4)
            success["tagged"] += answered
            elements["tagged"] += count * answered
            wrong["tagged"] += not answered
        for index in (0, 7, 2):
            answered = isinstance(door.infer(Call("lookup", (given("index", "INT64", [index]),))), Answer)
            assert answered is (index < 3)
            success["lookup"] += answered
            elements["lookup"] += answered
            wrong["lookup"] += not answered
        # A model that nobody has counts nowhere.
        assert not isinstance(door.infer(Call("nosuch", rows(1))), Answer)
        # Eight rows fill the batch and run at once; one row runs out of time in the queue.
        assert isinstance(door.infer(Call("waiting", rows(8))), Answer)
        success["waiting"] += 1
        elements["waiting"] += 8
        assert not isinstance(door.infer(Call("waiting", rows(1), parameters={"timeout": 1000})), Answer)
    call = doors[2].stub.ModelInfer.future(grpc_request(Call("waiting", rows(1))))  # type: ignore[attr-defined]
    until(lambda: waits(fresh, "waiting"), "the request waits")
    call.cancel()
    rejected, cancelled = len(doors), 1
    until(lambda: failures(fresh, "waiting") == rejected + cancelled, "the request has left")

    found = samples(fresh)
    reasons = {
        "tagged": {"OTHER": wrong["tagged"]},
        "lookup": {"OTHER": wrong["lookup"]},
        "waiting": {"REJECTED": rejected, "CANCELED": cancelled},
        "idle": {},
    }
    for model, why in reasons.items():
        labels = {"model": model, "version": "1"} | ({"_team": "a"} if model == "tagged" else {})
        stats = statistics(fresh, model)
        inference = stats["inference_stats"]
        assert inference["success"]["count"] == success.get(model, 0)
        assert inference["fail"]["count"] == sum(why.values())
        assert stats["inference_count"] == elements.get(model, 0)
        assert stats["execution_count"] == success.get(model, 0)  # one after another: every run served one request
        for part in ("queue", "compute_input", "compute_infer", "compute_output"):
            assert inference[part]["count"] == success.get(model, 0)
        assert sum(each["compute_infer"]["count"] for each in stats["batch_stats"]) == stats["execution_count"]
        assert (
            sum(each["batch_size"] * each["compute_infer"]["count"] for each in stats["batch_stats"])
            == stats["inference_count"]
        )
        assert sum(each["compute_infer"]["ns"] for each in stats["batch_stats"]) == inference["compute_infer"]["ns"]
        assert (stats["last_inference"] > 0) is (success.get(model, 0) > 0)
        for name, expected in {
            "nv_inference_request_success": inference["success"]["count"],
            "nv_inference_count": stats["inference_count"],
            "nv_inference_exec_count": stats["execution_count"],
            "nv_inference_request_duration_us": inference["success"]["ns"] // 1000,
            "nv_inference_queue_duration_us": inference["queue"]["ns"] // 1000,
            "nv_inference_compute_input_duration_us": inference["compute_input"]["ns"] // 1000,
            "nv_inference_compute_infer_duration_us": inference["compute_infer"]["ns"] // 1000,
            "nv_inference_compute_output_duration_us": inference["compute_output"]["ns"] // 1000,
            "nv_inference_pending_request_count": 0,
            "tensorquay_request_seconds_count": inference["success"]["count"],
            "tensorquay_queue_seconds_count": inference["success"]["count"],
            "tensorquay_compute_seconds_count": stats["execution_count"],
            "tensorquay_batch_rows_sum": stats["inference_count"],
            "tensorquay_batch_rows_count": stats["execution_count"],
            "tensorquay_model_loads_total": 1,
        }.items():
            assert value(found, name, **labels) == expected, (model, name)
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
            assert value(found, "nv_inference_request_failure", reason=reason, **labels) == why.get(reason, 0)
        assert value(found, "tensorquay_model_state", model=model, version="1", state="READY") == 1
    assert value(found, "tensorquay_inflight_requests") == 0


def test_metrics_are_there_at_zero_from_the_start_and_once_each(fresh: RunningServer) -> None:
    families = {family.name: family for family in text_string_to_metric_families(page(fresh))}
    for name in (
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_output_duration_us",
    ):
        assert families[name].type == "counter"
        models = {sample.labels["model"] for sample in families[name].samples}
        assert models == {"tagged", "lookup", "waiting", "idle"}
        assert {sample.value for sample in families[name].samples} == {0}
    assert families["nv_inference_pending_request_count"].type == "gauge"
    build = families["tensorquay_build_info"].samples
    assert [sample.value for sample in build] == [1]
    assert samples(fresh)


def test_the_metrics_port_has_one_page(zoo: RunningServer) -> None:
    base = f"http://{zoo.metrics}"
    assert httpx.get(f"{base}/metrics", trust_env=False).status_code == 200
    assert httpx.get(f"{base}/metrics?name=x", trust_env=False).status_code == 200
    assert httpx.get(f"{base}/", trust_env=False).status_code == 404
    assert httpx.post(f"{base}/metrics", trust_env=False).status_code == 405
    assert httpx.get(f"{zoo.url}/metrics", trust_env=False).status_code == 404


def test_a_client_that_leaves_over_http_counts_as_cancelled(zoo: RunningServer) -> None:
    def cancelled() -> float:
        labels = {"model": "waiting", "version": "1", "reason": "CANCELED"}
        return value(samples(zoo), "nv_inference_request_failure", **labels)

    before, failed = cancelled(), failures(zoo, "waiting")
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    with pytest.raises(httpx.ReadTimeout), httpx.Client(trust_env=False, timeout=0.2) as client:
        client.post(f"{zoo.url}/v2/models/waiting/infer", json=body)
    until(lambda: failures(zoo, "waiting") == failed + 1, "the request has left")
    assert cancelled() == before + 1
    assert value(samples(zoo), "nv_inference_pending_request_count", model="waiting", version="1") == 0
