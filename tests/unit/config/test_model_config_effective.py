"""What is in force: derived from the graph, declared and checked against it, and what clients are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tensorquay.config.describe import settings
from tensorquay.config.effective import DEFAULT_MAX_BATCH_SIZE, Defaults, effective, signature
from tensorquay.config.model import (
    BatchingConfig,
    EffectiveConfig,
    InstanceGroup,
    InstanceKind,
    LatestVersions,
    Oversize,
    TensorConfig,
)
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.triton import parse_json_config, parse_pbtxt, to_triton_json, to_triton_proto
from tensorquay.core.datatypes import DataType
from tensorquay.core.signature import TensorSpec


def spec(name: str, *shape: int, axes: tuple[str | None, ...] = (), optional: bool = False) -> TensorSpec:
    return TensorSpec(name, DataType.FP32, shape, optional=optional, axis_names=axes)


X = spec("x", -1, 16, axes=("N", None))
Y = spec("y", -1, 4, axes=("N", None))
FIXED = spec("x", 1, 16)


def of(text: str | None, inputs: list[TensorSpec], outputs: list[TensorSpec]) -> EffectiveConfig:
    declared = None if text is None else parse_pbtxt(text)
    return effective("m", declared, inputs, outputs)


def test_without_a_file_everything_is_derived() -> None:
    found = of(None, [X], [Y])
    assert found.max_batch_size == DEFAULT_MAX_BATCH_SIZE
    assert found.config.batching == BatchingConfig(enabled=True)
    assert found.config.inputs == (TensorConfig("x", DataType.FP32, (16,)),)
    assert found.config.outputs == (TensorConfig("y", DataType.FP32, (4,)),)
    assert found.config.version_policy == LatestVersions(1)
    assert found.config.instance_groups == (InstanceGroup(InstanceKind.AUTO, 1, (), "m_0"),)
    assert (found.config.platform, found.config.backend) == ("onnxruntime_onnx", "onnxruntime")
    assert found.config.default_model_filename == "model.onnx"
    assert found.unbatched_because == ""
    assert found.origins["input[0].dims"] == "graph"
    assert found.origins["max_batch_size"] == "default"
    assert set(found.origins.values()) == {"graph", "default"}


def test_the_servers_defaults_can_differ() -> None:
    found = effective(
        "m", None, [X], [Y], defaults=Defaults(max_batch_size=4, instance_groups=(InstanceGroup(count=2),))
    )
    assert found.max_batch_size == 4
    assert found.config.instance_groups[0].count == 2
    assert effective("m", None, [X], [Y], defaults=Defaults(max_batch_size=0)).max_batch_size == 0


@pytest.mark.parametrize(
    ("inputs", "outputs", "because"),
    [
        ([FIXED], [Y], "input 'x' has shape [1, 16]: its first axis is fixed at 1"),
        ([X], [spec("y", 3)], "output 'y' has shape [3]: its first axis is fixed at 3"),
        ([spec("x", 0, 3)], [Y], "fixed at 0"),
        ([X, spec("s")], [Y], "input 's' is a scalar"),
        ([X], [spec("s")], "output 's' is a scalar"),
        ([], [Y], "no inputs"),
        ([spec("a", -1, axes=("batch",)), spec("b", -1, axes=("seq",))], [Y], "'batch' and 'seq'"),
        ([spec("a", -1, -1, axes=("batch", "seq"))], [spec("y", -1, axes=("seq",))], "another axis of input 'a'"),
    ],
)
def test_a_model_that_cannot_batch_says_why(inputs: list[TensorSpec], outputs: list[TensorSpec], because: str) -> None:
    found = of(None, inputs, outputs)
    assert found.max_batch_size == 0
    assert because in found.unbatched_because
    assert found.config.batching == BatchingConfig(enabled=False)
    assert [tensor.dims for tensor in found.config.inputs] == [each.shape for each in inputs]
    assert found.origins["max_batch_size"] == "graph"
    assert signature(found, inputs, outputs, {}).unbatched_because == found.unbatched_because


@pytest.mark.parametrize(
    "axes", [("unk__1", "unk__2"), (None, "N"), ("N", "N"), ("x_dim_0", "b_dim_0"), ("", "seq"), ("s0", "batch")]
)
def test_names_that_exporters_make_up_prove_nothing(axes: tuple[str | None, str | None]) -> None:
    inputs = [spec("a", -1, axes=(axes[0],)), spec("b", -1, axes=(axes[1],))]
    assert of(None, inputs, [Y]).max_batch_size > 0


def test_an_explicit_batch_size_overrules_names() -> None:
    inputs = [spec("a", -1, axes=("batch",)), spec("b", -1, axes=("seq",))]
    assert of("max_batch_size: 3", inputs, [Y]).max_batch_size == 3


def test_shapes_without_the_batch_axis_overrule_names() -> None:
    inputs = [spec("a", -1, 2, axes=("batch", None)), spec("b", -1, 2, axes=("seq", None))]
    text = "input [{ name: 'a' dims: [2] }, { name: 'b' dims: [2] }]"
    assert of(text, inputs, [Y]).max_batch_size == DEFAULT_MAX_BATCH_SIZE


def test_full_shapes_without_a_batch_size_mean_none() -> None:
    found = of("input { name: 'x' data_type: TYPE_FP32 dims: [-1, 16] }", [X], [Y])
    assert found.max_batch_size == 0
    assert "full shapes" in found.unbatched_because
    assert found.config.outputs[0].dims == (-1, 4)


def test_a_written_zero_turns_batching_off() -> None:
    found = of("max_batch_size: 0", [X], [Y])
    assert (found.max_batch_size, found.config.inputs[0].dims) == (0, (-1, 16))
    assert found.unbatched_because == "config.pbtxt sets max_batch_size to 0"
    assert found.origins["max_batch_size"] == "config.pbtxt"


def test_a_batch_size_of_one_does_not_batch() -> None:
    found = effective("m", parse_toml("max_batch_size = 1"), [X], [Y])
    assert found.config.batching == BatchingConfig(enabled=False)
    assert found.max_batch_size == 1


def test_oversize_is_kept_when_batching_was_left_open() -> None:
    found = of("parameters { key: 'oversize_requests' value { string_value: 'refuse' } }", [X], [Y])
    assert found.config.batching == BatchingConfig(enabled=True, oversize=Oversize.REFUSE)
    assert found.config.parameters == {}
    assert found.origins["batching.oversize"] == "config.pbtxt"


def test_a_declared_size_narrows_a_variable_axis() -> None:
    found = of("max_batch_size: 2 input { name: 'x' dims: [8] }", [spec("x", -1, -1)], [Y])
    assert found.config.inputs[0].dims == (8,)
    assert signature(found, [spec("x", -1, -1)], [Y], {}).inputs[0].shape == (-1, 8)


def test_a_subset_of_outputs_is_served() -> None:
    found = of("output { name: 'z' label_filename: 'z.txt' }", [X], [Y, spec("z", -1, 9)])
    assert [tensor.name for tensor in found.config.outputs] == ["z"]
    made = signature(found, [X], [Y, spec("z", -1, 9)], {"z": ("a", "b")})
    assert [each.name for each in made.outputs] == ["z"]
    assert made.outputs[0].labels == ("a", "b")
    assert found.origins["output[0].labels_file"] == "config.pbtxt"
    assert found.origins["output[0].dims"] == "graph"


def test_optional_inputs_stay_optional_and_may_be_left_out() -> None:
    bias = spec("bias", -1, 2, optional=True)
    assert [tensor.optional for tensor in of(None, [X, bias], [Y]).config.inputs] == [False, True]
    assert [tensor.name for tensor in of("input { name: 'x' }", [X, bias], [Y]).config.inputs] == ["x"]
    assert of("input [{ name: 'x' }, { name: 'bias' optional: true }]", [X, bias], [Y]).config.inputs[1].optional


def test_scalars_and_empty_axes_are_served() -> None:
    found = of(None, [spec("s"), spec("e", 0, 3)], [spec("t")])
    assert [tensor.dims for tensor in found.config.inputs] == [(), (0, 3)]
    made = signature(found, [spec("s"), spec("e", 0, 3)], [spec("t")], {})
    assert [each.shape for each in made.inputs] == [(), (0, 3)]
    assert to_triton_json(found)["input"][0]["dims"] == []


def test_a_scalar_per_row_through_reshape() -> None:
    found = of("max_batch_size: 8 input { name: 'x' dims: [1] reshape { shape: [] } }", [spec("x", -1)], [Y])
    made = signature(found, [spec("x", -1)], [Y], {})
    assert made.inputs[0].shape == (-1, 1)
    assert made.inputs[0].reshape == ()


def test_axis_names_reach_the_signature() -> None:
    made = signature(of(None, [X], [Y]), [X], [Y], {})
    assert made.inputs[0].axis_names == ("N", None)
    assert made.max_batch_size == DEFAULT_MAX_BATCH_SIZE


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("max_batch_size: 8", "max_batch_size", "axis 0 is fixed at 1"),
        ("dynamic_batching {}", "dynamic_batching", "its first axis is fixed at 1"),
        ("input { name: 'x' dims: [-1, 16] }", "input[0].dims", "axis 0 of 'x' is fixed at 1"),
        ("input { name: 'x' dims: [1, 8] }", "input[0].dims", "axis 1 of 'x' is fixed at 16"),
        ("input { name: 'x' dims: [16] }", "input[0].dims", "2 axes"),
        ("input { name: 'x' data_type: TYPE_INT8 }", "input[0].data_type", "TYPE_FP32"),
        ("input { name: 'X0' }", "input[0].name", "no such input"),
        ("input { name: 'b' optional: true }", "input[0].optional", "requires 'b'"),
        ("input { name: 'b' }", "input", "'x'"),
        ("output { name: 'w' }", "output[0].name", "known here: y"),
        ("output { name: 'y' dims: [4] reshape { shape: [4, 1] } }", "output[0].reshape.shape", "axis 0"),
        ("name: 'other'", "name", "'m'"),
        ("model_warmup { batch_size: 2 }", "model_warmup[0].batch_size", "does not batch"),
        (
            "model_warmup { inputs { key: 'q' value { data_type: TYPE_FP32 zero_data: true } } }",
            "model_warmup[0].inputs",
            "no such input",
        ),
        (
            "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: [2, 16] zero_data: true } } }",
            "model_warmup[0].inputs[x].dims",
            "[1, 16]",
        ),
        (
            "model_warmup { inputs { key: 'x' value { data_type: TYPE_INT8 dims: [1, 16] zero_data: true } } }",
            "model_warmup[0].inputs[x].data_type",
            "TYPE_FP32",
        ),
        (
            "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: [1, 16] zero_data: true } } }",
            "model_warmup[0].inputs",
            "'b'",
        ),
    ],
)
def test_contradictions_with_the_graph(text: str, key: str, words: str) -> None:
    with pytest.raises(ConfigRefused) as caught:
        of(text, [FIXED, spec("b", 2)], [spec("y", 2, 2)])
    assert caught.value.key == key
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size: 4 input { name: 'x' dims: [-1, 16] }", "left out"),
        ("input [{ name: 'x' dims: [16] }, { name: 'b' dims: [-1, 2] }]", "every axis is given"),
        ("dynamic_batching { preferred_batch_size: 65 }", "64"),
        ("max_batch_size: 2 model_warmup { batch_size: 3 }", "at most max_batch_size, 2"),
        ("max_batch_size: 0 input { name: 'x' dims: [-1, 16] } dynamic_batching {}", "no batch axis"),
    ],
)
def test_contradictions_about_the_batch(text: str, words: str) -> None:
    with pytest.raises(ConfigRefused) as caught:
        of(text, [X, spec("b", -1, 2)], [Y])
    assert words in caught.value.message


def test_toml_is_blamed_in_its_own_words() -> None:
    with pytest.raises(ConfigRefused) as caught:
        effective("m", parse_toml('[[input]]\nname = "x"\ndatatype = "INT8"'), [X], [Y])
    assert caught.value.key == "input[0].datatype"


def test_warmup_rows_are_settled() -> None:
    text = "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: [16] zero_data: true } } }"
    assert of(text, [X], [Y]).config.warmup[0].batch_size == 1


def test_the_config_endpoint_prints_what_triton_prints() -> None:
    shown = to_triton_json(of("max_batch_size: 8 dynamic_batching {}", [X], [Y]), placed=InstanceKind.CPU)
    assert json.loads(json.dumps(shown)) == shown
    assert shown["input"] == [
        {
            "name": "x",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NONE",
            "dims": [16],
            "is_shape_tensor": False,
            "allow_ragged_batch": False,
            "optional": False,
            "is_non_linear_format_io": False,
        }
    ]
    assert shown["max_batch_size"] == 8
    assert shown["dynamic_batching"]["max_queue_delay_microseconds"] == 0
    assert shown["dynamic_batching"]["preferred_batch_size"] == []
    assert shown["instance_group"][0]["kind"] == "KIND_CPU"
    assert shown["version_policy"] == {"latest": {"num_versions": 1}}
    assert (shown["platform"], shown["backend"]) == ("onnxruntime_onnx", "onnxruntime")
    assert shown["default_model_filename"] == "model.onnx"
    assert shown["model_transaction_policy"] == {"decoupled": False}
    assert "sequence_batching" not in shown
    assert shown["parameters"] == {}


def test_an_unbatched_model_prints_no_dynamic_batching() -> None:
    shown = to_triton_json(of(None, [FIXED], [spec("y", 1)]))
    assert shown["max_batch_size"] == 0
    assert "dynamic_batching" not in shown


def test_tritonclient_reads_our_message() -> None:
    from tritonclient.grpc import model_config_pb2

    found = of("max_batch_size: 8", [X], [Y])
    theirs = model_config_pb2.ModelConfig.FromString(to_triton_proto(found).SerializeToString())
    assert theirs.input[0].dims == [16]
    assert theirs.max_batch_size == 8


def test_what_is_printed_can_be_sent_back() -> None:
    found = of("max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 3 }", [X], [Y])
    sent: dict[str, Any] = to_triton_json(found)
    again = effective("m", parse_json_config(json.dumps(sent)), [X], [Y])
    assert to_triton_json(again) == sent


def test_settings_list_every_value_with_its_origin() -> None:
    text = (
        'max_batch_size = 8\n[[output]]\nname = "y"\nlabels = "l.txt"\n[metric_tags]\nteam = "a"\n[batching.priority]\n'
    )
    found = effective("m", parse_toml(text), [X], [Y])
    lines = {line.key: (line.value, line.origin) for line in settings(found)}
    assert lines["max_batch_size"] == ("8", "config.toml")
    assert lines["input[0].dims"] == ("[16]", "graph")
    assert lines["output[0].labels_file"] == ("l.txt", "config.toml")
    assert lines["version_policy"] == ("latest 1", "default")
    assert lines["batching.enabled"] == ("true", "config.toml")
    assert lines["metric_tags.team"] == ("a", "config.toml")
    assert set(lines) == set(found.origins)
