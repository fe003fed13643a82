"""The gRPC messages beside inference: health, metadata, config, statistics, repository, shared memory, settings.

One small function per message and direction; each pair is what the JSON bodies (`json_bodies.py`) say over HTTP.
Methods with an empty answer use `EMPTY`.
Source: Triton's service definition (docs/protocol.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from tensorquay.core.errors import InvalidArgument
from tensorquay.core.messages import (
    Duration,
    IndexEntry,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    SharedMemoryRegion,
)
from tensorquay.protocol.fields import MAX_PARAMETERS, check_count
from tensorquay.protocol.json_bodies import MAX_FILES, LoadRequest, file_path, load_request
from tensorquay.protocol.schema import message_class, parse, serialise, text

EMPTY = b""
"""The serialised form of every response that has no fields."""

_MAX_INT64 = 2**63 - 1


def encode_live(live: bool) -> bytes:
    """ServerLiveResponse."""
    return serialise(message_class("inference.ServerLiveResponse")(live=live))


def encode_ready(ready: bool) -> bytes:
    """ServerReadyResponse, and ModelReadyResponse, which is the same on the wire."""
    return serialise(message_class("inference.ServerReadyResponse")(ready=ready))


def decode_name_version(data: bytes | memoryview) -> tuple[str, str]:
    """Name and version of ModelReady-, ModelMetadata-, ModelConfig- and ModelStatisticsRequest: one wire form.

    Raises: InvalidArgument.
    """
    message = parse("inference.ModelReadyRequest", data)
    return message.name, message.version


def encode_server_metadata(metadata: ServerMetadata) -> bytes:
    """ServerMetadataResponse."""
    return serialise(
        message_class("inference.ServerMetadataResponse")(
            name=text(metadata.name), version=text(metadata.version), extensions=map(text, metadata.extensions)
        )
    )


def encode_model_metadata(metadata: ModelMetadata) -> bytes:
    """ModelMetadataResponse, with the Open Inference Protocol's `properties`."""
    message = message_class("inference.ModelMetadataResponse")(
        name=text(metadata.name), versions=map(text, metadata.versions), platform=text(metadata.platform)
    )
    for specs, field in ((metadata.inputs, message.inputs), (metadata.outputs, message.outputs)):
        for spec in specs:
            field.add(name=text(spec.name), datatype=spec.datatype.wire, shape=spec.shape)
    for key, value in metadata.properties.items():
        message.properties[text(key)] = text(value)
    return serialise(message)


def encode_model_config(config: Message) -> bytes:
    """ModelConfigResponse around an `inference.ModelConfig` of our pool (`config.triton.to_triton_proto`)."""
    message = message_class("inference.ModelConfigResponse")()
    message.config.CopyFrom(config)
    return serialise(message)


def encode_statistics(statistics: Iterable[ModelStatistics]) -> bytes:
    """ModelStatisticsResponse."""
    message = message_class("inference.ModelStatisticsResponse")()
    for item in statistics:
        entry = message.model_stats.add(
            name=text(item.name),
            version=text(item.version),
            last_inference=item.last_inference_ms,
            inference_count=item.inference_count,
            execution_count=item.execution_count,
        )
        for field in (
            "success",
            "fail",
            "queue",
            "compute_input",
            "compute_infer",
            "compute_output",
            "cache_hit",
            "cache_miss",
        ):
            _fill(getattr(entry.inference_stats, field), getattr(item, field))
        for batch in item.batch_stats:
            line = entry.batch_stats.add(batch_size=batch.batch_size)
            _fill(line.compute_input, batch.compute_input)
            _fill(line.compute_infer, batch.compute_infer)
            _fill(line.compute_output, batch.compute_output)
        for memory in item.memory_usage:
            entry.memory_usage.add(type=memory.type, id=memory.id, byte_size=memory.byte_size)
    return serialise(message)


def decode_index(data: bytes | memoryview) -> tuple[str, bool]:
    """RepositoryIndexRequest: the repository's name (usually empty), and whether only READY models are asked for.

    Raises: InvalidArgument.
    """
    message = parse("inference.RepositoryIndexRequest", data)
    return message.repository_name, message.ready


def encode_index(entries: Iterable[IndexEntry]) -> bytes:
    """RepositoryIndexResponse."""
    message = message_class("inference.RepositoryIndexResponse")()
    for entry in entries:
        message.models.add(name=text(entry.name), version=entry.version, state=entry.state, reason=text(entry.reason))
    return serialise(message)


def decode_load(data: bytes | memoryview) -> tuple[str, str, LoadRequest]:
    """RepositoryModelLoadRequest: repository name, model name, and what comes with it.

    Raises: InvalidArgument for other parameters than `config` (string) and `file:…` (bytes).
    """
    message = parse("inference.RepositoryModelLoadRequest", data)
    check_count("load parameters", len(message.parameters), MAX_FILES + 1)
    config: str | None = None
    files: dict[str, bytes] = {}
    for name, value in message.parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if name == "config":
            if choice != "string_param":
                raise InvalidArgument(f"load parameter 'config' must be a string_param, got {choice}")
            config = value.string_param
        else:
            path = file_path(name)
            if choice != "bytes_param":
                raise InvalidArgument(f"load parameter '{name:.128}' must be a bytes_param, got {choice}")
            files[path] = value.bytes_param
    return message.repository_name, message.model_name, load_request(config, files)


def decode_unload(data: bytes | memoryview) -> tuple[str, str, bool]:
    """RepositoryModelUnloadRequest: repository name, model name, whether to unload dependents too.

    Raises: InvalidArgument for other parameters than `unload_dependents` (bool).
    """
    message = parse("inference.RepositoryModelUnloadRequest", data)
    dependents = False
    for name, value in message.parameters.items():
        if name != "unload_dependents":
            raise InvalidArgument(f"unknown unload parameter '{name:.128}', expected 'unload_dependents'")
        choice = value.WhichOneof("parameter_choice")
        if choice != "bool_param":
            raise InvalidArgument(f"unload parameter 'unload_dependents' must be a bool_param, got {choice}")
        dependents = value.bool_param
    return message.repository_name, message.model_name, dependents


def decode_region_name(data: bytes | memoryview) -> str:
    """The region that a shared-memory Status or Unregister request names, system or CUDA; empty means all.

    Raises: InvalidArgument.
    """
    name: str = parse("inference.SystemSharedMemoryStatusRequest", data).name
    return name


def decode_shm_register(data: bytes | memoryview) -> SharedMemoryRegion:
    """SystemSharedMemoryRegisterRequest.

    Raises: InvalidArgument for missing names and sizes beyond int64.
    """
    message = parse("inference.SystemSharedMemoryRegisterRequest", data)
    if not message.name or not message.key:
        raise InvalidArgument("a shared-memory region needs a 'name' and a 'key' that are not empty")
    if message.offset > _MAX_INT64 or message.byte_size > _MAX_INT64:
        raise InvalidArgument(f"'offset' and 'byte_size' of a region must not exceed {_MAX_INT64}")
    return SharedMemoryRegion(message.name, message.key, message.offset, message.byte_size)


def encode_shared_memory(regions: Iterable[SharedMemoryRegion]) -> bytes:
    """SystemSharedMemoryStatusResponse. Without regions it is also the CUDA answer."""
    message = message_class("inference.SystemSharedMemoryStatusResponse")()
    for region in regions:
        entry = message.regions[region.name]
        entry.name, entry.key = region.name, region.key
        entry.offset, entry.byte_size = region.offset, region.byte_size
    return serialise(message)


def decode_trace_setting(data: bytes | memoryview) -> tuple[str, dict[str, list[str]]]:
    """TraceSettingRequest: the model (empty: all), and the settings; an empty list clears one.

    Raises: InvalidArgument.
    """
    message = parse("inference.TraceSettingRequest", data)
    check_count("trace settings", len(message.settings), MAX_PARAMETERS)
    return message.model_name, {name: list(setting.value) for name, setting in message.settings.items()}


def encode_trace_setting(settings: Mapping[str, Sequence[str]]) -> bytes:
    """TraceSettingResponse; every value is a list of strings."""
    message = message_class("inference.TraceSettingResponse")()
    for name, values in settings.items():
        message.settings[name].value.extend(map(text, values))
    return serialise(message)


def decode_log_settings(data: bytes | memoryview) -> dict[str, bool | int | str]:
    """LogSettingsRequest; empty asks for the present settings.

    Raises: InvalidArgument for a setting without a value.
    """
    message = parse("inference.LogSettingsRequest", data)
    check_count("log settings", len(message.settings), MAX_PARAMETERS)
    settings: dict[str, bool | int | str] = {}
    for name, value in message.settings.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidArgument(f"log setting '{name:.128}' has no value")
        settings[name] = getattr(value, choice)
    return settings


def encode_log_settings(settings: Mapping[str, bool | int | str]) -> bytes:
    """LogSettingsResponse. Integers must be within uint32."""
    message = message_class("inference.LogSettingsResponse")()
    for name, value in settings.items():
        slot = message.settings[name]
        if isinstance(value, bool):
            slot.bool_param = value
        elif isinstance(value, int):
            slot.uint32_param = value
        else:
            slot.string_param = text(value)
    return serialise(message)


def _fill(field: Any, value: Duration) -> None:
    field.count, field.ns = value.count, value.ns
