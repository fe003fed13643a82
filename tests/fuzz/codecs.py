"""Targets that read a body: JSON and binary requests, protobuf messages, compressed data."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tests.fuzz.mutators import mutated_fields, varint
from tests.fuzz.target import Damage, Target

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferRequest
from tensorquay.core.signature import Signature, TensorSpec
from tensorquay.protocol import compression, health, json_bodies, proto_bodies, reflection, v2_binary, v2_json, v2_proto
from tensorquay.protocol.options import WireOptions
from tensorquay.protocol.proto_scan import split_raw
from tensorquay.protocol.repeats import JsonRequests, ProtoRequests
from tensorquay.protocol.schema import message_class, parse
from tensorquay.protocol.status import error_body
from tensorquay.transport import grpc_wire

_REQUEST = "inference.ModelInferRequest"
_MOST_GROWTH = 8
"""A JSON element takes two bytes at least ("0,"), its array element eight at most."""
_LONGEST_ERROR = 20_000


def answered(read: Callable[[], Any]) -> Any:
    """What `read` returns, or the text of its refusal; the refusal must fit an answer. All else is a finding."""
    try:
        return read()
    except ServingError as refusal:
        error = refusal
    assert len(error_body(error)) < _LONGEST_ERROR
    return error.message


def _seen(decoded: tuple[InferRequest, WireOptions] | str) -> object:
    """What a decoded request says, for comparing; a refusal is its text."""
    if isinstance(decoded, str):
        return decoded
    request, options = decoded
    tensors = [
        (t.name, t.datatype, t.shape, t.array.tolist() if t.array.dtype == np.object_ else t.array.tobytes())
        for t in request.inputs
    ]
    said = (request.model_name, request.model_version, request.id, request.outputs, dict(request.parameters))
    return repr((tensors, said, request.priority, request.timeout_us, options))


def _bounded(decoded: tuple[InferRequest, WireOptions] | str, length: int) -> None:
    if not isinstance(decoded, str):
        assert sum(tensor.array.nbytes for tensor in decoded[0].inputs) <= _MOST_GROWTH * length
        for tensor in decoded[0].inputs:
            assert tensor.array.dtype == tensor.datatype.numpy


# -- requests over HTTP: the first two bytes say how long the JSON part is

_ALL_JSON = 0xFFFF
_RAW = Signature(
    "m",
    (TensorSpec("x", DataType.FP32, (-1, -1, 2)),),
    (TensorSpec("y", DataType.FP32, (-1, 2)),),
    max_batch_size=4,
)


def read_json(data: bytes) -> None:
    """A JSON body is read or refused; control bodies too."""
    decoded = answered(lambda: v2_json.decode_infer("m", "", data, None))
    _bounded(decoded, len(data))
    requests = JsonRequests("m", "")
    for _ in range(2):
        again = answered(lambda: requests.decode(data, None, shm=None, arrival_ns=0))
        assert _seen(again) == _seen(decoded)
    for read in (json_bodies.decode_index, json_bodies.decode_load, json_bodies.decode_unload):
        answered(lambda read=read: read(data))
    answered(lambda: json_bodies.decode_shm_register(data, "region"))


def read_binary(data: bytes) -> None:
    """JSON and tensor bytes behind it: the same request is read the same, whether from its plan or anew."""
    said, body = int.from_bytes(data[:2], "big"), data[2:]
    length = None if said == _ALL_JSON else answered(lambda: v2_binary.parse_header_length(str(said), len(body)))
    if isinstance(length, str):
        return
    decoded = answered(lambda: v2_json.decode_infer("m", "1", body, length))
    _bounded(decoded, len(body))
    requests = JsonRequests("m", "1")
    for _ in range(3):
        again = answered(lambda: requests.decode(memoryview(body), length, shm=None, arrival_ns=0))
        assert _seen(again) == _seen(decoded)
    # The same head over other numbers: what a plan fills must be what the codec reads.
    other = body[:length] + bytes(255 - byte for byte in body[length:]) if length is not None else body
    fresh = answered(lambda: v2_json.decode_infer("m", "1", other, length))
    assert _seen(answered(lambda: requests.decode(other, length, shm=None, arrival_ns=0))) == _seen(fresh)
    answered(lambda: v2_binary.decode_raw("m", "1", body, _RAW))


def _document(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": inputs, **more}, separators=(",", ":")).encode()


def json_seeds() -> list[bytes]:
    """Every data type, nested and flat; outputs, parameters, ids; control bodies."""
    x = {"name": "x", "shape": [1, 2]}
    return [
        _document({**x, "datatype": "FP32", "data": [[1.5, -2e3]]}, id="7", outputs=[{"name": "y"}]),
        _document(
            {**x, "datatype": "BYTES", "data": ["a", "é"]},
            {"name": "b", "shape": [1], "datatype": "BOOL", "data": [True]},
        ),
        *(_document({**x, "datatype": kind, "data": [0, 1]}) for kind in ("INT8", "UINT64", "FP64", "INT32", "FP16")),
        _document(
            {**x, "datatype": "INT64", "data": [1, 2], "parameters": {"p": 1.5}},
            parameters={
                "priority": 1,
                "timeout": 5,
                "sequence_id": 3,
                "sequence_start": True,
                "binary_data_output": False,
            },
            outputs=[{"name": "y", "parameters": {"classification": 3, "binary_data": True}}],
        ),
        _document({**x, "datatype": "FP32", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}),
        b'{"parameters":{"config":"{}","file:1/model.onnx":"AAAA"}}',
        b'{"parameters":{"unload_dependents":true}}',
        b'{"key":"/k","offset":0,"byte_size":64}',
        b'{"ready":true}',
    ]


def binary_seeds() -> list[bytes]:
    """Fixed sizes, BYTES and BOOL behind the JSON; several inputs; raw bytes alone; JSON alone."""

    def body(*tensors: tuple[str, list[int], bytes], **more: Any) -> bytes:
        inputs = [
            {"name": f"x{n}", "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(tail)}}
            for n, (kind, shape, tail) in enumerate(tensors)
        ]
        head = _document(*inputs, **more)
        return len(head).to_bytes(2, "big") + head + b"".join(tail for _, _, tail in tensors)

    return [
        body(("FP32", [1, 2], bytes(8)), ("INT64", [1], bytes(range(8)))),
        body(("BYTES", [2], b"\1\0\0\0a\0\0\0\0")),
        body(("BOOL", [3], b"\0\1\2"), parameters={"binary_data_output": True}),
        body(("UINT8", [0], b""), ("BF16", [2], b"abcd"), ("FP16", [1, 1, 1], b"zz")),
        b"\0\0" + bytes(range(24)),
        b"\xff\xff" + json_seeds()[0],
    ]


def _mutated_body(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    """The JSON part changed, and mostly the length that says where it ends."""
    said, body = int.from_bytes(data[:2], "big"), data[2:]
    if said == _ALL_JSON or said > len(body) or random_.random() < 0.2:
        return damage(data)
    head, tail = body[:said], body[said:]
    if random_.random() < 0.7:
        head = damage(head)
    else:
        tail = damage(tail)
    return min(len(head), 0xFFFE).to_bytes(2, "big") + head + tail


# -- protobuf

_CONTROL: tuple[Callable[[bytes], Any], ...] = (
    proto_bodies.decode_name_version,
    proto_bodies.decode_index,
    proto_bodies.decode_load,
    proto_bodies.decode_unload,
    proto_bodies.decode_region_name,
    proto_bodies.decode_shm_register,
    proto_bodies.decode_trace_setting,
    proto_bodies.decode_log_settings,
    reflection.answer,
)


def read_proto(data: bytes) -> None:
    """A message is read or refused, from its plan as anew, and our own scan finds what the library finds."""
    decoded = answered(lambda: v2_proto.decode_infer(data))
    # Typed contents: a packed element takes a byte at least, as in JSON.
    _bounded(decoded, len(data))
    requests = ProtoRequests()
    found = answered(lambda: split_raw(data))
    for form in (data, memoryview(data), bytearray(data)):
        again = answered(lambda form=form: requests.decode(memoryview(form), shm=None, arrival_ns=0))
        assert _seen(again) == _seen(decoded)
    whole = answered(lambda: parse(_REQUEST, data))
    if not isinstance(found, str):
        rest, raw = found
        assert len(rest) + sum(map(len, raw)) <= len(data)
        kept = answered(lambda: parse(_REQUEST, rest))
        # What is damaged for the library is damaged without the raw contents too, and the other way round.
        assert isinstance(kept, str) == isinstance(whole, str)
        if not isinstance(whole, str):
            assert [bytes(each) for each in raw] == list(whole.raw_input_contents)
    v2_proto.request_id(data)


def read_control(data: bytes) -> None:
    """Every other message is read or refused."""
    for read in _CONTROL:
        answered(lambda read=read: read(data))
    answered(lambda: health.check(data, ready=True))


def proto_seeds() -> list[bytes]:
    """Raw and typed contents, parameters of every kind, outputs."""
    make = message_class(_REQUEST)
    plain = make(model_name="m", raw_input_contents=[bytes(8), b"\1\0\0\0a"])
    plain.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    plain.inputs.add(name="s", datatype="BYTES", shape=[1])
    raw = make(model_name="m", model_version="1", raw_input_contents=[bytes(8), bytes(16)])
    raw.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    raw.inputs.add(name="y", datatype="INT64", shape=[2])
    typed = make(model_name="m", id="7")
    for kind, contents, values in (
        ("INT8", "int_contents", [1, -128]),
        ("UINT64", "uint64_contents", [1, 2**63]),
        ("BOOL", "bool_contents", [True, False]),
        ("FP64", "fp64_contents", [1.5, 2]),
        ("BYTES", "bytes_contents", [b"a", b"\xff"]),
        ("INT64", "int64_contents", [-1, 1]),
    ):
        item = typed.inputs.add(name=kind, datatype=kind, shape=[2])
        getattr(item.contents, contents).extend(values)
    said = make(model_name="m")
    said.parameters["priority"].int64_param = 2
    said.parameters["sequence_id"].string_param = "s"
    said.parameters["d"].double_param = 0.5
    said.inputs.add(name="x", datatype="FP32", shape=[2]).parameters["shared_memory_region"].string_param = "r"
    said.outputs.add(name="y").parameters["classification"].int64_param = 2
    return [message.SerializeToString() for message in (plain, raw, typed, said)]


def control_seeds() -> list[bytes]:
    """One message of each kind."""
    load = message_class("inference.RepositoryModelLoadRequest")(model_name="m")
    load.parameters["config"].string_param = "{}"
    load.parameters["file:1/model.onnx"].bytes_param = b"x"
    unload = message_class("inference.RepositoryModelUnloadRequest")(model_name="m")
    unload.parameters["unload_dependents"].bool_param = True
    trace = message_class("inference.TraceSettingRequest")(model_name="m")
    trace.settings["trace_level"].value.append("TIMESTAMPS")
    logs = message_class("inference.LogSettingsRequest")()
    logs.settings["log_verbose_level"].uint32_param = 1
    region = message_class("inference.SystemSharedMemoryRegisterRequest")(name="r", key="/k", offset=1, byte_size=8)
    asked = message_class("grpc.reflection.v1.ServerReflectionRequest")(file_containing_symbol="grpc.health.v1.Health")
    listed = message_class("grpc.reflection.v1.ServerReflectionRequest")(list_services="*")
    return [each.SerializeToString() for each in (load, unload, trace, logs, region, asked, listed)]


# -- compressed bodies

_LIMIT = 20_000
_CODINGS = (compression.GZIP, compression.DEFLATE)


def read_compressed(data: bytes) -> None:
    """What comes out is bounded and what another reader of the format finds; headers name a coding or are refused."""
    coding, body = _CODINGS[data[0] % 2] if data else compression.GZIP, data[1:]
    got = answered(lambda: compression.decompress(body, coding, _LIMIT))
    if isinstance(got, bytes):
        assert len(got) <= _LIMIT
        assert (gzip.decompress(body) if coding == compression.GZIP else zlib.decompress(body)) == got
        assert grpc_wire.unpack(body, coding, _LIMIT) == got
        assert compression.decompress(compression.compress([got], coding), coding, _LIMIT) == got
    header = data.decode("latin-1")
    answered(lambda: compression.content_encoding(header))
    assert compression.accepted_encoding(header) in {None, *_CODINGS}


def compressed_seeds() -> list[bytes]:
    """One member and several, stored and packed, and a small bomb."""
    one = gzip.compress(b"hello " * 9, mtime=0)
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)
    return [
        b"\0" + one,
        b"\0" + one + gzip.compress(b"", mtime=0) + one,
        b"\0" + stored.compress(b"abc") + stored.flush(),
        b"\1" + zlib.compress(bytes(3 * _LIMIT)),
        b"\1" + zlib.compress(b"hello"),
        b"gzip;q=0.5, deflate;q=1, *;q=0",
    ]


def _fields(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    if random_.random() < 0.05:
        # A field that no message knows.
        data += varint(random_.choice((99, 2**20)) << 3 | 2) + varint(2) + b"zz"
    return mutated_fields(data, random_, damage)


def _json_words(data: bytes, random_: random.Random, damage: Damage) -> bytes:
    """Members exchanged, lost or repeated."""
    if random_.random() < 0.5:
        return damage(data)
    pieces: Sequence[bytes] = data.split(b",")
    at, other = random_.randrange(len(pieces)), random_.randrange(len(pieces))
    changed = [*pieces[:at], pieces[other], *pieces[at + random_.randrange(2) :]]
    return b",".join(changed)


TARGETS = (
    Target("json", read_json, json_seeds, _json_words),
    Target("binary", read_binary, binary_seeds, _mutated_body),
    Target("proto", read_proto, proto_seeds, _fields),
    Target("control", read_control, control_seeds, _fields, max_bytes=1024),
    Target("compressed", read_compressed, compressed_seeds, max_bytes=2048),
)
