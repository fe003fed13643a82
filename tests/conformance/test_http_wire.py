"""The bytes of an HTTP inference request: framing, raw requests, compression, and all that can be wrong (1.4, 1.5)."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tests.support.serving import RunningServer

from doors import checked, read_answer
from wire import given

LENGTH = "Inference-Header-Content-Length"
ROW = np.array([1, 2, 3, 4], np.float32).tobytes()
TWICE = np.array([2, 4, 6, 8], np.float32).tobytes()
DOUBLE = "/v2/models/double/infer"


@pytest.fixture(scope="module")
def http(zoo: RunningServer) -> Iterator[httpx.Client]:
    # Encodings are asked for by the tests themselves.
    with httpx.Client(base_url=zoo.url, trust_env=False, timeout=30, headers={"accept-encoding": "identity"}) as client:
        yield client


def document(**changes: Any) -> dict[str, Any]:
    """A right request to `double`, with members of its only input changed; None removes one."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4], **changes}
    return {"inputs": [{name: value for name, value in entry.items() if value is not None}]}


def framed(head: Any, tail: bytes = b"", length: int | str | None = None) -> dict[str, Any]:
    """Arguments of a request with binary data behind the JSON."""
    text = json.dumps(head).encode()
    return {"content": text + tail, "headers": {LENGTH: str(len(text) if length is None else length)}}


def binary(size: int = 16, **changes: Any) -> dict[str, Any]:
    return document(data=None, parameters={"binary_data_size": size}, **changes)


def refused(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return checked(response.json()["error"])


# -- what comes back as bytes, and what as JSON


def test_1_5_json_is_the_default_answer(http: httpx.Client) -> None:
    response = http.post(DOUBLE, json=document())
    assert LENGTH not in response.headers
    assert response.json() == {
        "model_name": "double",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2.0, 4.0, 6.0, 8.0]}],
    }


def test_1_5_binary_in_json_out(http: httpx.Client) -> None:
    answer = read_answer(http.post(DOUBLE, **framed(binary(), ROW)))
    assert answer.outputs == (given("y", "FP32", [[2, 4, 6, 8]]),)


def test_1_5_a_single_output_wins_over_the_request(http: httpx.Client) -> None:
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [5]}]}
    request["parameters"] = {"binary_data_output": True}  # type: ignore[assignment]
    request["outputs"] = [{"name": "y", "parameters": {"binary_data": False}}, {"name": "x"}]
    response = http.post("/v2/models/two_outputs/infer", json=request)
    head = json.loads(response.content[: int(response.headers[LENGTH])])
    assert head["outputs"][0]["data"] == [10.0]
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 4}
    assert read_answer(response).outputs == (given("y", "FP32", [10]), given("x", "FP32", [5]))


def test_1_5_nested_and_flat_data_are_the_same(http: httpx.Client) -> None:
    nested = http.post(DOUBLE, json=document(shape=[2, 4], data=[[1, 2, 3, 4], [5, 6, 7, 8]])).json()
    flat = http.post(DOUBLE, json=document(shape=[2, 4], data=[1, 2, 3, 4, 5, 6, 7, 8])).json()
    assert nested == flat
    assert flat["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0]


def test_1_4_unknown_members_and_the_models_name_in_the_body_are_ignored(http: httpx.Client) -> None:
    assert http.post(DOUBLE, json={**document(), "model_name": "other", "more": [1]}).status_code == 200


def test_1_4_no_outputs_listed_means_all(http: httpx.Client) -> None:
    for outputs in ([], None):
        assert len(http.post(DOUBLE, json={**document(), "outputs": outputs}).json()["outputs"]) == 1


def test_1_2_any_byte_but_zero_is_true(http: httpx.Client) -> None:
    request = {"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1, 3], "parameters": {"binary_data_size": 3}}]}
    response = http.post("/v2/models/t_bool/infer", **framed(request, b"\x00\x07\xff"))
    assert response.json()["outputs"][0]["data"] == [False, True, True]


# -- raw requests


@pytest.mark.parametrize("headers", [{LENGTH: "0"}])
def test_1_5_a_raw_request_is_one_row_and_answered_in_bytes(http: httpx.Client, headers: dict[str, str]) -> None:
    answer = read_answer(http.post(DOUBLE, content=ROW, headers=headers))
    assert answer.outputs[0].shape == (1, 4)
    assert answer.outputs[0].raw() == TWICE


def test_1_5_a_raw_request_finds_its_one_variable_axis(http: httpx.Client) -> None:
    answer = read_answer(http.post("/v2/models/t_int16/infer", content=b"\x01\x00\x02\x00", headers={LENGTH: "0"}))
    assert answer.outputs == (given("y", "INT16", [[1, 2]]),)


def test_8_4_an_empty_body_is_a_raw_request(http: httpx.Client) -> None:
    answer = read_answer(http.post("/v2/models/t_int16/infer", content=b""))
    assert answer.outputs[0].shape == (1, 0)


@pytest.mark.parametrize(
    ("model", "body", "says"),
    [
        ("split", ROW, "Raw request must only have 1 input"),
        ("grid", ROW, "can not be deduced"),
        ("double", ROW[:3], "'x'"),
        ("double", ROW * 2, "'x'"),
        ("t_int16", b"\x01\x00\x02", "'x'"),
        ("t_bytes", b"text", "must have input shape [1]"),
        ("double", b"", "'x'"),
    ],
)
def test_1_5_raw_requests_that_cannot_be_read(http: httpx.Client, model: str, body: bytes, says: str) -> None:
    assert says in refused(http.post(f"/v2/models/{model}/infer", content=body, headers={LENGTH: "0"}))


# -- framing


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999", "9" * 40, "0x10", "+5", ""])
def test_1_5_a_header_length_that_is_none(http: httpx.Client, length: str) -> None:
    assert "Inference-Header-Content-Length" in refused(http.post(DOUBLE, **framed(binary(), ROW, length)))


@pytest.mark.parametrize(
    ("request_", "tail", "says"),
    [
        (binary(), ROW[:-1], "unexpected size for input 'x'"),
        (binary(), b"", "unexpected size for input 'x'"),
        (binary(), ROW + b"\x00", "unexpected additional input data"),
        (binary(15), ROW[:-1], "unexpected size for input 'x'"),
        (binary(20), ROW + b"\x00" * 4, "unexpected size for input 'x'"),
        (binary(2**70), ROW, "'x'"),
        (binary(-16), ROW, "'binary_data_size'"),
        (document(data=None, parameters={"binary_data_size": "16"}), ROW, "'binary_data_size'"),
        (document(data=None, parameters={"binary_data_size": True}), ROW, "'binary_data_size'"),
        (document(parameters={"binary_data_size": 16}), ROW, "'data'"),
        (document(), ROW, "unexpected additional input data"),
        (binary(shape=[2**40, 2**40]), ROW, "'x'"),
        (binary(shape=[-1, 4]), ROW, "'x'"),
    ],
)
def test_1_5_bytes_that_do_not_add_up(http: httpx.Client, request_: Any, tail: bytes, says: str) -> None:
    assert says in refused(http.post(DOUBLE, **framed(request_, tail)))


@pytest.mark.parametrize(
    "tail",
    [
        b"\x05\x00\x00\x00ab",
        b"\xff\xff\xff\xff",
        b"\x01\x00\x00",
        b"\x01\x00\x00\x00aXX",
        struct.pack("<I", 2**31) + b"a",
    ],
)
def test_1_5_bytes_elements_that_do_not_add_up(http: httpx.Client, tail: bytes) -> None:
    request = {
        "inputs": [
            {"name": "x", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(tail)}},
        ]
    }
    assert "unexpected size for input 'x'" in refused(http.post("/v2/models/t_bytes/infer", **framed(request, tail)))


# -- JSON


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"null",
        b"[]",
        b"3",
        b'"inputs"',
        b"{}",
        b'{"inputs":{}}',
        b'{"inputs":null}',
        b'{"inputs":[3]}',
        b'{"inputs":[]}x',
        b'{"inputs":[],}',
        b"\xff\xfe",
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,NaN]}]}',
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1,2,3,1e999]}]}',
        b'{"inputs":' + b"[" * 200_000,
        b'{"x":' * 100_000,
        b"[" * 101 + b"]" * 101,
        b'{"inputs":[{"name":"\xed\xa0\x80"}]}',
        b"\x00" * 100,
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
def test_1_4_json_that_is_no_request(http: httpx.Client, body: bytes) -> None:
    refused(http.post(DOUBLE, content=body))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": None}, "'name' is missing"),
        ({"name": 3}, "'name' must be a string"),
        ({"name": ""}, "'name'"),
        ({"name": "n" * 2000}, "'name'"),
        ({"shape": None}, "'shape' is missing"),
        ({"shape": "1,4"}, "'shape' must be an array"),
        ({"shape": [1.0, 4]}, "shape must hold integers"),
        ({"shape": [True, 4]}, "shape must hold integers"),
        ({"shape": ["1", 4]}, "shape must hold integers"),
        ({"shape": [[1, 4]]}, "shape must hold integers"),
        ({"shape": [-1, 4]}, "negative"),
        ({"shape": [2**64, 4]}, "shape"),
        ({"shape": [1] * 10_000}, "dimensions"),
        ({"datatype": None}, "'datatype' is missing"),
        ({"datatype": 3}, "'datatype' must be a string"),
        ({"datatype": "TYPE_FP32"}, "TYPE_FP32"),
        ({"data": None}, "has no data"),
        ({"data": "AAAA"}, "'data' must be an array"),
        ({"data": {"0": 1}}, "'data' must be an array"),
        ({"data": [1, 2, 3]}, "has 4 elements, but 'data' holds 3"),
        ({"data": [1, 2, 3, "4"]}, "element 3"),
        ({"data": [1, 2, True, 4]}, "element 2"),
        ({"data": [1, 2, 3, None]}, "element 3"),
        ({"data": [[1, 2], [3]]}, "ragged"),
        ({"data": [[1, 2], 3, 4]}, "mixes"),
        ({"data": [1, 2, 3, 1e39]}, "out of range"),
        ({"data": [1, 2, 3, {}]}, "element 3"),
        ({"parameters": []}, "'parameters' must be an object"),
        ({"parameters": {"p": []}}, "parameter 'p'"),
        ({"parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4}}, "--allow-client-shm"),
    ],
)
def test_1_4_a_member_of_an_input_that_is_wrong(http: httpx.Client, changes: dict[str, Any], says: str) -> None:
    status = 501 if "--allow" in says else 400
    assert says in refused(http.post(DOUBLE, json=document(**changes)), status)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"id": 7}, "'id' must be a string"),
        ({"id": "i" * 5000}, "'id'"),
        ({"parameters": 3}, "'parameters' must be an object"),
        ({"parameters": {"binary_data_output": 1}}, "'binary_data_output'"),
        ({"parameters": {"deep": {"er": 1}}}, "'deep'"),
        ({"outputs": {}}, "'outputs' must be an array"),
        ({"outputs": ["y"]}, "outputs[0]"),
        ({"outputs": [{}]}, "'name' is missing"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}, "'binary_data'"),
        ({"outputs": [{"name": "y"}] * 2000}, "outputs"),
    ],
)
def test_1_4_a_member_of_the_request_that_is_wrong(http: httpx.Client, more: dict[str, Any], says: str) -> None:
    assert says in refused(http.post(DOUBLE, json={**document(), **more}))


@pytest.mark.parametrize(
    ("wire", "element"),
    [
        ("UINT8", 256),
        ("UINT8", -1),
        ("INT8", 128),
        ("INT32", 2**31),
        ("INT64", 2**63),
        ("UINT64", 2**64),
        ("UINT64", -1),
        ("INT32", 1.5),
        ("INT32", "1"),
        ("INT32", True),
        ("BOOL", 1),
        ("BYTES", 1),
        ("BYTES", None),
        ("FP64", "0.5"),
    ],
)
def test_1_2_an_element_that_is_not_of_its_type(http: httpx.Client, wire: str, element: Any) -> None:
    request = {"inputs": [{"name": "x", "datatype": wire, "shape": [1, 1], "data": [element]}]}
    assert "element 0" in refused(http.post(f"/v2/models/t_{wire.lower()}/infer", json=request))


# -- sizes and compression


def test_1_4_a_body_over_the_limit_names_the_flag(zoo: RunningServer) -> None:
    # Told by the length alone: none of the body has to be sent.
    host, _, port = zoo.http.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {DOUBLE} HTTP/1.1\r\nHost: {zoo.http}\r\nContent-Length: {64 * 2**20 + 1}\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"}"):  # head and body may come in two pieces
            answer += (piece := connection.recv(65536))
            assert piece, answer
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"--http-max-input-size" in answer


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_1_4_a_decompression_bomb_is_stopped(http: httpx.Client, coding: str) -> None:
    window = 31 if coding == "gzip" else 15
    encoder = zlib.compressobj(9, zlib.DEFLATED, window)
    block = b"0" * 2**20
    bomb = b"".join(encoder.compress(block) for _ in range(200)) + encoder.flush()
    assert len(bomb) < 2**20
    text = refused(http.post(DOUBLE, content=bomb, headers={"content-encoding": coding}))
    assert "--http-max-input-size" in text


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_1_4_compressed_requests_and_answers(http: httpx.Client, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    rows = 64
    head = json.dumps({**binary(16 * rows, shape=[rows, 4]), "parameters": {"binary_data_output": True}}).encode()
    plain = http.post(DOUBLE, content=head + ROW * rows, headers={LENGTH: str(len(head))})
    packed = http.post(
        DOUBLE,
        content=pack(head + ROW * rows),
        headers={LENGTH: str(len(head)), "content-encoding": coding, "accept-encoding": coding},
    )
    assert packed.headers["content-encoding"] == coding
    # httpx has unpacked it; the header length is that of the unpacked answer.
    assert read_answer(packed) == read_answer(plain)
    assert packed.num_bytes_downloaded < len(plain.content)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", b"not gzip at all", 400),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400),
        ("deflate", b"\x00\x01\x02", 400),
        ("br", b"{}", 400),
        ("gzip", b"", 400),
    ],
)
def test_1_4_bodies_that_cannot_be_unpacked(http: httpx.Client, coding: str, body: bytes, status: int) -> None:
    refused(http.post(DOUBLE, content=body, headers={"content-encoding": coding}), status)


def test_1_4_accept_encoding_with_preferences(http: httpx.Client) -> None:
    body = document(shape=[64, 4], data=[1] * 256)
    for accepted, expected in (
        ("gzip;q=0, deflate", "deflate"),
        ("deflate;q=0.5, gzip;q=0.9", "gzip"),
        ("br", None),
        ("identity", None),
        ("gzip;q=0", None),
    ):
        response = http.post(DOUBLE, json=body, headers={"accept-encoding": accepted})
        assert response.headers.get("content-encoding") == expected, accepted
        assert response.json()["outputs"][0]["data"][:4] == [2.0] * 4


# -- connections


def test_7_a_chunked_body_is_read(http: httpx.Client) -> None:
    text = json.dumps(document()).encode()
    response = http.post(DOUBLE, content=(bytes((byte,)) for byte in text))
    assert response.json()["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]


def test_7_one_connection_serves_request_after_request_also_after_refusals(zoo: RunningServer) -> None:
    host, _, port = zoo.http.partition(":")
    good, wrong = json.dumps(document()).encode(), b"{"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        reader = connection.makefile("rb")
        for body, status in ((good, 200), (wrong, 400), (good, 200)):
            head = f"POST {DOUBLE} HTTP/1.1\r\nHost: {zoo.http}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert int(reader.readline().split()[1]) == status
            length = 0
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            assert length
            reader.read(length)
        reader.close()


def test_7_expect_continue_is_answered(zoo: RunningServer) -> None:
    host, _, port = zoo.http.partition(":")
    body = json.dumps(document()).encode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        reader = connection.makefile("rb")
        connection.sendall(
            f"POST {DOUBLE} HTTP/1.1\r\nHost: {zoo.http}\r\nContent-Length: {len(body)}\r\n"
            "Expect: 100-continue\r\n\r\n".encode()
        )
        assert reader.readline().startswith(b"HTTP/1.1 100")
        assert reader.readline() == b"\r\n"
        connection.sendall(body)
        assert reader.readline().startswith(b"HTTP/1.1 200")
        reader.close()


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x00\xa5", b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"])
def test_7_what_is_no_http_does_not_hurt_the_next_client(zoo: RunningServer, garbage: bytes) -> None:
    host, _, port = zoo.http.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass
    assert httpx.get(zoo.url + "/v2/health/ready", trust_env=False).status_code == 200
