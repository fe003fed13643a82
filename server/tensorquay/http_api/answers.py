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
from tensorquay.core.packed import Ride
from tensorquay.core.signature import TensorSpec
from tensorquay.protocol.json_tensors import data_of, row_texts
from tensorquay.protocol.options import WireOptions
from tensorquay.transport.http_message import JSON, OCTETS, STATUS_LINES, HttpReply, render_head

_MAX_SHAPES = 512
_JSON_HEAD = b"%bcontent-type: %b\r\n" % (STATUS_LINES[200], JSON)


@dataclass(frozen=True, slots=True)
class _Shape:
    """Answers of one shape.

    `options` and `specs` are kept so that no other objects can have their ids. `opening` is everything before the
    tensors of a binary answer: headers, empty line, JSON; of it `head` is the headers. Both are empty for JSON, whose
    length varies. `positions` are those of its outputs.
    """

    options: WireOptions
    specs: Sequence[TensorSpec]
    pieces: tuple[bytes, ...]
    positions: Sequence[int]
    head: bytes = b""
    opening: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()


class AnswerShapes:
    """Shapes of the answers of one route. Loop-confined; owner: the route."""

    def __init__(self) -> None:
        self._shapes: dict[object, _Shape] = {}

    def fill(self, response: InferResponse, options: WireOptions) -> HttpReply | None:
        """The answer, if one of its shape has been kept.

        Raises: InvalidArgument when an output cannot be JSON, as the codec does.
        """
        ride = response.outputs
        if type(ride) is not Ride or response.id or response.parameters:
            return None
        # Riders of one run are mostly answered alike: the others find what the first one looked up.
        memo = ride.run.memo
        alike = id(options), ride.stop - ride.start, ride.wanted
        shape = memo.get(alike)
        if shape is None:
            shape = memo[alike] = self._shapes.get(_key(response, ride, options))
        if shape is None or shape.options is not options:
            return None
        if shape.opening:
            parts = [shape.pieces[0], *map(ride.buffer, shape.positions)]
            reply = HttpReply(200, parts, OCTETS, shape.headers, shape.head)
            if type(parts[-1]) is bytes:
                # Small, so joined here: it is one piece for the connection.
                reply.written = b"".join((shape.opening, *parts[1:]))
            return reply
        body = _assembled(shape, ride)
        written = b"%bcontent-length: %d\r\n\r\n%b" % (_JSON_HEAD, len(body), body)
        return HttpReply(200, (body,), JSON, written=written)

    def keep(self, response: InferResponse, options: WireOptions, reply: HttpReply) -> None:
        """Learn the shape of `reply`, unless the next answer like it may differ in more than its tensors' data."""
        ride = response.outputs
        if type(ride) is not Ride or response.id or response.parameters:
            return
        if any(wire.shm is not None for wire in options.outputs.values()):
            return
        shape = _binary(ride, options, reply) if reply.content_type == OCTETS else _json(response, ride, options, reply)
        if shape is None:
            return
        if len(self._shapes) >= _MAX_SHAPES:
            self._shapes.clear()
        self._shapes[_key(response, ride, options)] = shape
        ride.run.memo.clear()


def _binary(ride: Ride, options: WireOptions, reply: HttpReply) -> _Shape | None:
    if len(reply.parts) != 1 + len(ride):
        return None  # some output is JSON, in shared memory, or empty
    if any(tensor.datatype is DataType.BYTES for tensor in ride):
        return None
    head, text = render_head(reply), bytes(reply.parts[0])
    shape = _Shape(options, ride.run.specs, (text,), _positions(ride), head, head + b"\r\n" + text, reply.headers)
    return shape if b"".join(ride.buffer(p) for p in shape.positions) == b"".join(reply.parts[1:]) else None


def _json(response: InferResponse, ride: Ride, options: WireOptions, reply: HttpReply) -> _Shape | None:
    if len(reply.parts) != 1:
        return None
    start = orjson.dumps({"model_name": response.model_name, "model_version": response.model_version})[:-1]
    pieces: list[bytes] = []
    for tensor in ride:
        entry = {"name": tensor.name, "datatype": tensor.datatype.wire, "shape": tensor.array.shape}
        lead = b"}," if pieces else start + b',"outputs":['
        pieces.append(lead + orjson.dumps(entry)[:-1] + b',"data":')
    shape = _Shape(options, ride.run.specs, (*pieces, b"}]}"), _positions(ride))
    return shape if len(ride) and _assembled(shape, ride) == reply.parts[0] else None


def _positions(ride: Ride) -> Sequence[int]:
    return tuple(range(len(ride.run.specs))) if ride.wanted is None else ride.wanted


def _assembled(shape: _Shape, ride: Ride) -> bytes:
    pieces = shape.pieces
    parts: list[bytes] = []
    for number, position in enumerate(shape.positions):
        parts += (pieces[number], _data(ride, number, position))
    parts.append(pieces[-1])
    return b"".join(parts)


def _data(ride: Ride, number: int, position: int) -> bytes:
    """The `data` of output `position`, which is the ride's tensor `number`."""
    rows = ride.run.texts_of(position, row_texts)
    if rows is None:
        return orjson.dumps(data_of(ride[number]), option=orjson.OPT_SERIALIZE_NUMPY)
    if ride.stop - ride.start == 1:
        return b"[%b]" % rows[ride.start]
    return b"[%b]" % b",".join(rows[ride.start : ride.stop])


def _key(response: InferResponse, ride: Ride, options: WireOptions) -> object:
    # The specs too: a version that is loaded again may have others.
    run = ride.run
    return id(options), response.model_version, ride.stop - ride.start, ride.wanted, run.shapes, id(run.specs)
