"""The binary tensor data extension: tensor bytes behind the JSON, and requests that are nothing but tensor bytes.

Layouts are `core/tensors.py`'s; here is who gets which bytes.
Source: V2 extension binary_tensor_data, "Binary Tensor Request" and "Raw Binary Request".
"""

from __future__ import annotations

import re

import numpy as np

from tensorquay.core.datatypes import DataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.messages import InferRequest
from tensorquay.core.signature import Signature, TensorSpec
from tensorquay.core.tensors import Tensor, from_buffer
from tensorquay.protocol.options import BINARY_DEFAULTS, WireOptions

_DIGITS = re.compile(r"[0-9]{1,19}")


def parse_header_length(value: str, body_length: int) -> int:
    """The header Inference-Header-Content-Length: bytes of the JSON part of a body of `body_length` bytes.

    Both lengths are those of the uncompressed body.
    Raises: InvalidArgument unless it is a decimal number from 0 to `body_length`.
    """
    text = value.strip(" \t")
    if not _DIGITS.fullmatch(text) or int(text) > body_length:
        raise InvalidArgument(
            f"Inference-Header-Content-Length is '{text:.32}', expected a number from 0 to {body_length} "
            "(the body's length)"
        )
    return int(text)


class BinaryTail:
    """The bytes behind the JSON part, given out in the order of the inputs."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self._position = 0

    def take(self, name: str, datatype: DataType, shape: list[int], size: object) -> Tensor:
        """The next `size` bytes (parameter binary_data_size) as input `name`; a view, no copy.

        Args: shape: already passed `element_count`.
        Raises: InvalidArgument when they are not there or do not hold exactly that tensor.
        """
        if type(size) is not int or size < 0:
            raise InvalidArgument(
                f"input '{name}': parameter 'binary_data_size' must be a number of bytes, got {size!r:.64}"
            )
        start = self._position
        left = len(self._data) - start
        if size > left:
            raise InvalidArgument(
                f"unexpected size for input '{name}': 'binary_data_size' is {size}, but {left} bytes of binary data "
                "are left in the body",
                facts={"input": name, "expected": size, "got": left},
            )
        self._position = start + size
        return from_buffer(name, datatype, shape, self._data[start : start + size])

    def finish(self) -> None:
        """All inputs have been given their bytes.

        Raises: InvalidArgument when bytes are left over.
        """
        left = len(self._data) - self._position
        if left:
            raise InvalidArgument(
                f"unexpected additional input data: {left} bytes of the body belong to no input",
                facts={"expected": self._position, "got": len(self._data)},
            )


def decode_raw(
    model_name: str,
    model_version: str,
    body: bytes | memoryview,
    signature: Signature,
    *,
    arrival_ns: int = 0,
) -> tuple[InferRequest, WireOptions]:
    """A raw request: `body` is the only input's data, as a batch of one; all outputs come back binary.

    A BYTES input must have a shape of one element, which is then the whole body, without a length in front.
    Raises: InvalidArgument when the model has not exactly one input, its shape cannot be told from the number of
    bytes, or the bytes do not fit it.
    """
    if len(signature.inputs) != 1:
        raise InvalidArgument(
            f"Raw request must only have 1 input to be deduced but got {len(signature.inputs)} inputs in model "
            f"'{signature.model}'; send the inference header as JSON (Inference-Header-Content-Length > 0)"
        )
    spec = signature.inputs[0]
    wire = list(spec.shape)
    if signature.batches:
        wire[0] = 1
    request = InferRequest(
        model_name=model_name,
        model_version=model_version,
        id="",
        inputs=[_raw_bytes(spec, wire, body) if spec.datatype is DataType.BYTES else _raw_fixed(spec, wire, body)],
        arrival_ns=arrival_ns,
    )
    return request, BINARY_DEFAULTS


def _raw_bytes(spec: TensorSpec, wire: list[int], body: bytes | memoryview) -> Tensor:
    if any(size != 1 for size in wire):
        raise InvalidArgument(
            f"For BYTES datatype raw input, the model must have input shape [1], but input '{spec.name}' has "
            f"{list(spec.shape)}"
        )
    items = np.empty(1, dtype=np.object_)
    items[0] = bytes(body)
    return Tensor(spec.name, spec.datatype, items.reshape(wire))


def _raw_fixed(spec: TensorSpec, wire: list[int], body: bytes | memoryview) -> Tensor:
    if wire.count(-1) > 1:
        raise InvalidArgument(
            f"The shape of the raw input '{spec.name}' can not be deduced because there are more than one "
            f"variable-sized dimension in {list(spec.shape)}"
        )
    if -1 in wire:
        row_bytes = spec.datatype.item_bytes
        for size in wire:
            row_bytes *= size if size >= 0 else 1
        # A fixed size of zero leaves nothing to divide by; then no byte may come at all, and `from_buffer` says so.
        wire[wire.index(-1)] = len(body) // row_bytes if row_bytes else 0
    return from_buffer(spec.name, spec.datatype, wire, body)
