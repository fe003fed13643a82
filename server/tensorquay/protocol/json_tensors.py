"""Tensor data in JSON ⇄ arrays: the `data` member of inputs and outputs.

`data` may be flat or nested; nested data must be regular, and its elements must be as many as the shape says. The
nesting itself need not repeat the shape (Triton's rule). Good data is converted without a Python step per element;
only a refusal looks for the element to name.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import Any

import numpy as np
import orjson

from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.tensors import MAX_RANK, Tensor
from tensorquay.protocol.json_text import kind_of

STRUCT_CODES = {
    DataType.UINT8: "B",
    DataType.UINT16: "H",
    DataType.UINT32: "I",
    DataType.UINT64: "Q",
    DataType.INT8: "b",
    DataType.INT16: "h",
    DataType.INT32: "i",
    DataType.INT64: "q",
    DataType.FP32: "f",
    DataType.FP64: "d",
}
"""How `struct` packs an element. It is as fast as numpy here and strict: no truncation, no overflow, no text that
happens to be a number, and no memory that one long string could multiply."""

_ROWS_BYTES = 64 * 1024
"""Up to here the rows of a batch are written as one text."""


def array_from_data(
    name: str, datatype: DataType, shape: list[int], count: int, data: object, *, no_booleans: bool
) -> Array:
    """The array that `data` spells.

    Args: count: elements of `shape` (from `element_count`). no_booleans: the caller has seen that the body holds
        neither `true` nor `false`, which spares a look at every element.
    Raises: InvalidArgument naming the element: wrong type, out of range, ragged nesting, or a wrong count.
    """
    if datatype is DataType.FP16 or datatype is DataType.BF16:
        raise InvalidArgument(
            f"input '{name}': {datatype.wire} cannot be sent as JSON, use the binary data (parameter "
            "'binary_data_size' and header Inference-Header-Content-Length)",
            facts={"input": name, "got": datatype.wire},
        )
    if type(data) is not list:
        raise InvalidArgument(f"input '{name}': 'data' must be an array, got {kind_of(data)}", facts={"input": name})
    flat = _flatten(name, data) if data and type(data[0]) is list else data
    if len(flat) != count:
        raise InvalidArgument(
            f"input '{name}': shape {shape} has {count} elements, but 'data' holds {len(flat)}",
            facts={"input": name, "expected": count, "got": len(flat)},
        )
    return _convert(name, datatype, flat, no_booleans=no_booleans).reshape(shape)


def data_of(tensor: Tensor) -> object:
    """The flat `data` member of an output: an array for orjson's numpy support, or a list of str.

    Raises: InvalidArgument for what JSON cannot hold: 16-bit floats, NaN and infinity, BYTES that are not UTF-8. The
    client's way out is binary data, and the text says so.
    """
    datatype = tensor.datatype
    if datatype is DataType.BYTES:
        return _texts(tensor)
    if datatype is DataType.FP16 or datatype is DataType.BF16:
        raise _ask_binary(tensor.name, f"is {datatype.wire}, which is not sent as JSON")
    flat = np.ascontiguousarray(tensor.array).reshape(-1)
    if datatype.is_float:
        finite = np.isfinite(flat)
        if not finite.all():
            index = int(np.argmin(finite))
            value = "NaN" if np.isnan(flat[index]) else "Infinity" if flat[index] > 0 else "-Infinity"
            raise _ask_binary(tensor.name, f"holds {value} at index {index}, which JSON cannot express")
    return flat


def row_texts(datatype: DataType, array: Array) -> list[bytes] | None:
    """Of each row of `array`, its elements as JSON without brackets: many riders' `data`, written at once.

    None for what is better written one by one: few or many bytes, and what JSON cannot hold, which `data_of` words.
    """
    if datatype not in STRUCT_CODES and datatype is not DataType.BOOL:
        return None
    if array.ndim == 0 or len(array) < 2 or array.nbytes > _ROWS_BYTES or not array.size:
        return None
    if datatype.is_float and not np.isfinite(array).all():
        return None
    rows = np.ascontiguousarray(array).reshape(len(array), -1)
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")


def _flatten(name: str, data: list[Any]) -> list[Any]:
    """The elements of regular nested lists, level by level; no recursion."""
    level = data
    for _ in range(MAX_RANK):
        kinds = set(map(type, level))
        if list not in kinds:
            return level
        if len(kinds) > 1:
            raise InvalidArgument(
                f"input '{name}': 'data' mixes arrays and single elements at one level", facts={"input": name}
            )
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise InvalidArgument(
                f"input '{name}': 'data' is ragged: arrays of one level have lengths {min(lengths)} and {max(lengths)}",
                facts={"input": name},
            )
        level = list(chain.from_iterable(level))
    raise InvalidArgument(f"input '{name}': 'data' nests deeper than {MAX_RANK} levels", facts={"input": name})


def _convert(name: str, datatype: DataType, flat: list[Any], *, no_booleans: bool) -> Array:
    if datatype is DataType.BYTES:
        if not set(map(type, flat)) <= {str}:
            raise _bad_element(name, datatype, flat)
        items = np.empty(len(flat), dtype=np.object_)
        items[:] = [text.encode() for text in flat]
        return items
    if datatype is DataType.BOOL:
        if not set(map(type, flat)) <= {bool}:
            raise _bad_element(name, datatype, flat)
        return np.array(flat, dtype=np.bool_)
    if not no_booleans and bool in set(map(type, flat)):
        raise _bad_element(name, datatype, flat)  # to Python, true is the integer 1
    try:
        packed = struct.pack(f"<{len(flat)}{STRUCT_CODES[datatype]}", *flat)
    except (struct.error, OverflowError) as exc:
        raise _bad_element(name, datatype, flat) from exc
    return np.frombuffer(packed, dtype=datatype.numpy)


def _bad_element(name: str, datatype: DataType, flat: list[Any]) -> InvalidArgument:
    """The refusal of the first element that is not of `datatype`."""
    for index, value in enumerate(flat):
        problem = _problem(datatype, value)
        if problem:
            return InvalidArgument(
                f"input '{name}': element {index} of 'data' {problem}", facts={"input": name, "index": index}
            )
    raise AssertionError(f"no element of '{name}' explains the refusal")  # the checks above and `_problem` disagree


def _problem(datatype: DataType, value: object) -> str:
    """What keeps `value` from being an element of `datatype`; empty if nothing does."""
    if datatype is DataType.BYTES:
        return "" if isinstance(value, str) else f"must be a string for BYTES, got {_shown(value)}"
    if datatype is DataType.BOOL:
        return "" if isinstance(value, bool) else f"must be true or false for BOOL, got {_shown(value)}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"must be a number for {datatype.wire}, got {_shown(value)}"
    try:
        struct.pack("<" + STRUCT_CODES[datatype], value)
    except (struct.error, OverflowError):
        if datatype.is_float:
            return f"is out of range for {datatype.wire}: {value!r:.40}"
        limits = np.iinfo(datatype.numpy)
        # Beyond 64 bits the parser gives floats for integers, so a large one may have been either.
        if isinstance(value, float) and abs(value) < 2**63:
            return f"must be an integer for {datatype.wire}, got {value!r}"
        return f"is out of range for {datatype.wire} ({limits.min} to {limits.max}): {value!r:.40}"
    return ""


def _shown(value: object) -> str:
    kind = kind_of(value)
    return kind if value is None or isinstance(value, (list, dict)) else f"{kind} ({value!r:.40})"


def _texts(tensor: Tensor) -> list[str]:
    try:
        return [item.decode() for item in tensor.array.flat]
    except UnicodeDecodeError:
        for index, item in enumerate(tensor.array.flat):
            try:
                item.decode()
            except UnicodeDecodeError as exc:
                raise _ask_binary(tensor.name, f"holds bytes at index {index} that are not UTF-8 text") from exc
        raise


def _ask_binary(name: str, problem: str) -> InvalidArgument:
    return InvalidArgument(
        f"output '{name}' {problem}; ask for binary output (output parameter 'binary_data': true, or request "
        "parameter 'binary_data_output': true) to receive it",
        facts={"output": name, "hint": "binary_data"},
    )
