"""Targets that read a model's files: config.pbtxt, the JSON of a load request, config.toml, the graph's signature."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from google.protobuf import text_format
from tests.fuzz.mutators import mutated_fields, mutated_words
from tests.fuzz.target import Damage, Target
from tests.support import graphs

from tensorquay.backends.onnxruntime.graph import Inspection, inspect_bytes
from tensorquay.config.effective import effective
from tensorquay.config.model import ModelConfig
from tensorquay.config.refusal import ConfigRefused
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.triton import parse_json_config, parse_pbtxt, to_triton_json, to_triton_proto
from tensorquay.core.errors import ModelFailed

_LONGEST_ERROR = 2000
_ELEMENTS = graphs.add_sub(["batch", 16])
_INSPECTED = inspect_bytes(_ELEMENTS.SerializeToString(), "model.onnx").signature


def _config(read: Callable[[], ModelConfig]) -> ModelConfig | None:
    """The configuration, or None when it is refused in a sentence."""
    try:
        return read()
    except ConfigRefused as error:
        said = str(error)
    assert 0 < len(said) < _LONGEST_ERROR
    return None


def _served(config: ModelConfig) -> None:
    """Fitted to a graph, it is refused or can be printed and read back."""
    try:
        found = effective("m", config, list(_INSPECTED.inputs), list(_INSPECTED.outputs))
    except ConfigRefused:
        return
    parse_pbtxt(text_format.MessageToString(to_triton_proto(found)))
    parse_json_config(json.dumps(to_triton_json(found)))


def read_pbtxt(data: bytes) -> None:
    """Any text is a configuration or is refused by name; what is accepted can be served or is refused for its graph."""
    text = data.decode("utf-8", "replace")  # the repository has refused what is not UTF-8
    for parse in (parse_pbtxt, parse_json_config):
        config = _config(lambda parse=parse: parse(text))
        if config is not None:
            _served(config)


def read_toml(data: bytes) -> None:
    """As `read_pbtxt`."""
    config = _config(lambda: parse_toml(data.decode("utf-8", "replace")))
    if config is not None:
        _served(config)


def read_onnx(data: bytes) -> None:
    """Any bytes are a graph with a signature, or are refused in a sentence."""
    try:
        found: Inspection = inspect_bytes(data, "model.onnx")
    except ModelFailed as error:
        said = str(error)
    else:
        _check(found)
        return
    assert 0 < len(said) < _LONGEST_ERROR


def _check(found: Inspection) -> None:
    assert found.signature.outputs
    assert all(len(spec.shape) <= 32 for spec in (*found.signature.inputs, *found.signature.outputs))


def pbtxt_seeds() -> list[bytes]:
    """Most of what a configuration can say, in both of Triton's spellings."""
    texts = (
        'name: "m"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 8\n'
        'input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] } ]\n'
        'output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: 16 label_filename: "l.txt" } ]',
        "dynamic_batching {\n preferred_batch_size: [ 4, 8 ]\n max_queue_delay_microseconds: 100\n priority_levels: 2\n"
        " default_priority_level: 1\n default_queue_policy { timeout_action: REJECT max_queue_size: 3 }\n}",
        "instance_group [ { count: 2 kind: KIND_CPU } ]\nversion_policy { latest { num_versions: 2 } }",
        "version_policy: { specific { versions: [1, 3] } }\noptimization { graph { level: 1 } }",
        'parameters { key: "intra_op_thread_count" value { string_value: "2" } }\nbackend: "onnxruntime"',
        'model_warmup [ { name: "w" batch_size: 1 inputs { key: "INPUT0" value { data_type: TYPE_INT32 dims: 16 '
        "zero_data: true } } } ]",
        '{"max_batch_size": 4, "input": [{"name": "INPUT0", "data_type": "TYPE_INT32", "dims": ["16"]}],'
        ' "dynamic_batching": {}}',
    )
    return [text.encode() for text in texts]


def toml_seeds() -> list[bytes]:
    """Most of what a config.toml can say."""
    texts = (
        'max_batch_size = 8\n[[inputs]]\nname = "INPUT0"\ndatatype = "INT32"\ndims = [16]\n',
        "[batching]\nenabled = true\nmax_queue_delay_us = 100\npreferred_batch_sizes = [4]\n"
        "[batching.queue]\nmax_size = 3\n",
        "[execution]\nintra_op_threads = 2\nspinning = false\nallow_fallback = true\n",
        '[[instances]]\ncount = 2\nkind = "cpu"\n[versions]\ncount = 2\n',
        '[parameters]\na = "b"\n[metric_tags]\nteam = "x"\n',
    )
    return [text.encode() for text in texts]


def onnx_seeds() -> list[bytes]:
    """Small graphs, with and without shapes on their outputs."""
    made = (_ELEMENTS, graphs.identity("FP32", ["batch", 3]), graphs.optional_input(), graphs.identity("BYTES", None))
    return [proto.SerializeToString() for proto in made]


def _fields(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    return mutated_fields(data, random_, damage)


TARGETS = (
    Target("pbtxt", read_pbtxt, pbtxt_seeds, mutated_words, max_bytes=2048),
    Target("toml", read_toml, toml_seeds, mutated_words, max_bytes=2048),
    Target("onnx", read_onnx, onnx_seeds, _fields),
)
