"""config.toml: the same meaning as config.pbtxt in fewer words, and errors that help."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tensorquay.config.effective import effective
from tensorquay.config.model import AllVersions, LatestVersions, ModelConfig, ProviderConfig, SpecificVersions
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.triton import parse_pbtxt
from tensorquay.core.datatypes import DataType
from tensorquay.core.signature import TensorSpec

TOML = """
name = "digits"
max_batch_size = 32
model_file = "net.onnx"

[[input]]
name = "image"
datatype = "FP32"
dims = [1, 8, 8]
reshape = [64]
optional = true
format = "nchw"

[[output]]
name = "probabilities"
datatype = "TYPE_FP32"
dims = [10]
labels = "labels.txt"

[versions]
policy = "specific"
versions = [1, 2]

[batching]
preferred_batch_sizes = [8, 16]
max_queue_delay_us = 250
priority_levels = 3
default_priority_level = 2
oversize = "refuse"

[batching.queue]
timeout_action = "delay"
default_timeout_us = 1000
allow_timeout_override = true
max_queue_size = 64

[batching.priority.1]
max_queue_size = 5

[execution]
allow_fallback = true
graph_optimization = "extended"
intra_op_threads = 2
inter_op_threads = 3
parallel = true
spinning = true
memory_arena = false
memory_pattern = false
arena_shrinkage = "cpu:0"
inline = "never"
session_options = { "session.set_denormal_as_zero" = 1 }

[[execution.provider]]
name = "cuda"
options = { gpu_mem_limit = 1000 }
[[execution.provider]]
name = "cpu"

[instances]
kind = "gpu"
count = 2
gpus = [0, 1]

[[warmup]]
name = "once"
batch_size = 4
[warmup.inputs.image]
datatype = "FP32"
dims = [1, 8, 8]
data = "random"

[parameters]
owner = "vision"

[metric_tags]
team = "vision"
"""

PBTXT = """
name: "digits" max_batch_size: 32 default_model_filename: "net.onnx"
input {
  name: "image" data_type: TYPE_FP32 dims: [1, 8, 8] reshape { shape: [64] } optional: true format: FORMAT_NCHW
}
output { name: "probabilities" data_type: TYPE_FP32 dims: [10] label_filename: "labels.txt" }
version_policy { specific { versions: [1, 2] } }
dynamic_batching {
  preferred_batch_size: [8, 16] max_queue_delay_microseconds: 250 priority_levels: 3 default_priority_level: 2
  default_queue_policy {
    timeout_action: DELAY default_timeout_microseconds: 1000 allow_timeout_override: true max_queue_size: 64
  }
  priority_queue_policy { key: 1 value { max_queue_size: 5 } }
}
optimization {
  graph { level: 1 }
  execution_accelerators {
    gpu_execution_accelerator { name: "cuda" parameters { key: "gpu_mem_limit" value: "1000" } }
  }
}
instance_group { kind: KIND_GPU count: 2 gpus: [0, 1] }
model_warmup {
  name: "once" batch_size: 4 count: 1
  inputs { key: "image" value { data_type: TYPE_FP32 dims: [1, 8, 8] random_data: true } }
}
parameters { key: "owner" value { string_value: "vision" } }
parameters { key: "oversize_requests" value { string_value: "refuse" } }
parameters { key: "allow_provider_fallback" value { string_value: "true" } }
parameters { key: "intra_op_thread_count" value { string_value: "2" } }
parameters { key: "inter_op_thread_count" value { string_value: "3" } }
parameters { key: "execution_mode" value { string_value: "1" } }
parameters { key: "session.intra_op.allow_spinning" value { string_value: "1" } }
parameters { key: "session.set_denormal_as_zero" value { string_value: "1" } }
parameters { key: "enable_mem_arena" value { string_value: "0" } }
parameters { key: "enable_mem_pattern" value { string_value: "0" } }
parameters { key: "memory.enable_memory_arena_shrinkage" value { string_value: "cpu:0" } }
parameters { key: "execution_inline" value { string_value: "never" } }
metric_tags { key: "team" value: "vision" }
"""


def test_both_formats_say_the_same() -> None:
    ours, theirs = parse_toml(TOML), parse_pbtxt(PBTXT)
    assert replace(ours, source="", notes=()) == replace(theirs, source="", notes=())
    assert ours.source == "config.toml"


def test_an_empty_file_says_nothing() -> None:
    assert parse_toml("") == ModelConfig(source="config.toml")


def test_a_batch_size_alone_leaves_batching_on() -> None:
    """Unlike config.pbtxt, where a missing dynamic_batching block is Triton's way of turning it off."""
    assert parse_toml("max_batch_size = 8").batching is None


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("[versions]", LatestVersions(1)),
        ("[versions]\ncount = 4", LatestVersions(4)),
        ('[versions]\npolicy = "all"', AllVersions()),
        ('[versions]\npolicy = "specific"\nversions = [7]', SpecificVersions((7,))),
    ],
)
def test_versions(text: str, policy: object) -> None:
    assert parse_toml(text).version_policy == policy


def test_providers_by_any_name() -> None:
    short = parse_toml('[execution]\nproviders = ["cuda", "CPUExecutionProvider"]')
    assert short.execution.providers == (ProviderConfig("cuda"), ProviderConfig("cpu"))


def test_several_instance_groups() -> None:
    config = parse_toml('[[instances]]\nkind = "cpu"\n[[instances]]\nkind = "gpu"\ncount = 2')
    assert [group.count for group in config.instance_groups] == [1, 2]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("max_batchsize = 3", "max_batchsize", "did you mean 'max_batch_size'?"),
        ("[batching]\nmax_queue_dealy_us = 1", "batching.max_queue_dealy_us", "did you mean 'max_queue_delay_us'?"),
        ('[[input]]\nnme = "x"', "input[0].nme", "did you mean 'name'?"),
        ('[execution]\nprovider = [{ name = "cuda", optionz = {} }]', "execution.provider[0].optionz", "'options'"),
        ('[[warmup]]\n[warmup.inputs.a]\ndtype = "x"', "warmup[0].inputs.a.dtype", "did you mean 'datatype'?"),
        ("[sequence_batching]", "sequence_batching", "unknown key"),
        ("[[input]]\ndims = [1]", "input[0].name", "required"),
        ('[[input]]\nname = "x"\ndims = [1.5]', "input[0].dims[0]", "whole number"),
        ('[[input]]\nname = "x"\ndims = [true]', "input[0].dims[0]", "whole number"),
        ('[[input]]\nname = "x"\ndims = [0]', "input[0].dims", "at least 1"),
        ('[[input]]\nname = "x"\ndatatype = "FP33"', "input[0].datatype", "did you mean 'FP32'?"),
        ('[[output]]\nname = "x"\nlabels = "../l"', "output[0].labels", "stays inside"),
        ("max_batch_size = true", "max_batch_size", "whole number"),
        ('max_batch_size = "8"', "max_batch_size", "whole number"),
        ("max_batch_size = -1", "max_batch_size", "0"),
        ("max_batch_size = " + "9" * 4000, "max_batch_size", "bits"),
        ("max_batch_size = 0\n[batching]", "batching.enabled", "no batch axis"),
        ("[batching]\nenabled = 1", "batching.enabled", "true or false"),
        ('[batching]\noversize = "drop"', "batching.oversize", "'split' or 'refuse'"),
        ("max_batch_size = 4\n[batching]\npreferred_batch_sizes = [8]", "batching.preferred_batch_sizes", "4"),
        ("[batching.priority.x]\nmax_queue_size = 1", "batching.priority.x", "priority level"),
        ("[batching.priority.1]\nmax_queue_size = 1", "batching.priority.1", "no priority_levels"),
        ("[batching.queue]\nmax_queue_size = -1", "batching.queue.max_queue_size", "from 0"),
        ('[execution]\nproviders = ["cdua"]', "execution.providers", "did you mean 'cuda'?"),
        ('[execution]\nproviders = ["cpu"]\n[[execution.provider]]\nname = "cpu"', "execution.providers", "keep one"),
        ('[execution]\nsession_options = { "foo" = 1 }', "execution.session_options.foo", "begin with"),
        (
            '[execution]\nsession_options = { "session.intra_op.allow_spinning" = 1 }',
            "execution.session_options.session.intra_op.allow_spinning",
            "spinning",
        ),
        ('[execution]\nproviders = ["cuda"]\n[instances]\nkind = "cpu"', "execution.providers", "CPU"),
        ('[versions]\npolicy = "all"\ncount = 2', "versions.count", "latest"),
        ("[versions]\nversions = [2]", "versions.versions", "specific"),
        ('[versions]\npolicy = "specific"', "versions.versions", "at least one"),
        ("[parameters]\nintra_op_thread_count = 3", "parameters.intra_op_thread_count", "[execution]"),
        ('[parameters]\n"session.x" = 3', "parameters.session.x", "session_options"),
        ("[parameters]\na = { b = 1 }", "parameters.a", "text"),
        ("instances = 3", "instances", "list"),
        ("max_queue_delay_us = 1", "max_queue_delay_us", "it is 'max_queue_delay_us' of [batching]"),
        ("[[instance_group]]\ncount = 1", "instance_group", "it is the table [instances]"),
        ("[batching]\nmax_batch_size = 1", "batching.max_batch_size", "it is 'max_batch_size' at the top of the file"),
        ("[execution]\nintra_op_thread_count = 1", "execution.intra_op_thread_count", "'intra_op_threads'"),
        ("[execution]\nexecution_mode = 1", "execution.execution_mode", "it is 'parallel' of [execution]"),
        ("[batching]\nmax_queue_delay_us = '5ms'", "batching.max_queue_delay_us", "= 500 (longest wait for a fuller"),
        ('[execution]\nproviders = "cuda"', "execution.providers", 'for example: providers = ["cuda", "cpu"]'),
        ("[versions]\na = 1\n[batching]\nb = 2\nc = 3", "versions.a", "wrong as well: 'batching.b', 'batching.c'"),
        ('[[input]]\nname = "x"\ndatatype = "float32"', "input[0].datatype", "did you mean 'FP32'?"),
        ("max_batch_size: 8", "(whole file)", "TOML writes 'key = value', not 'key: value'"),
        ("name = digits", "(whole file)", "text stands between quotes"),
        ("a =", "(whole file)", "not TOML"),
        ("a = 1\na = 2", "(whole file)", "given twice; keep one"),
        ("a = " + "[" * 50_000, "(whole file)", "not TOML"),
        ("a = " + "9" * 5000, "(whole file)", "not TOML"),
        ("#" * (2**20 + 1), "(whole file)", "bytes"),
    ],
    ids=lambda value: value[:50],
)
def test_mistakes_are_named(text: str, key: str, words: str) -> None:
    with pytest.raises(ConfigRefused) as caught:
        parse_toml(text)
    assert caught.value.key == key
    assert words in caught.value.message
    assert caught.value.message.startswith("config.toml")
    assert len(caught.value.message) < 600


def test_the_line_of_a_syntax_error_is_told() -> None:
    with pytest.raises(ConfigRefused, match=r"config\.toml line 2"):
        parse_toml("name = 'x'\nmax_batch_size == 3\n")


def test_what_the_graph_refuses_is_told_with_its_line() -> None:
    for config in (parse_toml('\n[[input]]\nname = "y"'), parse_pbtxt("input {\n\n  name: 'y'\n}")):
        with pytest.raises(ConfigRefused, match=r"config\.\w+ line 3: 'input\[0\]\.name' = 'y'"):
            effective("m", config, [TensorSpec("x", DataType.FP32, (-1, 2))], [TensorSpec("z", DataType.FP32, (-1, 2))])
