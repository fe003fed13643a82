"""Answers like one before: everything but the tensors' data is written once per shape and used again.

An `AnswerShapes` never decides how an answer looks: it takes apart what the codec wrote, checks that putting it
together gives the same bytes, and does only that for the next answer of the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from tensorquay.core.datatypes import DataType
from tensorquay.core.messages import InferResponse
from tensorquay.core.tensors import Tensor, to_buffer
from tensorquay.protocol.json_tensors import data_of
from tensorquay.protocol.options import WireOptions
from tensorquay.transport.http_message import JSON, OCTETS, HttpReply, render_head

_MAX_SHAPES = 512


@dataclass(frozen=True, slots=True)
class _Shape:
    """`options` is kept so that no other object can have its id. `head` is empty for JSON, whose length varies."""

    options: WireOptions
    binary: bool
    pieces: tuple[bytes, ...]
    head: bytes


class AnswerShapes:
    """Shapes of the answers of one route. Loop-confined; owner: the route."""

    def __init__(self) -> None:
        self._shapes: dict[object, _Shape] = {}

    def fill(self, response: InferResponse, options: WireOptions) -> HttpReply | None:
        """The answer, if one of its shape has been kept.

        Raises: InvalidArgument when an output cannot be JSON, as the codec does.
        """
        if response.id or response.parameters:
            return None
        shape = self._shapes.get(_key(response, options))
        if shape is None or shape.options is not options:
            return None
        if shape.binary:
            parts: list[bytes | memoryview] = [shape.pieces[0]]
            parts.extend([to_buffer(tensor) for tensor in response.outputs])
            return HttpReply(200, parts, OCTETS, (), shape.head)
        return HttpReply(200, (_assembled(shape.pieces, response.outputs),), JSON)

    def keep(self, response: InferResponse, options: WireOptions, reply: HttpReply) -> None:
        """Learn the shape of `reply`, unless the next answer like it may differ in more than its tensors' data."""
        if response.id or response.parameters or any(wire.shm is not None for wire in options.outputs.values()):
            return
        shape = _binary(response, options, reply) if reply.content_type == OCTETS else _json(response, options, reply)
        if shape is None:
            return
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        self._shapes[_key(response, options)] = shape


def _binary(response: InferResponse, options: WireOptions, reply: HttpReply) -> _Shape | None:
    if len(reply.parts) != 1 + len(response.outputs):
        return None  # some output is JSON, in shared memory, or empty
    if any(tensor.datatype is DataType.BYTES for tensor in response.outputs):
        return None
    return _Shape(options, True, (bytes(reply.parts[0]),), render_head(reply))


def _json(response: InferResponse, options: WireOptions, reply: HttpReply) -> _Shape | None:
    if len(reply.parts) != 1:
        return None
    start = orjson.dumps({"model_name": response.model_name, "model_version": response.model_version})[:-1]
    pieces: list[bytes] = []
    for tensor in response.outputs:
        entry = {"name": tensor.name, "datatype": tensor.datatype.wire, "shape": tensor.array.shape}
        lead = b"}," if pieces else start + b',"outputs":['
        pieces.append(lead + orjson.dumps(entry)[:-1] + b',"data":')
    shape = _Shape(options, False, (*pieces, b"}]}"), b"")
    return shape if response.outputs and _assembled(shape.pieces, response.outputs) == reply.parts[0] else None


def _assembled(pieces: tuple[bytes, ...], outputs: Sequence[Tensor]) -> bytes:
    parts: list[bytes] = []
    for piece, tensor in zip(pieces, outputs, strict=False):
        parts += (piece, orjson.dumps(data_of(tensor), option=orjson.OPT_SERIALIZE_NUMPY))
    parts.append(pieces[-1])
    return b"".join(parts)


def _key(response: InferResponse, options: WireOptions) -> object:
    # Names and types too: a version that is loaded again may have others.
    key: list[object] = [id(options), response.model_version]
    for tensor in response.outputs:
        key += (tensor.name, tensor.datatype.wire, tensor.array.shape)
    return tuple(key)
