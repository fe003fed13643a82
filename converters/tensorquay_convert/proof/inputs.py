"""Inputs of the proof's own: values that each input can take, the same for the same seed everywhere.

Ordinary values do not show everything. A dropped epsilon shows in rows of next to no variance, a rounding mode at
halves, a saturation at large numbers, an index that is off by one at the ends of a table: each is a `Style`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tensorquay_convert.proof.seeded import Seeded
from tensorquay_convert.tensors import Array, Arrays, Interface, Meaning, TensorSpec

_WORDS = (
    "a", "proof", "reads", "the same", "text twice", "Größe", "naïve café", "日本語", "x" * 40, "0", "-1", "3.5", "",
    "UPPER", "tab\there", "quote'\"",
)  # fmt: skip
_LARGE = 8.0
_SMALL = 2.0**-10
_TINY = 2.0**-20
_FEW = 9
"""Unbounded integers are drawn from 0 to this: most models index something with them."""


class Style(enum.Enum):
    """What is special about a case's values; the value names the case."""

    USUAL = "usual"
    ZEROS = "zeros"
    SMALL = "small values"
    TINY = "tiny values"
    LARGE = "large values"
    HALVES = "whole and half numbers"
    MISSING = "missing values"
    FULL = "no padding"
    ENDS = "lowest and highest ids"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A case before its arrays are made: they are made when it is run, and again when it is looked into."""

    name: str
    sizes: Mapping[str, int]
    style: Style = Style.USUAL
    needed: bool = True


def styles(interface: Interface) -> tuple[Style, ...]:
    """The special cases that make sense for these inputs, without the usual one."""
    found: dict[Style, None] = {}
    for spec in interface.inputs:
        if spec.optional:
            continue
        meaning = spec.values.meaning
        if spec.values.missing and _floating(spec):
            found[Style.MISSING] = None
        if spec.values.choices:
            continue
        if meaning is Meaning.NUMBERS and _floating(spec):
            found.update(dict.fromkeys((Style.ZEROS, Style.SMALL, Style.TINY, Style.LARGE, Style.HALVES)))
        elif meaning is Meaning.IMAGE:
            found.update(dict.fromkeys((Style.ZEROS, Style.SMALL)))
        elif meaning is Meaning.MASK:
            found[Style.FULL] = None
        elif meaning is Meaning.TOKEN_IDS:
            found[Style.ENDS] = None
    return tuple(found)


def draw(interface: Interface, case: Drawn, seed: int) -> Arrays:
    """The arrays of a case, for every input that is not optional, contiguous and of their dtype.

    The stream of each depends on the seed, the sizes and the input's name only: a style changes what is made of the
    same numbers.
    """
    sizes = ",".join(f"{axis}={size}" for axis, size in sorted(case.sizes.items()))
    return {
        spec.name: np.ascontiguousarray(_values(spec, case, Seeded(seed, sizes, spec.name))).reshape(
            shape_of(spec, case.sizes)
        )
        for spec in interface.inputs
        if not spec.optional
    }


def shape_of(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The concrete shape of an input at these sizes; an input of unknown rank is one number."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape or ())


def _floating(spec: TensorSpec) -> bool:
    return spec.dtype in {"float16", "float32", "float64", "bfloat16"}


def _values(spec: TensorSpec, case: Drawn, stream: Seeded) -> Array:
    shape = shape_of(spec, case.sizes)
    meaning = spec.values.meaning
    if spec.dtype == "string" or meaning is Meaning.TEXT:
        return _texts(shape, stream, spec.values.choices or _WORDS)
    if meaning is Meaning.MASK:
        drawn = _mask(shape, stream, full=case.style is Style.FULL)
    elif meaning is Meaning.FLAG or spec.dtype == "bool":
        drawn = stream.integers(shape, 0, 1)
    elif meaning is Meaning.POSITIONS:
        drawn = _positions(spec, shape)
    elif meaning is Meaning.SEGMENT_IDS:
        drawn = _segments(spec, shape, stream)
    elif not _floating(spec) and not spec.values.choices:
        drawn = _integers(spec, shape, stream, case.style)
    elif meaning is Meaning.IMAGE:
        drawn = _image(spec, shape, stream, case.style)
    else:
        drawn = _numbers(spec, shape, stream, case.style)
    if case.style is Style.MISSING and spec.values.missing and _floating(spec):
        # One in four, drawn after them: the other values stay those of the usual case.
        drawn = np.where(stream.integers(shape, 0, 3) == 0, np.nan, drawn)
    return to_dtype(drawn, spec.dtype)


def to_dtype(values: Array, dtype: str) -> Array:
    """`values` in one of `tensors.DTYPES`; bfloat16 as uint16 bits, rounded to nearest even."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
            np.uint16
        )
    return values.astype(dtype)


def _numbers(spec: TensorSpec, shape: tuple[int, ...], stream: Seeded, style: Style) -> Array:
    drawn: Array
    low, high = spec.values.low, spec.values.high
    if spec.values.choices:
        known: Array = np.array(spec.values.choices, np.float64)
        return np.asarray(known[stream.integers(shape, 0, len(known) - 1)])
    if spec.values.columns:
        least, most = np.array(spec.values.columns, np.float64).T
        drawn = least + stream.uniform(shape, 0.0, 1.0) * (most - least)
        return _styled(drawn, style, 1.5)
    if low is not None and high is not None:
        drawn = stream.uniform(shape, low, high)
        # Around the value nearest to 0: that is where "small" is small.
        middle = min(max(0.0, low), high)
        drawn = middle + _styled(drawn - middle, style, 1.0)
    else:
        drawn = _styled(stream.normal(shape), style, _LARGE)
        if low is not None:
            drawn = low + np.abs(drawn)
        if high is not None:
            drawn = high - np.abs(drawn)
    if low is not None or high is not None:
        return np.asarray(np.clip(drawn, low, high))
    return drawn


def _styled(drawn: Array, style: Style, large: float) -> Array:
    match style:
        case Style.ZEROS:
            return np.zeros_like(drawn)
        case Style.SMALL:
            return drawn * _SMALL
        case Style.TINY:
            return drawn * _TINY
        case Style.LARGE:
            return drawn * large
        case Style.HALVES:
            halves: Array = np.rint(drawn * 4) / 2
            return halves
        case _:
            return drawn


def _image(spec: TensorSpec, shape: tuple[int, ...], stream: Seeded, style: Style) -> Array:
    low = 0.0 if spec.values.low is None else spec.values.low
    high = low + 1.0 if spec.values.high is None else spec.values.high
    drawn = stream.uniform(shape, low, high)
    if style is Style.ZEROS:
        return np.full(shape, low)
    if style is Style.SMALL:  # next to no contrast, around the middle
        drawn = (low + high) / 2 + (drawn - (low + high) / 2) * _SMALL
    return drawn


def _integers(spec: TensorSpec, shape: tuple[int, ...], stream: Seeded, style: Style) -> Array:
    low, high = _whole_bounds(spec)
    if style is Style.ZEROS:
        return np.full(shape, min(max(0, low), high))
    if style is Style.ENDS and spec.values.meaning is Meaning.TOKEN_IDS:
        return low + stream.integers(shape, 0, 1) * (high - low)
    return stream.integers(shape, low, high)


def _whole_bounds(spec: TensorSpec) -> tuple[int, int]:
    """Inclusive, within the dtype."""
    limits = np.iinfo(spec.dtype)
    least, most = int(limits.min), int(limits.max)
    low = 0 if spec.values.low is None else int(np.ceil(spec.values.low))
    if spec.values.high is not None:
        # 2**63 is the float nearest to int64's largest.
        high = int(min(float(most), np.floor(spec.values.high))) if spec.values.high < most else most
    else:
        high = 255 if spec.values.meaning is Meaning.IMAGE else low + _FEW
    low = min(max(low, least), most)
    return low, min(max(high, low), most)


def _mask(shape: tuple[int, ...], stream: Seeded, *, full: bool) -> Array:
    """Ones, then zeros, along the last axis; the first row has no padding."""
    if not shape:
        return np.ones((), np.int64)
    length = shape[-1]
    rows = int(np.prod(shape[:-1], dtype=np.int64))
    lengths = stream.integers((rows,), min(1, length), max(1, length))
    lengths[:1] = length
    if full:
        lengths[:] = length
    return (np.arange(length) < lengths[:, None]).astype(np.int64).reshape(shape)


def _positions(spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """From the lowest on along the last axis, and the highest for what is beyond it."""
    low, high = _span(spec, 1 << 20)
    if not shape:
        return np.full((), low)
    if spec.values.high is None and not _floating(spec):
        high = min(low + shape[-1], int(np.iinfo(spec.dtype).max))
    found: Array = np.minimum(low + np.arange(shape[-1]), high)
    return np.broadcast_to(found, shape).copy()


def _span(spec: TensorSpec, most: int) -> tuple[int, int]:
    """Whole bounds of an input that may be of floats; `most` where there is no highest."""
    if not _floating(spec):
        return _whole_bounds(spec)
    low = 0 if spec.values.low is None else int(np.ceil(spec.values.low))
    return low, most if spec.values.high is None else max(low, int(spec.values.high))


def _segments(spec: TensorSpec, shape: tuple[int, ...], stream: Seeded) -> Array:
    """The lowest id, then the next one, along the last axis."""
    low, high = _span(spec, 1)
    if spec.values.high is None:
        high = low + 1
    second = 1 - _mask(shape, stream, full=False)
    return low + second * min(1, high - low)


def _texts(shape: tuple[int, ...], stream: Seeded, words: Sequence[str | float]) -> Array:
    picked = stream.integers(shape, 0, len(words) - 1).reshape(-1).tolist()
    found = np.empty(len(picked), object)
    found[:] = [str(words[each]).encode() for each in picked]
    return found.reshape(shape)
