"""Loading and unloading with tritonclient as it is, and what a bad drop gets (protocol 1.9, 1.10; explicit mode)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import onnx
import pytest
from tests.support.serving import RunningServer, start
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import graphs
from doors import checked
from strangers import Stranger, connect
from waiting import until

KINDS = pytest.mark.parametrize("kind", ["http", "grpc"])
ROW = np.array([[1, 2, 3, 4]], np.float32)


def build(root: Path) -> None:
    for kind in ("http", "grpc"):
        for name in ("plain", "tuned", "kept", "swapped"):
            graphs.write(graphs.scale(2.0), root / f"{name}_{kind}" / "1" / "model.onnx")
    good = graphs.scale(2.0)
    graphs.write(good, root / "served" / "1" / "model.onnx")
    broken = root / "broken" / "1" / "model.onnx"
    graphs.write(good, broken)
    broken.write_bytes(broken.read_bytes()[:60])
    graphs.write(good, root / "empty" / "1" / "model.onnx").write_bytes(b"")
    (root / "without" / "1").mkdir(parents=True)
    graphs.write(good, root / "both" / "1" / "model.onnx")
    (root / "both" / "config.pbtxt").write_text("max_batch_size: 4\n")
    (root / "both" / "config.toml").write_text("max_batch_size = 4\n")
    graphs.write(good, root / "misspelt" / "1" / "model.onnx")
    (root / "misspelt" / "config.pbtxt").write_text("max_batch_sise: 4\n")
    graphs.write(good, root / "contradicts" / "1" / "model.onnx")
    (root / "contradicts" / "config.pbtxt").write_text(
        'max_batch_size: 4\ninput [ { name: "x" data_type: TYPE_INT32 dims: [ 4 ] } ]\n'
    )
    graphs.write(good, root / "later" / "1" / "model.onnx")
    (root / "later" / "config.pbtxt").write_text("max_batch_size: 4\nsequence_batching { }\n")
    graphs.write(good, root / "labels" / "1" / "model.onnx")
    (root / "labels" / "config.pbtxt").write_text(
        'max_batch_size: 4\noutput [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] '
        'label_filename: "../../../../etc/passwd" } ]\n'
    )
    secret = root.parent / "secret.onnx"
    graphs.write(good, secret)
    (root / "linked" / "1").mkdir(parents=True)
    (root / "linked" / "1" / "model.onnx").symlink_to(secret)
    outside = graphs.scale(2.0)
    (weights,) = outside.graph.initializer
    weights.ClearField("raw_data")
    weights.ClearField("float_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../../secret.bin")
    (root.parent / "secret.bin").write_bytes(b"\x00\x00\x80\x3f")
    graphs.write(outside, root / "external" / "1" / "model.onnx")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explicit") / "repository"
    build(root)
    return root


@pytest.fixture(scope="module")
def explicit(repository: Path) -> Iterator[RunningServer]:
    running = start([repository], "--model-control-mode=explicit", "--load-model=served")
    yield running
    assert running.stop() == 0, running.told()


@pytest.fixture(scope="module")
def strangers(explicit: RunningServer) -> Iterator[dict[str, Stranger]]:
    opened = {kind: connect(kind, explicit) for kind in ("http", "grpc")}
    yield opened
    for each in opened.values():
        each.client.close()


@pytest.fixture
def stranger(strangers: dict[str, Stranger], kind: str) -> Stranger:
    return strangers[kind]


def index(stranger: Stranger) -> dict[str, dict[str, str]]:
    answer = stranger.ask("get_model_repository_index")
    entries = answer if stranger.is_http else answer.get("models", [])
    return {entry["name"]: {k: str(v) for k, v in entry.items() if k != "name"} for entry in entries}


def doubled(stranger: Stranger, model: str, version: str = "") -> Any:
    return stranger.client.infer(model, [stranger.input("x", ROW)], model_version=version).as_numpy("y")


@KINDS
def test_1_9_the_life_of_a_model(stranger: Stranger) -> None:
    name = f"plain_{stranger.kind}"
    assert index(stranger)[name] == {}
    assert not stranger.client.is_model_ready(name)
    with pytest.raises(InferenceServerException, match=f"Request for unknown model: '{name}'") as caught:
        doubled(stranger, name)
    assert caught.value.status() in {"404", "StatusCode.NOT_FOUND"}
    stranger.client.load_model(name)
    assert stranger.client.is_model_ready(name)
    assert index(stranger)[name] == {"version": "1", "state": "READY"}
    assert np.array_equal(doubled(stranger, name), ROW * 2)
    stranger.client.load_model(name)  # again: nothing to do
    stranger.client.unload_model(name, unload_dependents=True)
    gone = {"version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    until(lambda: index(stranger)[name] == gone, "it is unloaded")
    assert not stranger.client.is_model_ready(name)
    with pytest.raises(InferenceServerException, match=f"Request for unknown model: '{name}'"):
        doubled(stranger, name)
    stranger.client.load_model(name)
    assert np.array_equal(doubled(stranger, name), ROW * 2)


def test_1_9_index_of_the_ready_ones(explicit: RunningServer, strangers: dict[str, Stranger]) -> None:
    # tritonclient cannot ask for them over HTTP.
    entries = httpx.post(f"{explicit.url}/v2/repository/index", json={"ready": True}, trust_env=False).json()
    answer = strangers["grpc"].client._client_stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True))
    for found in (
        {(entry["name"], entry["state"]) for entry in entries},
        {(model.name, model.state) for model in answer.models},
    ):
        assert ("served", "READY") in found
        assert {state for _, state in found} == {"READY"}


@KINDS
def test_1_9_a_configuration_with_the_load(stranger: Stranger) -> None:
    name = f"tuned_{stranger.kind}"
    config = {"max_batch_size": 3, "parameters": {"oversize_requests": {"string_value": "refuse"}}}
    stranger.client.load_model(name, config=json.dumps(config))
    shown = stranger.ask("get_model_config", name)
    assert int((shown if stranger.is_http else shown["config"])["max_batch_size"]) == 3
    with pytest.raises(InferenceServerException, match=f"inference request batch-size must be <= 3 for '{name}'"):
        stranger.client.infer(name, [stranger.input("x", np.ones((4, 4), np.float32))])
    # A load without one keeps it (protocol 8.7).
    stranger.client.load_model(name)
    shown = stranger.ask("get_model_config", name)
    assert int((shown if stranger.is_http else shown["config"])["max_batch_size"]) == 3


@KINDS
def test_1_9_files_with_the_load(stranger: Stranger) -> None:
    name = f"uploaded_{stranger.kind}"
    content = graphs.scale(5.0).SerializeToString()
    config = json.dumps({"backend": "onnxruntime", "max_batch_size": 8})
    stranger.client.load_model(name, config=config, files={"file:1/model.onnx": content})
    assert np.array_equal(doubled(stranger, name), ROW * 5)
    more = graphs.scale(7.0).SerializeToString()
    stranger.client.load_model(name, config=config, files={"file:2/model.onnx": more})
    assert np.array_equal(doubled(stranger, name), ROW * 7)
    stranger.client.unload_model(name)
    until(lambda: not stranger.client.is_model_ready(name), "it is unloaded")


@KINDS
def test_1_9_a_failing_load_leaves_what_serves(stranger: Stranger) -> None:
    name = f"kept_{stranger.kind}"
    stranger.client.load_model(name)
    for config, files in (
        (json.dumps({"max_batch_size": -3}), None),
        (json.dumps({"no_such_field": 3}), None),
        ("{", None),
        (json.dumps({"max_batch_size": 8}), {"file:1/model.onnx": b"not a model"}),
    ):
        with pytest.raises(InferenceServerException, match=f"failed to load '{name}'") as caught:
            stranger.client.load_model(name, config=config, files=files)
        assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
        checked(caught.value.message())
        assert np.array_equal(doubled(stranger, name), ROW * 2)
        assert index(stranger)[name]["state"] == "READY"


@KINDS
@pytest.mark.parametrize(
    ("config", "files"),
    [
        ("", {"file:1/model.onnx": b"x"}),
        ("{}", {"file:../evil.onnx": b"x"}),
        ("{}", {"file:/etc/passwd": b"x"}),
        ("{}", {"file:1/../../evil.onnx": b"x"}),
        ("{}", {"file:model.onnx": b"x"}),
        ("{}", {"file:0/model.onnx": b"x"}),
        ("{}", {"file:": b"x"}),
    ],
    ids=["no-config", "parent", "absolute", "climbing", "no-version", "version-0", "nothing"],
)
def test_1_9_files_that_cannot_be(stranger: Stranger, config: str, files: dict[str, bytes]) -> None:
    with pytest.raises(InferenceServerException) as caught:
        stranger.client.load_model("uploaded_wrong", config=config or None, files=files)
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
    assert "uploaded_wrong" not in index(stranger)


@KINDS
def test_1_9_other_parameters_are_refused(explicit: RunningServer, kind: str) -> None:
    # tritonclient has no way to send them.
    if kind == "http":
        for body in ({"parameters": {"confg": "{}"}}, {"params": {}}, {"parameters": {"config": {}}}, []):
            response = httpx.post(f"{explicit.url}/v2/repository/models/served/load", json=body, trust_env=False)
            assert response.status_code == 400
            checked(response.json()["error"])
        body = {"parameters": {"unload_dependents": "yes"}}
        response = httpx.post(f"{explicit.url}/v2/repository/models/served/unload", json=body, trust_env=False)
        assert response.status_code == 400
        return
    with grpc.insecure_channel(explicit.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        wrong = service_pb2.RepositoryModelLoadRequest(model_name="served")
        wrong.parameters["confg"].string_param = "{}"
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelLoad(wrong)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelLoad(service_pb2.RepositoryModelLoadRequest(repository_name="r", model_name="served"))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@KINDS
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nosuch", "nosuch"),
        ("..", ".."),
        ("broken", "model.onnx"),
        ("empty", "model.onnx"),
        ("without", "model.onnx"),
        ("both", "config"),
        ("misspelt", "max_batch_sise"),
        ("contradicts", "TYPE_INT32"),
        ("later", "sequence_batching"),
        ("labels", "label"),
        ("linked", "link"),
        ("external", "external"),
    ],
)
def test_bad_drops_are_refused_with_the_reason(stranger: Stranger, name: str, says: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        stranger.client.load_model(name)
    assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
    text = checked(caught.value.message())
    assert text.startswith(f"failed to load '{name}'")
    assert says in text
    assert not stranger.client.is_model_ready(name)
    if name in {"broken", "contradicts"}:
        entry = index(stranger)[name]
        assert entry["state"] == "UNAVAILABLE"
        assert checked(entry["reason"])
        with pytest.raises(InferenceServerException, match=name):
            doubled(stranger, name)
    assert np.array_equal(doubled(stranger, "served"), ROW * 2)
    assert stranger.client.is_server_ready()


@KINDS
def test_a_name_that_is_a_path_names_nothing(stranger: Stranger) -> None:
    for name in ("../repository/served", "served/1", "/etc"):
        with pytest.raises(InferenceServerException) as caught:
            stranger.client.load_model(name)
        # Over HTTP a name with a slash is no route.
        assert caught.value.status() == ("404" if stranger.is_http else "StatusCode.INVALID_ARGUMENT")
        checked(caught.value.message())


@KINDS
def test_unloading_what_is_not_loaded_is_no_error(stranger: Stranger) -> None:
    stranger.client.unload_model("nosuch")
    stranger.client.unload_model("broken")


@KINDS
def test_a_new_version_is_taken_by_the_next_load(repository: Path, stranger: Stranger) -> None:
    name = f"swapped_{stranger.kind}"
    stranger.client.load_model(name)
    assert np.array_equal(doubled(stranger, name), ROW * 2)
    graphs.write(graphs.scale(9.0), repository / name / "2" / "model.onnx")
    stranger.client.load_model(name)
    assert np.array_equal(doubled(stranger, name), ROW * 9)
    until(lambda: not stranger.client.is_model_ready(name, "1"), "the old version is gone")
