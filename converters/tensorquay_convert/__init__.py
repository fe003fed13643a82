"""Import trained models: convert to ONNX, prove the result equal to its source, publish it into a model repository.

A stranger to the server: the two meet only in the repository's folders and on the command line. `import_model` is the
Python API (`importing.py`); it is loaded when it is first asked for, because a worker does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorquay_convert.errors import CommandFailed
    from tensorquay_convert.importing import ImportResult, import_model

__all__ = ["CommandFailed", "ImportResult", "import_model"]

_HOMES = {
    "CommandFailed": "tensorquay_convert.errors",
    "ImportResult": "tensorquay_convert.importing",
    "import_model": "tensorquay_convert.importing",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415 - nothing is imported before it is asked for

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
