"""What is told about the keys of config.toml is true: examples are read, bounds are kept, fields of Triton's exist."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tensorquay.config.model import ModelConfig
from tensorquay.config.refusal import PBTXT, ConfigRefused, spelled
from tensorquay.config.toml_file import parse_toml
from tensorquay.config.toml_key import Declared, Key, declared, key_of, table_in
from tensorquay.config.toml_lines import line_of
from tensorquay.config.toml_schema import ConfigTable
from tensorquay.config.triton import ModelConfigMessage
from tensorquay.config.triton_execution import KNOWN_PARAMETERS
from tensorquay.config.triton_lines import line_of as pbtxt_line_of

KEYS = tuple(declared(ConfigTable))
VALUES = tuple(each for each in KEYS if table_in(each.field.annotation) is None)

NEEDED = {
    "input.dims": "reshape = [150528]",
    "input.format": "dims = [3, 8, 8]",
    "input.reshape": "dims = [150528]",
    "output.reshape": "dims = [10]",
    "versions.policy": "versions = [1, 3]",
    "versions.versions": 'policy = "specific"',
    "batching.priority_levels": "default_priority_level = 1",
    "batching.default_priority_level": "priority_levels = 4",
    "optimization.labels": 'data = "samples.npz"',
    "optimization.metric": 'data = "samples.npz"\nlabels = "labels.npy"',
    "warmup.inputs.NAME.file": 'data = "file"',
}
"""Key → what its table must say beside it."""


def file_with(each: Declared, value: str) -> str:
    """A config.toml that says `value` under this key and no more than it must."""
    lines = [] if each.path == "input.dims" else NEEDED.get(each.path, "").splitlines()
    table = each.table.replace("NAME", "1")
    head = "[[execution.provider]]" if table == "execution.provider" else f"[{table}]" if table else ""
    same = [key for key in KEYS if key.table == each.table]
    lines += [
        f"{key.name} = {key.key.example}"
        for key in same
        if key.field.is_required() and key.key.example and key.name != each.name
    ]
    before = "[batching]\npriority_levels = 1\ndefault_priority_level = 1\n" if "priority." in each.path else ""
    below = "\n[warmup.inputs]" if table == "warmup" else ""
    return before + "\n".join([head, *lines, f"{each.name} = {value}"]) + below


@pytest.mark.parametrize("each", KEYS, ids=lambda each: each.path)
def test_a_key_has_a_text(each: Declared) -> None:
    assert re.fullmatch(r"[A-Z].*\.", each.key.text), "sentences"
    if table_in(each.field.annotation) is not None:
        return
    default = each.field.get_default(call_default_factory=True)
    assert each.key.example
    said = each.key.unsaid or each.field.is_required()
    assert bool(said) == (each.field.is_required() or default in (None, "", [], {})), "what holds without it"
    if re.search(r"_(us|s|bytes)$", each.name):
        assert re.search("microseconds|Seconds|bytes", each.key.text), "its unit"


def test_a_key_without_a_text_is_found() -> None:
    class Bare(ConfigTable):
        more: int = 0

    with pytest.raises(LookupError, match="needs a Key"):
        list(declared(Bare))
    assert isinstance(key_of(ConfigTable.model_fields["name"]), Key)


@pytest.mark.parametrize("each", VALUES, ids=lambda each: each.path)
def test_an_example_is_read_and_says_something(each: Declared) -> None:
    assert parse_toml(file_with(each, each.key.example)) != ModelConfig(source="config.toml")


@pytest.mark.parametrize("each", [each for each in VALUES if each.key.bounds], ids=lambda each: each.path)
def test_bounds_are_kept(each: Declared) -> None:
    assert each.key.bounds is not None
    least, most = each.key.bounds
    form = "[{}]" if each.key.example.startswith("[") else "{}"
    kind = float if "." in each.key.example else int
    for outside in (kind(least) - 1, kind(most) + 1):
        text = file_with(each, form.format(outside))
        with pytest.raises(ConfigRefused) as caught:
            parse_toml(text)
        assert caught.value.key.replace("[0]", "").startswith(each.path.replace("NAME", "1"))
        assert caught.value.line == len(text.splitlines()) - text.endswith("[warmup.inputs]")


@pytest.mark.parametrize("each", [each for each in KEYS if each.key.pbtxt], ids=lambda each: each.path)
def test_the_field_of_tritons_that_it_names_is_there(each: Declared) -> None:
    parameter = re.fullmatch(r"parameters\[(.+)\]", each.key.pbtxt)
    if parameter is not None:
        assert parameter[1] in KNOWN_PARAMETERS
        return
    above = next((key.key.pbtxt + "." for key in KEYS if key.path == "batching.queue"), "")
    path = above + each.key.pbtxt if each.path.startswith(("batching.queue.", "batching.priority.")) else each.key.pbtxt
    message: Any = ModelConfigMessage.DESCRIPTOR
    for name in path.split("."):
        if message.GetOptions().map_entry:
            message = message.fields_by_name["value"].message_type
        message = message.fields_by_name[name].message_type


@pytest.mark.parametrize("each", [each for each in VALUES if each.key.bounds and each.key.pbtxt], ids=lambda e: e.path)
def test_what_bounds_blame_is_spelled_as_triton_does(each: Declared) -> None:
    told = re.sub(r"\[1\]", "", spelled(each.path.replace("NAME", "1"), PBTXT))
    assert told == each.key.pbtxt or told.endswith(f".{each.key.pbtxt}")


TOML = """\
# a comment with [brackets]
name = "m" # another
note = \"\"\"
[batching]
\"\"\"

[[input]]
name = "a"
dims = [
  1, # one
  2,
]
[[input]]
name = 'b'
dims = [3]

[batching]
priority.2.max_queue_size = 4
queue = { max_queue_size = 1, timeout_action = "delay" }
[[warmup]]
[warmup.inputs.x]
datatype = "FP32"
[[warmup]]
[warmup.inputs."y.z"]
datatype = "FP32"
[metric_tags]
"a.b" = "c"
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("name", 2),
        ("input[0].dims[1]", 9),
        ("input[0].datatype", 7),
        ("input[1].name", 14),
        ("input[1].dims", 15),
        ("batching.priority.2.max_queue_size", 18),
        ("batching.queue.max_queue_size", 19),
        ("batching.enabled", 17),
        ("warmup[0].inputs.x.dims", 21),
        ("warmup[1].inputs.y.z.dims", 24),
        ("metric_tags.a.b", 27),
        ("versions.count", None),
    ],
)
def test_the_line_of_a_key_is_found(key: str, line: int | None) -> None:
    assert line_of(TOML.replace("\n", "\r\n"), key) == line
    assert line_of(TOML, key) == line


@pytest.mark.parametrize("text", ["a = [\n" + "1,\n" * 60 + "]\nb = 1", "b = 1\n" + "#" * (1 << 14)])
def test_no_line_is_looked_for_at_any_price(text: str) -> None:
    assert line_of(text, "b") is None


PBTXT_FILE = """\
# a comment { with: "braces" }
name: "m" max_batch_size: 8
input [
  { name: "a{" dims: [ 1, 2 ] },
  {
    name: 'b'
    dims: [ 3 ]
  }
]
instance_group { count: 1 }
instance_group <
  count: 2
>
dynamic_batching: {
  priority_queue_policy { key: 2 value { max_queue_size: 4 } }
  priority_queue_policy {
    key: 1
    value { max_queue_size: 5 }
  }
}
parameters: { key: "x" value: { string_value: "1" } }
parameters: {
  key: "y.z" value: { string_value: "2" } }
model_warmup { inputs { key: "in"
  value { data_type: TYPE_FP32 } } }
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("name", 2),
        ("input[0].dims", 4),
        ("input[1].dims", 7),
        ("input[1].data_type", 5),
        ("instance_group[1].count", 12),
        ("instance_group[1].gpus", 11),
        ("dynamic_batching.priority_queue_policy[1].max_queue_size", 18),
        ("dynamic_batching.preserve_ordering", 14),
        ("parameters[x]", 21),
        ("parameters[y.z]", 23),
        ("model_warmup[0].inputs[in].data_type", 25),
        ("optimization.graph.level", None),
    ],
)
def test_the_line_of_a_field_is_found(key: str, line: int | None) -> None:
    assert pbtxt_line_of(PBTXT_FILE, key) == line
