"""The bodies beside inference: exact names out, strict in."""

import base64
import json

import pytest

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.messages import (
    BatchStatistics,
    Duration,
    IndexEntry,
    MemoryUsage,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    SharedMemoryRegion,
)
from tensorquay.core.signature import TensorSpec
from tensorquay.protocol import json_bodies as bodies
from tensorquay.protocol.json_text import parse_json_object


def test_server_metadata():
    got = json.loads(bodies.encode_server_metadata(ServerMetadata("triton", "0.1", ("a", "b(c)"))))
    assert got == {"name": "triton", "version": "0.1", "extensions": ["a", "b(c)"]}


def test_model_metadata():
    metadata = ModelMetadata(
        "m",
        ("1", "3"),
        "onnxruntime_onnx",
        (TensorSpec("x", DataType.FP32, (-1, 3, 224, 224)),),
        (TensorSpec("y", DataType.BYTES, (-1, 1)),),
    )
    expected = {
        "name": "m",
        "versions": ["1", "3"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3, 224, 224]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1, 1]}],
    }
    assert json.loads(bodies.encode_model_metadata(metadata)) == expected


def d(n):
    return Duration(n, n * 10)


STATISTICS = ModelStatistics(
    "m", "1", 123, 7, 3, d(1), d(2), d(3), d(4), d(5), d(6), d(7), d(8),
    (BatchStatistics(4, d(1), d(2), d(3)),), (MemoryUsage("CPU", 0, 99),),
)  # fmt: skip


def test_statistics_have_the_names_of_the_extension():
    (got,) = json.loads(bodies.encode_statistics([STATISTICS]))["model_stats"]

    def duration(n):
        return {"count": n, "ns": n * 10}

    names = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    assert got == {
        "name": "m",
        "version": "1",
        "last_inference": 123,
        "inference_count": 7,
        "execution_count": 3,
        "inference_stats": {name: duration(n + 1) for n, name in enumerate(names)},
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": 4,
                "compute_input": duration(1),
                "compute_infer": duration(2),
                "compute_output": duration(3),
            }
        ],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 99}],
    }


def test_index_entries_leave_out_what_they_do_not_know():
    entries = [IndexEntry("a"), IndexEntry("b", "1", "READY"), IndexEntry("c", "2", "UNAVAILABLE", "unloaded")]
    assert json.loads(bodies.encode_index(entries)) == [
        {"name": "a"},
        {"name": "b", "version": "1", "state": "READY"},
        {"name": "c", "version": "2", "state": "UNAVAILABLE", "reason": "unloaded"},
    ]


def test_odd_file_names_do_not_break_a_body():
    assert json.loads(bodies.encode_index([IndexEntry("a\udcff")])) == [{"name": "a?"}]


def test_shared_memory_status():
    got = json.loads(bodies.encode_shared_memory([SharedMemoryRegion("r", "/k", 4, 8)]))
    assert got == [{"name": "r", "key": "/k", "offset": 4, "byte_size": 8}]


@pytest.mark.parametrize(
    ("body", "ready"), [(b"", False), (b"{}", False), (b'{"ready":true}', True), (b'{"ready":false}', False)]
)
def test_index_request(body, ready):
    assert bodies.decode_index(body) is ready


@pytest.mark.parametrize(
    "body", [b'{"ready":1}', b'{"ready":"true"}', b'{"ready":null}', b"[]", b'{"redy":true}', b"x"]
)
def test_index_requests_that_are_none(body):
    with pytest.raises(InvalidArgument):
        bodies.decode_index(body)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"parameters":{}}', b'{"parameters":null}'])
def test_a_plain_load(body):
    assert bodies.decode_load(body) == bodies.LoadRequest()
    assert bodies.decode_unload(body) is False


def load(**parameters):
    return json.dumps({"parameters": parameters}).encode()


def test_a_load_with_config_and_files():
    got = bodies.decode_load(
        load(config='{"a":1}', **{"file:1/model.onnx": base64.b64encode(b"\x00onnx").decode(), "file:1/sub/w.bin": ""})
    )
    assert got.config == '{"a":1}'
    assert got.files == {"1/model.onnx": b"\x00onnx", "1/sub/w.bin": b""}


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"config": {"a": 1}}, "'config' must be a string"),
        ({"config": True}, "'config' must be a string"),
        ({"file:1/a": "AA=="}, "need parameter 'config'"),
        ({"config": "", "file:1/a": "AA=="}, "need parameter 'config'"),
        ({"config": "{}", "file:1/a": 1}, "base64"),
        ({"config": "{}", "file:1/a": "A"}, "base64"),
        ({"config": "{}", "file:1/a": "AA==\n"}, "base64"),
        ({"config": "{}", "file:1/a": "ž"}, "base64"),
        ({"config": "{}", "file:": ""}, "unknown load parameter"),
        ({"config": "{}", "file": ""}, "unknown load parameter"),
        ({"config": "{}", "other": ""}, "unknown load parameter 'other'"),
        ({"config": "{}", "file:a": ""}, "inside the model's folder"),
        ({"config": "{}", "file:/etc/passwd": ""}, "inside the model's folder"),
        ({"config": "{}", "file:1/../../x": ""}, "inside the model's folder"),
        ({"config": "{}", "file:../x": ""}, "inside the model's folder"),
        ({"config": "{}", "file:./x": ""}, "inside the model's folder"),
        ({"config": "{}", "file:1//x": ""}, "inside the model's folder"),
        ({"config": "{}", "file:1/": ""}, "inside the model's folder"),
        ({"config": "{}", "file:1\\x": ""}, "unknown load parameter"),
        ({"config": "{}", "file:1/a\x00b": ""}, "unknown load parameter"),
        ({"config": "{}", "file:1/" + "n" * 256: ""}, "inside the model's folder"),
        ({"config": "{}", **{f"file:1/{i}": "" for i in range(1025)}}, "1025 files"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_loads_that_are_refused(parameters, word):
    with pytest.raises(InvalidArgument, match=word) as caught:
        bodies.decode_load(load(**parameters))
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("body", [b"[]", b'{"parameters":[]}', b'{"config":"{}"}', b'{"parameters":{"x":1}}'])
def test_repository_bodies_of_a_wrong_form(body):
    with pytest.raises(InvalidArgument):
        bodies.decode_load(body)
    with pytest.raises(InvalidArgument):
        bodies.decode_unload(body)


def test_unload():
    assert bodies.decode_unload(load(unload_dependents=True)) is True
    with pytest.raises(InvalidArgument, match="unload_dependents"):
        bodies.decode_unload(load(unload_dependents="yes"))


def test_shared_memory_registration():
    assert bodies.decode_shm_register(b'{"key":"/k","offset":4,"byte_size":8}', "r") == SharedMemoryRegion(
        "r", "/k", 4, 8
    )
    assert bodies.decode_shm_register(b'{"key":"/k","byte_size":8}', "r").offset == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"key":"/k"}',
        b'{"byte_size":8}',
        b'{"key":"","byte_size":8}',
        b'{"key":3,"byte_size":8}',
        b'{"key":"/k","byte_size":-8}',
        b'{"key":"/k","byte_size":true}',
        b'{"key":"/k","byte_size":8.0}',
        b'{"key":"/k","byte_size":8,"offset":null}',
        b'{"key":"/k","byte_size":9223372036854775808}',
        b'{"key":"/k","byte_size":8,"x":1}',
    ],
)
def test_shared_memory_registrations_that_are_refused(body):
    with pytest.raises(InvalidArgument):
        bodies.decode_shm_register(body, "r")


def test_any_settings_body_is_an_object_or_refused():
    assert parse_json_object(b"", "the settings") == {}
    assert parse_json_object(b'{"a":null}', "the settings") == {"a": None}
    with pytest.raises(InvalidArgument, match="the settings must be a JSON object, got a number"):
        parse_json_object(b"3", "the settings")
