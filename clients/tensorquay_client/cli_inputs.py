"""Array files given on the command line → inputs by name: .npy, .npz and .json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tensorquay_client.errors import InvalidArgument
from tensorquay_client.messages import ModelMetadata, TensorMetadata
from tensorquay_client.tensors import Array


def split_name(given: str, metadata: ModelMetadata) -> tuple[str, Path]:
    """ "NAME=PATH" or "PATH" as the input's name ("" if not said) and the path.

    What stands before "=" is a name only if the model has such an input: paths may hold "=" too.
    Raises: InvalidArgument if it can be neither.
    """
    name, separator, path = given.partition("=")
    if separator and any(entry.name == name for entry in metadata.inputs):
        return name, Path(path)
    if separator and not Path(given).exists():
        raise InvalidArgument(f"'{name}' is no input of '{metadata.name}', which has {_names(metadata)}")
    return "", Path(given)


def read_inputs(given: Sequence[str], metadata: ModelMetadata) -> dict[str, Array]:
    """The arrays of all `given` files ("[NAME=]PATH") by input name.

    Raises: InvalidArgument for files that cannot be read, names the model does not have, and inputs given twice.
    """
    result: dict[str, Array] = {}
    for text in given:
        name, path = split_name(text, metadata)
        for found, array in _read(path, name, metadata).items():
            if found in result:
                raise InvalidArgument(f"input '{found}' is given twice")
            result[found] = array
    return result


def only_input(metadata: ModelMetadata, what: str) -> TensorMetadata:
    """The input of a model with one.

    Raises: InvalidArgument if it has several.
    """
    if len(metadata.inputs) != 1:
        raise InvalidArgument(f"'{metadata.name}' has the inputs {_names(metadata)}: say which, --input NAME={what}")
    return metadata.inputs[0]


def _read(path: Path, name: str, metadata: ModelMetadata) -> dict[str, Array]:
    try:
        content = _load(path)
    except (OSError, ValueError, EOFError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        raise InvalidArgument(f"'{path}' cannot be read: {reason}") from exc
    if isinstance(content, Mapping) and not name:
        arrays = _named_arrays(path, content)
    elif isinstance(content, Mapping):
        raise InvalidArgument(f"'{path}' names its inputs itself: give it without '{name}='")
    else:
        arrays = {name or only_input(metadata, str(path)).name: _array(path, content)}
    declared = {entry.name: entry for entry in metadata.inputs}
    for found in arrays:
        if found not in declared:
            raise InvalidArgument(f"'{path}': '{found}' is no input of '{metadata.name}', which has {_names(metadata)}")
    return {found: _fitted(array, declared[found]) for found, array in arrays.items()}


def _load(path: Path) -> Any:
    """An array, a mapping of arrays, or what the JSON says."""
    match path.suffix.lower():
        case ".npy":
            return np.load(path, allow_pickle=False)
        case ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        case ".json":
            return orjson.loads(path.read_bytes())
        case suffix:
            raise ValueError(f"'{suffix}' files are not known here; expected .npy, .npz or .json")


def _named_arrays(path: Path, content: Mapping[str, Any]) -> dict[str, Array]:
    """name → array from an archive, a JSON object, or the body of a V2 request."""
    if isinstance(content.get("inputs"), list):
        try:
            return {
                str(entry["name"]): _array(path, entry["data"]).reshape(entry["shape"]) for entry in content["inputs"]
            }
        except (KeyError, TypeError, ValueError) as exc:
            raise InvalidArgument(
                f"'{path}': expected the body of a V2 request, whose inputs have name, shape and data: {exc}"
            ) from exc
    return {str(name): _array(path, value) for name, value in content.items()}


def _array(path: Path, value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError as exc:
        raise InvalidArgument(f"'{path}': the lists do not make an array: {exc}") from exc


def _fitted(array: Array, spec: TensorMetadata) -> Array:
    """`array` in the shape of `spec` where only axes are missing or flattened and there is just one way to add them."""
    free = spec.shape.count(-1)
    fixed = math.prod(size for size in spec.shape if size >= 0)
    if (
        array.ndim == len(spec.shape)
        or free > 1
        or fixed == 0
        or array.size % fixed
        or (not free and array.size != fixed)
    ):
        return array
    return array.reshape(spec.shape)


def _names(metadata: ModelMetadata) -> str:
    return ", ".join(f"'{entry.name}'" for entry in metadata.inputs) or "none"
