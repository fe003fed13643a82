"""The inference request and response of the V2 protocol over HTTP: JSON, with or without binary tensor data.

Unknown members of objects are ignored, as Triton does; known ones must have the right type. The bytes behind the JSON
are `v2_binary.py`'s; the elements in `data` are `json_tensors.py`'s.
Source: V2 REST "Inference", and the binary_tensor_data, parameters and shared-memory extensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from tensorquay.core.errors import InvalidArgument, ModelFailed
from tensorquay.core.messages import InferRequest, InferResponse, Parameter
from tensorquay.core.tensors import Tensor, element_count, to_buffer
from tensorquay.protocol.fields import (
    MAX_PARAMETERS,
    check_count,
    check_id,
    check_name,
    check_unique,
    datatype_of,
)
from tensorquay.protocol.json_tensors import array_from_data, data_of
from tensorquay.protocol.json_text import kind_of, parse_json
from tensorquay.protocol.options import (
    BINARY_DEFAULTS,
    JSON_DEFAULTS,
    WireOptions,
    requested_outputs,
    split_parameters,
)
from tensorquay.protocol.shared_memory import SharedMemory, read_tensor, target_of, write_tensor
from tensorquay.protocol.v2_binary import BinaryTail

_WHAT = "the inference request"
_NOTHING: Mapping[str, Parameter] = {}
_SCALARS = frozenset({bool, int, float, str})


def decode_infer(
    model_name: str,
    model_version: str,
    body: bytes | memoryview,
    header_length: int | None,
    *,
    shm: SharedMemory | None = None,
    arrival_ns: int = 0,
) -> tuple[InferRequest, WireOptions]:
    """The request in `body`, and how its answer shall travel.

    Args:
        body: uncompressed. Tensors are views over it: it must stay as it is while the request lives.
        header_length: bytes of the JSON part (header Inference-Header-Content-Length); None: all of it is JSON. A
            length of 0 is a raw request and goes to `v2_binary.decode_raw`.
        shm: the registered regions; None when shared memory is off.

    Raises: InvalidArgument with a precise text; Unimplemented for shared memory when it is off.
    """
    if header_length is None:
        head = body if isinstance(body, bytes) else bytes(body)
        tail = BinaryTail(b"")
    else:
        if not 0 <= header_length <= len(body):
            raise InvalidArgument(
                f"Inference-Header-Content-Length is {header_length}, expected 0 to {len(body)} (the body's length)"
            )
        view = memoryview(body)
        head, tail = bytes(view[:header_length]), BinaryTail(view[header_length:])
    if len(head) == 0:
        raise InvalidArgument(f"{_WHAT} is empty, expected a JSON object with 'inputs'")
    document = parse_json(head, _WHAT)
    if type(document) is not dict:
        raise InvalidArgument(f"{_WHAT} must be a JSON object, got {kind_of(document)}")

    request_id = document.get("id", "")
    if type(request_id) is not str:
        raise InvalidArgument(f"'id' must be a string, got {kind_of(request_id)}")
    said = document.get("parameters")
    reserved = split_parameters(_parameters("the request", said) if said is not None else _NOTHING)

    inputs = document.get("inputs")
    if type(inputs) is not list:
        missing = "is missing" if "inputs" not in document else f"must be an array, got {kind_of(inputs)}"
        raise InvalidArgument(f"'inputs' {missing} in {_WHAT}")
    check_count("inputs", len(inputs))
    no_booleans = b"true" not in head and b"false" not in head
    tensors = [_input(index, item, tail, shm, no_booleans=no_booleans) for index, item in enumerate(inputs)]
    check_unique(tensors)
    tail.finish()

    default_binary = reserved.binary_data_output
    asked = document.get("outputs")
    outputs = None
    options = BINARY_DEFAULTS if default_binary else JSON_DEFAULTS
    if asked is not None:
        if type(asked) is not list:
            raise InvalidArgument(f"'outputs' must be an array, got {kind_of(asked)}")
        check_count("requested outputs", len(asked))
        if asked:  # an empty list means all of them, as if it were absent
            named = [_output(index, item) for index, item in enumerate(asked)]
            outputs, wires = requested_outputs(named, default_binary=default_binary, shm_allowed=shm is not None)
            options = WireOptions(default_binary, wires)
    if reserved.empty_final_response:
        options = replace(options, empty_final_response=True)
    request = InferRequest(
        model_name=model_name,
        model_version=model_version,
        id=check_id(request_id),
        inputs=tensors,
        outputs=outputs,
        parameters=reserved.custom,
        priority=reserved.priority,
        timeout_us=reserved.timeout_us,
        arrival_ns=arrival_ns,
    )
    return request, options


def encode_infer(
    response: InferResponse, options: WireOptions, *, shm: SharedMemory | None = None
) -> tuple[list[bytes | memoryview], int | None]:
    """The body of `response`, in parts, and its Inference-Header-Content-Length (None: plain JSON).

    Parts after the first are binary outputs in order, views over the response's own arrays where they are contiguous.
    Raises: InvalidArgument when an output cannot be JSON, or does not fit its shared memory.
    """
    tail: list[bytes | memoryview] = []
    outputs: list[dict[str, Any]] = []
    any_binary = False
    wires = options.outputs
    for tensor in response.outputs:
        wire = wires.get(tensor.name)
        entry: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype.wire,
            "shape": tensor.array.shape,
        }
        if wire is not None and wire.shm is not None:
            # Without parameters, as Triton has it: its C++ client takes any there for binary data, and fails without.
            write_tensor(shm, wire.shm, tensor)
        elif options.default_binary if wire is None else wire.binary:
            data = to_buffer(tensor)
            any_binary = True
            entry["parameters"] = {"binary_data_size": len(data)}
            if len(data):
                tail.append(data)
        else:
            entry["data"] = data_of(tensor)
        outputs.append(entry)
    document: dict[str, Any] = {}
    if response.id:
        document["id"] = response.id
    document["model_name"] = response.model_name
    document["model_version"] = response.model_version
    if response.parameters:
        document["parameters"] = dict(response.parameters)
    document["outputs"] = outputs
    try:
        head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    except orjson.JSONEncodeError as exc:
        raise ModelFailed(f"the answer of model '{response.model_name}' cannot be written as JSON: {exc}") from exc
    return [head, *tail], len(head) if any_binary else None


def _input(index: int, item: Any, tail: BinaryTail, shm: SharedMemory | None, *, no_booleans: bool) -> Tensor:
    if type(item) is not dict:
        raise InvalidArgument(f"inputs[{index}] must be an object, got {kind_of(item)}")
    name = _name("inputs", index, item)
    shape = item.get("shape")
    if type(shape) is not list:
        missing = "is missing" if "shape" not in item else f"must be an array of integers, got {kind_of(shape)}"
        raise InvalidArgument(f"input '{name}': 'shape' {missing}", facts={"input": name})
    count = element_count(name, shape)
    wire_type = item.get("datatype")
    if type(wire_type) is not str:
        missing = "is missing" if "datatype" not in item else f"must be a string, got {kind_of(wire_type)}"
        raise InvalidArgument(f"input '{name}': 'datatype' {missing}", facts={"input": name})
    datatype = datatype_of(name, wire_type)
    said = item.get("parameters")
    if said is not None:
        parameters = _parameters(f"input '{name}'", said)
        target = target_of(f"input '{name}'", parameters, allowed=shm is not None)
        size = parameters.get("binary_data_size")
        if target is not None or size is not None:
            if "data" in item:
                raise InvalidArgument(
                    f"input '{name}': has 'data' and also "
                    f"{'a shared-memory region' if target is not None else 'binary_data_size'}, give one of them",
                    facts={"input": name},
                )
            if target is None:
                return tail.take(name, datatype, shape, size)
            if size is not None:
                raise InvalidArgument(f"input '{name}': has 'binary_data_size' and also a shared-memory region")
            return read_tensor(shm, target, name, datatype, shape)
    if "data" not in item:
        raise InvalidArgument(
            f"input '{name}': has no data: expected 'data', parameter 'binary_data_size' or a shared-memory region",
            facts={"input": name},
        )
    array = array_from_data(name, datatype, shape, count, item["data"], no_booleans=no_booleans)
    return Tensor(name, datatype, array)


def _output(index: int, item: Any) -> tuple[str, Mapping[str, Parameter]]:
    if type(item) is not dict:
        raise InvalidArgument(f"outputs[{index}] must be an object, got {kind_of(item)}")
    name = _name("outputs", index, item)
    said = item.get("parameters")
    return name, _NOTHING if said is None else _parameters(f"output '{name}'", said)


def _name(where: str, index: int, item: dict[str, Any]) -> str:
    name = item.get("name")
    if type(name) is str:
        return check_name(where, index, name)
    missing = "is missing" if "name" not in item else f"must be a string, got {kind_of(name)}"
    raise InvalidArgument(f"{where}[{index}]: 'name' {missing}")


def _parameters(what: str, said: Any) -> dict[str, Parameter]:
    """`said` as parameters: an object of at most `MAX_PARAMETERS` plain values."""
    if type(said) is not dict:
        raise InvalidArgument(f"{what}: 'parameters' must be an object, got {kind_of(said)}")
    check_count(f"parameters at {what}", len(said), MAX_PARAMETERS)
    for key, value in said.items():
        if type(value) not in _SCALARS:
            raise InvalidArgument(
                f"{what}: parameter '{key:.128}' must be a string, number or boolean, got {kind_of(value)}"
            )
    parameters: dict[str, Parameter] = said
    return parameters
