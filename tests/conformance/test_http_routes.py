"""Which paths and verbs there are, and what the control routes say (protocol sections 1, 1.3, 1.9 to 1.14)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.support.serving import RunningServer


@pytest.fixture(scope="module")
def http(zoo: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=zoo.url, trust_env=False, timeout=30) as client:
        yield client


_ROUTES = [
    ("GET", "/v2", 200),
    ("GET", "/v2?verbose=1", 200),
    ("GET", "/v2/health/live", 200),
    ("GET", "/v2/health/ready", 200),
    ("GET", "/v2/health/ready?x=y", 200),
    ("GET", "/v2/models/double", 200),
    ("GET", "/v2/models/double/versions/1", 200),
    ("GET", "/v2/models/double/ready", 200),
    ("GET", "/v2/models/double/versions/1/ready", 200),
    ("GET", "/v2/models/double/config", 200),
    ("GET", "/v2/models/double/versions/1/config", 200),
    ("GET", "/v2/models/stats", 200),
    ("GET", "/v2/models/double/stats", 200),
    ("GET", "/v2/models/double/versions/1/stats", 200),
    ("GET", "/v2/models/odd%20name%20%C3%A9%25", 200),
    ("GET", "/v2/models/odd%20name%20%C3%A9%25/ready", 200),
    ("GET", "/v2/trace/setting", 200),
    ("GET", "/v2/models/double/trace/setting", 200),
    ("GET", "/v2/logging", 200),
    ("POST", "/v2/repository/index", 200),
    ("GET", "/v2/cudasharedmemory/status", 200),
    # No route at all.
    ("GET", "/index.html", 404),
    ("GET", "/nosuch", 404),
    ("GET", "/v2/", 404),
    ("GET", "/v2/health", 404),
    ("GET", "/v2/health/live/", 404),
    ("GET", "/v2/health/other", 404),
    ("GET", "/v2/models/double/", 404),
    ("GET", "/v2/models/double/versions", 404),
    ("GET", "/v2/models/double/versions/one", 404),
    ("GET", "/v2/models/double/versions/-1", 404),
    ("GET", "/v2/models/double/versions/one/ready", 404),
    ("POST", "/v2/models/double/versions/one/infer", 404),
    ("POST", "/v2/models/double/versions/1.0/infer", 404),
    ("POST", "/v2/models/double/infer/", 404),
    ("GET", "/v2/models/double/versions/one/config", 404),
    ("GET", "/v2/models/double/versions/one/stats", 404),
    ("GET", "/v2/models/double/versions/1/trace/setting", 404),
    ("GET", "/v2/models/..%2F..%2Fetc%2Fpasswd", 404),
    ("GET", "/v2/models/%2e%2e/config", 404),
    ("POST", "/v2/models//infer", 404),
    ("GET", "/v3", 404),
    # The path is known, the verb is not.
    ("POST", "/", 405),
    ("POST", "/v2", 405),
    ("POST", "/v2/live/now", 405),
    ("POST", "/v2/health/live", 405),
    ("PUT", "/v2/health/ready", 405),
    ("POST", "/v2/models/double", 405),
    ("POST", "/v2/models/double/ready", 405),
    ("GET", "/v2/models/double/infer", 405),
    ("PUT", "/v2/models/double/versions/1/infer", 405),
    ("DELETE", "/v2/models/double/infer", 405),
    ("POST", "/v2/models/double/config", 405),
    ("POST", "/v2/models/stats", 405),
    ("PUT", "/v2/logging", 405),
    ("GET", "/v2/repository/index", 405),
    ("GET", "/v2/repository/models/double/load", 405),
    ("POST", "/v2/systemsharedmemory/status", 405),
    # The model is the mistake.
    ("GET", "/v2/models/nosuch", 404),
    ("GET", "/v2/models/nosuch/config", 404),
    ("GET", "/v2/models/nosuch/stats", 404),
    ("GET", "/v2/models/double/versions/9", 404),
    ("GET", "/v2/models/double/versions/9/config", 404),
    ("GET", "/v2/models/nosuch/trace/setting", 404),
    ("GET", "/v2/models/nosuch/ready", 400),
    ("GET", "/v2/models/double/versions/9/ready", 400),
    ("GET", "/v2/models/double/versions/99999999999999999999/ready", 400),
    ("GET", "/v2/models/double/versions/99999999999999999999", 400),
    # Not offered, or not switched on.
    ("POST", "/v2/models/double/generate", 501),
    ("POST", "/v2/models/double/versions/1/generate_stream", 501),
    ("POST", "/v2/repository/other/index", 501),
    ("POST", "/v2/repository/other/models/double/load", 501),
    ("POST", "/v2/repository/other/models/double/unload", 501),
    ("GET", "/v2/systemsharedmemory/status", 501),
    ("POST", "/v2/systemsharedmemory/unregister", 501),
    ("POST", "/v2/systemsharedmemory/region/r/register", 501),
    ("POST", "/v2/cudasharedmemory/region/r/register", 501),
    # The control mode forbids it.
    ("POST", "/v2/repository/models/double/load", 503),
    ("POST", "/v2/repository/models/double/unload", 503),
]
_WORDS = {404: "Not Found", 405: "Method Not Allowed"}


@pytest.mark.parametrize(("verb", "path", "status"), _ROUTES)
def test_1_routes_and_verbs(http: httpx.Client, verb: str, path: str, status: int) -> None:
    response = http.request(verb, path)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    if status != 200:
        text = response.json()["error"]
        assert text
        if status == 405 or (status == 404 and "unknown model" not in text):
            assert response.json() == {"error": _WORDS[status]}
        if status == 405:
            assert response.headers["allow"]


def test_1_1_load_in_another_mode_has_the_known_text(http: httpx.Client) -> None:
    for action in ("load", "unload"):
        response = http.post(f"/v2/repository/models/double/{action}")
        text = response.json()["error"]
        assert text.startswith("explicit model load / unload is not allowed if polling is enabled (the mode is ")


def test_1_health_bodies_are_what_both_families_of_clients_read(http: httpx.Client) -> None:
    # Triton's clients read the status only, KServe's need the JSON (protocol section 8.2).
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get("/v2/models/double/ready").json() == {"name": "double", "ready": True}
    assert http.get("/v2/models/odd%20name%20%C3%A9%25/ready").json()["name"] == "odd name é%"
    assert http.get("/v2/models/nosuch/ready").json() == {"error": "Model version not ready"}


def test_1_17_server_metadata(http: httpx.Client) -> None:
    body = http.get("/v2").json()
    assert set(body) == {"name", "version", "extensions"}
    assert body["name"] == "triton"
    assert {
        "classification",
        "model_repository",
        "model_repository(unload_dependents)",
        "schedule_policy",
        "model_configuration",
        "system_shared_memory",
        "binary_tensor_data",
        "parameters",
        "statistics",
        "trace",
        "logging",
    } <= set(body["extensions"])


@pytest.mark.parametrize(
    ("model", "versions", "inputs", "outputs"),
    [
        ("double", ["1"], [["x", "FP32", [-1, 4]]], [["y", "FP32", [-1, 4]]]),
        ("t_bytes", ["1"], [["x", "BYTES", [-1, -1]]], [["y", "BYTES", [-1, -1]]]),
        ("t_bf16", ["1"], [["x", "BF16", [-1, -1]]], [["y", "BF16", [-1, -1]]]),
        ("scalar", ["1"], [["x", "FP32", []]], [["y", "FP32", []]]),
        ("pair", ["1"], [["x", "FP32", [2, 3]]], [["y", "FP32", [2, 3]]]),
        ("folded", ["1"], [["x", "FP32", [-1, 2, 3]]], [["y", "FP32", [-1, 3, 2]]]),
        ("versions", ["1", "3"], [["x", "FP32", [-1, 4]]], [["y", "FP32", [-1, 4]]]),
        (
            "split",
            ["1"],
            [["INPUT0", "INT32", [-1, 4]], ["INPUT1", "INT32", [-1, 4]]],
            [["OUTPUT0", "INT32", [-1, 4]], ["OUTPUT1", "INT32", [-1, 4]]],
        ),
    ],
)
def test_1_3_model_metadata(
    http: httpx.Client, model: str, versions: list[str], inputs: list[Any], outputs: list[Any]
) -> None:
    body = http.get(f"/v2/models/{model}").json()
    assert body["name"] == model
    assert body["versions"] == versions
    assert body["platform"] == "onnxruntime_onnx"
    assert [list(entry) for entry in body["inputs"]] == [["name", "datatype", "shape"]] * len(inputs)
    assert [list(entry.values()) for entry in body["inputs"]] == inputs
    assert [list(entry.values()) for entry in body["outputs"]] == outputs


def test_1_10_config_has_snake_case_names_plain_numbers_and_enum_names(http: httpx.Client) -> None:
    body = http.get("/v2/models/top/config").json()
    assert body["name"] == "top"
    assert body["platform"] == "onnxruntime_onnx"
    assert body["backend"] == "onnxruntime"
    assert body["max_batch_size"] == 8
    assert body["version_policy"] == {"latest": {"num_versions": 1}}
    (entry,) = body["input"]
    assert {"name": "x", "data_type": "TYPE_FP32", "dims": [4], "format": "FORMAT_NONE"}.items() <= entry.items()
    (entry,) = body["output"]
    assert {"name": "y", "dims": [4], "label_filename": "labels.txt"}.items() <= entry.items()
    (group,) = body["instance_group"]
    assert group["kind"] == "KIND_CPU"
    assert type(group["count"]) is int


def test_1_10_config_of_a_model_without_one_says_what_is_used(http: httpx.Client) -> None:
    body = http.get("/v2/models/double/config").json()
    assert body["max_batch_size"] == 64
    assert body["dynamic_batching"]["max_queue_delay_microseconds"] == 0
    assert [(each["name"], each["data_type"], each["dims"]) for each in body["input"]] == [("x", "TYPE_FP32", [4])]
    pair = http.get("/v2/models/pair/config").json()
    assert pair["max_batch_size"] == 0
    assert "dynamic_batching" not in pair
    assert pair["input"][0]["dims"] == [2, 3]


def test_1_11_statistics_have_exactly_these_names(http: httpx.Client) -> None:
    body = http.get("/v2/models/strict/stats").json()
    assert list(body) == ["model_stats"]
    (stats,) = body["model_stats"]
    assert set(stats) == {
        "name",
        "version",
        "last_inference",
        "inference_count",
        "execution_count",
        "inference_stats",
        "response_stats",
        "batch_stats",
        "memory_usage",
    }
    assert (stats["name"], stats["version"]) == ("strict", "1")
    assert set(stats["inference_stats"]) == {
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "cache_hit",
        "cache_miss",
    }
    for duration in stats["inference_stats"].values():
        assert set(duration) == {"count", "ns"}


def test_1_11_statistics_of_all_and_of_the_ready_versions(http: httpx.Client, zoo_names: set[str]) -> None:
    everything = http.get("/v2/models/stats").json()["model_stats"]
    assert {each["name"] for each in everything} == zoo_names
    both = http.get("/v2/models/versions/stats").json()["model_stats"]
    assert [each["version"] for each in both] == ["1", "3"]
    (one,) = http.get("/v2/models/versions/versions/3/stats").json()["model_stats"]
    assert one["version"] == "3"


def test_1_9_index(http: httpx.Client, zoo_names: set[str]) -> None:
    entries = http.post("/v2/repository/index").json()
    assert {entry["name"] for entry in entries} == zoo_names
    assert {entry["state"] for entry in entries} == {"READY"}
    assert all(set(entry) <= {"name", "version", "state", "reason"} for entry in entries)
    assert http.post("/v2/repository/index", json={"ready": True}).json() == entries
    assert http.post("/v2/repository/index", json={}).json() == entries


@pytest.mark.parametrize(
    "body", [b'{"ready":1}', b'{"ready":"true"}', b'{"ready":null}', b"[]", b"{", b'{"raedy":true}', b"\xff"]
)
def test_1_9_a_bad_index_request_is_the_clients_mistake(http: httpx.Client, body: bytes) -> None:
    response = http.post("/v2/repository/index", content=body)
    assert response.status_code == 400
    assert response.json()["error"]


def test_1_13_log_settings_read_and_refused(http: httpx.Client) -> None:
    body = http.get("/v2/logging").json()
    assert set(body) == {
        "log_file",
        "log_info",
        "log_warning",
        "log_error",
        "log_verbose_level",
        "log_format",
    }
    for change in (
        {"log_info": 1},
        {"log_info": "false"},
        {"log_verbose_level": -1},
        {"log_format": "x"},
        {"no": True},
    ):
        assert http.post("/v2/logging", json=change).status_code == 400
    refused = http.post("/v2/logging", json={"log_file": "elsewhere"})
    assert refused.status_code == 501
    assert http.get("/v2/logging").json() == body


def test_1_12_trace_settings_read_and_refused(http: httpx.Client) -> None:
    body = http.get("/v2/trace/setting").json()
    assert set(body) >= {"trace_file", "trace_level", "trace_rate", "trace_count", "log_frequency"}
    assert body["trace_level"] == ["OFF"]
    assert all(type(value) is str for name, value in body.items() if name != "trace_level")
    for change in (
        {"trace_rate": "-1"},
        {"trace_rate": 5},
        {"trace_count": "-2"},
        {"trace_count": "99999999999999"},
        {"trace_level": ["LOUD"]},
        {"trace_level": ["TIMESTAMPS"]},  # no file was given at start
        {"nosuch": "1"},
    ):
        assert http.post("/v2/trace/setting", json=change).status_code == 400, change
    assert http.get("/v2/trace/setting").json() == body


def test_1_12_a_model_may_differ_and_null_clears(http: httpx.Client) -> None:
    path = "/v2/models/scalar/trace/setting"
    assert http.post(path, json={"trace_rate": "7"}).json()["trace_rate"] == "7"
    assert http.get(path).json()["trace_rate"] == "7"
    assert http.get("/v2/trace/setting").json()["trace_rate"] == "1000"
    assert http.post(path, json={"trace_rate": None}).json()["trace_rate"] == "1000"
