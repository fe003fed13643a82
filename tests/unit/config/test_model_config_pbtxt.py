"""config.pbtxt and load requests: what each honoured field means."""

from __future__ import annotations

import json

import pytest

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
    WarmupData,
    WarmupInput,
    WarmupSample,
)
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.triton import MAX_CONFIG_BYTES, parse_json_config, parse_pbtxt
from tensorquay.core.datatypes import DataType


def test_an_empty_file_says_nothing() -> None:
    assert parse_pbtxt("") == ModelConfig(source="config.pbtxt")


def test_tritons_own_example_reads() -> None:
    config = parse_pbtxt("""
        # add and sub
        name: "simple"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [
          { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
          { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] reshape { shape: [ 4, 4 ] } optional: true }
        ]
        output [ { name: "OUTPUT0" data_type: TYPE_STRING dims: [ -1 ] label_filename: "labels.txt" } ]
        default_model_filename: "net.onnx"
        metric_tags { key: "team" value: "vision" }
    """)
    assert (config.name, config.platform, config.max_batch_size) == ("simple", "onnxruntime_onnx", 8)
    assert config.inputs == (
        TensorConfig("INPUT0", DataType.INT32, (16,)),
        TensorConfig("INPUT1", DataType.INT32, (16,), reshape=(4, 4), optional=True),
    )
    assert config.outputs == (TensorConfig("OUTPUT0", DataType.BYTES, (-1,), labels_file="labels.txt"),)
    assert config.default_model_filename == "net.onnx"
    assert config.metric_tags == {"team": "vision"}
    assert config.notes == ()


def test_a_tensor_may_leave_type_and_dims_to_the_graph() -> None:
    config = parse_pbtxt('output { name: "y" label_filename: "l.txt" }')
    assert config.outputs == (TensorConfig("y", None, None, labels_file="l.txt"),)


def test_an_image_input_keeps_its_format() -> None:
    config = parse_pbtxt('input { name: "x" data_type: TYPE_FP32 dims: [3, 8, 8] format: FORMAT_NCHW }')
    assert config.inputs[0].format == "FORMAT_NCHW"


def test_a_scalar_is_reached_by_reshape() -> None:
    config = parse_pbtxt('input { name: "x" data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }')
    assert config.inputs[0].reshape == ()


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", None),
        ("version_policy { latest { num_versions: 3 } }", LatestVersions(3)),
        ("version_policy { latest {} }", LatestVersions(1)),
        ("version_policy { all {} }", AllVersions()),
        ("version_policy { specific { versions: [1, 3] } }", SpecificVersions((1, 3))),
    ],
)
def test_version_policy(text: str, policy: object) -> None:
    assert parse_pbtxt(text).version_policy == policy


def test_instance_groups() -> None:
    config = parse_pbtxt(
        "instance_group [ { count: 2 kind: KIND_CPU name: 'a' }, { kind: KIND_GPU gpus: [0, 1] }, {} ]"
    )
    assert config.instance_groups == (
        InstanceGroup(InstanceKind.CPU, 2, (), "a"),
        InstanceGroup(InstanceKind.GPU, 1, (0, 1)),
        InstanceGroup(InstanceKind.AUTO, 1),
    )


def test_dynamic_batching_in_full() -> None:
    config = parse_pbtxt("""
        max_batch_size: 32
        dynamic_batching {
          preferred_batch_size: [ 8, 16 ]
          max_queue_delay_microseconds: 250
          priority_levels: 18446744073709551615
          default_priority_level: 2
          default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 9 allow_timeout_override: true }
          priority_queue_policy { key: 18446744073709551615 value { max_queue_size: 7 } }
        }
        parameters { key: "oversize_requests" value { string_value: "refuse" } }
    """)
    assert config.batching == BatchingConfig(
        enabled=True,
        preferred_batch_sizes=(8, 16),
        max_queue_delay_us=250,
        priority_levels=2**64 - 1,
        default_priority_level=2,
        default_queue_policy=QueuePolicy(TimeoutAction.DELAY, 9, True, 0),
        priority_queue_policies={2**64 - 1: QueuePolicy(max_queue_size=7)},
        oversize=Oversize.REFUSE,
    )
    assert config.parameters == {}


@pytest.mark.parametrize(
    ("text", "max_batch_size", "enabled"),
    [
        ("max_batch_size: 8", 8, False),
        ("max_batch_size: 0", 0, False),
        ("max_batch_size: 8 dynamic_batching {}", 8, True),
        ("dynamic_batching {}", None, True),
        ("", None, None),
    ],
)
def test_batching_is_on_only_when_written_or_left_open(text: str, max_batch_size: int, enabled: bool | None) -> None:
    config = parse_pbtxt(text)
    assert config.max_batch_size == max_batch_size
    assert (None if config.batching is None else config.batching.enabled) is enabled


def test_warmup() -> None:
    config = parse_pbtxt("""
        model_warmup [ {
          name: "w" batch_size: 4 count: 2
          inputs { key: "a" value { data_type: TYPE_FP32 dims: [2, 3] zero_data: true } }
          inputs { key: "b" value { data_type: TYPE_INT64 dims: [1] random_data: true } }
          inputs { key: "c" value { data_type: TYPE_STRING dims: [1] input_data_file: "c.bin" } }
        } ]
    """)
    assert config.warmup == (
        WarmupSample(
            "w",
            4,
            {
                "a": WarmupInput(DataType.FP32, (2, 3), WarmupData.ZERO),
                "b": WarmupInput(DataType.INT64, (1,), WarmupData.RANDOM),
                "c": WarmupInput(DataType.BYTES, (1,), WarmupData.FILE, "c.bin"),
            },
            2,
        ),
    )


def test_harmless_fields_are_accepted_and_said_to_do_nothing() -> None:
    config = parse_pbtxt("""
        optimization {
          priority: PRIORITY_MAX cuda { graphs: true } input_pinned_memory { enable: false }
          output_pinned_memory { enable: true } gather_kernel_buffer_threshold: 4 eager_batching: true
        }
        model_metrics { metric_control { metric_identifier { family: "x" } } }
        parameters { key: "my_own" value { string_value: "1" } }
        parameters { key: "intra_op_thread_coumt" value { string_value: "1" } }
    """)
    said = "\n".join(config.notes)
    for field in ("priority", "cuda", "input_pinned_memory", "output_pinned_memory", "gather_kernel", "eager_batching"):
        assert f"optimization.{field}" in said
    assert "model_metrics" in said
    assert "parameters[my_own]" in said
    assert "did you mean 'intra_op_thread_count'?" in said
    assert config.parameters == {"my_own": "1", "intra_op_thread_coumt": "1"}


def test_what_is_switched_off_may_be_written() -> None:
    config = parse_pbtxt("""
        model_transaction_policy { decoupled: false } response_cache { enable: false }
        input { name: "x" allow_ragged_batch: false is_shape_tensor: false }
        instance_group { passive: false host_policy: "" }
    """)
    assert config.notes == ()


def test_json_reads_like_text_in_either_spelling() -> None:
    text = parse_pbtxt("""
        max_batch_size: 4
        input { name: "x" data_type: TYPE_FP16 dims: [-1, 2] }
        dynamic_batching { max_queue_delay_microseconds: 5 }
        parameters { key: "intra_op_thread_count" value { string_value: "3" } }
    """)
    snake = {
        "max_batch_size": 4,
        "input": [{"name": "x", "data_type": "TYPE_FP16", "dims": [-1, "2"]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 5},
        "parameters": {"intra_op_thread_count": {"string_value": "3"}},
    }
    camel = {
        "maxBatchSize": 4,
        "input": [{"name": "x", "dataType": "TYPE_FP16", "dims": ["-1", 2]}],
        "dynamicBatching": {"maxQueueDelayMicroseconds": "5"},
        "parameters": {"intra_op_thread_count": {"stringValue": "3"}},
    }
    for spelling in (snake, camel):
        parsed = parse_json_config(json.dumps(spelling), source="config.pbtxt")
        assert parsed == text


def test_json_knows_a_written_zero() -> None:
    assert parse_json_config('{"max_batch_size": 0}').max_batch_size == 0
    assert parse_json_config('{"max_batch_size": null}').max_batch_size is None
    assert parse_json_config("{}").max_batch_size is None
    assert parse_json_config("{}").source == "load request"


@pytest.mark.parametrize("parse", [parse_pbtxt, parse_json_config])
def test_a_configuration_has_a_size_limit(parse: object) -> None:
    assert callable(parse)
    with pytest.raises(ConfigRefused, match=f"at most {MAX_CONFIG_BYTES} bytes"):
        parse(" " * (MAX_CONFIG_BYTES + 1))
