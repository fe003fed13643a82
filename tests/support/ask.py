"""The few questions the fault tests ask a running server, in as few words as possible."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tests.support.http_raw import RawAnswer, exchange, request
from tests.support.serving import RunningServer
from tritonclient.grpc import service_pb2

SERVICE = "/inference.GRPCInferenceService/"


def infer_body(array: np.ndarray, name: str = "x", **more: object) -> bytes:
    """A V2 request with one input, as JSON."""
    datatype = {"f": "FP", "i": "INT"}[array.dtype.kind] + str(array.dtype.itemsize * 8)
    tensor = {"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.reshape(-1).tolist()}
    return json.dumps({"inputs": [tensor]} | more).encode()


def infer_message(array: np.ndarray, model: str, name: str = "x", **more: Any) -> bytes:
    """The same as a serialised ModelInferRequest."""
    message = service_pb2.ModelInferRequest(model_name=model, **more)
    datatype = {"f": "FP", "i": "INT"}[array.dtype.kind] + str(array.dtype.itemsize * 8)
    message.inputs.add(name=name, datatype=datatype, shape=list(array.shape))
    message.raw_input_contents.append(array.tobytes())
    return bytes(message.SerializeToString())


def values(answer: RawAnswer) -> list[float]:
    """The first output's numbers; fails unless the answer is 200."""
    assert answer.status == 200, answer
    return list(json.loads(answer.body)["outputs"][0]["data"])


def post(server: RunningServer, path: str, body: bytes = b"", **headers: str) -> RawAnswer:
    """POST on a connection of its own."""
    return exchange(server.http, request(path, body, headers=headers))


def get(server: RunningServer, path: str) -> RawAnswer:
    """GET on a connection of its own."""
    return exchange(server.http, request(path, method="GET"))


def infer(server: RunningServer, model: str, array: np.ndarray, name: str = "x") -> RawAnswer:
    """One prediction over HTTP."""
    return post(server, f"/v2/models/{model}/infer", infer_body(array, name))


def index(server: RunningServer) -> dict[tuple[str, str], tuple[str, str]]:
    """The repository index: (name, version) → (state, reason); a name never loaded has version ""."""
    answer = post(server, "/v2/repository/index")
    assert answer.status == 200, answer
    return {
        (line["name"], line.get("version", "")): (line.get("state", ""), line.get("reason", ""))
        for line in json.loads(answer.body)
    }


def load_model(server: RunningServer, name: str, **parameters: object) -> RawAnswer:
    """A load request (explicit mode)."""
    return post(server, f"/v2/repository/models/{name}/load", json.dumps({"parameters": parameters}).encode())


def metric(server: RunningServer, name: str, **labels: str) -> float:
    """The sum of a metric's samples whose labels include `labels`."""
    text = exchange(server.metrics, request("/metrics", method="GET")).body.decode()
    total, seen = 0.0, False
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
            total, seen = total + float(found[2]), True
    assert seen, f"no metric {name} with {labels}"
    return total


def pending(server: RunningServer, model: str) -> int:
    """Requests waiting in `model`'s queue."""
    return int(metric(server, "nv_inference_pending_request_count", model=model))


def unary(channel: grpc.Channel, method: str) -> Any:
    """A method of the inference service over plain bytes."""
    return channel.unary_unary(SERVICE + method)


def raw_values(message: bytes) -> list[float]:
    """The first output's FP32 numbers of a serialised ModelInferResponse."""
    response = service_pb2.ModelInferResponse.FromString(message)
    return list(map(float, np.frombuffer(response.raw_output_contents[0], np.float32)))


def rss_mib(server: RunningServer) -> float:
    """Resident memory of the server's process."""
    return _status(server, "VmRSS") / 1024


def threads(server: RunningServer) -> int:
    """Threads of the server's process."""
    return _status(server, "Threads")


def _status(server: RunningServer, field: str) -> int:
    text = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def sequence(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """An FP32 array."""
    return np.array(rows, np.float32)
