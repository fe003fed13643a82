"""Example files as inputs to trace with: the same files the proof runs later."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tensorquay_convert.errors import BadSource
from tensorquay_convert.job import ImportJob
from tensorquay_convert.tensors import Array

_LARGEST_BYTES = 1 << 30


_WIRE = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool"}
"""Types of the inference protocol whose names are not numpy's in capitals."""


def example_inputs(job: ImportJob, names: Sequence[str]) -> Any:
    """What `open_module` takes: a mapping by name, a tuple for one nameless array, a list of two; None without files.

    Images are left to the proof: only their declaration says how they become numbers.
    Args: names: inputs the model can take.
    Raises: BadSource for files that cannot be read, and for other names.
    """
    whole: list[Any] = []
    single: dict[str, torch.Tensor] = {}
    for each in job.examples:
        name, equals, rest = each.partition("=")
        if not equals or Path(each).is_file():
            name, rest = "", each
        path = Path(rest)
        if path.suffix not in {".npz", ".npy", ".json"}:
            continue
        arrays = _read(path)
        if name:
            if len(arrays) != 1:
                raise BadSource(f"'{path.name}' holds {len(arrays)} arrays, expected one, for '{name}'")
            single[name] = next(iter(arrays.values()))
        else:
            whole.append(arrays if "" not in arrays else (arrays[""],))
    if single:
        whole.insert(0, single)
    if not whole:
        return None
    for each in whole:
        other = [name for name in each if name not in names] if isinstance(each, dict) else []
        if other:
            raise BadSource(
                f"the example inputs do not fit: they name '{other[0]}', the model takes {', '.join(names)}",
                remedy="name them as the arguments of forward",
            )
    return whole[0] if len(whole) == 1 or type(whole[0]) is not type(whole[1]) else whole[:2]


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name; "" for a nameless one."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadSource(f"the example '{path.name}' is larger than {_LARGEST_BYTES >> 20} MiB")
        if path.suffix == ".json":
            return _from_json(json.loads(path.read_bytes()), path.name)
        loaded = np.load(path, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, RecursionError) as exc:
        raise BadSource(
            f"the example '{path.name}' cannot be read: {exc}", remedy="give an .npz, .npy or .json file"
        ) from exc
    return {name: _tensor(array, path.name) for name, array in arrays.items()}


def _from_json(value: Any, shown: str) -> dict[str, torch.Tensor]:
    if isinstance(value, list):
        return {"": _tensor(_plain(value, shown), shown)}
    if not isinstance(value, Mapping):
        raise BadSource(f"the example '{shown}' holds a {type(value).__name__}, expected arrays by name")
    inputs = value.get("inputs")
    if isinstance(inputs, list) and all(isinstance(each, Mapping) and "shape" in each for each in inputs):
        # A request's body of the inference protocol.
        return {str(each.get("name", "")): _tensor(_from_wire(each, shown), shown) for each in inputs}
    return {str(name): _tensor(_plain(each, shown), shown) for name, each in value.items()}


def _from_wire(value: Mapping[str, Any], shown: str) -> Array:
    named = str(value.get("datatype", ""))
    array = _plain(value.get("data", []), shown).reshape(value["shape"])
    return array.astype(_WIRE.get(named, named.lower())) if named else array


def _plain(value: Any, shown: str) -> Array:
    """Numbers in nested lists: fractions become float32, whole numbers int64."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind not in "biu":
        raise BadSource(f"the example '{shown}' holds values that are no numbers")
    return array


def _tensor(array: Array, shown: str) -> torch.Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except TypeError as exc:
        raise BadSource(f"the example '{shown}' holds {array.dtype}, which no PyTorch tensor has") from exc
