"""Between PyTorch's tensors, nested as a module likes them, and flat named arrays."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tensorquay_convert.errors import BadSource
from tensorquay_convert.tensors import Array, Axis, Values

DTYPES: Mapping[str, torch.dtype] = {
    "bool": torch.bool,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

Leaf = tuple[str, Any]
"""A path as a name ("state_0"), and what is there: a tensor, or something that is none."""


def dtype_name(dtype: torch.dtype, where: str) -> str:
    """Our name of it. Raises: BadSource for types ONNX inputs and outputs do not have (complex, quantized)."""
    name = _NAMES.get(dtype)
    if name is None:
        raise BadSource(f"{where} is of type {str(dtype).removeprefix('torch.')}, which no served tensor can have")
    return name


def to_tensor(array: Array, dtype: str) -> torch.Tensor:
    """The array as a tensor of its own memory; "bfloat16" arrays hold the bits as uint16."""
    if dtype == "bfloat16":
        bits = np.array(array, dtype=np.uint16, order="C").view(np.int16)
        return torch.from_numpy(bits).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, dtype=np.dtype(dtype), order="C"))


def to_array(tensor: torch.Tensor) -> Array:
    """The tensor's values on the CPU, a copy; bfloat16 as its bits in uint16."""
    plain = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    if plain.dtype is torch.bfloat16:
        bits: Array = plain.view(torch.int16).numpy().view(np.uint16).copy()
        return bits
    values: Array = plain.numpy().copy()
    return values


def clean(text: str) -> str:
    """A name out of any text: letters, digits, underscores, dots."""
    return re.sub(r"[^\w.]+", "_", text).strip("_") or "value"


def leaves(value: Any, name: str) -> list[Leaf]:
    """Everything inside nested tuples, lists, mappings and dataclasses, in order, named by its path from `name`.

    None is left out: an output that is not given, an argument that is not used.
    """
    if value is None:
        return []
    parts = _parts(value)
    if parts is None:
        return [(name, value)]
    return [leaf for key, each in parts for leaf in leaves(each, f"{name}_{clean(str(key))}" if name else clean(key))]


def rebuild(value: Any, replacement: Callable[[Any], Any]) -> Any:
    """The same nesting with every tensor replaced, in the order of `leaves`."""
    if isinstance(value, torch.Tensor):
        return replacement(value)
    if isinstance(value, Mapping):
        filled = {key: rebuild(each, replacement) for key, each in value.items()}
        made: Any = dict if type(value) is dict else type(value)
        return made(filled)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(rebuild(each, replacement) for each in value))
    if isinstance(value, tuple | list):
        return type(value)(rebuild(each, replacement) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed = {each.name: rebuild(getattr(value, each.name), replacement) for each in dataclasses.fields(value)}
        return dataclasses.replace(value, **changed)
    return value


def named_outputs(value: Any) -> list[tuple[str, torch.Tensor]]:
    """A module's result as named tensors: keys of mappings and fields, else "output", "output_0" ….

    Raises: BadSource when there is no tensor in it, or something that is none.
    """
    keyed = isinstance(value, Mapping) or (not isinstance(value, torch.Tensor) and _is_record(value))
    found = leaves(value, "" if keyed else "output")
    for name, each in found:
        if not isinstance(each, torch.Tensor):
            raise BadSource(
                f"the model gives a {type(each).__name__} as '{name}', expected tensors only",
                remedy="return tensors from forward",
            )
    if not found:
        raise BadSource("the model gives no tensor at all", remedy="return tensors from forward")
    return _unique(found)


def resized(array: Array, shape: Sequence[Axis], sizes: Mapping[str, int]) -> Array:
    """The array at other sizes of its dynamic axes: entries are repeated or cut off, so they stay valid values."""
    for place, axis in enumerate(shape):
        if isinstance(axis, str) and axis in sizes and array.shape[place] != sizes[axis]:
            array = np.take(array, np.arange(sizes[axis]) % array.shape[place], axis=place)
    return array


def seeded(dtype: str, shape: Sequence[int], values: Values, seed: int) -> Array:
    """Values to try a model on when nobody gave an example; integers are 0 or 1 unless bounds say otherwise."""
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return np.ones(shape, np.bool_)
    if dtype == "bfloat16":
        return to_array(torch.from_numpy(random.standard_normal(shape, np.float32)).to(torch.bfloat16))
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        low = 0 if values.low is None else int(values.low)
        high = low + 1 if values.high is None else int(values.high)
        return random.integers(low, high, size=shape, endpoint=True).astype(kind)
    drawn = random.standard_normal(shape)
    if values.low is not None and values.high is not None:
        drawn = random.uniform(values.low, values.high, shape)
    return drawn.astype(kind)


def _parts(value: Any) -> list[tuple[Any, Any]] | None:
    """What a container holds with its keys, None for what is no container."""
    if isinstance(value, torch.Tensor | str | bytes):
        return None
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(each.name, getattr(value, each.name)) for each in dataclasses.fields(value)]
    return None


def _is_record(value: Any) -> bool:
    return hasattr(value, "_fields") or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _unique(found: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """No name twice: {"a": (x, y), "a_0": z} would give one."""
    seen: set[str] = set()
    unique = []
    for name, each in found:
        free, count = name, 1
        while free in seen:
            count += 1
            free = f"{name}__{count}"
        seen.add(free)
        unique.append((free, each))
    return unique
