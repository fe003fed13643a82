"""tensorquay_client against the real server: http and grpc, sync and async, one behaviour."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.serving import RunningServer, start

import graphs
from observing import failures, waits
from tensorquay_client import (
    NO_RETRY,
    AsyncGrpcClient,
    AsyncHttpClient,
    DeadlineExceeded,
    GrpcClient,
    HttpClient,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from waiting import until

ROW = np.array([[1, 2, 3, 4]], np.float32)
_CLASSES: dict[str, Callable[..., Any]] = {
    "http": HttpClient,
    "grpc": GrpcClient,
    "http_async": AsyncHttpClient,
    "grpc_async": AsyncGrpcClient,
}
CLIENTS = pytest.mark.parametrize("kind", list(_CLASSES))


class Driver:
    """Calls a client of any of the four kinds from a test without a loop of its own."""

    def __init__(self, kind: str, server: RunningServer, **options: Any) -> None:
        self.kind = kind
        self._runner = asyncio.Runner() if kind.endswith("async") else None
        address = server.http if kind.startswith("http") else server.grpc

        async def make() -> Any:
            return _CLASSES[kind](address, **options)

        self.client = self._runner.run(make()) if self._runner else _CLASSES[kind](address, **options)

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        outcome = getattr(self.client, method)(*args, **options)
        return self._runner.run(self._wait(outcome)) if inspect.isawaitable(outcome) and self._runner else outcome

    @staticmethod
    async def _wait(outcome: Any) -> Any:
        return await outcome

    def close(self) -> None:
        self("close")
        if self._runner:
            self._runner.close()


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    opened: list[Driver] = []

    def make(kind: str, server: RunningServer, **options: Any) -> Driver:
        opened.append(Driver(kind, server, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@CLIENTS
def test_what_it_describes(drive: Callable[..., Driver], zoo: RunningServer, zoo_names: set[str], kind: str) -> None:
    call = drive(kind, zoo)
    assert call("live") is True
    assert call("ready") is True
    assert call("model_ready", "double") is True
    assert call("model_ready", "versions", 2) is False
    assert call("model_ready", "nosuch") is False
    assert call("server_metadata").name == "triton"
    metadata = call("model_metadata", "versions")
    assert metadata.versions == ("1", "3")
    assert [(t.name, t.datatype, tuple(t.shape)) for t in metadata.inputs] == [("x", "FP32", (-1, 4))]
    assert call("model_config", "top")["max_batch_size"] == 8
    assert {entry.name for entry in call("repository_index", ready=True)} == zoo_names
    (stats,) = call("statistics", "scalar")
    assert stats["name"] == "scalar"
    assert len(call("statistics", "versions")) == 2


@CLIENTS
def test_predictions(drive: Callable[..., Driver], zoo: RunningServer, kind: str) -> None:
    call = drive(kind, zoo)
    result = call("infer", "double", {"x": ROW}, id="mine", parameters={"own": "yes"}, priority=1)
    assert result["y"].dtype == np.float32
    assert np.array_equal(result["y"], ROW * 2)
    assert (result.id, result.model_version) == ("mine", "1")
    assert np.array_equal(call("infer", "versions", {"x": ROW}, version=1)["y"], ROW * 2)
    assert np.array_equal(call("infer", "versions", {"x": ROW})["y"], ROW * 3)
    assert np.array_equal(call("infer", "odd name é%", {"x": ROW})["y"], ROW * 2)
    both = call("infer", "two_outputs", {"x": np.ones(3, np.float32)}, outputs=["y"])
    assert set(both.outputs) == {"y"}
    big = np.random.default_rng(0).random((2, 2**20), np.float32)
    assert np.array_equal(call("infer", "t_fp32", {"x": big})["y"], big)


@CLIENTS
@pytest.mark.parametrize(
    "array",
    [
        np.array([[True, False]]),
        np.array([[0, 255]], np.uint8),
        np.array([[0, 2**64 - 1]], np.uint64),
        np.array([[-128, 127]], np.int8),
        np.array([[-(2**63), 2**63 - 1]], np.int64),
        np.array([[0.5, -65504]], np.float16),
        np.array([[np.nan, np.inf, -0.0]], np.float32),
        np.array([[5e-324, 1.7e308]], np.float64),
        np.array([[b"\xff\x00", b"", b"text\x00"]], np.object_),
        np.zeros((2, 0), np.float32),
    ],
    ids=lambda array: f"{array.dtype}-{array.size}",
)
def test_data_types_come_back_as_they_went(
    drive: Callable[..., Driver], zoo: RunningServer, kind: str, array: np.ndarray
) -> None:
    names = {"bool": "bool", "float16": "fp16", "float32": "fp32", "float64": "fp64", "object": "bytes"}
    model = f"t_{names.get(str(array.dtype), str(array.dtype))}"
    got = drive(kind, zoo)("infer", model, {"x": array})["y"]
    assert got.shape == array.shape
    if array.dtype == np.object_:
        assert got.tolist() == array.tolist()
    else:
        assert got.dtype == array.dtype
        assert got.tobytes() == array.tobytes()


@CLIENTS
def test_classes(drive: Callable[..., Driver], zoo: RunningServer, kind: str) -> None:
    result = drive(kind, zoo)(
        "infer", "top", {"x": np.array([[0.5, 4, -1, 2.25]], np.float32)}, classification={"y": 2}
    )
    (best, second) = result.classes("y")[0]
    assert (best.label, best.index, best.value) == ("bee", 1, 4.0)
    assert (second.label, second.index) == ("dog", 3)


@CLIENTS
def test_errors_have_types(drive: Callable[..., Driver], zoo: RunningServer, kind: str) -> None:
    call = drive(kind, zoo, retry=NO_RETRY)
    with pytest.raises(NotFound, match="Request for unknown model: 'nosuch' is not found") as caught:
        call("infer", "nosuch", {"x": ROW})
    assert caught.value.status == (404 if kind.startswith("http") else 5)
    with pytest.raises(NotFound):
        call("model_metadata", "double", 9)
    with pytest.raises(InvalidArgument, match="unexpected shape for input 'x'"):
        call("infer", "double", {"x": ROW[:, :3]})
    with pytest.raises(InvalidArgument, match="data-type is 'INT32'"):
        call("infer", "double", {"x": ROW.astype(np.int32)})
    with pytest.raises(Unavailable, match="explicit model load / unload is not allowed"):
        call("load_model", "double")
    with pytest.raises(Unavailable, match="Request timeout expired"):
        call("infer", "waiting", {"x": ROW}, parameters={"timeout": 1000})


@CLIENTS
def test_a_timeout_of_the_client_frees_the_queue(drive: Callable[..., Driver], zoo: RunningServer, kind: str) -> None:
    failed = failures(zoo, "waiting")
    call = drive(kind, zoo, retry=NO_RETRY)
    with pytest.raises(DeadlineExceeded):
        call("infer", "waiting", {"x": ROW}, timeout_s=0.2)
    until(lambda: failures(zoo, "waiting") == failed + 1, "the request has left")
    assert not waits(zoo, "waiting")
    assert np.array_equal(call("infer", "double", {"x": ROW})["y"], ROW * 2)


@CLIENTS
def test_casting_to_what_the_model_takes(drive: Callable[..., Driver], zoo: RunningServer, kind: str) -> None:
    call = drive(kind, zoo)
    assert np.array_equal(call("infer", "double", {"x": ROW.astype(np.float64)}, cast=True)["y"], ROW * 2)


@pytest.fixture(scope="module")
def explicit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    root: Path = tmp_path_factory.mktemp("own_client")
    for kind in _CLASSES:
        graphs.write(graphs.scale(2.0), root / f"disk_{kind}" / "1" / "model.onnx")
    graphs.write(graphs.scale(2.0), root / "closed" / "1" / "model.onnx")
    running = start(
        [root],
        "--model-control-mode=explicit",
        "--load-model=closed",
        "--http-restricted-api=statistics:key=secret",
        "--grpc-restricted-protocol=statistics:key=secret",
    )
    yield running
    assert running.stop() == 0, running.told()


@CLIENTS
def test_repository_control(drive: Callable[..., Driver], explicit: RunningServer, kind: str) -> None:
    call = drive(kind, explicit, retry=NO_RETRY)
    name = f"disk_{kind}"
    call("load_model", name)
    assert np.array_equal(call("infer", name, {"x": ROW})["y"], ROW * 2)
    uploaded = f"uploaded_{kind}"
    config = json.dumps({"max_batch_size": 4})
    call("load_model", uploaded, config=config, files={"1/model.onnx": graphs.scale(5.0).SerializeToString()})
    assert np.array_equal(call("infer", uploaded, {"x": ROW})["y"], ROW * 5)
    call("unload_model", uploaded)
    call("unload_model", name, dependents=True)
    until(
        lambda: any((e.name, e.state, e.reason) == (name, "UNAVAILABLE", "unloaded") for e in call("repository_index")),
        "it is unloaded",
    )
    with pytest.raises(InvalidArgument, match="failed to load 'nosuch'"):
        call("load_model", "nosuch")


@CLIENTS
def test_closed_apis(drive: Callable[..., Driver], explicit: RunningServer, kind: str) -> None:
    # gRPC says UNAVAILABLE, as Triton does.
    with pytest.raises((PermissionDenied, Unavailable), match="restricted, expecting header 'key'"):
        drive(kind, explicit, retry=NO_RETRY)("statistics", "closed")
    header = "key" if kind.startswith("http") else "triton-grpc-protocol-key"
    assert drive(kind, explicit, headers={header: "secret"})("statistics", "closed")


@CLIENTS
def test_compression(drive: Callable[..., Driver], zoo: RunningServer, kind: str) -> None:
    rows = np.repeat(ROW, 64, axis=0)
    for coding in ("gzip", "deflate"):
        call = drive(kind, zoo, compression=coding)
        assert np.array_equal(call("infer", "double", {"x": rows})["y"], rows * 2)
