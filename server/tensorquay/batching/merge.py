"""Many requests' tensors into one batch, and whether an output is one.

Pure. Knows rows and axis 0; nothing of queues, sessions or protocols.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorquay.core.datatypes import Array, DataType
from tensorquay.core.errors import ModelFailed
from tensorquay.core.packed import Part, as_array


def merge(parts: Sequence[Part], datatype: DataType, shape: tuple[int, ...]) -> Array:
    """Stack `parts` along axis 0.

    Args:
        parts: one per rider, all of `datatype` and of one shape but for axis 0 (the riders' key proves it).
        shape: of the batch.
    Returns: the batch: the array itself when there is one, else one copy; may be read-only.
    """
    if len(parts) == 1:
        return as_array(parts[0], datatype, shape)
    if datatype is DataType.BYTES:
        return np.concatenate([as_array(part, datatype, ()) for part in parts])
    # One join of the raw bytes takes a fifth of np.concatenate's time for small arrays, and the same for large ones;
    # and what was received needs no array of its own. mypy does not know that arrays are buffers in this Python.
    try:
        joined = b"".join(parts)  # type: ignore[arg-type]
    except TypeError:  # an array whose elements do not lie in order
        joined = b"".join([part.tobytes() if isinstance(part, np.ndarray) else part for part in parts])
    return as_array(joined, datatype, shape)


def check_rows(name: str, array: Array, rows: int) -> None:
    """Output `array` of a batch of `rows` can be cut back into its riders' rows.

    Raises: ModelFailed when it cannot: the model's first axis is no batch axis after all.
    """
    shape = array.shape
    if not shape or shape[0] != rows:
        raise ModelFailed(
            f"output '{name}' has shape {list(shape)} for a batch of {rows} rows, expected a first axis of "
            f"{rows}: axis 0 of this model is not a batch; set max_batch_size to 0 in its configuration"
        )
