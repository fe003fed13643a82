"""The ways into the server, behind one interface: a conformance case does not know which one it goes through.

Each door checks on the way what is true of every answer: exact content types, lengths that add up, no path of this
machine in an error's text.
"""

from __future__ import annotations

import json
import re
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
from tritonclient.grpc import service_pb2, service_pb2_grpc

from composition import EngineHouse
from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferRequest, RequestedOutput
from tensorquay.core.tensors import from_buffer
from wire import TYPED, Answer, Call, Given, Refusal, json_request, taken

KINDS: dict[str, tuple[int, int]] = {
    "INVALID_ARGUMENT": (400, 3),
    "NOT_FOUND": (404, 5),
    "UNAVAILABLE": (503, 14),
    "UNIMPLEMENTED": (501, 12),
    "INTERNAL": (500, 13),
    "ALREADY_EXISTS": (400, 6),
    "RESOURCE_EXHAUSTED": (429, 8),
    "DEADLINE_EXCEEDED": (504, 4),
}
"""Kind of failure → HTTP status and gRPC code: the protocol's table, and ours for overload and deadlines."""

_LEAK = re.compile(r"(?:^|[\s'\"(])/(?:home|root|tmp|usr|work|var|opt)/|Traceback|\.py\b")


class Door(Protocol):
    """A way in. `infer` answers or refuses; `status_of` is what a kind of failure looks like here."""

    def infer(self, call: Call) -> Answer | Refusal:
        """One request, there and back."""

    def status_of(self, kind: str) -> int | str | None:
        """The status that says `kind`."""

    def close(self) -> None:
        """Release connections."""


def checked(text: str) -> str:
    """An error's text, which must say something and must not tell where on this machine anything is."""
    assert text.strip()
    assert not _LEAK.search(text), f"the text leaks: {text}"
    return text


class InProcess:
    """Straight into `InferenceEngine`."""

    def __init__(self, house: EngineHouse) -> None:
        self._house = house

    def infer(self, call: Call) -> Answer | Refusal:
        request = InferRequest(
            model_name=call.model,
            model_version=call.version,
            id=call.id,
            inputs=[from_buffer(t.name, DataType.from_wire(t.datatype), t.shape, t.raw()) for t in call.inputs],
            outputs=None
            if call.outputs is None
            else [RequestedOutput(name, said.get("classification", 0)) for name, said in call.outputs],
            parameters={k: v for k, v in call.parameters.items() if k not in {"priority", "timeout"}},
            priority=call.parameters.get("priority", 0),
            timeout_us=call.parameters.get("timeout", 0),
            arrival_ns=self._house.engine.clock.now_ns(),
        )
        try:
            response = self._house.call(self._house.engine.infer_async(request))
        except ServingError as error:
            return Refusal(error.kind.name, checked(error.message))
        return Answer(
            response.model_name,
            response.model_version,
            response.id,
            tuple(
                Given(t.name, t.datatype.wire, t.shape, tuple(t.array.reshape(-1).tolist())) for t in response.outputs
            ),
        )

    def status_of(self, kind: str) -> str:
        return kind

    def close(self) -> None:
        """The house is the fixture's."""


class Http:
    """JSON over HTTP, tensors in it (`binary` False) or behind it."""

    def __init__(self, url: str, *, binary: bool) -> None:
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=60)
        self._binary = binary

    def infer(self, call: Call) -> Answer | Refusal:
        document, tail = json_request(call, binary=self._binary)
        head = json.dumps(document).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))} if self._binary else {}
        version = f"/versions/{call.version}" if call.version else ""
        path = f"/v2/models/{quote(call.model, safe='')}{version}/infer"
        response = self._client.post(path, content=head + tail, headers=headers)
        if response.status_code != 200:
            assert response.headers["content-type"] == "application/json"
            return Refusal(response.status_code, checked(response.json()["error"]))
        return read_answer(response)

    def status_of(self, kind: str) -> int:
        return KINDS[kind][0]

    def close(self) -> None:
        self._client.close()


def read_answer(response: httpx.Response) -> Answer:
    """The answer in a 200 of the infer route, its framing checked."""
    length = response.headers.get("inference-header-content-length")
    if length is None:
        assert response.headers["content-type"] == "application/json"
    else:
        assert response.headers["content-type"] == "application/octet-stream"
    body = response.content
    head, tail = (body, b"") if length is None else (body[: int(length)], body[int(length) :])
    document = json.loads(head)
    outputs = []
    for output in document["outputs"]:
        shape = tuple(output["shape"])
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            assert "data" not in output
            assert length is not None
            outputs.append(taken(output["name"], output["datatype"], shape, tail[:size]))
            tail = tail[size:]
        else:
            flat = (item.encode() if isinstance(item, str) else item for item in output["data"])
            outputs.append(Given(output["name"], output["datatype"], shape, tuple(flat)))
    assert tail == b""
    assert set(document) <= {"id", "model_name", "model_version", "outputs", "parameters"}
    return Answer(document["model_name"], document["model_version"], document.get("id", ""), tuple(outputs))


class Grpc:
    """ModelInfer with raw or typed contents, through tritonclient's own generated messages."""

    def __init__(self, address: str, *, typed: bool = False) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._typed = typed

    def infer(self, call: Call) -> Answer | Refusal:
        try:
            return read_message(self.stub.ModelInfer(grpc_request(call, typed=self._typed), timeout=60))
        except grpc.RpcError as error:
            return Refusal(error.code().value[0], checked(error.details()))

    def status_of(self, kind: str) -> int:
        return KINDS[kind][1]

    def close(self) -> None:
        self._channel.close()


class GrpcStream(Grpc):
    """ModelStreamInfer, one request per stream; a failure is a message and has no status."""

    def infer(self, call: Call) -> Answer | Refusal:
        (message,) = self.stub.ModelStreamInfer(iter([grpc_request(call)]), timeout=60)
        if message.error_message:
            assert message.infer_response.id == call.id
            return Refusal(None, checked(message.error_message))
        return read_message(message.infer_response)

    def status_of(self, kind: str) -> None:
        return None


def grpc_request(call: Call, *, typed: bool = False) -> Any:
    """`call` as tritonclient's ModelInferRequest."""
    request = service_pb2.ModelInferRequest(model_name=call.model, model_version=call.version, id=call.id)
    _fill(request.parameters, call.parameters)
    for tensor in call.inputs:
        entry = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if typed:
            # FP16 and BF16 have no field of their own: what a hopeful client would try.
            getattr(entry.contents, TYPED.get(tensor.datatype, "fp32_contents")).extend(tensor.flat)
        else:
            request.raw_input_contents.append(tensor.raw())
    for name, said in call.outputs or ():
        _fill(request.outputs.add(name=name).parameters, said)
    return request


def _fill(slots: Any, values: Any) -> None:
    for key, value in values.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
        setattr(slots[key], kind, value)


def read_message(message: Any) -> Answer:
    """A ModelInferResponse; Triton's clients look for the data in raw_output_contents only."""
    assert len(message.raw_output_contents) == len(message.outputs)
    assert not any(output.HasField("contents") for output in message.outputs)
    outputs = (
        taken(output.name, output.datatype, output.shape, raw)
        for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    )
    return Answer(message.model_name, message.model_version, message.id, tuple(outputs))
