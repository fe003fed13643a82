"""After a run with every kind of error, cancellations and version swaps in it, nobody's count differs from another's.

What the clients counted, the statistics endpoint and Prometheus are compared exactly, by kind; with the sockets in the
server's own process and in front ends. tests/conformance/test_accounts_agree.py compares single requests.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.support import graphs
from tests.support.http_raw import RawConnection
from tests.support.observing import failures, page, samples, statistics
from tests.support.repo import Repo
from tests.support.serving import RunningServer
from tests.support.waiting import until

from doors import Door, Grpc, GrpcStream, Http, grpc_request
from wire import Answer, Call, given

Serve = Callable[..., RunningServer]

ROUNDS = 60
_LARGEST = 2**20

_PARKING = """max_batch_size: 8
dynamic_batching {
  preferred_batch_size: [ 8 ]
  max_queue_delay_microseconds: 3600000000
  default_queue_policy { timeout_action: REJECT allow_timeout_override: true max_queue_size: 2 }
}
"""


@dataclass
class Ledger:
    """What clients counted. Keys of `failed`: model and Triton's reason; of `rejected`: model and our reason."""

    succeeded: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, other: Ledger) -> None:
        """Join another client's."""
        self.succeeded += other.succeeded
        self.rows += other.rows
        self.failed += other.failed
        self.rejected += other.rejected
        self.refused += other.refused


class Client:
    """One client at one door: does things that have one right outcome each, and counts them."""

    def __init__(self, door: Door, seed: int) -> None:
        self._door = door
        self._random = random.Random(seed)
        self.ledger = Ledger()

    def run(self, rounds: int) -> Ledger:
        """Do something at random, `rounds` times."""
        things = (self.right, self.right, self.right, self.wrong, self.poison, self.broken, self.unknown, self.late)
        for _ in range(rounds):
            self._random.choice(things)()
        return self.ledger

    def right(self) -> None:
        count = self._random.randint(1, 4)
        rows = given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]] * count)
        assert isinstance(self._door.infer(Call("scale", (rows,))), Answer)
        self.ledger.succeeded["scale"] += 1
        self.ledger.rows["scale"] += count

    def wrong(self) -> None:
        self._fails("scale", "OTHER", "INVALID_ARGUMENT", given("x", "FP32", [[1.0, 2.0]]))

    def poison(self) -> None:
        index = self._random.choice((0, 2, 7))
        if index == 7:
            self._fails("lookup", "OTHER", "INVALID_ARGUMENT", given("index", "INT64", [[7]]))
        else:
            assert isinstance(self._door.infer(Call("lookup", (given("index", "INT64", [[index]]),))), Answer)
            self.ledger.succeeded["lookup"] += 1
            self.ledger.rows["lookup"] += 1

    def broken(self) -> None:
        x = given("x", "FP32", [1.0, 2.0, 3.0, 4.0])
        if self._random.random() < 0.5:
            self._fails("fold", "BACKEND", "INTERNAL", x, given("shape", "INT64", [3, 3]))
        else:
            assert isinstance(self._door.infer(Call("fold", (x, given("shape", "INT64", [2, 2])))), Answer)
            self.ledger.succeeded["fold"] += 1
            self.ledger.rows["fold"] += 1

    def unknown(self) -> None:
        self._refused("NOT_FOUND", Call("nosuch", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),)))
        self.ledger.refused["not_found"] += 1

    def late(self) -> None:
        """Out of time in a queue that never empties, or no room in it: what it was, the answer says."""
        call = Call("narrow", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),), parameters={"timeout": 2000})
        text = self._refused("UNAVAILABLE", call)
        self.ledger.failed["narrow", "REJECTED"] += 1
        self.ledger.rejected["narrow", "queue_full" if "maximum queue size" in text else "queue_timeout"] += 1

    def _fails(self, model: str, reason: str, kind: str, *inputs: Any) -> None:
        self._refused(kind, Call(model, inputs))
        self.ledger.failed[model, reason] += 1

    def _refused(self, kind: str, call: Call) -> str:
        outcome = self._door.infer(call)
        assert not isinstance(outcome, Answer)
        assert outcome.status == self._door.status_of(kind), outcome
        return outcome.text


@pytest.fixture(params=[0, 2], ids=["one process", "two front ends"])
def server(request: pytest.FixtureRequest, tmp_path: Path, serve: Serve) -> tuple[RunningServer, Repo]:
    """Models for everything that can happen to a request; `scale` can be swapped."""
    repo = Repo(tmp_path / "repo")
    repo.model("scale", {1: graphs.scale(1.0)})
    repo.model("lookup", {1: graphs.batched_lookup()})
    repo.model("fold", {1: graphs.reshape()})
    for name in ("narrow", "full", "left"):
        repo.model(name, {1: graphs.scale(1.0)}, **{"config.pbtxt": _PARKING})
    running = serve(
        [repo.root],
        "--model-control-mode=explicit",
        "--load-model=*",
        f"--frontends={request.param}",
        f"--http-max-input-size={_LARGEST}",
        f"--grpc-max-message-size={_LARGEST}",
        "--log-info=false",
        "--log-error=false",
    )
    return running, repo


def test_clients_statistics_and_prometheus_count_the_same(server: tuple[RunningServer, Repo]) -> None:
    running, repo = server
    doors: list[Door] = [
        Http(running.url, binary=False),
        Http(running.url, binary=True),
        Grpc(running.grpc),
        Grpc(running.grpc, typed=True),
    ]
    clients = [Client(door, seed) for seed, door in enumerate(doors)]
    total = Ledger()
    done = threading.Event()
    with ThreadPoolExecutor(len(clients) + 1) as pool:
        swapping = pool.submit(_swap_until, done, running, repo)
        working = [pool.submit(client.run, ROUNDS) for client in clients]
        try:
            _malformed(running, total)
            _no_room(running, total)
            _leaves(running, total)
            for future in working:
                total.add(future.result())
        finally:
            done.set()
        swapped, failed = swapping.result()
    for door in doors:
        door.close()

    found = samples(running)

    def summed(name: str, **labels: str) -> float:
        wanted = labels.items()
        return sum(each for (named, said), each in found.items() if named == name and wanted <= dict(said).items())

    for model in ("scale", "lookup", "fold", "narrow", "full", "left"):
        right, rows = total.succeeded[model], total.rows[model]
        wrong = {reason: count for (name, reason), count in total.failed.items() if name == model}
        assert summed("nv_inference_request_success", model=model) == right, model
        assert summed("nv_inference_count", model=model) == rows, model
        assert summed("tensorquay_batch_rows_sum", model=model) == rows, model
        for name in ("tensorquay_request_seconds_count", "tensorquay_queue_seconds_count"):
            assert summed(name, model=model) == right, (model, name)
        runs = summed("nv_inference_exec_count", model=model)
        for stage in ("compute", "compute_input", "compute_infer", "compute_output"):
            assert summed(f"tensorquay_{stage}_seconds_count", model=model) == runs, (model, stage)
        for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
            assert summed("nv_inference_request_failure", model=model, reason=reason) == wrong.get(reason, 0), model
        rejected = {reason: count for (name, reason), count in total.rejected.items() if name == model}
        # A deadline is noticed by the queue, or by the transport first: then the client left, to the queue.
        late = summed("tensorquay_rejected_total", model=model, reason="deadline")
        assert late <= (model == "left"), model
        assert summed("tensorquay_rejected_total", model=model) - late == sum(rejected.values()), model
        for reason, count in rejected.items():
            assert summed("tensorquay_rejected_total", model=model, reason=reason) == count, (model, reason)
        for name in ("nv_inference_pending_request_count", "tensorquay_queue_requests"):
            assert summed(name, model=model) == 0, (model, name)
        assert summed("tensorquay_queue_oldest_seconds", model=model) == 0, model
        _endpoint_agrees(running, model, summed)
    assert {
        reason: summed("tensorquay_refused_requests_total", reason=reason) for reason in total.refused
    } == total.refused
    assert summed("tensorquay_refused_requests_total") == total.refused.total()
    assert summed("tensorquay_model_swaps_total", model="scale", result="swapped") == swapped > 0
    assert summed("tensorquay_model_swaps_total", model="scale", result="failed") == failed > 0
    assert summed("tensorquay_model_swaps_total") == swapped + failed
    assert summed("tensorquay_offered_rows_total", model="scale") == total.rows["scale"]
    assert summed("tensorquay_offered_rows_total", model="narrow") == total.failed["narrow", "REJECTED"]
    assert summed("tensorquay_inflight_requests") == summed("tensorquay_inflight_bytes") == 0
    assert total.rejected["full", "queue_full"] > 0
    assert total.rejected["narrow", "queue_timeout"] > 0


def _endpoint_agrees(running: RunningServer, model: str, summed: Callable[..., float]) -> None:
    """The statistics of the version that serves, against its own samples."""
    stats = statistics(running, model)
    told = stats["inference_stats"]
    labels = {"model": model, "version": stats["version"]}
    assert told["success"]["count"] == summed("nv_inference_request_success", **labels)
    assert told["fail"]["count"] == summed("nv_inference_request_failure", **labels)
    assert told["success"]["ns"] // 1000 == summed("nv_inference_request_duration_us", **labels)
    assert stats["inference_count"] == summed("nv_inference_count", **labels)
    assert stats["execution_count"] == summed("nv_inference_exec_count", **labels)


def _swap_until(done: threading.Event, running: RunningServer, repo: Repo) -> tuple[int, int]:
    """Reload, replace, and fail to replace `scale`; how many swaps took place, and how many failed."""
    swapped = failed = 0
    version = 1

    def load() -> int:
        return httpx.post(f"{running.url}/v2/repository/models/scale/load", trust_env=False, timeout=60).status_code

    while not done.is_set():
        repo.remove(f"scale/{version}/model.onnx")
        graphs.write(graphs.scale(float(swapped + 2)), repo.root / "scale" / str(version) / "model.onnx")
        assert load() == 200
        repo.version("scale", version + 1, graphs.scale(float(swapped + 3)))
        version += 1
        assert load() == 200
        swapped += 2
        broken = repo.root / "scale" / str(version + 1)
        broken.mkdir()
        (broken / "model.onnx").write_bytes(b"no model")
        assert load() != 200
        failed += 1
        repo.remove(f"scale/{version + 1}")
        assert load() == 200
    return swapped, failed


def _malformed(running: RunningServer, total: Ledger) -> None:
    """Requests of which no model ever hears, each through the door that can make it."""
    path = "/v2/models/scale/infer"
    with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client:
        for content, headers in (
            (b"{", {}),
            (b"{}", {"inference-header-content-length": "9999"}),
            (b"no gzip", {"content-encoding": "gzip"}),
            (b"{}", {"content-encoding": "br"}),
            (b"x" * (_LARGEST + 1), {}),
        ):
            response = client.post(path, content=content, headers=headers)
            assert response.status_code == 400, response.text
            total.refused["invalid_argument"] += 1
        # Not inference requests: nothing counts them.
        assert client.get(path).status_code == 405
        assert client.post("/v2/models/scale/infe", content=b"{").status_code == 404
    with RawConnection(running.http) as raw:
        raw.send(b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n" % path.encode())
        assert raw.answer().status == 400
    total.refused["invalid_argument"] += 1
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(running.grpc, options=options) as channel:
        for message, code, kind in (
            (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "invalid_argument"),
            (b"\x0a" * (_LARGEST + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, "resource_exhausted"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(message, timeout=60)
            assert caught.value.code() is code, caught.value.details()
            total.refused[kind] += 1
    stream = GrpcStream(running.grpc)
    outcome = stream.infer(Call("nosuch", (given("x", "FP32", [[1.0]]),)))
    assert not isinstance(outcome, Answer)
    stream.close()
    total.refused["not_found"] += 1


def _no_room(running: RunningServer, total: Ledger) -> None:
    """Two requests fill a queue; the next ones are turned away by it, and the two leave."""
    door, other = Grpc(running.grpc), Http(running.url, binary=True)
    call = Call("full", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),))
    waiting = [door.stub.ModelInfer.future(grpc_request(call)) for _ in range(2)]
    until(lambda: _waiting(running, "full") == 2, "the queue is full")
    for each in (door, other, door):
        outcome = each.infer(call)
        assert not isinstance(outcome, Answer)
        assert outcome.status == each.status_of("UNAVAILABLE")
        total.failed["full", "REJECTED"] += 1
        total.rejected["full", "queue_full"] += 1
    for future in waiting:
        future.cancel()
        total.failed["full", "CANCELED"] += 1
    until(lambda: failures(running, "full") == 5, "those that filled it have left")
    door.close()
    other.close()


def _leaves(running: RunningServer, total: Ledger) -> None:
    """Clients of both doors leave while their requests wait, and one's deadline passes."""
    door = Grpc(running.grpc)
    call = Call("left", (given("x", "FP32", [[1.0, 2.0, 3.0, 4.0]]),))
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}'
    head = b"POST /v2/models/left/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    for count in range(1, 4):
        if count % 3 == 0:
            with RawConnection(running.http) as raw:
                raw.send(head + body)
                until(lambda: _waiting(running, "left") == 1, "it waits")
                raw.reset()
        elif count % 3 == 1:
            future = door.stub.ModelInfer.future(grpc_request(call))
            until(lambda: _waiting(running, "left") == 1, "it waits")
            future.cancel()
        else:
            future = door.stub.ModelInfer.future(grpc_request(call), timeout=1)
            assert future.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        total.failed["left", "CANCELED"] += 1
        until(lambda count=count: failures(running, "left") == count, "it has left")  # type: ignore[misc]
    door.close()


def _waiting(running: RunningServer, model: str) -> int:
    start = f'tensorquay_queue_requests{{model="{model}",version="1"}} '
    return next(int(line.removeprefix(start)) for line in page(running).splitlines() if line.startswith(start))
