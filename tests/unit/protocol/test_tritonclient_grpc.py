"""Both directions against tritonclient's own gRPC codec, in one process with our private pool."""

import numpy as np
import pytest

grpcclient = pytest.importorskip("tritonclient.grpc")
client_utils = pytest.importorskip("tritonclient.grpc._utils")

from tensorquay.core.datatypes import DataType  # noqa: E402
from tensorquay.core.messages import InferResponse, RequestedOutput, Timings  # noqa: E402
from tensorquay.core.tensors import Tensor  # noqa: E402
from tensorquay.protocol.v2_proto import decode_infer, encode_infer  # noqa: E402

pb = grpcclient.service_pb2

VALUES = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], "u1"),
    "INT64": np.array([[-(2**63), 2**63 - 1]], "i8"),
    "FP16": np.array([[0.5, -2.0]], "f2"),
    "FP32": np.array([[0.1, np.inf, np.nan]], "f4"),
    "FP64": np.arange(10_000, dtype="f8").reshape(100, 100),
    "BYTES": np.array([[b"", b"\xff\x00"], [b"a", b"x" * 1000]], dtype=object),
}


def client_request(inputs, outputs=None, **more):
    options = {
        "model_version": "", "request_id": "", "sequence_id": 0, "sequence_start": False, "sequence_end": False,
        "priority": 0, "timeout": None, "parameters": None, **more,
    }  # fmt: skip
    request = client_utils._get_inference_request(model_name="m", inputs=inputs, outputs=outputs, **options)
    return request.SerializeToString()


def client_input(name, datatype):
    result = grpcclient.InferInput(name, list(VALUES[datatype].shape), datatype)
    result.set_data_from_numpy(VALUES[datatype])
    return result


def same(got, expected):
    return np.array_equal(got, expected, equal_nan=expected.dtype.kind == "f")


def test_what_the_client_sends_arrives():
    request, options = decode_infer(client_request([client_input(d, d) for d in VALUES]))
    assert request.outputs is None
    assert not options.outputs
    for tensor in request.inputs:
        assert tensor.array.dtype == DataType.from_wire(tensor.name).numpy
        assert same(tensor.array, VALUES[tensor.name]), tensor.name


def test_everything_else_the_client_can_say():
    outputs = [grpcclient.InferRequestedOutput("a"), grpcclient.InferRequestedOutput("b", class_count=5)]
    request, _ = decode_infer(
        client_request(
            [client_input("x", "BOOL")], outputs, model_version="2", request_id="r", sequence_id="s",
            sequence_start=True, priority=3, timeout=1000, parameters={"t": "u", "i": 1, "b": True},
        )
    )  # fmt: skip
    assert (request.model_version, request.id, request.priority, request.timeout_us) == ("2", "r", 3, 1000)
    assert request.parameters == {
        "sequence_id": "s", "sequence_start": True, "sequence_end": False, "t": "u", "i": 1, "b": True,
    }  # fmt: skip
    assert request.outputs == [RequestedOutput("a"), RequestedOutput("b", 5)]


def test_what_we_answer_arrives():
    outputs = [Tensor(d, DataType.from_wire(d), v) for d, v in VALUES.items()]
    _, options = decode_infer(client_request([client_input("x", "BOOL")]))
    data = encode_infer(InferResponse("m", "1", "r", outputs, Timings(0, 0, 0, 0, 1)), options)
    result = grpcclient.InferResult(pb.ModelInferResponse.FromString(data))
    assert result.get_response().id == "r"
    for tensor in outputs:
        assert same(result.as_numpy(tensor.name), tensor.array), tensor.name
