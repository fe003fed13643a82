"""docs/migrate-from-triton.md: its tables are the code's, and a repository as Triton's users have it is served."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tests.docs.conftest import Typed
from tests.docs.migrants import CLASSES, triton_repository
from tests.docs.tables import flags, metrics_of, our_flags, quoted, tables
from tests.support import graphs
from tests.support.serving import RunningServer

from tensorquay.app import EXTENSIONS
from tensorquay.commands import tritonserver
from tensorquay.config.effective import DEFAULT_MAX_BATCH_SIZE
from tensorquay.config.rules import INSTEAD
from tensorquay.config.server import ServerConfig
from tensorquay.config.triton_fields import NO_EFFECT, REFUSED
from tensorquay.config.triton_schema import ModelConfigMessage

PAGE = "docs/migrate-from-triton.md"

TRITONS_EXTENSIONS = {
    "binary_tensor_data", "classification", "cuda_shared_memory", "logging", "model_configuration", "model_repository",
    "model_repository(unload_dependents)", "parameters", "schedule_policy", "sequence", "statistics",
    "system_shared_memory", "trace",
}  # fmt: skip
"""What `/v2` of Triton lists. Source: tritonserver, its server metadata."""


def dashed(*named: Iterator[str] | Any) -> set[str]:
    return {f"--{name}" for each in named for name in each}


# -- flags


def test_the_flags_are_the_codes() -> None:
    (table,) = tables(PAGE, "Command line")
    assert [row[0].split(" ")[0] for row in table] == ["obeyed", "accepted", "refused"]
    obeyed, idle, refused = (flags(row[1]) for row in table)
    assert idle == dashed(tritonserver.NO_EFFECT) | {"--metrics-config"}
    assert refused == dashed(tritonserver.REFUSED, tritonserver.REFUSED_WHEN_ON, tritonserver.REFUSED_UNLESS)
    assert obeyed <= our_flags() | dashed(tritonserver._SETTINGS)
    assert dashed(tritonserver._SETTINGS) == (obeyed | idle) & dashed(tritonserver._SETTINGS)


def test_a_command_line_of_tritons_is_understood(tmp_path: Path, typed: Typed) -> None:
    (table,) = tables(PAGE, "Command line")
    idle = sorted(flags(table[1][1]))
    code, said = typed(
        *("serve", "--print-config", "--model-store", tmp_path, *(f"{flag}=1" for flag in idle)),
        *("--backend-config=onnxruntime,default-max-batch-size=4", "--allow-http", "true", "--id=one"),
        *("--trace-config=mode=triton", f"--trace-config=triton,file={tmp_path / 'trace.json'}"),
        *("--trace-config=level=TIMESTAMPS", "--trace-config=rate=50", "--http-address", "127.0.0.1"),
    )
    assert code == 0, said
    for setting, value in (("default_max_batch_size", "4"), ("server_id", "one"), ("trace_rate", "50")):
        assert any(line.split()[:2] == [setting, value] for line in said.splitlines()), said
    for flag in idle:
        assert re.search(rf"note: {flag} (1 )?has no effect here", said), said


@pytest.mark.parametrize("setting", ["triton,file=t.json", "opentelemetry,url=localhost:4318/v1/traces"])
def test_both_modes_of_traces_are_understood(setting: str) -> None:
    given = [f"--trace-config=mode={setting.partition(',')[0]}", f"--trace-config={setting}"]
    assert len(tritonserver.translate(given, frozenset()).arguments) == 2


# -- config.pbtxt

_PATHS = {
    "ModelConfig": "",
    "ModelInput": "input.",
    "ModelOutput": "output.",
    "ModelVersionPolicy": "version_policy.",
    "ModelDynamicBatching": "dynamic_batching.",
    "ModelQueuePolicy": "queue policies.",
    "ModelInstanceGroup": "instance_group.",
    "ModelOptimizationPolicy": "optimization.",
    "ModelTransactionPolicy": "model_transaction_policy.",
    "ModelResponseCache": "response_cache.",
    "ModelWarmup": "model_warmup.",
}
"""Message → how the page names its fields."""


def _fields(message: Any = ModelConfigMessage.DESCRIPTOR) -> Iterator[str]:
    """Every field of the schema that the page's tables name, as "<message>.<field>"."""
    for field in message.fields:
        key = f"{message.name}.{field.name}"
        yield key
        below = field.message_type
        if below is not None and below.GetOptions().map_entry:
            below = below.fields_by_name["value"].message_type
        if below is not None and below.name in _PATHS and key not in REFUSED:
            yield from _fields(below)


def _named(key: str) -> str:
    message, _, field = key.partition(".")
    return _PATHS[message] + field


def test_every_field_is_in_the_table_where_the_code_puts_it() -> None:
    obeyed, idle, refused, _ = tables(PAGE, "config.pbtxt")
    said_obeyed = set()
    for name, fields in obeyed:
        prefix = "" if name == "model" else f"{name.strip('`')}."
        said_obeyed |= {prefix + field for field in quoted(fields.partition(" (")[0])}
    said_idle = {name for row in idle for name in quoted(row[0])} - {"parameters"}
    said_refused = {name for row in refused[:-1] for name in quoted(row[0])}
    codes_idle, codes_refused = ({_named(key) for key in table} for table in (NO_EFFECT, REFUSED))
    assert said_idle == codes_idle
    assert said_refused == codes_refused
    # What holds others is not said by itself, but by what is in it.
    holders = {path.rstrip(".") for path in _PATHS.values()}
    assert said_obeyed == {_named(key) for key in _fields()} - codes_idle - codes_refused - holders


def test_the_platforms_it_names_are_refused_with_what_to_do() -> None:
    _, _, refused, _ = tables(PAGE, "config.pbtxt")
    assert set(quoted(refused[-1][0])) == {"platform", "backend", *INSTEAD}


def test_the_defaults_it_names() -> None:
    said = {row[0]: row[2] for row in tables(PAGE, "config.pbtxt")[3]}
    assert f"up to {DEFAULT_MAX_BATCH_SIZE} " in said["no configuration, variable first axis"]
    kubernetes = {row[0]: row[1] for row in tables(PAGE, "Container and Kubernetes")[0]}
    ports = [ServerConfig.model_fields[f"{door}_port"].default for door in ("http", "grpc", "metrics")]
    assert kubernetes["ports"] == ", ".join(map(str, ports))


# -- protocol and metrics


def test_the_extensions_are_those_of_the_server(server: RunningServer) -> None:
    (table,) = tables(PAGE, "Clients and protocol")
    served = {name for row in table if row[1].startswith("served") for name in quoted(row[0])}
    missing = {name for row in table if row[1].startswith("**missing**") for name in quoted(row[0])}
    assert served == {name for name in EXTENSIONS if not name.startswith("tensorquay(")}
    assert missing - {"generate", "generate_stream"} >= TRITONS_EXTENSIONS - served
    for path in (
        "/v2/models/simple/generate",
        "/v2/models/simple/generate_stream",
        "/v2/cudasharedmemory/region/r/register",
        "/v2/repository/other/index",
    ):
        assert httpx.post(server.url + path, json={}).status_code == 501
    assert httpx.get(f"{server.url}/v2/cudasharedmemory/status").json() == []


def test_metrics_it_sends_elsewhere_are_not_there_and_their_stand_ins_are(server: RunningServer) -> None:
    there = metrics_of(server)
    (table,) = tables(PAGE, "Metrics, traces, logs")
    for theirs, ours in table:
        assert not {name for name in quoted(theirs) if name.startswith("nv_")} & there
        assert {name for name in quoted(ours) if name.startswith("tensorquay_")} <= there


# -- repositories


def test_a_repository_is_served_as_it_is_written(tmp_path: Path, serve: Callable[..., RunningServer]) -> None:
    repository = triton_repository(tmp_path / "models")
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    server = serve([repository])
    client = tritonclient.http.InferenceServerClient(server.http)
    said = client.get_model_config("resnet")
    assert said["dynamic_batching"]["preferred_batch_size"] == [4, 8]
    assert said["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 256
    assert said["instance_group"][0]["count"] == 2
    assert said["optimization"]["graph"]["level"] == 1
    assert said["parameters"]["intra_op_thread_count"] == {"string_value": "1"}
    assert [each["version"] for each in client.get_model_repository_index()] == ["1", "2"]
    rows = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    for module, address in ((tritonclient.http, server.http), (tritonclient.grpc, server.grpc)):
        tensor = module.InferInput("image", list(rows.shape), "FP32")
        tensor.set_data_from_numpy(rows)
        asked = module.InferRequestedOutput("probabilities", class_count=2)
        with module.InferenceServerClient(address) as asking:
            answer = asking.infer("resnet", [tensor], outputs=[asked])
        best = [[entry.decode().split(":")[2] for entry in row] for row in answer.as_numpy("probabilities")]
        assert all(name in CLASSES for row in best for name in row)
    client.close()
    page = httpx.get(f"http://{server.metrics}/metrics").text
    assert 'nv_inference_count{_team="vision",model="resnet",version="2"} 6' in page, page[:2000]
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before, "nothing is written to it"


STRANGE = {
    **{name: f'backend: "{name}"' for name in sorted(INSTEAD) if name not in {"ensemble", "tensorrt_plan"}},
    "tensorrt_plan": 'platform: "tensorrt_plan"',
    "ensemble": 'platform: "ensemble"',
    "steps": 'platform: "ensemble" ensemble_scheduling { step [ { model_name: "resnet" model_version: -1 '
    'input_map { key: "image" value: "image" } output_map { key: "probabilities" value: "scores" } } ] }',
    "sequences": 'backend: "onnxruntime" sequence_batching { direct {} }',
    "tokens": 'backend: "onnxruntime" model_transaction_policy { decoupled: True }',
    "cached": 'backend: "onnxruntime" response_cache { enable: true }',
}
"""Configurations of models that stay with Triton."""

ADVICE = INSTEAD | {
    "steps": "call the models one after another",
    "sequences": "stateful (sequence) models are not served",
    "tokens": "decoupled models",
    "cached": "remove it",
}


def test_what_stays_with_triton_is_said_at_once_and_with_what_to_do(tmp_path: Path, typed: Typed) -> None:
    for name, config in STRANGE.items():
        graphs.write(graphs.add_sub(), tmp_path / name / "1" / "model.onnx")
        (tmp_path / name / "config.pbtxt").write_text(config)
    code, said = typed("check", tmp_path, "--json")
    assert code == 1, said
    told = {each["name"]: each["problems"] for each in json.loads(said)["models"]}
    assert told.keys() == STRANGE.keys()
    for name, (problem, *more) in told.items():
        assert not more
        assert problem["text"].startswith("config.pbtxt line 1: ")
        assert ADVICE[name] in problem["text"]
        # To remove what a model was written for would be no advice.
        assert name == "cached" or "remove it" not in problem["text"]


@pytest.mark.parametrize(
    ("verb", "address"), [("check", "s3://bucket/models"), ("serve", "gs://bucket/models"), ("serve", "as://one/two")]
)
def test_an_object_store_is_named_as_one(verb: str, address: str, typed: Typed) -> None:
    code, said = typed(verb, address)
    assert code == 1
    assert f"'{address}' is in an object store, and only folders are read" in said
