"""How inputs and outputs are described between the rooms: names, dtypes, axes, and which values make sense."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Arrays: TypeAlias = Mapping[str, Array]

Axis: TypeAlias = int | str
"""A fixed size, or the name of a dynamic axis. Equal names are equal sizes within one request."""

BATCH = "batch"
"""The name every exporter gives to the axis requests are stacked on."""

DTYPES = (
    "bool",
    "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "bfloat16",
    "string",
)  # fmt: skip
"""Element types by name: numpy's, "bfloat16" (arrays hold uint16 bits) and "string" (arrays of object, `bytes`)."""


class Meaning(enum.Enum):
    """What an input stands for, as far as it decides which values are valid."""

    NUMBERS = "numbers"
    """Anything of its dtype; seeded inputs are drawn around 0."""
    TOKEN_IDS = "token ids"  # noqa: S105  no password
    """Integers below a vocabulary's size."""
    MASK = "mask"
    """1 where there is content, 0 where there is padding (at the end); at least one 1 per row."""
    SEGMENT_IDS = "segment ids"
    POSITIONS = "positions"
    """0, 1, 2 … along the last axis."""
    IMAGE = "image"
    FLAG = "flag"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Values:
    """Which values an input takes. `low` and `high` are inclusive; None: no bound but the dtype's.

    Args:
        columns: usual lowest and highest value of each entry along the last axis, where they differ (the features of a
            table); other values are taken too.
        choices: the only values there are: texts, or numbers.
        missing: NaN stands for a value that is not known.
    """

    meaning: Meaning = Meaning.NUMBERS
    low: float | None = None
    high: float | None = None
    columns: tuple[tuple[float, float], ...] = ()
    choices: tuple[str | float, ...] = ()
    missing: bool = False


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output.

    `shape` is None when the source does not tell (TorchScript): then it has to be declared or derived from examples.
    """

    name: str
    dtype: str
    shape: tuple[Axis, ...] | None
    values: Values = Values()
    optional: bool = False

    @property
    def dynamic(self) -> tuple[str, ...]:
        """Names of its dynamic axes, in order."""
        return tuple(axis for axis in self.shape or () if isinstance(axis, str))


@dataclass(frozen=True, slots=True)
class AxisRange:
    """Sizes a dynamic axis may take, inclusive. `high` None: unbounded. `multiple`: every size is a multiple of it."""

    low: int = 1
    high: int | None = None
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class Interface:
    """What a model takes and gives, in the order it names them. `axes` bounds the dynamic axes that have bounds."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: Mapping[str, AxisRange] = field(default_factory=dict)
