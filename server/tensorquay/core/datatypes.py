"""The data types of the V2 protocol and what each is called elsewhere.

One table: wire name, bytes per element, how numpy holds it, and how config.pbtxt spells it.
Source: Open Inference Protocol, "Tensor Data Types"; Triton adds BF16.
"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import numpy.typing as npt

from tensorquay.core.errors import ErrorKind, ServingError

Array = npt.NDArray[Any]
"""A numpy array of any element type; the `DataType` beside it says which."""


class DataType(enum.Enum):
    """A tensor's element type.

    Values are (wire name, bytes per element, numpy dtype, config.pbtxt name). BYTES has no fixed size: 0.
    BF16 is held as its raw 16 bits in uint16, because numpy has no such type; BYTES as an object array of `bytes`.
    """

    BOOL = ("BOOL", 1, np.dtype(np.bool_), "TYPE_BOOL")
    UINT8 = ("UINT8", 1, np.dtype("<u1"), "TYPE_UINT8")
    UINT16 = ("UINT16", 2, np.dtype("<u2"), "TYPE_UINT16")
    UINT32 = ("UINT32", 4, np.dtype("<u4"), "TYPE_UINT32")
    UINT64 = ("UINT64", 8, np.dtype("<u8"), "TYPE_UINT64")
    INT8 = ("INT8", 1, np.dtype("<i1"), "TYPE_INT8")
    INT16 = ("INT16", 2, np.dtype("<i2"), "TYPE_INT16")
    INT32 = ("INT32", 4, np.dtype("<i4"), "TYPE_INT32")
    INT64 = ("INT64", 8, np.dtype("<i8"), "TYPE_INT64")
    FP16 = ("FP16", 2, np.dtype("<f2"), "TYPE_FP16")
    BF16 = ("BF16", 2, np.dtype("<u2"), "TYPE_BF16")
    FP32 = ("FP32", 4, np.dtype("<f4"), "TYPE_FP32")
    FP64 = ("FP64", 8, np.dtype("<f8"), "TYPE_FP64")
    BYTES = ("BYTES", 0, np.dtype(np.object_), "TYPE_STRING")

    wire: str
    item_bytes: int
    numpy: np.dtype[Any]
    config_name: str

    def __init__(self, wire: str, item_bytes: int, numpy: np.dtype[Any], config_name: str) -> None:
        self.wire = wire
        self.item_bytes = item_bytes
        self.numpy = numpy
        self.config_name = config_name

    @property
    def is_float(self) -> bool:
        """True for the types that can hold NaN and infinity."""
        return self in _FLOATS

    @classmethod
    def from_wire(cls, name: object) -> DataType:
        """The type called `name` on the wire ("FP32").

        Raises: UnknownDataType naming the known ones.
        """
        found = _BY_WIRE.get(name) if isinstance(name, str) else None
        if found is None:
            raise UnknownDataType(name)
        return found

    @classmethod
    def from_config(cls, name: str) -> DataType | None:
        """The type that config.pbtxt calls `name` ("TYPE_FP32"), or None."""
        return _BY_CONFIG.get(name)


class UnknownDataType(ServingError):
    """A request names a data type that the protocol does not have."""

    kind = ErrorKind.INVALID_ARGUMENT

    def __init__(self, name: object) -> None:
        known = ", ".join(_BY_WIRE)
        super().__init__(f"unknown data-type {name!r}, expected one of {known}")


_FLOATS = frozenset({DataType.FP16, DataType.BF16, DataType.FP32, DataType.FP64})
_BY_WIRE = {member.wire: member for member in DataType}
_BY_CONFIG = {member.config_name: member for member in DataType}
