"""ONNX files of any size: read with their weights, written with large weights beside them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import onnx

from tensorquay_convert.sources import onnx_graph, onnx_rules


def load(path: Path) -> Any:
    """The model with its external weights in memory. Raises: OSError; onnx's own errors."""
    return onnx.load(str(path))


def save(model: Any, path: Path) -> None:
    """Write `model`; weights go to `<name>.data` beside it when all of it is larger than protobuf takes.

    Raises: OSError.
    """
    data = path.with_name(path.name + ".data")
    with contextlib.suppress(FileNotFoundError):
        data.unlink()
    if model.ByteSize() <= onnx_rules.INLINE_BYTES:
        path.write_bytes(model.SerializeToString())
        return
    onnx.save_model(
        model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=data.name,
        size_threshold=1024,
    )  # fmt: skip


def size(path: Path) -> int:
    """Bytes of the file and its external data. Raises: OSError; BadSource when data is missing or outside."""
    model = onnx.load(str(path), load_external_data=False)
    return path.stat().st_size + sum(each.stat().st_size for each in onnx_graph.external_files(model, path.parent))
