"""Everything but predictions with tritonclient as it is: health, metadata, configuration, statistics, settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from tests.conftest import REPOSITORY
from tests.support.serving import RunningServer, start
from tritonclient.utils import InferenceServerException

from strangers import Stranger, connect, connect_async, plain, simple_inputs
from waiting import until

KINDS = pytest.mark.parametrize("kind", ["http", "grpc"])


@pytest.fixture(scope="module")
def strangers(zoo: RunningServer) -> Iterator[dict[str, Stranger]]:
    opened = {kind: connect(kind, zoo) for kind in ("http", "grpc")}
    yield opened
    for each in opened.values():
        each.client.close()


@pytest.fixture
def stranger(strangers: dict[str, Stranger], kind: str) -> Stranger:
    return strangers[kind]


@pytest.fixture(scope="module")
def tracing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    """A server that may write traces, and the file they go to."""
    file = tmp_path_factory.mktemp("traces") / "trace.json"
    running = start([REPOSITORY], f"--trace-file={file}")
    yield running, file
    assert running.stop() == 0, running.told()


@KINDS
def test_health(stranger: Stranger) -> None:
    client = stranger.client
    assert client.is_server_live() is True
    assert client.is_server_ready() is True
    assert client.is_model_ready("double") is True
    assert client.is_model_ready("versions", "3") is True
    assert client.is_model_ready("versions", "2") is False
    assert client.is_model_ready("nosuch") is False


@KINDS
def test_server_metadata(stranger: Stranger) -> None:
    metadata = stranger.ask("get_server_metadata")
    assert metadata["name"] == "triton"
    assert "binary_tensor_data" in metadata["extensions"]


def test_both_doors_describe_every_model_alike(strangers: dict[str, Stranger], zoo_names: set[str]) -> None:
    for name in zoo_names:
        over_http = strangers["http"].ask("get_model_metadata", name)
        over_grpc = strangers["grpc"].ask("get_model_metadata", name)
        # The message of tritonclient does not have the field `properties` of the Open Inference Protocol.
        over_http.pop("properties", None)
        for side in (over_http, over_grpc):
            for tensor in side["inputs"] + side["outputs"]:
                tensor["shape"] = [int(size) for size in tensor.get("shape", [])]
        assert plain(over_http) == plain(over_grpc)


def test_both_doors_give_the_same_configuration(strangers: dict[str, Stranger], zoo_names: set[str]) -> None:
    for name in zoo_names:
        over_http = strangers["http"].client.get_model_config(name)
        message = strangers["grpc"].client.get_model_config(name).config
        # Read back into Triton's own message: a name or an enum that it does not have would be refused.
        same = json_format.ParseDict(over_http, type(message)())
        assert same == message
        assert over_http["name"] == name


@KINDS
def test_unknown_models_are_not_found(stranger: Stranger) -> None:
    for call in ("get_model_metadata", "get_model_config", "get_inference_statistics"):
        with pytest.raises(
            InferenceServerException, match="Request for unknown model: 'nosuch' is not found"
        ) as caught:
            stranger.ask(call, "nosuch")
        assert caught.value.status() in {"404", "StatusCode.NOT_FOUND"}


@KINDS
def test_statistics_count_what_this_client_did(stranger: Stranger) -> None:
    def read() -> dict[str, int]:
        (stats,) = stranger.ask("get_inference_statistics", "top_int", "1")["model_stats"]
        inference = stats["inference_stats"]
        return {
            "rows": int(stats.get("inference_count", 0)),
            "runs": int(stats.get("execution_count", 0)),
            "success": int(inference["success"].get("count", 0)),
            "fail": int(inference["fail"].get("count", 0)),
            "batches of 3": sum(
                int(each["compute_infer"]["count"])
                for each in stats.get("batch_stats", [])
                if int(each["batch_size"]) == 3
            ),
        }

    before = read()
    rows = np.ones((3, 4), np.int32)
    for _ in range(2):
        stranger.client.infer("top_int", [stranger.input("x", rows)])
    with pytest.raises(InferenceServerException):
        stranger.client.infer("top_int", [stranger.input("x", rows.astype(np.float32))])
    after = read()
    assert {name: after[name] - before[name] for name in after} == {
        "rows": 6,
        "runs": 2,
        "success": 2,
        "fail": 1,
        "batches of 3": 2,
    }


@KINDS
def test_statistics_of_everything(stranger: Stranger, zoo_names: set[str]) -> None:
    assert {each["name"] for each in stranger.ask("get_inference_statistics")["model_stats"]} == zoo_names


@KINDS
def test_repository_index_in_mode_none_and_its_refusals(stranger: Stranger, zoo_names: set[str]) -> None:
    index = stranger.ask("get_model_repository_index")
    entries = index if stranger.is_http else index["models"]
    assert {entry["name"] for entry in entries} == zoo_names
    for call in ("load_model", "unload_model"):
        with pytest.raises(
            InferenceServerException, match="explicit model load / unload is not allowed if polling is enabled"
        ) as caught:
            getattr(stranger.client, call)("double")
        assert caught.value.status() in {"503", "StatusCode.UNAVAILABLE"}


@KINDS
def test_shared_memory_is_refused_where_it_is_off(stranger: Stranger) -> None:
    for refused in (
        lambda: stranger.client.register_system_shared_memory("r", "/r", 16),
        stranger.client.get_system_shared_memory_status,
    ):
        with pytest.raises(InferenceServerException, match="--allow-client-shm") as caught:
            refused()
        assert caught.value.status() in {"501", "StatusCode.UNIMPLEMENTED"}


@KINDS
def test_log_settings(stranger: Stranger) -> None:
    def shown(settings: Any) -> Any:
        if stranger.is_http:
            return settings
        return {name: next(iter(value.values())) for name, value in settings["settings"].items()}

    before = shown(stranger.ask("get_log_settings"))
    assert before["log_info"] is True
    assert before["log_verbose_level"] == 0
    try:
        change = {"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"}
        after = shown(stranger.ask("update_log_settings", change))
        assert {name: after[name] for name in change} == change
        assert shown(stranger.ask("get_log_settings")) == after
        with pytest.raises(InferenceServerException, match="log file location can not be updated"):
            stranger.ask("update_log_settings", {"log_file": "elsewhere"})
    finally:
        stranger.ask("update_log_settings", {"log_info": True, "log_verbose_level": 0, "log_format": "default"})
    assert shown(stranger.ask("get_log_settings")) == before


def levels(stranger: Stranger, settings: Any) -> dict[str, list[str]]:
    if stranger.is_http:
        return {name: value if isinstance(value, list) else [str(value)] for name, value in settings.items()}
    return {name: [str(item) for item in entry.get("value", [])] for name, entry in settings["settings"].items()}


@KINDS
def test_trace_settings_and_a_trace(tracing: tuple[RunningServer, Path], kind: str) -> None:
    server, file = tracing
    stranger = connect(kind, server)
    try:
        before = levels(stranger, stranger.ask("get_trace_settings"))
        assert before["trace_level"] == ["OFF"]
        assert before["trace_rate"] == ["1000"]
        change = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "1"}
        after = levels(stranger, stranger.ask("update_trace_settings", "simple", change))
        assert after["trace_level"] == ["TIMESTAMPS"]
        assert (after["trace_rate"], after["trace_count"]) == (["1"], ["1"])
        assert levels(stranger, stranger.ask("get_trace_settings"))["trace_level"] == ["OFF"]
        inputs, _, _ = simple_inputs(stranger)
        for number in range(3):
            stranger.client.infer("simple", inputs, request_id=f"{kind}-{number}")
        # One is taken, then the count has run down; it shows in the settings.
        until(
            lambda: levels(stranger, stranger.ask("get_trace_settings", "simple"))["trace_count"] == ["0"],
            "the trace is taken",
        )
        (header,) = until(lambda: [each for each in written(file) if each.get("request_id") == f"{kind}-0"], "the file")
        assert header["model_name"] == "simple"
        stamps = [s for each in written(file) if each["id"] == header["id"] for s in each.get("timestamps", [])]
        names = {stamp["name"] for stamp in stamps}
        assert {"REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START",
                "COMPUTE_END", "REQUEST_END"} <= names  # fmt: skip
        cleared = {"trace_level": None, "trace_rate": None, "trace_count": None}
        assert levels(stranger, stranger.ask("update_trace_settings", "simple", cleared)) == before
        for wrong in ({"trace_rate": "-1"}, {"trace_count": "-2"}, {"trace_level": ["LOUD"]}):
            with pytest.raises(InferenceServerException):
                stranger.ask("update_trace_settings", "simple", wrong)
        with pytest.raises(InferenceServerException):
            stranger.ask("get_trace_settings", "nosuch")
    finally:
        stranger.client.close()


def written(file: Path) -> list[Any]:
    """The traces so far, also of the numbered files that a count that has run down leaves (as Triton does)."""
    return [
        trace for part in sorted(file.parent.glob(f"{file.name}*")) for trace in json.loads(part.read_text() or "[]")
    ]


@KINDS
async def test_aio_control_calls(zoo: RunningServer, kind: str) -> None:
    stranger = connect_async(kind, zoo)
    client = stranger.client
    options = {} if stranger.is_http else {"as_json": True}
    try:
        assert (await client.get_server_metadata(**options))["name"] == "triton"
        assert (await client.get_model_metadata("double", **options))["name"] == "double"
        config = await client.get_model_config("double", **options)
        assert (config if stranger.is_http else config["config"])["name"] == "double"
        assert len((await client.get_inference_statistics("versions", **options))["model_stats"]) == 2
        assert await client.get_model_repository_index(**options)
        assert await client.get_log_settings(**options)
        assert await client.get_trace_settings(**options)
        with pytest.raises(InferenceServerException, match="unknown model"):
            await client.get_model_metadata("nosuch")
    finally:
        await client.close()
