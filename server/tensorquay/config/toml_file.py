"""config.toml → `ModelConfig`. Every key is in `toml_schema.py`, with its text for people."""

from __future__ import annotations

import tomllib
from dataclasses import replace

from pydantic import ValidationError

from tensorquay.config.model import (
    ADVISABLE,
    AllVersions,
    BackgroundOptimization,
    BatchingConfig,
    ExecutionConfig,
    InlineRun,
    InstanceGroup,
    InstanceKind,
    LatestVersions,
    ModelConfig,
    OptimizationConfig,
    Oversize,
    ProviderConfig,
    QueuePolicy,
    SpecificVersions,
    TensorConfig,
    TimeoutAction,
    VersionPolicy,
    WarmupData,
    WarmupInput,
    WarmupSample,
)
from tensorquay.config.refusal import OTHER_TYPES, TOML, WHOLE_FILE, ConfigRefused, did_you_mean
from tensorquay.config.rules import SESSION_OPTION_PREFIXES, check
from tensorquay.config.toml_execution import ExecutionTable, OptimizationTable
from tensorquay.config.toml_lines import line_of
from tensorquay.config.toml_mistakes import schema_refused, syntax_refused
from tensorquay.config.toml_schema import (
    BatchingTable,
    ConfigTable,
    InputTable,
    OutputTable,
    QueueTable,
    VersionsTable,
    WarmupTable,
)
from tensorquay.config.triton import MAX_CONFIG_BYTES
from tensorquay.config.triton_execution import KNOWN_PARAMETERS
from tensorquay.core.datatypes import DataType

_PROVIDERS = {
    "CPUExecutionProvider": "cpu",
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "tensorrt",
    "OpenVINOExecutionProvider": "openvino",
}
"""ONNX Runtime's own names, for those who have them at hand."""


def parse_toml(text: str, *, source: str = TOML) -> ModelConfig:
    """The configuration that `text` describes.

    Raises: ConfigRefused naming file, line, key, value and rule for bad syntax, an unknown key (with the nearest known
    one), a wrong type, a value out of bounds, a contradiction, or more than `MAX_CONFIG_BYTES`.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_CONFIG_BYTES:
        rule = f"at most {MAX_CONFIG_BYTES} bytes are read"
        raise ConfigRefused(file=source, key=WHOLE_FILE, value=f"{size} bytes", rule=rule)
    try:
        written = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise syntax_refused(error, source) from None
    try:
        table = ConfigTable.model_validate(written)
    except ValidationError as error:
        raise schema_refused(error, source, text) from None
    try:
        config = replace(_Reader(source).config(table), text=text)
        check(config)
    except ConfigRefused as refused:
        raise refused.at(line_of(text, refused.key)) from None
    return config


class _Reader:
    """Tables → values, with the file they blame."""

    def __init__(self, file: str) -> None:
        self.file = file

    def config(self, table: ConfigTable) -> ModelConfig:
        for key, value in table.parameters.items():
            if key in KNOWN_PARAMETERS:
                raise self.refused(
                    f"parameters.{key}",
                    value,
                    "this is config.pbtxt's spelling; [execution] and [batching] have a key for it",
                )
            if key.startswith(SESSION_OPTION_PREFIXES):
                raise self.refused(
                    f"parameters.{key}",
                    value,
                    "it is an option of the runtime's session; put it in [execution.session_options]",
                )
        return ModelConfig(
            name=table.name,
            default_model_filename=table.model_file,
            max_batch_size=table.max_batch_size,
            inputs=tuple(self.tensor(f"input[{i}]", each) for i, each in enumerate(table.input)),
            outputs=tuple(self.tensor(f"output[{i}]", each) for i, each in enumerate(table.output)),
            version_policy=None if table.versions is None else self.versions(table.versions),
            instance_groups=tuple(
                InstanceGroup(InstanceKind[each.kind.upper()], each.count, tuple(each.gpus), each.name)
                for each in table.instances
            ),
            batching=None if table.batching is None else _batching(table.batching),
            execution=self.execution(table.execution),
            optimization=_optimization(table.optimization),
            warmup=tuple(self.warmup(f"warmup[{i}]", each) for i, each in enumerate(table.warmup)),
            parameters=dict(table.parameters),
            metric_tags=dict(table.metric_tags),
            source=self.file,
        )

    def refused(self, key: str, value: object, rule: str, hint: str = "") -> ConfigRefused:
        return ConfigRefused(file=self.file, key=key, value=value, rule=rule, hint=hint)

    def datatype(self, key: str, name: str) -> DataType:
        found = DataType.from_config(name)
        wire = {each.wire: each for each in DataType}
        if found is None and name not in wire:
            word = name.upper().removeprefix("TYPE_")
            hint = did_you_mean(OTHER_TYPES.get(word, word), wire)
            raise self.refused(f"{key}.datatype", name, "no such data type", hint)
        return found or wire[name]

    def tensor(self, key: str, table: InputTable | OutputTable) -> TensorConfig:
        return TensorConfig(
            name=table.name,
            datatype=None if table.datatype is None else self.datatype(key, table.datatype),
            dims=None if table.dims is None else tuple(table.dims),
            reshape=None if table.reshape is None else tuple(table.reshape),
            optional=isinstance(table, InputTable) and table.optional,
            labels_file=table.labels if isinstance(table, OutputTable) else "",
            format=f"FORMAT_{table.format.upper()}" if isinstance(table, InputTable) else "FORMAT_NONE",
        )

    def versions(self, table: VersionsTable) -> VersionPolicy:
        if table.count is not None and table.policy != "latest":
            raise self.refused("versions.count", table.count, 'only policy = "latest" has a count')
        if table.versions is not None and table.policy != "specific":
            raise self.refused("versions.versions", table.versions, 'only policy = "specific" lists versions')
        if table.policy == "all":
            return AllVersions()
        if table.policy == "specific":
            return SpecificVersions(tuple(table.versions or ()))
        return LatestVersions(1 if table.count is None else table.count)

    def execution(self, table: ExecutionTable) -> ExecutionConfig:
        if table.providers is not None and table.provider is not None:
            rule = "providers = [...] and [[execution.provider]] say the same thing; keep one"
            raise self.refused("execution.providers", table.providers, rule)
        short = [ProviderConfig(_PROVIDERS.get(name, name)) for name in table.providers or ()]
        long = [
            ProviderConfig(_PROVIDERS.get(each.name, each.name), dict(each.options)) for each in table.provider or ()
        ]
        plain = ExecutionTable()
        return ExecutionConfig(
            insists=frozenset(
                name for name in table.model_fields_set & ADVISABLE if getattr(table, name) == getattr(plain, name)
            ),
            providers=tuple(short or long),
            allow_fallback=table.allow_fallback,
            graph_optimization=table.graph_optimization,
            intra_op_threads=table.intra_op_threads,
            inter_op_threads=table.inter_op_threads,
            parallel=table.parallel,
            spinning=table.spinning,
            memory_arena=table.memory_arena,
            memory_pattern=table.memory_pattern,
            arena_shrinkage=table.arena_shrinkage,
            inline=InlineRun(table.inline),
            session_options=dict(table.session_options),
        )

    def warmup(self, key: str, table: WarmupTable) -> WarmupSample:
        return WarmupSample(
            name=table.name,
            batch_size=table.batch_size,
            inputs={
                name: WarmupInput(
                    self.datatype(f"{key}.inputs.{name}", each.datatype),
                    tuple(each.dims),
                    WarmupData(each.data),
                    each.file,
                )
                for name, each in table.inputs.items()
            },
            count=table.count,
        )


def _batching(table: BatchingTable) -> BatchingConfig:
    return BatchingConfig(
        enabled=table.enabled,
        preferred_batch_sizes=tuple(table.preferred_batch_sizes),
        max_queue_delay_us=table.max_queue_delay_us,
        preserve_ordering=table.preserve_ordering,
        priority_levels=table.priority_levels,
        default_priority_level=table.default_priority_level,
        default_queue_policy=_queue(table.queue),
        priority_queue_policies={int(level): _queue(policy) for level, policy in table.priority.items()},
        oversize=Oversize(table.oversize),
    )


def _optimization(table: OptimizationTable) -> OptimizationConfig:
    return OptimizationConfig(
        background=BackgroundOptimization(table.background),
        objective=table.objective,
        max_drop=table.max_drop,
        min_cosine=table.min_cosine,
        metric=table.metric or "",
        data=table.data,
        labels=table.labels,
        time_budget_s=table.time_budget_s,
        batches=tuple(table.batches or ()),
    )


def _queue(table: QueueTable) -> QueuePolicy:
    return QueuePolicy(
        timeout_action=TimeoutAction[table.timeout_action.upper()],
        default_timeout_us=table.default_timeout_us,
        allow_timeout_override=table.allow_timeout_override,
        max_queue_size=table.max_queue_size,
    )
