"""Both directions against tritonclient's own HTTP codec, in one process: it is the reading our users rely on."""

import gzip
import json

import numpy as np
import pytest

pytest.importorskip("rapidjson")
http = pytest.importorskip("tritonclient.http")
client_utils = pytest.importorskip("tritonclient.http._utils")

from tensorquay.core.datatypes import DataType  # noqa: E402
from tensorquay.core.messages import InferResponse, RequestedOutput, Timings  # noqa: E402
from tensorquay.core.tensors import Tensor  # noqa: E402
from tensorquay.protocol import compression  # noqa: E402
from tensorquay.protocol.json_bodies import decode_load  # noqa: E402
from tensorquay.protocol.v2_json import decode_infer, encode_infer  # noqa: E402

VALUES = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([[0, 255]], "u1"),
    "UINT16": np.array([[0, 65535]], "u2"),
    "UINT32": np.array([[0, 2**32 - 1]], "u4"),
    "UINT64": np.array([[0, 2**64 - 1]], "u8"),
    "INT8": np.array([[-128, 127]], "i1"),
    "INT16": np.array([[-32768, 32767]], "i2"),
    "INT32": np.array([[-(2**31), 2**31 - 1]], "i4"),
    "INT64": np.array([[-(2**63), 2**63 - 1]], "i8"),
    "FP16": np.array([[0.5, -2.0]], "f2"),
    "FP32": np.array([[0.1, -3.4028235e38, 1e-45]], "f4"),
    "FP64": np.array([[0.1, 1.7976931348623157e308]], "f8"),
    "BYTES": np.array([[b"", "žluť".encode()], [b"a\x00b", b"x" * 1000]], dtype=object),
}


def client_input(name, datatype, *, binary=True):
    values = VALUES[datatype]
    result = http.InferInput(name, list(values.shape), datatype)
    result.set_data_from_numpy(values, binary_data=binary)
    return result


def client_request(inputs, outputs=None, **more):
    options = {
        "request_id": "", "sequence_id": 0, "sequence_start": False, "sequence_end": False,
        "priority": 0, "timeout": None, "custom_parameters": None, **more,
    }  # fmt: skip
    return client_utils._get_inference_request(inputs=inputs, outputs=outputs, **options)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("datatype", VALUES)
def test_what_the_client_sends_arrives(datatype, binary):
    if datatype == "FP16" and not binary:
        pytest.skip("the client refuses it too")
    body, length = client_request([client_input("x", datatype, binary=binary)])
    request, options = decode_infer("m", "", body, length)
    (tensor,) = request.inputs
    assert tensor.datatype.wire == datatype
    assert tensor.array.dtype == DataType.from_wire(datatype).numpy
    assert np.array_equal(tensor.array, VALUES[datatype])
    assert options.default_binary is True


def test_many_inputs_mixed():
    inputs = [client_input(f"{i}{d}", d, binary=i % 2 == 0 or d == "FP16") for i, d in enumerate(VALUES)]
    body, length = client_request(inputs)
    request, _ = decode_infer("m", "", body, length)
    assert [t.name for t in request.inputs] == [f"{i}{d}" for i, d in enumerate(VALUES)]
    for tensor in request.inputs:
        assert np.array_equal(tensor.array, VALUES[tensor.datatype.wire])


def test_everything_else_the_client_can_say():
    outputs = [
        http.InferRequestedOutput("a"),
        http.InferRequestedOutput("b", binary_data=False),
        http.InferRequestedOutput("c", class_count=5),
    ]
    body, length = client_request(
        [client_input("x", "FP32")], outputs, request_id="r", sequence_id=42, sequence_start=True, sequence_end=False,
        priority=3, timeout=1000, custom_parameters={"s": "t", "i": 1, "b": True},
    )  # fmt: skip
    request, options = decode_infer("m", "", body, length)
    assert (request.id, request.priority, request.timeout_us) == ("r", 3, 1000)
    assert request.parameters == {
        "sequence_id": 42, "sequence_start": True, "sequence_end": False, "s": "t", "i": 1, "b": True,
    }  # fmt: skip
    assert request.outputs == [RequestedOutput("a"), RequestedOutput("b"), RequestedOutput("c", 5)]
    assert [options.outputs[name].binary for name in "abc"] == [True, False, True]


def test_a_compressed_request():
    body, length = client_request([client_input("x", "FP32")])
    for coding, pack in (("gzip", gzip.compress), ("deflate", __import__("zlib").compress)):
        plain = compression.decompress(pack(body), coding, 10**6)
        assert np.array_equal(decode_infer("m", "", plain, length)[0].inputs[0].array, VALUES["FP32"])


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_what_we_answer_arrives(binary, coding):
    outputs = [Tensor(d, DataType.from_wire(d), v) for d, v in VALUES.items() if binary or d != "FP16"]
    outputs.append(Tensor("empty", DataType.FP32, np.empty((0, 3), "f4")))
    asked = [http.InferRequestedOutput(t.name, binary_data=binary) for t in outputs]
    body, length = client_request([client_input("x", "FP32")], asked, request_id="r")
    _, options = decode_infer("m", "", body, length)
    parts, header_length = encode_infer(InferResponse("m", "1", "r", outputs, Timings(0, 0, 0, 0, 1)), options)
    assert (header_length is None) is not binary
    answer = b"".join(parts) if coding is None else compression.compress(parts, coding)
    result = http.InferenceServerClient.parse_response_body(
        answer, header_length=header_length, content_encoding=coding
    )
    assert result.get_response()["id"] == "r"
    for tensor in outputs:
        got = result.as_numpy(tensor.name)
        expected = tensor.array
        if tensor.datatype is DataType.BYTES and not binary:
            expected = np.array([[item.decode() for item in row] for row in expected], dtype=object)
        assert np.array_equal(got, expected), tensor.name
        assert got.shape == tensor.shape


def test_shared_memory_as_the_client_writes_it():
    class Regions:
        def read(self, region, offset, byte_size):
            assert (region, offset, byte_size) == ("in", 4, 12)
            return memoryview(VALUES["FP32"].tobytes())

        def write(self, region, offset, data):
            raise AssertionError

    given = http.InferInput("x", [1, 3], "FP32")
    given.set_shared_memory("in", 12, offset=4)
    asked = http.InferRequestedOutput("y")
    asked.set_shared_memory("out", 64)
    body, length = client_request([given], [asked])
    request, options = decode_infer("m", "", body, length, shm=Regions())
    assert np.array_equal(request.inputs[0].array, VALUES["FP32"])
    assert (options.outputs["y"].shm.region, options.outputs["y"].shm.byte_size) == ("out", 64)


def test_a_load_as_the_client_writes_it(monkeypatch):
    sent = {}

    def post(self, request_uri, request_body, headers, query_params):
        sent["body"] = request_body

        class Answer:
            status_code = 200

            def read(self):
                return b""

        return Answer()

    monkeypatch.setattr(http.InferenceServerClient, "_post", post)
    client = http.InferenceServerClient("127.0.0.1:1")
    client.load_model("m", config=json.dumps({"name": "m"}), files={"file:1/model.onnx": b"\x00\x01"})
    client.close()
    body = sent["body"]
    got = decode_load(body.encode() if isinstance(body, str) else body)
    assert got.files == {"1/model.onnx": b"\x00\x01"}
    assert json.loads(got.config) == {"name": "m"}
