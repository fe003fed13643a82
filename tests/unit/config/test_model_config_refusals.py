"""What a Triton configuration is refused for: by name, with file, key, value and rule."""

from __future__ import annotations

import json

import pytest

from tensorquay.config.files import parse_config, select_config
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.rules import check_name
from tensorquay.config.triton import parse_json_config, parse_pbtxt
from tensorquay.config.triton_fields import REFUSED
from tensorquay.core.errors import ErrorKind

UNSERVED = {
    "ModelConfig.sequence_batching": ("sequence_batching {}", "sequence_batching"),
    "ModelConfig.ensemble_scheduling": ("ensemble_scheduling { step { model_name: 'a' } }", "ensemble_scheduling"),
    "ModelConfig.batch_input": ("batch_input { kind: BATCH_ELEMENT_COUNT }", "batch_input"),
    "ModelConfig.batch_output": ("batch_output { target_name: 'y' }", "batch_output"),
    "ModelConfig.cc_model_filenames": ("cc_model_filenames { key: '7.5' value: 'm' }", "cc_model_filenames"),
    "ModelConfig.model_operations": ("model_operations { op_library_filename: 'x.so' }", "model_operations"),
    "ModelConfig.model_repository_agents": (
        "model_repository_agents { agents { name: 'a' } }",
        "model_repository_agents",
    ),
    "ModelConfig.runtime": ("runtime: 'x'", "runtime"),
    "ModelTransactionPolicy.decoupled": (
        "model_transaction_policy { decoupled: true }",
        "model_transaction_policy.decoupled",
    ),
    "ModelResponseCache.enable": ("response_cache { enable: true }", "response_cache.enable"),
    "ModelInput.allow_ragged_batch": ("input { name: 'x' allow_ragged_batch: true }", "input[0].allow_ragged_batch"),
    "ModelInput.is_shape_tensor": ("input { name: 'x' is_shape_tensor: true }", "input[0].is_shape_tensor"),
    "ModelInput.is_non_linear_format_io": (
        "input { name: 'x' is_non_linear_format_io: true }",
        "input[0].is_non_linear_format_io",
    ),
    "ModelOutput.is_shape_tensor": ("output { name: 'x' is_shape_tensor: true }", "output[0].is_shape_tensor"),
    "ModelOutput.is_non_linear_format_io": (
        "output { name: 'x' is_non_linear_format_io: true }",
        "output[0].is_non_linear_format_io",
    ),
    "ModelInstanceGroup.rate_limiter": ("instance_group [{}, { rate_limiter {} }]", "instance_group[1].rate_limiter"),
    "ModelInstanceGroup.secondary_devices": (
        "instance_group { secondary_devices { device_id: 1 } }",
        "instance_group[0].secondary_devices",
    ),
    "ModelInstanceGroup.profile": ("instance_group { profile: '1' }", "instance_group[0].profile"),
    "ModelInstanceGroup.passive": ("instance_group { passive: true }", "instance_group[0].passive"),
    "ModelInstanceGroup.host_policy": ("instance_group { host_policy: 'p' }", "instance_group[0].host_policy"),
}


def refusal(text: str) -> ConfigRefused:
    with pytest.raises(ConfigRefused) as caught:
        parse_pbtxt(text)
    return caught.value


def test_every_refused_field_has_a_case() -> None:
    assert set(UNSERVED) == set(REFUSED)


@pytest.mark.parametrize("field", sorted(UNSERVED))
def test_a_field_that_cannot_be_served_is_refused_by_name(field: str) -> None:
    text, key = UNSERVED[field]
    error = refusal(text)
    assert error.key == key
    assert f"'{key}'" in error.message
    assert REFUSED[field] in error.message
    assert error.facts["file"] == "config.pbtxt"
    assert error.kind is ErrorKind.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("max_batch_size: -1", "max_batch_size", "0"),
        ("max_batch_size: 0 dynamic_batching {}", "dynamic_batching", "max_batch_size 0"),
        ("platform: 'tensorrt_plan'", "platform", "onnxruntime_onnx"),
        ("backend: 'python'", "backend", "onnxruntime"),
        ("name: 'a/b'", "name", "folder"),
        ("default_model_filename: '../x.onnx'", "default_model_filename", "stays inside"),
        ("default_model_filename: '/etc/passwd'", "default_model_filename", "stays inside"),
        ("default_model_filename: 'a\\\\b'", "default_model_filename", "stays inside"),
        ("default_model_filename: 'a\\000b'", "default_model_filename", "stays inside"),
        ("default_model_filename: '.'", "default_model_filename", "stays inside"),
        ("output { name: 'y' label_filename: '../../x' }", "output[0].label_filename", "stays inside"),
        ("input { name: 'x' dims: [0] }", "input[0].dims", "at least 1"),
        ("input { name: 'x' dims: [-2] }", "input[0].dims", "-1 (any)"),
        ("input { name: 'x' dims: [9223372036854775807] }", "input[0].dims", "at least 1"),
        ("input { name: 'x' dims: [4294967296, 4294967296] }", "input[0].dims", "elements"),
        ("input { name: 'x' dims: [" + ", ".join("1" * 33) + "] }", "input[0].dims", "32"),
        ("input { name: '' dims: [1] }", "input[0].name", "name a tensor"),
        ("input [{ name: 'x' }, { name: 'x' }]", "input[1].name", "same name"),
        ("output [{ name: 'x' }, { name: 'x' }]", "output[1].name", "same name"),
        ("input { name: 'x' dims: [4] reshape { shape: [2, 3] } }", "input[0].reshape.shape", "as many elements"),
        ("input { name: 'x' dims: [-1, 2] reshape { shape: [2] } }", "input[0].reshape.shape", "as many elements"),
        ("input { name: 'x' reshape { shape: [2] } }", "input[0].reshape.shape", "needs dims"),
        ("input { name: 'x' dims: [4] reshape { shape: [0] } }", "input[0].reshape.shape", "at least 1"),
        ("input { name: 'x' dims: [4] format: FORMAT_NHWC }", "input[0].format", "3 dims"),
        ("version_policy { specific {} }", "version_policy.specific.versions", "at least one"),
        ("version_policy { specific { versions: [1, 1] } }", "version_policy.specific.versions", "twice"),
        ("version_policy { specific { versions: [0] } }", "version_policy.specific.versions", "from 1"),
        ("instance_group { count: -1 }", "instance_group[0].count", "from 1"),
        ("instance_group { count: 2000000 }", "instance_group[0].count", "256"),
        ("instance_group { kind: KIND_GPU count: 200 gpus: [0, 1] }", "instance_group", "256"),
        ("instance_group { kind: KIND_CPU gpus: [0] }", "instance_group[0].gpus", "CPU"),
        ("instance_group { gpus: [0, 0] }", "instance_group[0].gpus", "twice"),
        ("instance_group { gpus: [-1] }", "instance_group[0].gpus", "from 0"),
        ("instance_group { kind: KIND_MODEL }", "instance_group[0].kind", "KIND_AUTO"),
        ("instance_group [{ name: 'a' }, { name: 'a' }]", "instance_group", "same name"),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: 5 }",
            "dynamic_batching.preferred_batch_size",
            "4",
        ),
        ("dynamic_batching { preferred_batch_size: 0 }", "dynamic_batching.preferred_batch_size", "at least 1"),
        ("dynamic_batching { preferred_batch_size: [2, 2] }", "dynamic_batching.preferred_batch_size", "twice"),
        (
            "dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }",
            "dynamic_batching.max_queue_delay_microseconds",
            "3600000000",
        ),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
            "dynamic_batching.default_priority_level",
            "from 1 to 2",
        ),
        ("dynamic_batching { priority_levels: 2 }", "dynamic_batching.default_priority_level", "from 1 to 2"),
        (
            "dynamic_batching { default_priority_level: 1 }",
            "dynamic_batching.default_priority_level",
            "priority_levels",
        ),
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 1 "
            "priority_queue_policy { key: 3 value {} } }",
            "dynamic_batching.priority_queue_policy[3]",
            "from 1 to 2",
        ),
        (
            "dynamic_batching { priority_queue_policy { key: 1 value {} } }",
            "dynamic_batching.priority_queue_policy[1]",
            "no priority_levels",
        ),
        (
            "dynamic_batching { preserve_ordering: true priority_levels: 2 default_priority_level: 1 }",
            "dynamic_batching.preserve_ordering",
            "one priority level",
        ),
        ("metric_tags { key: 'model' value: 'x' }", "metric_tags[model]", "own metrics"),
        ("metric_tags { key: 'a-b' value: 'x' }", "metric_tags[a-b]", "label name"),
        ("model_warmup { batch_size: 4294967295 }", "model_warmup[0].batch_size", "2147483647"),
        ("model_warmup { count: 4294967295 }", "model_warmup[0].count", "10000"),
        (
            "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: [-1] zero_data: true } } }",
            "model_warmup[0].inputs[x].dims",
            "never -1",
        ),
        (
            "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: [999999999] zero_data: true } } }",
            "model_warmup[0].inputs",
            "1073741824 bytes",
        ),
        (
            "model_warmup { inputs { key: 'x' value { dims: [1] } } }",
            "model_warmup[0].inputs[x].data_type",
            "name a type",
        ),
        (
            "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: [1] } } }",
            "model_warmup[0].inputs[x]",
            "random_data",
        ),
        (
            "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: [1] input_data_file: '../k' } } }",
            "model_warmup[0].inputs[x].input_data_file",
            "stays inside",
        ),
        ("max_bach_size: 3", "max_bach_size", "did you mean 'max_batch_size'?"),
        ("input { name: 'x' dtype: TYPE_FP32 }", "dtype", "ModelInput has no such field"),
        ("max_batch_size: 1 max_batch_size: 2", "max_batch_size", "given twice; keep one"),
        ("input { name: 'x' data_type: TYPE_FP33 }", "(whole file)", "TYPE_FP33"),
        ("max_batch_size: 99999999999", "(whole file)", "out of range"),
        ("max_batch_size: " + "9" * 5000, "(whole file)", ""),
        ("name: 'unclosed", "(whole file)", ""),
        ("name: '\\xff'", "(whole file)", "utf-8"),
        ("[" * 50_000, "(whole file)", ""),
        ("\ud800", "(whole file)", ""),
        (
            "parameters { key: 'a' value {} } parameters { key: 'a' value {} }",
            "parameters",
            "'a' is given twice",
        ),
        ("metric_tags { value: 'x' }", "metric_tags", "without a key"),
        (
            "model_warmup { inputs { key: 'a' value {} } inputs { key: 'a' value {} } }",
            "model_warmup.inputs",
            "'a' is given twice",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) and value.isascii() else "odd",
)
def test_contradictions_and_bounds(text: str, key: str, words: str) -> None:
    error = refusal(text)
    assert error.key == key
    assert words in error.message
    assert len(error.message) < 600


def test_the_line_is_told() -> None:
    error = refusal('name: "x"\n\nbogus: 1\n')
    assert error.facts["line"] == 3
    assert "config.pbtxt line 3" in error.message


def test_texts_can_be_logged_and_sent_as_json() -> None:
    error = refusal("parameters { key: 'enable_mem_arena' value { string_value: '\\nhello\\x7f' } }")
    assert "\n" not in error.message
    json.dumps(error.facts).encode()
    odd = '{"\\ud800\\n": 1}'
    with pytest.raises(ConfigRefused) as caught:
        parse_json_config(odd)
    assert caught.value.message.isprintable()
    caught.value.message.encode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "object"),
        ("{", "not JSON"),
        ("", "not JSON"),
        ("null", "object"),
        ('{"foo": 1}', "no such field"),
        ('{"max_batch_sizes": 1}', "did you mean 'max_batch_size'?"),
        ('{"a": 1, "a": 2}', "given twice"),
        ('{"input": 3}', "input"),
        ('{"input": [3]}', "input"),
        ('{"max_batch_size": "x"}', "max_batch_size"),
        ('{"max_batch_size": true}', "max_batch_size"),
        ('{"max_batch_size": 1.5}', "max_batch_size"),
        ('{"max_batch_size": NaN}', "NaN"),
        ('{"max_batch_size": 1e400}', "max_batch_size"),
        ('{"max_batch_size": %s}' % ("9" * 5000), "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"input":' * 3000, "not JSON"),
        ('{"name": "\\ud800"}', "name"),
        ('{"input": [{"name": "x", "data_type": 99}]}', "data_type"),
        ('{"instance_group": [{"kind": 7}]}', "kind"),
        ('{"version_policy": {"latest": {}, "all": {}}}', "version_policy"),
        ('{"dynamic_batching": {"priority_queue_policy": {"-1": {}}}}', "priority_queue_policy"),
        ('{"sequence_batching": {}}', "sequence_batching"),
        ('{"platform": "tensorrt_plan"}', "platform"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_load_requests_configuration_is_checked_like_a_file(text: str, words: str) -> None:
    with pytest.raises(ConfigRefused) as caught:
        parse_json_config(text)
    assert "load request" in caught.value.message
    assert words in caught.value.message


def test_a_load_request_cannot_name_files_of_the_server() -> None:
    accelerator = {"name": "tensorrt", "parameters": {"trt_extra_plugin_lib_paths": "/tmp/evil.so"}}
    config = {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}}
    with pytest.raises(ConfigRefused, match="trt_extra_plugin_lib_paths"):
        parse_json_config(json.dumps(config))
    parse_json_config(json.dumps(config), source="config.pbtxt")


def test_two_configurations_are_refused() -> None:
    with pytest.raises(ConfigRefused, match=r"config\.toml"):
        select_config(["1", "config.toml", "config.pbtxt"])
    assert select_config({"1", "config.toml"}) == "config.toml"
    assert select_config(("config.pbtxt", "labels.txt")) == "config.pbtxt"
    assert select_config(()) is None


def test_the_files_name_decides_the_format() -> None:
    assert parse_config("config.toml", "max_batch_size = 3").source == "config.toml"
    assert parse_config("config.pbtxt", "max_batch_size: 3").source == "config.pbtxt"


def test_the_name_must_be_the_folders() -> None:
    check_name(parse_pbtxt(""), "digits")
    check_name(parse_pbtxt('name: "digits"'), "digits")
    with pytest.raises(ConfigRefused, match="'digits'"):
        check_name(parse_pbtxt('name: "digit"'), "digits")


@pytest.mark.parametrize(
    "text", ["input {\n name: 'x'\n", "input [\n { name: 'x' }\n", "dynamic_batching {", "max_batch_size:"]
)
def test_a_file_that_ends_too_early_says_so(text: str) -> None:
    message = refusal(text).message
    assert "the file ends inside a block or before a value; look for a missing '}' or ']'" in message
    assert message.startswith("config.pbtxt line ")


@pytest.mark.parametrize("text", ["input {", "= 3", "[" * 50_000, "name: 'x", "max_batch_size: -1"])
def test_no_text_names_a_key_that_is_none(text: str) -> None:
    message = refusal(text).message
    assert "(whole file)" not in message
    assert "(syntax)" not in message


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("input { name: 'x' data_type: FP32 }", "TYPE_FP32"),
        ("input { name: 'x' data_type: int64 }", "TYPE_INT64"),
        ("input { name: 'x' data_type: BYTES }", "TYPE_STRING"),
        ("instance_group { kind: GPU }", "KIND_GPU"),
        ("input { name: 'x' format: NCHW }", "FORMAT_NCHW"),
    ],
)
def test_a_value_without_its_prefix_is_guessed(text: str, meant: str) -> None:
    assert refusal(text).message.endswith(f"did you mean {meant}?")


def test_the_same_guess_in_a_load_request() -> None:
    with pytest.raises(ConfigRefused, match=r"FP32 is no value of DataType; did you mean TYPE_FP32\?"):
        parse_json_config('{"input": [{"name": "x", "data_type": "FP32"}]}')


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size = 8", "'key = value' is config.toml's form"),
        ("[batching]", "config.toml's form"),
        ('{"max_batch_size": 8}', "JSON is not read here"),
        ('max_batch_size: "8"', "a whole number, without quotes"),
        ("dynamic_batching { preserve_ordering: 'yes' }", "true or false, without quotes"),
        ("dynamic_batching { max_queue_delay_microseconds: -1 }", "too great for this field, or too small"),
        ("name: digits", "text stands between quotes"),
        ('name: "digits', "ends with the quote that it begins with"),
        ('parameters { key: "a" value: "b" }', "value { string_value:"),
        ("dynamic_batching {} dynamic_batching {}", "'dynamic_batching' is refused: it is given twice; keep one"),
        ("input { data_type: float64 }", "did you mean TYPE_FP64?"),
        ("input { data_type: TYPE_BYTES }", "did you mean"),
    ],
)
def test_what_is_no_text_of_tritons_is_told_with_what_to_write(text: str, words: str) -> None:
    error = refusal(f"# digits\n{text}\n")
    assert words in error.message
    assert error.line == 2
