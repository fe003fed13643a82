"""The V2 REST protocol: arguments → request bytes, response bytes → results. No I/O.

Tensors travel in the binary extension unless `binary` is off (for servers that only know JSON); answers are read in
either form, tensor by tensor. Source: Open Inference Protocol REST and Triton's extensions of it.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar
from urllib.parse import quote

import numpy as np
import orjson

from tensorquay_client.calls import Call, Repeat, Reply
from tensorquay_client.errors import InvalidArgument, ProtocolError
from tensorquay_client.messages import (
    InferRequest,
    InferResult,
    ModelMetadata,
    RepositoryEntry,
    ServerMetadata,
    TensorMetadata,
)
from tensorquay_client.status import http_error
from tensorquay_client.tensors import Array, Chunk, Tensor, element_count, finished, from_wire, to_wire, wire_dtype

T = TypeVar("T")
Compression = Literal["gzip", "deflate"]

_JSON_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class HttpCodec:
    """Codec over HTTP.

    Args:
        binary: send and ask for tensors in binary form; False: everything as JSON (no FP16, BF16, NaN).
        compression: of request bodies and, if the server can, of answers to predictions.
    """

    binary: bool = True
    compression: Compression | None = None

    def live(self) -> Call[bool]:
        """GET /v2/health/live."""
        return Call("server liveness", "GET", "/v2/health/live", _health(400, 503))

    def ready(self) -> Call[bool]:
        """GET /v2/health/ready."""
        return Call("server readiness", "GET", "/v2/health/ready", _health(400, 503))

    def model_ready(self, model: str, version: str) -> Call[bool]:
        """GET …/ready; an unknown model is not ready."""
        return Call(f"readiness of '{model}'", "GET", _path(model, version, "/ready"), _health(400, 404, 503))

    def server_metadata(self) -> Call[ServerMetadata]:
        """GET /v2."""
        return Call("server metadata", "GET", "/v2", _json(_server_metadata))

    def model_metadata(self, model: str, version: str) -> Call[ModelMetadata]:
        """GET /v2/models/{model}."""
        return Call(f"metadata of '{model}'", "GET", _path(model, version), _json(_model_metadata))

    def model_config(self, model: str, version: str) -> Call[dict[str, Any]]:
        """GET …/config."""
        return Call(f"config of '{model}'", "GET", _path(model, version, "/config"), _json(dict))

    def statistics(self, model: str, version: str) -> Call[list[dict[str, Any]]]:
        """GET …/stats."""
        path = _path(model, version, "/stats") if model else "/v2/models/stats"
        return Call(f"statistics of '{model}'" if model else "statistics", "GET", path, _json(_model_stats))

    def repository_index(self, *, ready: bool) -> Call[list[RepositoryEntry]]:
        """POST /v2/repository/index; a question in spite of its verb."""
        body = orjson.dumps({"ready": True}) if ready else b"{}"
        return _post("repository index", "/v2/repository/index", body, _json(_index), Repeat.ALWAYS)

    def load_model(self, model: str, config: str | None, files: Mapping[str, bytes] | None) -> Call[None]:
        """POST …/load."""
        parameters = {} if config is None else {"config": config}
        for name, content in (files or {}).items():
            parameters[name if name.startswith("file:") else f"file:{name}"] = base64.b64encode(content).decode()
        body = orjson.dumps({"parameters": parameters} if parameters else {})
        return _post(f"load '{model}'", f"{_repository(model)}/load", body, _nothing, Repeat.NEVER)

    def unload_model(self, model: str, *, dependents: bool) -> Call[None]:
        """POST …/unload."""
        body = orjson.dumps({"parameters": {"unload_dependents": True}} if dependents else {})
        return _post(f"unload '{model}'", f"{_repository(model)}/unload", body, _nothing, Repeat.NEVER)

    def infer(self, request: InferRequest, headers: Mapping[str, str]) -> Call[InferResult]:
        """POST …/infer.

        Raises: InvalidArgument for values that JSON cannot hold, when `binary` is off.
        """
        inputs, tensors = [], []
        for name, tensor in request.inputs.items():
            entry: dict[str, object] = {"name": name, "shape": list(tensor.shape), "datatype": tensor.datatype}
            if self.binary:
                data = to_wire(tensor)
                entry["parameters"] = {"binary_data_size": len(data)}
                tensors.append(data)
            else:
                entry["data"] = _json_data(name, tensor)
            inputs.append(entry)
        head = self._head(request, inputs)
        sent = dict(headers)
        sent["Content-Type"] = "application/octet-stream" if self.binary else "application/json"
        if self.binary:
            sent[_JSON_LENGTH.title()] = str(len(head))
        body: tuple[Chunk, ...] = (head, *(data for data in tensors if len(data)))
        if self.compression is not None:
            sent["Content-Encoding"] = sent["Accept-Encoding"] = self.compression
            body = (_compressed(b"".join(body), self.compression),)
        path = _path(request.model, request.version, "/infer")
        return Call(f"infer '{request.model}'", "POST", path, _infer_result, body, sent, Repeat.IF_REFUSED)

    def _head(self, request: InferRequest, inputs: list[dict[str, object]]) -> bytes:
        document: dict[str, object] = {"inputs": inputs}
        if request.id:
            document["id"] = request.id
        parameters: dict[str, object] = dict(request.parameters)
        if request.outputs is not None:
            document["outputs"] = [self._output(name, request) for name in request.outputs]
        elif self.binary:
            parameters["binary_data_output"] = True
        if parameters:
            document["parameters"] = parameters
        try:
            return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        except (orjson.JSONEncodeError, TypeError) as exc:
            raise InvalidArgument(f"infer '{request.model}': the request cannot be written as JSON: {exc}") from exc

    def _output(self, name: str, request: InferRequest) -> dict[str, object]:
        parameters: dict[str, object] = {"binary_data": self.binary}
        if name in request.classification:
            parameters["classification"] = request.classification[name]
        return {"name": name, "parameters": parameters}


def _post(what: str, path: str, body: bytes, parse: Callable[[Reply], T], repeat: Repeat) -> Call[T]:
    return Call(what, "POST", path, parse, (body,), {"Content-Type": "application/json"}, repeat)


def _path(model: str, version: str, suffix: str = "") -> str:
    if not model:
        raise InvalidArgument("the model's name is empty")
    versioned = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v2/models/{quote(model, safe='')}{versioned}{suffix}"


def _repository(model: str) -> str:
    if not model:
        raise InvalidArgument("the model's name is empty")
    return f"/v2/repository/models/{quote(model, safe='')}"


def _compressed(body: bytes, how: Compression) -> bytes:
    # Level 1: float data hardly shrinks further, and higher levels cost more than most networks.
    return gzip.compress(body, compresslevel=1, mtime=0) if how == "gzip" else zlib.compress(body, 1)


def _json_data(name: str, tensor: Tensor) -> object:
    """The elements of a tensor, flat, as orjson takes them."""
    flat = tensor.array.reshape(-1)
    if tensor.datatype in ("FP16", "BF16"):
        raise InvalidArgument(f"input '{name}': {tensor.datatype} has no JSON form; send it as binary data")
    if tensor.datatype == "BYTES":
        try:
            return [item.decode() for item in flat]
        except UnicodeDecodeError as exc:
            raise InvalidArgument(f"input '{name}': bytes that are not UTF-8 need binary data") from exc
    if tensor.datatype in ("FP32", "FP64") and not np.isfinite(flat).all():
        raise InvalidArgument(f"input '{name}': JSON has no NaN and no infinity; send it as binary data")
    return np.ascontiguousarray(flat)


def _fail(reply: Reply) -> NoReturn:
    """Raise what an answer other than 200 means."""
    text = ""
    facts: dict[str, object] = {}
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict):
        text = str(document.pop("error", ""))
        facts = document
    if not text:
        shown = reply.body[:200].decode(errors="replace").strip()
        text = f"the server answered HTTP {reply.status}{': ' if shown else ''}{shown}"
    if reply.status < 400:
        raise ProtocolError(f"{text} where 200 was expected", status=reply.status)
    raise http_error(reply.status, facts.pop("code", None))(
        text, status=reply.status, retry_after_s=_retry_after_s(reply), facts=facts
    )


def _retry_after_s(reply: Reply) -> float | None:
    """Seconds of a Retry-After header; its date form is not used by inference servers and is ignored."""
    try:
        seconds = float(reply.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _health(*unhealthy: int) -> Callable[[Reply], bool]:
    def parse(reply: Reply) -> bool:
        if reply.status == 200:
            return True
        if reply.status in unhealthy:
            return False
        _fail(reply)

    return parse


def _nothing(reply: Reply) -> None:
    if reply.status != 200:
        _fail(reply)


def _json(read: Callable[[Any], T]) -> Callable[[Reply], T]:
    """A parser of JSON answers; `read` may raise what a document of another form makes it raise."""

    def parse(reply: Reply) -> T:
        if reply.status != 200:
            _fail(reply)
        try:
            return read(orjson.loads(reply.body))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ProtocolError(f"the server's answer is not what the V2 protocol says: {_brief(exc)}") from exc

    return parse


def _server_metadata(document: Any) -> ServerMetadata:
    return ServerMetadata(str(document["name"]), str(document["version"]), tuple(document.get("extensions", ())))


def _model_metadata(document: Any) -> ModelMetadata:
    return ModelMetadata(
        name=str(document["name"]),
        versions=tuple(map(str, document.get("versions", ()))),
        platform=str(document.get("platform", "")),
        inputs=tuple(map(_tensor_metadata, document.get("inputs", ()))),
        outputs=tuple(map(_tensor_metadata, document.get("outputs", ()))),
    )


def _tensor_metadata(entry: Any) -> TensorMetadata:
    return TensorMetadata(str(entry["name"]), str(entry["datatype"]), tuple(map(int, entry["shape"])))


def _model_stats(document: Any) -> list[dict[str, Any]]:
    return [dict(entry) for entry in document["model_stats"]]


def _index(document: Any) -> list[RepositoryEntry]:
    keys = ("version", "state", "reason")
    return [RepositoryEntry(str(entry["name"]), *(str(entry.get(key, "")) for key in keys)) for entry in document]


def _infer_result(reply: Reply) -> InferResult:
    if reply.status != 200:
        _fail(reply)
    try:
        return _read_infer(reply)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as exc:
        raise ProtocolError(f"the server's answer is not what the V2 protocol says: {_brief(exc)}") from exc


def _read_infer(reply: Reply) -> InferResult:
    length_text = reply.headers.get(_JSON_LENGTH)
    length = len(reply.body) if length_text is None else int(length_text)
    if not 0 <= length <= len(reply.body):
        raise ProtocolError(f"the server's answer of {len(reply.body)} bytes claims a JSON part of {length}")
    view = memoryview(reply.body)
    document, binary = _loads(view[:length]), view[length:]
    outputs: dict[str, Array] = {}
    datatypes: dict[str, str] = {}
    position = 0
    for entry in document.get("outputs", ()):
        name, datatype, shape = str(entry["name"]), str(entry["datatype"]), list(entry["shape"])
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[name] = _from_json(name, datatype, shape, entry["data"])
        else:
            if type(size) is not int or not 0 <= size <= len(binary) - position:
                raise ProtocolError(f"output '{name}': binary_data_size {size!r} does not fit the answer")
            outputs[name] = from_wire(name, datatype, shape, binary[position : position + size])
            position += size
        datatypes[name] = datatype
    if position != len(binary):
        raise ProtocolError(f"{len(binary) - position} bytes of the server's answer belong to no output")
    return InferResult(
        model_name=str(document.get("model_name", "")),
        model_version=str(document.get("model_version", "")),
        outputs=outputs,
        datatypes=datatypes,
        id=str(document.get("id", "")),
        parameters=dict(document.get("parameters", {})),
    )


def _loads(head: memoryview) -> Any:
    try:
        return orjson.loads(head)
    except orjson.JSONDecodeError:
        # Some servers write NaN and Infinity, which JSON does not have and Python's own reader takes.
        return json.loads(bytes(head))


def _from_json(name: str, datatype: str, shape: list[object], data: Any) -> Array:
    """The elements of a JSON tensor, nested or flat."""
    count = element_count(name, shape)
    flat: Array
    if datatype == "BYTES":
        items = _flattened(data)
        flat = np.empty(len(items), dtype=np.object_)
        flat[:] = [item.encode() for item in items]
    elif datatype == "BF16":
        flat = (np.asarray(data, dtype=np.float32).reshape(-1).view(np.uint32) >> 16).astype(np.uint16)
    else:
        flat = np.asarray(data, dtype=wire_dtype(datatype)).reshape(-1)
    if len(flat) != count:
        raise ProtocolError(f"output '{name}': {datatype} {shape} has {count} elements, got {len(flat)}")
    return finished(flat, datatype, shape)


def _flattened(data: Any) -> list[Any]:
    """The leaves of nested lists, in order, without recursion: the depth is the server's choice."""
    while data and isinstance(data[0], list):
        data = [item for part in data for item in part]
    return list(data)


def _brief(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"[:200]
