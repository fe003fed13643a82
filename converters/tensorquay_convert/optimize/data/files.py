"""The user's files (`--data`): arrays by input name, bounded before anything of them is unpacked.

* `.npz`: one array for each input, by its name (a single unnamed one for the only input). What its members take when
  they are unpacked is checked first.
* `.npy`: the only input; mapped, so it may be large.
* `.json`: a V2 inference request, an object from input names to lists, or lists for the only input.
* images: one row each, as `proof/examples.py` reads them.

Pickles are never read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tensorquay_convert.errors import BadSource
from tensorquay_convert.proof import examples
from tensorquay_convert.sources.onnx_graph import short
from tensorquay_convert.tensors import Array, Interface, TensorSpec

MAX_UNPACKED = 4 << 30
"""Bytes of all arrays that are in memory: of npz, JSON and images. An npy file is mapped and may be larger."""
MAX_JSON = 256 << 20
_KINDS = "npz, npy, json or image"


@dataclass(frozen=True, slots=True)
class Read:
    """A file's arrays by input name. `where`: as the user named it; `name`: without folders."""

    where: str
    name: str
    arrays: Mapping[str, Array]


@dataclass(slots=True)
class Budget:
    """Bytes that may still be unpacked. Owner: who reads a list of files."""

    left: int = MAX_UNPACKED

    def spend(self, where: str, size: int) -> None:
        """Raises: BadSource when the files together unpack to more than there may be."""
        if size > self.left:
            raise BadSource(
                f"{where}: unpacks to {size} bytes, expected at most {self.left} (all files together {MAX_UNPACKED})",
                remedy="give fewer rows, or one npy file for a model of one input, which is read piece by piece",
            )
        self.left -= size


def read(text: str, interface: Interface, budget: Budget) -> Read:
    """One file's arrays, of inputs that the model has and none missing.

    Raises: BadSource naming the file, what was expected, what it holds and what to do.
    """
    path = existing(text, f"give {_KINDS} files")
    kind = path.suffix.lower()
    if kind == ".npy":
        arrays = {only_input(text, interface).name: mapped(path, text)}
    elif kind == ".npz":
        arrays = _named(text, archive(path, text, budget), interface)
    elif kind == ".json":
        _bounded(path, text, MAX_JSON)
        arrays = _as_data(text, path, lambda: examples.read_json(path, interface))
        budget.spend(text, sum(each.nbytes for each in arrays.values()))
    elif kind in examples.IMAGES:
        arrays = _as_data(text, path, lambda: dict(examples.read([path], interface)[0].inputs))
        budget.spend(text, sum(each.nbytes for each in arrays.values()))
    else:
        raise BadSource(f"{text}: '{kind or 'no ending'}' is no kind of data", remedy=f"give {_KINDS} files")
    _inputs(text, arrays, interface)
    return Read(text, path.name, arrays)


def _as_data(where: str, path: Path, reading: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """What `examples` reads; its sentences are about `--example`, ours about the file."""
    try:
        return reading()
    except BadSource as exc:
        raise BadSource(
            f"{where}: {exc.sentence.removeprefix(f'example {path.name}: ')}",
            remedy=f"give {_KINDS} files that fit the model's inputs",
        ) from exc


def existing(text: str, remedy: str) -> Path:
    """The file of that name. Raises: BadSource when there is none, it is a folder, or it is empty."""
    path = Path(text)
    try:
        if path.is_dir():
            raise BadSource(f"{text}: is a folder, expected a file", remedy=remedy)
        if not path.is_file():
            raise BadSource(f"{text}: there is no such file", remedy=remedy)
        size = path.stat().st_size
    except (OSError, ValueError) as exc:
        raise BadSource(f"{text!r}: cannot be read: {exc}") from exc
    if not size:
        raise BadSource(f"{text}: is empty (0 bytes)", remedy=remedy)
    return path


def mapped(path: Path, where: str) -> Array:
    """The array of an npy file, not loaded. Raises: BadSource."""
    try:
        with path.open("rb") as stream:
            shape, dtype = _header(where, stream)
            start = stream.tell()
        _whole(where, shape, dtype, path.stat().st_size - start)
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise BadSource(f"{where}: is no npy file that can be read: {exc}", remedy="save it with numpy.save") from exc
    return found


def archive(path: Path, where: str, budget: Budget) -> dict[str, Array]:
    """The arrays of an npz file by name. Raises: BadSource."""
    try:
        with zipfile.ZipFile(path) as opened:
            members = opened.infolist()
            names = [each.filename.removesuffix(".npy") for each in members]
            if len(set(names)) < len(names):
                raise BadSource(f"{where}: holds two arrays of one name", remedy="save it with numpy.savez")
            # The zip's own word: reading ends where it says that a member ends.
            budget.spend(where, sum(each.file_size for each in members))
            found = {}
            for name, member in zip(names, members, strict=True):
                with opened.open(member) as stream:
                    shape, dtype = _header(f"{where}: array '{name}'", stream)
                    _whole(f"{where}: array '{name}'", shape, dtype, member.file_size - stream.tell())
                with opened.open(member) as stream:
                    found[name] = npy.read_array(stream, allow_pickle=False)
            return found
    except (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as exc:
        raise BadSource(
            f"{where}: is no npz file that can be read: {exc}", remedy="save it with numpy.savez or savez_compressed"
        ) from exc


def _header(where: str, stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that an npy stream announces. Raises: ValueError; BadSource for objects, which are pickled."""
    readers: dict[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }
    version = npy.read_magic(stream)
    if version not in readers:
        raise ValueError(f"its format is version {version}, expected 1.0 or 2.0")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise BadSource(
            f"{where}: holds Python objects, which are never unpickled, expected numbers or texts",
            remedy="save it with a dtype of its own: array.astype('float32'), or astype('U') for texts",
        )
    return shape, dtype


def _whole(where: str, shape: tuple[int, ...], dtype: np.dtype[Any], there: int) -> None:
    """Refuse an array that is not all there, before memory is reserved for it."""
    if 0 in shape:
        raise BadSource(f"{where}: holds no rows, its shape is {list(shape)}", remedy="give at least 2 rows")
    size = prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or size > there:
        raise BadSource(
            f"{where}: announces {size} bytes of values, shape {list(shape)}, and holds {there}: is it cut short?"
        )


def _bounded(path: Path, where: str, most: int) -> None:
    size = path.stat().st_size
    if size > most:
        raise BadSource(f"{where}: has {size} bytes, expected at most {most}", remedy="give arrays as npz")


def only_input(where: str, interface: Interface) -> TensorSpec:
    """The one input a file of one array is for. Raises: BadSource when the model takes more."""
    needed = [spec for spec in interface.inputs if not spec.optional]
    if len(needed) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in needed)
        raise BadSource(
            f"{where}: holds one array, the model takes {len(needed)} inputs: {names}",
            remedy="give one npz file with an array for each by its name",
        )
    return needed[0]


def _named(where: str, arrays: dict[str, Array], interface: Interface) -> dict[str, Array]:
    """`numpy.savez(file, array)` calls its array arr_0; the only input may be saved so."""
    if list(arrays) == ["arr_0"] and all(spec.name != "arr_0" for spec in interface.inputs):
        return {only_input(where, interface).name: arrays["arr_0"]}
    return arrays


def _inputs(where: str, arrays: Mapping[str, Array], interface: Interface) -> None:
    there = ", ".join(f"'{spec.name}'" for spec in interface.inputs)
    unknown = sorted(set(arrays) - {spec.name for spec in interface.inputs})
    if unknown:
        raise BadSource(
            f"{where}: the model has no input {short(unknown[0])}; it has {there}",
            remedy="name the arrays as the model's inputs",
        )
    missing = [spec.name for spec in interface.inputs if not spec.optional and spec.name not in arrays]
    if missing:
        found = ", ".join(f"'{name}'" for name in arrays) or "nothing"
        raise BadSource(
            f"{where}: input '{missing[0]}' is missing, the file holds {found}; the model takes {there}",
            remedy="give an array for every input",
        )
