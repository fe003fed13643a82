"""What the process finds around it: the user's folders, and variables that programs it starts may see."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path


def user_cache() -> Path:
    """This user's folder for what can be made again (XDG Base Directory Specification); temporary without a home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given.startswith("/"):
        return Path(given)
    try:
        return Path.home() / ".cache"
    except RuntimeError:
        return Path(tempfile.gettempdir())


def variables(names: Collection[str]) -> Mapping[str, str]:
    """Those of `names` that are set, with their values."""
    return {name: os.environ[name] for name in names if name in os.environ}


def forbid_telemetry() -> None:
    """Keep ONNX Runtime's wheels from reporting to their maker, which is for the user to allow, not for a library.

    To be called before it is imported: from then on it has begun, and keeps a file among temporary ones (seen with
    1.31). A value that the user has set stands.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def otel_variables() -> dict[str, str]:
    """What the environment says to everybody who speaks OpenTelemetry (`otel.py`)."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
