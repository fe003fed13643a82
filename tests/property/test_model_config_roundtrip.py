"""Laws of the model configuration: what is printed means what was meant, and no input does worse than be refused."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from tensorquay.config.advice import follow
from tensorquay.config.effective import effective, signature
from tensorquay.config.model import (
    AllVersions,
    BatchingConfig,
    ExecutionConfig,
    InlineRun,
    InstanceGroup,
    InstanceKind,
    LatestVersions,
    ModelConfig,
    Oversize,
    ProviderConfig,
    QueuePolicy,
    SpecificVersions,
    TensorConfig,
    TimeoutAction,
    WarmupData,
    WarmupInput,
    WarmupSample,
)
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.rules import check
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.triton import POOL, parse_json_config, parse_pbtxt, to_triton_json, to_triton_proto
from tensorquay.core.datatypes import DataType
from tensorquay.core.signature import TensorSpec

FIELDS = sorted(
    {
        field.name
        for message in POOL.FindFileByName("model_config.proto").message_types_by_name.values()
        for field in message.fields
    }
)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
keys = words.filter(lambda word: not word.startswith(("session.", "optimization.", "ep.", "mlas.")))
sizes = st.one_of(st.just(-1), st.integers(1, 6))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[TensorSpec], list[TensorSpec]]:
    batchable = draw(st.booleans())

    def tensors(prefix: str) -> list[TensorSpec]:
        count = draw(st.integers(1, 3))
        made = []
        for index in range(count):
            rest = tuple(draw(st.lists(sizes, max_size=3)))
            shape = (-1, *rest) if batchable else rest
            datatype = draw(st.sampled_from(list(DataType)))
            optional = prefix == "in" and index > 0 and draw(st.booleans())
            made.append(TensorSpec(f"{prefix}{index}", datatype, shape, optional=optional))
        return made

    return tensors("in"), tensors("out")


@st.composite
def declared_tensors(draw: st.DrawFn, specs: list[TensorSpec], batches: bool) -> tuple[TensorConfig, ...]:
    chosen = []
    for spec in specs:
        own = spec.shape[1:] if batches else spec.shape
        dims: tuple[int, ...] | None = tuple(draw(sizes) if size == -1 else size for size in own) or None
        reshape = None
        if dims is not None and draw(st.booleans()):
            reshape, dims = dims, tuple(reversed(dims))
        elif draw(st.booleans()):
            dims = None
        chosen.append(
            TensorConfig(
                spec.name,
                draw(st.sampled_from([None, spec.datatype])),
                dims,
                reshape=reshape,
                optional=spec.optional,
                labels_file="labels.txt" if spec.name.startswith("out") and draw(st.booleans()) else "",
            )
        )
    return tuple(chosen)


queues = st.builds(
    QueuePolicy,
    timeout_action=st.sampled_from(TimeoutAction),
    default_timeout_us=st.integers(0, 2**64 - 1),
    allow_timeout_override=st.booleans(),
    max_queue_size=st.integers(0, 2**32 - 1),
)


@st.composite
def batchings(draw: st.DrawFn, max_batch_size: int) -> BatchingConfig:
    levels = draw(st.one_of(st.just(0), st.integers(1, 2**64 - 1)))
    if not draw(st.booleans()):
        return BatchingConfig(enabled=False, oversize=draw(st.sampled_from(Oversize)))
    return BatchingConfig(
        enabled=True,
        preferred_batch_sizes=tuple(draw(st.lists(st.integers(1, max_batch_size), max_size=3, unique=True))),
        max_queue_delay_us=draw(st.integers(0, 3_600_000_000)),
        preserve_ordering=levels <= 1 and draw(st.booleans()),
        priority_levels=levels,
        default_priority_level=draw(st.integers(1, levels)) if levels else 0,
        default_queue_policy=draw(queues),
        priority_queue_policies=draw(st.dictionaries(st.integers(1, levels), queues, max_size=3)) if levels else {},
        oversize=draw(st.sampled_from(Oversize)),
    )


@st.composite
def executions(draw: st.DrawFn, kinds: set[InstanceKind]) -> ExecutionConfig:
    on_gpu = [] if InstanceKind.CPU in kinds else draw(st.lists(st.sampled_from(["tensorrt", "cuda"]), unique=True))
    may_lack_gpu = InstanceKind.GPU not in kinds
    on_cpu = draw(st.lists(st.sampled_from(["openvino", "cpu"]), unique=True)) if on_gpu or may_lack_gpu else []
    names = [*on_gpu, *sorted(on_cpu, key=lambda name: name == "cpu")]
    options = st.dictionaries(st.sampled_from(["trt_a", "trt_fp16_enable"]), words, max_size=2)
    return ExecutionConfig(
        providers=tuple(ProviderConfig(name, draw(options)) for name in names),
        allow_fallback=draw(st.booleans()),
        graph_optimization=draw(st.sampled_from(["disabled", "basic", "extended", "all"])),
        intra_op_threads=draw(st.integers(0, 1024)),
        inter_op_threads=draw(st.integers(0, 1024)),
        parallel=draw(st.booleans()),
        spinning=draw(st.booleans()),
        memory_arena=draw(st.booleans()),
        memory_pattern=draw(st.booleans()),
        arena_shrinkage=draw(st.sampled_from(["", "cpu:0", "cpu:0;gpu:1"])),
        inline=draw(st.sampled_from(InlineRun)),
        session_options=draw(st.dictionaries(st.sampled_from(["session.a", "ep.b"]), words, max_size=2)),
    )


@st.composite
def warmups(draw: st.DrawFn, config: ModelConfig, graph: tuple[list[TensorSpec], list[TensorSpec]]) -> WarmupSample:
    served = effective("m", config, *graph)
    inputs = {}
    for tensor in served.config.inputs:
        assert tensor.dims is not None
        assert tensor.datatype is not None
        data = draw(st.sampled_from(WarmupData))
        dims = tuple(2 if size == -1 else size for size in tensor.dims)
        inputs[tensor.name] = WarmupInput(tensor.datatype, dims, data, "w.bin" if data is WarmupData.FILE else "")
    rows = draw(st.integers(0, max(1, min(served.max_batch_size, 4))))
    return WarmupSample(draw(words), rows, inputs, draw(st.integers(0, 9)))


@st.composite
def cases(draw: st.DrawFn) -> tuple[ModelConfig, tuple[list[TensorSpec], list[TensorSpec]]]:
    graph = draw(graphs())
    batchable = all(spec.shape and spec.shape[0] == -1 for specs in graph for spec in specs)
    max_batch_size = draw(st.sampled_from([None, 0, 1, 7, 2**31 - 1] if batchable else [None, 0]))
    batches = batchable if max_batch_size is None else max_batch_size > 0
    kind = draw(st.sampled_from(InstanceKind))
    groups = tuple(
        InstanceGroup(kind, draw(st.integers(1, 4)), (0, 3) if kind is InstanceKind.GPU and draw(st.booleans()) else ())
        for _ in range(draw(st.integers(0, 2)))
    )
    config = ModelConfig(
        name=draw(st.sampled_from(["", "m"])),
        default_model_filename=draw(st.sampled_from(["", "net.onnx"])),
        max_batch_size=max_batch_size,
        inputs=draw(st.one_of(st.just(()), declared_tensors(graph[0], batches))),
        outputs=draw(st.one_of(st.just(()), declared_tensors(graph[1], batches))),
        version_policy=draw(
            st.one_of(
                st.none(),
                st.builds(LatestVersions, st.integers(1, 2**32 - 1)),
                st.just(AllVersions()),
                st.builds(SpecificVersions, st.just((1, 2**63 - 1))),
            )
        ),
        instance_groups=groups,
        batching=draw(st.one_of(st.none(), batchings(max_batch_size or 64))) if batches else None,
        execution=draw(executions({group.kind for group in groups})),
        parameters=draw(st.dictionaries(keys, words, max_size=2)),
        metric_tags=draw(st.dictionaries(st.sampled_from(["team", "tier"]), words, max_size=2)),
        source="config.pbtxt",
    )
    samples = draw(st.lists(warmups(config, graph), max_size=1))
    return replace(config, warmup=tuple(samples)), graph


def meaning(config: ModelConfig) -> ModelConfig:
    return replace(config, source="", notes=())


@settings(max_examples=150, deadline=None)
@given(cases())
def test_what_is_printed_reads_back_with_the_same_meaning(
    case: tuple[ModelConfig, tuple[list[TensorSpec], list[TensorSpec]]],
) -> None:
    config, graph = case
    check(config)
    first = effective("m", config, *graph)
    message = to_triton_proto(first)
    from_text = parse_pbtxt(text_format.MessageToString(message))
    from_json = parse_json_config(json.dumps(to_triton_json(first)), source="config.pbtxt")
    for again in (from_text, from_json):
        assert meaning(effective("m", again, *graph).config) == meaning(first.config)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_an_effective_configuration_leaves_nothing_open(
    case: tuple[ModelConfig, tuple[list[TensorSpec], list[TensorSpec]]],
) -> None:
    config, graph = case
    found = effective("m", config, *graph)
    made = signature(found, *graph, {})
    assert found.config.max_batch_size is not None
    assert found.config.batching is not None
    assert found.config.version_policy is not None
    assert found.config.inputs
    assert found.config.outputs
    assert all(group.name for group in found.config.instance_groups)
    assert (found.max_batch_size == 0) == bool(found.unbatched_because)
    assert not (found.max_batch_size == 0 and found.config.batching.enabled)
    for spec in (*made.inputs, *made.outputs):
        assert not made.batches or spec.shape[0] == -1
    # What was settled once is settled: declaring the outcome changes nothing.
    again = effective("m", found.config, *graph)
    assert again.config == found.config


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**65), 2**65), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(FIELDS), st.text(max_size=3)), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4), json_values))
def test_any_json_is_read_or_refused(value: Any) -> None:
    with suppress(ConfigRefused):
        parse_json_config(json.dumps(value))


tokens = st.one_of(
    st.sampled_from(FIELDS),
    st.sampled_from([*"{}[]:,;<>\"'#-", "\n", "TYPE_FP32", "true", "-1", "0", "1e9", "0x7f", "nan", "key", "value"]),
    st.text(max_size=3),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(tokens, max_size=30))
def test_any_text_is_read_or_refused(pieces: list[str]) -> None:
    for parse in (parse_pbtxt, parse_toml, parse_json_config):
        with suppress(ConfigRefused):
            parse(" ".join(pieces))


toml_keys = ["input", "output", "batching", "execution", "instances", "warmup", "versions", "name", "dims", "queue"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(toml_keys), st.integers(0, 3), json_values), max_size=5))
def test_any_toml_is_read_or_refused(entries: list[tuple[str, int, Any]]) -> None:
    lines = []
    for key, form, value in entries:
        text = json.dumps(value)
        lines.append((f"{key} = {text}", f"[{key}]", f"[[{key}]]", f"[{key}.{key}]\n{key} = {text}")[form])
    with suppress(ConfigRefused):
        parse_toml("\n".join(lines))


@given(executions(set()), executions(set()), st.booleans())
def test_advice_never_replaces_what_a_configuration_says(given: Any, advice: Any, placed: bool) -> None:
    followed, changed = follow(given, advice, placed=placed)
    plain = ExecutionConfig()
    for each in fields(plain):
        before, after = getattr(given, each.name), getattr(followed, each.name)
        assert (before == after) or each.name in changed
        if each.name == "session_options":
            assert before.items() <= after.items()
        elif before != getattr(plain, each.name):
            assert after == before
    again, changed = follow(followed, advice, placed=True)
    assert (again, changed) == (followed, frozenset())
