"""Values of the user's arrays in the dtype of an input, or a sentence on the first that does not fit.

Casts are safe ones: integers and booleans to floats, floats to integers where all are whole, everything within the
range of the dtype. NaN is refused unless the input's description says that values may be missing, infinity always.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorquay_convert.errors import BadSource
from tensorquay_convert.proof.compare import as_numbers, dtype_name
from tensorquay_convert.proof.inputs import to_dtype
from tensorquay_convert.tensors import Array, Meaning, TensorSpec


def converted(where: str, spec: TensorSpec, rows: Array, start: int, vocabulary: int | None) -> Array:
    """`rows` as the model takes them: contiguous, of the input's dtype; texts are `bytes` in arrays of object.

    Args:
        where: which file, for the sentence.
        start: what the number of the first of `rows` is in it.
        vocabulary: values pick from a table of so many rows.
    Raises: BadSource saying which value does not fit, at which row, what is expected and what to do.
    """
    place = f"{where}: input '{spec.name}'"
    if spec.dtype == "string":
        return _texts(place, rows, start)
    if rows.dtype.kind not in "biuf":
        raise BadSource(
            f"{place} is {spec.dtype}, the file holds {dtype_name(rows, spec.dtype)}",
            remedy=f"save it as {spec.dtype}",
        )
    if spec.dtype == "bool":
        found = _booleans(place, rows, start)
    elif spec.dtype.startswith(("int", "uint")):
        found = _integers(place, spec, rows, start)
    else:
        found = _floats(place, spec, rows, start)
    if vocabulary is not None:
        _refuse(
            (found < 0) | (found >= vocabulary), found, place, start,
            f"expected ids from 0 to {vocabulary - 1}", "are the tokens of another vocabulary?",
        )  # fmt: skip
    return np.ascontiguousarray(found).reshape(rows.shape)


def _refuse(wrong: Array, values: Array, place: str, start: int, expected: str, remedy: str) -> None:
    """Raise BadSource about the first wrong value, if there is one."""
    count = int(np.count_nonzero(wrong))
    if count:
        at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        index = [start + int(at[0]), *map(int, at[1:])]
        raise BadSource(
            f"{place} has {values[at]} at {index}{f' and {count - 1} more like it' if count > 1 else ''}, {expected}",
            remedy=remedy,
        )


def _booleans(place: str, rows: Array, start: int) -> Array:
    _refuse((rows != 0) & (rows != 1), rows, place, start, "expected true and false, or 0 and 1", "save it as bool")
    return rows.astype(np.bool_)


def _integers(place: str, spec: TensorSpec, rows: Array, start: int) -> Array:
    limits = np.iinfo(spec.dtype)
    low, high = int(limits.min), int(limits.max)
    if rows.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            _refuse(
                rows != np.rint(rows), rows, place, start,
                f"expected whole numbers: it is {spec.dtype}", f"save whole numbers, best as {spec.dtype}",
            )  # fmt: skip
        # The bounds are powers of two (the upper one with 1 added), which doubles hold exactly.
        wide = rows.astype(np.float64)
        wrong = (wide < float(low)) | (wide >= float(high + 1))
    else:
        own = np.iinfo(rows.dtype) if rows.dtype.kind != "b" else None
        wrong = np.zeros(rows.shape, np.bool_)
        if own is not None and own.min < low:
            wrong |= rows < low
        if own is not None and own.max > high:
            wrong |= rows > high
    _refuse(wrong, rows, place, start, f"expected {low} to {high}: it is {spec.dtype}", "check what the file holds")
    return rows.astype(spec.dtype)


def _floats(place: str, spec: TensorSpec, rows: Array, start: int) -> Array:
    is_bits = spec.dtype == "bfloat16" and rows.dtype == np.uint16
    given = as_numbers(rows, "bfloat16") if is_bits else rows
    if given.dtype.kind == "f":
        wrong = np.isinf(given) if spec.values.missing else ~np.isfinite(given)
        _refuse(wrong, given, place, start, "expected finite numbers", "leave such rows out or fill them in")
    if is_bits or given.dtype == np.dtype(spec.dtype if spec.dtype != "bfloat16" else np.void):
        return rows
    with np.errstate(over="ignore"):
        found = to_dtype(given, spec.dtype)
        too_large = np.isinf(as_numbers(found, spec.dtype))
    _refuse(too_large, given, place, start, f"which {spec.dtype} cannot hold", "scale it, or check what the file holds")
    return found


def _texts(place: str, rows: Array, start: int) -> Array:
    if rows.dtype.kind not in "OUS":
        raise BadSource(f"{place} takes texts, the file holds {rows.dtype.name}", remedy="save texts")
    found = np.empty(rows.size, object)
    for number, each in enumerate(rows.reshape(-1).tolist()):
        found[number] = _text(place, each, rows, number, start)
    return found.reshape(rows.shape)


def _text(place: str, each: Any, rows: Array, number: int, start: int) -> bytes:
    try:
        if isinstance(each, bytes):
            each.decode()
            return each
        return str(each).encode()
    except UnicodeError as exc:
        at = np.unravel_index(number, rows.shape)
        raise BadSource(
            f"{place} has a text at {[start + int(at[0]), *map(int, at[1:])]} that is not UTF-8: {exc}",
            remedy="save texts as UTF-8",
        ) from exc


def takes_ids(spec: TensorSpec) -> bool:
    """Whether values of an input are numbers of entries in a table."""
    return spec.values.meaning in {Meaning.TOKEN_IDS, Meaning.SEGMENT_IDS, Meaning.POSITIONS}
