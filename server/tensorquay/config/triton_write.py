"""`EffectiveConfig` → `inference.ModelConfig`, as message and as the JSON that Triton prints.

What it writes is what is in force; reading it back and matching it with the same graph gives the same configuration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from tensorquay.config.model import (
    AllVersions,
    BatchingConfig,
    EffectiveConfig,
    InstanceGroup,
    InstanceKind,
    LatestVersions,
    Oversize,
    QueuePolicy,
    SpecificVersions,
    TensorConfig,
    TimeoutAction,
    WarmupData,
    WarmupSample,
)
from tensorquay.config.rules import without_gpu
from tensorquay.config.triton_execution import OVERSIZE, write_execution
from tensorquay.config.triton_schema import ModelConfigMessage


def to_triton_proto(effective: EffectiveConfig, *, placed: InstanceKind | None = None) -> Message:
    """`effective` as an `inference.ModelConfig`.

    Args: placed: where the model really runs, once loaded: what KIND_AUTO became; and when it is CPU, then no group
    and no provider says GPU, also where falling back was allowed.
    """
    config = effective.config
    message: Any = ModelConfigMessage()
    message.name = config.name
    message.platform = config.platform
    message.backend = config.backend
    message.default_model_filename = config.default_model_filename
    message.max_batch_size = effective.max_batch_size
    for tensor in config.inputs:
        _write_tensor(tensor, message.input.add())
    for tensor in config.outputs:
        _write_tensor(tensor, message.output.add())
    _write_versions(effective, message.version_policy)
    groups, execution = config.instance_groups, config.execution
    if placed is InstanceKind.CPU:
        groups = tuple(replace(group, kind=InstanceKind.CPU, gpus=()) for group in groups)
        execution = without_gpu(execution)
    for group in groups:
        _write_group(group, placed, message.instance_group.add())
    # On a GPU, providers are written against the groups as configured: what AUTO became is a fact, not a wish.
    write_execution(execution, groups, message)
    if config.batching is not None:
        _write_batching(config.batching, message)
    for sample in config.warmup:
        _write_warmup(sample, message.model_warmup.add())
    for key, value in sorted(config.parameters.items()):
        message.parameters[key].string_value = value
    for key, value in sorted(config.metric_tags.items()):
        message.metric_tags[key] = value
    message.model_transaction_policy.decoupled = False
    return message  # type: ignore[no-any-return]


def to_triton_json(effective: EffectiveConfig, *, placed: InstanceKind | None = None) -> dict[str, Any]:
    """`effective` as Triton's `config` endpoint prints it (docs/protocol.md, "Config").

    snake_case names, every primitive field whether set or not, 64-bit integers as numbers, enums by name.
    """
    return message_json(to_triton_proto(effective, placed=placed))


def message_json(message: Message) -> dict[str, Any]:
    """Any message in that style: unset messages and oneofs are left out, everything else is printed."""
    fields: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name["value"]
            fields[field.name] = {str(key): _plain(entry, value[key]) for key in sorted(value)}
        elif isinstance(value, Message | str | bytes | bool | int | float):
            fields[field.name] = _plain(field, value)
        else:
            fields[field.name] = [_plain(field, item) for item in value]
    return fields


def _plain(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return message_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def _write_tensor(tensor: TensorConfig, out: Any) -> None:
    assert tensor.datatype is not None
    assert tensor.dims is not None
    out.name = tensor.name
    out.data_type = _number(out, "data_type", tensor.datatype.config_name)
    out.dims.extend(tensor.dims)
    if tensor.reshape is not None:
        out.reshape.SetInParent()
        out.reshape.shape.extend(tensor.reshape)
    if "optional" in out.DESCRIPTOR.fields_by_name:
        out.optional = tensor.optional
        out.format = _number(out, "format", tensor.format)
    else:
        out.label_filename = tensor.labels_file


def _write_versions(effective: EffectiveConfig, out: Any) -> None:
    match effective.config.version_policy:
        case LatestVersions(count):
            out.latest.num_versions = count
        case AllVersions():
            out.all.SetInParent()
        case SpecificVersions(versions):
            out.specific.versions.extend(versions)


def _write_group(group: InstanceGroup, placed: InstanceKind | None, out: Any) -> None:
    kind = placed if placed is not None and group.kind is InstanceKind.AUTO else group.kind
    out.name = group.name
    out.kind = _number(out, "kind", kind.value)
    out.count = group.count
    out.gpus.extend(group.gpus)


def _write_batching(batching: BatchingConfig, message: Any) -> None:
    if batching.oversize is not Oversize.SPLIT:
        message.parameters[OVERSIZE].string_value = batching.oversize.value
    if not batching.enabled:
        return
    out = message.dynamic_batching
    out.SetInParent()
    out.preferred_batch_size.extend(batching.preferred_batch_sizes)
    out.max_queue_delay_microseconds = batching.max_queue_delay_us
    out.preserve_ordering = batching.preserve_ordering
    out.priority_levels = batching.priority_levels
    out.default_priority_level = batching.default_priority_level
    if batching.default_queue_policy != QueuePolicy():
        _write_queue(batching.default_queue_policy, out.default_queue_policy)
    for level, policy in sorted(batching.priority_queue_policies.items()):
        _write_queue(policy, out.priority_queue_policy[level])


def _write_queue(policy: QueuePolicy, out: Any) -> None:
    out.SetInParent()
    out.timeout_action = 1 if policy.timeout_action is TimeoutAction.DELAY else 0
    out.default_timeout_microseconds = policy.default_timeout_us
    out.allow_timeout_override = policy.allow_timeout_override
    out.max_queue_size = policy.max_queue_size


def _write_warmup(sample: WarmupSample, out: Any) -> None:
    out.name = sample.name
    out.batch_size = sample.batch_size
    out.count = sample.count
    for name, given in sorted(sample.inputs.items()):
        entry = out.inputs[name]
        entry.data_type = _number(entry, "data_type", given.datatype.config_name)
        entry.dims.extend(given.dims)
        match given.data:
            case WarmupData.ZERO:
                entry.zero_data = True
            case WarmupData.RANDOM:
                entry.random_data = True
            case WarmupData.FILE:
                entry.input_data_file = given.file


def _number(message: Any, field: str, name: str) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_name[name].number)
