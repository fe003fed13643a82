"""The V2 gRPC protocol: arguments → request messages as bytes, response bytes → results. No I/O.

Tensors are sent as `raw_input_contents`; answers are read raw or typed. Source: inference.GRPCInferenceService.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from tensorquay_client.calls import Call, Repeat, Reply
from tensorquay_client.errors import InvalidArgument, ProtocolError
from tensorquay_client.messages import (
    InferRequest,
    InferResult,
    ModelMetadata,
    Parameter,
    RepositoryEntry,
    ServerMetadata,
    TensorMetadata,
)
from tensorquay_client.pool import message_class
from tensorquay_client.proto_json import to_dict
from tensorquay_client.status import grpc_error
from tensorquay_client.tensors import Array, Chunk, element_count, finished, from_wire, to_wire, wire_dtype

T = TypeVar("T")

_SERVICE = "/inference.GRPCInferenceService"
_UNAVAILABLE, _NOT_FOUND = 14, 5
_RAW_INPUT_TAG = b"\x3a"  # field 7 of ModelInferRequest, length-delimited
LARGEST_MESSAGE = 2**31 - 1
"""Protobuf's own limit, in bytes."""

_TYPED_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True, slots=True)
class GrpcCodec:
    """Codec over gRPC. A `Call`'s path is the method's full name, its body one serialised message."""

    def live(self) -> Call[bool]:
        """ServerLive."""
        return _call("server liveness", "ServerLive", {}, lambda answer: bool(answer.live))

    def ready(self) -> Call[bool]:
        """ServerReady."""
        return _call("server readiness", "ServerReady", {}, lambda answer: bool(answer.ready))

    def model_ready(self, model: str, version: str) -> Call[bool]:
        """ModelReady; an unknown model is not ready."""
        call = _call(f"readiness of '{model}'", "ModelReady", _named(model, version), lambda answer: bool(answer.ready))

        def parse(reply: Reply) -> bool:
            return False if reply.status in (_NOT_FOUND, _UNAVAILABLE) else call.parse(reply)

        return Call(call.what, "", call.path, parse, call.body)

    def server_metadata(self) -> Call[ServerMetadata]:
        """ServerMetadata."""
        return _call("server metadata", "ServerMetadata", {}, _server_metadata)

    def model_metadata(self, model: str, version: str) -> Call[ModelMetadata]:
        """ModelMetadata."""
        return _call(f"metadata of '{model}'", "ModelMetadata", _named(model, version), _model_metadata)

    def model_config(self, model: str, version: str) -> Call[dict[str, Any]]:
        """ModelConfig."""
        return _call(
            f"config of '{model}'", "ModelConfig", _named(model, version), lambda answer: to_dict(answer.config)
        )

    def statistics(self, model: str, version: str) -> Call[list[dict[str, Any]]]:
        """ModelStatistics."""
        return _call(
            f"statistics of '{model}'" if model else "statistics",
            "ModelStatistics",
            {"name": model, "version": version},
            lambda answer: [to_dict(entry) for entry in answer.model_stats],
        )

    def repository_index(self, *, ready: bool) -> Call[list[RepositoryEntry]]:
        """RepositoryIndex."""
        return _call("repository index", "RepositoryIndex", {"ready": ready}, _index)

    def load_model(self, model: str, config: str | None, files: Mapping[str, bytes] | None) -> Call[None]:
        """RepositoryModelLoad."""
        parameters: dict[str, dict[str, object]] = {} if config is None else {"config": {"string_param": config}}
        for name, content in (files or {}).items():
            parameters[name if name.startswith("file:") else f"file:{name}"] = {"bytes_param": content}
        return _repository_call("Load", model, parameters)

    def unload_model(self, model: str, *, dependents: bool) -> Call[None]:
        """RepositoryModelUnload."""
        return _repository_call("Unload", model, {"unload_dependents": {"bool_param": True}} if dependents else {})

    def infer(self, request: InferRequest, headers: Mapping[str, str]) -> Call[InferResult]:
        """ModelInfer.

        Raises: InvalidArgument for a message beyond protobuf's 2 GiB, or a parameter that does not fit.
        """
        if not request.model:
            raise InvalidArgument("the model's name is empty")
        message = message_class("ModelInferRequest")(
            model_name=request.model, model_version=request.version, id=request.id
        )
        for key, value in request.parameters.items():
            _set_parameter(message.parameters[key], key, value)
        chunks: list[Chunk] = []
        for name, tensor in request.inputs.items():
            message.inputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
            data = to_wire(tensor)
            chunks += (_RAW_INPUT_TAG + _varint(len(data)), data)
        for name in request.outputs or ():
            output = message.outputs.add(name=name)
            if name in request.classification:
                output.parameters["classification"].int64_param = request.classification[name]
        # Messages concatenate: the tensors are appended as further fields, copied once instead of three times.
        body = b"".join((message.SerializeToString(), *chunks))
        if len(body) > LARGEST_MESSAGE:
            raise InvalidArgument(
                f"infer '{request.model}': the request is {len(body)} bytes, gRPC carries at most {LARGEST_MESSAGE}; "
                "send fewer rows at a time"
            )
        path = f"{_SERVICE}/ModelInfer"
        sent = {key.lower(): value for key, value in headers.items()}
        return Call(
            f"infer '{request.model}'", "", path, _parser("ModelInfer", _infer_result), (body,), sent, Repeat.IF_REFUSED
        )


def _call(
    what: str,
    method: str,
    fields: Mapping[str, object],
    read: Callable[[Any], T],
    repeat: Repeat = Repeat.ALWAYS,
) -> Call[T]:
    body = message_class(f"{method}Request")(**fields).SerializeToString()
    return Call(what, "", f"{_SERVICE}/{method}", _parser(method, read), (body,), {}, repeat)


def _parser(method: str, read: Callable[[Any], T]) -> Callable[[Reply], T]:
    def parse(reply: Reply) -> T:
        if reply.status != 0:
            _fail(reply)
        try:
            message = message_class(f"{method}Response").FromString(reply.body)
        except DecodeError as exc:
            raise ProtocolError(f"the server's answer to {method} is no such message") from exc
        return read(message)

    return parse


def _fail(reply: Reply) -> NoReturn:
    text = reply.text or f"the server answered gRPC status {reply.status} without a text"
    raise grpc_error(reply.status)(text, status=reply.status, retry_after_s=_retry_after_s(reply))


def _retry_after_s(reply: Reply) -> float | None:
    """Seconds to wait, from the trailing metadata: `retry-after` as in HTTP, or gRPC's own pushback in ms."""
    for key, unit_s in (("retry-after", 1.0), ("grpc-retry-pushback-ms", 1e-3)):
        try:
            seconds = float(reply.headers.get(key, "")) * unit_s
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _named(model: str, version: str) -> dict[str, object]:
    if not model:
        raise InvalidArgument("the model's name is empty")
    return {"name": model, "version": version}


def _repository_call(action: str, model: str, parameters: Mapping[str, Mapping[str, object]]) -> Call[None]:
    if not model:
        raise InvalidArgument("the model's name is empty")
    value = message_class("ModelRepositoryParameter")
    fields = {"model_name": model, "parameters": {key: value(**choice) for key, choice in parameters.items()}}
    return _call(f"{action.lower()} '{model}'", f"RepositoryModel{action}", fields, lambda _: None, Repeat.NEVER)


def _varint(value: int) -> bytes:
    """Protobuf's variable-length integer."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _set_parameter(target: Any, key: str, value: Parameter) -> None:
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidArgument(f"parameter '{key}': {value} does not fit 64 bits")
        if value < 2**63:
            target.int64_param = value
        else:
            target.uint64_param = value
    elif isinstance(value, float):
        target.double_param = value
    else:
        target.string_param = value


def _parameters(fields: Any) -> dict[str, Parameter]:
    chosen = {key: (value, value.WhichOneof("parameter_choice")) for key, value in fields.items()}
    return {key: getattr(value, choice) for key, (value, choice) in chosen.items() if choice}


def _server_metadata(answer: Any) -> ServerMetadata:
    return ServerMetadata(answer.name, answer.version, tuple(answer.extensions))


def _model_metadata(answer: Any) -> ModelMetadata:
    def tensors(entries: Any) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(entry.name, entry.datatype, tuple(entry.shape)) for entry in entries)

    return ModelMetadata(
        answer.name, tuple(answer.versions), answer.platform, tensors(answer.inputs), tensors(answer.outputs)
    )


def _index(answer: Any) -> list[RepositoryEntry]:
    return [RepositoryEntry(entry.name, entry.version, entry.state, entry.reason) for entry in answer.models]


def _infer_result(answer: Any) -> InferResult:
    outputs: dict[str, Array] = {}
    datatypes: dict[str, str] = {}
    raw = iter(answer.raw_output_contents)
    for entry in answer.outputs:
        shape = list(entry.shape)
        if entry.HasField("contents"):
            outputs[entry.name] = _typed(entry.name, entry.datatype, shape, entry.contents)
        else:
            data = next(raw, None)
            if data is None:
                raise ProtocolError(f"output '{entry.name}': the server's answer holds no data for it")
            outputs[entry.name] = from_wire(entry.name, entry.datatype, shape, data)
        datatypes[entry.name] = entry.datatype
    if next(raw, None) is not None:
        raise ProtocolError("the server's answer holds more raw data than outputs")
    return InferResult(
        model_name=answer.model_name,
        model_version=answer.model_version,
        outputs=outputs,
        datatypes=datatypes,
        id=answer.id,
        parameters=_parameters(answer.parameters),
    )


def _typed(name: str, datatype: str, shape: list[int], contents: Any) -> Array:
    """The elements of typed contents."""
    dtype, count = wire_dtype(datatype), element_count(name, shape)
    field = _TYPED_FIELDS.get(datatype)
    if field is None:
        raise ProtocolError(f"output '{name}': {datatype} has no typed form in gRPC")
    values = getattr(contents, field)
    if len(values) != count:
        raise ProtocolError(f"output '{name}': {datatype} {shape} has {count} elements, got {len(values)}")
    try:
        flat = np.fromiter(values, dtype=dtype, count=count)
    except (OverflowError, ValueError) as exc:
        raise ProtocolError(f"output '{name}': a value does not fit {datatype}") from exc
    return finished(flat, datatype, shape)
