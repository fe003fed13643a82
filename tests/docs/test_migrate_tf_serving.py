"""docs/migrate-from-tf-serving.md: what its tables send a reader to exists, and its paths are answered as it says."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import httpx
import pytest
from tests.docs.conftest import Typed
from tests.docs.markdown import prose
from tests.docs.tables import flags, metrics_of, our_flags, quoted, tables, toml_keys
from tests.support.serving import RunningServer

from tensorquay.config.effective import DEFAULT_MAX_BATCH_SIZE
from tensorquay.config.server import ServerConfig
from tensorquay.config.toml_file import parse_toml

PAGE = "docs/migrate-from-tf-serving.md"

BATCHING_PARAMETERS = [
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
    "allowed_batch_sizes",
    "pad_variable_length_inputs",
    "enable_large_batch_splitting",
    "max_execution_batch_size",
    "thread_pool_name",
]
"""The fields of TensorFlow Serving's BatchingParameters. Source: its session_bundle_config.proto."""


def test_every_batching_parameter_goes_to_a_key_that_is_there() -> None:
    (table,) = tables(PAGE, "Batching parameters")
    assert [name for row in table for name in quoted(row[0])] == BATCHING_PARAMETERS
    known = toml_keys()
    for _, key, remark in table:
        assert {name for name in quoted(key) if name != "–"} <= known
        assert {name for name in quoted(remark) if "." in name} <= known
    assert parse_toml("").batching is None
    said = {row[0].strip("`"): row[2] for row in table}
    assert said["max_batch_size"] == f"default: {DEFAULT_MAX_BATCH_SIZE}"


def test_what_a_version_policy_becomes_is_read_by_the_server() -> None:
    (table,) = tables(PAGE, "Models and versions")
    policies = [quoted(row[1]) for row in table if row[0].startswith("`model_version_policy")]
    assert len(policies) == 3
    for said in policies:
        assert parse_toml("[versions]\n" + "\n".join(line for line in said if " = " in line)).version_policy is not None


def test_flags_become_flags_and_keys_that_are_there() -> None:
    (table,) = tables(PAGE, "Flags")
    settings = ServerConfig.model_fields
    for row in table:
        assert flags(row[1]) <= our_flags(), row
        assert {name for name in quoted(row[1]) if re.fullmatch(r"[a-z]+\.[a-z_.]+", name)} <= toml_keys(), row
        for flag, told in re.findall(r"`(?:--model-control-mode=poll )?--([a-z-]+)(?:=N)?` \((\d+)\)", row[1]):
            assert settings[flag.replace("-", "_")].default == int(told), row


def test_metrics_become_metrics_that_are_there(server: RunningServer) -> None:
    (table,) = tables(PAGE, "Metrics")
    named = {name for row in table for name in quoted(row[1])}
    assert len(named) >= 7
    assert named <= metrics_of(server)


@pytest.mark.parametrize("path", ["/v1/models/flowers:predict", "/v1/models/flowers/versions/3:predict", "/v1/models"])
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_its_paths_are_404_with_what_to_call_instead(server: RunningServer, verb: str, path: str) -> None:
    answer = httpx.request(verb, server.url + path)
    assert answer.status_code == 404
    told = answer.json()
    assert told["code"] == "NOT_FOUND"
    assert "POST /v2/models/NAME/infer" in told["error"]
    assert PAGE in told["error"]


def test_its_grpc_service_is_not_served(server: RunningServer) -> None:
    channel = grpc.insecure_channel(server.grpc, options=[("grpc.enable_http_proxy", 0)])
    with channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/tensorflow.serving.PredictionService/Predict")(b"", timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_every_path_of_ours_that_it_names_is_one(server: RunningServer) -> None:
    for verb, path in set(re.findall(r"(GET|POST) (/v2/[\w/]+)", prose(PAGE))):
        real = path.replace("/M", "/digits").replace("/NAME", "/digits").replace("/versions/3", "/versions/2")
        answer = httpx.request(verb, server.url + real)
        assert answer.status_code != 405, f"{verb} {path}"
        assert answer.text != '{"error":"Not Found"}', f"{verb} {path}"


@pytest.mark.parametrize("verb", ["check", "serve"])
@pytest.mark.parametrize("file", ["saved_model.pb", "model.savedmodel/saved_model.pb", "model.pt", "model.onnx"])
def test_a_base_path_in_the_place_of_a_repository_is_told_from_one(
    tmp_path: Path, typed: Typed, verb: str, file: str
) -> None:
    model = tmp_path / "models" / "flowers" / "7" / file
    model.parent.mkdir(parents=True)
    model.write_bytes(b"x")
    code, said = typed(verb, tmp_path / "models" / "flowers")
    assert code == 1
    assert f"is a model's folder, not a repository of models: serve its parent '{tmp_path / 'models'}'" in said
