"""`inference.ModelConfig` → `ModelConfig`: what each honoured field of Triton's means here.

Pure. Refused fields were sorted out by `triton_fields.screen`; limits and contradictions are `rules.py`'s.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from tensorquay.config.model import (
    AllVersions,
    BatchingConfig,
    InstanceGroup,
    InstanceKind,
    LatestVersions,
    ModelConfig,
    Oversize,
    QueuePolicy,
    SpecificVersions,
    TensorConfig,
    TimeoutAction,
    VersionPolicy,
    WarmupData,
    WarmupInput,
    WarmupSample,
)
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.rules import check
from tensorquay.config.triton_execution import OVERSIZE, oversize_of, read_execution
from tensorquay.config.triton_fields import screen
from tensorquay.core.datatypes import DataType


def read(message: Message, file: str, *, says_max_batch_size: bool) -> ModelConfig:
    """The meaning of `message`, an `inference.ModelConfig`.

    Args: says_max_batch_size: whether the file wrote it at all; proto3 cannot tell 0 from absent.
    Raises: ConfigRefused for a refused field, a value out of bounds or a contradiction.
    """
    notes = screen(message, file)
    given: Any = message
    groups = tuple(_group(group, f"instance_group[{i}]", file) for i, group in enumerate(given.instance_group))
    executed = read_execution(given, groups, file)
    oversize = oversize_of(executed.free, file)
    free = dict(executed.free)
    batching: BatchingConfig | None = None
    if given.HasField("dynamic_batching"):
        batching = _batching(given.dynamic_batching, oversize)
    elif says_max_batch_size:
        # Triton batches by itself only where it completed the configuration by itself.
        batching = BatchingConfig(enabled=False, oversize=oversize)
    if batching is not None:
        free.pop(OVERSIZE, None)
    config = ModelConfig(
        name=given.name,
        platform=given.platform,
        backend=given.backend,
        default_model_filename=given.default_model_filename,
        max_batch_size=given.max_batch_size if says_max_batch_size else None,
        inputs=tuple(_tensor(tensor, f"input[{i}]", file) for i, tensor in enumerate(given.input)),
        outputs=tuple(_tensor(tensor, f"output[{i}]", file) for i, tensor in enumerate(given.output)),
        version_policy=_version_policy(given.version_policy),
        instance_groups=groups,
        batching=batching,
        execution=executed.execution,
        warmup=tuple(_warmup(sample, f"model_warmup[{i}]", file) for i, sample in enumerate(given.model_warmup)),
        parameters=free,
        metric_tags=dict(sorted(given.metric_tags.items())),
        source=file,
        notes=(*notes, *executed.notes),
    )
    check(config)
    return config


def _enum_name(message: Any, field: str, key: str, file: str) -> str:
    """The name of an enum's value; JSON and proto3 let unknown numbers through."""
    number = getattr(message, field)
    value = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(number)
    if value is None:
        raise ConfigRefused(file=file, key=f"{key}.{field}", value=number, rule="no such value")
    return str(value.name)


def _datatype(message: Any, key: str, file: str) -> DataType | None:
    name = _enum_name(message, "data_type", key, file)
    return DataType.from_config(name)  # None for TYPE_INVALID, which is how proto3 says nothing


def _tensor(tensor: Any, key: str, file: str) -> TensorConfig:
    is_input = "optional" in tensor.DESCRIPTOR.fields_by_name
    return TensorConfig(
        name=tensor.name,
        datatype=_datatype(tensor, key, file),
        # An empty list says nothing; the graph's own dims are then empty exactly when they should be.
        dims=tuple(tensor.dims) or None,
        reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        optional=is_input and tensor.optional,
        labels_file="" if is_input else tensor.label_filename,
        format=_enum_name(tensor, "format", key, file) if is_input else "FORMAT_NONE",
    )


def _version_policy(policy: Any) -> VersionPolicy | None:
    match policy.WhichOneof("policy_choice"):
        case "latest":
            return LatestVersions(policy.latest.num_versions or 1)
        case "all":
            return AllVersions()
        case "specific":
            return SpecificVersions(tuple(policy.specific.versions))
    return None


def _group(group: Any, key: str, file: str) -> InstanceGroup:
    kind = _enum_name(group, "kind", key, file)
    if kind == "KIND_MODEL":
        raise ConfigRefused(
            file=file,
            key=f"{key}.kind",
            value=kind,
            rule="an ONNX model does not place itself",
            hint="use KIND_AUTO, KIND_CPU or KIND_GPU",
        )
    return InstanceGroup(kind=InstanceKind(kind), count=group.count or 1, gpus=tuple(group.gpus), name=group.name)


def _batching(batching: Any, oversize: Oversize) -> BatchingConfig:
    return BatchingConfig(
        enabled=True,
        preferred_batch_sizes=tuple(batching.preferred_batch_size),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        preserve_ordering=batching.preserve_ordering,
        priority_levels=batching.priority_levels,
        default_priority_level=batching.default_priority_level,
        default_queue_policy=_queue(batching.default_queue_policy),
        priority_queue_policies={
            level: _queue(policy) for level, policy in sorted(batching.priority_queue_policy.items())
        },
        oversize=oversize,
    )


def _queue(policy: Any) -> QueuePolicy:
    return QueuePolicy(
        timeout_action=TimeoutAction.DELAY if policy.timeout_action else TimeoutAction.REJECT,
        default_timeout_us=policy.default_timeout_microseconds,
        allow_timeout_override=policy.allow_timeout_override,
        max_queue_size=policy.max_queue_size,
    )


def _warmup(sample: Any, key: str, file: str) -> WarmupSample:
    return WarmupSample(
        name=sample.name,
        batch_size=sample.batch_size,
        inputs={
            name: _warmup_input(given, f"{key}.inputs[{name}]", file) for name, given in sorted(sample.inputs.items())
        },
        count=sample.count,
    )


def _warmup_input(given: Any, key: str, file: str) -> WarmupInput:
    datatype = _datatype(given, key, file)
    if datatype is None:
        raise ConfigRefused(file=file, key=f"{key}.data_type", value="TYPE_INVALID", rule="it must name a type")
    chosen = given.WhichOneof("input_data_type")
    if chosen is None or not getattr(given, chosen):
        raise ConfigRefused(
            file=file,
            key=key,
            value=chosen,
            rule="one of zero_data: true, random_data: true or input_data_file must say where values come from",
        )
    data = {"zero_data": WarmupData.ZERO, "random_data": WarmupData.RANDOM, "input_data_file": WarmupData.FILE}[chosen]
    return WarmupInput(datatype, tuple(given.dims), data, given.input_data_file if chosen == "input_data_file" else "")
