"""Inputs of the user's own (`--example`): read, and fitted to the model's interface.

* `.npz`: arrays by input name. `.npy`: the only input, or `NAME=file.npy`; several of those are one example, until a
  name comes again.
* `.json`: a V2 inference request (`{"inputs": [{"name", "shape", "data"}]}`), an object from input names to nested
  lists, or nested lists for the only input.
* images (anything pillow opens): for the only image-shaped input, (batch, channels, height, width) or channels last,
  with 1, 3 or 4 channels. Resized (bilinear) where height and width are fixed. Bytes are scaled linearly from 0 … 255
  to the input's range, 0 … 1 where none is known; an integer input gets them as they are. No mean is subtracted: give
  arrays when the model wants that.

A missing batch axis of 1 is added. Numbers change to the input's dtype only when nothing but precision is lost.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorquay_convert.errors import BadSource
from tensorquay_convert.proof.compare import dtype_name
from tensorquay_convert.proof.inputs import to_dtype
from tensorquay_convert.proof.sizes import bounds, fit
from tensorquay_convert.tensors import BATCH, Array, Arrays, Interface, Meaning, TensorSpec

MAX_FILE_BYTES = 1 << 30
MAX_PIXELS = 100_000_000
IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True)
class Example:
    """One set of inputs from files. `name`: of the files, for people; `sizes`: of the dynamic axes."""

    name: str
    sizes: Mapping[str, int]
    inputs: Arrays


def read(paths: Sequence[Path], interface: Interface) -> tuple[Example, ...]:
    """All examples, in order. Raises: BadSource naming the file, the input, what was expected and what is there."""
    found: list[tuple[str, dict[str, Array]]] = []
    named: dict[str, Array] = {}
    files: list[str] = []
    for path in paths:
        name, file = _split(path)
        if name is not None:
            if name in named:
                found.append((", ".join(files), named))
                named, files = {}, []
            named[name] = _one_array(file)
            files.append(file.name)
        else:
            found.append((file.name, _read(file, interface)))
    if named:
        found.append((", ".join(files), named))
    return tuple(_fitted(name, arrays, interface) for name, arrays in found)


def _split(path: Path) -> tuple[str | None, Path]:
    """`NAME=file`, unless a file of that whole name exists."""
    name, equals, file = str(path).partition("=")
    if equals and name and not path.is_file():
        return name, _there(Path(file))
    return None, _there(path)


def _there(path: Path) -> Path:
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as exc:
        raise BadSource(f"example {path}: cannot be read: {exc.strerror or exc}") from exc
    if size is None:
        raise BadSource(
            f"example {path}: there is no such file", remedy="--example takes npz, npy, json and image files"
        )
    if size > MAX_FILE_BYTES:
        raise BadSource(f"example {path.name}: has {size} bytes, expected at most {MAX_FILE_BYTES}")
    return path


def _read(path: Path, interface: Interface) -> dict[str, Array]:
    kind = path.suffix.lower()
    if kind == ".npz":
        return _archive(path)
    if kind == ".npy":
        return {_only(path, interface).name: _one_array(path)}
    if kind == ".json":
        return read_json(path, interface)
    if kind in IMAGES:
        spec = _image_input(path, interface)
        return {spec.name: _image(path, spec, interface)}
    raise BadSource(
        f"example {path.name}: '{kind or 'no ending'}' is no kind of example",
        remedy="give an npz, npy, json or image file",
    )


def _only(path: Path, interface: Interface) -> TensorSpec:
    needed = [spec for spec in interface.inputs if not spec.optional]
    if len(needed) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in needed)
        raise BadSource(
            f"example {path.name}: holds one array, the model takes {len(needed)} inputs ({names})",
            remedy=f"give --example NAME={path.name} for each, or one npz with all",
        )
    return needed[0]


def _one_array(path: Path) -> Array:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise BadSource(f"example {path.name}: is no npy file that can be read: {exc}") from exc
    if not isinstance(found, np.ndarray):
        found.close()
        raise BadSource(f"example {path.name}: is an archive of arrays, expected one array")
    return found


def _archive(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as exc:
        # A plain npy called npz has no files and cannot be closed.
        raise BadSource(f"example {path.name}: is no npz file that can be read: {exc}") from exc


def read_json(path: Path, interface: Interface) -> dict[str, Array]:
    """Arrays by input name of a request, an object of lists or a list; texts are `str` in arrays of object.

    Raises: BadSource.
    """
    try:
        plain = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise BadSource(f"example {path.name}: is not JSON: {exc}") from exc
    if isinstance(plain, dict) and isinstance(plain.get("inputs"), list) and _is_request(plain["inputs"]):
        return {str(each["name"]): _listed(path, each) for each in plain["inputs"]}
    if isinstance(plain, dict):
        return {str(name): _array(path, str(name), value) for name, value in plain.items()}
    return {(spec := _only(path, interface)).name: _array(path, spec.name, plain)}


def _is_request(inputs: Sequence[Any]) -> bool:
    return bool(inputs) and all(isinstance(each, dict) and {"name", "data"} <= each.keys() for each in inputs)


def _listed(path: Path, tensor: Mapping[str, Any]) -> Array:
    found = _array(path, str(tensor["name"]), tensor["data"])
    shape = tensor.get("shape")
    if shape is None:
        return found
    if not isinstance(shape, list) or not all(isinstance(each, int) and each >= 0 for each in shape):
        raise BadSource(f"example {path.name}: input '{tensor['name']}': its shape is no list of sizes")
    try:
        return found.reshape(shape)
    except ValueError as exc:
        raise BadSource(
            f"example {path.name}: input '{tensor['name']}': {found.size} values do not fill the shape {shape}"
        ) from exc


def _array(path: Path, name: str, value: Any) -> Array:
    try:
        found = np.array(value)
    except (ValueError, OverflowError) as exc:
        raise BadSource(f"example {path.name}: input '{name}': its lists have different lengths ({exc})") from exc
    if found.dtype.kind not in "biufU":
        raise BadSource(f"example {path.name}: input '{name}': expected numbers, true and false, or texts")
    if found.dtype.kind == "U":
        # numpy's own texts lose zeros at their end.
        found = np.array(value, object)
    return found


def _image_input(path: Path, interface: Interface) -> TensorSpec:
    shaped = [spec for spec in interface.inputs if not spec.optional and _layout(spec) is not None]
    needed = [spec for spec in interface.inputs if not spec.optional]
    if len(shaped) != 1 or len(needed) != 1:
        raise BadSource(
            f"example {path.name}: is an image, and the model does not take exactly one input of an image's shape",
            remedy="give the arrays themselves as npz",
        )
    return shaped[0]


def _layout(spec: TensorSpec) -> int | None:
    """The index of the channels axis among the last three; None when it is not image-shaped."""
    shape = spec.shape
    if shape is None or len(shape) not in {3, 4} or spec.dtype in {"bool", "string", "bfloat16"}:
        return None
    last = shape[-3:]
    if isinstance(last[0], int) and last[0] in _CHANNELS:
        return 0
    return 2 if isinstance(last[2], int) and last[2] in _CHANNELS else None


def _image(path: Path, spec: TensorSpec, interface: Interface) -> Array:
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only who gives images needs pillow
    except ImportError as exc:
        raise BadSource("reading images needs pillow, which is not installed", remedy="pip install pillow") from exc
    channels_at = _layout(spec)
    assert channels_at is not None
    assert spec.shape is not None
    last = spec.shape[-3:]
    channels = last[channels_at]
    assert isinstance(channels, int)
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadSource(f"example {path.name}: has {image.width} x {image.height} pixels, at most {MAX_PIXELS}")
            rows, columns = last[1:] if channels_at == 0 else last[:2]
            height, width = _length(rows, image.height, interface), _length(columns, image.width, interface)
            fitted = image.convert(_CHANNELS[channels]).resize((width, height), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as exc:
        raise BadSource(f"example {path.name}: is no image that can be read: {exc}") from exc
    pixels = np.asarray(fitted).reshape(height, width, channels)
    array: Array = pixels if channels_at == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if spec.dtype.startswith("float"):
        bounded = spec.values.meaning is Meaning.IMAGE
        low = spec.values.low if bounded and spec.values.low is not None else 0.0
        high = spec.values.high if bounded and spec.values.high is not None else low + 1.0
        array = low + array.astype(np.float64) / 255.0 * (high - low)
    return to_dtype(array, spec.dtype)


def _length(axis: int | str, size: int, interface: Interface) -> int:
    """A fixed axis as it is, a dynamic one as near to the image's as its bounds allow."""
    return axis if isinstance(axis, int) else fit(size, bounds(interface, axis))


def _fitted(where: str, arrays: Mapping[str, Array], interface: Interface) -> Example:
    specs = {spec.name: spec for spec in interface.inputs}
    for name in arrays:
        if name not in specs:
            raise BadSource(f"example {where}: the model has no input '{name}'; it has {', '.join(specs)}")
    sizes: dict[str, int] = {}
    inputs: dict[str, Array] = {}
    for spec in interface.inputs:
        if spec.name not in arrays:
            if not spec.optional:
                raise BadSource(f"example {where}: input '{spec.name}' is missing")
            continue
        value = _of_dtype(where, spec, arrays[spec.name])
        inputs[spec.name] = _of_shape(where, spec, value, interface, sizes)
    return Example(where, sizes, inputs)


def _of_dtype(where: str, spec: TensorSpec, value: Array) -> Array:
    given = dtype_name(value, spec.dtype)
    if given == spec.dtype and spec.dtype != "string":
        return value
    if given == spec.dtype:
        found = np.empty(value.size, object)
        found[:] = [each if isinstance(each, bytes) else str(each).encode() for each in value.reshape(-1).tolist()]
        return found.reshape(value.shape)
    floats = spec.dtype.startswith(("float", "bfloat"))
    whole = spec.dtype.startswith(("int", "uint"))
    if floats and value.dtype.kind in "fiu":
        with np.errstate(over="ignore"):
            return to_dtype(value, spec.dtype)
    if whole and value.dtype.kind in "iu":
        limits = np.iinfo(spec.dtype)
        if not value.size or (int(value.min()) >= limits.min and int(value.max()) <= limits.max):
            return to_dtype(value, spec.dtype)
    raise BadSource(f"example {where}: input '{spec.name}' is {spec.dtype}, the example holds {given} that do not fit")


def _of_shape(where: str, spec: TensorSpec, value: Array, interface: Interface, sizes: dict[str, int]) -> Array:
    if spec.shape is None:
        return value
    if value.ndim == len(spec.shape) - 1 and spec.shape and spec.shape[0] in {BATCH, 1}:
        value = value[None]
    if value.ndim != len(spec.shape):
        raise BadSource(
            f"example {where}: input '{spec.name}' has shape {list(spec.shape)}, the example holds {list(value.shape)}"
        )
    for at, (axis, size) in enumerate(zip(spec.shape, value.shape, strict=True)):
        what = f"example {where}: axis {at} of input '{spec.name}'"
        if isinstance(axis, int):
            if axis != size:
                raise BadSource(f"{what} is {axis}, the example holds {size}")
            continue
        if sizes.setdefault(axis, size) != size:
            raise BadSource(f"{what} is '{axis}', which is {sizes[axis]} elsewhere in the example, and {size} here")
        declared = interface.axes.get(axis)
        if declared is not None and (
            size < declared.low or (declared.high is not None and size > declared.high) or size % declared.multiple
        ):
            high = "any size" if declared.high is None else declared.high
            step = f", in steps of {declared.multiple}" if declared.multiple > 1 else ""
            raise BadSource(f"{what} ('{axis}') may be {declared.low} to {high}{step}, the example holds {size}")
    return np.ascontiguousarray(value)
