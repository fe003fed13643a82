"""Requests and answers as plain values, and their wire forms written down once more.

Deliberately not the product's codecs: what the server reads and writes is checked against these.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": np.uint16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
"""Wire name → how a test holds it; BF16 as its bits."""

TYPED = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True)
class Given:
    """A tensor as a client says it: `shape` need not fit `flat`, that is what some tests are about."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    flat: tuple[Any, ...]

    def raw(self) -> bytes:
        """The binary wire form of `flat`."""
        if self.datatype == "BYTES":
            return b"".join(struct.pack("<I", len(item)) + item for item in self.flat)
        return np.array(self.flat, dtype=NUMPY.get(self.datatype, np.uint8)).tobytes()

    def as_json(self) -> list[Any]:
        """The flat `data` member."""
        return [item.decode() if isinstance(item, bytes) else item for item in self.flat]


def given(name: str, datatype: str, data: Any, shape: Sequence[int] | None = None) -> Given:
    """A tensor from nested lists, or from flat ones and a shape."""
    if datatype == "BYTES":
        flat, found = _walk(data)
    else:
        array = np.array(data, dtype=NUMPY[datatype])
        flat, found = array.reshape(-1).tolist(), array.shape
    return Given(name, datatype, tuple(found if shape is None else shape), tuple(flat))


def _walk(data: Any) -> tuple[list[bytes], tuple[int, ...]]:
    if isinstance(data, bytes):
        return [data], ()
    parts = [_walk(item) for item in data]
    return [item for flat, _ in parts for item in flat], (len(data), *(parts[0][1] if parts else ()))


def taken(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Given:
    """A tensor from its binary wire form."""
    if datatype == "BYTES":
        items, position = [], 0
        while position < len(raw):
            (length,) = struct.unpack_from("<I", raw, position)
            items.append(raw[position + 4 : position + 4 + length])
            position += 4 + length
        return Given(name, datatype, tuple(shape), tuple(items))
    array = np.frombuffer(raw, dtype=NUMPY[datatype])
    return Given(name, datatype, tuple(shape), tuple(array.tolist()))


@dataclass(frozen=True)
class Call:
    """One inference request."""

    model: str
    inputs: tuple[Given, ...]
    version: str = ""
    outputs: tuple[tuple[str, Mapping[str, Any]], ...] | None = None
    id: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    model: str
    version: str
    id: str
    outputs: tuple[Given, ...]


@dataclass(frozen=True)
class Refusal:
    """An error: `status` in the door's own terms (None where it has none), `text` for people."""

    status: int | str | None
    text: str


def json_request(call: Call, *, binary: bool) -> tuple[dict[str, Any], bytes]:
    """The JSON part of `call`, and the tensor bytes behind it."""
    tail = b""
    inputs = []
    for tensor in call.inputs:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if binary:
            raw = tensor.raw()
            entry["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            entry["data"] = tensor.as_json()
        inputs.append(entry)
    document: dict[str, Any] = {"inputs": inputs}
    if call.id:
        document["id"] = call.id
    parameters = dict(call.parameters)
    if binary:
        parameters["binary_data_output"] = True
    if parameters:
        document["parameters"] = parameters
    if call.outputs is not None:
        document["outputs"] = [
            {"name": name, **({"parameters": dict(said)} if said else {})} for name, said in call.outputs
        ]
    return document, tail
