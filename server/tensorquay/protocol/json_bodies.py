"""The JSON bodies beside inference: metadata, statistics, repository, shared memory.

Pure translations with the exact member names of the protocol; parsing refuses what it does not know.
Source: V2 REST and Triton's statistics, model_repository and shared-memory extensions (docs/protocol.md).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tensorquay.core.errors import InvalidArgument
from tensorquay.core.messages import (
    BatchStatistics,
    Duration,
    IndexEntry,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    SharedMemoryRegion,
)
from tensorquay.core.signature import TensorSpec
from tensorquay.protocol.json_text import kind_of, parse_json_object

MAX_FILES = 1024
"""Most files of one load request."""

_FILE = re.compile(r"file:(?P<path>[^\x00-\x1f\x7f\\]+)")


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """What a load request carries.

    `config`: the model configuration as JSON text, or None. `files`: content by path relative to the model's folder
    ("1/model.onnx"); paths are relative, without "." or ".." parts, and never empty.
    """

    config: str | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


def dumps(value: object) -> bytes:
    """`value` as JSON; text that is no valid Unicode (from odd file names) gets replacement characters."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return orjson.dumps(_repaired(value))


def encode_server_metadata(metadata: ServerMetadata) -> bytes:
    """Body of `GET /v2`."""
    return dumps({"name": metadata.name, "version": metadata.version, "extensions": metadata.extensions})


def encode_model_metadata(metadata: ModelMetadata) -> bytes:
    """Body of `GET /v2/models/{m}`; `properties` only when there are any."""
    body: dict[str, Any] = {
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": [_tensor(spec) for spec in metadata.inputs],
        "outputs": [_tensor(spec) for spec in metadata.outputs],
    }
    if metadata.properties:
        body["properties"] = dict(metadata.properties)
    return dumps(body)


def encode_statistics(statistics: Iterable[ModelStatistics]) -> bytes:
    """Body of the statistics routes."""
    return dumps({"model_stats": [_statistics(item) for item in statistics]})


def encode_index(entries: Iterable[IndexEntry]) -> bytes:
    """Body of `POST /v2/repository/index`: a name alone for a model that was never loaded."""
    body = []
    for entry in entries:
        line = {"name": entry.name}
        if entry.version:
            line["version"] = entry.version
        if entry.state:
            line["state"] = entry.state
        if entry.reason:
            line["reason"] = entry.reason
        body.append(line)
    return dumps(body)


def encode_shared_memory(regions: Iterable[SharedMemoryRegion]) -> bytes:
    """Body of the system shared-memory status routes."""
    return dumps(
        [{"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.byte_size} for r in regions],
    )


def decode_index(body: bytes | memoryview) -> bool:
    """Whether an index request asks for READY models only. An empty body asks for all.

    Raises: InvalidArgument for anything but `{"ready": bool}`.
    """
    document = parse_json_object(body, "the repository index request")
    _known(document, {"ready"}, "the repository index request")
    ready = document.get("ready", False)
    if type(ready) is not bool:
        raise InvalidArgument(f"'ready' must be true or false, got {kind_of(ready)}")
    return ready


def decode_load(body: bytes | memoryview) -> LoadRequest:
    """A load request: parameters `config` (JSON text) and `file:<version>/<name>` (base64), or an empty body.

    Raises: InvalidArgument for other members and parameters, wrong types, bad base64, unsafe paths, and files without
    a config.
    """
    parameters = _repository_parameters(body, "the load request")
    files: dict[str, bytes] = {}
    for name, value in parameters.items():
        if name == "config":
            continue
        if type(value) is not str:
            raise InvalidArgument(f"load parameter '{name:.128}' must be a base64 string, got {kind_of(value)}")
        try:
            files[file_path(name)] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise InvalidArgument(f"load parameter '{name:.128}' is not valid base64: {exc}") from exc
    config = parameters.get("config")
    if config is not None and type(config) is not str:
        raise InvalidArgument(
            f"load parameter 'config' must be a string with the model configuration as JSON, got {kind_of(config)}"
        )
    return load_request(config, files)


def decode_unload(body: bytes | memoryview) -> bool:
    """Whether an unload request asks to unload dependents too (parameter `unload_dependents`).

    Raises: InvalidArgument for other members and parameters, and wrong types.
    """
    parameters = _repository_parameters(body, "the unload request")
    _known(parameters, {"unload_dependents"}, "the parameters of the unload request")
    unload_dependents = parameters.get("unload_dependents", False)
    if type(unload_dependents) is not bool:
        raise InvalidArgument(
            f"unload parameter 'unload_dependents' must be true or false, got {kind_of(unload_dependents)}"
        )
    return unload_dependents


def decode_shm_register(body: bytes | memoryview, name: str) -> SharedMemoryRegion:
    """The region that a system shared-memory register request describes.

    Raises: InvalidArgument for missing, unknown or wrong members.
    """
    what = "the shared-memory register request"
    document = parse_json_object(body, what)
    _known(document, {"key", "offset", "byte_size"}, what)
    key = document.get("key")
    if type(key) is not str or not key:
        raise InvalidArgument(f"'key' must be the name of a shared-memory object, got {kind_of(key)}")
    numbers = {"offset": document.get("offset", 0), "byte_size": document.get("byte_size")}
    for member, value in numbers.items():
        if type(value) is not int or not 0 <= value < 2**63:
            raise InvalidArgument(f"'{member}' must be a number of bytes, got {value!r:.64}")
    return SharedMemoryRegion(name, key, numbers["offset"], numbers["byte_size"])


def load_request(config: str | None, files: Mapping[str, bytes]) -> LoadRequest:
    """The rules that both doors share: files replace the model's folder, so they need a config and are not too many.

    Raises: InvalidArgument.
    """
    if files and not config:
        raise InvalidArgument("load parameters 'file:…' need parameter 'config': the model's folder is not read then")
    if len(files) > MAX_FILES:
        raise InvalidArgument(f"the load request has {len(files)} files, at most {MAX_FILES} are accepted")
    return LoadRequest(config, files)


def file_path(parameter: str) -> str:
    """The relative path in a load parameter's name ("file:1/model.onnx" → "1/model.onnx").

    Raises: InvalidArgument unless it is `file:<version>/<name>` and stays inside the model's folder.
    """
    match = _FILE.fullmatch(parameter)
    if match is None:
        raise InvalidArgument(
            f"unknown load parameter '{parameter:.128}', expected 'config' or 'file:<version>/<file name>'"
        )
    path = match["path"]
    parts = path.split("/")
    if len(path) > 1024 or len(parts) < 2 or any(part in {"", ".", ".."} or len(part) > 255 for part in parts):
        raise InvalidArgument(
            f"load parameter '{parameter:.128}' must be 'file:<version>/<file name>' inside the model's folder"
        )
    return path


def _repository_parameters(body: bytes | memoryview, what: str) -> dict[str, Any]:
    document = parse_json_object(body, what)
    _known(document, {"parameters"}, what)
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise InvalidArgument(f"'parameters' of {what} must be an object, got {kind_of(parameters)}")
    return parameters


def _known(document: Mapping[str, Any], known: set[str], what: str) -> None:
    for name in document:
        if name not in known:
            raise InvalidArgument(f"{what}: unknown member '{name:.128}', expected {', '.join(sorted(known))}")


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype.wire, "shape": spec.shape}


def _duration(value: Duration) -> dict[str, int]:
    return {"count": value.count, "ns": value.ns}


def _batch(value: BatchStatistics) -> dict[str, object]:
    return {
        "batch_size": value.batch_size,
        "compute_input": _duration(value.compute_input),
        "compute_infer": _duration(value.compute_infer),
        "compute_output": _duration(value.compute_output),
    }


def _statistics(value: ModelStatistics) -> dict[str, object]:
    return {
        "name": value.name,
        "version": value.version,
        "last_inference": value.last_inference_ms,
        "inference_count": value.inference_count,
        "execution_count": value.execution_count,
        "inference_stats": {
            "success": _duration(value.success),
            "fail": _duration(value.fail),
            "queue": _duration(value.queue),
            "compute_input": _duration(value.compute_input),
            "compute_infer": _duration(value.compute_infer),
            "compute_output": _duration(value.compute_output),
            "cache_hit": _duration(value.cache_hit),
            "cache_miss": _duration(value.cache_miss),
        },
        # Only decoupled models fill it, and none is served; clients read the member.
        "response_stats": {},
        "batch_stats": [_batch(item) for item in value.batch_stats],
        "memory_usage": [{"type": m.type, "id": m.id, "byte_size": m.byte_size} for m in value.memory_usage],
    }


def _repaired(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_repaired(key): _repaired(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_repaired(item) for item in value]
    return value
