"""What repeats in predictions, said once per link: numbered templates of requests and of answers.

The sender keeps a number for every combination of names, types, shapes, parameters and wishes it has met lately; the
receiver keeps what each number stands for. A number may be given a new meaning, by a record that comes before its
first use. Both tables are bounded; a template too large to be kept has a number of its own and is said every time.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import ServingError
from tensorquay.core.messages import InferRequest, InferResponse, Layout, Parameter, RequestedOutput, Timings
from tensorquay.core.packed import BatchRun, PackedLayout, Ride
from tensorquay.core.signature import TensorSpec
from tensorquay.core.tensors import Tensor, unpack_bytes
from tensorquay.frontends.records import SIZE, BrokenLink, dump, padded

MAX_TEMPLATES = 1024
"""Numbers below this are kept; this one is for templates that are too large to be."""

MAX_KEPT_BYTES = 16 * 1024

Source: TypeAlias = bytes | memoryview
"""Where tensors are read from: a buffer that was received, or a range of the other side's arena."""

_UNTIMED = Timings(0, 0, 0, 0, 0)
"""Where the time went is in the owner's statistics and traces; answers do not say it."""


Spec: TypeAlias = tuple[str, str, Sequence[int]]
"""Name, wire name of the type, and shape of one tensor."""


class Tensors:
    """The tensors of one template, and where each is in a payload.

    Args: specs: of each.
    """

    __slots__ = ("_each", "fixed_bytes", "layout", "packed", "varying")

    def __init__(self, specs: Sequence[Spec]) -> None:
        each: list[tuple[str, DataType, tuple[int, ...], int]] = []
        offsets: list[int] = []
        at = varying = 0
        for name, wire, sizes in specs:
            datatype, shape = DataType.from_wire(wire), tuple(sizes)
            count = math.prod(shape)
            each.append((name, datatype, shape, count))
            offsets.append(at)
            if datatype is DataType.BYTES:
                varying += 1
            else:
                at += padded(count * datatype.item_bytes)
        self._each = tuple(each)
        self.layout: Layout = tuple((name, datatype, shape) for name, datatype, shape, _ in each)
        self.varying = varying
        """How many are BYTES: their sizes stand before the tensors."""
        self.fixed_bytes = at
        """Of all others together."""
        self.packed = None if varying else PackedLayout([_like(*spec) for spec in self.layout], offsets)
        """Where the bytes of each are; None when that is another place in every payload."""

    def read(self, source: Source, at: int, sizes: Sequence[int]) -> list[Tensor]:
        """The tensors of a payload that begins at `at`: views, but BYTES, whose `sizes` are given, are copied out.

        Raises: ValueError when they are not all there.
        """
        tensors: list[Tensor] = []
        left = iter(sizes)
        for name, datatype, shape, count in self._each:
            if datatype is DataType.BYTES:
                size = next(left)
                array = unpack_bytes(name, bytes(source[at : at + size]), count).reshape(shape)
            else:
                size = count * datatype.item_bytes
                array = _array(source, datatype, count, at).reshape(shape)
            tensors.append(Tensor(name, datatype, array))
            at += padded(size)
        return tensors

    def sizes_at(self, data: bytes, at: int) -> tuple[Sequence[int], int]:
        """The sizes of BYTES tensors that stand at `at`, and the bytes of all tensors together."""
        sizes: tuple[int, ...] = struct.unpack_from(f"<{self.varying}Q", data, at)
        return sizes, self.fixed_bytes + sum(map(padded, sizes))


def _array(source: Source, datatype: DataType, count: int, at: int) -> Array:
    # An empty range has no first element to point at.
    return np.frombuffer(source, datatype.numpy, count, at) if count else np.empty(0, datatype.numpy)


def _like(name: str, datatype: DataType, shape: tuple[int, ...]) -> Tensor:
    """A tensor of that type and shape, without memory of its size."""
    return Tensor(name, datatype, np.broadcast_to(np.zeros((), datatype.numpy), shape))


def sizes_of(tensors: Sequence[Tensor], parts: Sequence[bytes | memoryview]) -> bytes:
    """What `sizes_at` reads: empty when there are no BYTES."""
    return b"".join(
        SIZE.pack(len(part)) for tensor, part in zip(tensors, parts, strict=True) if tensor.datatype is DataType.BYTES
    )


@dataclass(frozen=True, slots=True)
class RequestShape:
    """What a number of requests stands for, at the owner."""

    model_name: str
    model_version: str
    outputs: list[RequestedOutput] | None
    parameters: Mapping[str, Parameter]
    priority: int
    timeout_us: int
    tensors: Tensors

    @classmethod
    def parsed(cls, document: Any) -> RequestShape:
        """From what `RequestNumbers` said.

        Raises: BrokenLink.
        """
        try:
            name, version, outputs, parameters, priority, timeout_us, inputs = document
            asked = None if outputs is None else [RequestedOutput(*each) for each in outputs]
            return cls(name, version, asked, parameters, priority, timeout_us, Tensors(inputs))
        except (TypeError, ValueError, ServingError) as error:
            raise BrokenLink(f"a template of requests makes no sense: {error}") from error

    def request(
        self, identity: str, tensors: Sequence[Tensor], arrival_ns: int, deadline_ns: int | None
    ) -> InferRequest:
        """A request like this. Its layout is one object for all of them: what is known of one holds for the next."""
        return InferRequest(
            self.model_name,
            self.model_version,
            identity,
            tensors,
            self.outputs,
            self.parameters,
            self.priority,
            self.timeout_us,
            arrival_ns,
            deadline_ns,
            self.tensors.layout,
        )


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """What a number of answers stands for, at a front end."""

    model_name: str
    model_version: str
    parameters: Mapping[str, Parameter]
    tensors: Tensors

    @classmethod
    def parsed(cls, document: Any) -> AnswerShape:
        """From what `AnswerNumbers` said.

        Raises: BrokenLink.
        """
        try:
            name, version, parameters, outputs = document
            return cls(name, version, parameters, Tensors(outputs))
        except (TypeError, ValueError, ServingError) as error:
            raise BrokenLink(f"a template of answers makes no sense: {error}") from error

    def response(self, identity: str, tensors: Sequence[Tensor]) -> InferResponse:
        """An answer like this."""
        return InferResponse(self.model_name, self.model_version, identity, tensors, _UNTIMED, self.parameters)


class RunShape:
    """What a number of runs stands for, at a front end: a whole batch, of which several requests have their rows.

    Raises: BrokenLink.
    """

    __slots__ = ("_batches", "_each", "_name", "_rows", "_specs", "_version", "byte_size")

    def __init__(self, document: Any) -> None:
        try:
            self._name, self._version, self._batches, self._rows, outputs = document
            tensors = Tensors(outputs)
        except (TypeError, ValueError, ServingError) as error:
            raise BrokenLink(f"a template of runs makes no sense: {error}") from error
        if tensors.packed is None:
            raise BrokenLink("a template of runs has BYTES")
        # One object for all runs like it: encoders know answers by it.
        self._specs = tuple(TensorSpec(name, datatype, shape) for name, datatype, shape in tensors.layout)
        self._each = tuple(
            (datatype, shape, math.prod(shape), start)
            for (_, datatype, shape), (start, _) in zip(tensors.layout, tensors.packed.cuts, strict=True)
        )
        self.byte_size = tensors.fixed_bytes
        """Of all outputs together."""

    def run(self, source: Source, at: int) -> BatchRun:
        """The run whose outputs begin at `at`: views.

        Raises: ValueError.
        """
        arrays = [
            _array(source, datatype, count, at + start).reshape(shape) for datatype, shape, count, start in self._each
        ]
        return BatchRun(self._specs, arrays, self._rows, input_ns=0, infer_ns=0, output_ns=0, batches=self._batches)

    def response(self, identity: str, run: BatchRun, start: int, stop: int) -> InferResponse:
        """The answer that is rows `start` to `stop` of a run."""
        ride = Ride(run, start, stop, 0)
        return InferResponse(self._name, self._version, identity, ride, ride, {})


class _Numbers:
    """Numbers given out, oldest first to be given again. Loop-confined; owner: the sending end of a link."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._slots: list[tuple[object, object] | None] = [None] * MAX_TEMPLATES
        self._next = 0

    def _keep(self, key: object, held: object, text: bytes) -> int:
        """A number for `key`. `held` is kept as long, so that no other object can have its id."""
        if len(text) > MAX_KEPT_BYTES:
            return MAX_TEMPLATES
        number = self._next
        self._next = (number + 1) % MAX_TEMPLATES
        before = self._slots[number]
        if before is not None:
            del self._numbers[before[0]]
        self._slots[number] = (key, held)
        self._numbers[key] = number
        return number


class RequestNumbers(_Numbers):
    """Of requests, at a front end."""

    def of(self, request: InferRequest) -> tuple[int, bytes | None]:
        """The number for requests like this one, and the document to say before, if it is new."""
        layout, outputs, parameters = request.layout, request.outputs, request.parameters
        key = (
            _specs(request.inputs) if layout is None else id(layout),
            request.model_name,
            request.model_version,
            None if outputs is None else tuple([(each.name, each.classification) for each in outputs]),
            # With types, because 1, 1.0 and True are equal.
            tuple([(name, type(value), value) for name, value in parameters.items()]) if parameters else None,
            request.priority,
            request.timeout_us,
        )
        number = self._numbers.get(key)
        if number is not None:
            return number, None
        asked = None if outputs is None else [(each.name, each.classification) for each in outputs]
        text = dump(
            (
                request.model_name,
                request.model_version,
                asked,
                dict(parameters),
                request.priority,
                request.timeout_us,
                _specs(request.inputs),
            )
        )
        return self._keep(key, layout, text), text


class AnswerNumbers(_Numbers):
    """Of answers, at the owner."""

    def of(self, response: InferResponse) -> tuple[int, bytes | None]:
        """As `RequestNumbers.of`."""
        parameters = response.parameters
        specs = _specs(response.outputs)
        key = (
            specs,
            response.model_name,
            response.model_version,
            tuple([(name, type(value), value) for name, value in parameters.items()]) if parameters else None,
        )
        number = self._numbers.get(key)
        if number is not None:
            return number, None
        text = dump((response.model_name, response.model_version, dict(parameters), specs))
        return self._keep(key, None, text), text


class RunNumbers(_Numbers):
    """Of runs, at the owner."""

    def of(
        self, response: InferResponse, specs: tuple[Spec, ...], rows: int, *, batches: bool
    ) -> tuple[int, bytes | None]:
        """As `RequestNumbers.of`. `response`: any answer out of the run."""
        key = (response.model_name, response.model_version, batches, rows, specs)
        number = self._numbers.get(key)
        if number is not None:
            return number, None
        text = dump(key)
        return self._keep(key, None, text), text


def _specs(tensors: Sequence[Tensor]) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple([(tensor.name, tensor.datatype.wire, tensor.array.shape) for tensor in tensors])
