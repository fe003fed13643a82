"""Inference over gRPC: ModelInferRequest, ModelInferResponse and the streamed answer ⇄ core messages.

Raw contents are views over the received bytes when the message is large. Answers always use raw contents, and are put
together from cached pieces because their heads repeat from call to call.
Source: V2 gRPC, and Triton's extensions of it (docs/protocol.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.messages import InferRequest, InferResponse, Parameter, RequestedOutput
from tensorquay.core.packed import Ride
from tensorquay.core.tensors import Tensor, element_count, from_buffer, to_buffer
from tensorquay.protocol.fields import (
    MAX_PARAMETERS,
    check_count,
    check_id,
    check_name,
    check_unique,
    datatype_of,
)
from tensorquay.protocol.options import WireOptions, requested_outputs, split_parameters
from tensorquay.protocol.proto_scan import split_raw
from tensorquay.protocol.schema import message_class, parse, serialise, text
from tensorquay.protocol.shared_memory import SharedMemory, ShmTarget, read_tensor, target_of, write_tensor

_REQUEST = "inference.ModelInferRequest"
_RESPONSE = "inference.ModelInferResponse"

_LARGE_BYTES = 32 * 1024
"""From here on finding the raw contents ourselves is cheaper than having them copied twice."""

_TYPED = {
    DataType.BOOL: "bool_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}
_NARROW = frozenset({DataType.UINT8, DataType.UINT16, DataType.INT8, DataType.INT16})
_NO_OPTIONS = WireOptions(default_binary=True)
_NOTHING: Mapping[str, Parameter] = {}


def decode_infer(
    data: bytes | memoryview, *, shm: SharedMemory | None = None, arrival_ns: int = 0
) -> tuple[InferRequest, WireOptions]:
    """The request in `data`, and how its answer shall travel.

    Args: data: must stay as it is while the request lives; tensors may be views over it. shm: the registered regions;
        None when shared memory is off.
    Raises: InvalidArgument with a precise text; Unimplemented for shared memory when it is off.
    """
    raw: Sequence[bytes | memoryview]
    if len(data) > _LARGE_BYTES:
        rest, raw = split_raw(data)
        message = parse(_REQUEST, rest)
    else:
        message = parse(_REQUEST, data)
        raw = message.raw_input_contents
    reserved = split_parameters(_parameters("the request", message.parameters))
    check_count("inputs", len(message.inputs))
    inputs = _inputs(message.inputs, raw, shm)
    check_unique(inputs)
    outputs: list[RequestedOutput] | None = None
    options = _NO_OPTIONS
    if len(message.outputs):
        check_count("requested outputs", len(message.outputs))
        asked = [
            (check_name("outputs", index, item.name), _parameters("a requested output", item.parameters))
            for index, item in enumerate(message.outputs)
        ]
        outputs, wires = requested_outputs(asked, default_binary=True, shm_allowed=shm is not None)
        options = WireOptions(True, wires, reserved.empty_final_response)
    elif reserved.empty_final_response:
        options = WireOptions(default_binary=True, empty_final_response=True)
    request = InferRequest(
        model_name=message.model_name,
        model_version=message.model_version,
        id=check_id(message.id),
        inputs=inputs,
        outputs=outputs,
        parameters=reserved.custom,
        priority=reserved.priority,
        timeout_us=reserved.timeout_us,
        arrival_ns=arrival_ns,
    )
    return request, options


def is_all_raw(data: bytes | memoryview) -> bool:
    """Whether the (valid) request in `data` has all its tensors in raw_input_contents, one per input."""
    try:
        rest, raw = split_raw(data)
    except InvalidArgument:
        return False  # groups, or more fields than the scan counts: the library takes them
    message = parse(_REQUEST, rest)
    return len(raw) == len(message.inputs) and not any(
        item.HasField("contents") or len(item.parameters) for item in message.inputs
    )


def raw_mark(size: int) -> bytes:
    """What stands before `size` bytes of raw_input_contents: the field's tag and its length."""
    return b"\x3a" + _varint(size)


def request_id(data: bytes | memoryview) -> str:
    """The id in a ModelInferRequest that was refused; empty when it has none, or cannot be read at all."""
    try:
        rest = split_raw(data)[0] if len(data) > _LARGE_BYTES else data
        return check_id(parse(_REQUEST, rest).id)
    except InvalidArgument:
        return ""


def encode_infer(response: InferResponse, options: WireOptions, *, shm: SharedMemory | None = None) -> bytes:
    """`response` as a serialised ModelInferResponse.

    Raises: InvalidArgument when an output does not fit its shared memory.
    """
    ride = response.outputs
    if type(ride) is Ride and not response.id and not response.parameters:
        # Riders of one run are mostly answered alike: only the bytes of their rows differ.
        alike = "proto", ride.stop - ride.start, ride.wanted
        memo = ride.run.memo
        steps = memo.get(alike)
        if steps is None:
            steps = memo[alike] = _steps(response, ride)
        if steps and (not options.outputs or not any(wire.shm is not None for wire in options.outputs.values())):
            parts: list[bytes | memoryview] = []
            for before, position in steps:
                parts += (before, ride.buffer(position))
            return b"".join(parts)
    return b"".join(encode_infer_parts(response, options, shm=shm))


def _steps(response: InferResponse, ride: Ride) -> tuple[tuple[bytes, int], ...]:
    """The message of an answer without the bytes of its outputs: what stands before those of each position.

    Empty when it has none, or one whose bytes are not simply those of its rows.
    """
    run = ride.run
    positions = range(len(run.specs)) if ride.wanted is None else ride.wanted
    if any(run.specs[position].datatype is DataType.BYTES for position in positions):
        return ()
    lead = _head(response.model_name, response.model_version) + b"".join(
        _output(tensor.name, tensor.datatype.wire, tensor.array.shape) for tensor in ride
    )
    steps: list[tuple[bytes, int]] = []
    for position in positions:
        steps.append((lead + b"\x32" + _varint(len(ride.buffer(position))), position))
        lead = b""
    return tuple(steps)


def encode_infer_parts(
    response: InferResponse, options: WireOptions, *, shm: SharedMemory | None = None
) -> list[bytes | memoryview]:
    """As `encode_infer`, in parts whose concatenation is the message; tensor data is not copied where contiguous."""
    parts: list[bytes | memoryview] = [_head(response.model_name, response.model_version)]
    if response.id:
        encoded = text(response.id).encode()
        parts.append(b"\x1a" + _varint(len(encoded)) + encoded)
    if response.parameters:
        parts.append(_with_parameters(response.parameters))
    raw: list[bytes | memoryview] = []
    wires = options.outputs
    for tensor in response.outputs:
        wire = wires.get(tensor.name) if wires else None
        shape = tensor.array.shape
        if wire is not None and wire.shm is not None:
            write_tensor(shm, wire.shm, tensor)
            parts.append(_output_message(tensor.name, tensor.datatype.wire, shape, wire.shm))
            raw.append(b"\x32\x00")
            continue
        parts.append(_output(tensor.name, tensor.datatype.wire, shape))
        data = to_buffer(tensor)
        raw.append(b"\x32" + _varint(len(data)))
        raw.append(data)
    return parts + raw


def encode_stream_response(response: InferResponse, options: WireOptions, *, shm: SharedMemory | None = None) -> bytes:
    """`response` as one message of ModelStreamInfer. A final marker is a response parameter: `triton_final_response`.

    Raises: InvalidArgument when an output does not fit its shared memory.
    """
    body = encode_infer(response, options, shm=shm)
    return b"\x12" + _varint(len(body)) + body


def encode_stream_error(message: str, request_id: str = "") -> bytes:
    """A failed request as one message of ModelStreamInfer: the stream stays open, `request_id` says whose it is."""
    answer = message_class("inference.ModelStreamInferResponse")(error_message=text(message))
    if request_id:
        answer.infer_response.id = text(request_id)
    return serialise(answer)


def _inputs(items: Any, raw: Sequence[bytes | memoryview], shm: SharedMemory | None) -> list[Tensor]:
    used = 0
    tensors: list[Tensor] = []
    for index, item in enumerate(items):
        name = check_name("inputs", index, item.name)
        datatype = datatype_of(name, item.datatype)
        shape = list(item.shape)
        count = element_count(name, shape)
        target = None
        if len(item.parameters):
            what = f"input '{name}'"
            target = target_of(what, _parameters(what, item.parameters), allowed=shm is not None)
        typed = item.HasField("contents")
        if target is not None:
            if typed:
                raise InvalidArgument(f"input '{name}': has 'contents' and also a shared-memory region, give one")
            tensors.append(read_tensor(shm, target, name, datatype, shape))
        elif typed:
            if len(raw):
                raise InvalidArgument(
                    f"contents field must not be specified when using raw_input_contents, as for input '{name}'",
                    facts={"input": name},
                )
            array = _typed(name, datatype, shape, count, item.contents)
            tensors.append(Tensor(name, datatype, array.reshape(shape)))
        elif used < len(raw):
            tensors.append(from_buffer(name, datatype, shape, raw[used]))
            used += 1
        elif count == 0 and not len(raw):
            # Nothing to send: serialisers leave out both the typed contents and the empty raw entry.
            tensors.append(from_buffer(name, datatype, shape, b""))
        else:
            raise InvalidArgument(
                f"input '{name}': has no data: expected 'contents', an entry of raw_input_contents "
                f"(there are {len(raw)}) or a shared-memory region",
                facts={"input": name},
            )
    if used != len(raw):
        raise InvalidArgument(
            f"unexpected additional input data: {len(raw)} entries in raw_input_contents, "
            f"but {used} inputs take their data from there",
            facts={"expected": used, "got": len(raw)},
        )
    return tensors


def _typed(name: str, datatype: DataType, shape: list[int], count: int, contents: Any) -> Array:
    """The flat array in typed `contents`."""
    field = _TYPED.get(datatype)
    if field is None:
        raise InvalidArgument(
            f"input '{name}': {datatype.wire} has no typed contents, send it in raw_input_contents",
            facts={"input": name, "got": datatype.wire},
        )
    for descriptor, _ in contents.ListFields():
        if descriptor.name != field:
            raise InvalidArgument(
                f"input '{name}': {datatype.wire} is sent in '{field}', got '{descriptor.name}'",
                facts={"input": name, "expected": field, "got": descriptor.name},
            )
    values = getattr(contents, field)
    if len(values) != count:
        raise InvalidArgument(
            f"input '{name}': shape {shape} has {count} elements, but '{field}' holds {len(values)}",
            facts={"input": name, "expected": count, "got": len(values)},
        )
    if datatype is DataType.BYTES:
        items = np.empty(count, dtype=np.object_)
        items[:] = list(values)
        return items
    if datatype not in _NARROW:
        return np.fromiter(values, dtype=datatype.numpy, count=count)
    wide = np.fromiter(values, dtype=np.int64, count=count)
    limits = np.iinfo(datatype.numpy)
    outside = (wide < limits.min) | (wide > limits.max)
    if outside.any():
        index = int(outside.argmax())
        raise InvalidArgument(
            f"input '{name}': element {index} is out of range for {datatype.wire} "
            f"({limits.min} to {limits.max}): {int(wide[index])}",
            facts={"input": name, "index": index},
        )
    return wide.astype(datatype.numpy)


def _parameters(what: str, said: Any) -> Mapping[str, Parameter]:
    count = len(said)
    if not count:
        return _NOTHING
    check_count(f"parameters at {what}", count, MAX_PARAMETERS)
    parameters: dict[str, Parameter] = {}
    for key, value in said.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidArgument(f"{what}: parameter '{key:.128}' has no value")
        parameters[key] = getattr(value, choice)
    return parameters


@lru_cache(maxsize=1024)
def _head(model_name: str, model_version: str) -> bytes:
    message = message_class(_RESPONSE)(model_name=text(model_name), model_version=text(model_version))
    return serialise(message)


@lru_cache(maxsize=4096)
def _output(name: str, wire: str, shape: tuple[int, ...]) -> bytes:
    return _output_message(name, wire, shape, None)


def _output_message(name: str, wire: str, shape: tuple[int, ...], target: ShmTarget | None) -> bytes:
    """A ModelInferResponse that holds this one output: serialised messages may be concatenated."""
    message = message_class(_RESPONSE)()
    output = message.outputs.add(name=text(name), datatype=wire, shape=shape)
    if target is not None:
        output.parameters["shared_memory_region"].string_param = target.region
        output.parameters["shared_memory_byte_size"].int64_param = target.byte_size
        if target.offset:
            output.parameters["shared_memory_offset"].int64_param = target.offset
    return serialise(message)


def _with_parameters(parameters: Mapping[str, Parameter]) -> bytes:
    message = message_class(_RESPONSE)()
    for key, value in parameters.items():
        slot = message.parameters[text(key)]
        if isinstance(value, bool):
            slot.bool_param = value
        elif isinstance(value, int):
            if value < 2**63:
                slot.int64_param = value
            else:
                slot.uint64_param = value
        elif isinstance(value, float):
            slot.double_param = value
        else:
            slot.string_param = text(value)
    return serialise(message)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
