"""Weights kept beside the model: every reference must stay in the model's own folder and fit its file.

A model file is data from a stranger; without this check a repository could read any file of the machine into a
tensor and answer with it. ONNX Runtime checks much of this too, in some versions, with paths in its texts.
Source: ONNX `docs/ExternalData.md`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tensorquay.backends.onnxruntime.model_file import kind_of
from tensorquay.core.errors import ModelFailed

_EXTERNAL = 1
_MAX_NAME = 80


@dataclass(frozen=True, slots=True)
class ExternalData:
    """One reference: which tensor wants which bytes of which file. `length` None: to the end of the file."""

    tensor: str
    location: str
    offset: int
    length: int | None


def references(model: Any) -> tuple[ExternalData, ...]:
    """Every reference in the `onnx.ModelProto`: initialisers, constants, subgraphs, functions, training graphs.

    Raises: ModelFailed when a reference is malformed.
    """
    return tuple(_parse(tensor) for tensor in _tensors(model) if tensor.data_location == _EXTERNAL)


def check(folder: Path, wanted: Iterable[ExternalData]) -> int:
    """Refuse references that leave `folder`, do not exist, are no regular files, or ask beyond a file's end.

    Returns: bytes of the files referred to, each counted once.
    Raises: ModelFailed naming the tensor, never a path of this machine.
    """
    base = Path(os.path.realpath(folder))
    sizes: dict[str, int] = {}
    for item in wanted:
        if item.location not in sizes:
            sizes[item.location] = _size(base, item)
        size = sizes[item.location]
        end = item.offset + (item.length or 0)
        if end > size:
            raise ModelFailed(
                f"external data of {short(item.tensor)} ends at byte {end} of its file, which has {size} bytes: "
                "is the file still being copied?"
            )
    return sum(sizes.values())


def text(value: str | bytes) -> str:
    """A text of a model file.

    Raises: ModelFailed when it is not UTF-8, as protobuf's texts must be; its library then gives bytes.
    """
    if isinstance(value, bytes):
        raise ModelFailed(f"the model holds a text that is not UTF-8: {value[:_MAX_NAME]!r}")
    return value


def short(name: str) -> str:
    """A quoted name from a model file, fit for one line of text."""
    shown = "".join(char if char.isprintable() else "?" for char in name[:_MAX_NAME])
    return f"'{shown}{'…' if len(name) > _MAX_NAME else ''}'"


def _size(base: Path, item: ExternalData) -> int:
    name = short(item.tensor)
    location = item.location
    if not location or "\0" in location:
        raise ModelFailed(f"external data of {name} names no file")
    if PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive or location.startswith("\\"):
        raise ModelFailed(f"external data of {name} has an absolute location, expected one inside the model's folder")
    try:
        target = Path(os.path.realpath(base / location))
        if not target.is_relative_to(base):
            raise ModelFailed(f"external data of {name} points outside the model's folder")
        info = target.stat()
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise ModelFailed(f"external data of {name}: cannot read {short(location)}: {reason}") from exc
    if not stat.S_ISREG(info.st_mode):
        raise ModelFailed(
            f"external data of {name}: {short(location)} is {kind_of(info.st_mode)}, expected a regular file"
        )
    return info.st_size


def _parse(tensor: Any) -> ExternalData:
    entries = {text(entry.key): text(entry.value) for entry in tensor.external_data}
    name = text(tensor.name) or "an unnamed tensor"
    length = _natural(name, "length", entries["length"]) if "length" in entries else None
    return ExternalData(name, entries.get("location", ""), _natural(name, "offset", entries.get("offset", "0")), length)


def _natural(name: str, key: str, said: str) -> int:
    if not (said.isascii() and said.isdigit()) or len(said) > 18:
        raise ModelFailed(f"external data of {short(name)}: {key} is {short(said)}, expected a number of bytes")
    return int(said)


def _tensors(model: Any) -> Iterator[Any]:
    yield from _graph_tensors(model.graph)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)
    for function in model.functions:
        yield from _node_tensors(function.node)
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    # Recursion is bounded: protobuf itself refuses messages nested more than 100 deep.
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: Any) -> Iterator[Any]:
    yield attribute.t
    yield from attribute.tensors
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield sparse.values
        yield sparse.indices
    if attribute.HasField("g"):
        yield from _graph_tensors(attribute.g)
    for graph in attribute.graphs:
        yield from _graph_tensors(graph)
