"""From a path to the bytes of an ONNX file, without trusting what lies there.

A FIFO, a device, a socket, an endless or an oversized file must neither hang nor fill memory. Texts name files by
their last component only.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tensorquay.config.resources import tightest_memory_limit
from tensorquay.core.errors import ModelFailed

MAX_MODEL_BYTES = 2**31 - 1
"""Protobuf's own limit; larger models keep their weights in external data."""

_INNER_NAME = "model.onnx"

_SERVER_BYTES = 40 * 2**20
"""Less than the server takes without any model (docs/container.md, "Limits")."""


def find_model(path: Path) -> Path:
    """The ONNX file itself: `path`, or `model.onnx` inside it when it is a folder (Triton's layout with weights).

    Raises: ModelFailed when there is neither.
    """
    try:
        if not path.is_dir():
            return path
        inner = path / _INNER_NAME
        if inner.is_dir() or not inner.exists():
            raise ModelFailed(f"'{path.name}' is a folder without a file '{_INNER_NAME}' in it")
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    return inner


def read_model(path: Path) -> tuple[bytes, os.stat_result]:
    """The whole file and what `fstat` says about it.

    Raises: ModelFailed when it is missing, not a regular file, empty, unreadable, or larger than protobuf or the memory
    limit allows.
    """
    try:
        # Non-blocking, or opening a FIFO that nobody writes to would wait for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        raise _unreadable(path, exc) from exc
    with open(handle, "rb") as file:  # noqa: PTH123 - over a descriptor that was checked, not over a path
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise ModelFailed(f"'{path.name}' is {kind_of(info.st_mode)}, expected a regular file")
        if info.st_size == 0:
            raise ModelFailed(f"'{path.name}' is empty, expected an ONNX model")
        if info.st_size > MAX_MODEL_BYTES:
            raise ModelFailed(
                f"'{path.name}' has {info.st_size} bytes, protobuf allows {MAX_MODEL_BYTES}: "
                "save the weights as external data beside it"
            )
        _refuse_without_room(path, info.st_size, tightest_memory_limit(Path("/")))
        try:
            # One byte more than seen, so that a file still growing is noticed and an endless one is not read.
            data = file.read(info.st_size + 1)
        except (OSError, MemoryError) as exc:
            raise _unreadable(path, exc) from exc
    if len(data) != info.st_size:
        raise ModelFailed(f"'{path.name}' changed while it was read: is it still being copied?")
    return data, info


def _refuse_without_room(path: Path, size: int, limit: tuple[int, int] | None) -> None:
    """Refuse what cannot fit, before the kernel ends the server for it; what may fit is tried.

    While a file is parsed, its bytes and what was made of them are there at once.

    Args: limit: version and bytes of the tightest cgroup limit; None: there is none.
    """
    if limit is not None and 2 * size + _SERVER_BYTES > limit[1]:
        raise ModelFailed(
            f"'{path.name}' has {size} bytes and takes twice that while it is loaded, too much for the memory limit of "
            f"{limit[1]} bytes (cgroup v{limit[0]}): raise the limit, or save the weights as external data beside it"
        )


def kind_of(mode: int) -> str:
    """What a file that is not regular is, in words."""
    for test, words in (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if test(mode):
            return words
    return "not a regular file"


def _unreadable(path: Path, exc: Exception) -> ModelFailed:
    reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
    return ModelFailed(f"cannot read '{path.name}': {reason}")
