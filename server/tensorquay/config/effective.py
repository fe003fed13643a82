"""The configuration in force: what a file declares, checked against the graph and completed from it.

Pure. Decides batchability, and where each value came from; loading and placement are others'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from tensorquay.config.advice import OPTIMIZATION_FILE, follow, says_where
from tensorquay.config.files import line_of
from tensorquay.config.graph_match import (
    Graph,
    check_batch_axis,
    declared_rank_offset,
    match_tensors,
    no_batch_axis,
)
from tensorquay.config.model import (
    BatchingConfig,
    EffectiveConfig,
    ExecutionConfig,
    InstanceGroup,
    LatestVersions,
    ModelConfig,
    OptimizationConfig,
    TensorConfig,
    VersionPolicy,
    WarmupSample,
)
from tensorquay.config.refusal import ConfigRefused, spelled
from tensorquay.config.rules import BACKEND, PLATFORM, check_batching, check_name
from tensorquay.config.triton_execution import OVERSIZE, oversize_of
from tensorquay.core.signature import Signature, TensorSpec

DEFAULT_MAX_BATCH_SIZE = 64
"""Rows per run for a batchable model that says nothing. Triton's 4 starves wide hardware; past 64 rows the gain of
most models is small while memory and the wait of the last rider still grow in proportion."""

DEFAULT_MODEL_FILENAME = "model.onnx"


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the server uses where neither file nor graph says anything.

    One instance per model, unlike Triton's two on a CPU: all models share one thread budget, and a second copy only
    splits it.
    """

    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE
    version_policy: VersionPolicy = field(default_factory=LatestVersions)
    instance_groups: tuple[InstanceGroup, ...] = (InstanceGroup(),)
    model_filename: str = DEFAULT_MODEL_FILENAME


def effective(
    name: str,
    declared: ModelConfig | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    defaults: Defaults | None = None,
    not_a_batch: str = "",
    advice: ExecutionConfig | None = None,
) -> EffectiveConfig:
    """What is in force for model `name`.

    Args:
        declared: what its file or a load request says; None when there is neither.
        inputs, outputs: the graph's, full shapes, -1 for symbolic sizes.
        not_a_batch: why axis 0 is no batch although the graph looks like it, when a run has shown that; what
            `declared` says about batching stands all the same.
        advice: how its optimisation says that the model should be executed, where `declared` does not.
    Raises: ConfigRefused when `declared` contradicts the graph or the folder's name.
    """
    defaults = defaults or Defaults()
    given = declared or ModelConfig(source="default")
    graph = Graph(tuple(inputs), tuple(outputs))
    try:
        return _complete(name, given, graph, defaults, not_a_batch, advice)
    except ConfigRefused as refused:
        raise refused.at(line_of(given.source, given.text, refused.key)) from None


def _complete(
    name: str,
    given: ModelConfig,
    graph: Graph,
    defaults: Defaults,
    not_a_batch: str,
    advice: ExecutionConfig | None,
) -> EffectiveConfig:
    """As `effective`, which names the line of what is refused."""
    check_name(given, name)
    batch = _batch_size(given, graph, defaults, not_a_batch)
    batches = batch.size > 0
    served_inputs = match_tensors("input", given.inputs, graph.inputs, batches=batches, file=given.source)
    served_outputs = match_tensors("output", given.outputs, graph.outputs, batches=batches, file=given.source)
    batching = _batching(given, batch)
    execution, advised = given.execution, frozenset[str]()
    if advice is not None:
        execution, advised = follow(execution, advice, placed=says_where(execution, given.instance_groups))
    config = replace(
        given,
        name=name,
        platform=PLATFORM,
        backend=BACKEND,
        default_model_filename=given.default_model_filename or defaults.model_filename,
        max_batch_size=batch.size,
        inputs=served_inputs,
        outputs=served_outputs,
        version_policy=given.version_policy or defaults.version_policy,
        instance_groups=tuple(_named(name, given.instance_groups or defaults.instance_groups)),
        batching=batching,
        execution=execution,
        warmup=tuple(
            _warmup(sample, f"warmup[{index}]", served_inputs, batch.size, given.source)
            for index, sample in enumerate(given.warmup)
        ),
        parameters={key: value for key, value in given.parameters.items() if key != OVERSIZE},
    )
    origins = dict(_origins(given, config, batch.origin))
    origins |= {f"execution.{name}": OPTIMIZATION_FILE for name in advised}
    if "session_options" in advised and given.execution.session_options:
        origins["execution.session_options"] = f"{given.source}, {OPTIMIZATION_FILE}"
    return EffectiveConfig(config, origins, batch.unbatched_because)


def signature(
    config: EffectiveConfig,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    labels: Mapping[str, tuple[str, ...]],
) -> Signature:
    """What requests are checked against: wire shapes, the batch axis as -1 in front when the model batches.

    Args: inputs, outputs: the graph's, as given to `effective`. labels: by output name, lines of its labels file.
    """
    given = config.config
    batches = config.max_batch_size > 0
    in_graph = {spec.name: spec for spec in inputs}
    out_graph = {spec.name: spec for spec in outputs}
    return Signature(
        model=given.name,
        inputs=tuple(_wire(tensor, in_graph[tensor.name], batches, ()) for tensor in given.inputs),
        outputs=tuple(
            _wire(tensor, out_graph[tensor.name], batches, labels.get(tensor.name, ())) for tensor in given.outputs
        ),
        max_batch_size=config.max_batch_size,
        unbatched_because=config.unbatched_because,
    )


def _wire(tensor: TensorConfig, spec: TensorSpec, batches: bool, labels: tuple[str, ...]) -> TensorSpec:
    assert tensor.dims is not None
    return TensorSpec(
        name=tensor.name,
        datatype=spec.datatype,
        shape=(-1, *tensor.dims) if batches else tensor.dims,
        optional=tensor.optional,
        reshape=tensor.reshape,
        # A reshape's wire axes are not the graph's, so its names would lie.
        axis_names=spec.axis_names if tensor.reshape is None else (),
        labels=tuple(labels),
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    """The decision about axis 0: 0 rows when it is no batch, and then why."""

    size: int
    origin: str
    unbatched_because: str = ""


def _batch_size(given: ModelConfig, graph: Graph, defaults: Defaults, not_a_batch: str) -> _Batch:
    said = given.max_batch_size
    if said is not None:
        if said > 0:
            check_batch_axis(graph, said, given.source)
            return _Batch(said, given.source)
        return _Batch(0, given.source, f"{given.source} sets max_batch_size to 0")
    offsets = declared_rank_offset(graph, given.inputs, given.outputs)
    if 0 in offsets:
        # The declared shapes hold every axis, so none is left to be the batch; a mixture is refused by the match.
        return _Batch(0, given.source, f"{given.source} declares full shapes and no max_batch_size")
    # Shapes written without a first axis say that it is the batch, whatever it is called.
    because = no_batch_axis(graph, trust_names=offsets != {1}) or not_a_batch
    if because:
        return _Batch(0, "graph", because)
    return (
        _Batch(defaults.max_batch_size, "default")
        if defaults.max_batch_size > 0
        else _Batch(0, "default", "the server's default max_batch_size is 0")
    )


def _batching(given: ModelConfig, batch: _Batch) -> BatchingConfig:
    said = given.batching
    if said is None:
        return BatchingConfig(enabled=batch.size > 1, oversize=oversize_of(given.parameters, given.source))
    if said.enabled and batch.size == 0:
        raise ConfigRefused(
            file=given.source,
            key=spelled("batching.enabled", given.source),
            value=True,
            rule=f"the model cannot batch: {batch.unbatched_because}",
            hint="remove it, or give the model a variable first axis",
        )
    check_batching(said, batch.size, given.source)
    return said


def _named(name: str, groups: Sequence[InstanceGroup]) -> Iterator[InstanceGroup]:
    """Every group with a name, Triton's way: model and position; a number further on when that is taken."""
    taken = {group.name for group in groups}
    for index, group in enumerate(groups):
        if group.name:
            yield group
            continue
        number = index
        while f"{name}_{number}" in taken:
            number += len(groups)
        taken.add(f"{name}_{number}")
        yield replace(group, name=f"{name}_{number}")


def _warmup(
    sample: WarmupSample, key: str, inputs: Sequence[TensorConfig], max_batch_size: int, file: str
) -> WarmupSample:
    """`sample` with its rows and runs settled (at least 1 each), checked against the served inputs."""
    _need(
        sample.batch_size <= max(1, max_batch_size),
        file,
        f"{key}.batch_size",
        sample.batch_size,
        f"it must be at most max_batch_size, {max_batch_size}"
        if max_batch_size
        else "the model does not batch: 1 or 0",
    )
    known = {tensor.name: tensor for tensor in inputs}
    for name, given in sample.inputs.items():
        at = f"{key}.inputs.{name}"
        tensor = known.get(name)
        _need(tensor is not None, file, f"{key}.inputs", name, f"the model has no such input, it has {sorted(known)}")
        assert tensor is not None
        assert tensor.datatype is not None
        assert tensor.dims is not None
        rule = f"'{name}' is {tensor.datatype.config_name}"
        _need(given.datatype is tensor.datatype, file, f"{at}.datatype", given.datatype.config_name, rule)
        fits = len(given.dims) == len(tensor.dims) and all(
            want in (-1, have) for have, want in zip(given.dims, tensor.dims, strict=True)
        )
        _need(fits, file, f"{at}.dims", given.dims, f"'{name}' takes {list(tensor.dims)} (without the batch)")
    missing = sorted(tensor.name for tensor in inputs if not tensor.optional and tensor.name not in sample.inputs)
    rule = f"the model also requires {', '.join(map(repr, missing[:8]))}"
    _need(not missing, file, f"{key}.inputs", sorted(sample.inputs), rule)
    return replace(sample, batch_size=max(1, sample.batch_size), count=max(1, sample.count))


def _need(holds: bool, file: str, key: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigRefused(file=file, key=spelled(key, file), value=value, rule=rule)


def _origins(given: ModelConfig, config: ModelConfig, batch_origin: str) -> Iterator[tuple[str, str]]:
    said = given.source
    yield "name", said if given.name else "default"
    yield "platform", said if given.platform else "default"
    yield "backend", said if given.backend else "default"
    yield "default_model_filename", said if given.default_model_filename else "default"
    yield "max_batch_size", batch_origin
    for kind, before, after in (
        ("input", given.inputs, config.inputs),
        ("output", given.outputs, config.outputs),
    ):
        yield from _tensor_origins(kind, before, after, said)
    yield "version_policy", said if given.version_policy is not None else "default"
    yield "instance_groups", said if given.instance_groups else "default"
    yield from _field_origins("batching", given.batching, config.batching, BatchingConfig(), said)
    derived = "graph" if batch_origin == "graph" else "default"
    yield "batching.enabled", derived if given.batching is None else said
    if OVERSIZE in given.parameters:
        yield "batching.oversize", said
    for key, origin in _field_origins("execution", given.execution, config.execution, ExecutionConfig(), said):
        name = key.removeprefix("execution.")
        if name != "insists":
            yield key, said if name in given.execution.insists else origin
    asked = _field_origins("optimization", given.optimization, config.optimization, OptimizationConfig(), said)
    # What a background optimisation would be like is of interest to who asks for one.
    yield from (pair for pair in asked if pair[1] == said or pair[0] == "optimization.background")
    for index in range(len(config.warmup)):
        yield f"warmup[{index}]", said
    for key in config.parameters:
        yield f"parameters.{key}", said
    for key in config.metric_tags:
        yield f"metric_tags.{key}", said


def _tensor_origins(
    kind: str, before: Sequence[TensorConfig], after: Sequence[TensorConfig], said: str
) -> Iterator[tuple[str, str]]:
    written = {tensor.name: tensor for tensor in before}
    for index, tensor in enumerate(after):
        key = f"{kind}[{index}]"
        found = written.get(tensor.name)
        yield f"{key}.name", said if found else "graph"
        yield f"{key}.datatype", said if found and found.datatype else "graph"
        yield f"{key}.dims", said if found and found.dims is not None else "graph"
        if kind == "input":
            yield f"{key}.optional", said if found else "graph"
        for name in ("reshape", "labels_file", "format"):
            if found and getattr(found, name) not in (None, "", "FORMAT_NONE"):
                yield f"{key}.{name}", said


def _field_origins(
    key: str,
    before: BatchingConfig | ExecutionConfig | OptimizationConfig | None,
    after: BatchingConfig | ExecutionConfig | OptimizationConfig | None,
    plain: BatchingConfig | ExecutionConfig | OptimizationConfig,
    said: str,
) -> Iterator[tuple[str, str]]:
    """A field counts as said when it is not what it would be anyway."""
    for each in fields(plain):
        changed = before is not None and getattr(after, each.name) != getattr(plain, each.name)
        yield f"{key}.{each.name}", said if changed else "default"
