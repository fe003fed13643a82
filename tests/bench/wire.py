"""Requests as bytes, made once before anything is measured, and answers back to arrays.

Written from the protocol, not from the server's codec: the two must agree by the specification, not by shared code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

Arrays = Mapping[str, np.ndarray]

_WIRE = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}
_NUMPY = {wire: np.dtype(name) for name, wire in _WIRE.items()}
_SERVICE = "/inference.GRPCInferenceService/"
MODEL_INFER, SERVER_LIVE = _SERVICE + "ModelInfer", _SERVICE + "ServerLive"


class WrongAnswer(Exception):
    """The server answered, and not what the model computes."""


def http_get(host: str, path: str) -> bytes:
    """A GET request on a kept connection."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n".encode()


def http_infer(host: str, model: str, row: Arrays, *, binary: bool) -> bytes:
    """A prediction; the answer comes the same way, binary or JSON."""
    tensors = []
    tail = b""
    for name, array in row.items():
        tensor: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": _WIRE[array.dtype.name]}
        if binary:
            tensor["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            tensor["data"] = array.ravel().tolist()
        tensors.append(tensor)
    document: dict[str, Any] = {"inputs": tensors}
    if binary:
        document["parameters"] = {"binary_data_output": True}
    head = json.dumps(document, separators=(",", ":")).encode()
    kind = f"Inference-Header-Content-Length: {len(head)}\r\nContent-Type: application/octet-stream"
    return (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n"
        f"{kind if binary else 'Content-Type: application/json'}\r\nContent-Length: {len(head) + len(tail)}\r\n\r\n"
    ).encode() + b"".join((head, tail))


def http_outputs(head: bytes, body: bytes) -> dict[str, np.ndarray]:
    """The tensors of an answer.

    Raises: WrongAnswer when it is none.
    """
    lines = head.decode("latin-1").lower().split("\r\n")
    given = dict(line.split(": ", 1) for line in lines[1:])
    length = int(given.get("inference-header-content-length", len(body)))
    try:
        described = json.loads(body[:length])["outputs"]
    except (ValueError, KeyError) as error:
        raise WrongAnswer(f"no inference response: {body[:200]!r}") from error
    position = length
    outputs = {}
    for tensor in described:
        dtype = _NUMPY[tensor["datatype"]]
        if "data" in tensor:
            array = np.array(tensor["data"], dtype)
        else:
            size = tensor["parameters"]["binary_data_size"]
            array = np.frombuffer(body[position : position + size], dtype)
            position += size
        outputs[tensor["name"]] = array.reshape(tensor["shape"])
    if position != len(body):
        raise WrongAnswer(f"{len(body) - position} bytes belong to no output")
    return outputs


def grpc_infer(model: str, row: Arrays) -> bytes:
    """A ModelInferRequest with raw contents, behind gRPC's five bytes."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, array in row.items():
        request.inputs.add(name=name, datatype=_WIRE[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return grpc_message(request.SerializeToString())


def grpc_message(message: bytes) -> bytes:
    """`message` with gRPC's prefix: not compressed, length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def grpc_outputs(body: bytes) -> dict[str, np.ndarray]:
    """The tensors of one prefixed ModelInferResponse.

    Raises: WrongAnswer when it is none.
    """
    if body[:1] != b"\0" or int.from_bytes(body[1:5], "big") != len(body) - 5:
        raise WrongAnswer(f"not one uncompressed gRPC message: {body[:20]!r}, {len(body)} bytes")
    response = service_pb2.ModelInferResponse.FromString(body[5:])
    return {
        output.name: np.frombuffer(raw, _NUMPY[output.datatype]).reshape(list(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def compare(got: Arrays, expected: Arrays, *, exact: bool) -> None:
    """Whether an answer is what raw ONNX Runtime computes for the same row.

    Floating point differs in its last digits between batch sizes; one row differs from another by far more.
    Raises: WrongAnswer naming the output.
    """
    if set(got) != set(expected):
        raise WrongAnswer(f"expected outputs {sorted(expected)}, got {sorted(got)}")
    for name, array in expected.items():
        mine = got[name]
        if mine.shape != array.shape or mine.dtype != array.dtype:
            raise WrongAnswer(
                f"output '{name}': expected {array.dtype} {list(array.shape)}, got {mine.dtype} {list(mine.shape)}"
            )
        bound = 0.0 if exact else tolerance(array)
        off = float(np.abs(mine.astype(np.float64) - array).max())
        if not off <= bound:
            raise WrongAnswer(f"output '{name}' is off by {off:g}, at most {bound:g} is rounding")


def tolerance(array: np.ndarray) -> float:
    """The largest difference that is still the same answer."""
    return 1e-3 * float(np.abs(array).max())
