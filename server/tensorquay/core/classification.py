"""The classification extension: an output's tensor replaced by its best entries, as text.

Pure. Each entry is "<value>:<index>" or "<value>:<index>:<label>", best first. Source: V2 classification extension;
the way values are printed is Triton's (six decimals for floats, plain digits for integers).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import InvalidArgument
from tensorquay.core.tensors import Tensor

MAX_ENTRIES = 1_000_000
"""Most entries of one answer, over all rows."""


def classify(tensor: Tensor, k: int, labels: Sequence[str], *, batches: bool) -> Tensor:
    """The `k` highest entries of `tensor`, or of each of its rows.

    Equal values keep the order of their indices; NaN is lower than everything.

    Args:
        tensor: any numeric type but BOOL and BYTES. With `batches`, axis 0 is rows; all other axes are flattened and
            indices count in that flat order.
        k: at least 1; more than there are means all.
        labels: label of each index; missing or empty ones are left out of the text.

    Returns: BYTES of shape [k'] or [rows, k'], k' ≤ k.
    Raises: InvalidArgument for BOOL and BYTES, k < 1, and more than `MAX_ENTRIES` entries.
    """
    if tensor.datatype in {DataType.BYTES, DataType.BOOL}:
        raise InvalidArgument(
            f"class result not available for output '{tensor.name}': data-type {tensor.datatype.wire} has no order, "
            "ask for the output without 'classification'",
            facts={"output": tensor.name, "got": tensor.datatype.wire},
        )
    if k < 1:
        raise InvalidArgument(f"output '{tensor.name}': 'classification' must be at least 1, got {k}")
    values = _comparable(tensor)
    rows = values.shape[0] if batches and values.ndim else 1
    width = math.prod(values.shape[1:]) if batches and values.ndim else values.size
    count = min(k, width)
    if rows * count > MAX_ENTRIES:
        raise InvalidArgument(
            f"output '{tensor.name}': classification of {rows} rows by {count} entries is more than {MAX_ENTRIES}",
            facts={"output": tensor.name, "expected": MAX_ENTRIES, "got": rows * count},
        )
    table = values.reshape(rows, width)
    # Descending and stable: ~ turns any integer order around without overflow; negated NaN still sorts last.
    keys = -table if table.dtype.kind == "f" else ~table
    best = np.argsort(keys, axis=1, kind="stable")[:, :count]
    chosen = np.take_along_axis(table, best, axis=1)
    text = "{:f}:{}" if table.dtype.kind == "f" else "{}:{}"
    items = np.empty(rows * count, dtype=np.object_)
    for position, (value, index) in enumerate(zip(chosen.reshape(-1).tolist(), best.reshape(-1).tolist(), strict=True)):
        entry = text.format(value, index)
        if index < len(labels) and labels[index]:
            entry = f"{entry}:{labels[index]}"
        items[position] = entry.encode("utf-8", "replace")
    return Tensor(tensor.name, DataType.BYTES, items.reshape((rows, count) if batches else (count,)))


def _comparable(tensor: Tensor) -> Array:
    """The values as numpy orders and prints them: 16-bit floats become float32."""
    if tensor.datatype is DataType.BF16:
        return (tensor.array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if tensor.datatype is DataType.FP16:
        return tensor.array.astype(np.float32)
    return tensor.array
