"""The HTTP codec, with tritonclient's own codec as the stranger that must agree."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from tensorquay_client import errors
from tensorquay_client.calls import Repeat, Reply
from tensorquay_client.errors import InvalidArgument, ProtocolError
from tensorquay_client.http_codec import HttpCodec
from tensorquay_client.messages import RepositoryEntry, infer_request

LENGTH = "inference-header-content-length"


def split(body: bytes, headers: Any) -> tuple[dict[str, Any], bytes]:
    length = int({key.lower(): value for key, value in headers.items()}.get(LENGTH, len(body)))
    return json.loads(body[:length]), body[length:]


def reply(status: int, body: bytes | object = b"", headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def triton_input(name: str, array: np.ndarray, datatype: str) -> triton.InferInput:
    entry = triton.InferInput(name, list(array.shape), datatype)
    entry.set_data_from_numpy(array)
    return entry


def test_infer_is_what_tritonclient_sends() -> None:
    numbers, words = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[b"a"], [b"bc"]], dtype=object)
    call = HttpCodec().infer(
        infer_request("m", {"x": numbers, "w": words}, outputs=["y"], id="7", priority=2, classification={"z": 3}),
        {},
    )
    body, length = triton.InferenceServerClient.generate_request_body(
        [triton_input("x", numbers, "FP32"), triton_input("w", words, "BYTES")],
        outputs=[triton.InferRequestedOutput("y"), triton.InferRequestedOutput("z", class_count=3)],
        request_id="7",
        priority=2,
    )
    ours, our_tensors = split(b"".join(call.body), call.headers)
    theirs, their_tensors = split(body, {LENGTH: length})
    assert ours == theirs
    assert our_tensors == their_tensors
    assert (call.verb, call.path, call.repeat) == ("POST", "/v2/models/m/infer", Repeat.IF_REFUSED)


def test_without_outputs_all_are_asked_for_in_binary() -> None:
    call = HttpCodec().infer(infer_request("m", {"x": np.zeros(1, "i4")}, version=3, parameters={"k": 1.5}), {"A": "b"})
    head, _ = split(b"".join(call.body), call.headers)
    assert "outputs" not in head
    assert head["parameters"] == {"k": 1.5, "binary_data_output": True}
    assert call.path == "/v2/models/m/versions/3/infer"
    assert call.headers["A"] == "b"


def test_names_are_percent_encoded() -> None:
    assert HttpCodec().model_metadata("a/../b c", "1").path == "/v2/models/a%2F..%2Fb%20c/versions/1"
    for make in (HttpCodec().model_config, HttpCodec().model_ready):
        with pytest.raises(InvalidArgument, match="empty"):
            make("", "")


def test_json_form() -> None:
    inputs = {"f": np.array([[1.5, 2]], "f4"), "b": np.array([True]), "s": np.array(["é"])}
    call = HttpCodec(binary=False).infer(infer_request("m", inputs), {})
    document = json.loads(b"".join(call.body))
    assert [entry["data"] for entry in document["inputs"]] == [[1.5, 2], [True], ["é"]]
    assert LENGTH not in {key.lower() for key in call.headers}


@pytest.mark.parametrize("array", [np.array([np.nan], "f4"), np.zeros(1, "f2"), np.array([b"\xff"], dtype=object)])
def test_json_form_refuses_what_json_cannot_hold(array: np.ndarray) -> None:
    with pytest.raises(InvalidArgument, match="input 'x'"):
        HttpCodec(binary=False).infer(infer_request("m", {"x": array}), {})


@pytest.mark.parametrize(("how", "undo"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)])
def test_compression(how: Any, undo: Any) -> None:
    request = infer_request("m", {"x": np.zeros(1000, "f4")})
    plain, packed = HttpCodec().infer(request, {}), HttpCodec(compression=how).infer(request, {})
    assert undo(b"".join(packed.body)) == b"".join(plain.body)
    assert packed.headers["Content-Encoding"] == packed.headers["Accept-Encoding"] == how
    assert packed.body_bytes < plain.body_bytes


def answer(binary: bool) -> Reply:
    y, w = np.array([[1.5, -2]], "f4"), [b"hello", b""]
    packed = b"\x05\0\0\0hello\0\0\0\0"
    outputs: list[dict[str, Any]] = [
        {"name": "y", "datatype": "FP32", "shape": [1, 2]},
        {"name": "w", "datatype": "BYTES", "shape": [2]},
        {"name": "j", "datatype": "INT64", "shape": [2, 1], "data": [[2**60], [-1]]},
    ]
    tail = b""
    if binary:
        outputs[0]["parameters"] = {"binary_data_size": 8}
        outputs[1]["parameters"] = {"binary_data_size": len(packed)}
        tail = y.tobytes() + packed
    else:
        outputs[0]["data"] = y.tolist()
        outputs[1]["data"] = [item.decode() for item in w]
    head = json.dumps({"model_name": "m", "model_version": "2", "id": "7", "outputs": outputs}).encode()
    return Reply(200, {LENGTH: str(len(head))} if binary else {}, head + tail)


@pytest.mark.parametrize("binary", [True, False])
def test_answers_read_as_tritonclient_reads_them(binary: bool) -> None:
    received = answer(binary)
    result = HttpCodec().infer(infer_request("m", {}), {}).parse(received)
    theirs = triton.InferenceServerClient.parse_response_body(
        received.body, header_length=int(received.headers[LENGTH]) if binary else None
    )
    np.testing.assert_array_equal(result["y"], theirs.as_numpy("y"))
    np.testing.assert_array_equal(result["j"], theirs.as_numpy("j"))
    assert result["w"].tolist() == [b"hello", b""]
    assert (result.model_name, result.model_version, result.id) == ("m", "2", "7")
    assert list(result) == ["y", "w", "j"]
    assert repr(result) == "InferResult(m version 2; y: FP32 [1, 2], w: BYTES [2], j: INT64 [2, 1])"
    with pytest.raises(KeyError, match="no output 'q' in the answer, which has y, w, j"):
        result["q"]


def test_bf16_and_nan_in_json_answers() -> None:
    body = b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[NaN,null]},'
    body += b'{"name":"h","datatype":"BF16","shape":[1],"data":[1.5]}]}'
    result = HttpCodec().infer(infer_request("m", {}), {}).parse(reply(200, body))
    assert np.isnan(result["y"]).all()
    assert result["h"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("head", "tail", "length"),
    [
        (b"[]", b"", None),
        (b"nonsense", b"", None),
        (b'{"outputs":[{}]}', b"", None),
        (b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":["x"]}]}', b"", None),
        (b'{"outputs":[{"name":"y","datatype":"FP32","shape":[3],"data":[1,2]}]}', b"", None),
        (b'{"outputs":[{"name":"y","datatype":"INT8","shape":[1],"data":[1000]}]}', b"", None),
        (b'{"outputs":[{"name":"y","datatype":"FP32","shape":3,"data":[1,2]}]}', b"", None),
        (b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}', b"\0", 0),
        (b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":-4}}]}', b"\0", 0),
        (b'{"outputs":[]}', b"surplus", 0),
        (b'{"outputs":[]}', b"", 1),
        (b'{"outputs":[]}', b"", -20),
    ],
)
def test_answers_that_are_not_v2_are_protocol_errors(head: bytes, tail: bytes, length: int | None) -> None:
    headers = {} if length is None else {LENGTH: str(len(head) + length)}
    with pytest.raises(ProtocolError):
        HttpCodec().infer(infer_request("m", {}), {}).parse(Reply(200, headers, head + tail))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidArgument),
        (401, errors.PermissionDenied),
        (403, errors.PermissionDenied),
        (404, errors.NotFound),
        (405, errors.Unimplemented),
        (408, errors.DeadlineExceeded),
        (413, errors.InvalidArgument),
        (429, errors.Overloaded),
        (500, errors.Internal),
        (501, errors.Unimplemented),
        (502, errors.Unavailable),
        (503, errors.Unavailable),
        (504, errors.DeadlineExceeded),
        (302, errors.ProtocolError),
    ],
)
def test_statuses_become_kinds_with_the_servers_text(status: int, kind: type[errors.ClientError]) -> None:
    with pytest.raises(errors.ClientError) as caught:
        HttpCodec().server_metadata().parse(reply(status, {"error": "because", "input": "x"}, {"retry-after": "2"}))
    assert type(caught.value) is kind
    assert "because" in caught.value.message
    assert caught.value.status == status
    if status >= 400:
        assert caught.value.facts == {"input": "x"}
        assert caught.value.retry_after_s == 2
        assert repr(caught.value) == f"{kind.__name__}('because', status={status}, retry_after_s=2)"


def test_the_bodys_code_is_more_exact_than_the_status() -> None:
    with pytest.raises(errors.Cancelled):
        HttpCodec().server_metadata().parse(reply(400, {"error": "left", "code": "CANCELLED"}))


@pytest.mark.parametrize("body", [b"", b"<html>bad gateway</html>", b'["x"]', b'{"error":""}'])
def test_errors_without_an_error_body_still_say_something(body: bytes) -> None:
    with pytest.raises(errors.Unavailable, match="HTTP 502"):
        HttpCodec().server_metadata().parse(reply(502, body, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}))


def test_health() -> None:
    codec = HttpCodec()
    assert codec.live().parse(reply(200)) is True
    assert codec.ready().parse(reply(400)) is False
    assert codec.ready().parse(reply(503)) is False
    assert codec.model_ready("m", "").parse(reply(404, {"error": "unknown"})) is False
    with pytest.raises(errors.NotFound):  # no such route: this is another kind of server
        codec.ready().parse(reply(404))


def test_management_calls() -> None:
    codec = HttpCodec()
    load = codec.load_model("m", '{"a":1}', {"1/model.onnx": b"\0"})
    assert json.loads(b"".join(load.body)) == {"parameters": {"config": '{"a":1}', "file:1/model.onnx": "AA=="}}
    assert (load.path, load.repeat) == ("/v2/repository/models/m/load", Repeat.NEVER)
    unload = codec.unload_model("m", dependents=True)
    assert json.loads(b"".join(unload.body)) == {"parameters": {"unload_dependents": True}}
    index = codec.repository_index(ready=True)
    assert index.repeat is Repeat.ALWAYS
    assert index.parse(reply(200, [{"name": "a"}, {"name": "b", "version": "1", "state": "READY"}])) == [
        RepositoryEntry("a"),
        RepositoryEntry("b", "1", "READY"),
    ]
    assert codec.statistics("", "").path == "/v2/models/stats"
    assert codec.statistics("m", "2").parse(reply(200, {"model_stats": [{"name": "m"}]})) == [{"name": "m"}]
    metadata = {"name": "m", "versions": ["1"], "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]}
    assert codec.model_metadata("m", "").parse(reply(200, metadata)).inputs[0].shape == (-1, 3)
    for call in (codec.model_metadata("m", ""), codec.statistics("", ""), codec.server_metadata()):
        with pytest.raises(ProtocolError):
            call.parse(reply(200, ["something else"]))


@pytest.mark.parametrize(
    ("inputs", "arguments", "named"),
    [
        ({}, {"parameters": {"k": [1]}}, "parameter 'k'"),
        ({}, {"priority": -1}, "priority"),
        ({}, {"priority": 2**64}, "priority"),
        ({}, {"classification": {"y": 0}}, "output 'y'"),
        ({"x": np.zeros(1, "c8")}, {}, "input 'x'"),
    ],
)
def test_arguments_that_cannot_be_sent_are_named(inputs: Any, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        infer_request("m", inputs, **arguments)


def test_classes_are_read() -> None:
    body = {"outputs": [{"name": "p", "datatype": "BYTES", "shape": [1, 2], "data": ["0.9:6:six", "0.1:8"]}]}
    result = HttpCodec().infer(infer_request("m", {}), {}).parse(reply(200, body))
    assert [(c.value, c.index, c.label) for c in result.classes("p")[0]] == [(0.9, 6, "six"), (0.1, 8, "")]
    plain = HttpCodec().infer(infer_request("m", {}), {}).parse(answer(binary=True))
    for name in ("y", "w"):
        with pytest.raises(InvalidArgument, match="no classification"):
            plain.classes(name)
